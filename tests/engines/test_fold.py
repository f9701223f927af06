"""The loss folded into the run: the sums of the whole run, without its outputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.engines.fold import FOLDED
from tests.contract.registry import IN_FEATURES
from tests.engines.test_chunked import assert_close
from tests.engines.test_segments import BOTH, DEEP

pytestmark = pytest.mark.usefixtures("quick_compilation")

LSTM = sj.LSTM(3, param_dtype=jnp.float64)
CLASSES = 5


def arguments(cell: sj.Cell, time: int, batch: tuple[int, ...] = (2,)) -> tuple[Any, Any, Any, Any]:
    """(params of cell and head), xs, targets, mask."""
    keys = jax.random.split(jax.random.key(0), 4)
    head = jax.random.normal(keys[0], (cell.out_features, CLASSES), jnp.float64)
    xs = jax.random.normal(keys[1], (time, *batch, IN_FEATURES), jnp.float64)
    targets = jax.random.randint(keys[2], (time, *batch), 0, CLASSES)
    mask = jax.random.bernoulli(keys[3], 0.8, (time, *batch))
    return (cell.init(keys[0], IN_FEATURES), head), xs, targets, mask


def measured(head: jax.Array, ys: jax.Array, operands: Any) -> Any:
    targets, mask = operands
    losses = sj.losses.token_cross_entropy(ys @ head, targets, mask=mask)
    return {"nats": sj.losses.mean_over(losses, mask), "size": jnp.sum(jnp.abs(ys))}


def folded(cell: sj.Cell, case: Any, **options: Any) -> Any:
    params, xs, targets, mask = case

    def loss(params, xs):
        measure = lambda ys, operands: measured(params[1], ys, operands)
        state, sums = sj.unroll_fold(cell, params[0], xs, measure, (targets, mask), **options)
        parts = [jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(state)]
        return sums["nats"].value + sum(parts), (state, sums)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, xs)


def unfolded(cell: sj.Cell, case: Any, **options: Any) -> Any:
    params, xs, targets, mask = case

    def loss(params, xs):
        state, ys = sj.unroll(cell, params[0], xs, engine="scan", **options)
        sums = measured(params[1], ys, (targets, mask))
        parts = [jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(state)]
        return sums["nats"].value + sum(parts), (state, sums)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, xs)


@pytest.mark.parametrize(
    ("time", "remat"),
    [(7, "auto"), (7, 5), *((2 * FOLDED + 3, remat) for remat in ("auto", "state", "sqrt"))],
)
def test_values_states_and_gradients_are_those_of_the_unfolded_loss(remat, time, x64):
    case = arguments(LSTM, time)
    assert_close(folded(LSTM, case, remat=remat), unfolded(LSTM, case))


@pytest.mark.parametrize(
    ("cell", "reverse", "remat"),
    [
        (DEEP, True, 3),
        (BOTH, False, None),
        pytest.param(DEEP, True, None, marks=pytest.mark.full),
        pytest.param(DEEP, False, 3, marks=pytest.mark.full),
        pytest.param(BOTH, True, 3, marks=pytest.mark.full),
    ],
    ids=repr,
)
def test_lengths_resets_and_reverse_mean_the_same(cell, reverse, remat, x64):
    case = arguments(cell, 8)
    options: Any = {
        "lengths": [8, 3],
        "resets": np.arange(16).reshape(8, 2) % 5 == 4,
        "reverse": reverse,
    }
    assert_close(folded(cell, case, remat=remat, **options), unfolded(cell, case, **options))


@pytest.mark.parametrize(("time", "batch"), [(0, (1,)), (1, ()), (1, (2, 2))])
def test_short_sequences_and_any_batch(time, batch, x64):
    case = arguments(LSTM, time, batch)
    for remat in ("auto", "sqrt"):
        assert_close(folded(LSTM, case, remat=remat), unfolded(LSTM, case))


def test_sums_of_a_narrow_dtype_are_kept_in_float32():
    """bfloat16 adds nothing to 256 but what is at least 1."""
    cell = sj.GRU(3, dtype=jnp.bfloat16)
    params, xs = cell.init(jax.random.key(0), 2), jnp.ones((1000, 1, 2))
    measure = lambda ys, _: jnp.sum(jnp.ones_like(ys))
    for remat in ("auto", 2):
        _, total = sj.unroll_fold(cell, params, xs, measure, remat=remat)
        assert total.dtype == jnp.float32
        assert total == 3000


def largest_array(function: Any, *arguments: Any) -> int:
    """The most entries that any value in the program has, loops and all that is nested included."""

    def walk(jaxpr: Any) -> int:
        most = 0
        for equation in jaxpr.eqns:
            most = max([most, *(v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))])
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr")
            ):
                inner = getattr(value, "jaxpr", value)
                most = max(most, walk(inner)) if hasattr(inner, "eqns") else most
        return most

    return walk(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_logits_never_exist_for_all_steps():
    cell, vocabulary, time, batch = sj.LSTM(4), 1000, 512, 2
    model = sj.models.LanguageModel(vocabulary, cell, embedding=3)
    params = model.init(jax.random.key(0))
    ids, never = np.zeros((time, batch), np.int32), np.zeros((time, batch), bool)
    window = sj.data.Batch(ids, ids, ~never, never)
    state = model.initial_state(params, (batch,))
    loss = lambda params: model.loss(params, state, window, None)[0]
    apply = lambda params: jnp.mean(model.apply(params, state, ids)[1])
    assert largest_array(jax.grad(loss), params) == FOLDED * batch * vocabulary
    assert largest_array(jax.grad(apply), params) == time * batch * vocabulary


def test_operands_of_another_time_are_refused():
    cell, measure = sj.LSTM(3), lambda ys, operands: jnp.sum(ys)
    params, operands = cell.init(jax.random.key(0), 2), {"targets": jnp.zeros((3, 2))}
    message = r"xs has 4 time steps but operands\['targets'\] has shape \(3, 2\); expected \[time, "
    with pytest.raises(ValueError, match=message):
        sj.unroll_fold(cell, params, jnp.ones((4, 2, 2)), measure, operands)


@pytest.mark.parametrize(
    ("cell", "remat"),
    [
        (sj.Elman(3), "state"),
        (sj.MGU(3), None),
        (sj.MGU(3), "sqrt"),
        pytest.param(sj.Elman(3), None, marks=pytest.mark.full),
        pytest.param(sj.Elman(3), "sqrt", marks=pytest.mark.full),
        pytest.param(sj.MGU(3), "state", marks=pytest.mark.full),
    ],
)
def test_gradients_of_bfloat16_params_are_not_summed_in_bfloat16(cell, remat):
    """Each term may be 2⁻⁸ off; a sum of 1000 of them in bfloat16 would lose half of itself."""
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), cell.init(jax.random.key(0), 2))
    xs = jax.random.normal(jax.random.key(1), (1000, 2, 2))

    def whole(params):
        return jnp.sum(sj.unroll(cell, params, xs, remat=remat)[1].astype(jnp.float32))

    def summed(params):
        measure = lambda ys, _: jnp.sum(ys.astype(jnp.float32))
        return sj.unroll_fold(cell, params, xs, measure, remat=remat)[1]

    exact = jax.grad(whole)(jax.tree.map(lambda a: a.astype(jnp.float32), params))
    both = jax.jit(lambda params: (jax.grad(whole)(params), jax.grad(summed)(params)))
    for found in both(params):
        for narrow, wide in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            assert narrow.dtype == jnp.bfloat16
            error = np.linalg.norm(np.asarray(narrow, np.float32) - wide) / np.linalg.norm(wide)
            assert error < 0.02


def test_a_measure_of_single_steps_is_refused():
    params, xs = sj.LSTM(3).init(jax.random.key(0), 2), jnp.ones((2 * FOLDED + 1, 3, 2))
    per_step = lambda ys, _: jnp.sum(ys, axis=(1, 2))
    with pytest.raises(
        ValueError, match=r"measure gives for one step is .*\[1\]; expected .*\[64\]"
    ):
        sj.unroll_fold(sj.LSTM(3), params, xs, per_step)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_measure_and_what_is_no_operand_is_refused():
    params, xs = sj.LSTM(3).init(jax.random.key(0), 2), jnp.ones((5, 3, 2))
    with pytest.raises(ValueError, match="unroll_fold: measure: expected a function, got None"):
        sj.unroll_fold(sj.LSTM(3), params, xs, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"unroll_fold: operands\['a'\]: expected an array"):
        sj.unroll_fold(sj.LSTM(3), params, xs, lambda ys, _: jnp.sum(ys), {"a": "b"})
