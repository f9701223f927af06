"""The memory of a state as one real vector, and back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax._tree import from_vector, to_vector


class Mixed(NamedTuple):
    h: jax.Array
    z: jax.Array
    clock: jax.Array
    kept: jax.Array
    key: jax.Array


def mixed(batch: tuple[int, ...]) -> Mixed:
    keys = jax.random.split(jax.random.key(0), 3)
    return Mixed(
        h=jax.random.normal(keys[0], (*batch, 2)),
        z=jax.random.normal(keys[1], (*batch, 3, 2), jnp.complex64),
        clock=jnp.full(batch, 7),
        kept=jnp.ones((*batch, 2), bool),
        key=jax.random.split(keys[2], batch),
    )


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3), (0,)])
def test_the_vector_holds_each_floating_entry_once_and_gives_it_back(batch):
    state = mixed(batch)
    vector = to_vector(state, len(batch))
    assert vector.shape == (*batch, 2 + 2 * 6)
    np.testing.assert_array_equal(vector[..., :2], state.h)
    np.testing.assert_array_equal(vector[..., 2:8].reshape(state.z.shape), state.z.real)
    np.testing.assert_array_equal(vector[..., 8:].reshape(state.z.shape), state.z.imag)
    again = from_vector(state, vector)
    assert again.clock is state.clock
    assert again.kept is state.kept
    assert again.key is state.key
    np.testing.assert_array_equal(again.h, state.h)
    np.testing.assert_array_equal(again.z, state.z)
    assert (again.h.dtype, again.z.dtype) == (state.h.dtype, state.z.dtype)


def test_leaves_of_several_widths_go_through_the_widest(x64):
    state = (jnp.ones(2, jnp.float32), jnp.full(1, 1 / 3, jnp.float64))
    vector = to_vector(state)
    assert vector.dtype == jnp.float64
    again = from_vector(state, vector)
    assert again[0].dtype == jnp.float32
    assert again[1] == state[1]


def test_a_state_without_floating_entries_has_an_empty_vector():
    assert to_vector((jnp.arange(3),), 1).shape == (3, 0)
    assert to_vector(()).shape == (0,)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match="vector has 3 entries; expected 2"):
        from_vector(jnp.ones(2), jnp.ones(3))
