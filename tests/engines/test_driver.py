"""The driver: what it refuses, and in which words; what holds for every cell is in the contract."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.gru import GRUState
from seqjax.cells.lstm import LSTMState
from seqjax.engines import ENGINES
from seqjax.initializers import Constant

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES = 5, 3, 2
CELL = sj.GRU(4)
XS = np.linspace(-1, 1, TIME * BATCH * IN_FEATURES, dtype=np.float32).reshape(
    TIME, BATCH, IN_FEATURES
)


@pytest.fixture
def params(key):
    return CELL.init(key, IN_FEATURES)


@pytest.fixture
def xs():
    return jnp.asarray(XS)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_xs_without_time_or_features_are_refused(shape, params):
    with pytest.raises(ValueError, match="unroll: ") as refusal:
        sj.unroll(CELL, params, jnp.ones(shape))
    assert str(refusal.value) == (
        f"unroll: xs has shape {shape}; expected [time, *batch, in_features], time first"
    )


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.complex64])
def test_xs_that_are_not_floating_point_are_refused(dtype, params):
    message = f"unroll: xs is {jnp.dtype(dtype).name}; expected floating point. Embed token ids"
    with pytest.raises(ValueError, match=message):
        sj.unroll(CELL, params, jnp.ones((TIME, IN_FEATURES), dtype))


def test_xs_of_another_size_are_refused(params):
    with pytest.raises(
        ValueError,
        match=r"unroll: params.input_kernel is float32\[2, 12\]; expected \[7, 12\], as for xs of "
        r"shape \(5, 3, 7\) GRU\(features=4\)\.init\(key, in_features=7\) gives it",
    ):
        sj.unroll(CELL, params, jnp.ones((TIME, BATCH, 7)))


@pytest.mark.parametrize("shape", [(), (TIME,), (BATCH, 1), (TIME, BATCH)])
def test_lengths_of_another_shape_than_the_batch_are_refused(shape, params, xs):
    with pytest.raises(ValueError, match="unroll: ") as refusal:
        sj.unroll(CELL, params, xs, lengths=jnp.ones(shape, jnp.int32))
    message = (
        f"unroll: lengths has shape {shape} but the batch of xs is (3,); lengths is int[*batch]"
    )
    hint = "" if shape != (TIME,) else ". Time comes first: xs is [time, *batch, in_features], "
    assert str(refusal.value).startswith(message + hint)
    assert hint or str(refusal.value) == message


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bool_])
def test_lengths_that_are_not_integers_are_refused(dtype, params, xs):
    message = rf"unroll: lengths is {jnp.dtype(dtype).name}; expected integers, \[\*batch\]"
    with pytest.raises(ValueError, match=message):
        sj.unroll(CELL, params, xs, lengths=jnp.ones(BATCH, dtype))


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int64])
def test_lengths_of_every_integer_dtype_mean_the_same(dtype, x64):
    # 150 steps are more than an int8 counts: the steps must not be counted in the dtype of lengths.
    cell = sj.Elman(1, activation="identity", recurrent_init="zeros", bias_init=Constant(1.0))
    params = cell.init(jax.random.key(0), 1)
    xs = jnp.zeros((150, 2, 1), jnp.float32)
    _, ys = sj.unroll(cell, params, xs, lengths=jnp.array([3, 120], dtype))
    np.testing.assert_array_equal(np.asarray(ys).sum(axis=0)[:, 0], [3, 120])


@pytest.mark.parametrize("time", [TIME - 1, TIME + 1])
def test_resets_with_another_number_of_steps_are_refused(time, params, xs):
    with pytest.raises(ValueError, match="unroll: ") as refusal:
        sj.unroll(CELL, params, xs, resets=jnp.zeros((time, BATCH), bool))
    assert str(refusal.value) == (
        f"unroll: xs has 5 time steps but resets has shape {(time, BATCH)}; both are [time, *batch]"
    )


def test_resets_without_time_are_refused(params, xs):
    with pytest.raises(ValueError, match=r"xs has 5 time steps but resets has shape \(\)"):
        sj.unroll(CELL, params, xs, resets=jnp.zeros((), bool))


@pytest.mark.parametrize("batch", [(), (2,), (BATCH, 1)])
def test_resets_of_another_batch_are_refused(batch, params, xs):
    with pytest.raises(ValueError, match="unroll: ") as refusal:
        sj.unroll(CELL, params, xs, resets=jnp.zeros((TIME, *batch), bool))
    assert str(refusal.value) == (
        f"unroll: the batch of xs is (3,) but that of resets is {batch}; "
        "resets is bool[time, *batch]"
    )


def test_resets_that_are_not_bool_are_refused(params, xs):
    message = r"unroll: resets is int32; expected bool\[time, \*batch\]"
    with pytest.raises(ValueError, match=message):
        sj.unroll(CELL, params, xs, resets=jnp.zeros((TIME, BATCH), jnp.int32))


def test_a_state_of_another_cell_is_refused(params, xs):
    zeros = jnp.zeros((BATCH, 4))
    with pytest.raises(
        ValueError, match=r"unroll: state has structure .*LSTMState.*; expected .*GRUState.*GRU\("
    ):
        sj.unroll(CELL, params, xs, LSTMState(zeros, zeros))  # pyright: ignore[reportArgumentType] - the mistake


@pytest.mark.parametrize(
    ("h", "came"),
    [
        (np.zeros((BATCH, 6), np.float32), r"float32\[3, 6\]"),
        (np.zeros((4,), np.float32), r"float32\[4\]"),
        (np.zeros((BATCH, 4), np.int32), r"int32\[3, 4\]"),
    ],
    ids=["features", "batch", "dtype"],
)
def test_a_state_of_another_shape_or_dtype_is_refused_by_the_name_of_its_leaf(h, came, params, xs):
    message = rf"unroll: state\.h is {came}; expected float32\[3, 4\], as GRU\(.*\.initial_state"
    with pytest.raises(ValueError, match=message):
        sj.unroll(CELL, params, xs, GRUState(jnp.asarray(h)))


@pytest.mark.parametrize("other", [sj.GRU(5), sj.LSTM(4), sj.ChoGRU(4), sj.MinGRU(4)])
def test_params_of_another_cell_are_refused(other, params, xs):
    with pytest.raises(ValueError, match=r"unroll: params.*as for xs of shape .* gives it"):
        sj.unroll(other, params, xs)
    with pytest.raises(ValueError, match=r"explain: params.*as for xs of shape .* gives it"):
        sj.explain(other, params, xs)


def test_a_cell_that_would_run_with_the_params_of_another_refuses_them(xs, key, unchecked):
    others = sj.MGU(4).init(key, in_features=2)
    inputs = others._asdict()
    del inputs["recurrent_kernel"]
    fitting = type(sj.MinGRU(4).init(key, in_features=2))(**inputs)
    _, ys = sj.unroll(sj.MinGRU(4), fitting, xs)
    _, wrong = sj.MinGRU(4).step(others, sj.MinGRU(4).initial_state(fitting, (3,)), xs[0])  # pyright: ignore[reportArgumentType] - the mistake
    assert np.array_equal(wrong, ys[0])  # silently, as the step has no use for what is too much
    with pytest.raises(ValueError, match=r"unroll: params has structure .*MGUParams"):
        sj.unroll(sj.MinGRU(4), others, xs)  # pyright: ignore[reportArgumentType] - the mistake


@dataclasses.dataclass(frozen=True)
class DrawnByNumpy(sj.Cell):
    """A user's cell whose init cannot be traced."""

    features: int

    def init(self, key, in_features):
        seed = int(jax.random.randint(key, (), 0, 1000))
        drawn = np.random.default_rng(seed).standard_normal((in_features, self.features))
        return jnp.asarray(drawn, jnp.float32)

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*batch_shape, self.features))

    def step(self, params, state, x):
        state = state + x @ params
        return state, state


