"""The readout and its cross-entropy in one: logits of many classes exist for a few steps at a time."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

from seqjax import checks
from seqjax.engines.scan import scan_pieces
from seqjax.losses.classes import check_targets, label_of, token_accuracy
from seqjax.losses.mean import Mean, check_mask, in_32_bits, sum_real, zero_padding
from seqjax.numerics import accumulator, add_vector, matmul

LOGITS = 6 * 2**20
"""Logits that exist at once, 24 MiB in float32: as much as stays in the caches of a processor.

As many as V has entries where these are more: to each piece's terms of ∂L/∂V all of it is added.
"""


class Choices(NamedTuple):
    """What a readout's choices are worth, over the real tokens.

    nats: Σ -log p(target), and how many. accuracy: how many have their target as the likeliest class.
    """

    nats: Mean
    accuracy: Mean


def linear_cross_entropy(
    ys: Shaped[Array, "..."],
    kernel: Shaped[Array, "..."],
    bias: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
    dtype: DTypeLike | None = None,
) -> Choices:
    """z_t = y_t V + b
    ℓ_t = -log softmax(z_t)[target_t],   ∂ℓ_t/∂z_t = softmax(z_t) - onehot(target_t)

    `token_cross_entropy` and `token_accuracy` of the logits z, summed, with equal values and gradients,
    for readouts of many classes: logits exist for a few steps at a time, and with them, while they are
    at hand, ∂ℓ_t/∂y_t and their terms of ∂L/∂V and ∂L/∂b. So neither z nor its softmax is ever kept or
    computed again; a gradient takes the three matmuls that there are, and little else.

    ys: float[*tokens, features], cut along its first axis. kernel: V, [features, classes]; bias: b,
    [classes]. targets: int[*tokens] in [0, classes). mask: bool[*tokens]; what stands under a False,
    even NaN, changes nothing. dtype: of the operands of the matmuls, by default that of ys; logits, sums
    and softmax are at least float32. Forward and reverse mode, and their compositions, work.

    Raises a ValueError for shapes or dtypes that do not fit. A target that is no class makes loss and
    gradient NaN.
    References: Wijmans et al. 2024, "Cut your losses in large-vocabulary language models"; Hsu et al.
    2024, "Liger kernel", whose gradient is found in the same pass as well.

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
    real = jnp.ones(targets.shape, bool) if mask is None else mask
    # Before anything is computed from them: 0 · NaN is no gradient.
    ys, targets = zero_padding(ys, mask), zero_padding(in_32_bits(targets), mask)
    if ys.ndim == 1:  # a single token has no axis to cut along
        ys, targets, real = ys[None], targets[None], real[None]
    nats, right = _sums(jnp.dtype(dtype), kernel, bias, ys, targets, real)
    count = sum_real(jnp.ones(real.shape, nats.dtype), mask)
    return Choices(Mean(nats, count), Mean(right, count))


class Gradient(NamedTuple):
    """Of Σ ℓ with respect to Vᵀ, whose rows a matmul of these shapes fills sooner, to b and to y."""

    kernel: Array
    bias: Array
    ys: Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sums(
    dtype: Any, kernel: Array, bias: Array, ys: Array, targets: Array, real: Array
) -> tuple[Array, Array]:
    """Σ ℓ, and how many are right."""
    return _walk(dtype, kernel, bias, ys, targets, real, differentiated=False)[0]


@_sums.defjvp
def _sums_and_change(dtype: Any, primals: Any, tangents: Any) -> Any:
    """With the gradient beside the sums, so that reverse mode has nothing to do but to scale it."""
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
    real: Array,
    *,
    differentiated: bool,
) -> tuple[tuple[Array, Array], Gradient]:
    """Σ ℓ and how many are right, and the gradient of the first; of zeros where none is asked for."""
    wide = accumulator(dtype)

    def piece(carry: Any, inputs: Any) -> tuple[Any, Array]:
        nats, right, d_kernel, d_bias = carry
        steps = inputs[0]
        # As rows: more axes lead XLA:CPU to other matmuls, and slower ones.
        y, targets, real = steps.reshape(-1, steps.shape[-1]), *(a.reshape(-1) for a in inputs[1:])
        logits = add_vector(matmul(y, kernel, dtype).astype(wide), bias)
        label, valid = label_of(logits, targets)
        over_all = lambda x: jnp.broadcast_to(x[:, None], logits.shape)
        largest = jax.lax.stop_gradient(jnp.max(logits, axis=1))
        likely = jnp.exp(logits - over_all(largest))
        total = _times_ones(likely)
        at_label = jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]
        right += jnp.sum((token_accuracy(logits, targets) & real).astype(wide))
        weight = jnp.where(real, jnp.where(valid, 1, jnp.nan), 0).astype(wide)
        nats += jnp.sum(jnp.where(real, weight * (jnp.log(total) + largest - at_label), 0))
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
        piece, carry, (ys, targets, real), length=length, reverse=False
    )
    return (nats, right), Gradient(d_kernel, d_bias, d_ys)


def _times_ones(x: Array) -> Array:
    """Σ over the last axis, as a product: XLA:CPU may take fifty times as long for a long sum."""
    return jnp.matmul(x, jnp.ones(x.shape[-1], x.dtype), precision="highest")


def _ones_times(x: Array) -> Array:
    """Σ over the first axis, likewise."""
    return jnp.matmul(jnp.ones(x.shape[0], x.dtype), x, precision="highest")
