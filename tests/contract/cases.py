"""A registered cell with params, inputs and a state, and the loop that says what a run has to give."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cell import noise_only
from tests.contract.registry import IN_FEATURES, REGISTRY, REPRESENTATIVE, Entry

TIME, BATCH = 4, 4

FULL = np.full(BATCH, TIME)
LENGTHS = np.array([4, 1, 0, 9])  # full, one step, none, and above the time that there is
PADDING = np.arange(TIME)[:, None] >= LENGTHS[None]

NO_RESETS = np.zeros((TIME, BATCH), bool)
RESETS = NO_RESETS.copy()
RESETS[2, 0] = True
RESETS[[1, 3], 1] = True  # in the padding, where lengths are given
RESETS[[0, 1], 3] = True  # row 2 has no cut

# Two programs for the same numbers, both in float64: only rounding differs.
TOLERANCE: Any = {"rtol": 1e-12, "atol": 1e-12}


def covering(names: Iterable[str]) -> list[Any]:
    """Return parameters of a test: `make test` runs the representative cells, `make test-all` all."""
    return [pytest.param(n, marks=() if n in REPRESENTATIVE else pytest.mark.full) for n in names]


CAUSAL = [name for name, entry in REGISTRY.items() if entry.causal]
"""The registered cells that have a step."""

thorough = pytest.mark.parametrize("name", covering(REGISTRY))
"""Marks a test that `make test` runs on the representative cells only."""


class Case(NamedTuple):
    """A registered cell in float64.

    xs: [2 * TIME, BATCH, IN_FEATURES]; state: from the middle of a run; key: drew its noise.
    step: the one compiled step, of the cell (params, state, x) -> (state, y).
    """

    entry: Entry
    cell: sj.Cell
    params: Any
    xs: np.ndarray
    state: Any
    key: jax.Array
    step: Callable[..., Any]

    def build(self) -> sj.Cell:
        """Construct the same cell anew."""
        return self.entry.build(jnp.float64, None)

    def run(
        self,
        state: Any,
        lengths: np.ndarray | None = FULL,
        resets: np.ndarray | None = NO_RESETS,
        reverse: bool = False,
        xs: np.ndarray | None = None,
    ) -> tuple[Any, np.ndarray]:
        """Run the first TIME steps; lengths and resets are data, so all their values share a program."""
        state, ys = sj.unroll(
            self.cell,
            self.params,
            jnp.asarray(self.xs[:TIME] if xs is None else xs),
            state,
            lengths=None if lengths is None else jnp.asarray(lengths),
            resets=None if resets is None else jnp.asarray(resets),
            reverse=reverse,
        )
        return state, np.asarray(ys)

    def beginning(self) -> Any:
        """Return the state in which a run of the whole batch starts, with the noise of `key`."""
        return self.cell.initial_state(self.params, (BATCH,), key=self.key)


@functools.cache
def make_case(name: str) -> Case:
    entry = REGISTRY[name]
    cell = entry.build(jnp.float64, None)
    params_key, xs_key, key = jax.random.split(jax.random.key(7), 3)
    params = cell.init(params_key, IN_FEATURES)
    xs = np.asarray(jax.random.normal(xs_key, (2 * TIME, BATCH, IN_FEATURES), jnp.float64))
    case = Case(entry, cell, params, xs, None, key, jax.jit(cell.step))
    state, _ = case.run(case.beginning(), None, None, xs=xs[TIME:])
    return case._replace(state=state)


def loop(case: Case, xs: np.ndarray, state: Any) -> tuple[Any, np.ndarray]:
    """Run a whole document as a Python loop of `step`; a cell that reads both ways runs unpadded."""
    if not case.entry.causal:
        state, ys = sj.unroll(case.cell, case.params, jnp.asarray(xs), state)
        return state, np.asarray(ys)
    ys = []
    for x in xs:
        state, y = case.step(case.params, state, x)
        ys.append(np.asarray(y))
    return state, np.stack(ys)


def in_pieces(
    case: Case, state: Any, lengths: np.ndarray, resets: np.ndarray, reverse: bool
) -> tuple[list[Any], list[Any], np.ndarray]:
    """Run each document of each row by itself: what `lengths`, `resets` and `reverse` mean.

    A document starts from the initial memory and with the noise that the one before it left.
    Returns for each row the state after its last and after its first document, and all outputs.
    """
    noise = noise_only(case.cell, state)
    renewed = lambda old, new: jax.tree.map(lambda n, a, b: a if n else b, noise, old, new)
    state, beginning = on_host(state), on_host(case.beginning())
    ys = np.zeros((TIME, BATCH, case.cell.out_features))
    last, first = [], []
    for row, length in enumerate(np.minimum(lengths, TIME)):
        cuts = [t for t in range(1, length) if resets[t, row]]
        documents = list(zip([0, *cuts], [*cuts, int(length)], strict=True))
        now, fresh = row_of(state, row), row_of(beginning, row)
        if length > 0 and resets[0, row] and not reverse:
            now = renewed(now, fresh)
        states = []
        for low, high in documents[::-1] if reverse else documents:
            if high > low:
                document = case.xs[low:high, row : row + 1]
                way = slice(None, None, -1 if reverse else 1)
                now, y = loop(case, document[way], now)
                ys[low:high, row] = y[way, 0]
            states.append(now)
            now = renewed(now, fresh)
        last.append(states[-1])
        first.append(states[0])
    return last, first, ys


def assert_is_run_in_pieces(
    case: Case, lengths: np.ndarray | None, resets: np.ndarray | None, reverse: bool
) -> None:
    # Two directions enter at two ends, so a carried state belongs to two documents.
    state = case.state if case.entry.causal else case.beginning()
    xs = case.xs[:TIME].copy()
    if lengths is not None:
        xs[np.arange(TIME)[:, None] >= lengths[None]] = np.nan
    after, ys = case.run(state, lengths, resets, reverse, xs)
    last, first, expected = in_pieces(
        case,
        state,
        FULL if lengths is None else lengths,
        NO_RESETS if resets is None else resets,
        reverse,
    )
    np.testing.assert_allclose(ys, expected, **TOLERANCE)
    for row, came in enumerate(rows_of(after)):
        if case.entry.causal:
            assert_close(came, last[row])
        else:  # each direction ends where it walks to: in the last document, or in the first
            for a, b, c in zip(*map(jax.tree.leaves, (came, last[row], first[row])), strict=True):
                assert np.allclose(a, b, **TOLERANCE) or np.allclose(a, c, **TOLERANCE)


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def on_host(tree: Any) -> Any:
    """Return a tree whose leaves but random keys are NumPy arrays, which are cut without a program."""
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) else np.asarray(leaf), tree)


def row_of(tree: Any, row: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[row : row + 1], tree)


def rows_of(tree: Any) -> list[Any]:
    tree = on_host(tree)
    return [row_of(tree, row) for row in range(BATCH)]


def plain(leaf: Any) -> np.ndarray:
    """Return a leaf as NumPy; a random key as its words."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def assert_close(came: Any, expected: Any) -> None:
    """The same structure, shapes and dtypes, and the same values up to rounding."""
    chex.assert_trees_all_equal_shapes_and_dtypes(came, expected)
    chex.assert_trees_all_close(
        jax.tree.map(plain, came), jax.tree.map(plain, expected), **TOLERANCE
    )


def is_real(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def is_complex(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


def floats(tree: Any) -> list[jax.Array]:
    """Return the floating leaves, a complex one as its real and its imaginary part."""
    parts = []
    for leaf in jax.tree.leaves(tree):
        if is_complex(leaf):
            parts += [leaf.real, leaf.imag]
        elif is_real(leaf):
            parts.append(leaf)
    return parts


def with_floats(tree: Any, new: list[jax.Array]) -> Any:
    """Replace the floating leaves of `tree`; its clocks, masks and keys stay."""
    remaining = iter(new)

    def replaced(leaf):
        if is_complex(leaf):
            return jax.lax.complex(next(remaining), next(remaining))
        return next(remaining) if is_real(leaf) else leaf

    return jax.tree.map(replaced, tree)


def score(tree: Any) -> jax.Array:
    """Return one number that depends on every floating entry, on each in another way."""
    return sum(
        (
            jnp.sum(leaf * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape))
            for leaf in floats(tree)
        ),
        start=jnp.zeros((), jnp.float64),
    )
