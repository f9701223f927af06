"""Readout and cross-entropy in one pass, with the logits of a few steps in memory at a time."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from seqjax import checks
from seqjax.engines.scan import scan_pieces
from seqjax.losses.classes import check_targets, label_of, token_accuracy
from seqjax.losses.mean import Mean, check_mask, in_32_bits, sum_valid, zero_padding
from seqjax.numerics import accumulator, add_vector, matmul

LOGITS = 6 * 2**20
"""Largest number of logits in memory at once: 24 MiB in float32, which stays in the caches of a CPU.

A larger V raises it to the number of its entries, since each piece adds to all of ∂L/∂V.
"""


class Choices(NamedTuple):
    """Cross-entropy and accuracy of a readout over valid tokens.

    nats: the mean of -log p(target). accuracy: the fraction whose likeliest class is the target.
    """

    nats: Mean
    accuracy: Mean


def linear_cross_entropy(
    ys: Array,
    kernel: Array,
    bias: Array,
    targets: Array,
    *,
    mask: Array | None = None,
    dtype: DTypeLike | None = None,
) -> Choices:
    """z_t = y_t V + b
    ℓ_t = -log softmax(z_t)[target_t],   ∂ℓ_t/∂z_t = softmax(z_t) - onehot(target_t)

    Equals `token_cross_entropy` and `token_accuracy` of the logits z, summed, in value and gradient. For
    readouts of many classes: the logits of a few steps exist at a time, and the same pass computes
    ∂ℓ_t/∂y_t and their terms of ∂L/∂V and ∂L/∂b. Neither z nor its softmax is kept or recomputed, so a
    gradient costs three matmuls and little else. Forward and reverse mode, and their compositions, work.

    Args:
        ys: float[*tokens, features], split along its first axis.
        kernel: V, [features, classes].
        bias: b, [classes].
        targets: int[*tokens] in [0, classes); another target makes loss and gradient NaN.
        mask: bool[*tokens]; values under a False, even NaN, change nothing.
        dtype: dtype of the operands of the matmuls, by default that of ys; logits, sums and softmax are
            at least float32.

    Raises:
        ValueError: shapes or dtypes do not fit.

    References: Wijmans et al. 2024, "Cut your losses in large-vocabulary language models"; Hsu et al.
    2024, "Liger kernel", which computes the gradient in the same pass too.

    >>> ys, V, b = jnp.ones((7, 2, 3)), jnp.zeros((3, 50)), jnp.zeros(50)
    >>> nats, _ = linear_cross_entropy(ys, V, b, jnp.zeros((7, 2), int))
    >>> print(f"{jnp.exp(nats.value):.3f}")
    50.000
    """
    if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
        raise ValueError(
            f"losses: bias has shape {bias.shape} but kernel has {kernel.shape}; "
            "bias is [classes] for a kernel [features, classes]"
        )
    checks.trailing("losses: ys", ys, kernel.shape[0])
    check_targets("ys", "features", ys, targets)
    check_mask(mask, targets.shape)
    dtype = ys.dtype if dtype is None else dtype
    valid = jnp.ones(targets.shape, bool) if mask is None else mask
    # Before anything is computed from them: masking only the loss leaves 0 · NaN in the gradient.
    ys, targets = zero_padding(ys, mask), zero_padding(in_32_bits(targets), mask)
    if ys.ndim == 1:  # a single token has no axis to split
        ys, targets, valid = ys[None], targets[None], valid[None]
    nats, right = _sums(jnp.dtype(dtype), kernel, bias, ys, targets, valid)
    count = sum_valid(jnp.ones(valid.shape, nats.dtype), mask)
    return Choices(Mean(nats, count), Mean(right, count))


class Gradient(NamedTuple):
    """∂Σℓ/∂Vᵀ (transposed, which is faster to accumulate at these shapes), ∂Σℓ/∂b and ∂Σℓ/∂y."""

    kernel: Array
    bias: Array
    ys: Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sums(
    dtype: Any, kernel: Array, bias: Array, ys: Array, targets: Array, valid: Array
) -> tuple[Array, Array]:
    """Σ ℓ and the number of correct tokens."""
    return _walk(dtype, kernel, bias, ys, targets, valid, differentiated=False)[0]


@_sums.defjvp
def _sums_and_change(dtype: Any, primals: Any, tangents: Any) -> Any:
    """Compute the gradient with the sums, so that reverse mode only has to scale it."""
    (nats, right), gradient = _walk(dtype, *primals, differentiated=True)
    d_kernel, d_bias, d_ys, *_ = tangents
    terms = (gradient.kernel, d_kernel.T), (gradient.bias, d_bias), (gradient.ys, d_ys)
    change = sum(jnp.sum(a.astype(nats.dtype) * b.astype(nats.dtype)) for a, b in terms)
    return (nats, right), (change, jnp.zeros_like(right))


def _walk(
    dtype: Any,
    kernel: Array,
    bias: Array,
    ys: Array,
    targets: Array,
    valid: Array,
    *,
    differentiated: bool,
) -> tuple[tuple[Array, Array], Gradient]:
    """Σ ℓ, the number of correct tokens, and the gradient of Σ ℓ (zeros unless `differentiated`)."""
    wide = accumulator(dtype)

    def piece(carry: Any, inputs: Any) -> tuple[Any, Array]:
        nats, right, d_kernel, d_bias = carry
        steps = inputs[0]
        # As rows: with more axes XLA:CPU chooses slower matmuls.
        y, targets, valid = steps.reshape(-1, steps.shape[-1]), *(a.reshape(-1) for a in inputs[1:])
        logits = add_vector(matmul(y, kernel, dtype).astype(wide), bias)
        label, known = label_of(logits, targets)
        over_all = lambda x: jnp.broadcast_to(x[:, None], logits.shape)
        largest = jax.lax.stop_gradient(jnp.max(logits, axis=1))
        likely = jnp.exp(logits - over_all(largest))
        total = _times_ones(likely)
        at_label = jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]
        right += jnp.sum((token_accuracy(logits, targets) & valid).astype(wide))
        weight = jnp.where(valid, jnp.where(known, 1, jnp.nan), 0).astype(wide)
        nats += jnp.sum(jnp.where(valid, weight * (jnp.log(total) + largest - at_label), 0))
        if not differentiated:
            return (nats, right, d_kernel, d_bias), steps
        number = jax.lax.broadcasted_iota(label.dtype, logits.shape, 1)
        chosen = jnp.where(number == over_all(label), over_all(weight), 0)
        d_logits = likely * over_all(weight / total) - chosen
        d_y = matmul(d_logits, kernel.T, dtype).astype(y.dtype).reshape(steps.shape)
        d_kernel += matmul(d_logits.T, y, dtype).astype(wide)
        return (nats, right, d_kernel, d_bias + _ones_times(d_logits)), d_y

    zero = jnp.zeros((), wide)
    carry = zero, zero, jnp.zeros(kernel.shape[::-1], wide), jnp.zeros(bias.shape, wide)
    step = math.prod(targets.shape[1:]) * kernel.shape[1]
    most, time = max(1, max(LOGITS, kernel.size) // max(step, 1)), len(targets)
    length = max(1, -(-time // -(-max(time, 1) // most)))  # pieces of about the same length
    (nats, right, d_kernel, d_bias), d_ys = scan_pieces(
        piece, carry, (ys, targets, valid), length=length, reverse=False
    )
    return (nats, right), Gradient(d_kernel, d_bias, d_ys)


def _times_ones(x: Array) -> Array:
    """Σ over the last axis as a matmul: a long sum may take XLA:CPU fifty times as long."""
    return jnp.matmul(x, jnp.ones(x.shape[-1], x.dtype), precision="highest")


def _ones_times(x: Array) -> Array:
    """Σ over the first axis as a matmul."""
    return jnp.matmul(jnp.ones(x.shape[0], x.dtype), x, precision="highest")
