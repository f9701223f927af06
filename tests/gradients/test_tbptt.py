"""Identities of truncated backpropagation: what it equals, what it carries, where it is cut."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.gradients import apply_gradient, bptt, whole_batch
from seqjax.losses import mean_over

pytestmark = pytest.mark.usefixtures("quick_compilation", "standard_promotion")

CELLS = {"lstm": sj.LSTM(5), "stack": sj.Stack((sj.GRU(4), sj.Elman(5)))}


def problem(cell, time=12, lanes=3):
    keys = jax.random.split(jax.random.key(7), 3)
    params = cell.init(keys[0], 2)
    batch = (
        jax.random.normal(keys[1], (time, lanes, 2)),
        jax.random.normal(keys[2], (time, lanes, cell.features)),
    )

    def loss(params, carry, batch, key):
        xs, targets = batch
        state, ys = sj.unroll(cell, params, xs, carry)
        error = mean_over((ys - targets) ** 2)
        return error.value, (state, {"error": error})

    return loss, params, cell.initial_state(params, (lanes,)), batch


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_one_window_of_the_whole_length_is_bptt(cell):
    loss, params, carry, batch = problem(cell)
    optimizer = optax.adam(1e-2)
    one = jax.jit(sj.tbptt(12)(loss, optimizer))(params, optimizer.init(params), carry, batch, None)
    whole = jax.jit(whole_batch(loss, optimizer))(
        params, optimizer.init(params), carry, batch, None
    )
    chex.assert_trees_all_close(one, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k1", [1, 5, 6])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_windows_carry_exactly_what_one_scan_carries(cell, k1):
    """With a learning rate of 0 the params stay, so every window continues the same sequence."""
    loss, params, carry, batch = problem(cell)
    still = optax.sgd(0.0)
    result = jax.jit(sj.tbptt(k1)(loss, still))(params, still.init(params), carry, batch, None)
    state, ys = sj.unroll(cell, params, batch[0], carry)
    chex.assert_trees_all_close(result.carry, state, rtol=1e-6, atol=1e-6)
    error = result.metrics["error"]
    assert error.total.shape == (-(-12 // k1),)
    assert float(error.count.sum()) == ys.size  # nothing dropped, nothing twice
    np.testing.assert_allclose(
        float(error.total.sum()), float(jnp.sum((ys - batch[1]) ** 2)), rtol=1e-5
    )


def test_windows_are_updates_one_after_the_other():
    """The scan over windows is the loop a person would write, the ragged tail included."""
    loss, params, carry, batch = problem(sj.GRU(5), time=11)
    optimizer = optax.adam(1e-2)
    key = jax.random.key(3)
    update, gradient = jax.jit(sj.tbptt(4)(loss, optimizer)), jax.jit(bptt(loss))
    result = update(params, optimizer.init(params), carry, batch, key)
    opt_state, losses = optimizer.init(params), []
    for start in (0, 4, 8):
        window = jax.tree.map(lambda a, s=start: a[s : s + 4], batch)
        grads, carry, metrics = gradient(params, carry, window, None)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(metrics["loss"].value))
    chex.assert_trees_all_close(result.params, params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(result.carry, carry, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.metrics["loss"].value, losses, rtol=1e-5)


def test_the_gradient_of_a_window_does_not_reach_past_it():
    """Each window's gradient is that of the window alone; the path through the one before is cut."""
    cell = sj.LSTM(4)
    loss, params, carry, (xs, targets) = problem(cell, time=8)
    show = optax.GradientTransformation(  # an optimizer that keeps the last gradient, and stays put
        lambda params: params,
        lambda grads, *_: (jax.tree.map(jnp.zeros_like, grads), grads),  # pyright: ignore[reportArgumentType] - optax types say what a state is
    )
    update = jax.jit(sj.tbptt(4)(loss, show))
    second = update(params, params, carry, (xs, targets), None).opt_state
    middle = update(params, params, carry, (xs[:4], targets[:4]), None).carry
    alone = jax.grad(lambda p: loss(p, middle, (xs[4:], targets[4:]), None)[0])(params)
    through = jax.grad(lambda p: whole_loss(loss, p, carry, xs, targets))(params)
    chex.assert_trees_all_close(second, alone, rtol=1e-5, atol=1e-7)
    assert float(jnp.abs(second.recurrent_kernel - through.recurrent_kernel).max()) > 1e-3


