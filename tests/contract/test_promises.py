"""The promises that unlock faster engines, over every cell: they are declared, and they hold."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cell import gates_of, leaves, run_layers
from seqjax.gates import SAVED
from seqjax.numerics import recurrent_matmul
from tests.contract.cases import (
    TIME,
    TOLERANCE,
    assert_close,
    floats,
    plain,
    rows_of,
    with_floats,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_gated_cell_is_composed_of_its_parts(case):
    """`additive`: z and r only meet in their sum. `saves_gates`: a residual is marked in the trace."""
    gated = sj.as_gated(case.cell)
    assert (gated is not None) == case.entry.gated
    if gated is None:
        return
    state, gate_params = case.state, gated.gate_params(case.params)
    kernel = gated.recurrent_kernel(case.params)

    @jax.jit
    def parts(params, xs):
        r = recurrent_matmul(gated.recurrent_input(state), kernel)
        return gated.project(params, xs), gated.project(params, xs[1]), r

    # Many steps are projected at once, as that does not see the state.
    zs, second, r = parts(case.params, jnp.asarray(case.xs[:TIME]))
    z = zs[0]
    np.testing.assert_allclose(zs[1], second, **TOLERANCE)
    assert (kernel.shape[-1] if kernel.ndim == 2 else kernel[:, 0].size) == z.shape[-1]
    assert gated.gate_blocks is None or z.shape[-1] == sum(gated.gate_blocks) * gated.features

    gate = jax.jit(gated.gate)
    came = gate(gate_params, z, r, state)
    steps = [case.step(case.params, row, case.xs[0, [i]]) for i, row in enumerate(rows_of(state))]
    for row, step in zip(rows_of(came), steps, strict=True):
        assert_close(row, step)

    poison = lambda leaf: leaf.at[0].set(jnp.nan)
    poisoned = with_floats(state, [poison(leaf) for leaf in floats(state)])
    others = lambda tree: jax.tree.map(lambda leaf: plain(leaf)[1:], tree)
    chex.assert_trees_all_equal(
        others(gate(gate_params, poison(z), poison(r), poisoned)), others(came)
    )

    shift = 0.1 + 0.01 * jnp.arange(z.size, dtype=z.dtype).reshape(z.shape)
    one = floats(gate(gate_params, z + shift, r, state))
    other = floats(gate(gate_params, z, r + shift, state))
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
        return state, jnp.zeros((*xs.shape[:-1], cell.out_features), xs.dtype)

    run_layers(leaf, case.cell, case.params, case.state, jnp.asarray(case.xs[:TIME]))
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
    xs = jnp.asarray(case.xs[:TIME])
    a, b = linear.coefficients(case.params, xs)  # many steps at once, as they do not see the state
    (h,) = jax.tree.leaves(case.state)
    assert b.shape[:-1] == xs.shape[:-1]
    assert b.dtype == h.dtype
    hs = []
    for a_t, b_t in zip(jnp.broadcast_to(a, b.shape), b, strict=True):
        h = a_t * h + b_t
        hs.append(h)
    after, ys = case.run(case.state, None, None)
    assert_close(jax.tree.leaves(after), [h])
    assert_close(np.asarray(linear.readout(case.params, jnp.stack(hs), xs)), ys)


def test_the_output_is_read_off_the_state_after_the_step(case):
    if not case.entry.leaf:
        with pytest.raises(ValueError, match=r"output\(params, state, x\) is not defined"):
            case.cell.output(case.params, case.state, jnp.asarray(case.xs[0]))
        return
    x = case.xs[0, :1]
    after, y = case.step(case.params, rows_of(case.state)[0], x)
    assert_close(jax.jit(case.cell.output)(case.params, after, x), y)


def test_mixing_is_declared_and_true(case):
    """What a cell declares is what is registered, and ∂s_t/∂s_{t-1} has the zeros that it promises."""
    assert case.cell.mixing == case.entry.mixing
    if case.cell.mixing == "dense":  # which promises nothing
        return
    state = jax.tree.map(lambda leaf: leaf[0], case.state)
    step = lambda state: case.cell.step(case.params, state, jnp.asarray(case.xs[0, 0]))[0]
    after = lambda floating: floats(step(with_floats(state, floating)))
    blocks = jax.tree.leaves(jax.jit(jax.jacfwd(after))(floats(state)))
    width = floats(state)[0].size
    heads = width if case.cell.mixing == "elementwise" else case.entry.heads
    head = np.arange(width) // (width // heads)
    for block in blocks:
        assert np.all(np.asarray(block)[head[:, None] != head[None]] == 0)
    assert any(np.all(np.diag(block) != 0) for block in blocks)
    if case.cell.mixing == "heads":
        assert 1 < heads < width
        assert any(np.all(np.asarray(block)[head[:, None] == head[None]] != 0) for block in blocks)
