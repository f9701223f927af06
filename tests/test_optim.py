"""Halving, clipping statistics, skipping and the ready chain, against loops and plain optax."""

import math
from typing import Any

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqjax import optim

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.1])}
LARGEST_INT32 = 2**31 - 1


def gradients(seed, scale=1.0):
    """A gradient of the shape of PARAMS."""
    rng = np.random.default_rng(seed)
    draw = lambda p: jnp.asarray(scale * rng.normal(size=p.shape), p.dtype)
    return jax.tree.map(draw, PARAMS)


def numpy_norm(tree):
    leaves = [np.asarray(x).astype(np.float64) for x in jax.tree.leaves(tree)]
    return math.sqrt(sum(np.square(x).sum() for x in leaves))


def with_nan(gradient, value=math.nan):
    """The same gradient with one entry that is not finite."""
    return gradient | {"b": gradient["b"].at[0].set(value)}


def run(optimizer, sequence, params=PARAMS) -> Any:
    """Parameters and state after one step for each gradient of the sequence."""
    state: Any = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for gradient in sequence:
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def recorded(state) -> Any:
    """The statistics in a state that has some (a type checker cannot know which fields it has)."""
    return optim.statistics(state)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


# Halving by global norm ---------------------------------------------------------------------------


def halve(gradient, threshold, repeat=False) -> Any:
    rule = optim.halve_by_global_norm(threshold, repeat=repeat)
    return rule.update(gradient, rule.init(gradient))[0]


