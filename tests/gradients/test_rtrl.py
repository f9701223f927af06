"""RTRL is BPTT forward in time: for every cell, to the rounding of float64."""

import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.gradients.structure import Pattern, pattern_of
from tests.contract.registry import REGISTRY, REPRESENTATIVE
from tests.gradients import online_problem
from tests.gradients.online_problem import assert_close, by_bptt, forward, squares

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODULE = importlib.import_module("seqjax.gradients.rtrl")  # the package has the class of that name
CAUSAL = [
    name if name in REPRESENTATIVE else pytest.param(name, marks=pytest.mark.full)
    for name, entry in REGISTRY.items()
    if entry.causal
]
RESETS = [(2, 0), (0, 1), (1, 1), (3, 1)]


@pytest.mark.parametrize("name", CAUSAL)
def test_rtrl_is_bptt_over_the_whole_sequence(name, x64):
    problem = online_problem.make(REGISTRY[name].build(jnp.float64, None), resets=RESETS)
    online, backward = compiled(problem)
    assert_close(online[:3], backward[:3])
    assert_close(online[3].cell, backward[3])


def compiled(problem, state=None):
    """RTRL and BPTT as one program of the arrays; the cell is static."""

    @jax.jit
    def run(params, batch, key, state):
        same = problem._replace(params=params, batch=batch, key=key)
        return forward(sj.rtrl, same, state=state), by_bptt(same, state)

    return run(problem.params, problem.batch, problem.key, state)


CELLS = {
    "dense": sj.LSTM(3, param_dtype=jnp.float64),
    "diagonal": sj.DiagonalLSTM(3, param_dtype=jnp.float64),
    "learned state": sj.LearnedState(sj.LRU(2, param_dtype=jnp.float64)),
}
SMALL = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


SIZES = [(0, (2,)), (1, (2,)), (3, ()), (3, (1,)), (3, (2, 2)), (2, (0,))]


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in CELLS for size in SIZES[:: 1 if name == "dense" else 2]],
    ids=str,
)
def test_it_is_bptt_for_any_time_and_any_batch_axes(name, size, x64):
    online, backward = compiled(online_problem.make(CELLS[name], *size))
    assert_close(online[:3], backward[:3])
    assert_close(online[3].cell, backward[3])


@SMALL
def test_a_state_that_is_given_is_a_constant(cell, x64):
    problem = online_problem.make(cell)
    *_, state = by_bptt(problem)
    online, backward = compiled(problem, state)
    assert_close(online[:3], backward[:3])
    if (
        cell is CELLS["learned state"]
    ):  # nothing begins anew, so nothing is learned of the beginning
        assert not np.any(online[0].cell.state.h.real)


def test_units_that_are_dead_at_first_learn_once_they_wake(x64):
    """What relu or a clock switches off at one step is part of the pattern all the same."""
    for cell in (
        sj.IRNN(3, param_dtype=jnp.float64),
        REGISTRY["ClockworkRNN"].build("float64", None),
    ):
        problem = online_problem.make(cell, time=5)
        off = jnp.asarray([[-50.0], [1.0], [1.0], [-50.0], [1.0]]).reshape(5, 1, 1)
        xs = problem.batch.xs * 0.1 + off.astype(jnp.float64)
        kernel = jnp.abs(problem.params.cell.input_kernel) + 0.1  # a negative x shuts every unit
        params = problem.params._replace(cell=problem.params.cell._replace(input_kernel=kernel))
        problem = problem._replace(params=params, batch=problem.batch._replace(xs=xs))
        online, backward = compiled(problem)
        assert_close(online[:2], backward[:2])
        assert np.any(online[0].cell.recurrent_kernel)


def whole(cell, params, state, x, steps):
    """A pattern that keeps every entry: what RTRL is without any structure."""
    sparse = pattern_of(cell, params, state, x, steps)
    n = len(sparse.state_colours)
    every = [np.arange(n).reshape(n, *(1,) * jnp.ndim(leaf)) for leaf in jax.tree.leaves(params)]
    kept = [np.ones_like(states, bool) for states in every]
    return Pattern(tuple(every), tuple(kept), np.arange(n), np.arange(n), sparse.at_start)


@pytest.mark.parametrize("name", ["DiagonalLSTM", "SLSTM with heads", "SkipRNN", "Stack"])
def test_the_kept_entries_are_those_of_the_whole_influence(name, monkeypatch, x64):
    problem = online_problem.make(REGISTRY[name].build(jnp.float64, None), resets=RESETS)
    run = lambda: jax.jit(lambda: forward(sj.rtrl, problem)[:3])()
    kept = run()
    monkeypatch.setattr(MODULE, "FEW", 0)  # the other form of each product
    assert_close(run(), kept)
    monkeypatch.setattr(MODULE, "pattern_of", whole)
    assert_close(run(), kept)


def test_a_cell_whose_units_do_not_mix_keeps_the_states_of_one_unit_for_each_param():
    cell = sj.DiagonalLSTM(5)
    params = sj.OnlineParams(cell.init(jax.random.key(0), 3))
    kept = sj.rtrl(cell).online(squares).init(params, (7,)).influence
    assert kept.input_kernel.shape == (7, 2, 3, 20)  # h and c of one unit
    assert kept.bias.shape == (7, 2, 20)
    cell = sj.LRU(4)
    params = sj.OnlineParams(cell.init(jax.random.key(0), 3))
    kept = sj.rtrl(cell).online(squares).init(params).influence
    assert kept.input_real.shape == (2, 3, 4)  # the real and the imaginary part
    assert kept.output_real.shape == (0, 4, 4)  # a readout reaches no state


def test_vmap_over_params_is_each_by_itself_and_a_second_call_never_traces_again(x64):
    problem = online_problem.make(sj.GRU(2, param_dtype=jnp.float64), time=3)
    rule = sj.rtrl(problem.cell).online(squares)
    several = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), problem.params)
    x, target, _ = jax.tree.map(lambda a: a[0], problem.batch)
    state = jax.vmap(lambda p: rule.init(p, (2,)))(several)
    once = chex.assert_max_traces(rule.update, n=1)
    update, single = jax.jit(jax.vmap(once, in_axes=(0, 0, None, None))), jax.jit(rule.update)
    for _ in range(2):
        result = update(several, state, x, target)
        for i in range(2):
            take = lambda tree, i=i: jax.tree.map(lambda a: a[i], tree)
            alone = single(take(several), take(state), x, target)
            assert_close(take(result.grads), alone.grads)
            assert_close(take(result.state), alone.state)
        state = result.state
