"""The values of a cell's gates by name, and how much of its memory a step keeps.

The contract has the two halves z and r of the packed pre-activations, but not what a cell makes of
them; here is one rule for each cell that has gates. A cell without a rule has no gates to look at.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax.gates import activate
from seqjax.numerics import compute_dtype, matmul, recurrent_matmul
from seqjax.cell import Cell, GatedCell, LinearCell, Params, State
from seqjax.cells.cho_gru import ChoGRU
from seqjax.cells.cifg import CIFG
from seqjax.cells.clockwork import ClockworkRNN
from seqjax.cells.diagonal import DiagonalGRU, DiagonalLSTM
from seqjax.cells.elman import Elman, PreActivationRNN
from seqjax.cells.gru import GRU
from seqjax.cells.lstm import LSTM
from seqjax.cells.mgu import MGU
from seqjax.cells.peephole import PeepholeLSTM
from seqjax.cells.skip import SkipRNN
from seqjax.cells.slstm import SLSTM
from seqjax.wrappers.gated import GatedWrapper
from seqjax.wrappers.layer_norm import LayerNorm
from seqjax.wrappers.zoneout import Zoneout


class Gates(NamedTuple):
    """What a step computes on its way, [*batch, features] each.

    gates: values of logistic functions, in [0, 1], by the letters of the cell's docstring.
    units: values of tanh, in [-1, 1].
    keep: the share of the memory that the step keeps, unit by unit: f of an LSTM, z of a GRU, 1 - f of
        an MGU, |a| of a linear cell, 1 - α of a leaky network; None where the cell has no such path.
    """

    gates: dict[str, Array]
    units: dict[str, Array]
    keep: Array | None


NONE = Gates({}, {}, None)


@functools.singledispatch
def gates(cell: Cell, params: Params, state: State, x: Array) -> Gates:
    """The gates of the step that starts from `state` and reads x [*batch, in_features].

    A wrapper shows the gates of the cell inside it, as they are there: normalised by `sj.LayerNorm`, on
    the masked h of `sj.RecurrentDropout`. Not for layered cells, whose layers have gates of their own.
    """
    return NONE


@gates.register
def _(cell: GatedCell, params: Params, state: State, x: Array) -> Gates:
    z = cell.project(params, x)
    r = recurrent_matmul(cell.recurrent_input(state), cell.recurrent_kernel(params))
    return of_halves(cell, cell.gate_params(params), z, r, state)


@gates.register
def _(cell: Zoneout, params: Params, state: Any, x: Array) -> Gates:
    return gates(cell.cell, cell.inner_params(params), cell.inner_state(state), x)


@gates.register
def _(cell: LinearCell, params: Params, state: State, x: Array) -> Gates:
    a, b = cell.coefficients(params, x)
    return Gates({}, {}, jnp.broadcast_to(jnp.abs(a), b.shape))


@gates.register
def _(cell: MGU, params: Any, state: Any, x: Array) -> Gates:
    dtype = compute_dtype(cell)
    W, U = params.input_kernel, params.recurrent_kernel
    projected = matmul(x, W, dtype) + _repeated(params.bias, x, dtype)
    input_f, input_h = jnp.split(projected, 2, axis=-1)
    U_f, U_h = jnp.split(U, 2, axis=1)
    f = jax.nn.sigmoid(input_f + matmul(state.h, U_f, dtype))
    candidate = jnp.tanh(input_h + matmul(f * state.h, U_h, dtype))
    return Gates({"f": f}, {"h̃": candidate}, 1 - f)


@gates.register
def _(cell: ChoGRU, params: Any, state: Any, x: Array) -> Gates:
    dtype = compute_dtype(cell)
    W, U = params.input_kernel, params.recurrent_kernel
    projected = matmul(x, W, dtype) + _repeated(params.bias, x, dtype)
    input_r, input_z, input_n = jnp.split(projected, 3, axis=-1)
    U_r, U_z, U_n = jnp.split(U, 3, axis=1)
    r = jax.nn.sigmoid(input_r + matmul(state.h, U_r, dtype))
    z = jax.nn.sigmoid(input_z + matmul(state.h, U_z, dtype))
    n = jnp.tanh(input_n + matmul(r * state.h, U_n, dtype))
    return Gates({"r": r, "z": z}, {"n": n}, z)


@functools.singledispatch
def of_halves(cell: GatedCell, gate_params: Params, z: Array, r: Array, state: State) -> Gates:
    """The gates of a gated cell from z, r and the state before: what its `gate` starts from."""
    return NONE


@of_halves.register
def _(cell: GatedWrapper, gate_params: Params, z: Array, r: Array, state: Any) -> Gates:
    return of_halves(cell.inner, gate_params, z, r, cell.inner_state(state))


@of_halves.register
def _(cell: LayerNorm, gate_params: Any, z: Array, r: Array, state: Any) -> Gates:
    inner, scale = gate_params
    return of_halves(cell.inner, inner, z, cell._normalise(r, scale), state)


@of_halves.register(LSTM)
@of_halves.register(DiagonalLSTM)
def _(cell: LSTM | DiagonalLSTM, gate_params: Params, z: Array, r: Array, state: Any) -> Gates:
    i, f, g, o = jnp.split(z + r, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * state.c + i * g
    return Gates({"i": i, "f": f, "o": o}, {"g": g, "tanh(c)": jnp.tanh(c)}, f)


@of_halves.register
def _(cell: PeepholeLSTM, gate_params: Array, z: Array, r: Array, state: Any) -> Gates:
    i, f, g, o = jnp.split(z + r, 4, axis=-1)
    p_i, p_f, p_o = (
        jnp.broadcast_to(p.astype(state.c.dtype), state.c.shape) for p in jnp.split(gate_params, 3)
    )
    i, f, g = jax.nn.sigmoid(i + p_i * state.c), jax.nn.sigmoid(f + p_f * state.c), jnp.tanh(g)
    c = f * state.c + i * g
    o = jax.nn.sigmoid(o + p_o * c)
    return Gates({"i": i, "f": f, "o": o}, {"g": g, "tanh(c)": jnp.tanh(c)}, f)


@of_halves.register
def _(cell: CIFG, gate_params: Params, z: Array, r: Array, state: Any) -> Gates:
    f, g, o = jnp.split(z + r, 3, axis=-1)
    f, g, o = jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * state.c + (1 - f) * g
    return Gates({"f": f, "o": o}, {"g": g, "tanh(c)": jnp.tanh(c)}, f)


@of_halves.register
def _(cell: SLSTM, gate_params: Params, z: Array, r: Array, state: Any) -> Gates:
    log_i, f, candidate, o = jnp.split(z + r, 4, axis=-1)
    after, _ = cell.gate((), z, r, state)
    # In h = c / n a step keeps the share f' n_{t-1} / n_t, and f' n_{t-1} = n_t - i' is the rest of n_t.
    keep = 1 - jnp.exp(log_i - after.m) / after.n
    forget = {"f": jax.nn.sigmoid(f)} if cell.forget_gate == "sigmoid" else {}
    return Gates({**forget, "o": jax.nn.sigmoid(o)}, {"z": jnp.tanh(candidate)}, keep)


@of_halves.register(GRU)
@of_halves.register(DiagonalGRU)
def _(cell: GRU | DiagonalGRU, gate_params: Any, z: Array, r: Array, state: Any) -> Gates:
    input_r, input_z, input_n = jnp.split(z, 3, axis=-1)
    recurrent_r, recurrent_z, recurrent_n = jnp.split(r, 3, axis=-1)
    reset = jax.nn.sigmoid(input_r + recurrent_r)
    update = jax.nn.sigmoid(input_z + recurrent_z)
    if isinstance(cell, GRU):
        recurrent_n = recurrent_n + _repeated(gate_params, recurrent_n, recurrent_n.dtype)
    n = jnp.tanh(input_n + reset * recurrent_n)
    return Gates({"r": reset, "z": update}, {"n": n}, update)


@of_halves.register(Elman)
@of_halves.register(SkipRNN)
@of_halves.register(ClockworkRNN)
@of_halves.register(PreActivationRNN)
def _(cell: Any, gate_params: Params, z: Array, r: Array, state: Any) -> Gates:
    φ = activate(cell.activation, z + r)
    leak = float(getattr(cell, "leak", 1.0))
    keep = None if leak == 1 else jnp.full_like(φ, 1 - leak)
    if cell.activation == "tanh":
        return Gates({}, {"φ": φ}, keep)
    return Gates({"φ": φ} if cell.activation == "sigmoid" else {}, {}, keep)


def _repeated(vector: Array, like: Array, dtype: Any) -> Array:
    """The vector in each row of the batch."""
    return jnp.broadcast_to(vector.astype(dtype), (*like.shape[:-1], vector.size))