BELOW_5 = np.nextafter(np.float32(5), np.float32(0))


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize(
    ("gradient", "once", "repeated"),
    [
        ([3.0, 4.0], [1.5, 2.0], [1.5, 2.0]),  # at the threshold
        ([0.0, BELOW_5], [0.0, BELOW_5], [0.0, BELOW_5]),
        ([300.0, 400.0], [150.0, 200.0], [300 / 128, 400 / 128]),
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_a_gradient_is_halved_from_the_threshold_on(gradient, once, repeated, repeat):
    halved = halve(jnp.array(gradient), 5.0, repeat)
    np.testing.assert_array_equal(halved, np.float32(repeated if repeat else once))


def test_repeated_halving_is_exact_at_powers_of_two():
    thresholds, halvings = np.meshgrid([1.0, 0.25, 3.0, 2.0**-20], [0, 1, 2, 7, 40])
    above = jnp.asarray(thresholds * 2.0**halvings / 2, jnp.float32)  # ‖∇‖ = τ 2ⁿ⁻¹
    every = jax.vmap(jax.vmap(lambda g, t: halve(g, t, repeat=True)))
    halved = every(above, jnp.asarray(thresholds, jnp.float32))
    np.testing.assert_array_equal(halved, np.float32(thresholds / 2))
    repeated = jax.vmap(lambda t: halve(jnp.array([3.0, 4.0]), t, repeat=True))
    halved = repeated(jnp.array([1.0, 5.0, 6.0]))
    np.testing.assert_array_equal(halved, [[0.375, 0.5], [1.5, 2], [3, 4]])


@jax.jit
def halve_repeatedly(gradient, threshold):
    return halve(gradient, threshold, repeat=True), optax.tree.norm(gradient)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    st.lists(st.floats(-(2.0**20), 2.0**20, width=32), min_size=3, max_size=3),
    st.floats(2.0**-10, 2.0**20, width=32),
)
def test_repeated_halving_is_a_loop_of_halvings(entries, threshold):
    expected = np.array(entries, np.float32)
    halved, norm = halve_repeatedly(jnp.asarray(expected), jnp.float32(threshold))
    norm = float(norm)
    while norm >= threshold:
        norm, expected = norm / 2, expected / 2
    # Equal except for subnormal numbers, which XLA may flush to zero.
    np.testing.assert_allclose(halved, expected, rtol=0, atol=2.0**-126)


@pytest.mark.parametrize("repeat", [False, True])
def test_a_non_finite_entry_stays_and_a_norm_that_overflows_becomes_smaller(repeat):
    for value in (math.nan, math.inf, -math.inf):
        halved = halve(jnp.array([value, 0.5]), 1.0, repeat)
        np.testing.assert_array_equal(halved[0], value)
        assert np.isfinite(halved[1])
    halved = halve(jnp.full(2, 1e38), 1.0, repeat)
    assert np.isfinite(halved).all()
    assert (halved < 1e38).all()


def test_the_norm_is_over_all_leaves_in_float32_and_each_keeps_its_dtype():
    gradient = {
        "wide": jnp.array([30.0]),
        "narrow": jnp.array([40.0], jnp.bfloat16),
        "half": jnp.array([1200.0], jnp.float16),
    }
    halved = halve(gradient, 1201.0)  # ‖∇‖ is 1201.04, of which no leaf has more than 1200
    assert jax.tree.map(lambda x: x.dtype, halved) == jax.tree.map(lambda x: x.dtype, gradient)
    assert_same(halved, {"wide": [15.0], "narrow": [20.0], "half": [600.0]})
    assert_same(halve(gradient, 1201.1), gradient)
    # In bfloat16 the squares would stop adding up at 256.
    gradient = jnp.ones(1024, jnp.bfloat16)
    np.testing.assert_array_equal(halve(gradient, 32.0), 0.5)
    np.testing.assert_array_equal(halve(gradient, 32.001), 1)


def test_an_injected_threshold_changes_without_recompiling():
    optimizer: Any = optax.inject_hyperparams(optim.halve_by_global_norm)(
        threshold=10.0, repeat=True
    )
    gradient = jnp.array([3.0, 4.0])
    state: Any = optimizer.init(gradient)
    step = jax.jit(chex.assert_max_traces(optimizer.update, n=1))
    same, state = step(gradient, state)
    halved, _ = step(gradient, optim.set_hyperparameters(state, threshold=2.0))
    np.testing.assert_array_equal(same, gradient)
    np.testing.assert_array_equal(halved, gradient / 4)


# Clipping statistics ------------------------------------------------------------------------------

CLIPS = {
    "by value": optax.clip(0.5),
    "by global norm": optax.clip_by_global_norm(0.5),
    "by block rms": optax.clip_by_block_rms(0.5),
    "adaptive": optax.adaptive_grad_clip(0.1),
    "halving": optim.halve_by_global_norm(0.5),
    "a chain": optax.chain(optax.clip(0.7), optax.clip_by_global_norm(0.5)),
}


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS.keys())
def test_any_clip_keeps_its_updates_and_gains_its_statistics(clip):
    counted: Any = optim.clip_statistics(clip)
    state: Any = counted.init(PARAMS)
    for seed, scale, clipped in ((0, 5.0, 1), (1, 1e-3, 1), (2, 9.0, 2)):
        gradient = gradients(seed, scale)
        updates, state = counted.update(gradient, state, PARAMS)
        expected, _ = clip.update(gradient, clip.init(PARAMS), PARAMS)
        assert_same(updates, expected)
        found = recorded(state)
        np.testing.assert_allclose(found.norm_before, numpy_norm(gradient), rtol=1e-6)
        np.testing.assert_allclose(found.norm_after, numpy_norm(expected), rtol=1e-6)
        assert found.clipped == clipped
    np.testing.assert_allclose(recorded(state).clip_rate, 2 / 3)
    assert recorded(state).steps == 3


def test_a_changed_entry_counts_however_small_and_a_nan_that_passes_does_not():
    # The global norm does not show the change: 1 + 10⁻¹⁰ is 1 in float32.
    set_second_to_zero: Any = lambda gradient, _: gradient.at[1].set(0)
    clip: Any = optim.clip_statistics(optax.stateless(set_second_to_zero))
    _, state = clip.update(jnp.array([1.0, 1e-5]), clip.init(jnp.zeros(2)))
    assert state.norm_before == state.norm_after
    assert state.clipped == 1
    clip = optim.clip_statistics(optax.clip(1.0))
    _, state = clip.update(jnp.array([math.nan, 0.5]), clip.init(jnp.zeros(2)))
    assert (state.steps, state.clipped) == (1, 0)
    assert np.isnan(state.norm_before)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_statistics_are_a_scan_carry_in_every_dtype(x64, dtype):
    clip: Any = optim.clip_statistics(optim.halve_by_global_norm(1.0))
    gradient = jnp.ones(4, dtype)
    step = lambda state, _: (clip.update(gradient, state)[1], None)
    state, _ = jax.lax.scan(step, clip.init(gradient), length=5)
    assert (state.norm_before, state.norm_after, state.steps, state.clipped) == (2, 1, 5, 5)
    assert state.norm_before.dtype == jnp.float32