def whole_loss(loss, params, carry, xs, targets):
    """The loss of the second window, with the path through the first one left open."""
    _, (carry, _) = loss(params, carry, (xs[:4], targets[:4]), None)
    return loss(params, carry, (xs[4:], targets[4:]), None)[0]


def test_metrics_keep_their_form_where_a_tail_is_left():
    def loss(params, carry, batch, key):
        return params * 1.0, (carry, {"each": sj.losses.Mean(jnp.ones(4), jnp.ones(4))})

    optimizer = optax.sgd(0.1)
    params = jnp.array(1.0)
    update = sj.tbptt(3)(loss, optimizer)
    for time, windows in ((6, 2), (7, 3), (2, 1)):
        result = update(params, optimizer.init(params), None, jnp.zeros((time, 1)), None)
        assert jnp.shape(result.metrics["each"].total) == (windows, 4)


def test_resets_cut_state_and_gradient_at_a_document():
    cell = sj.GRU(4)
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (6, 3, 2))
    resets = jnp.zeros((6, 3), bool).at[0].set(True)

    def loss(params, carry, batch, key):
        state, ys = sj.unroll(cell, params, batch[0], carry, resets=batch[1])
        return jnp.sum(ys**2), (state, {})

    optimizer = optax.sgd(0.1)
    used = jax.tree.map(jnp.ones_like, cell.initial_state(params, (3,)))
    update = jax.jit(sj.tbptt(3)(loss, optimizer))
    cut = update(params, (optimizer.init(params)), used, (xs, resets), None)
    fresh = cell.initial_state(params, (3,))
    begun = update(params, (optimizer.init(params)), fresh, (xs, jnp.zeros_like(resets)), None)
    chex.assert_trees_all_close(cut, begun, rtol=1e-6)


def test_every_window_draws_its_own_randomness():
    def loss(params, carry, batch, key):
        drawn = jax.random.normal(key)
        return params * 0.0, (carry, {"drawn": mean_over(drawn[None])})

    optimizer = optax.sgd(0.1)
    params = jnp.array(1.0)
    batch = jnp.zeros((7, 1))
    update = sj.tbptt(2)(loss, optimizer)
    result = update(params, optimizer.init(params), None, batch, jax.random.key(0))
    drawn = result.metrics["drawn"].value
    assert drawn.shape == (4,)
    assert len(set(np.asarray(drawn).tolist())) == 4


def test_a_second_call_never_traces_again():
    loss, params, carry, batch = problem(sj.Elman(3))
    optimizer = optax.sgd(0.1)
    update = jax.jit(chex.assert_max_traces(sj.tbptt(5)(loss, optimizer), n=1))
    result = update(params, optimizer.init(params), carry, batch, None)
    update(result.params, result.opt_state, result.carry, batch, None)


def test_bad_input_is_named():
    loss, params, carry, batch = problem(sj.Elman(3))
    optimizer = optax.sgd(0.1)
    opt_state = optimizer.init(params)
    for k1 in (0, -1, True):
        with pytest.raises(ValueError, match="tbptt: k1: expected a positive integer"):
            sj.tbptt(k1)
    with pytest.raises(ValueError, match="tbptt: k2: expected a positive integer, got 0"):
        sj.tbptt(4, 0)
    with pytest.raises(
        ValueError, match="weight is 'error', but with losses='new' a window has one"
    ):
        sj.tbptt(4, 8, weight="error")
    with pytest.raises(ValueError, match="accumulated_tbptt: k1: expected a positive integer"):
        sj.accumulated_tbptt(0)
    update = sj.tbptt(4)(loss, optimizer)
    with pytest.raises(ValueError, match=r"expected \[time, ...\] with one time for all"):
        update(params, opt_state, carry, (batch[0], batch[1][:-1]), None)
    with pytest.raises(ValueError, match="0 time steps"):
        update(params, opt_state, carry, jax.tree.map(lambda a: a[:0], batch), None)
    with pytest.raises(ValueError, match="start from the state that the model gives"):
        update(params, opt_state, None, batch, None)
    half = jax.tree.map(lambda s: s.astype(jnp.float16), carry)
    grows = sj.tbptt(4)(lambda p, c, b, k: (jnp.sum(p.bias), (carry, {})), optimizer)
    with pytest.raises(ValueError, match=r"gives back.* is float32\[3, 3\]; expected float16"):
        grows(params, opt_state, half, batch, None)


