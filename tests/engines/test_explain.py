"""explain: which engine runs for each layer, and why, without computing anything."""

import jax
import jax.numpy as jnp
import pytest

import seqjax as sj

CELL = sj.Stack(
    (
        sj.Residual(sj.Dropout(sj.LSTM(3), rate=0.5)),
        sj.Bidirectional(sj.GRU(2), sj.Elman(4)),
    )
)
XS = jax.ShapeDtypeStruct((7, 2, 3), jnp.float32)


@pytest.fixture
def params(key):
    return jax.eval_shape(lambda key: CELL.init(key, in_features=3), key)


def test_every_leaf_cell_is_listed_in_the_order_in_which_it_runs(params):
    layers = sj.explain(CELL, params, XS).layers
    assert [layer.cell for layer in layers] == [sj.LSTM(3), sj.GRU(2), sj.Elman(4)]


def test_each_layer_says_what_it_promises_and_which_engine_it_has(params):
    for layer in sj.explain(CELL, params, XS).layers:
        assert layer.gated
        assert layer.mixing == "dense"
        assert layer.engine == "chunked"
        assert layer.reason


def test_a_cell_that_is_not_gated_is_said_not_to_be():
    class Sum(sj.Cell):
        features = 3

        @property
        def mixing(self):
            return "elementwise"

        def init(self, key, in_features):
            return ()

        def initial_state(self, params, batch_shape=(), *, key=None):
            return jnp.zeros((*batch_shape, 3))

        def step(self, params, state, x):
            return state + x, state + x

    (layer,) = sj.explain(Sum(), (), XS).layers
    assert not layer.gated
    assert layer.mixing == "elementwise"
    assert "not gated, mixing elementwise; engine scan: " in str(sj.explain(Sum(), (), XS))


def test_a_requested_engine_is_reported_as_requested(params):
    for layer in sj.explain(CELL, params, XS, engine="scan").layers:
        assert (layer.engine, layer.reason) == ("scan", "as requested")


def test_it_prints_one_numbered_entry_for_each_leaf(params):
    text = str(sj.explain(CELL, params, XS))
    entries = [line for line in text.splitlines() if not line.startswith("   ")]
    starts = ["1. LSTM(features=3", "2. GRU(features=2", "3. Elman(features=4"]
    assert [entry[: len(start)] for entry, start in zip(entries, starts, strict=True)] == starts
    assert text.count("   gated, mixing dense; engine chunked: ") == 3


def test_arrays_do_as_well_as_shapes(params, key):
    arrays = CELL.init(key, in_features=3)
    assert sj.explain(CELL, arrays, jnp.ones((7, 2, 3))) == sj.explain(CELL, params, XS)


def test_it_refuses_what_unroll_refuses(params):
    with pytest.raises(ValueError, match=r"explain: engine: expected one of .*'warp'"):
        sj.explain(CELL, params, XS, engine="warp")
    with pytest.raises(ValueError, match=r"explain: remat: expected one of .*'always'"):
        sj.explain(CELL, params, XS, remat="always")
    with pytest.raises(ValueError, match=r"explain: xs has shape \(3,\); expected \[time"):
        sj.explain(CELL, params, jax.ShapeDtypeStruct((3,), jnp.float32))
    with pytest.raises(ValueError, match="explain: xs is int32; expected floating point"):
        sj.explain(CELL, params, jax.ShapeDtypeStruct((7, 2, 3), jnp.int32))


def test_lists_are_taken_and_what_is_no_array_is_refused(params, unchecked):
    given = sj.explain(CELL, params, [[[0.0] * 3] * 2] * 7)  # pyright: ignore[reportArgumentType]
    assert given == sj.explain(CELL, params, XS)
    with pytest.raises(ValueError, match="explain: xs: expected an array of numbers"):
        sj.explain(CELL, params, "abc")  # pyright: ignore[reportArgumentType]