def test_counts_stop_at_their_maximum_and_do_not_turn_negative():
    clip: Any = optim.clip_statistics(optax.clip(1.0))
    full = jnp.int32(LARGEST_INT32)
    state: Any = clip.init(jnp.zeros(2))._replace(steps=full, clipped=full)
    _, state = clip.update(jnp.full(2, 5.0), state)
    assert (state.steps, state.clipped) == (LARGEST_INT32, LARGEST_INT32)


def test_extra_arguments_reach_the_clip():
    scaled: Any = lambda gradient, state, params=None, *, by: (gradient * by, state)
    scale = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), scaled)
    clip: Any = optim.clip_statistics(scale)
    updates, _ = clip.update(jnp.ones(2), clip.init(jnp.ones(2)), by=3.0)
    np.testing.assert_array_equal(updates, 3)


# Skipping what is not finite ----------------------------------------------------------------------


@pytest.mark.usefixtures("standard_promotion")
def test_a_skipped_step_changes_nothing():
    optimizer: Any = optim.skip_non_finite(
        optax.chain(optim.clip_statistics(optax.clip(1.0)), optax.adamw(0.1, weight_decay=0.1))
    )
    good = [gradients(seed) for seed in range(4)]
    nan, plus, minus = (with_nan(good[0], value) for value in (math.nan, math.inf, -math.inf))
    params, state = run(optimizer, [nan, good[0], good[1], plus, minus, *good[2:], minus, nan])
    expected, expected_state = run(optimizer, good)
    assert_same(params, expected)
    assert_same(state.inner_state, expected_state.inner_state)
    assert recorded(state).skipped == 5
    assert recorded(expected_state).skipped == 0


def test_thousands_of_non_finite_gradients_in_a_row_are_all_skipped():
    optimizer: Any = optim.skip_non_finite(optax.sgd(0.1, momentum=0.9))
    start: Any = optimizer.init(jnp.ones(2))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jnp.array([math.nan, 1.0]), state, params)
        return (params + updates, state), None

    (params, state), _ = jax.lax.scan(step, (jnp.ones(2), start), length=5000)
    np.testing.assert_array_equal(params, 1)
    assert_same(state.inner_state, start.inner_state)
    assert recorded(state).skipped == 5000


def test_no_number_of_skips_in_a_row_exhausts_or_overflows_the_count():
    optimizer: Any = optim.skip_non_finite(optax.sgd(0.1))
    last = jnp.int32(LARGEST_INT32 - 1)
    state: Any = optimizer.init(jnp.ones(2))._replace(notfinite_count=last, total_notfinite=last)
    for _ in range(3):
        updates, state = optimizer.update(jnp.array([math.nan, 1.0]), state)
        np.testing.assert_array_equal(updates, 0)
    assert recorded(state).skipped == LARGEST_INT32


@pytest.mark.usefixtures("standard_promotion")
def test_a_non_finite_micro_batch_is_skipped_before_it_is_accumulated():
    accumulating: Any = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    good = [gradients(seed) for seed in range(4)]
    sequence = [good[0], with_nan(good[0]), good[1], good[2], good[3]]
    params, state = run(optim.skip_non_finite(accumulating.gradient_transformation()), sequence)
    expected, _ = run(accumulating, good)
    assert_close(params, expected, rtol=1e-6)
    assert recorded(state).skipped == 1
    # Why it has to be before: a NaN never leaves the accumulator.
    inside, state = run(
        optax.MultiSteps(optim.skip_non_finite(optax.sgd(0.1)), 2), sequence[1:] * 9
    )
    assert_same(inside, PARAMS)
    assert recorded(state).skipped == 18


