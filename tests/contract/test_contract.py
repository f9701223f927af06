"""What every cell owes, over every registered cell: the contract, the driver and the derivatives."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cell import gates_of, leaves, noise_only, run_layers
from seqjax.engines import dispatch as engines
from seqjax.engines.tuned import TUNED
from seqjax.gates import SAVED
from seqjax.numerics import recurrent_matmul
from tests.contract.registry import IN_FEATURES, REGISTRY, Entry, LeakySum, RunningMean
from tests.programs import decompositions

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH = 4, 4

LENGTHS = np.array([4, 1, 0, 9])  # full, one step, none, and above the time that there is
RESETS = np.zeros((TIME, BATCH), bool)
RESETS[2, 0] = True
RESETS[[1, 3], 1] = True  # in the padding, where lengths are given
RESETS[[0, 1], 3] = True  # row 2 has no cut

# Compiled against evaluated one operation after another, both in float64: only rounding differs.
TOLERANCE: Any = {"rtol": 1e-12, "atol": 1e-12}


class Case(NamedTuple):
    """A registered cell in float64, its params, inputs, and a state from the middle of a run."""

    entry: Entry
    cell: sj.Cell
    params: Any
    xs: np.ndarray
    state: Any
    key: jax.Array

    def build(self) -> sj.Cell:
        """The same cell, constructed anew."""
        return self.entry.build(jnp.float64, None)


@functools.cache
def make_case(name: str) -> Case:
    entry = REGISTRY[name]
    cell = entry.build(jnp.float64, None)
    params_key, xs_key, run_key = jax.random.split(jax.random.key(7), 3)
    params = cell.init(params_key, IN_FEATURES)
    xs = np.asarray(jax.random.normal(xs_key, (2 * TIME, BATCH, IN_FEATURES), jnp.float64))
    state, _ = eager(cell, params, xs[TIME:], cell.initial_state(params, (BATCH,), key=run_key))
    return Case(entry, cell, params, xs[:TIME], state, run_key)


@pytest.fixture(params=list(REGISTRY))
def name(request) -> str:
    return request.param


@pytest.fixture
def case(name: str, x64: None) -> Case:
    return make_case(name)


def eager(cell: sj.Cell, params: Any, xs: Any, state: Any, **options: Any) -> tuple[Any, jax.Array]:
    """`unroll` as a loop of Python over time, one operation after another: nothing to compile."""
    with jax.disable_jit():
        return sj.unroll(cell, params, jnp.asarray(xs), state, **options)


def in_pieces(
    case: Case,
    state: Any,
    lengths: np.ndarray | None,
    resets: np.ndarray | None,
    reverse: bool,
) -> tuple[list[Any], list[Any], np.ndarray]:
    """What `lengths`, `resets` and `reverse` mean: each document of each row is run by itself.

    A document starts from the initial memory and with the noise that the one before it left.
    Gives for each row the state after its last and after its first document, and all outputs.
    """
    noise = noise_only(case.cell, state)
    beginning = case.cell.initial_state(case.params, (BATCH,), key=case.key)
    lengths = np.full(BATCH, TIME) if lengths is None else np.minimum(lengths, TIME)
    resets = np.zeros((TIME, BATCH), bool) if resets is None else resets
    ys = np.zeros((TIME, BATCH, case.cell.out_features))
    last, first = [], []
    for row, length in enumerate(lengths):
        cuts = [t for t in range(1, length) if resets[t, row]]
        documents = list(zip([0, *cuts], [*cuts, int(length)], strict=True))
        walk = documents[::-1] if reverse else documents
        start = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], state)
        fresh = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], beginning)
        if length > 0 and resets[0, row] and not reverse:
            start = jax.tree.map(lambda n, f, s: s if n else f, noise, fresh, start)
        states = []
        for low, high in walk:
            piece = case.xs[low:high, row : row + 1]
            if high > low:
                after, y = eager(case.cell, case.params, piece[::-1] if reverse else piece, start)
                ys[low:high, row] = np.asarray(y)[:: -1 if reverse else 1, 0]
                states.append(after)
            else:
                states.append(start)
            start = jax.tree.map(lambda n, f, s: s if n else f, noise, fresh, states[-1])
        last.append(states[-1])
        first.append(states[0])
    return last, first, ys


def plain(leaf: Any) -> np.ndarray:
    """A leaf as NumPy; of a random key, its words."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_close(came: Any, expected: Any) -> None:
    """The same structure, shapes and dtypes, and the same values up to rounding."""
    assert jax.tree.structure(came) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(came), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(plain(a), plain(b), **TOLERANCE)


