"""The LSTM against the NumPy loop, finite differences and the peers."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.initializers import NAMED, Chrono, Orthogonal
from tests import oracles
from tests.oracles import Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments():
    """W, U, b, xs, h_0 and c_0."""
    return draw(
        (IN_FEATURES, 4 * FEATURES),
        (FEATURES, 4 * FEATURES),
        (4 * FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
        (BATCH, FEATURES),
    )


def by_equation(W, U, b, xs, h, c):
    """Hidden states and memories of all rows by the oracle: each [time, batch, features]."""
    blocks = zip(np.split(W, 4, axis=1), np.split(U, 4, axis=1), np.split(b, 4), strict=True)
    gates = dict(zip("ifgo", (Gate(*block) for block in blocks), strict=True))
    rows = [oracles.lstm(gates, xs[:, i], h[i], c[i]) for i in range(xs.shape[1])]
    return np.stack([hs for hs, _ in rows], axis=1), np.stack([cs for _, cs in rows], axis=1)


def loss(W, U, b, xs, h, c):
    """The outputs and the last memory, each entry with another weight."""
    cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, LSTMParams(W, U, b), xs, LSTMState(h, c))
    return (ys * WEIGHTS).sum() + (state.c * WEIGHTS[0]).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4, 5), has_aux=True))


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    def expected_loss(*a):
        hs, cs = by_equation(*a)
        return (hs * WEIGHTS).sum() + (cs[-1] * WEIGHTS[0]).sum()

    (_, (ys, state)), gradients = with_gradients(*arguments())
    hs, cs = by_equation(*arguments())
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(expected_loss, *arguments())
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_in_single_precision_the_cell_keeps_to_the_equations():
    W, U, b, xs, h, c = (jnp.asarray(a, jnp.float32) for a in arguments())
    state, ys = sj.unroll(sj.LSTM(FEATURES), LSTMParams(W, U, b), xs, LSTMState(h, c))
    hs, cs = by_equation(*arguments())
    np.testing.assert_allclose(ys, hs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-5, atol=1e-6)


def test_the_stacked_kernel_gives_the_same_network(x64):
    W, U, b, xs, h, c = arguments()
    stacked = np.concatenate([U, W])
    params = LSTMParams(*map(jnp.asarray, (W, U, b)))
    cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
    state = LSTMState(jnp.asarray(h), jnp.asarray(c))
    _, ys = sj.unroll(cell, params, jnp.asarray(xs), state)
    for x, y in zip(xs, np.asarray(ys), strict=True):
        i, f, g, o = np.split(np.concatenate([h, x], axis=1) @ stacked + b[None], 4, axis=1)
        c = oracles.sigmoid(f) * c + oracles.sigmoid(i) * np.tanh(g)
        h = oracles.sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(y, h, rtol=1e-12, atol=1e-12)


def from_torch(peer):
    """The weights of a PyTorch LSTM: transposed, in the same order, two biases folded into one."""
    return LSTMParams(
        input_kernel=jnp.asarray(peer.weight_ih_l0.detach().numpy().T),
        recurrent_kernel=jnp.asarray(peer.weight_hh_l0.detach().numpy().T),
        bias=jnp.asarray((peer.bias_ih_l0 + peer.bias_hh_l0).detach().numpy()),
    )


SHAPES = [(7, 5, 4, (3,)), (1, 1, 3, (2,)), (7, 2, 1, (2,)), (3, 2, 4, (1,)), (3, 2, 4, ())]


@pytest.mark.peer
@pytest.mark.parametrize(("features", "in_features", "time", "batch"), SHAPES)
def test_the_outputs_are_those_of_pytorch(features, in_features, time, batch, x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.LSTM(in_features, features, dtype=torch.float64)
    xs, h, c = draw((time, *batch, in_features), (*batch, features), (*batch, features))
    expected, (last_h, last_c) = peer(
        torch.tensor(xs), (torch.tensor(h)[None], torch.tensor(c)[None])
    )
    state, ys = sj.unroll(
        sj.LSTM(features, param_dtype=jnp.float64),
        from_torch(peer),
        jnp.asarray(xs),
        LSTMState(jnp.asarray(h), jnp.asarray(c)),
    )
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.h, last_h[0].detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.c, last_c[0].detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_the_gradients_are_those_of_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.LSTM(IN_FEATURES, FEATURES, dtype=torch.float64)
    xs, h, c = (torch.tensor(a, requires_grad=True) for a in arguments()[3:])
    expected, (_, last_c) = peer(xs, (h[None], c[None]))
    weights = torch.tensor(WEIGHTS)
    ((expected * weights).sum() + (last_c[0] * weights[0]).sum()).backward()
    _, gradients = with_gradients(*from_torch(peer)[:3], *arguments()[3:])
    theirs = (
        peer.weight_ih_l0.grad.T,
        peer.weight_hh_l0.grad.T,
        peer.bias_ih_l0.grad,  # a sum has the gradient of each of its two terms
        xs.grad,
        h.grad,
        c.grad,
    )
    for a, b in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("peer_name", ["LSTMCell", "OptimizedLSTMCell"])
def test_the_outputs_are_those_of_flax(peer_name, x64):
    peer = getattr(linen, peer_name)(FEATURES, dtype=jnp.float64, param_dtype=jnp.float64)
    xs, h, c = map(jnp.asarray, arguments()[3:])
    variables = peer.init(jax.random.key(0), (c, h), xs[0])
    theirs: Any = variables["params"]
    params = LSTMParams(
        input_kernel=jnp.concatenate([theirs[f"i{gate}"]["kernel"] for gate in "ifgo"], axis=1),
        recurrent_kernel=jnp.concatenate([theirs[f"h{gate}"]["kernel"] for gate in "ifgo"], axis=1),
        bias=jnp.concatenate([theirs[f"h{gate}"]["bias"] for gate in "ifgo"]),
    )
    cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, params, xs, LSTMState(h, c))
    for x, y in zip(xs, ys, strict=True):
        (c, h), expected = peer.apply(variables, (c, h), x)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.c, c, rtol=1e-12, atol=1e-12)


def haiku_lstm(W, U, b, xs, h, c):
    """Haiku's LSTM: one kernel [W; U], gates in the order i, g, f, o, and 1 added to f in the step."""
    hk = pytest.importorskip("haiku", reason="Haiku is not installed")
    core = hk.without_apply_rng(hk.transform(lambda x, state: hk.LSTM(FEATURES)(x, state)))
    i, f, g, o = jnp.split(jnp.concatenate([W, U]), 4, axis=1)
    b_i, b_f, b_g, b_o = jnp.split(b, 4)
    linear = {"w": jnp.concatenate([i, g, f, o], 1), "b": jnp.concatenate([b_i, b_g, b_f - 1, b_o])}
    state, hs = hk.LSTMState(h, c), []
    for x in xs:
        h, state = core.apply({"lstm/linear": linear}, x, state)
        hs.append(h)
    return jnp.stack(hs), state.cell


