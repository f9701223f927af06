"""Dispatch: which engine runs a cell, and what reverse mode keeps of a run."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, GatedCell, Layered, Params, RunCell, State, as_gated, run_children
from seqjax.engines.chunked import chunked, chunked_keeping_states
from seqjax.engines.scan import (
    is_segmented,
    scan,
    scan_keeping_states,
    segment_length,
    segmented,
)
from seqjax.engines.tuned import tuned
from seqjax.engines.validate import check_step
from seqjax.numerics import where_rows
from seqjax.plan import Plan

Remat = str | int | None

ENGINES: dict[str, RunCell] = {"scan": scan, "chunked": chunked}
REMATS = ("auto", None, "state", "sqrt")
WITHIN = "within a segment"
"""The `remat` inside a segment: keep what makes the steps of the segment cheapest."""


class Choice(NamedTuple):
    """The engine for one cell: its name, its function, and the reason in words."""

    engine: str
    run: RunCell
    reason: str


def check_options(engine: str, remat: Remat, reverse: bool = False) -> None:
    """Validate engine, remat and reverse."""
    checks.one_of("unroll: reverse", reverse, (False, True))
    checks.one_of("unroll: engine", engine, ("auto", *ENGINES))
    steps = isinstance(remat, int | np.integer) and not isinstance(remat, bool) and remat >= 1
    if not steps and not (remat is None or (isinstance(remat, str) and remat in REMATS)):
        raise ValueError(
            f"unroll: remat: expected one of {', '.join(map(repr, REMATS))}, or a positive integer, "
            f"the steps of a segment, got {remat!r}"
        )


def run_cell(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan, *, engine: str, remat: Remat
) -> tuple[State, Array]:
    """Run a cell over all time: in segments if `remat` says so, layer by layer, a leaf by its engine.

    A cell that reads the future, such as `sj.Bidirectional`, is not cut into segments; the cells inside
    it are. Outputs at padding are zero.
    """
    if is_segmented(remat) and cell.causal:
        run = functools.partial(run_cell, engine=engine, remat=WITHIN)
        return segmented(run, cell, params, state, xs, plan, segment_length(remat, xs.shape[0]))
    if isinstance(cell, Layered):
        run = run_children(functools.partial(run_cell, engine=engine, remat=remat))
        state, ys = cell.unroll_with(run, params, state, xs, plan)
    else:
        check_step(cell, params, state, xs)
        run = choose(cell, engine, remat).run
        state, ys = run(cell, params, state, xs, plan)
    if plan.valid is not None:
        ys = where_rows(plan.valid, ys, jnp.zeros_like(ys))
    return state, ys


def choose(cell: Cell, engine: str, remat: Remat) -> Choice:
    """Choose the engine of a leaf cell under the arguments `engine` and `remat` of `unroll`.

    Raises a ValueError for an engine that cannot run the cell.
    """
    gated = as_gated(cell)
    if engine == "chunked" and gated is None:
        raise ValueError(
            f"unroll: engine 'chunked' runs gated cells, and {cell!r} is not one; "
            "expected engine='auto', which gives each layer what it can have, or 'scan'"
        )
    if engine != "auto":
        keeping_states = {"scan": scan_keeping_states, "chunked": chunked_keeping_states}
        of_states = remat == "state" or (engine == "chunked" and remat == WITHIN)
        return Choice(engine, (keeping_states if of_states else ENGINES)[engine], "as requested")
    if remat is None:
        return Choice("scan", scan, "the plain scan: remat=None keeps all residuals of autodiff")
    if remat == "auto":
        return _fastest(gated)
    if gated is not None:
        reason = "a gated cell: the gates are recomputed from the states"
        return Choice("chunked", chunked_keeping_states, reason)
    if remat == "state":
        return Choice("scan", scan_keeping_states, "not gated: each step is recomputed")
    return Choice("scan", scan, "not gated: autodiff keeps the residuals of one segment")


def _fastest(gated: GatedCell | None) -> Choice:
    """Choose by the measurements on this backend."""
    if gated is None:
        return Choice("scan", scan, "the plain scan: not a gated cell")
    backend = jax.default_backend()
    if tuned().engine != "chunked":
        return Choice(
            "scan", scan, f"the plain scan: no engine was measured to be faster on {backend}"
        )
    if not gated.saves_gates:
        return Choice("scan", scan, "the plain scan: the cell marks no residuals (saves_gates)")
    return Choice(
        "chunked", chunked, f"a gated cell: measured to be faster than the scan on {backend}"
    )
