"""What every cell is and what its state is made of: a frozen value, named params, a batch in front."""

import dataclasses
import inspect
import typing
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cell import noise_only
from tests.contract.cases import (
    BATCH,
    TIME,
    TOLERANCE,
    assert_close,
    floats,
    plain,
    thorough,
)
from tests.contract.registry import IN_FEATURES, REGISTRY, LeakySum, RunningMean
from tests.programs import decompositions

pytestmark = pytest.mark.usefixtures("quick_compilation")


def cells_within(value: Any) -> set[type]:
    """The classes of a cell and of all cells inside it."""
    if isinstance(value, tuple):
        return set().union(*map(cells_within, value))
    if not isinstance(value, sj.Cell):
        return set()
    inner = [getattr(value, field.name) for field in dataclasses.fields(typing.cast(Any, value))]
    return {type(value)}.union(*map(cells_within, inner))


def test_every_public_cell_is_registered():
    public = {
        thing
        for thing in vars(sj).values()
        if inspect.isclass(thing) and issubclass(thing, sj.Cell) and not inspect.isabstract(thing)
    }
    assert public, "no cell was found by introspection"
    tested = set().union(*(cells_within(e.build(jnp.float32, None)) for e in REGISTRY.values()))
    missing = sorted(cell.__name__ for cell in public - tested)
    assert not missing, f"tests/contract/registry.py lacks {missing}"


def test_every_public_function_that_makes_a_cell_is_registered():
    makers = {
        name
        for name, thing in vars(sj).items()
        if inspect.isfunction(thing)
        and inspect.isclass(made := inspect.signature(thing).return_annotation)
        and issubclass(made, sj.Cell)
    }
    assert "IRNN" in makers
    assert makers <= set(REGISTRY)


def test_a_cell_is_frozen_and_hashable_and_equal_to_one_made_alike(name):
    entry = REGISTRY[name]
    one, other = entry.build(jnp.float32, None), entry.build(jnp.float32, None)
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert one != entry.build(jnp.float16, None)
    field = dataclasses.fields(typing.cast(Any, one))[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, field, getattr(one, field))


def test_params_are_real_arrays_with_named_fields(case):
    for path, leaf in jax.tree_util.tree_leaves_with_path(case.params):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype == jnp.float64
        # The params of an inner cell may be one array; a position only ever counts layers.
        for before, entry in zip([None, *path], path, strict=False):
            if isinstance(entry, jax.tree_util.SequenceKey):
                assert before == jax.tree_util.GetAttrKey("layers")
            else:
                assert isinstance(entry, jax.tree_util.GetAttrKey)


def test_init_depends_on_the_key_and_on_nothing_else(case):
    again = case.build().init(jax.random.split(jax.random.key(7), 3)[0], IN_FEATURES)
    other = case.build().init(jax.random.key(8), IN_FEATURES)
    assert_close(again, case.params)
    same = [
        bool(jnp.all(a == b))
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(case.params), strict=True)
    ]
    assert not all(same)


def test_under_vmap_init_decomposes_no_two_matrices_at_once(name):
    """Two batched decompositions in one program wait for each other for ever on a CPU of two cores."""
    cell = REGISTRY[name].build(jnp.float32, None)
    init = jax.vmap(lambda key: cell.init(key, IN_FEATURES))
    program = jax.make_jaxpr(init)(jax.random.split(jax.random.key(7), 3))
    assert all(len(shape) == 2 for shape in decompositions(program.jaxpr))


def test_what_the_search_for_decompositions_looks_for_is_there():
    matrices = jnp.ones((3, 2, 2))
    many = jax.make_jaxpr(jax.jit(jnp.linalg.qr))(matrices)
    assert decompositions(many.jaxpr) == [(3, 2, 2)]
    init = jax.make_jaxpr(lambda key: sj.LSTM(2).init(key, IN_FEATURES))(jax.random.key(0))
    assert (2, 2) in decompositions(init.jaxpr)


