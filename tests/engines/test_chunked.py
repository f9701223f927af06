"""The chunked engine: the values and gradients of the scan, from the states with or without gates."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax._tree import join_floating, split_floating
from seqjax.engines.tuned import TUNED, Tuned, chunk_length

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHUNK = TUNED["cpu"].chunk
ROUNDING: Any = {"rtol": 1e-11, "atol": 1e-12}


@dataclasses.dataclass(frozen=True)
class Plain(sj.GatedCell):
    """A user's gated cell, which does not say how y is read off the state: y_t = s_{t-1} + s_t."""

    features: int

    def init(self, key, in_features):
        keys = jax.random.split(key)
        shape = (self.features, self.features)
        return (
            jax.random.normal(keys[0], (in_features, self.features), jnp.float64),
            jax.random.normal(keys[1], shape, jnp.float64),
        )

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*batch_shape, self.features), jnp.float64)

    def project(self, params, x):
        return x @ params[0]

    def recurrent_input(self, state):
        return state

    def recurrent_kernel(self, params):
        return params[1]

    def gate(self, gate_params, z, r, state):
        after = jnp.tanh(z + r)
        return after, state + after


CELLS = {
    "LSTM": sj.LSTM(3, param_dtype=jnp.float64),
    "GRU": sj.GRU(3, param_dtype=jnp.float64),
    "a clock in the state": sj.ClockworkRNN(4, periods=(1, 3), param_dtype=jnp.float64),
    "keys in the state": sj.Zoneout(sj.GRU(3, param_dtype=jnp.float64), 0.3),
    "without emit": Plain(3),
}


