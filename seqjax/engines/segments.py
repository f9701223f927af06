"""Checkpointing over time: states at the ends of segments are kept, all else is computed again."""

import math

import numpy as np
from jaxtyping import Array

from seqjax.numerics import widened
from seqjax.cell import Cell, Params, Run, State
from seqjax.plan import Plan
from seqjax.engines.pieces import Steps, scan_pieces, walked_forward


def segmented(
    run: Run, cell: Cell, params: Params, state: State, xs: Array, plan: Plan, length: int
) -> tuple[State, Array]:
    """What `run` gives, in segments of `length` steps, all layers of a segment before the next one.

    Reverse mode keeps the inputs, the outputs and one state for each segment, and runs each segment once
    more: memory O(T / length + length) states instead of O(T), for one more forward pass.
    Reference: Chen et al. 2016, "Training deep nets with sublinear memory cost"; over time: Gruslys et
    al. 2016, "Memory-efficient backpropagation through time".
    """
    params, narrow = widened(params)

    def segment(state: State, steps: Steps) -> tuple[State, Array]:
        # Steps lie in the order of the walk, so that within a segment it is a forward one.
        within = Plan(steps.real, steps.cut, plan.fresh, reverse=False)
        return run(cell, narrow(params), state, steps.x, within)

    steps = Steps(xs, plan.real, plan.cuts())
    body = walked_forward(segment, plan.reverse)
    return scan_pieces(body, state, steps, length=length, reverse=plan.reverse, again=True)


def is_segmented(remat: str | int | None) -> bool:
    """Whether `remat` asks for segments, by "sqrt" or their number of steps."""
    return remat == "sqrt" or isinstance(remat, int | np.integer)


def segment_length(remat: str | int | None, time: int) -> int:
    """The steps of a segment: as asked, or ⌈√T⌉."""
    return math.isqrt(max(0, time - 1)) + 1 if isinstance(remat, str) else int(remat or 1)