@pytest.mark.usefixtures("unchecked")
def test_losses_of_another_name_are_refused():
    with pytest.raises(
        ValueError, match="tbptt: losses: expected one of 'new', 'window', got 'all'"
    ):
        sj.tbptt(4, 8, losses="all")  # pyright: ignore[reportArgumentType] - refused by us as well


@pytest.mark.parametrize("method", [sj.tbptt, sj.accumulated_tbptt])
def test_a_window_longer_than_the_sequence_is_named(method):
    """Asked for by name it is refused; `tbptt(k1)` alone takes what a pass leaves as a short window."""
    loss, params, carry, batch = problem(sj.Elman(3))
    optimizer = optax.sgd(0.1)
    arguments = params, optimizer.init(params), carry, batch, None
    for lengths, named in (((13, 13), "k1 is 13"), ((13, 4), "k1 is 13"), ((4, 13), "k2 is 13")):
        message = f"tbptt: {named} but the batch has 12 steps; expected at most 12: .* whole_batch"
        with pytest.raises(ValueError, match=message.replace(" whole", ".*whole")):
            method(*lengths)(loss, optimizer)(*arguments)
    whole = jax.jit(whole_batch(loss, optimizer))(*arguments)
    for short in (method(13), method(12, 12), method(13, 20, short_batches=True)):
        found = jax.jit(short(loss, optimizer))(*arguments)
        chex.assert_trees_all_close(found.params, whole.params, rtol=1e-5, atol=1e-6)


def test_what_a_loss_must_give_is_named():
    loss, params, carry, batch = problem(sj.Elman(3))
    gradient = lambda loss, weight=None: sj.accumulated_tbptt(4, 8, weight=weight).gradient(loss)
    rows = lambda p, c, b, k: (jnp.zeros(3), loss(p, c, b, k)[1])
    with pytest.raises(ValueError, match=r"the loss gives float32\[3\]; expected one real number"):
        gradient(rows)(params, carry, batch, None)
    with pytest.raises(ValueError, match=r"weight is 'nats'; expected .* one of \['error'\]"):
        gradient(loss, "nats")(params, carry, batch, None)
    each = sj.losses.Mean(jnp.ones(3), jnp.ones(3))
    several = lambda p, c, b, k: (loss(p, c, b, k)[0], (c, {"each": each}))
    with pytest.raises(
        ValueError, match=r"'each', whose count has shape \(3,\); expected one number"
    ):
        gradient(several, "each")(params, carry, batch, None)


def scaled(params, carry, batch, key):
    """A carry that may be a plain number."""
    return params * carry * jnp.mean(batch), (carry * 0.5, {})