def assert_is_run_in_pieces(
    case: Case,
    lengths: np.ndarray | None = None,
    resets: np.ndarray | None = None,
    reverse: bool = False,
    run: Callable[..., tuple[Any, jax.Array]] = eager,
) -> None:
    state = case.state
    if not case.entry.causal:
        # Two directions enter at two ends, so a carried state belongs to two documents.
        state = case.cell.initial_state(case.params, (BATCH,), key=case.key)
    xs = case.xs.copy()
    if lengths is not None:
        xs[np.arange(TIME)[:, None] >= lengths[None]] = np.nan
    after, ys = run(
        case.cell,
        case.params,
        jnp.asarray(xs),
        state,
        lengths=None if lengths is None else jnp.asarray(lengths),
        resets=None if resets is None else jnp.asarray(resets),
        reverse=reverse,
    )
    last, first, expected = in_pieces(case, state, lengths, resets, reverse)
    np.testing.assert_allclose(np.asarray(ys), expected, **TOLERANCE)
    for row in range(BATCH):
        came = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], after)
        if case.entry.causal:
            assert_close(came, last[row])
        else:  # each direction ends where it walks to: in the last document, or in the first
            for a, b, c in zip(*map(jax.tree.leaves, (came, last[row], first[row])), strict=True):
                assert np.allclose(a, b, **TOLERANCE) or np.allclose(a, c, **TOLERANCE)