def test_every_leaf_of_the_state_leads_with_the_batch_shape(case):
    for batch_shape in [(), (1,), (4,), (2, 3)]:
        state = jax.eval_shape(
            lambda params, key, shape=batch_shape: case.cell.initial_state(params, shape, key=key),
            case.params,
            case.key,
        )
        assert jax.tree.leaves(state)
        chex.assert_tree_shape_prefix(state, batch_shape)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_step_returns_what_initial_state_gives_and_the_state_is_at_least_float32(name, dtype):
    entry = REGISTRY[name]
    cell = entry.build(jnp.float32, dtype)

    def run(key, xs):
        params = cell.init(key, IN_FEATURES)
        before = cell.initial_state(params, (BATCH,), key=key)
        after, ys = sj.unroll(cell, params, xs, before)
        if not entry.causal:
            with pytest.raises(ValueError, match=r"Bidirectional\.step: .*use|run whole sequences"):
                cell.step(params, before, xs[0])
            return before, after, after, ys
        stepped, _ = cell.step(params, before, xs[0])
        return before, stepped, after, ys

    shape = (TIME, BATCH, IN_FEATURES)
    before, stepped, after, ys = jax.eval_shape(
        run, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    assert stepped == before
    assert after == before
    for leaf in jax.tree.leaves(before):
        assert leaf.dtype == jnp.bool_ or leaf.dtype.itemsize >= 4
    assert ys.dtype == (dtype or jnp.float32) or cells_within(cell) & {LeakySum, RunningMean}
    assert ys.shape == (TIME, BATCH, cell.out_features)


def test_deterministic_keeps_the_params_and_the_structure_of_the_state(case):
    quiet = case.cell.deterministic()
    assert quiet.deterministic() == quiet
    assert (quiet == case.cell) == (case.entry.noisy == 0)
    init = lambda cell: jax.eval_shape(lambda key: cell.init(key, IN_FEATURES), case.key)
    assert init(quiet) == init(case.cell)
    states = [quiet.initial_state(case.params, (BATCH,), key=key) for key in (None, case.key)]
    assert jax.eval_shape(lambda: states[0]) == jax.eval_shape(lambda: case.state)
    xs = jnp.asarray(case.xs[:TIME])
    same = [sj.unroll(quiet, case.params, xs, state)[1] for state in states]
    assert_close(same[0], same[1])


def test_redraw_returns_memory_as_the_same_objects_and_replaces_the_rest(case):
    one, other = (case.cell.redraw(case.state, jax.random.key(seed)) for seed in (1, 2))
    leaves = [jax.tree.leaves(tree) for tree in (case.state, one, other)]
    is_noise = [new is not old for old, new, _ in zip(*leaves, strict=True)]
    assert sum(is_noise) == case.entry.noisy
    for noise, (_, a, b) in zip(is_noise, zip(*leaves, strict=True), strict=True):
        assert np.any(plain(a) != plain(b)) == noise
    assert jax.tree.leaves(noise_only(case.cell, case.state)) == is_noise
    assert jax.eval_shape(lambda: one) == jax.eval_shape(lambda: case.state)


def test_a_key_keeps_the_memory_of_the_state_and_redraws_its_noise(case):
    key = jax.random.key(3)  # not the one that drew the noise of the state
    xs = jnp.asarray(case.xs[:TIME])
    came = sj.unroll(case.cell, case.params, xs, case.state, key=key)
    assert_close(came, sj.unroll(case.cell, case.params, xs, case.cell.redraw(case.state, key)))
    _, kept = sj.unroll(case.cell, case.params, xs, case.state)
    assert np.allclose(came[1], kept, **TOLERANCE) == (case.entry.noisy == 0)


@thorough
def test_in_bfloat16_the_values_are_those_of_float32_to_three_digits(name):
    entry = REGISTRY[name]
    cells = entry.build(jnp.float32, jnp.bfloat16), entry.build(jnp.float32, None)
    params = cells[1].init(jax.random.key(7), IN_FEATURES)
    xs = jax.random.normal(jax.random.key(1), (TIME, BATCH, IN_FEATURES))
    runs = [sj.unroll(cell, params, xs, key=jax.random.key(2)) for cell in cells]
    narrow, wide = (np.asarray(ys, np.float32) for _, ys in runs)
    # bfloat16 keeps 8 bits; a few operations and four steps lose a few of them.
    np.testing.assert_allclose(narrow, wide, atol=0.05 * np.abs(wide).max())
    user_made = {LeakySum, RunningMean}  # which have no dtype to compute in
    assert not np.array_equal(narrow, wide) or cells_within(cells[0]) & user_made
    for leaf in floats(runs[0][0]):  # the state is wider by content, not by dtype alone
        assert not np.array_equal(leaf, leaf.astype(jnp.bfloat16).astype(leaf.dtype))


@thorough
def test_in_bfloat16_the_gradient_is_that_of_float32_to_two_digits(name):
    entry = REGISTRY[name]
    cells = entry.build(jnp.float32, jnp.bfloat16), entry.build(jnp.float32, None)
    params = cells[1].init(jax.random.key(7), IN_FEATURES)
    xs = jax.random.normal(jax.random.key(1), (TIME, BATCH, IN_FEATURES))

    def gradient(cell):
        """Of Σ y with weights that no symmetry of a cell can cancel."""
        shape = (TIME, BATCH, cell.out_features)
        weights = jax.random.normal(jax.random.key(3), shape)
        ys = lambda params: sj.unroll(cell, params, xs, key=jax.random.key(2), engine="scan")[1]
        loss = lambda params: jnp.sum(weights * ys(params).astype(jnp.float32))
        found = jax.jit(jax.grad(loss))(params)
        assert [leaf.dtype for leaf in floats(found)] == [leaf.dtype for leaf in floats(params)]
        return np.concatenate([np.ravel(leaf) for leaf in floats(found)])

    narrow, wide = (gradient(cell) for cell in cells)
    assert np.linalg.norm(narrow - wide) < 0.05 * np.linalg.norm(wide)


@thorough
def test_params_and_states_come_back_from_a_checkpoint_as_they_were(case, tmp_path):
    key = jax.random.key(0)
    saved = sj.training.TrainState(case.params, (), case.state, jnp.zeros((), jnp.int32), key)
    checkpoints = sj.training.Checkpoints(tmp_path)
    checkpoints.save(saved, {})
    restored, _ = checkpoints.restore(jax.eval_shape(lambda: saved))
    checkpoints.close()
    for came, expected in ((restored.params, case.params), (restored.carry, case.state)):
        chex.assert_trees_all_equal_shapes_and_dtypes(came, expected)
        chex.assert_trees_all_equal(jax.tree.map(plain, came), jax.tree.map(plain, expected))