@pytest.fixture(autouse=True, scope="module")
def several_chunks_however_small() -> Iterator[None]:
    """As large networks have them: small ones would run in one chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TUNED, "cpu", Tuned("chunked", CHUNK))
        yield


@pytest.fixture(params=list(CELLS))
def cell(request, x64) -> Any:
    return CELLS[request.param]


def arguments(cell: sj.Cell, time: int, batch: tuple[int, ...] = (2,)) -> tuple[Any, Any, Any]:
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (time, *batch, 2), jnp.float64)
    state, _ = sj.unroll(cell, params, xs[:1], key=jax.random.key(2))
    return params, state, xs


def score(state: Any, ys: jax.Array) -> jax.Array:
    """A number that weighs each output and each entry of the last state in another way."""
    weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
    floating, _ = split_floating(state)
    return jnp.sum(weights * ys**2) + sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(floating))


def value_and_gradient(cell: sj.Cell, params: Any, state: Any, xs: Any, **options: Any) -> Any:
    """Of the score, with respect to params, the state that comes in, and xs."""
    floating, others = split_floating(state)

    @jax.jit
    def run(params, floating, xs):
        def loss(params, floating, xs):
            return score(*sj.unroll(cell, params, xs, join_floating(floating, others), **options))

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(params, floating, xs)

    return run(params, floating, xs)


def assert_close(came: Any, expected: Any) -> None:
    assert jax.tree.structure(came) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(came), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, **ROUNDING)


keeping = pytest.mark.parametrize("remat", ["auto", "state"], ids=["gates", "states"])


@keeping
@pytest.mark.parametrize(
    ("time", "reverse"),
    [
        (2 * CHUNK + 5, True),
        pytest.param(2 * CHUNK, True, marks=pytest.mark.full),
        pytest.param(2 * CHUNK + 9, False, marks=pytest.mark.full),
    ],
)
def test_values_and_gradients_are_those_of_the_scan(cell, time, reverse, remat):
    case = arguments(cell, time)
    came = value_and_gradient(cell, *case, engine="chunked", remat=remat, reverse=reverse)
    assert_close(came, value_and_gradient(cell, *case, engine="scan", reverse=reverse))


@keeping
@pytest.mark.parametrize(
    ("time", "batch"), [(0, (2,)), (1, ()), (CHUNK + 1, ()), (2 * CHUNK, (0,)), (CHUNK + 1, (2, 3))]
)
def test_any_batch_and_any_time(time, batch, remat, x64):
    cell = CELLS["LSTM"]
    case = arguments(cell, time + 1, batch)
    case = case[0], case[1], case[2][1:]
    came = value_and_gradient(cell, *case, engine="chunked", remat=remat)
    assert_close(came, value_and_gradient(cell, *case, engine="scan"))


@keeping
@pytest.mark.parametrize("asked", ["the last state alone", "the outputs alone"])
@pytest.mark.parametrize("cell", [CELLS["LSTM"], CELLS["without emit"]], ids=["LSTM", "a user's"])
def test_what_the_loss_does_not_ask_for_has_no_part_in_the_gradient(cell, asked, remat, x64):
    params, state, xs = arguments(cell, CHUNK + 3)

    def gradient(engine: str, remat: str | None = None) -> Any:
        def loss(params):
            last, ys = sj.unroll(cell, params, xs, state, engine=engine, remat=remat)
            parts = jax.tree.leaves(split_floating(last)[0]) if "state" in asked else [ys]
            return sum(jnp.sum(jnp.square(part)) for part in parts)

        return jax.jit(jax.grad(loss))(params)

    assert_close(gradient("chunked", remat), gradient("scan"))


@keeping
@pytest.mark.parametrize("over", ["reverse over reverse", "forward over reverse"])
def test_second_derivatives_are_those_of_the_scan(over, remat, x64):
    cell = CELLS["GRU"]
    params, state, xs = arguments(cell, CHUNK + 2)
    direction = jax.tree.map(jnp.cos, params)

    def product(engine: str, remat: str | None = None) -> Any:
        run = lambda params: sj.unroll(cell, params, xs, state, engine=engine, remat=remat)
        loss = lambda params: score(*run(params))
        if over == "forward over reverse":
            return jax.jit(lambda p: jax.jvp(jax.grad(loss), (p,), (direction,))[1])(params)
        along = lambda p: sum(
            jnp.vdot(g, d)
            for g, d in zip(*map(jax.tree.leaves, (jax.grad(loss)(p), direction)), strict=True)
        )
        return jax.jit(jax.grad(along))(params)

    assert_close(product("chunked", remat), product("scan"))


@keeping
def test_vmap_over_params_gives_each_its_own_gradient(remat, x64):
    cell = CELLS["LSTM"]
    _, state, xs = arguments(cell, CHUNK + 2)
    several = jax.vmap(lambda key: cell.init(key, 2))(jax.random.split(jax.random.key(5), 3))
    run = lambda p, **how: score(*sj.unroll(cell, p, xs, state, **how))
    gradient = lambda **how: jax.jit(jax.vmap(jax.grad(lambda p: run(p, **how))))(several)
    assert_close(gradient(engine="chunked", remat=remat), gradient(engine="scan"))


def test_forward_mode_asks_for_the_scan_engine_which_has_it(x64):
    cell = CELLS["LSTM"]
    params, state, xs = arguments(cell, 3)
    run = lambda engine: lambda xs: sj.unroll(cell, params, xs, state, engine=engine)[1]
    with pytest.raises(TypeError, match=r'no forward mode .* use engine="scan"'):
        jax.jvp(run("chunked"), (xs,), (xs,))
    measure = lambda ys, _: jnp.sum(ys)
    fold = lambda xs: sj.unroll_fold(cell, params, xs, measure, engine="chunked")
    with pytest.raises(TypeError, match=r'no forward mode .* use engine="scan"'):
        jax.jvp(fold, (xs,), (xs,))
    ys, tangent = jax.jvp(run("scan"), (xs,), (xs,))
    step = 1e-6
    difference = (run("scan")((1 + step) * xs) - run("scan")((1 - step) * xs)) / (2 * step)
    np.testing.assert_allclose(tangent, difference, rtol=1e-7, atol=1e-9)
    assert ys.shape == tangent.shape


def test_in_bfloat16_the_gradient_is_as_close_to_float32_as_that_of_the_scan():
    wide, narrow = sj.LSTM(8), sj.LSTM(8, dtype=jnp.bfloat16)
    params = wide.init(jax.random.key(0), 4)
    xs = jax.random.normal(jax.random.key(1), (40, 3, 4))

    def gradient(cell: sj.Cell, engine: str) -> np.ndarray:
        loss = lambda params: jnp.mean(
            jnp.square(sj.unroll(cell, params, xs, engine=engine)[1].astype(jnp.float32))
        )
        return np.concatenate(
            [np.ravel(g) for g in jax.tree.leaves(jax.jit(jax.grad(loss))(params))]
        )

    exact = gradient(wide, "scan")
    error = lambda engine: np.linalg.norm(gradient(narrow, engine) - exact) / np.linalg.norm(exact)
    assert 0 < error("chunked") < 1.5 * error("scan")
    assert error("chunked") < 0.05  # bfloat16 has 8 bits


def test_a_cell_that_is_not_gated_is_refused_by_name():
    cell = sj.Stack((sj.LSTM(3), sj.MGU(3)))
    params = cell.init(jax.random.key(0), 2)
    with pytest.raises(
        ValueError, match=r"'chunked' runs gated cells, and MGU\(features=3\) is not"
    ):
        sj.unroll(cell, params, jnp.ones((4, 2)), engine="chunked")


@pytest.mark.parametrize(
    ("time", "length"), [(64, 32), (48, 24), (35, 35), (100, 25), (20, 32), (69, 32), (784, 28)]
)
def test_chunks_are_near_their_usual_length_and_equal_where_they_can_be(time, length, monkeypatch):
    monkeypatch.setitem(TUNED, "cpu", Tuned("chunked", 32, 10**9))
    assert chunk_length(time) == length


@pytest.mark.parametrize(
    ("time", "numbers", "length"),
    [(100, 10, 100), (101, 10, 101), (400, 10, 100), (400, 4, 200), (400, 100, 25), (7, 0, 1000)],
)
def test_chunks_of_few_numbers_are_longer(time, numbers, length, monkeypatch):
    monkeypatch.setitem(TUNED, "cpu", Tuned("chunked", 32, 1000))
    assert chunk_length(time, numbers) == length


def test_a_small_network_runs_in_one_chunk_and_a_large_one_in_several(monkeypatch, x64):
    cell = CELLS["LSTM"]  # whose z has 12 numbers a step of each row
    monkeypatch.setitem(TUNED, "cpu", Tuned("chunked", CHUNK, 12 * 2 * 2 * CHUNK))

    def loops(batch):
        """Of the gradient, one within another counted each."""
        params, state, xs = arguments(cell, 2 * CHUNK, (batch,))
        loss = lambda params: jnp.sum(sj.unroll(cell, params, xs, state, engine="chunked")[1])
        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("scan[")

    assert loops(2) < loops(5)
    case = arguments(cell, 2 * CHUNK)
    came = value_and_gradient(cell, *case, engine="chunked")
    assert_close(came, value_and_gradient(cell, *case, engine="scan"))


def test_the_gates_are_kept_and_nothing_that_they_came_from():
    """Of each step of each row: four gates, c and the h of the states, no z and no r."""
    cell, time, batch = sj.LSTM(8), 64, 4
    params = cell.init(jax.random.key(0), 8)
    xs = jnp.ones((time, batch, 8))
    _, pull = jax.vjp(lambda p: sj.unroll(cell, p, xs, engine="chunked")[1], params)
    kept = sum(a.size for a in jax.tree.leaves(pull) if a.shape[:1] == (time,) and a is not xs)
    assert kept == time * batch * (4 + 3) * 8