def is_real(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def is_complex(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


def floats(tree: Any) -> list[jax.Array]:
    """The floating leaves, a complex one as its real and its imaginary part."""
    parts = []
    for leaf in jax.tree.leaves(tree):
        if is_complex(leaf):
            parts += [leaf.real, leaf.imag]
        elif is_real(leaf):
            parts.append(leaf)
    return parts


def with_floats(tree: Any, new: list[jax.Array]) -> Any:
    """`tree` with its floating leaves replaced, and its clocks, masks and keys as they are."""
    remaining = iter(new)

    def replaced(leaf):
        if is_complex(leaf):
            return jax.lax.complex(next(remaining), next(remaining))
        return next(remaining) if is_real(leaf) else leaf

    return jax.tree.map(replaced, tree)


def score(tree: Any) -> jax.Array:
    """One number that depends on every floating entry, on each in another way."""
    return sum(
        (
            jnp.sum(leaf * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape))
            for leaf in floats(tree)
        ),
        start=jnp.zeros((), jnp.float64),
    )


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


@pytest.mark.parametrize("batch_shape", [(), (1,), (4,), (2, 3)])
def test_every_leaf_of_the_state_leads_with_the_batch_shape(case, batch_shape):
    state = jax.eval_shape(
        lambda params, key: case.cell.initial_state(params, batch_shape, key=key),
        case.params,
        case.key,
    )
    leaves = jax.tree.leaves(state)
    assert leaves
    assert all(leaf.shape[: len(batch_shape)] == batch_shape for leaf in leaves)


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


def test_two_batch_axes_one_row_and_no_batch_axis_give_the_rows_of_one_batch(case):
    expected, ys = eager(case.cell, case.params, case.xs, case.state)
    for shape in [(2, 2), (1,), ()]:
        rows = int(np.prod(shape))
        fold = lambda leaf, rows=rows, shape=shape: leaf[:rows].reshape(shape + leaf.shape[1:])
        xs = case.xs[:, :rows].reshape(TIME, *shape, IN_FEATURES)
        state = jax.tree.map(fold, case.state)
        after, y = eager(case.cell, case.params, xs, state)
        assert_close(after, jax.tree.map(fold, expected))
        np.testing.assert_allclose(
            y, np.asarray(ys)[:, :rows].reshape(TIME, *shape, case.cell.out_features), **TOLERANCE
        )


def test_no_steps_give_the_state_that_came_in_and_no_outputs(case):
    nothing = jnp.zeros((0, BATCH, IN_FEATURES), jnp.float64)
    state, ys = sj.unroll(case.cell, case.params, nothing, case.state)
    assert_close(state, case.state)
    assert ys.shape == (0, BATCH, case.cell.out_features)
    options: Any = {"lengths": jnp.zeros(BATCH, jnp.int32), "resets": jnp.zeros((0, BATCH), bool)}
    for reverse in (False, True):
        shapes = jax.eval_shape(
            lambda p, s, reverse=reverse: sj.unroll(
                case.cell, p, nothing, s, reverse=reverse, **options
            ),
            case.params,
            case.state,
        )
        assert shapes == jax.eval_shape(lambda: (state, ys))


def test_unroll_is_a_loop_of_step(case):
    if not case.entry.causal:
        with pytest.raises(ValueError, match=r"Bidirectional\.step: y_t needs the inputs after t"):
            case.cell.step(case.params, case.state, jnp.asarray(case.xs[0]))
        return
    state, expected = case.state, []
    for x in case.xs:
        state, y = case.cell.step(case.params, state, jnp.asarray(x))
        expected.append(y)
    after, ys = sj.unroll(case.cell, case.params, jnp.asarray(case.xs), case.state)
    assert_close(after, state)
    assert_close(ys, jnp.stack(expected))


def test_one_step_of_unroll_is_step_and_two_windows_are_one_run(case):
    xs = jnp.asarray(case.xs)
    whole, ys = sj.unroll(case.cell, case.params, xs, case.state)
    middle, first = eager(case.cell, case.params, xs[:1], case.state)
    end, second = eager(case.cell, case.params, xs[1:], middle)
    if not case.entry.causal:  # the first window cannot know what the second holds
        assert not np.allclose(first, ys[:1], **TOLERANCE)
        return
    _, y = case.cell.step(case.params, case.state, xs[0])
    assert_close(first, y[None])
    assert_close(end, whole)
    assert_close(jnp.concatenate([first, second]), ys)


def test_outputs_past_a_length_are_zero_and_nan_in_the_padding_changes_no_value(case):
    assert_is_run_in_pieces(case, lengths=LENGTHS)


def test_compiled_with_every_option_at_once_the_values_are_the_same(case):
    assert_is_run_in_pieces(case, LENGTHS, RESETS, reverse=True, run=sj.unroll)


def test_a_reset_runs_documents_separately(case):
    assert_is_run_in_pieces(case, resets=RESETS)


def test_a_reset_runs_documents_separately_within_lengths(case):
    assert_is_run_in_pieces(case, lengths=LENGTHS, resets=RESETS)


def test_reverse_runs_the_flipped_sequence(case):
    assert_is_run_in_pieces(case, reverse=True)


def test_reverse_flips_inside_each_length(case):
    assert_is_run_in_pieces(case, lengths=LENGTHS, reverse=True)


def test_a_reset_runs_documents_separately_in_reverse(case):
    assert_is_run_in_pieces(case, resets=RESETS, reverse=True)


def test_a_reset_runs_documents_separately_in_reverse_within_lengths(case):
    assert_is_run_in_pieces(case, lengths=LENGTHS, resets=RESETS, reverse=True)


@functools.cache
def derivatives(name: str) -> Callable[..., Any]:
    """The gradient of a score with respect to params, xs and state, and the tangent along one way."""
    case = make_case(name)

    def of(arguments, direction):
        by = lambda run: lambda arguments: score(run_with_lengths(run, case, *arguments))
        forward = by(functools.partial(sj.unroll, engine="scan"))
        _, tangent = jax.jvp(forward, (arguments,), (direction,))
        return jax.grad(by(sj.unroll))(arguments), tangent

    return jax.jit(of)


def run_with_lengths(run, case: Case, params: Any, xs: Any, floating: list[jax.Array]) -> Any:
    state = with_floats(case.state, floating)
    return run(case.cell, params, xs, state, lengths=jnp.asarray(LENGTHS))


PADDING = np.arange(TIME)[:, None] >= LENGTHS[None]


def test_nan_in_the_padding_changes_no_gradient(name, case):
    start = floats(case.state)
    came, expected = (
        derivatives(name)(arguments, jax.tree.map(jnp.ones_like, arguments))
        for fill in (np.nan, 5.0)
        for xs in [np.where(PADDING[..., None], fill, case.xs)]
        for arguments in [(case.params, jnp.asarray(xs), start)]
    )
    assert_close(came, expected)
    (_, gradient, _), _ = came
    assert np.all(np.asarray(gradient)[PADDING] == 0)
    assert np.all(np.asarray(gradient)[~PADDING] != 0)


def test_gradient_and_tangent_agree_and_are_the_difference_quotient(name, case):
    arguments = (case.params, jnp.asarray(case.xs), floats(case.state))
    random = np.random.default_rng(0)
    direction = jax.tree.map(
        lambda leaf: jnp.asarray(random.standard_normal(leaf.shape)), arguments
    )
    gradient, tangent = derivatives(name)(arguments, direction)
    along = sum(
        np.vdot(np.asarray(g), np.asarray(d))
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    np.testing.assert_allclose(along, tangent, rtol=1e-11)

    def value(size):
        moved = jax.tree.map(lambda leaf, way: leaf + size * way, arguments, direction)
        return float(score(run_with_lengths(eager, case, *moved)))

    # Two steps, so that the error of order step² cancels: what is left is rounding, 1e-16 / 1e-4.
    coarse, fine = ((value(s) - value(-s)) / (2 * s) for s in (2e-4, 1e-4))
    np.testing.assert_allclose(tangent, (4 * fine - coarse) / 3, rtol=1e-9, atol=1e-10)


def test_what_reverse_mode_keeps_changes_no_gradient(case, monkeypatch):
    """In segments of chunks, neither of which divides the time; with padding, cuts, and in reverse."""
    monkeypatch.setitem(TUNED, "cpu", TUNED["cpu"]._replace(chunk=2, together=0))
    state = case.state
    if not case.entry.causal:
        state = case.cell.initial_state(case.params, (BATCH,), key=case.key)
    lengths, resets = jnp.asarray(LENGTHS), jnp.asarray(RESETS)

    def gradient(**keeping):
        def loss(params, xs, floating):
            before = with_floats(state, floating)
            options = {"lengths": lengths, "resets": resets, "reverse": True, **keeping}
            return score(sj.unroll(case.cell, params, xs, before, **options))

        of = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
        return of(case.params, jnp.asarray(case.xs), floats(state))

    of_the_scan = gradient(engine="scan", remat=None)
    assert_close(gradient(remat=3), of_the_scan)
    assert_close(gradient(), of_the_scan)


def test_a_nan_in_one_document_does_not_reach_the_next(case):
    resets = np.zeros((TIME, BATCH), bool)
    resets[2] = True
    marks = jnp.asarray(resets)
    clean, ys = eager(case.cell, case.params, case.xs, case.state, resets=marks)
    for low, high in [(0, 2), (2, 4)] if not case.entry.causal else [(0, 2)]:
        xs = case.xs.copy()
        xs[low:high] = np.nan
        after, with_nan = eager(case.cell, case.params, xs, case.state, resets=marks)
        others = [t for t in range(TIME) if not low <= t < high]
        assert_close(np.asarray(with_nan)[others], np.asarray(ys)[others])
        # Some outputs may be dropped, and so be zero; no step is free of NaN.
        assert np.all(np.any(np.isnan(np.asarray(with_nan)[low:high]), axis=(1, 2)))
        if case.entry.causal:
            assert_close(after, clean)


def test_a_reset_stops_a_nan_in_the_state_and_keeps_the_noise(case):
    noise = noise_only(case.cell, case.state)
    poisoned = with_floats(
        case.state, [jnp.full_like(leaf, jnp.nan) for leaf in floats(case.state)]
    )
    resets = np.zeros((TIME, BATCH), bool)
    resets[[0, TIME - 1]] = True  # where each direction enters, or one step from it
    after, ys = eager(case.cell, case.params, case.xs, poisoned, resets=jnp.asarray(resets))
    uncut, _ = eager(case.cell, case.params, case.xs, case.state)
    # A walk back enters at the last step, before any cut; one step on the cut lies behind it.
    clean = np.asarray(ys) if case.entry.causal else np.asarray(ys)[: TIME - 1]
    assert np.all(np.isfinite(clean))
    for old, new, is_noise in zip(*map(jax.tree.leaves, (uncut, after, noise)), strict=True):
        assert not is_noise or np.array_equal(plain(old), plain(new))


def test_no_output_sees_what_comes_after_it_unless_the_cell_reads_both_ways(case):
    xs = case.xs.copy()
    xs[2:] = np.nan
    _, ys = eager(case.cell, case.params, xs, case.state)
    assert np.all(np.isfinite(np.asarray(ys)[:2])) == case.entry.causal
    assert np.all(np.any(np.isnan(np.asarray(ys)[2:]), axis=(1, 2)))


def test_under_jit_and_vmap_over_params_and_over_xs_values_are_the_same(case):
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), case.params)
    xs = jnp.stack([jnp.asarray(case.xs), -jnp.asarray(case.xs)])
    run = lambda params, xs: sj.unroll(case.cell, params, xs, case.state)
    came = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(params, xs)
    for i in range(2):
        for j in range(2):
            one = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            expected = eager(case.cell, one, xs[j], case.state)
            assert_close(jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], came), expected)


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


