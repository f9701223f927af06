"""What reverse mode keeps: fewer bytes, the same values and gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.engines.scan import segment_length
from tests.contract.registry import IN_FEATURES, LeakySum
from tests.engines.test_chunked import assert_close, value_and_gradient

pytestmark = pytest.mark.usefixtures("quick_compilation")

DEEP = sj.Stack((LeakySum(2, jnp.float64), sj.Residual(sj.GRU(2, param_dtype=jnp.float64))))
BOTH = sj.Stack(
    (
        sj.Bidirectional(sj.LSTM(2, param_dtype=jnp.float64), sj.MGU(2, param_dtype=jnp.float64)),
        sj.Elman(3, param_dtype=jnp.float64),
    )
)


def arguments(cell: sj.Cell, time: int) -> tuple[Any, Any, Any]:
    params = cell.init(jax.random.key(0), IN_FEATURES)
    xs = jax.random.normal(jax.random.key(1), (time, 2, IN_FEATURES), jnp.float64)
    return params, cell.initial_state(params, (2,)), xs


OPTIONS: Any = {"lengths": [7, 3], "resets": np.arange(14).reshape(7, 2) == 5}


@functools.cache
def of_the_scan(cell: sj.Cell) -> Any:
    return value_and_gradient(cell, *arguments(cell, 7), remat=None, engine="scan", **OPTIONS)


@pytest.mark.parametrize(
    ("cell", "remat"),
    [(DEEP, "state"), (DEEP, "sqrt"), (DEEP, 1), (DEEP, 100), (BOTH, "state"), (BOTH, 3)],
    ids=repr,
)
def test_values_and_gradients_are_those_of_the_scan(cell, remat, x64):
    came = value_and_gradient(cell, *arguments(cell, 7), remat=remat, **OPTIONS)
    assert_close(came, of_the_scan(cell))


@pytest.mark.parametrize(("time", "remat"), [(0, "sqrt"), (1, 5), (2, 1)])
def test_short_sequences(time, remat, x64):
    case = arguments(DEEP, time)
    came = value_and_gradient(DEEP, *case, remat=remat)
    assert_close(came, value_and_gradient(DEEP, *case, engine="scan"))


def test_segments_of_the_plain_scan_have_a_forward_mode(x64):
    params, state, xs = arguments(DEEP, 7)
    tangents = [
        jax.jvp(
            lambda xs, r=remat: sj.unroll(DEEP, params, xs, state, engine="scan", remat=r)[1],
            (xs,),
            (xs,),
        )
        for remat in (None, "state", "sqrt")
    ]
    assert_close(tangents[1], tangents[0])
    assert_close(tangents[2], tangents[0])


@pytest.mark.parametrize(
    ("time", "length"), [(0, 1), (1, 1), (2, 2), (9, 3), (10, 4), (16384, 128)]
)
def test_a_segment_has_the_root_of_the_time_rounded_up(time, length):
    assert segment_length("sqrt", time) == length


@functools.cache
def temporary_bytes(cell: sj.Cell, time: int, **options: Any) -> int:
    """What XLA sets aside for the gradient of a loss of the last state, inputs apart."""
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 8))
    xs = jax.ShapeDtypeStruct((time, 4, 8), jnp.float32)

    def loss(params, xs):
        state, _ = sj.unroll(cell, params, xs, **options)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(state))

    compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    analysis: Any = compiled.memory_analysis()
    return analysis.temp_size_in_bytes


LAYERS = sj.Stack((sj.LSTM(32), sj.GRU(32)))


@pytest.mark.parametrize(
    "cell", [LAYERS, pytest.param(sj.MGU(32), marks=pytest.mark.full)], ids=str
)
def test_memory_grows_as_it_should_with_the_time(cell):
    """Four times the steps: four times the states, and twice the states of segments."""
    growth = {
        remat: temporary_bytes(cell, 4096, remat=remat) / temporary_bytes(cell, 1024, remat=remat)
        for remat in (None, "state", "sqrt")
    }
    assert 3.5 < growth[None] < 4.1
    assert 3.3 < growth["state"] < 4.1
    assert growth["sqrt"] < 2.2


def test_the_outputs_of_inner_layers_are_not_kept_whole_in_segments():
    """Segments go through all layers: without that, ys between the layers would grow with the time."""
    deep, one = sj.Stack((sj.LSTM(32), sj.LSTM(32), sj.LSTM(32))), sj.LSTM(32)
    bytes_of_ys = 4096 * 4 * 32 * 4
    assert temporary_bytes(deep, 4096, remat="sqrt") < bytes_of_ys
    assert temporary_bytes(deep, 4096, remat="state") > 5 * bytes_of_ys
    assert temporary_bytes(one, 4096, remat="state") < 2.3 * bytes_of_ys  # h and c


@pytest.mark.parametrize(
    "cell", [LAYERS, pytest.param(sj.MGU(32), marks=pytest.mark.full)], ids=str
)
def test_the_plan_says_what_xla_sets_aside(cell):
    plan = sj.plan_memory(cell, 4096, 4, in_features=8)
    params = 4 * sj.summary(cell, jax.eval_shape(lambda: cell.init(jax.random.key(0), 8))).size
    for row in plan.rows:
        planned, real = row.kept + row.working, temporary_bytes(cell, 4096, remat=row.remat)
        # Beside the plan stand the gradients, and what one chunk or step works with.
        assert planned <= 1.3 * real, row
        assert real <= 1.15 * planned + 8 * params, row
