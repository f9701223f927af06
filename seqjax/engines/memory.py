"""`plan_memory`: what reverse mode keeps, and computes again, under each `remat`; nothing is run."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax._tree import join_floating, split_floating
from seqjax.cell import Cell, Params, State, as_gated, run_layers
from seqjax.engines.chunked import kept_of_step
from seqjax.engines.dispatch import choose
from seqjax.engines.scan import segment_length
from seqjax.engines.tuned import chunk_length
from seqjax.engines.validate import check_cell, check_step, named, params_of
from seqjax.plan import Plan


class MemoryRow(NamedTuple):
    """One choice of `remat`, in bytes.

    kept: what waits from the forward pass for the backward pass.
    working: what the backward pass has computed again at once, beside that.
    again: in words, what is computed twice.
    """

    remat: str | int | None
    kept: int
    working: int
    again: str


class MemoryPlan(NamedTuple):
    """What a run takes under each `remat`; prints as a table.

    outputs: the bytes of ys.
    """

    cell: Cell
    time: int
    batch: int
    rows: tuple[MemoryRow, ...]
    outputs: int

    def __str__(self) -> str:
        """A line for each choice, and one for the outputs."""
        cells = [
            (repr(r.remat), _readable(r.kept), _readable(r.working), r.again) for r in self.rows
        ]
        cells = [("remat", "kept", "working", "computed twice"), *cells]
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        lines = [
            f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in cells
        ]
        title = f"{self.cell!r}, {self.time:,} steps, {self.batch:,} in a batch"
        outputs = (
            f"Outputs take {_readable(self.outputs)}, and their gradient as much again; with a loss of "
            "the last state, or folded into the run by sj.unroll_fold, neither exists."
        )
        return "\n".join([title, lines[0], "─" * max(map(len, lines)), *lines[1:], outputs])


class Layer(NamedTuple):
    """A leaf cell of a run, and the bytes of one step of one row of the batch.

    residuals: what autodiff keeps of a step, without the inputs where those are the caller's own.
    auto: what the engine keeps that `remat="auto"` has.
    between: its inputs, where they are the outputs of another layer.
    """

    gated: bool
    state: int
    residuals: int
    auto: int
    between: int


def plan_memory(
    cell: Cell, time: int, batch: int = 1, *, in_features: int | None = None
) -> MemoryPlan:
    """What reverse mode needs for `sj.unroll(cell, params, xs, remat=...)`, in bytes, from shapes alone.

    xs: [time, batch, in_features], float32; None stands for `cell.features`.

    "auto" keeps what its engine keeps: of gated cells on a CPU states and gates, else what None keeps.
    With R bytes that autodiff keeps of a step and S bytes of state, all layers together, None keeps T R,
    "state" keeps T S, and "sqrt" keeps √T S and has √T S of one segment beside them. What a loss makes
    of the outputs comes to it, and so do the gradients. A compiler may need less: it drops what no
    gradient asks for. `python -m benchmarks.memory` sets XLA's own numbers beside these.

    Raises a ValueError for sizes below 1.

    >>> import seqjax as sj
    >>> plan = sj.plan_memory(sj.LSTM(256), time=16384, batch=8, in_features=64)
    >>> [(row.remat, round(row.kept / 1e6)) for row in plan.rows]
    [('auto', 940), (None, 1611), ('state', 268), ('sqrt', 2)]
    """
    with named("plan_memory"):
        check_cell(cell)
        checks.positive("plan_memory: time", time)
        checks.positive("plan_memory: batch", batch)
        width = int(cell.features) if in_features is None else in_features
        checks.size("plan_memory: in_features", width)
        layers, output = _layers(cell, width)
    rows = time * batch
    state = sum(layer.state for layer in layers)
    between = sum(layer.between for layer in layers)
    length = segment_length("sqrt", time)
    segments = -(-time // length)
    # A gated layer has its gates again a chunk at a time, any other a step at a time.
    again = max(layer.residuals * (chunk_length(time) if layer.gated else 1) for layer in layers)
    segment = sum(layer.state if layer.gated else layer.residuals for layer in layers)
    twice = "z, r and the gates, chunk by chunk" if all(x.gated for x in layers) else "each step"
    return MemoryPlan(
        cell,
        time,
        batch,
        (
            MemoryRow("auto", rows * sum(x.auto for x in layers), rows * between, "nothing"),
            MemoryRow(None, rows * sum(x.residuals for x in layers), rows * between, "nothing"),
            MemoryRow("state", rows * (state + between), rows * between + batch * again, twice),
            MemoryRow(
                "sqrt",
                segments * batch * state,
                length * batch * (segment + 2 * between) + batch * again,
                f"the run, {length} steps at a time; and {twice}",
            ),
        ),
        rows * output,
    )


def _layers(cell: Cell, in_features: int) -> tuple[list[Layer], int]:
    """Each leaf cell in the order of the run, and the bytes of an output."""
    layers: list[Layer] = []
    given = None

    def record(
        cell: Cell, params: Params, state: State, xs: Array, plan: Plan
    ) -> tuple[State, Array]:
        check_step(cell, params, state, xs)
        own = xs is given
        residuals = _residuals(cell, params, xs.shape[-1], own=own)
        chunked = choose(cell, "auto", "auto").engine == "chunked"
        layers.append(
            Layer(
                gated=as_gated(cell) is not None,
                state=_size(state),
                residuals=residuals,
                auto=_gates(cell, params, xs.shape[-1]) if chunked else residuals,
                between=0 if own else _size(xs[0]),
            )
        )
        state, y = cell.step(params, state, xs[0])
        return state, y[None]

    def run(params: Params, xs: Array) -> Array:
        nonlocal given
        given = xs
        state = cell.initial_state(params, (1,), key=jax.random.key(0))
        _, ys = run_layers(record, cell, params, state, xs)
        return ys

    xs = jax.ShapeDtypeStruct((1, 1, in_features), jnp.float32)
    ys = jax.eval_shape(run, params_of(cell, in_features), xs)
    return layers, _size(ys)


def _gates(cell: Cell, params: Params, in_features: int) -> int:
    """What the chunked engine keeps of a step for each row, the inputs of an inner layer apart."""
    gated = as_gated(cell)
    assert gated is not None

    def kept(params: Params, x: Array) -> Any:
        state = gated.initial_state(params, x.shape[:1], key=jax.random.key(0))
        return kept_of_step(gated, params, state, x)

    return _of_a_row(kept, params, in_features)


def _of_a_row(kept: Callable[[Params, Array], Any], params: Params, in_features: int) -> int:
    """The bytes that two rows need more than one: without what they share."""
    x = lambda rows: jax.ShapeDtypeStruct((rows, in_features), jnp.float32)
    one, two = (_size(jax.eval_shape(kept, params, x(rows))) for rows in (1, 2))
    return two - one


def _residuals(cell: Cell, params: Params, in_features: int, *, own: bool) -> int:
    """What autodiff keeps of a step for each row."""

    def pullback(params: Params, x: Array) -> Any:
        state = cell.initial_state(params, x.shape[:1], key=jax.random.key(0))
        floating, others = split_floating(state)

        def step(params: Params, floating: Any, x: Array) -> tuple[Any, Array]:
            after, y = cell.step(params, join_floating(floating, others), x)
            return split_floating(after)[0], y

        _, pull = jax.vjp(step, params, floating, x)
        return pull

    return _of_a_row(pullback, params, in_features) - (4 * in_features if own else 0)


def _size(tree: Any) -> int:
    """The bytes of all leaves."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _readable(size: int) -> str:
    """Bytes with three digits and a unit."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(len(units) - 1, int(math.log10(max(1, size)) // 3))
    return f"{size / 1000**power:.3g} {units[power]}"
