"""Stack: layers one upon another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import LSTMParams
from seqjax.wrappers.stack import StackParams

pytestmark = pytest.mark.usefixtures("quick_compilation")

CELL = sj.Stack((sj.LSTM(4), sj.Elman(2), sj.GRU(5)))


def test_each_layer_reads_the_outputs_of_the_one_before(key):
    params = CELL.init(key, in_features=3)
    xs = jax.random.normal(key, (6, 2, 3))
    state, ys = sj.unroll(CELL, params, xs)
    expected = xs
    for cell, p, s in zip(CELL.cells, params.layers, state.layers, strict=True):
        last, expected = sj.unroll(cell, p, expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), s, last)
    np.testing.assert_allclose(ys, expected, rtol=1e-6, atol=1e-7)


def test_the_features_are_those_of_the_last_layer_and_widths_may_differ(key):
    assert CELL.features == 5
    shapes = [layer.input_kernel.shape for layer in CELL.init(key, in_features=3).layers]
    assert shapes == [(3, 4 * 4), (4, 2), (2, 3 * 5)]


def test_layers_that_are_alike_are_drawn_apart(key):
    first, second = sj.Stack((sj.GRU(3), sj.GRU(3))).init(key, in_features=3).layers
    assert not np.allclose(first.input_kernel, second.input_kernel)
    assert not np.allclose(first.recurrent_kernel, second.recurrent_kernel)


def test_a_stack_of_one_is_its_layer(key):
    stack, cell = sj.Stack((sj.GRU(3),)), sj.GRU(3)
    params = stack.init(key, in_features=2)
    xs = jax.random.normal(key, (5, 2))
    np.testing.assert_array_equal(
        sj.unroll(stack, params, xs)[1], sj.unroll(cell, params.layers[0], xs)[1]
    )


def test_each_layer_has_noise_of_its_own(key):
    layer = sj.Dropout(sj.Elman(64), rate=0.5)
    cell = sj.Stack((layer, layer))
    params = cell.init(key, in_features=2)
    one = cell.initial_state(params, key=jax.random.key(1))
    other = cell.redraw(one, jax.random.key(2))
    masks = [np.asarray(s.mask) for state in (one, other) for s in state.layers]
    for i, mask in enumerate(masks):
        assert all(not np.array_equal(mask, later) for later in masks[i + 1 :])


def test_deterministic_reaches_every_layer():
    noisy = sj.Stack((sj.Dropout(sj.GRU(2), rate=0.5), sj.Elman(2)))
    assert noisy.deterministic() == sj.Stack((sj.Dropout(sj.GRU(2), rate=0.0), sj.Elman(2)))


@pytest.mark.peer
def test_two_layers_give_the_outputs_of_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.LSTM(3, 4, num_layers=2, dtype=torch.float64)
    xs = np.random.default_rng(0).standard_normal((5, 2, 3))
    expected, (last_h, last_c) = peer(torch.tensor(xs))

    def layer(i):
        weight = lambda name: getattr(peer, f"{name}_l{i}").detach().numpy()
        return LSTMParams(
            input_kernel=jnp.asarray(weight("weight_ih").T),
            recurrent_kernel=jnp.asarray(weight("weight_hh").T),
            bias=jnp.asarray(weight("bias_ih") + weight("bias_hh")),
        )

    cell = sj.Stack((sj.LSTM(4, param_dtype=jnp.float64), sj.LSTM(4, param_dtype=jnp.float64)))
    state, ys = sj.unroll(cell, StackParams((layer(0), layer(1))), jnp.asarray(xs))
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    for i in range(2):
        h, c = state.layers[i]
        np.testing.assert_allclose(h, last_h[i].detach().numpy(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(c, last_c[i].detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cells", [(), [sj.GRU(2)], sj.GRU(2)], ids=["empty", "list", "cell"])
def test_anything_but_a_tuple_of_at_least_one_cell_is_refused(cells, unchecked):
    with pytest.raises(ValueError, match=r"Stack: cells is .*; expected a tuple of at least one"):
        sj.Stack(cells)


def test_a_layer_that_is_no_cell_is_refused(unchecked):
    with pytest.raises(ValueError, match="Stack: cells holds 'LSTM'; expected only seqjax cells"):
        sj.Stack((sj.GRU(2), "LSTM"))  # pyright: ignore[reportArgumentType] - refused on purpose


def test_cells_as_separate_arguments_raise_an_error_that_shows_the_tuple(unchecked):
    with pytest.raises(
        ValueError, match=r"Stack: got 2 arguments; expected one tuple .*\(\(sj\.LSTM"
    ):
        sj.Stack(sj.GRU(2), sj.GRU(2))  # pyright: ignore[reportArgumentType] - the mistake