def test_deterministic_keeps_the_params_and_the_structure_of_the_state(case):
    quiet = case.cell.deterministic()
    assert quiet.deterministic() == quiet
    assert (quiet == case.cell) == (case.entry.noisy == 0)
    assert jax.eval_shape(lambda key: quiet.init(key, IN_FEATURES), case.key) == jax.eval_shape(
        lambda key: case.cell.init(key, IN_FEATURES), case.key
    )
    state = quiet.initial_state(case.params, (BATCH,))  # asks for no key
    assert jax.eval_shape(lambda: state) == jax.eval_shape(lambda: case.state)
    same = [
        eager(quiet, case.params, case.xs, quiet.initial_state(case.params, (BATCH,), key=key))
        for key in (None, case.key)
    ]
    assert_close(same[0][1], same[1][1])


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
    came = eager(case.cell, case.params, case.xs, case.state, key=key)
    expected = eager(case.cell, case.params, case.xs, case.cell.redraw(case.state, key))
    assert_close(came, expected)
    _, kept = eager(case.cell, case.params, case.xs, case.state)
    assert np.allclose(came[1], kept, **TOLERANCE) == (case.entry.noisy == 0)


def test_a_gated_cell_is_composed_of_its_parts(case):
    gated = sj.as_gated(case.cell)
    assert (gated is not None) == case.entry.gated
    if gated is None:
        return
    xs, params, state = jnp.asarray(case.xs), case.params, case.state
    z = gated.project(params, xs)  # many steps at once, as it does not see the state
    np.testing.assert_allclose(z[1], gated.project(params, xs[1]), **TOLERANCE)
    kernel = gated.recurrent_kernel(params)
    assert (kernel.shape[-1] if kernel.ndim == 2 else kernel[:, 0].size) == z.shape[-1]
    assert gated.gate_blocks is None or z.shape[-1] == sum(gated.gate_blocks) * gated.features
    r = recurrent_matmul(gated.recurrent_input(state), kernel)
    came = gated.gate(gated.gate_params(params), z[0], r, state)
    assert_close(came, case.cell.step(params, state, xs[0]))
    first_row = np.arange(BATCH) == 0
    poison = lambda leaf: jnp.where(
        jnp.asarray(first_row).reshape(BATCH, *(1,) * (leaf.ndim - 1)), jnp.nan, leaf
    )
    poisoned = gated.gate(
        gated.gate_params(params),
        poison(z[0]),
        poison(r),
        with_floats(state, [poison(leaf) for leaf in floats(state)]),
    )
    for a, b in zip(jax.tree.leaves(poisoned), jax.tree.leaves(came), strict=True):
        np.testing.assert_array_equal(plain(a[1:]), plain(b[1:]))


