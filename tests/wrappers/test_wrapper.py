"""Wrappers around one cell: what they delegate to it, and the errors that they raise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

pytestmark = pytest.mark.usefixtures("quick_compilation")

LAYERS: dict[str, Any] = {
    "Residual": sj.Residual,
    "GLU": sj.GLU,
    "LearnedState": sj.LearnedState,
    "Dropout": lambda cell: sj.Dropout(cell, rate=0.2),
}
GATED: dict[str, Any] = {
    "LayerNorm": sj.LayerNorm,
    "RecurrentDropout": lambda cell: sj.RecurrentDropout(cell, rate=0.2),
    "Zoneout": lambda cell: sj.Zoneout(cell, rate=0.2),
}
QUIET = {"Dropout": {"rate": 0.0}, "RecurrentDropout": {"rate": 0.0}, "Zoneout": {"averaged": True}}


@pytest.mark.parametrize("name", LAYERS | GATED)
def test_noise_evaluation_and_gates_are_those_of_the_wrapped_cell(name, key):
    wrap = (LAYERS | GATED)[name]
    inner = sj.RecurrentDropout(sj.DiagonalLSTM(3), rate=0.5)
    cell = wrap(inner)
    assert cell.features == cell.out_features == 3
    assert cell.causal
    assert cell.mixing == ("dense" if name == "LayerNorm" else "elementwise")
    quiet = cell.deterministic()
    assert quiet.cell == inner.deterministic()
    assert all(getattr(quiet, field) == value for field, value in QUIET.get(name, {}).items())
    params = cell.init(key, 3)
    state = cell.initial_state(params, (64,), key=key)
    redrawn = cell.redraw(state, jax.random.key(5))
    masks = [jax.tree.leaves(s) for s in (state, redrawn)]
    changed = [a.dtype == bool and not np.array_equal(a, b) for a, b in zip(*masks, strict=True)]
    assert sum(changed) == 1 + (name in ("Dropout", "RecurrentDropout"))
    found = sj.diagnostics.saturation(cell, params, jnp.ones((2, 4, 3)), key=key)
    assert [v.name for v in found.values] == ["f", "i", "o", "g", "tanh(c)"]


@pytest.mark.parametrize("name", ["Residual", "GLU"])
def test_outputs_have_the_dtype_of_the_wrapped_cell(name, key):
    cell = LAYERS[name](sj.GRU(3, dtype=jnp.bfloat16))
    run = lambda xs: sj.unroll(cell, cell.init(key, in_features=3), xs)[1]
    assert jax.eval_shape(run, jnp.ones((5, 3))).dtype == jnp.bfloat16


def test_a_layer_around_both_directions_is_not_causal():
    assert not any(wrap(sj.Bidirectional(sj.GRU(2), sj.GRU(2))).causal for wrap in LAYERS.values())


ERRORS = [
    *((f"{name}: cell: expected a Cell, got 3", lambda w=w: w(3)) for name, w in LAYERS.items()),
    *((f"{name}: cell: expected a Cell, got 3", lambda w=w: w(3)) for name, w in GATED.items()),
    *(
        (
            rf"{name}: cell: expected a gated cell, such as sj.LSTM, got {got}.*each layer of a stack",
            lambda w=GATED[name], inner=inner: w(inner),
        )
        for name in ("LayerNorm", "RecurrentDropout")
        for got, inner in [(r"Stack\(", sj.Stack((sj.LSTM(3),))), (r"MGU\(", sj.MGU(3))]
    ),
    (r"GLU: kernel_init: .*'none'", lambda: sj.GLU(sj.GRU(3), kernel_init="none")),
    (
        r"Residual: in_features is 4 but the cell has 3 features; .* equal",
        lambda: sj.Residual(sj.GRU(3)).init(jax.random.key(0), in_features=4),
    ),
    *(
        (rf"{name}: rate: expected a rate in \[0, 1\), got {rate!r}", lambda w=w, r=rate: w(r))
        for name, w in {
            "Dropout": lambda rate: sj.Dropout(sj.Elman(4), rate),
            "RecurrentDropout": lambda rate: sj.RecurrentDropout(sj.Elman(4), rate),
            "Zoneout": lambda rate: sj.Zoneout(sj.Elman(4), rate),
            "drop_weights": lambda rate: sj.drop_weights({}, jax.random.key(0), rate),
        }.items()
        for rate in (-0.1, 1, 1.0, 1.5, float("nan"), float("inf"), True, "half")
    ),
    (r"Zoneout: memory_rate: .*got 1.0", lambda: sj.Zoneout(sj.LSTM(3), 0.5, memory_rate=1.0)),
    (
        r"Zoneout: cell: expected a cell with a step of its own, got Stack\(.*inside it",
        lambda: sj.Zoneout(sj.Stack((sj.LSTM(2),)), rate=0.5),
    ),
    *(
        (rf"{name}: key is None; .* need.* a key .*deterministic\(\)", lambda c=c: without_key(c))
        for name, c in {
            "Dropout": sj.Dropout(sj.LSTM(3), rate=0.25),
            "RecurrentDropout": sj.RecurrentDropout(sj.LSTM(3), rate=0.5),
            "Zoneout": sj.Zoneout(sj.LSTM(3), rate=0.0, memory_rate=0.5),
        }.items()
    ),
]


def without_key(cell):
    sj.unroll(cell, cell.init(jax.random.key(0), 2), jnp.ones((2, 1, 2)))


@pytest.mark.parametrize(("message", "call"), ERRORS, ids=[message for message, _ in ERRORS])
def test_bad_arguments_raise_an_error_that_names_them(message, call, unchecked):
    with pytest.raises(ValueError, match=message):
        call()