# Reading the statistics ---------------------------------------------------------------------------


def base():
    return optim.skip_non_finite(
        optax.chain(optim.clip_statistics(optax.clip_by_global_norm(1.0)), optax.scale(-0.1))
    )


def injected():
    return optax.inject_hyperparams(lambda rate: optax.chain(base(), optax.scale(rate)))(rate=0.1)


NESTED = {
    "as it is": base,
    "in chains": lambda: optax.chain(optax.identity(), optax.chain(optax.identity(), base())),
    "in a named chain": lambda: optax.named_chain(("first", base()), ("second", optax.trace(0.9))),
    "in inject_hyperparams": injected,
    "in MultiSteps": lambda: optax.MultiSteps(base(), 1).gradient_transformation(),
    "in apply_if_finite": lambda: optax.apply_if_finite(base(), 3),
    "in masked": lambda: optax.masked(base(), True),
    "in everything": lambda: optax.chain(
        optax.apply_if_finite(optax.MultiSteps(injected(), 1).gradient_transformation(), 3)
    ),
}


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED.keys())
def test_statistics_are_found_wherever_they_are_nested(make):
    small, large = gradients(0, 1e-3), gradients(1, 10.0)
    _, state = run(make(), [small, large, large, with_nan(small)])
    found = recorded(state)
    np.testing.assert_allclose(found.norm_before, numpy_norm(large), rtol=1e-6)
    np.testing.assert_allclose(found.norm_after, 1, rtol=1e-6)
    assert (found.steps, found.clipped, found.skipped) == (3, 2, 1)
    np.testing.assert_allclose(found.clip_rate, 2 / 3)


def test_what_a_state_does_not_record_is_none():
    assert optim.statistics(optax.adam(0.1).init(PARAMS)) is None
    clip_only = recorded(optim.clip_statistics(optax.clip(1.0)).init(PARAMS))
    skip_only = recorded(optim.skip_non_finite(optax.sgd(0.1)).init(PARAMS))
    assert clip_only.skipped is None
    assert (clip_only.steps, clip_only.clip_rate) == (0, 0)
    assert skip_only == optim.Statistics(skipped=skip_only.skipped)
    assert skip_only.skipped == 0


def test_skips_add_up_over_all_that_skip():
    each = optim.skip_non_finite(optax.identity())
    _, state = run(optax.chain(each, each), [with_nan(gradients(0))])
    assert recorded(state).skipped == 1  # the second sees the zeros that the first gives
    both = optax.ApplyIfFiniteState(0, True, jnp.int32(2), each.init(PARAMS))
    assert recorded((state, both)).skipped == 3


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optim.clip_statistics(optax.clip(1.0)), optim.clip_statistics(optax.clip(2.0))),
        optim.clip_statistics(optim.clip_statistics(optax.clip(1.0))),
    ],
)
def test_two_clip_statistics_are_ambiguous(optimizer):
    with pytest.raises(ValueError, match="the state holds 2 clip_statistics, expected one"):
        recorded(optimizer.init(PARAMS))


def test_statistics_of_a_mapped_state_are_those_of_each_member():
    optimizer: Any = optim.clipped_adamw(0.1, clip_norm=1.0)
    scales = jnp.array([0.1, 1.0, 10.0, math.nan])
    states: Any = jax.vmap(lambda _: optimizer.init(jnp.ones(2)))(scales)
    _, states = jax.vmap(lambda s, c: optimizer.update(s * jnp.array([3.0, 4.0]), c, jnp.ones(2)))(
        scales, states
    )
    found = recorded(states)
    np.testing.assert_allclose(found.norm_before, [0.5, 5, 50, 0], rtol=1e-6)
    np.testing.assert_array_equal(found.clip_rate, [0, 1, 1, 0])
    np.testing.assert_array_equal(found.skipped, [0, 0, 0, 1])


# The ready chain ----------------------------------------------------------------------------------


