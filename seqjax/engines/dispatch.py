"""The engines, which of them a cell gets, and what reverse mode keeps of a run."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from seqjax import checks
from seqjax.numerics import where_rows
from seqjax.cell import Cell, GatedCell, Layered, Params, State, as_gated
from seqjax.plan import Plan
from seqjax.engines.chunked import chunked, chunked_keeping_states
from seqjax.engines.refusals import check_step
from seqjax.engines.rules import rule_of
from seqjax.engines.scan import scan, scan_keeping_states
from seqjax.engines.segments import is_segmented, segment_length, segmented
from seqjax.engines.tuned import tuned

Engine = Callable[[Cell, Params, State, Array, Plan], tuple[State, Array]]
Remat = str | int | None

ENGINES: dict[str, Engine] = {"scan": scan, "chunked": chunked}
REMATS = ("auto", None, "state", "sqrt")
WITHIN = "within a segment"
"""The `remat` of what runs inside a segment: its own steps are kept in the cheapest way."""


class Choice(NamedTuple):
    """The engine for one cell by name, the function that it is, and the sentence that says why."""

    engine: str
    run: Engine
    reason: str


def check_options(engine: str, remat: Remat, reverse: bool = False) -> None:
    """Refuse what is no engine, what is no way to keep less, and what is no direction."""
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
    """One cell through all time: in segments where that is asked, layer by layer, a leaf by its engine.

    What reads the future, as both directions do, has no segments; the cells inside it have.
    """
    if not is_segmented(remat) or not cell.causal:
        return run_layers(cell, params, state, xs, plan, engine=engine, remat=remat)
    run = functools.partial(run_layers, engine=engine, remat=WITHIN)
    length = segment_length(remat, xs.shape[0])
    return segmented(run, cell, params, state, xs, plan, length)


def run_layers(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan, *, engine: str, remat: Remat
) -> tuple[State, Array]:
    """A layered cell layer by layer, a leaf with its engine; outputs at padding are zero."""
    if isinstance(cell, Layered):
        run = functools.partial(run_cell, engine=engine, remat=remat)
        state, ys = cell.unroll_with(run, params, state, xs, plan)
    else:
        check_step(cell, params, state, xs)
        state, ys = choose(cell, params, state, xs, engine, remat).run(
            cell, params, state, xs, plan
        )
    if plan.real is not None:
        ys = where_rows(plan.real, ys, jnp.zeros_like(ys))
    return state, ys


def choose(
    cell: Cell, params: Params, state: State, xs: Array, engine: str, remat: Remat
) -> Choice:
    """The engine that runs a leaf cell under the `engine` and `remat` that were asked for.

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
        return Choice(engine, (keeping_states if of_states else ENGINES)[engine], "asked for")
    if remat is None:
        return Choice("scan", scan, "the plain scan, as remat=None keeps what autodiff keeps")
    if remat == "auto":
        return _fastest(gated, params, state, xs)
    if gated is not None:
        reason = "a gated cell, whose gates follow from its states"
        return Choice("chunked", chunked_keeping_states, reason)
    if remat == "state":
        return Choice("scan", scan_keeping_states, "not gated: each step is computed once more")
    return Choice("scan", scan, "not gated: autodiff keeps what it needs of one segment")


def _fastest(gated: GatedCell | None, params: Params, state: State, xs: Array) -> Choice:
    """By what was measured on this backend, where nothing asks for less memory."""
    if gated is None:
        return Choice("scan", scan, "the plain scan: not a gated cell")
    backend = jax.default_backend()
    if tuned().engine != "chunked":
        return Choice(
            "scan", scan, f"the plain scan: nothing was measured to be faster on {backend}"
        )
    if not rule_of(gated, params, state, xs).keeps:
        return Choice("scan", scan, "the plain scan: its gates do not say what is worth keeping")
    return Choice(
        "chunked", chunked, f"a gated cell: measured to be faster than the scan on {backend}"
    )