def test_what_a_gated_cell_declares_is_true(case):
    """`additive`: z and r only meet in their sum. `saves_gates`: a residual is marked in the trace."""
    gated = sj.as_gated(case.cell)
    if gated is None:
        return
    gate_params, state = gated.gate_params(case.params), case.state
    z = gated.project(case.params, jnp.asarray(case.xs[0]))
    r = recurrent_matmul(gated.recurrent_input(state), gated.recurrent_kernel(case.params))
    shift = 0.1 + 0.01 * jnp.arange(z.size, dtype=z.dtype).reshape(z.shape)
    one = floats(gated.gate(gate_params, z + shift, r, state))
    other = floats(gated.gate(gate_params, z, r + shift, state))
    assert gated.additive == all(
        np.allclose(a, b, **TOLERANCE) for a, b in zip(one, other, strict=True)
    )
    trace = str(jax.make_jaxpr(gated.gate)(gate_params, z, r, state))
    assert gated.saves_gates == (f"name={SAVED}" in trace)


def test_named_gates_lie_in_their_range_and_the_memory_path_is_one_of_them(case):
    for leaf in leaves(case.cell, case.params) if case.entry.causal else ():
        if leaf.cell != case.cell:
            continue  # a registered cell of its own, or inside one
        gates = gates_of(case.cell, case.params, case.state, jnp.asarray(case.xs[0]))
        ranges = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, np.inf)}
        for gate in gates.values():
            low, high = ranges.get(gate.activation or "", (-np.inf, np.inf))
            assert np.all((gate.value >= low) & (gate.value <= high))
        if case.cell.memory_path in gates:
            path = gates[case.cell.memory_path].value
            assert np.all((path >= 0) & (path <= 1))
        elif case.cell.memory_path is not None:
            assert getattr(case.cell, "leak", None) == 1


