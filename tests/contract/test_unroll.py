"""What `unroll` owes for every cell: a loop of `step`, lengths, resets, both directions, derivatives."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cell import noise_only
from seqjax.engines import dispatch as engines
from tests.contract.cases import (
    BATCH,
    FULL,
    LENGTHS,
    NO_RESETS,
    PADDING,
    RESETS,
    TIME,
    TOLERANCE,
    assert_close,
    assert_is_run_in_pieces,
    floats,
    loop,
    make_case,
    plain,
    rows_of,
    score,
    thorough,
    with_floats,
)
from tests.contract.registry import IN_FEATURES

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_two_windows_of_unroll_are_one_loop_of_step(case):
    if not case.entry.causal:
        with pytest.raises(ValueError, match=r"Bidirectional\.step: y_t needs the inputs after t"):
            case.cell.step(case.params, case.state, jnp.asarray(case.xs[0]))
        return
    state, first = case.run(case.state, None, None)
    came, second = case.run(state, None, None, xs=case.xs[TIME:])
    rows = [
        loop(case, case.xs[:, row : row + 1], start)
        for row, start in enumerate(rows_of(case.state))
    ]
    for row, (after, ys), last in zip(range(BATCH), rows, rows_of(came), strict=True):
        assert_close(last, after)
        assert_close(np.concatenate([first, second])[:, row : row + 1], ys)


@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_and_resets_run_each_document_by_itself(case, reverse):
    """NaN in the padding changes no value, and outputs there are zero."""
    for lengths, resets in itertools.product((FULL, LENGTHS), (NO_RESETS, RESETS)):
        assert_is_run_in_pieces(case, lengths, resets, reverse)


@thorough
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_and_resets_run_each_document_by_itself_where_one_is_not_given(case, reverse):
    for lengths, resets in [(None, None), (LENGTHS, None), (None, RESETS)]:
        assert_is_run_in_pieces(case, lengths, resets, reverse)


@thorough
def test_two_batch_axes_one_row_and_no_batch_axis_give_the_rows_of_one_batch(case):
    expected, ys = case.run(case.state, None, None)
    for shape in [(2, 2), (1,), ()]:
        rows = int(np.prod(shape))
        fold = lambda leaf, rows=rows, shape=shape: leaf[:rows].reshape(shape + leaf.shape[1:])
        xs = case.xs[:TIME, :rows].reshape(TIME, *shape, IN_FEATURES)
        state = jax.tree.map(fold, case.state)
        after, y = case.run(state, None, None, xs=xs)
        assert_close(after, jax.tree.map(fold, expected))
        folded = ys[:, :rows].reshape(TIME, *shape, case.cell.out_features)
        np.testing.assert_allclose(y, folded, **TOLERANCE)


@thorough
def test_no_steps_give_the_state_that_came_in_and_no_outputs(case):
    nothing = np.zeros((0, BATCH, IN_FEATURES))
    state, ys = case.run(case.state, None, None, xs=nothing)
    assert_close(state, case.state)
    assert ys.shape == (0, BATCH, case.cell.out_features)
    options: Any = {"lengths": jnp.zeros(BATCH, jnp.int32), "resets": jnp.zeros((0, BATCH), bool)}
    for reverse in (False, True):
        shapes = jax.eval_shape(
            lambda p, s, reverse=reverse: sj.unroll(
                case.cell, p, jnp.asarray(nothing), s, reverse=reverse, **options
            ),
            case.params,
            case.state,
        )
        assert shapes == jax.eval_shape(lambda: (state, jnp.asarray(ys)))


@thorough
def test_one_step_of_unroll_is_step(case):
    if case.entry.causal:
        came = case.run(case.state, None, None, xs=case.xs[:1])
        assert_close(came, loop(case, case.xs[:1], case.state))


def test_a_nan_in_one_document_does_not_reach_the_next(case):
    resets = NO_RESETS.copy()
    resets[2] = True
    clean, ys = case.run(case.state, resets=resets)
    for low, high in [(0, 2), (2, 4)] if not case.entry.causal else [(0, 2)]:
        xs = case.xs[:TIME].copy()
        xs[low:high] = np.nan
        after, with_nan = case.run(case.state, resets=resets, xs=xs)
        others = [t for t in range(TIME) if not low <= t < high]
        assert_close(with_nan[others], ys[others])
        # Some outputs may be dropped, and so be zero; no step is free of NaN.
        assert np.all(np.any(np.isnan(with_nan[low:high]), axis=(1, 2)))
        if case.entry.causal:
            assert_close(after, clean)


def test_a_reset_stops_a_nan_in_the_state_and_keeps_the_noise(case):
    noise = noise_only(case.cell, case.state)
    poisoned = with_floats(
        case.state, [jnp.full_like(leaf, jnp.nan) for leaf in floats(case.state)]
    )
    resets = NO_RESETS.copy()
    resets[[0, TIME - 1]] = True  # where each direction enters, or one step from it
    after, ys = case.run(poisoned, resets=resets)
    uncut, _ = case.run(case.state)
    # A walk back enters at the last step, before any cut; one step on the cut lies behind it.
    clean = ys if case.entry.causal else ys[: TIME - 1]
    assert np.all(np.isfinite(clean))
    for old, new, is_noise in zip(*map(jax.tree.leaves, (uncut, after, noise)), strict=True):
        assert not is_noise or np.array_equal(plain(old), plain(new))


def test_no_output_sees_what_comes_after_it_unless_the_cell_reads_both_ways(case):
    xs = case.xs[:TIME].copy()
    xs[2:] = np.nan
    _, ys = case.run(case.state, xs=xs)
    assert np.all(np.isfinite(ys[:2])) == case.entry.causal
    assert np.all(np.any(np.isnan(ys[2:]), axis=(1, 2)))


@thorough
def test_under_jit_and_vmap_over_params_and_over_xs_values_are_the_same(case):
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), case.params)
    xs = jnp.stack([jnp.asarray(case.xs[:TIME]), -jnp.asarray(case.xs[:TIME])])
    run = lambda params, xs: sj.unroll(case.cell, params, xs, case.state)
    came = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(params, xs)
    for i, j in itertools.product(range(2), range(2)):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        at = lambda leaf, i=i, j=j: leaf[i, j]
        assert_close(jax.tree.map(at, came), run(one, xs[j]))


def test_a_second_call_with_an_equal_cell_does_not_trace_again(case, monkeypatch):
    traced = []

    def counting(cell, *arguments):
        traced.append(cell)
        return engines.ENGINES["scan"](cell, *arguments)

    monkeypatch.setitem(engines.ENGINES, "counting", counting)
    nothing = jnp.zeros(
        (0, BATCH, IN_FEATURES), jnp.float64
    )  # quick to compile, traced all the same
    run = lambda cell: sj.unroll(cell, case.params, nothing, key=case.key, engine="counting")
    run(case.build())
    once = len(traced)
    assert once > 0
    run(case.build())
    assert len(traced) == once


@functools.cache
def gradient(name: str, **keeping: Any) -> Callable[..., Any]:
    """Compile a score of a run with padding and cuts, in reverse, and its gradients.

    They are those with respect to params, xs and the floats of the state.
    """
    case = make_case(name)
    state = case.state if case.entry.causal else case.beginning()
    options: Any = {"lengths": jnp.asarray(LENGTHS), "resets": jnp.asarray(RESETS), "reverse": True}

    def loss(params, xs, floating):
        return score(
            sj.unroll(case.cell, params, xs, with_floats(state, floating), **options, **keeping)
        )

    of = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    return lambda xs: of(case.params, jnp.asarray(xs), floats(state))


def test_the_gradient_is_that_of_the_plain_scan_and_sees_no_padding(name, case):
    """In chunks, with cuts, in reverse; NaN in the padding changes nothing."""
    filled = [np.where(PADDING[..., None], fill, case.xs[:TIME]) for fill in (np.nan, 5.0)]
    came = gradient(name)(filled[0])
    assert_close(came, gradient(name, engine="scan", remat=None)(filled[1]))
    _, (_, by_input, _) = came
    assert np.all(np.asarray(by_input)[PADDING] == 0)
    # Dropout may drop all outputs of a document of one step.
    assert case.entry.noisy or np.all(np.asarray(by_input)[~PADDING] != 0)


@thorough
def test_segments_that_do_not_divide_the_time_change_no_gradient(name, case):
    xs = np.where(PADDING[..., None], np.nan, case.xs[:TIME])
    assert_close(gradient(name, remat=3)(xs), gradient(name, engine="scan", remat=None)(xs))


@thorough
def test_gradient_and_tangent_agree_and_are_the_difference_quotient(case):
    def value(run, params, xs, floating):
        state = with_floats(case.state, floating)
        return score(run(case.cell, params, xs, state, lengths=jnp.asarray(LENGTHS)))

    forward = functools.partial(value, functools.partial(sj.unroll, engine="scan"))
    by_gradient = jax.jit(jax.grad(functools.partial(value, sj.unroll), argnums=(0, 1, 2)))
    by_tangent = jax.jit(lambda at, along: jax.jvp(forward, at, along))
    at = (case.params, jnp.asarray(case.xs[:TIME]), floats(case.state))
    random = np.random.default_rng(0)
    along = jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape)), at)
    _, tangent = by_tangent(at, along)
    found = by_gradient(*at)
    np.testing.assert_array_equal(np.all(np.asarray(found[1]) == 0, axis=-1), PADDING)
    dot = sum(
        np.vdot(np.asarray(g), np.asarray(d))
        for g, d in zip(*map(jax.tree.leaves, (found, along)), strict=True)
    )
    np.testing.assert_allclose(dot, tangent, rtol=1e-11)

    def at_distance(size):
        return float(by_tangent(jax.tree.map(lambda a, d: a + size * d, at, along), along)[0])

    # Two steps, so that the error of order step² cancels: what is left is rounding, 1e-16 / 1e-4.
    coarse, fine = ((at_distance(s) - at_distance(-s)) / (2 * s) for s in (2e-4, 1e-4))
    np.testing.assert_allclose(tangent, (4 * fine - coarse) / 3, rtol=1e-9, atol=1e-10)