def test_a_cell_whose_init_cannot_be_traced_runs_all_the_same(xs, key):
    cell = DrawnByNumpy(4)
    params = cell.init(key, IN_FEATURES)
    _, ys = sj.unroll(cell, params, xs)
    np.testing.assert_allclose(ys, np.cumsum(XS @ np.asarray(params), axis=0), rtol=1e-5)


def test_params_of_another_dtype_are_the_callers_affair(params, xs):
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    _, ys = sj.unroll(sj.GRU(4, param_dtype=jnp.bfloat16), narrow, xs)
    _, cast = sj.unroll(sj.GRU(4, dtype=jnp.bfloat16), narrow, xs)
    np.testing.assert_array_equal(np.asarray(ys, np.float32), np.asarray(cast, np.float32))


def test_a_cell_that_is_no_cell_is_refused(params, xs, unchecked):
    message = r"unroll: cell is 'GRU'; expected a seqjax\.Cell, such as sj\.LSTM\(256\)"
    with pytest.raises(ValueError, match=message):
        sj.unroll("GRU", params, xs)  # pyright: ignore[reportArgumentType] - refused on purpose


def test_an_unhashable_cell_is_refused_with_the_way_out(params, xs):
    @dataclasses.dataclass
    class Thawed(sj.Cell):
        features: int

        def init(self, key, in_features): ...
        def initial_state(self, params, batch_shape=(), *, key=None): ...
        def step(self, params, state, x):
            return state, x

    message = "unroll: Thawed is not hashable; make it a frozen dataclass"
    with pytest.raises(ValueError, match=message):
        sj.unroll(Thawed(3), params, xs)


