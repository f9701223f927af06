"""Bidirectional: one cell reads forward, another backward."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.elman import ElmanParams
from seqjax.cells.gru import GRUParams
from seqjax.cells.lstm import LSTMParams
from seqjax.wrappers.bidirectional import BidirectionalParams, BidirectionalState

pytestmark = pytest.mark.usefixtures("quick_compilation")

CELL = sj.Bidirectional(sj.LSTM(2), sj.Elman(3))
LENGTHS = np.array([5, 2, 4])


@pytest.fixture
def xs():
    return jax.random.normal(jax.random.key(1), (5, 3, 4))


def test_the_second_direction_reads_from_the_end(key, xs):
    params = CELL.init(key, in_features=4)
    state, ys = sj.unroll(CELL, params, xs)
    forward, left = sj.unroll(CELL.forward, params.forward, xs)
    backward, right = sj.unroll(CELL.backward, params.backward, xs[::-1])
    np.testing.assert_allclose(ys[..., :2], left, rtol=1e-6)
    np.testing.assert_allclose(ys[..., 2:], right[::-1], rtol=1e-6)
    np.testing.assert_allclose(state.forward.c, forward.c, rtol=1e-6)
    np.testing.assert_allclose(state.backward.h, backward.h, rtol=1e-6)


def test_each_sequence_turns_at_its_own_last_step(key, xs):
    params = CELL.init(key, in_features=4)
    _, ys = sj.unroll(CELL, params, xs, lengths=jnp.asarray(LENGTHS))
    for row, length in enumerate(LENGTHS):
        _, alone = sj.unroll(CELL, params, xs[:length, row])
        np.testing.assert_allclose(ys[:length, row], alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ys[length:, row], np.zeros((5 - length, 5)))


def test_a_carried_state_enters_each_direction_at_its_own_end_and_no_further_than_a_cut(key, xs):
    params = CELL.init(key, in_features=4)
    carried = jax.tree.map(jnp.ones_like, CELL.initial_state(params, (3,)))
    fresh = CELL.initial_state(params, (3,))
    resets = jnp.zeros((5, 3), bool).at[2].set(True)
    state, ys = sj.unroll(CELL, params, xs, carried, resets=resets)
    first, left = sj.unroll(
        CELL, params, xs[:2], BidirectionalState(carried.forward, fresh.backward)
    )
    last, right = sj.unroll(
        CELL, params, xs[2:], BidirectionalState(fresh.forward, carried.backward)
    )
    np.testing.assert_allclose(ys, jnp.concatenate([left, right]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.forward.h, last.forward.h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.backward.h, first.backward.h, rtol=1e-5, atol=1e-6)


def test_walked_in_reverse_the_directions_change_places_in_time_but_not_in_y(key, xs):
    cell = sj.Bidirectional(sj.Elman(2), sj.Elman(2))
    params = cell.init(key, in_features=4)
    swapped = BidirectionalParams(forward=params.backward, backward=params.forward)
    _, ys = sj.unroll(cell, params, xs, reverse=True)
    _, zs = sj.unroll(cell, swapped, xs)
    np.testing.assert_allclose(ys[..., :2], zs[..., 2:], rtol=1e-6)
    np.testing.assert_allclose(ys[..., 2:], zs[..., :2], rtol=1e-6)


def test_the_features_are_those_of_both_directions_and_each_is_drawn_apart(key):
    assert CELL.features == 5
    params = sj.Bidirectional(sj.GRU(3), sj.GRU(3)).init(key, in_features=2)
    assert not np.allclose(params.forward.input_kernel, params.backward.input_kernel)


def test_each_direction_has_noise_of_its_own(key):
    direction = sj.Dropout(sj.Elman(64), rate=0.5)
    cell = sj.Bidirectional(direction, direction)
    one = cell.initial_state(cell.init(key, in_features=2), key=jax.random.key(1))
    other = cell.redraw(one, jax.random.key(2))
    masks = [one.forward.mask, one.backward.mask, other.forward.mask, other.backward.mask]
    for i, mask in enumerate(masks):
        assert all(not np.array_equal(mask, later) for later in masks[i + 1 :])


def lstm_from_torch(peer, suffix):
    weight = lambda name: getattr(peer, f"{name}_l0{suffix}").detach().numpy()
    return LSTMParams(
        input_kernel=jnp.asarray(weight("weight_ih").T),
        recurrent_kernel=jnp.asarray(weight("weight_hh").T),
        bias=jnp.asarray(weight("bias_ih") + weight("bias_hh")),
    )


@pytest.mark.peer
def test_outputs_and_final_states_are_those_of_pytorch_with_and_without_lengths(xs, x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.LSTM(4, 2, bidirectional=True, dtype=torch.float64)
    xs = np.asarray(xs, np.float64)
    one = sj.LSTM(2, param_dtype=jnp.float64)
    cell = sj.Bidirectional(one, one)
    params = BidirectionalParams(lstm_from_torch(peer, ""), lstm_from_torch(peer, "_reverse"))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(xs), torch.tensor(LENGTHS), enforce_sorted=False
    )
    for inputs, lengths in [(torch.tensor(xs), None), (packed, jnp.asarray(LENGTHS))]:
        expected, (last_h, last_c) = peer(inputs)
        if lengths is not None:
            expected, _ = torch.nn.utils.rnn.pad_packed_sequence(expected)
        state, ys = sj.unroll(cell, params, jnp.asarray(xs), lengths=lengths)
        np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
        for i, direction in enumerate(state):
            np.testing.assert_allclose(direction.h, last_h[i].detach().numpy(), rtol=1e-10)
            np.testing.assert_allclose(direction.c, last_c[i].detach().numpy(), rtol=1e-10)


@pytest.mark.peer
def test_outputs_are_those_of_flax_within_lengths(xs, x64):
    double = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    peer = linen.Bidirectional(
        linen.RNN(linen.SimpleCell(3, **double)), linen.RNN(linen.GRUCell(2, **double))
    )
    by_row = jnp.swapaxes(xs.astype(jnp.float64), 0, 1)
    lengths = jnp.asarray(LENGTHS, jnp.int64)
    variables = jax.jit(peer.init)(jax.random.key(0), by_row)
    expected = jax.jit(peer.apply)(variables, by_row, seq_lengths=lengths)
    theirs: Any = variables["params"]
    left, right = theirs["forward_rnn"]["cell"], theirs["backward_rnn"]["cell"]
    params = BidirectionalParams(
        forward=ElmanParams(left["i"]["kernel"], left["h"]["kernel"], left["i"]["bias"]),
        backward=GRUParams(
            jnp.concatenate([right[f"i{gate}"]["kernel"] for gate in "rzn"], axis=1),
            jnp.concatenate([right[f"h{gate}"]["kernel"] for gate in "rzn"], axis=1),
            jnp.concatenate([right[f"i{gate}"]["bias"] for gate in "rzn"]),
            right["hn"]["bias"],
        ),
    )
    cell = sj.Bidirectional(
        sj.Elman(3, param_dtype=jnp.float64), sj.GRU(2, param_dtype=jnp.float64)
    )
    _, ys = sj.unroll(cell, params, xs.astype(jnp.float64), lengths=lengths)
    for row, length in enumerate(LENGTHS):  # Flax leaves something else in the padding
        np.testing.assert_allclose(
            ys[:length, row], np.asarray(expected)[row, :length], rtol=1e-12, atol=1e-12
        )


def test_a_step_is_refused_also_inside_another_wrapper(key):
    message = r"Bidirectional\.step: y_t needs the inputs after t.* sj\.unroll"
    cells: list[sj.Cell] = [CELL, sj.Stack((CELL, sj.GRU(2))), sj.Dropout(CELL, rate=0.0)]
    for cell in cells:
        params = cell.init(key, in_features=4)
        with pytest.raises(ValueError, match=message):
            cell.step(params, cell.initial_state(params), jnp.ones(4))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_is_no_cell_is_refused(direction, unchecked):
    directions = {"forward": sj.GRU(2), "backward": sj.GRU(2), direction: 3}
    with pytest.raises(ValueError, match=f"Bidirectional: {direction}: expected a Cell, got 3"):
        sj.Bidirectional(**directions)


def test_a_missing_direction_raises_an_error_that_shows_both():
    with pytest.raises(
        ValueError, match=r"Bidirectional: backward is missing; expected a cell for"
    ):
        sj.Bidirectional(sj.GRU(2))