def numpy_adamw(sequence, rate, clip_norm, decay, b1, b2, eps):
    """Clip by global norm and AdamW, leaf by leaf in float64."""
    params = {k: np.asarray(p, np.float64) for k, p in PARAMS.items()}
    m = {k: np.zeros_like(p) for k, p in params.items()}
    v = {k: np.zeros_like(p) for k, p in params.items()}
    for t, gradient in enumerate(sequence, start=1):
        scale = min(1, clip_norm / numpy_norm(gradient))
        for k, p in params.items():
            g = scale * np.asarray(gradient[k], np.float64)
            m[k] = b1 * m[k] + (1 - b1) * g
            v[k] = b2 * v[k] + (1 - b2) * g**2
            m_hat, v_hat = m[k] / (1 - b1**t), v[k] / (1 - b2**t)
            params[k] = p - rate * (m_hat / (np.sqrt(v_hat) + eps) + decay * p)
    return params


@pytest.mark.parametrize(("decay", "rest"), [(0.0, (0.9, 0.999, 1e-8)), (0.1, (0.8, 0.95, 1e-6))])
def test_clipped_adamw_is_its_equations(decay, rest):
    sequence = [gradients(seed, 10.0**-seed) for seed in range(5)]
    options = dict(zip(("b1", "b2", "eps"), rest, strict=True))
    optimizer = optim.clipped_adamw(0.05, clip_norm=0.7, weight_decay=decay, **options)
    assert_close(run(optimizer, sequence)[0], numpy_adamw(sequence, 0.05, 0.7, decay, *rest))


def test_clipped_adamw_skips_what_is_not_finite_and_counts_it():
    good = [gradients(seed) for seed in range(3)]
    optimizer: Any = optim.clipped_adamw(0.1, weight_decay=0.1)
    params, state = run(optimizer, [good[0], with_nan(good[1]), good[1], good[2]])
    expected, expected_state = run(optimizer, good)
    assert_same(params, expected)
    found, wanted = recorded(state), recorded(expected_state)
    assert found._replace(skipped=None) == wanted._replace(skipped=None)
    assert (found.skipped, wanted.skipped) == (1, 0)


def test_a_weight_decay_mask_spares_what_it_masks():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    optimizer: Any = optim.clipped_adamw(0.5, weight_decay=0.1, mask={"w": True, "b": False})
    params, _ = run(optimizer, [zero])
    assert_close(params, {"w": 0.95 * PARAMS["w"], "b": PARAMS["b"]})
    matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    assert_same(params, run(optim.clipped_adamw(0.5, weight_decay=0.1, mask=matrices), [zero])[0])


def traced_once(optimizer) -> Any:
    """A jitted update with fixed parameters that fails on its second trace."""
    update = lambda gradient, state: optimizer.update(gradient, state, PARAMS)
    return jax.jit(chex.assert_max_traces(update, n=1))


def test_a_new_learning_rate_changes_the_step_and_compiles_nothing():
    optimizer: Any = optim.clipped_adamw(0.1)
    step = traced_once(optimizer)
    gradient, state = gradients(0), optimizer.init(PARAMS)
    before, _ = step(gradient, state)
    after, new = step(gradient, optim.set_hyperparameters(state, learning_rate=0.02))
    assert_close(after, jax.tree.map(lambda u: u / 5, before))
    by_hand = optimizer.init(PARAMS)
    by_hand.hyperparams["learning_rate"] = jnp.float32(0.02)
    assert_same(step(gradient, by_hand)[0], after)
    np.testing.assert_allclose(new.hyperparams["learning_rate"], 0.02)


def test_a_schedule_drives_the_learning_rate_without_recompiling():
    schedule = optax.piecewise_constant_schedule(1.0, {2: 0.1, 3: 0.0})
    optimizer: Any = optim.clipped_adamw(schedule)
    step = traced_once(optimizer)
    state: Any = optimizer.init(PARAMS)
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    sizes = []
    for _ in range(5):
        updates, state = step(gradient, state)
        sizes.append(-updates["b"][0])
    np.testing.assert_allclose(sizes, [1, 1, 0.1, 0, 0], rtol=1e-4)


