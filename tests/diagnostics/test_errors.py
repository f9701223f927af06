"""Wrong arguments raise a ValueError that names the function, the argument, and what was expected."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import seqjax as sj
from seqjax.diagnostics import (
    bound,
    diagnose,
    factor,
    flow,
    jacobians,
    lyapunov,
    saturation,
    spectrum,
)

pytestmark = pytest.mark.usefixtures("quick_compilation", "unchecked")

CELL = sj.Elman(3)
PARAMS = CELL.init(jax.random.key(1), 2)
BOTH = sj.Bidirectional(CELL, CELL)
OF_BOTH = BOTH.init(jax.random.key(1), 2)
XS = jnp.ones((4, 2, 2))
LAGS = jnp.arange(3.0)


@dataclasses.dataclass(frozen=True)
class WithoutOutput(sj.Elman):
    """A step that forgets to return y."""

    def step(self, params, state, x) -> Any:
        return super().step(params, state, x)[0]


def total(ys):
    return jnp.sum(ys**2)


RUNS: dict[str, Any] = {
    "flow": functools.partial(flow, loss=total),
    "diagnose": functools.partial(diagnose, loss=total),
    "jacobians": jacobians,
    "lyapunov": lyapunov,
    "saturation": saturation,
}


@pytest.mark.parametrize("name", list(RUNS))
def test_every_function_that_runs_a_cell_checks_it_as_unroll_does(name):
    run = RUNS[name]
    wrong = WithoutOutput(3)
    for call, message in (
        (lambda: run(sj.LSTM, PARAMS, XS), "cell is"),
        (lambda: run(BOTH, OF_BOTH, XS), "cell: expected a causal cell.*diagnose each direction"),
        (lambda: run(CELL, PARAMS, XS[0, 0]), "xs has shape"),
        (lambda: run(sj.LSTM(3), PARAMS, XS), "params has structure"),
        (lambda: run(CELL, PARAMS, XS, key=0), "key: expected one key"),
        (lambda: run(wrong, PARAMS, XS), r"WithoutOutput\.step gives .*; expected a pair"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: {message}"):
            call()
    if name != "diagnose":  # which reports it
        with pytest.raises(
            ValueError, match=rf"^{name}: state\.h is not finite after step 3, row 1"
        ):
            run(CELL, PARAMS, XS.at[3, 1].set(jnp.nan))


@pytest.mark.parametrize("name", ["factor", "bound", "spectrum"])
def test_every_function_of_params_alone_checks_that_they_are_those_of_the_cell(name):
    functions = {
        "factor": factor,
        "bound": functools.partial(bound, lags=LAGS),
        "spectrum": spectrum,
    }
    of: Any = functions[name]
    others = sj.LSTM(3).init(jax.random.key(1), 2)
    for wrong in (others, None, [PARAMS], sj.Elman(4).init(jax.random.key(1), 2)):
        with pytest.raises(ValueError, match=rf"^{name}: params is .*Elman\(features=3\)\.init"):
            of(CELL, wrong)
    with pytest.raises(ValueError, match=rf"^{name}: cell is"):
        of(sj.LSTM, others)
    for wide in (1, 3, 5):  # any width of inputs
        assert of(CELL, CELL.init(jax.random.key(1), wide)) is not None


POSITIVE, AT_LEAST_0 = "expected a positive integer, got", "expected an integer of at least 0, got"
NOTHING = "xs has shape {}; .* at least 1 step"
SCALAR = (
    r"loss: expected a real scalar from ys \(4, 2, 3\), got ShapeDtypeStruct\(shape={}, dtype={}"
)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flow", {"times": 0}, f"times: {POSITIVE} 0"),
        ("flow", {"rows": 0}, f"rows: {POSITIVE} 0"),
        ("flow", {"loss": lambda ys: ys}, "loss: expected a real scalar"),
        ("flow", {"loss": lambda ys: ys[2, 0, 0] * jnp.inf}, "loss: ∂L/∂y is not finite at step 2"),
        ("jacobians", {"end": 4}, "end: expected a step below the 4 of xs, got 4"),
        *(("jacobians", {"end": n}, f"end: {AT_LEAST_0} {n!r}") for n in (-1, 1.5, "a", True)),
        ("jacobians", {"probes": 0}, f"probes: {POSITIVE} 0"),
        ("lyapunov", {"align": 4}, "align: expected fewer than the 4 steps"),
        *(("lyapunov", {"align": n}, f"align: {AT_LEAST_0} {n!r}") for n in (-1, 1.5, True)),
        ("lyapunov", {"count": 0}, f"count: {POSITIVE} 0"),
        ("lyapunov", {"xs": XS[:0]}, NOTHING.format(r"\(0, 2, 2\)")),
        ("saturation", {"xs": XS[:0]}, NOTHING.format(r"\(0, 2, 2\)") + " and 1 row"),
        ("saturation", {"xs": XS[:, :0]}, NOTHING.format(r"\(4, 0, 2\)") + " and 1 row"),
        ("diagnose", {"xs": XS[:0]}, NOTHING.format(r"\(0, 2, 2\)") + " and 1 row"),
        ("diagnose", {"loss": "mse"}, "loss: expected a function, got 'mse'"),
        ("diagnose", {"loss": lambda ys: ys}, SCALAR.format(r"\(4, 2, 3\)", "float32")),
        ("diagnose", {"loss": lambda ys: jnp.sum(ys > 0)}, SCALAR.format(r"\(\)", "int32")),
        ("diagnose", {"loss": lambda ys: jnp.any(ys > 0)}, SCALAR.format(r"\(\)", "bool")),
        (
            "diagnose",
            {"loss": lambda ys: jnp.sum(ys).astype(complex)},
            SCALAR.format(r"\(\)", "complex"),
        ),
    ],
)
def test_a_wrong_argument_raises_an_error_that_names_it(name, options, message):
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        RUNS[name](CELL, PARAMS, **{"xs": XS, **options})


@pytest.mark.parametrize("lags", [3, jnp.ones((2, 2)), "lags"])
def test_lags_that_are_not_a_row_of_numbers_raise(lags):
    with pytest.raises(ValueError, match=r"^bound: lags"):
        bound(CELL, PARAMS, lags)


def test_a_matrix_that_is_not_finite_is_named_by_its_leaf():
    cell = sj.Stack((sj.Elman(3), sj.GRU(3)))
    params = cell.init(jax.random.key(1), 2)
    elman, gru = params.layers
    gru = gru._replace(recurrent_kernel=gru.recurrent_kernel.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"params\.layers\[1\]\.recurrent_kernel is not finite"):
        spectrum(cell, params._replace(layers=(elman, gru)))
