"""What the rule of a gated cell does with z and r, read off its trace: what an engine can be spared."""

from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array

from seqjax.gates import GATES
from seqjax.numerics import recurrent_matmul
from seqjax.cell import GatedCell, Params, State


class Rule(NamedTuple):
    """What the trace of a gate tells.

    as_sum: z and r enter it as z + r alone, so that the gradients of both are one.
    whole: and that sum is not sliced before anything is computed from it.
    keeps: some of its values are `kept` for the backward pass.
    """

    as_sum: bool
    whole: bool
    keeps: bool


def rule_of(cell: GatedCell, params: Params, state: State, xs: Array) -> Rule:
    """The rule of a gated cell, by shapes alone; xs: [time, *batch, in_features]."""

    def enters(params: Params, state: State, x: Array) -> tuple[Any, Any, Any]:
        r = recurrent_matmul(cell.recurrent_input(state), cell.recurrent_kernel(params))
        return cell.gate_params(params), cell.project(params, x), r

    x = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
    gate_params, z, r = jax.eval_shape(enters, params, state, x)
    traced = jax.make_jaxpr(cell.gate)(gate_params, z, r, state).jaxpr
    start = len(jax.tree.leaves(gate_params))
    halves = traced.invars[start : start + 2]
    reads = lambda values, which: [v for v in values if any(v is one for one in which)]
    users = [equation for equation in traced.eqns if reads(equation.invars, halves)]
    as_sum = (
        len(users) == 1
        and users[0].primitive is lax.add_p
        and len(reads(users[0].invars, halves)) == 2
        and not reads(traced.outvars, halves)
    )
    of_sum = [e for e in traced.eqns if as_sum and reads(e.invars, users[0].outvars)]
    sliced = any(equation.primitive in (lax.split_p, lax.slice_p) for equation in of_sum)
    return Rule(as_sum, as_sum and not sliced, f"name={GATES}" in str(traced))