def test_learning_rates_may_be_mapped_over_one_program():
    rates = jnp.array([0.1, 0.01])
    gradient = gradients(0)

    def first_step(rate):
        optimizer = optim.clipped_adamw(rate)
        return optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)[0]

    mapped = jax.vmap(first_step)(rates)
    assert_close(mapped, jax.tree.map(lambda *u: jnp.stack(u), *map(first_step, rates)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_parameters_train_with_moments_and_rates_in_float32(dtype):
    narrow = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    sequence = [gradients(seed) for seed in range(5)]
    optimizer: Any = optim.clipped_adamw(0.25, clip_norm=0.5, weight_decay=0.1)
    as_narrow = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)
    params, state = run(optimizer, map(as_narrow, sequence), narrow)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}
    expected, _ = run(optimizer, sequence)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.astype(b.dtype), b, atol=0.05), params, expected
    )


def test_parameters_of_several_dtypes_train_together():
    mixed = PARAMS | {"b": PARAMS["b"].astype(jnp.bfloat16)}
    gradient = jax.tree.map(lambda p: jnp.ones_like(p), mixed)
    params, _ = run(optim.clipped_adamw(0.1), [gradient] * 2, mixed)
    assert params["b"].dtype == jnp.bfloat16
    assert_close(params["w"], PARAMS["w"] - 0.2)


def test_the_clip_of_clipped_adamw_is_that_of_optax_with_its_statistics():
    ours, theirs = optim._clip_by_global_norm(0.7), optax.clip_by_global_norm(0.7)
    both = [jax.jit(clip.update) for clip in (ours, optim.clip_statistics(theirs))]
    start = ours.init(PARAMS)
    for scale in (0.0, 1e-3, 1.0, 1e3, 1e30):
        gradient = jax.tree.map(lambda g, by=scale: g * by, gradients(3))
        (a, of_a), (b, of_b) = (update(gradient, start) for update in both)
        assert_close(a, b, rtol=1e-6)
        chex.assert_trees_all_equal_shapes_and_dtypes(of_a, of_b)
        assert_close(of_a, of_b, rtol=1e-6)
    # A gradient whose norm equals the threshold is not clipped.
    clip: Any = optim._clip_by_global_norm(5.0)
    updates, state = clip.update({"w": jnp.array([3.0, 4.0])}, clip.init({"w": jnp.zeros(2)}))
    assert updates["w"].tolist() == [3.0, 4.0]
    assert (int(state.steps), int(state.clipped)) == (1, 0)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_accumulated_micro_batches_are_one_big_batch(micro_batches):
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(8, 2)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32)
    loss = lambda p, x, y: jnp.mean(jnp.square(x @ p["w"] + p["b"] - y))
    gradient = lambda rows: jax.grad(loss)(PARAMS, xs[rows], ys[rows])
    # A large ε: else the first step of Adam is the same for a mean of gradients and for their sum.
    optimizer: Any = optim.clipped_adamw(0.1, clip_norm=2.0, eps=1.0)
    accumulating: Any = optax.MultiSteps(optimizer, every_k_schedule=micro_batches)
    parts = np.split(np.arange(8), micro_batches)
    params, state = run(accumulating, [gradient(rows) for rows in parts])
    expected, expected_state = run(optimizer, [gradient(np.arange(8))])
    assert_close(params, expected)
    found, wanted = recorded(state), recorded(expected_state)
    assert_close(found, wanted)


# Setting hyperparameters --------------------------------------------------------------------------


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda optimizer: optimizer,
        lambda optimizer: optax.chain(optax.identity(), optimizer),
        lambda optimizer: optax.MultiSteps(optimizer, 1).gradient_transformation(),
        lambda optimizer: optax.inject_hyperparams(lambda c: optax.chain(optax.clip(c), optimizer))(
            c=9.0
        ),
    ],
)
def test_a_nested_hyperparameter_is_set_and_nothing_else_changes(wrap):
    state = wrap(optim.clipped_adamw(0.1)).init(PARAMS)
    untouched = wrap(optim.clipped_adamw(0.1)).init(PARAMS)
    new: Any = optim.set_hyperparameters(state, learning_rate=0.5, b1=0.8)
    assert_same(new, wrap(optim.clipped_adamw(0.5, b1=0.8)).init(PARAMS))
    assert_same(state, untouched)
    like = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    assert like(new) == like(state)