def test_an_unknown_engine_is_refused_with_the_known_names(params, xs):
    with pytest.raises(ValueError, match=r"unroll: engine: expected one of .*'warp'") as refusal:
        sj.unroll(CELL, params, xs, engine="warp")
    assert all(repr(name) in str(refusal.value) for name in ("auto", *ENGINES))


@pytest.mark.parametrize("remat", ["always", 0, -3, 2.5])
def test_an_unknown_remat_is_refused(remat, params, xs, unchecked):
    with pytest.raises(ValueError, match=rf"unroll: remat: expected one of 'auto'.*{remat!r}"):
        sj.unroll(CELL, params, xs, remat=remat)


def test_the_refusals_reach_through_jit_and_grad(params):
    ragged = jnp.ones((TIME, BATCH), jnp.int32)
    for transform in (jax.jit, jax.grad):
        run = transform(lambda p: sj.unroll(CELL, p, jnp.asarray(XS), lengths=ragged)[1].sum())
        with pytest.raises(ValueError, match="unroll: lengths has shape"):
            run(params)


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_every_engine_gives_the_values_of_the_loop(engine, params, xs):
    with jax.disable_jit():
        expected = sj.unroll(CELL, params, xs, engine="scan")
    state, ys = sj.unroll(CELL, params, xs, engine=engine)
    np.testing.assert_allclose(ys, expected[1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(state.h, expected[0].h, rtol=1e-6, atol=1e-6)


def test_unroll_with_info_gives_the_values_of_unroll_and_says_that_they_are_exact(params, xs):
    state, ys, info = sj.unroll_with_info(CELL, params, xs, lengths=jnp.array([5, 0, 2]))
    expected_state, expected = sj.unroll(CELL, params, xs, lengths=jnp.array([5, 0, 2]))
    np.testing.assert_array_equal(ys, expected)
    np.testing.assert_array_equal(state.h, expected_state.h)
    assert (int(info.iterations), float(info.residual)) == (1, 0.0)


def test_unroll_with_info_passes_every_option_on():
    names = set(inspect.signature(sj.unroll).parameters)
    assert {"state", "key", "lengths", "resets", "reverse", "engine", "remat"} <= names
    with pytest.raises(TypeError, match="lenghts"):
        sj.unroll_with_info(CELL, None, jnp.asarray(XS), lenghts=None)  # pyright: ignore[reportArgumentType] - the mistake


def test_equal_cells_with_equal_shapes_compile_once_and_other_shapes_again(params, xs, monkeypatch):
    traced = []

    def counting(*arguments):
        traced.append(arguments[0])
        return ENGINES["scan"](*arguments)

    monkeypatch.setitem(ENGINES, "counting", counting)
    run = lambda cell, xs: sj.unroll(cell, params, xs, engine="counting")
    run(sj.GRU(4), xs[:0])
    run(sj.GRU(4), xs[:0])
    assert len(traced) == 1
    run(sj.GRU(4), xs[:0, :2])
    assert len(traced) == 2
    run(sj.GRU(4, bias_init="uniform_fan_in"), xs[:0])
    assert len(traced) == 3


@pytest.mark.parametrize("reverse", ["no", 1, None, np.array(True)])
def test_a_direction_that_is_no_bool_is_refused(reverse, params, xs, unchecked):
    with pytest.raises(ValueError, match=r"unroll: reverse: expected one of False, True, got"):
        sj.unroll(CELL, params, xs, reverse=reverse)


@pytest.mark.parametrize("value", [0, "a", 1.5])
def test_what_is_no_key_is_refused(value, params, xs, unchecked):
    with pytest.raises(ValueError, match=r"unroll: key: expected one key, such as .*, got"):
        sj.unroll(CELL, params, xs, key=value)


@pytest.mark.parametrize("name", ["xs", "lengths", "resets"])
def test_what_is_no_array_is_refused_by_name(name, params, xs, unchecked):
    arguments = {"xs": xs, name: "abc"}
    with pytest.raises(ValueError, match=rf"unroll: {name}: expected an array of numbers"):
        sj.unroll(CELL, params, **arguments)


def test_params_in_the_place_of_the_cell_do_not_fill_the_screen(params, xs, unchecked):
    with pytest.raises(ValueError, match=r"unroll: cell is .*; expected") as refusal:
        sj.unroll(params, CELL, xs)
    assert len(str(refusal.value)) < 200


BATCH_MAJOR = {
    "state": ({"state": GRUState(jnp.zeros((7, 4)))}, r"state\.h is float32\[7, 4\]"),
    "lengths": ({"lengths": jnp.zeros(7, jnp.int32)}, r"lengths has shape \(7,\)"),
    "resets": ({"resets": jnp.zeros((5, 7), bool)}, r"resets has shape \(5, 7\)"),
}


@pytest.mark.parametrize("name", BATCH_MAJOR)
def test_a_batch_major_xs_gets_the_hint_that_time_comes_first(name, params):
    options, complaint = BATCH_MAJOR[name]
    hint = r"Time comes first: xs is \[time, \*batch, in_features\], transpose it if 7 is the batch"
    with pytest.raises(ValueError, match=f"{complaint}.*{hint}"):
        sj.unroll(CELL, params, jnp.zeros((7, 5, 2)), **options)


STEPPED = [
    sj.GRU(4),
    sj.MGU(4),
    sj.ChoGRU(4),
    sj.MinGRU(4),
    sj.TimeDelay(4, window=2),
    sj.LSTM(4, projection=2),
    sj.Stack((sj.GRU(3), sj.Zoneout(sj.GRU(4), rate=0.1))),
]


@pytest.mark.parametrize("cell", STEPPED, ids=repr)
def test_step_validates_the_batch_and_the_width_of_its_state(cell):
    params, key = cell.init(jax.random.key(0), 3), jax.random.key(1)
    state = cell.initial_state(params, (2,), key=key)
    for wrong, x in [
        (cell.initial_state(params, (3,), key=key), jnp.ones((2, 3))),
        (cell.initial_state(params, (), key=key), jnp.ones((2, 3))),
        (state, jnp.ones(3)),
        (jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=-1), state), jnp.ones((2, 3))),
    ]:
        with pytest.raises(ValueError, match=r"step: state.* is .*; expected .*initial_state"):
            cell.step(params, wrong, x)