def equinox_lstm(W, U, b, xs, h, c):
    """Equinox' LSTMCell: transposed kernels in our order, one row at a time."""
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed")
    cell = eqx.nn.LSTMCell(IN_FEATURES, FEATURES, key=jax.random.key(0))
    weights = lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias)
    cell = eqx.tree_at(weights, cell, (W.T, U.T, b))
    hs = []
    for x in xs:
        h, c = jax.vmap(cell)(x, (h, c))
        hs.append(h)
    return jnp.stack(hs), c


def keras_lstm(W, U, b, xs, h, c):
    """Keras' LSTM: our order, batch-major."""
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layer = keras.layers.LSTM(
        FEATURES,
        activation=jnp.tanh,  # that of Keras rounds to float32
        return_sequences=True,
        return_state=True,
        dtype="float64",
    )
    layer.build((BATCH, TIME, IN_FEATURES))
    unused = [v.value for v in layer.non_trainable_variables]  # the seed of its dropout
    inputs = jnp.swapaxes(xs, 0, 1)
    (hs, _, c), _ = layer.stateless_call([W, U, b], unused, inputs, initial_state=[h, c])
    return jnp.swapaxes(hs, 0, 1), c


@pytest.mark.peer
@pytest.mark.parametrize("peer", [haiku_lstm, equinox_lstm, keras_lstm])
def test_outputs_and_gradients_are_those_of_haiku_equinox_and_keras(peer, x64, standard_promotion):
    def peer_loss(*a):
        hs, c = peer(*a)
        return (hs * WEIGHTS).sum() + (c * WEIGHTS[0]).sum(), hs

    (_, (ys, _)), gradients = with_gradients(*arguments())
    theirs = jax.jit(jax.value_and_grad(peer_loss, argnums=range(6), has_aux=True))
    (_, expected), expected_gradients = theirs(*arguments())
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


PROJECTION = 2


def projected_arguments(projection=PROJECTION, features=FEATURES, batch=(BATCH,)):
    """W, U, b, P, xs, h_0 and c_0, where h has `projection` entries."""
    return draw(
        (IN_FEATURES, 4 * features),
        (projection, 4 * features),
        (4 * features,),
        (features, projection),
        (TIME, *batch, IN_FEATURES),
        (*batch, projection),
        (*batch, features),
    )


