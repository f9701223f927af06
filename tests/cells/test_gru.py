"""The GRU against the NumPy loop, finite differences, PyTorch, Flax, Keras and Equinox."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.gru import GRUParams, GRUState
from tests import oracles
from tests.cells import comparison
from tests.cells.comparison import FEATURES, IN_FEATURES, SIZES, Comparison, reordered, unpacked
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(W, U, b, inner_bias, x, h):
    """One sequence; the reset follows the recurrent matmul."""
    hs = oracles.gru(unpacked("rzn", W, U, b), inner_bias, x, h)
    return hs, hs[-1]


GRU = Comparison(sj.GRU(FEATURES), row)


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    comparison.assert_follows_the_equations(GRU)


def test_in_single_precision_the_cell_keeps_to_the_equations():
    comparison.assert_values_follow_the_equations(GRU)


def test_the_stacked_kernel_gives_the_same_network_where_the_reset_gate_is_open(x64):
    W, U, b, inner_bias, xs, h = GRU.arguments()
    b[:FEATURES] = 50.0  # σ(50) is 1 to rounding: the candidate, too, sees [h, x]
    ys, _ = GRU.run(*map(jnp.asarray, (W, U, b, inner_bias, xs, h)))
    stacked = np.concatenate([U, W])
    both = b + np.concatenate([np.zeros(2 * FEATURES), inner_bias])
    for x, y in zip(xs, np.asarray(ys), strict=True):
        _, z, n = np.split(np.concatenate([h, x], axis=1) @ stacked + both[None], 3, axis=1)
        z = sigmoid(z)
        h = (1 - z) * np.tanh(n) + z * h
        np.testing.assert_allclose(y, h, rtol=1e-12, atol=1e-12)


def torch_gru(W, U, b, inner_bias, xs, h):
    """PyTorch's GRU: our order, and two biases that add up to ours in r and z; n has both."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rz, n = b.tensor_split([2 * len(inner_bias)])
    biases = torch.cat([0.3 * rz, n]), torch.cat([0.7 * rz, inner_bias])
    return comparison.run_torch("GRU", (W, U, *biases), xs, h)


@pytest.mark.peer
@SIZES
def test_the_values_are_those_of_pytorch(sizes, x64):
    comparison.assert_values_agree_with_torch(GRU.at(*sizes), torch_gru)


@pytest.mark.peer
def test_values_and_gradients_are_those_of_pytorch(x64):
    comparison.assert_agrees(GRU, torch_gru, comparison.differentiate_torch)


def flax_gru(W, U, b, inner_bias, xs, h):
    """Flax' GRUCell: kernels gate by gate, and a bias beside U for n alone."""
    cell = linen.GRUCell(FEATURES, dtype=jnp.float64, param_dtype=jnp.float64)
    params = {}
    for gate, (w, u, bias) in unpacked("rzn", W, U, b).items():
        params |= {f"i{gate}": {"kernel": w, "bias": bias}, f"h{gate}": {"kernel": u}}
    params["hn"]["bias"] = inner_bias
    step = lambda x, h: cell.apply({"params": params}, h, x)
    return comparison.run_steps(step, xs, h)


def keras_gru(W, U, b, inner_bias, xs, h):
    """Keras' GRU: z, r, n; two biases, one at the input for all gates, one at U h, here for n alone."""
    inner = jnp.concatenate([0 * b[: 2 * FEATURES], inner_bias])
    W, U, b = (reordered("rzn", packed, "zrn") for packed in (W, U, b))
    biases = jnp.stack([b, inner])
    return comparison.run_keras("GRU", (W, U, biases), xs, h, reset_after=True)


def equinox_gru(W, U, b, inner_bias, xs, h):
    """Equinox' GRUCell: transposed kernels in our order, one row at a time."""
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed")
    cell = eqx.nn.GRUCell(IN_FEATURES, FEATURES, key=jax.random.key(0))
    weights = lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias, cell.bias_n)
    cell = jax.vmap(eqx.tree_at(weights, cell, (W.T, U.T, b, inner_bias)))
    step = lambda x, h: (cell(x, h),) * 2
    return comparison.run_steps(step, xs, h)


@pytest.mark.peer
@pytest.mark.parametrize("peer", [flax_gru, keras_gru, equinox_gru])
def test_values_and_gradients_are_those_of_other_libraries(peer, x64, standard_promotion):
    comparison.assert_agrees(GRU, peer)


def test_the_reset_gate_acts_after_the_recurrent_matmul_and_on_the_inner_bias():
    # A closed reset gate hides U_n h + c_n from the candidate, and leaves W_n x + b_n.
    shut, one = -50.0, jnp.ones((1, 1))
    params = GRUParams(
        input_kernel=jnp.zeros((1, 3)),
        recurrent_kernel=jnp.concatenate([0 * one, 0 * one, one], axis=1),
        bias=jnp.array([shut, shut, 0.3]),
        inner_bias=jnp.array([5.0]),
    )
    _, y = sj.GRU(1).step(params, GRUState(jnp.array([0.7])), jnp.ones(1))
    np.testing.assert_allclose(y, [np.tanh(0.3)], rtol=1e-6)


def test_an_update_bias_keeps_a_memory_for_about_as_long_as_chrono_says(x64):
    # z = σ(b) with b = log(T - 1) keeps 1 - 1/T of h a step, so 1/e of it is left after T steps.
    T = 200
    params = GRUParams(*map(jnp.zeros, ((1, 3), (1, 3), (3,), (1,))))
    params = params._replace(bias=jnp.array([0.0, np.log(T - 1), 0.0]))
    cell = sj.GRU(1, param_dtype=jnp.float64)
    state, _ = sj.unroll(cell, params, jnp.zeros((T, 1)), GRUState(jnp.ones(1)))
    np.testing.assert_allclose(state.h, [(1 - 1 / T) ** T], rtol=1e-10)