def test_a_mapped_hyperparameter_is_set_for_all_or_for_each_member():
    states: Any = jax.vmap(lambda r: optim.clipped_adamw(r).init(PARAMS))(jnp.array([0.1, 0.2]))
    for value, expected in ((0.5, [0.5, 0.5]), (jnp.array([0.3, 0.4]), [0.3, 0.4])):
        new = optim.set_hyperparameters(states, learning_rate=value)
        np.testing.assert_allclose(new.hyperparams["learning_rate"], expected)


def test_a_scheduled_hyperparameter_leaves_the_others_to_be_set():
    state: Any = optim.clipped_adamw(optax.constant_schedule(0.1)).init(PARAMS)
    assert optim.set_hyperparameters(state, clip_norm=2.0).hyperparams["clip_norm"] == 2


def test_scalars_of_numpy_are_injected(unchecked):
    rate: Any = np.float32(1e-2)
    state: Any = optim.clipped_adamw(rate).init(jnp.zeros(2))
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 1e-2, rtol=1e-6)


# The schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "warmup", "rising"), [(40, 0.1, 4), (7, 0.5, 3), (5, 0.0, 0)])
def test_a_rate_rises_in_a_line_and_falls_along_a_cosine_to_nothing(steps, warmup, rising):
    schedule = optim.warmup_cosine(0.3, steps, warmup=warmup)
    for n in range(steps + 1):
        if n < rising:
            expected = 0.3 * n / rising
        else:
            expected = 0.15 * (1 + math.cos(math.pi * (n - rising) / (steps - rising)))
        np.testing.assert_allclose(schedule(n), expected, atol=1e-7)


# Errors -------------------------------------------------------------------------------------------


def adamw(**wrong):
    return lambda: optim.clipped_adamw(**{"learning_rate": 0.1} | wrong)


def set_in(optimizer, **values):
    return lambda: optim.set_hyperparameters(optimizer.init(PARAMS), **values)


NEGATIVE: Any = np.float32(-0.1)
POSITIVE, RATE = (
    "threshold: expected a positive number",
    "learning_rate: expected a number of at least",
)
ERRORS = [
    *(
        (lambda t=t: optim.halve_by_global_norm(t), POSITIVE)
        for t in (0.0, -1.0, math.nan, math.inf)
    ),
    (lambda: optim.halve_by_global_norm(NEGATIVE), POSITIVE),
    (lambda: optim.halve_by_global_norm(jnp.ones(2)), r"has shape \(2,\); expected a scalar"),
    *(
        (adamw(learning_rate=rate), RATE)
        for rate in (-0.1, math.nan, np.float32(-0.1), "0.1", True)
    ),
    (adamw(clip_norm=0.0), "clipped_adamw: clip_norm: expected"),
    (adamw(weight_decay=-1.0), "clipped_adamw: weight_decay: expected"),
    (adamw(b1=1.0), "clipped_adamw: b1: expected"),
    (adamw(b2=1.5), "clipped_adamw: b2: expected"),
    (adamw(eps=0.0), "clipped_adamw: eps: expected"),
    (
        set_in(optim.clipped_adamw(0.1), rate=0.1),
        "'rate'; expected one of b1, b2, clip_norm, eps, learning_rate, weight_decay",
    ),
    (set_in(optax.sgd(0.1), learning_rate=0.1), "expected one of none, as nothing was injected"),
    (
        set_in(optim.clipped_adamw(optax.constant_schedule(0.1)), learning_rate=0.2),
        "learning_rate follows a schedule",
    ),
    (lambda: optim.warmup_cosine(math.nan, 5), f"warmup_cosine: {RATE} 0, got nan"),
    (lambda: optim.warmup_cosine(-1.0, 5), f"{RATE} 0, got -1.0"),
    (
        lambda: optim.warmup_cosine(0.1, 0),
        "warmup_cosine: steps: expected a positive integer, got 0",
    ),
    (lambda: optim.warmup_cosine(0.1, 5, warmup=1.0), "warmup: expected"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_an_argument_out_of_range_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()
