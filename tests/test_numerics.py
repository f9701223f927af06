"""The recurrent product: dense, by heads and diagonal, against the one dense matrix that each means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.numerics import recurrent_matmul


def as_dense(kernel: np.ndarray) -> np.ndarray:
    """[heads, rows, gates, columns] -> the block-diagonal [heads · rows, gates · heads · columns]."""
    heads, rows, gates, columns = kernel.shape
    dense = np.zeros((heads, rows, gates, heads, columns))
    for head in range(heads):
        dense[head, :, :, head] = kernel[head]
    return dense.reshape(heads * rows, gates * heads * columns)


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3)])
@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (1, 3, 2, 3), (5, 1, 3, 1), (2, 6, 1, 3)])
def test_a_kernel_by_heads_is_one_block_diagonal_matrix(shape, batch, x64):
    random = np.random.default_rng(0)
    kernel = random.standard_normal(shape)
    x = random.standard_normal((*batch, shape[0] * shape[1]))
    product = lambda x, kernel: recurrent_matmul(x, kernel)
    r, back = jax.vjp(product, jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(r, x @ as_dense(kernel), rtol=1e-12)
    up = random.standard_normal(r.shape)
    dx, dkernel = back(jnp.asarray(up))
    np.testing.assert_allclose(dx, up @ as_dense(kernel).T, rtol=1e-12, atol=1e-14)
    rows = x.reshape(-1, x.shape[-1]).T @ up.reshape(-1, up.shape[-1])
    mask = as_dense(np.ones(shape)) != 0
    np.testing.assert_allclose(as_dense(np.asarray(dkernel))[mask], rows[mask], rtol=1e-11)


@pytest.mark.parametrize("shape", [(6, 8), (2, 3, 4, 1), (6, 1, 2, 1)])
def test_operands_are_rounded_to_the_dtype_of_the_kernel_and_summed_in_float32(shape):
    random = np.random.default_rng(0)
    kernel = jnp.asarray(random.standard_normal(shape), jnp.bfloat16)
    x = jnp.asarray(random.standard_normal((4, 6)), jnp.float32)
    wide = np.asarray(kernel, np.float64)
    dense = wide if wide.ndim == 2 else as_dense(wide)
    r = recurrent_matmul(x, kernel)
    assert r.dtype == jnp.float32
    expected = np.asarray(x.astype(jnp.bfloat16), np.float64) @ dense
    np.testing.assert_allclose(r, expected, rtol=1e-5, atol=1e-5)