def test_children_run_in_their_order_and_hold_their_parts(case):
    """What `children` says is what `unroll_with` runs, with the same params."""
    run: list[Any] = []

    def leaf(cell, params, state, xs, plan):
        run.append((cell, params))
        return sj.unroll(cell, params, xs, state, reverse=plan.reverse)

    run_layers(leaf, case.cell, case.params, case.state, jnp.asarray(case.xs))
    layers = [found for found in leaves(case.cell, case.params) if found.plain]
    if layers:
        assert [(found.cell, id(found.params)) for found in layers] == [
            (cell, id(params)) for cell, params in run
        ]


def test_a_linear_cell_is_composed_of_its_parts_and_is_linear(case):
    linear = sj.as_linear(case.cell)
    assert (linear is not None) == case.entry.linear
    if linear is None:
        return
    xs = jnp.asarray(case.xs)
    a, b = linear.coefficients(case.params, xs)  # many steps at once, as they do not see the state
    (h,) = jax.tree.leaves(case.state)
    assert b.shape[:-1] == xs.shape[:-1]
    assert b.dtype == h.dtype
    hs = []
    for a_t, b_t in zip(jnp.broadcast_to(a, b.shape), b, strict=True):
        h = a_t * h + b_t
        hs.append(h)
    after, ys = eager(case.cell, case.params, xs, case.state)
    assert_close(jax.tree.leaves(after), [h])
    assert_close(linear.readout(case.params, jnp.stack(hs), xs), ys)