def projected_row(gates, P, x, h, c):
    """One sequence, as Sak, Senior, Beaufays 2014 have it, without peepholes: r_t = W_rm m_t."""
    rs, cs = [], []
    for x_t in x:
        i = oracles.sigmoid(gates["i"](x_t, h))
        f = oracles.sigmoid(gates["f"](x_t, h))
        c = f * c + i * np.tanh(gates["g"](x_t, h))
        m = oracles.sigmoid(gates["o"](x_t, h)) * np.tanh(c)
        h = m @ P
        rs.append(h)
        cs.append(c)
    return np.array(rs), np.array(cs)


def projected_by_equation(W, U, b, P, xs, h, c):
    """Projected states and memories of all rows: [time, *batch, projection], and with features."""
    blocks = zip(np.split(W, 4, axis=1), np.split(U, 4, axis=1), np.split(b, 4), strict=True)
    gates = dict(zip("ifgo", (Gate(*block) for block in blocks), strict=True))
    if h.ndim == 1:
        return projected_row(gates, P, xs, h, c)
    rows = [projected_row(gates, P, xs[:, i], h[i], c[i]) for i in range(xs.shape[1])]
    return np.stack([rs for rs, _ in rows], axis=1), np.stack([cs for _, cs in rows], axis=1)


def projected_score(hs, c):
    """The outputs and the last memory, each entry with another weight."""
    return (hs * WEIGHTS[..., :PROJECTION]).sum() + (c * WEIGHTS[0]).sum()


def projected_loss(W, U, b, P, xs, h, c):
    cell = sj.LSTM(FEATURES, projection=PROJECTION, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, LSTMParams(W, U, b, P), xs, LSTMState(h, c))
    return projected_score(ys, state.c), (ys, state)


projected_gradients = jax.jit(jax.value_and_grad(projected_loss, argnums=range(7), has_aux=True))


def test_the_projected_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    def expected_loss(*a):
        hs, cs = projected_by_equation(*a)
        return projected_score(hs, cs[-1])

    (_, (ys, state)), gradients = projected_gradients(*projected_arguments())
    hs, cs = projected_by_equation(*projected_arguments())
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(expected_loss, *projected_arguments())
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("sizes", [(1, 2, (1,)), (4, 5, ())])
def test_in_single_precision_the_projected_cell_keeps_to_the_equations(sizes):
    wide = projected_arguments(*sizes)
    W, U, b, P, xs, h, c = (jnp.asarray(a, jnp.float32) for a in wide)
    cell = sj.LSTM(sizes[1], projection=sizes[0])
    state, ys = sj.unroll(cell, LSTMParams(W, U, b, P), xs, LSTMState(h, c))
    hs, cs = projected_by_equation(*wide)
    np.testing.assert_allclose(ys, hs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.peer
def test_outputs_and_gradients_of_the_projected_cell_are_those_of_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.LSTM(IN_FEATURES, FEATURES, proj_size=PROJECTION, dtype=torch.float64)
    xs, h, c = (torch.tensor(a, requires_grad=True) for a in projected_arguments()[4:])
    expected, (_, last_c) = peer(xs, (h[None], c[None]))
    weights = torch.tensor(WEIGHTS)
    loss = (expected * weights[..., :PROJECTION]).sum() + (last_c[0] * weights[0]).sum()
    loss.backward()
    params = from_torch(peer)._replace(projection=jnp.asarray(peer.weight_hr_l0.detach().numpy().T))
    (_, (ys, state)), gradients = projected_gradients(*params, *projected_arguments()[4:])
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.c, last_c[0].detach().numpy(), rtol=1e-10, atol=1e-12)
    theirs = (
        peer.weight_ih_l0.grad.T,
        peer.weight_hh_l0.grad.T,
        peer.bias_ih_l0.grad,  # a sum has the gradient of each of its two terms
        peer.weight_hr_l0.grad.T,
        xs.grad,
        h.grad,
        c.grad,
    )
    for a, b in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


def test_a_projection_changes_the_sizes_of_y_and_h_and_the_cell_is_no_longer_gated(key):
    cell = sj.LSTM(16, projection=4)
    assert (cell.features, cell.out_features, sj.LSTM(16).out_features) == (16, 4, 16)
    assert sj.as_gated(cell) is None
    assert sj.as_gated(sj.LSTM(16)) == sj.LSTM(16)
    params = cell.init(key, 3)
    assert params.projection is not None
    for block in np.split(np.asarray(params.recurrent_kernel), 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-5)  # orthonormal rows
    bound = np.sqrt(6 / (16 + 4))  # Glorot; 64 entries come near to it, as `is_drawn_by` says
    assert params.projection.shape == (16, 4)
    assert 0.8 * bound < np.abs(params.projection).max() <= bound
    state = cell.initial_state(params, (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 4)))
    np.testing.assert_array_equal(state.c, np.zeros((2, 16)))


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (0, r"^LSTM: projection: expected a positive integer, got 0$"),
        (
            3,
            r"^LSTM: projection: expected fewer than the 3 features that are projected, got 3$",
        ),
    ],
)
def test_a_projection_that_is_none_is_refused(projection, message):
    with pytest.raises(ValueError, match=message):
        sj.LSTM(3, projection=projection)


