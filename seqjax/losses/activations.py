"""Regularisation of what a cell emits."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from seqjax.losses.mean import check_mask, mean_over, sum_dtype, zero_padding


def activation_regularization(
    ys: Shaped[Array, "..."], *, mask: Shaped[Array, "..."] | None = None
) -> Array:
    """L = mean over real tokens t and features i of y_{t,i}²

    Keeps the outputs of a cell small. Unweighted: add α times it to the loss. AWD-LSTM has α = 2, and
    takes it on the outputs of the last layer after dropout.

    ys: float[*tokens, features]. mask: bool[*tokens]. Raises a ValueError for shapes or dtypes that do
    not fit. Reference: Merity, McCann, Socher 2017.

    >>> ys = jnp.array([[1.0, 3.0], [jnp.nan, 0.0]])
    >>> print(activation_regularization(ys, mask=jnp.array([True, False])))
    5.0
    """
    ys = _activations(ys, mask, "[*tokens, features]", axes=1)
    return mean_over(jnp.mean(jnp.square(ys), axis=-1), mask).value


def temporal_activation_regularization(
    ys: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
    resets: Shaped[Array, "..."] | None = None,
) -> Array:
    """L = mean over pairs of neighbouring steps t, t+1 and features i of (y_{t+1,i} - y_{t,i})²

    Keeps the outputs of a cell from changing fast (a slowness prior). A pair counts where both steps
    are real and of one document; without any, L is 0. Unweighted: add β times it to the loss.
    AWD-LSTM has β = 1, and takes it on the outputs of the last layer before dropout.

    ys: float[time, *batch, features]. mask: bool[time, *batch]. resets: bool[time, *batch], True at
    the first step of a document, as for `sj.unroll`. Raises a ValueError for shapes or dtypes that do
    not fit. Reference: Merity, McCann, Socher 2017.

    >>> ys = jnp.array([[1.0], [3.0], [0.0], [1.0]])
    >>> print(temporal_activation_regularization(ys, resets=jnp.array([True, False, True, False])))
    2.5
    """
    ys = _activations(ys, mask, "[time, *batch, features]", axes=2)
    check_mask(resets, ys.shape[:-1], "resets", "[time, *batch]")
    pairs = None if mask is None else mask[1:] & mask[:-1]
    if resets is not None:
        pairs = ~resets[1:] if pairs is None else pairs & ~resets[1:]
    changes = jnp.square(ys[1:] - ys[:-1])
    return mean_over(jnp.mean(changes, axis=-1), pairs).value


def _activations(ys: Array, mask: Array | None, form: str, axes: int) -> Array:
    """Outputs in the dtype of sums, with zeros in the padding before anything is computed from them."""
    if not jnp.issubdtype(ys.dtype, jnp.floating):
        raise ValueError(f"losses: ys is {ys.dtype}; expected floating point")
    if ys.ndim < axes:
        raise ValueError(f"losses: ys has shape {ys.shape}; expected {form}")
    check_mask(mask, ys.shape[:-1])
    return zero_padding(ys.astype(sum_dtype(ys)), mask)
