"""A cell in a package of its own is found by the diagnostics, the catalogue and the contract suite."""

import importlib
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from docs import cells as catalogue
from tests.contract import test_form, test_promises, test_unroll
from tests.contract.cases import make_case
from tests.contract.registry import IN_FEATURES, REGISTRY, Entry, leaf

FILE = '''
"""A recurrent unit with a single gate on its memory."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.cells.packed import PackedCell, draw_kernels
from seqjax.gates import packed_gates
from seqjax.initializers import Initializer


class ForgetfulParams(NamedTuple):
    """W, U and b, packed in the order k, g."""

    input_kernel: Float[Array, "in_features 2*features"]
    recurrent_kernel: Float[Array, "features 2*features"]
    bias: Float[Array, " 2*features"]


class ForgetfulState(NamedTuple):
    """The hidden state."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class Forgetful(PackedCell[ForgetfulParams, ForgetfulState]):
    """k_t = σ(W_k x_t + U_k h_{t-1} + b_k)
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    h_t = k_t ⊙ h_{t-1} + (1 - k_t) ⊙ g_t
    y_t = h_t

    Reference: Nobody 2026, "A cell for a test".
    Choose it to see that a new cell needs no more than its own file.
    """

    state_type = ForgetfulState
    additive = True
    saves_gates = True
    memory_path = "k"
    longer_memory = "keep_bias={steps}"

    features: int
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def init(self, key, in_features):
        """Draw each gate by itself."""
        return ForgetfulParams(*draw_kernels(self, key, in_features, (self.bias_init,) * 2))

    def gate(self, gate_params, z, r, state):
        """Mix the memory and the candidate."""
        k, g = packed_gates(z + r, k="sigmoid", g="tanh")
        state = ForgetfulState(k * state.h + (1 - k) * g)
        return state, self.emit(state)
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somewhere")
    (folder / "forgetful_cells.py").write_text(FILE, "utf-8")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("forgetful_cells")
    sys.path.remove(str(folder))
    del sys.modules["forgetful_cells"]


def test_diagnostics_show_its_gates_its_memory_and_its_advice(package):
    cell = sj.Stack((package.Forgetful(4), sj.Dropout(package.Forgetful(3), rate=0.0)))
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (40, 2, 2))
    found = sj.diagnostics.saturation(cell, params, xs)
    assert [v.name for v in found.values] == [f"layers[{i}] {n}" for i in (0, 1) for n in "kg"]
    assert [m.name for m in found.memories] == ["layers[0]", "layers[1]"]
    report = sj.diagnose(cell, params, xs, lambda ys: jnp.sum(ys[-1]))
    assert "keep_bias=40" in str(report)
    assert [layer.engine for layer in sj.explain(cell, params, xs).layers] == ["chunked"] * 2


def test_the_catalogue_lists_it(package):
    (entry,) = catalogue.entries(package)
    assert entry.made == "Forgetful(H)"
    assert "gates k; tanh g; keeps k of its memory" in catalogue.named(entry.build(8))
    lines = "\n".join(catalogue.section(package.Forgetful, [entry]))
    assert "k_t ⊙ h_{t-1}" in lines
    assert "2·D·H + 2·H² + 2·H parameters" in lines
    assert "*Choose it to see" in lines


@pytest.mark.usefixtures("quick_compilation")
def test_one_line_in_the_registry_brings_the_whole_contract(package, monkeypatch):
    entry = Entry(leaf(package.Forgetful, 3), gated=True, leaf=True)
    monkeypatch.setitem(REGISTRY, "Forgetful", entry)
    run = 0
    for module in (test_form, test_promises, test_unroll):
        for name, test in inspect.getmembers(module, inspect.isfunction):
            needs = set(inspect.signature(test).parameters)
            if name.startswith("test_") and needs and needs <= {"name", "case"}:
                with jax.enable_x64("case" in needs):
                    given = {"name": lambda: "Forgetful", "case": lambda: make_case("Forgetful")}
                    test(**{need: given[need]() for need in needs})
                run += 1
    assert run > 20


def test_its_gradient_is_that_of_the_difference_quotient(package, x64):
    cell = package.Forgetful(3, param_dtype=jnp.float64)
    params = cell.init(jax.random.key(0), IN_FEATURES)
    xs = jax.random.normal(jax.random.key(1), (20, 2, IN_FEATURES), jnp.float64)
    loss = lambda bias: jnp.sum(jnp.sin(sj.unroll(cell, params._replace(bias=bias), xs)[1]))
    along, step = jnp.cos(jnp.arange(6.0)), 1e-5
    quotient = (loss(params.bias + step * along) - loss(params.bias - step * along)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(params.bias) @ along, quotient, rtol=1e-8)