@pytest.mark.parametrize("longest", [2, 100])
def test_chrono_draws_the_forget_bias_and_opposes_the_input_gate(longest, key):
    cell = sj.LSTM(64, forget_bias=Chrono(longest), recurrent_init="zeros")
    i, f, g, o = jnp.split(cell.init(key, 2).bias, 4)
    np.testing.assert_array_equal(i, -f)
    np.testing.assert_array_equal([g, o], np.zeros((2, 64)))
    assert 0 <= f.min() <= f.max() <= np.log(longest - 1)
    if longest > 2:  # u ~ U(1, 99) lies on either side of 50: all on one with probability 2⁻⁶³
        assert f.min() < np.log(50) < f.max()


def test_the_forget_bias_starts_at_one_in_init_and_at_zero_in_the_other_gates(key):
    i, f, g, o = jnp.split(sj.LSTM(5).init(key, 2).bias, 4)
    np.testing.assert_array_equal(f, np.ones(5))
    np.testing.assert_array_equal([i, g, o], np.zeros((3, 5)))
    other = jnp.split(sj.LSTM(5, forget_bias=-2.5).init(key, 2).bias, 4)[1]
    np.testing.assert_array_equal(other, np.full(5, -2.5))


def test_the_step_adds_nothing_to_the_forget_bias():
    nothing = LSTMParams(jnp.zeros((2, 12)), jnp.zeros((3, 12)), jnp.zeros(12))
    before = LSTMState(jnp.zeros(3), jnp.ones(3))
    after, y = sj.LSTM(3).step(nothing, before, jnp.ones(2))
    np.testing.assert_allclose(after.c, np.full(3, 0.5), rtol=1e-6)  # σ(0) · 1
    np.testing.assert_allclose(y, np.full(3, 0.5 * np.tanh(0.5)), rtol=1e-6)


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_gate_alone(rule, key):
    params = sj.LSTM(8, input_init=rule, recurrent_init=rule).init(key, in_features=8)
    for kernel in (params.input_kernel, params.recurrent_kernel):
        blocks = np.split(np.asarray(kernel), 4, axis=1)
        assert all(oracles.is_drawn_by(rule, block) for block in blocks)
        if rule not in ("identity", "zeros"):
            assert not np.allclose(blocks[0], blocks[1])
    assert not np.allclose(params.input_kernel, params.recurrent_kernel) or rule in (
        "identity",
        "zeros",
    )


def test_the_bias_is_drawn_by_its_own_initialiser_but_for_the_forget_gate(key):
    i, f, g, o = jnp.split(sj.LSTM(64, bias_init="uniform_fan_in").init(key, 2).bias, 4)
    np.testing.assert_array_equal(f, np.ones(64))
    for bias in (i, g, o):
        assert 0.1 < np.abs(bias).max() <= 1 / 8  # 1 / √64


def test_the_state_starts_at_zero(key):
    cell = sj.LSTM(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))
    np.testing.assert_array_equal(state.c, np.zeros((2, 3)))


def test_features_below_one_are_refused():
    with pytest.raises(ValueError, match="LSTM: features: expected a positive integer, got 0"):
        sj.LSTM(0)


@pytest.mark.parametrize("field", ["input_init", "recurrent_init", "projection_init"])
def test_an_unknown_initialiser_is_refused_with_the_known_names(field):
    unknown: Any = {field: "kaiming"}
    with pytest.raises(ValueError, match=f"LSTM: {field}: .*'kaiming'") as refusal:
        sj.LSTM(3, **unknown)
    assert all(repr(name) in str(refusal.value) for name in NAMED)


def test_an_unknown_bias_initialiser_is_refused_with_the_names_that_draw_vectors():
    with pytest.raises(
        ValueError,
        match=r"^LSTM: bias_init: expected one of 'uniform_fan_in', 'zeros', got 'kaiming'$",
    ):
        sj.LSTM(3, bias_init="kaiming")
    with pytest.raises(ValueError, match=r"^LSTM: bias_init: Orthogonal.* draws matrices only"):
        sj.LSTM(3, bias_init=Orthogonal())


def test_inputs_of_another_size_are_refused(key):
    cell = sj.LSTM(3)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"LSTM: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
