"""Additions to optax: halving by global norm, clipping statistics, a clipped AdamW, a checked schedule.

Any clipping rule of optax reports its statistics through `clip_statistics`:

>>> import jax.numpy as jnp, optax
>>> clip = clip_statistics(optax.adaptive_grad_clip(0.01))
>>> optimizer = skip_non_finite(optax.chain(clip, optax.sgd(0.1)))

`optax.MultiSteps` accumulates the gradients of k micro-batches. A NaN never leaves its accumulator,
so `skip_non_finite` has to wrap it:

>>> accumulating = optax.MultiSteps(clipped_adamw(1e-3), every_k_schedule=4)
>>> optimizer = skip_non_finite(accumulating.gradient_transformation())
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from seqjax import checks
from seqjax.numerics import accumulator

# 2⁻¹²⁶ is the smallest normal float32. A finite norm is below 2⁶⁴, so only a threshold below 2⁻⁶²
# would need more halvings.
MOST_HALVINGS = 126


class ClipStatisticsState(NamedTuple):
    """State of `clip_statistics`: the state of the clip, and the statistics recorded so far."""

    inner_state: Any
    norm_before: Array
    norm_after: Array
    steps: Array
    clipped: Array


class Statistics(NamedTuple):
    """Gradient statistics of an optimizer; a field is None where the optimizer does not record it.

    norm_before, norm_after: global norm of the last gradient that was not skipped, before and after
        clipping.
    steps, clipped: number of steps that reached the clip, and of those that it changed.
    clip_rate: clipped / steps; 0 before the first step.
    skipped: number of steps skipped for a non-finite gradient, which `steps` leaves out.
    """

    norm_before: Array | None = None
    norm_after: Array | None = None
    steps: Array | None = None
    clipped: Array | None = None
    clip_rate: Array | None = None
    skipped: Array | None = None


def halve_by_global_norm(
    threshold: float | Array, *, repeat: bool = False
) -> optax.GradientTransformation:
    """∇ ← ∇ / 2 if ‖∇‖ ≥ τ, with ‖∇‖ = √Σ g² over all leaves

    Halving is exact and keeps the direction. The norm is at least float32; a gradient whose norm
    overflows is halved 126 times with `repeat`. A non-finite gradient stays non-finite.

    Args:
        threshold: τ, a positive number or a scalar array, which `optax.inject_hyperparams` may inject.
        repeat: halve until ‖∇‖ < τ instead of once.

    Raises:
        ValueError: threshold is an array with axes or a number that is not positive.

    >>> gradient = jnp.array([30.0, 40.0])
    >>> print([halve_by_global_norm(25.0, repeat=r).update(gradient, ())[0] for r in (False, True)])
    [Array([15., 20.], dtype=float32), Array([ 7.5, 10. ], dtype=float32)]
    """
    if checks.is_number(threshold):
        checks.finite_positive("halve_by_global_norm: threshold", threshold)
    elif jnp.shape(threshold) != ():
        raise ValueError(
            f"halve_by_global_norm: threshold has shape {jnp.shape(threshold)}; expected a scalar"
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = _global_norm(updates)
        # exp2 and log2 may round; a table of powers of two makes each comparison exact.
        exponents = -np.arange(1 + (MOST_HALVINGS if repeat else 1))
        powers = jnp.asarray(np.ldexp(1.0, exponents), norm.dtype)
        factor = powers[jnp.sum(norm * powers[:-1] >= jnp.asarray(threshold, norm.dtype))]
        return jax.tree.map(lambda g: (_widen(g) * factor).astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def clip_statistics(
    clip: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Record what `clip` does: ‖∇‖ before and after it, the number of steps, and of steps it changed.

    A step counts as clipped if any entry of the gradient changes. Read the numbers with `statistics`.
    Norms are float32; counts are int32 and saturate. Put it inside `skip_non_finite`, where it does
    not see the skipped steps. (`optax.monitor` does not fit: its first update changes the structure of
    the state, which `lax.cond` and `lax.scan` reject.)

    >>> clip = clip_statistics(optax.clip_by_global_norm(1.0))
    >>> state = clip.init(jnp.zeros(2))
    >>> for gradient in (jnp.array([0.3, 0.4]), jnp.array([3.0, 4.0])):
    ...     _, state = clip.update(gradient, state)
    >>> print(f"{state.norm_before:.2f} {state.norm_after:.2f} {state.clipped}/{state.steps}")
    5.00 1.00 1/2
    """
    clip = optax.with_extra_args_support(clip)

    def init(params: Any) -> ClipStatisticsState:
        norm, count = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        return ClipStatisticsState(clip.init(params), norm, norm, count, count)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        clipped, inner_state = clip.update(updates, state.inner_state, params, **extra_args)
        same = jax.tree.map(lambda a, b: jnp.array_equal(a, b, equal_nan=True), updates, clipped)
        changed = ~jax.tree.reduce(jnp.logical_and, same, jnp.array(True))
        norms = _global_norm(updates), _global_norm(clipped)
        return clipped, _recorded(state._replace(inner_state=inner_state), *norms, changed)

    return optax.GradientTransformationExtraArgs(init, update)