SGD = optax.sgd(0.1)
METHODS: dict[str, Any] = {
    "bptt": lambda loss: bptt(loss),
    "tbptt": lambda loss: lambda p, *a: sj.tbptt(2)(loss, SGD)(p, SGD.init(p), *a),
    "accumulated_tbptt": lambda loss: sj.accumulated_tbptt(2, 4).gradient(loss),
}
EVERY_METHOD = pytest.mark.parametrize("name", METHODS)
ONE = jnp.array(1.0)
LOSSES: dict[str, Any] = {
    "a bare scalar": (
        lambda p, c, b, k: p * 1.0,
        r"the loss gives float32\[\]; expected \(scalar, ",
    ),
    "no metrics": (
        lambda p, c, b, k: (p * 1.0, c),
        r"the loss gives \(float32\[\], NoneType\); expected \(scalar, \(carry, metrics\)\)",
    ),
    "three": (
        lambda p, c, b, k: (p * 1.0, c, {}),
        r"the loss gives \(float32\[\], NoneType, dict\)",
    ),
    "rows": (
        lambda p, c, b, k: (p * jnp.ones(3), (c, {})),
        r"the loss gives float32\[3\]; expected",
    ),
    "a count": (
        lambda p, c, b, k: (1, (c, {})),
        r"the loss gives int32\[\]; expected one real number",
    ),
    "a name": (
        lambda p, c, b, k: ("loss", (c, {})),
        "the loss gives str; expected one real number",
    ),
    "no function": (None, "the loss: expected a function, got None"),
}


@pytest.mark.usefixtures("unchecked")
@EVERY_METHOD
@pytest.mark.parametrize("case", LOSSES)
def test_the_form_of_a_loss_is_named(case, name):
    loss, message = LOSSES[case]
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        METHODS[name](loss)(ONE, None, jnp.ones(4), None)


@EVERY_METHOD
def test_metrics_that_are_no_means_are_named(name):
    with pytest.raises(ValueError, match=r"metrics None; expected a dict of sj\.losses\.Mean"):
        METHODS[name](lambda p, c, b, k: (p * 1.0, (c, None)))(ONE, None, jnp.ones(4), None)


@EVERY_METHOD
def test_a_plain_number_is_a_carry_and_a_loss(name):
    method = METHODS[name]
    came = method(scaled)(ONE, 2.0, jnp.ones(5), None)
    chex.assert_trees_all_equal(came, method(scaled)(ONE, jnp.array(2.0), jnp.ones(5), None))
    counted = method(lambda p, c, b, k: (1.5, (c + 1, {})))(ONE, 0, jnp.ones(4), None)
    assert int(counted.carry) == (1 if name == "bptt" else 2)
    assert float(jnp.mean(counted.metrics["loss"].value)) == 1.5


ARGUMENTS: dict[str, Any] = {
    "key": ((2.0, jnp.ones(4), 0), "key: expected one key, .* got 0"),
    "carry": (("state", jnp.ones(4), None), "carry: expected an array of numbers"),
    "batch": ((2.0, {"text": np.array(["a"] * 4)}, None), r"batch\['text'\]: expected an array"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["tbptt", "accumulated_tbptt"])
@pytest.mark.parametrize("case", ARGUMENTS)
def test_what_is_no_array_is_named(case, name):
    arguments, message = ARGUMENTS[case]
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        METHODS[name](scaled)(ONE, *arguments)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_optimizer_and_no_gradient_is_named():
    nothing: Any = None
    for name, make in (
        ("tbptt", sj.tbptt(2)),
        ("apply_gradient", sj.accumulated_tbptt(2)),
        ("apply_gradient", whole_batch),
        ("online", lambda loss, optimizer: sj.online(sj.GRU(2), sj.rtrl)(loss, optimizer)),
    ):
        with pytest.raises(
            ValueError, match=f"^{name}: optimizer: expected one of optax, got None"
        ):
            make(scaled, nothing)
    update = apply_gradient(scaled, optax.sgd(0.1))  # pyright: ignore[reportArgumentType] - as above
    message = (
        r"^apply_gradient: gradient gives \(float32\[\], \(float32\[\], dict\)\); expected a Grad"
    )
    with pytest.raises(ValueError, match=message):
        update(ONE, (), jnp.array(2.0), jnp.ones(4), None)


def test_bptt_names_params_that_have_no_gradient():
    with pytest.raises(ValueError, match=r"bptt: params\['n'\] is int32; expected floating point"):
        bptt(scaled)({"n": jnp.arange(3)}, None, None, None)