def test_the_output_is_read_off_the_state_after_the_step(case):
    if not case.entry.leaf:
        with pytest.raises(ValueError, match=r"output\(params, state, x\) is not defined"):
            case.cell.output(case.params, case.state, jnp.asarray(case.xs[0]))
        return
    x = jnp.asarray(case.xs[0])
    after, y = case.cell.step(case.params, case.state, x)
    assert_close(case.cell.output(case.params, after, x), y)


def test_mixing_is_declared_and_true(case):
    """What a cell declares is what is registered, and ∂s_t/∂s_{t-1} has the zeros that it promises."""
    assert case.cell.mixing == case.entry.mixing
    row = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    state = row(case.state)
    step = lambda state: case.cell.step(case.params, state, jnp.asarray(case.xs[0, 0]))[0]
    after = lambda floating: floats(step(with_floats(state, floating)))
    if case.cell.mixing == "dense":  # which promises nothing
        return
    blocks = jax.tree.leaves(jax.jacfwd(after)(floats(state)))
    width = floats(state)[0].size
    heads = width if case.cell.mixing == "elementwise" else case.entry.heads
    head = np.arange(width) // (width // heads)
    for block in blocks:
        assert np.all(np.asarray(block)[head[:, None] != head[None]] == 0)
    assert any(np.all(np.diag(block) != 0) for block in blocks)
    if case.cell.mixing == "heads":
        assert 1 < heads < width
        assert any(np.all(np.asarray(block)[head[:, None] == head[None]] != 0) for block in blocks)


def test_in_bfloat16_the_values_are_those_of_float32_to_three_digits(name):
    entry = REGISTRY[name]
    cells = entry.build(jnp.float32, jnp.bfloat16), entry.build(jnp.float32, None)
    params = cells[1].init(jax.random.key(7), IN_FEATURES)
    xs = jax.random.normal(jax.random.key(1), (TIME, BATCH, IN_FEATURES))
    with jax.disable_jit():
        runs = [sj.unroll(cell, params, xs, key=jax.random.key(2)) for cell in cells]
    narrow, wide = (np.asarray(ys, np.float32) for _, ys in runs)
    # bfloat16 keeps 8 bits; a few operations and four steps lose a few of them.
    np.testing.assert_allclose(narrow, wide, atol=0.05 * np.abs(wide).max())
    user_made = {LeakySum, RunningMean}  # which have no dtype to compute in
    assert not np.array_equal(narrow, wide) or cells_within(cells[0]) & user_made
    for leaf in floats(runs[0][0]):  # the state is wider by content, not by dtype alone
        assert not np.array_equal(leaf, leaf.astype(jnp.bfloat16).astype(leaf.dtype))


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
        found = jax.grad(lambda params: jnp.sum(weights * ys(params).astype(jnp.float32)))(params)
        assert [leaf.dtype for leaf in floats(found)] == [leaf.dtype for leaf in floats(params)]
        return np.concatenate([np.ravel(leaf) for leaf in floats(found)])

    with jax.disable_jit():
        narrow, wide = (gradient(cell) for cell in cells)
    assert np.linalg.norm(narrow - wide) < 0.05 * np.linalg.norm(wide)


def test_params_and_states_come_back_from_a_checkpoint_as_they_were(case, tmp_path):
    key = jax.random.key(0)
    saved = sj.training.TrainState(case.params, (), case.state, jnp.zeros((), jnp.int32), key)
    checkpoints = sj.training.Checkpoints(tmp_path)
    checkpoints.save(saved, {})
    restored, _ = checkpoints.restore(jax.eval_shape(lambda: saved))
    checkpoints.close()
    for came, expected in ((restored.params, case.params), (restored.carry, case.state)):
        assert jax.tree.structure(came) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(came), jax.tree.leaves(expected), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(plain(a), plain(b))