def skip_non_finite(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` on finite gradients only; a NaN or ∞ changes neither parameters nor its state.

    `optax.apply_if_finite` without a limit on consecutive skips; `statistics` reads their number. It
    wraps the whole optimizer: after a gradient of zeros in a chain, momentum and weight decay would
    still move the parameters.

    >>> optimizer = skip_non_finite(optax.sgd(0.1, momentum=0.9))
    >>> state = optimizer.init(jnp.zeros(2))
    >>> _, state = optimizer.update(jnp.array([1.0, 1.0]), state)
    >>> updates, state = optimizer.update(jnp.array([1.0, jnp.inf]), state)
    >>> print(updates, statistics(state).skipped)
    [0. 0.] 1
    """
    # The count of consecutive skips saturates at the largest int32 and never exceeds this limit.
    limit = int(np.iinfo(np.int32).max)
    return optax.with_extra_args_support(optax.apply_if_finite(inner, limit))


def statistics(opt_state: Any) -> Statistics | None:
    """Collect what `clip_statistics` and `skip_non_finite` recorded anywhere in an optimizer's state.

    `optax.chain`, `inject_hyperparams`, `MultiSteps` and other wrappers may surround them, and the
    state may be stacked by `jax.vmap`. Returns None if the state records neither. `skipped` is the sum
    over all `skip_non_finite`.

    Raises:
        ValueError: the state holds several `clip_statistics`.

    >>> optimizer = clipped_adamw(1e-3, clip_norm=1.0)
    >>> params = jnp.ones(2)
    >>> state = optimizer.init(params)
    >>> for gradient in (jnp.array([0.3, 0.4]), jnp.array([3.0, 4.0]), jnp.array([jnp.nan, 0.0])):
    ...     updates, state = optimizer.update(gradient, state, params)
    >>> now = statistics(state)
    >>> print(f"{now.norm_before:.2f} {now.norm_after:.2f} {now.clip_rate:.0%} {now.skipped}")
    5.00 1.00 50% 1
    """
    clips = _states(opt_state, "ClipStatisticsState")
    skips = _states(opt_state, "ApplyIfFiniteState")
    if len(clips) > 1:
        raise ValueError(
            f"statistics: the state holds {len(clips)} clip_statistics, expected one; "
            "wrap a single clip_statistics around an optax.chain of the clips"
        )
    found = Statistics()
    for _, norm_before, norm_after, steps, clipped in clips:
        rate = clipped.astype(jnp.float32) / jnp.maximum(steps, 1).astype(jnp.float32)
        found = Statistics(norm_before, norm_after, steps, clipped, rate)
    if skips:
        found = found._replace(skipped=jnp.stack([s.total_notfinite for s in skips]).sum(axis=0))
    return found if clips or skips else None


def clipped_adamw(
    learning_rate: float | Array | optax.Schedule,
    *,
    clip_norm: float | Array | optax.Schedule = 1.0,
    weight_decay: float | Array | optax.Schedule = 0.0,
    b1: float | Array | optax.Schedule = 0.9,
    b2: float | Array | optax.Schedule = 0.999,
    eps: float | Array | optax.Schedule = 1e-8,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Skip a non-finite ∇; otherwise record statistics, clip by global norm, and apply AdamW:

    ∇ ← ∇ · min(1, τ / ‖∇‖)
    m ← β₁ m + (1 - β₁) ∇
    v ← β₂ v + (1 - β₂) ∇²
    θ ← θ - α ( m̂ / (√v̂ + ε) + λ θ ),   m̂ = m / (1 - β₁ᵗ),   v̂ = v / (1 - β₂ᵗ)

    Each hyperparameter is a number, a scalar array or a schedule of the number of updates (skipped ones
    included), and is stored in `opt_state.hyperparams`: `set_hyperparameters` changes it without
    recompiling. Arithmetic and moments are at least float32, since bfloat16 rounds β₂ to 1.

    Args:
        learning_rate: α.
        clip_norm: τ, the largest global norm.
        weight_decay: λ.
        b1: β₁, decay rate of the first moment.
        b2: β₂, decay rate of the second moment.
        eps: ε.
        mask: the parameters that decay, a pytree of bool or a function of the parameters; None is all.

    Raises:
        ValueError: a number is out of its range.

    References: clipping: Pascanu, Mikolov, Bengio 2013; AdamW: Loshchilov, Hutter 2019.

    >>> params = {"w": jnp.ones(3)}
    >>> optimizer = clipped_adamw(optax.linear_schedule(0.0, 1e-2, 100), clip_norm=0.5)
    >>> opt_state = optimizer.init(params)
    >>> updates, opt_state = optimizer.update({"w": jnp.ones(3)}, opt_state, params)
    >>> params = optax.apply_updates(params, updates)
    """
    values = {
        "learning_rate": (learning_rate, checks.not_negative),
        "clip_norm": (clip_norm, checks.finite_positive),
        "weight_decay": (weight_decay, checks.not_negative),
        "b1": (b1, checks.fraction),
        "b2": (b2, checks.fraction),
        "eps": (eps, checks.finite_positive),
    }
    for name, (value, check) in values.items():
        if not (callable(value) or isinstance(value, jax.Array | np.ndarray)):
            check(f"clipped_adamw: {name}", value)
    # optax injects Python numbers and arrays only. By default their dtype would be the parameters'.
    plain = {n: v.item() if isinstance(v, np.number) else v for n, (v, _) in values.items()}
    injected = optax.inject_hyperparams(_clipped_adamw, "mask", hyperparam_dtype=jnp.float32)
    return _promoting(injected(**plain, mask=mask))


def warmup_cosine(learning_rate: float, steps: int, *, warmup: float = 0.1) -> optax.Schedule:
    """α_n = α n / w for n < w = ⌊warmup · steps⌋, then α (1 + cos(π (n - w) / (steps - w))) / 2

    `optax.warmup_cosine_decay_schedule` from 0 to α to 0, with checked arguments.

    Args:
        learning_rate: α, the highest rate.
        steps: number of updates of the whole run.
        warmup: fraction of the run in which the rate rises, in [0, 1).

    Raises:
        ValueError: an argument is out of its range.

    Reference: Loshchilov, Hutter 2017, "SGDR".

    >>> schedule = warmup_cosine(0.1, steps=100)
    >>> print(schedule(5), schedule(10), schedule(100))
    0.05 0.1 0.0
    """
    checks.not_negative("warmup_cosine: learning_rate", learning_rate)
    checks.positive("warmup_cosine: steps", steps)
    checks.fraction("warmup_cosine: warmup", warmup)
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, int(warmup * steps), steps)


def set_hyperparameters(opt_state: Any, **values: float | Array) -> Any:
    """Return a state with hyperparameters of `optax.inject_hyperparams` replaced by name.

    Names are found wherever they are nested. Dtype and shape stay those of the old value, so the next
    jitted step does not recompile; a Python number put there by hand is weakly typed and would.

    Raises:
        ValueError: a name was not injected, or follows a schedule, which would overwrite the value.

    >>> opt_state = clipped_adamw(1e-3).init(jnp.zeros(2))
    >>> opt_state = set_hyperparameters(opt_state, learning_rate=0.5, clip_norm=2.0)
    >>> print(opt_state.hyperparams["learning_rate"])
    0.5
    """
    injected = _states(opt_state, "InjectStatefulHyperparamsState")
    known = sorted({name for state in injected for name in state.hyperparams})
    scheduled = {name for state in injected for name in state.hyperparams_states}
    field = optax.tree_utils.NamedTupleKey("InjectStatefulHyperparamsState", "hyperparams")
    for name, value in values.items():
        if name not in known:
            raise ValueError(
                f"set_hyperparameters: the state has no hyperparameter {name!r}; "
                f"expected one of {', '.join(known) or 'none, as nothing was injected'}"
            )
        if name in scheduled:
            raise ValueError(
                f"set_hyperparameters: {name} follows a schedule, which would overwrite the value; "
                "make the optimizer with a number in its place"
            )
        is_injected = lambda path, _: path[-2:-1] == (field,)
        for path, old in optax.tree.get_all_with_path(opt_state, name, is_injected):
            new = jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
            opt_state = optax.tree.set(opt_state, lambda p, _, at=path: p == at, **{name: new})
    return opt_state


def _clipped_adamw(
    learning_rate: Any, clip_norm: Any, weight_decay: Any, b1: Any, b2: Any, eps: Any, mask: Any
) -> optax.GradientTransformation:
    adamw = optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return skip_non_finite(_in_float32(optax.chain(_clip_by_global_norm(clip_norm), adamw)))


def _clip_by_global_norm(threshold: Any) -> optax.GradientTransformation:
    """`clip_statistics(optax.clip_by_global_norm(threshold))`, computing the norm once.

    `clip_statistics` works for any rule: its two norms and its comparison take as long as all of AdamW.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = _global_norm(updates)
        most = jnp.asarray(threshold, norm.dtype)
        changed = norm > most
        # As in optax, a gradient whose norm overflows becomes zero.
        factor = jnp.where(changed, most / norm, 1)
        after = jnp.where(jnp.isinf(norm), 0, jnp.minimum(norm, most))
        clipped = jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)
        return clipped, _recorded(state, norm, after, changed)

    return optax.GradientTransformation(clip_statistics(optax.identity()).init, update)


def _recorded(state: Any, before: Array, after: Array, changed: Array) -> ClipStatisticsState:
    """Add one step to the statistics, in the dtypes of `init`: the state may be carried by a scan."""
    return state._replace(
        norm_before=before.astype(jnp.float32),
        norm_after=after.astype(jnp.float32),
        steps=jnp.asarray(optax.safe_increment(state.steps)),
        clipped=jnp.where(changed, optax.safe_increment(state.clipped), state.clipped),
    )


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Run `inner` in at least float32, and return updates in the dtypes of the gradients.

    Inside `skip_non_finite`: across its `lax.cond` the wide gradients and updates would be stored.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        wide, state = inner.update(_widen(updates), state, _widen(params))
        return jax.tree.map(lambda w, g: w.astype(g.dtype), wide, updates), state

    return optax.GradientTransformation(lambda params: inner.init(_widen(params)), update)


def _promoting(
    inner: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` under standard dtype promotion: optax and its schedules mix floats and integers."""

    def promoting(function: Any) -> Any:
        def call(*args: Any, **extra_args: Any) -> Any:
            with jax.numpy_dtype_promotion("standard"):
                return function(*args, **extra_args)

        return call

    return optax.GradientTransformationExtraArgs(promoting(inner.init), promoting(inner.update))


def _widen(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(accumulator(x.dtype)), tree)


def _global_norm(tree: Any) -> Array:
    """√Σ x² over all leaves, summed in at least float32."""
    return optax.tree.norm(_widen(tree))


def _states(opt_state: Any, kind: str) -> list[Any]:
    """Find all NamedTuples of that name, also those inside one another."""
    return [state for _, state in optax.tree.get_all_with_path(opt_state, kind)]
