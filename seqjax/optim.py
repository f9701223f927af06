"""What optax lacks: halving by global norm, the rate at which steps are clipped, one ready chain.

Everything else comes from optax as it is. Any clipping rule gets its statistics from `clip_statistics`:

>>> import jax.numpy as jnp, optax
>>> from seqjax import optim
>>> by_value = optim.clip_statistics(optax.clip(1.0))
>>> by_norm = optim.clip_statistics(optax.clip_by_global_norm(1.0))
>>> adaptive = optim.clip_statistics(optax.adaptive_grad_clip(0.01))  # its update needs the params
>>> halving = optim.clip_statistics(optim.halve_by_global_norm(1.0))
>>> optimizer = optim.skip_non_finite(optax.chain(by_value, optax.sgd(0.1)))
>>> params = {"w": jnp.ones(2)}
>>> opt_state = optimizer.init(params)
>>> updates, opt_state = optimizer.update({"w": jnp.array([3.0, 4.0])}, opt_state, params)
>>> print(optim.statistics(opt_state).norm_before)
5.0

Gradients accumulate over k micro-batches in `optax.MultiSteps`. Its accumulator keeps a NaN for ever,
so a non-finite micro-batch has to be skipped before it gets there:

>>> accumulating = optax.MultiSteps(optim.clipped_adamw(1e-3), every_k_schedule=4)
>>> optimizer = optim.skip_non_finite(accumulating.gradient_transformation())
"""

import math
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from seqjax import checks
from seqjax.numerics import accumulator

Node = TypeVar("Node", bound=tuple)

# 2⁻¹²⁶ is the smallest normal float32. It suffices: a norm that is finite is below 2⁶⁴, so that only
# a threshold below 2⁻⁶² would need more.
MOST_HALVINGS = 126
NEVER = 2**31 - 1


class ClipStatisticsState(NamedTuple):
    """The state of `clip_statistics`: that of the clip, and what it did."""

    inner_state: Any
    norm_before: Array
    norm_after: Array
    steps: Array
    clipped: Array


class Statistics(NamedTuple):
    """What an optimizer's state says about its gradients; None where the state does not record it.

    norm_before, norm_after: ‖∇‖ over all parameters in the last step that was not skipped, before
        and after clipping.
    steps, clipped: the steps that the clip saw, and those whose gradient it changed.
    clip_rate: clipped / steps, 0 before the first.
    skipped: the steps with a non-finite gradient, which were not applied and are not in `steps`.
    """

    norm_before: Array | None
    norm_after: Array | None
    steps: Array | None
    clipped: Array | None
    clip_rate: Array | None
    skipped: Array | None


def halve_by_global_norm(
    threshold: float | Array, *, repeat: bool = False
) -> optax.GradientTransformation:
    """∇ ← ∇ / 2 if ‖∇‖ ≥ τ

    and with `repeat` again until ‖∇‖ < τ. ‖∇‖ = √Σ g² over all leaves, in float32, where it is ∞ from
    2⁶⁴ on; a gradient so large is halved 126 times. Halving is exact: the direction stays. A
    non-finite gradient stays non-finite, for `skip_non_finite` to see.

    threshold: τ, positive; a scalar array, traced or not, may be injected by
        `optax.inject_hyperparams`.

    Raises a ValueError for a threshold that is no scalar or, where it is a number, not positive.

    >>> import jax.numpy as jnp
    >>> gradient = jnp.array([30.0, 40.0])
    >>> for repeat in (False, True):
    ...     halve = halve_by_global_norm(25.0, repeat=repeat)
    ...     print(halve.update(gradient, halve.init(gradient))[0])
    [15. 20.]
    [ 7.5 10. ]
    """
    if checks.is_number(threshold):
        checks.finite_positive("halve_by_global_norm: threshold", threshold)
    elif jnp.shape(threshold) != ():
        raise ValueError(
            f"halve_by_global_norm: threshold has shape {jnp.shape(threshold)}; expected a scalar"
        )
    most = MOST_HALVINGS if repeat else 1

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = _global_norm(updates)
        # A table, not exp2 and log2: powers of two are exact in it, and so is each comparison.
        powers = jnp.asarray(np.ldexp(1.0, -np.arange(most + 1)), norm.dtype)
        halvings = jnp.sum(norm * powers[:-1] >= jnp.asarray(threshold, norm.dtype))
        factor = powers[halvings]
        return jax.tree.map(lambda g: (_widen(g) * factor).astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def clip_statistics(
    clip: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`clip`, and in its state what it did: ‖∇‖ before and after, steps, and steps it changed.

    A step counts as clipped where any entry of the gradient comes out different. `statistics` reads
    the numbers out of the state of the whole optimizer. Norms are float32, counts int32 that stop at
    their maximum. Inside `skip_non_finite` a skipped step is not seen; outside, it would count, with
    a norm of NaN.

    >>> import jax.numpy as jnp, optax
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

    def update(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ClipStatisticsState]:
        clipped, inner_state = clip.update(updates, state.inner_state, params, **extra_args)
        changed = jnp.logical_not(_same(updates, clipped))
        return clipped, ClipStatisticsState(
            inner_state=inner_state,
            # The dtype that `init` gave, whatever that of the gradient: a state is carried.
            norm_before=_global_norm(updates).astype(jnp.float32),
            norm_after=_global_norm(clipped).astype(jnp.float32),
            steps=jnp.asarray(optax.safe_increment(state.steps)),
            clipped=jnp.where(changed, optax.safe_increment(state.clipped), state.clipped),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def skip_non_finite(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`inner`, run only on gradients without NaN and ∞; on others parameters and its state stay.

    This is `optax.apply_if_finite` with no limit on the number of skips in a row: its count of them
    stops at the largest int32, so it never exceeds a limit of just that. `statistics` reads how many
    were skipped.

    It wraps the optimizer and does not precede it in a chain: on a gradient that has been zeroed,
    momentum and weight decay would still move the parameters.

    >>> import jax.numpy as jnp, optax
    >>> optimizer = skip_non_finite(optax.sgd(0.1, momentum=0.9))
    >>> state = optimizer.init(jnp.zeros(2))
    >>> _, state = optimizer.update(jnp.array([1.0, 1.0]), state)
    >>> updates, state = optimizer.update(jnp.array([1.0, jnp.inf]), state)
    >>> print(updates, statistics(state).skipped)
    [0. 0.] 1
    """
    skipping = optax.apply_if_finite(inner, max_consecutive_errors=NEVER)
    return optax.with_extra_args_support(skipping)


def statistics(opt_state: Any) -> Statistics | None:
    """The numbers of `clip_statistics` and `skip_non_finite`, from anywhere in an optimizer's state.

    Chains, `inject_hyperparams`, `MultiSteps` and other wrappers may nest around them, and the state
    may be stacked by `jax.vmap`. None where the state records neither; a field is None where it does
    not record that. `skipped` sums over all `skip_non_finite`.

    Raises a ValueError where several `clip_statistics` leave open whose numbers are asked for.

    >>> import jax.numpy as jnp, optax
    >>> optimizer = clipped_adamw(1e-3, clip_norm=1.0)
    >>> params = jnp.ones(2)
    >>> state = optimizer.init(params)
    >>> for gradient in (jnp.array([0.3, 0.4]), jnp.array([3.0, 4.0]), jnp.array([jnp.nan, 0.0])):
    ...     updates, state = optimizer.update(gradient, state, params)
    >>> now = statistics(state)
    >>> print(f"{now.norm_before:.2f} {now.norm_after:.2f} {now.clip_rate:.0%} {now.skipped}")
    5.00 1.00 50% 1
    >>> print(statistics(optax.sgd(0.1).init(params)))
    None
    """
    clips = _find(opt_state, ClipStatisticsState)
    skips = _find(opt_state, optax.ApplyIfFiniteState)
    if len(clips) > 1:
        raise ValueError(
            f"statistics: the state holds {len(clips)} clip_statistics, expected one; "
            "wrap a single clip_statistics around an optax.chain of the clips"
        )
    if not clips and not skips:
        return None
    norm_before = norm_after = steps = clipped = rate = None
    if clips:
        _, norm_before, norm_after, steps, clipped = clips[0]
        rate = clipped.astype(jnp.float32) / jnp.maximum(steps, 1).astype(jnp.float32)
    skipped = jnp.stack([s.total_notfinite for s in skips]).sum(axis=0) if skips else None
    return Statistics(norm_before, norm_after, steps, clipped, rate, skipped)


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
    """Skip a non-finite ∇; else ∇ ← ∇ · min(1, τ / ‖∇‖), keep statistics, and AdamW:

    m ← β₁ m + (1 - β₁) ∇
    v ← β₂ v + (1 - β₂) ∇²
    θ ← θ - α ( m̂ / (√v̂ + ε) + λ θ ),   m̂ = m / (1 - β₁ᵗ),   v̂ = v / (1 - β₂ᵗ)

    learning_rate α, clip_norm τ, weight_decay λ, b1 β₁, b2 β₂, eps ε: numbers, scalar arrays, or
    schedules, functions of the number of updates so far (skipped ones too). All are arrays in
    `opt_state.hyperparams`, so a new value compiles nothing anew; `set_hyperparameters` sets one.
    mask: which parameters decay, a pytree of bool or a function of the parameters; None is all.

    The arithmetic and the moments are at least float32 under bfloat16 parameters too, since
    bfloat16 rounds β₂ to 1.

    Raises a ValueError for a number out of its range. References: clipping: Pascanu, Mikolov, Bengio
    2013; AdamW: Loshchilov, Hutter 2019.

    >>> import jax.numpy as jnp, optax
    >>> params = {"w": jnp.ones(3)}
    >>> optimizer = clipped_adamw(optax.linear_schedule(0.0, 1e-2, 100), clip_norm=0.5)
    >>> opt_state = optimizer.init(params)
    >>> updates, opt_state = optimizer.update({"w": jnp.ones(3)}, opt_state, params)
    >>> params = optax.apply_updates(params, updates)
    """
    _check_not_negative("clipped_adamw: learning_rate", learning_rate)
    _check_not_negative("clipped_adamw: weight_decay", weight_decay)
    for name, value in (("clip_norm", clip_norm), ("eps", eps)):
        if checks.is_number(value):
            checks.finite_positive(f"clipped_adamw: {name}", value)
    for name, value in (("b1", b1), ("b2", b2)):
        if checks.is_number(value):
            checks.fraction(f"clipped_adamw: {name}", value)
    # float32 by name: the default is the dtype of the parameters.
    factory = optax.inject_hyperparams(_clipped_adamw, "mask", hyperparam_dtype=jnp.float32)
    # A scalar of NumPy is neither number nor array to optax, which would not inject it.
    numbers = (
        value.item() if isinstance(value, np.number) else value
        for value in (learning_rate, clip_norm, weight_decay, b1, b2, eps)
    )
    return _promoting(factory(*numbers, mask))


def warmup_cosine(learning_rate: float, steps: int, *, warmup: float = 0.1) -> optax.Schedule:
    """α_n = α n / w for n < w = ⌊warmup · steps⌋, then α (1 + cos(π (n - w) / (steps - w))) / 2

    The schedule for a run of known length: it rises, and falls to nothing at the end of it.

    learning_rate: α, the highest. steps: updates of the whole run. warmup: the share in which it rises.
    It is `optax.warmup_cosine_decay_schedule` with what it is given looked at: an array for α is not.

    Raises a ValueError for a rate that is negative or not finite, steps below 1, and a share outside
    [0, 1). Reference: Loshchilov, Hutter 2017, "SGDR".

    >>> schedule = warmup_cosine(0.1, steps=100)
    >>> print(schedule(5), schedule(10), schedule(100))
    0.05 0.1 0.0
    """
    _check_not_negative("warmup_cosine: learning_rate", learning_rate)
    checks.positive("warmup_cosine: steps", steps)
    checks.fraction("warmup_cosine: warmup", warmup)
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, int(warmup * steps), steps)


def set_hyperparameters(opt_state: Any, **values: float | Array) -> Any:
    """A new state with the hyperparameters of `optax.inject_hyperparams` set by name.

    Like `opt_state.hyperparams[name] = value`, but it changes no state in place, finds the name
    wherever it is nested, and keeps dtype and shape, so that the next jitted step does not recompile
    (a bare Python number is weakly typed and would, once).

    Raises a ValueError for a name that was not injected, and for one that follows a schedule, which
    would overwrite the value.

    >>> import jax.numpy as jnp
    >>> opt_state = clipped_adamw(1e-3).init(jnp.zeros(2))
    >>> opt_state = set_hyperparameters(opt_state, learning_rate=0.5, clip_norm=2.0)
    >>> print(opt_state.hyperparams["learning_rate"])
    0.5
    """
    injected = _find(opt_state, optax.InjectStatefulHyperparamsState)
    known = sorted({name for state in injected for name in state.hyperparams})
    scheduled = {name for state in injected for name in state.hyperparams_states}
    for name in values:
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

    def set_in(tree: Any) -> Any:
        return jax.tree.map(set_at, tree, is_leaf=_is_injected)

    def set_at(node: Any) -> Any:
        if not _is_injected(node):
            return node
        new = {n: _like(values[n], old) for n, old in node.hyperparams.items() if n in values}
        return node._replace(
            hyperparams={**node.hyperparams, **new}, inner_state=set_in(node.inner_state)
        )

    return set_in(opt_state)


def _clipped_adamw(
    learning_rate: Any, clip_norm: Any, weight_decay: Any, b1: Any, b2: Any, eps: Any, mask: Any
) -> optax.GradientTransformation:
    clip = _clip_by_global_norm(clip_norm)
    adamw = optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return skip_non_finite(_in_float32(optax.chain(clip, adamw)))


def _clip_by_global_norm(threshold: Any) -> optax.GradientTransformation:
    """`clip_statistics(optax.clip_by_global_norm(threshold))`, by one look at the gradient.

    What `clip_statistics` does, which knows nothing of the rule, takes as long as all of AdamW.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ClipStatisticsState]:
        norm = _global_norm(updates)
        most = jnp.asarray(threshold, norm.dtype)
        changed = norm > most
        # 0 where the norm is beyond its dtype: as in optax, nothing is left of such a gradient.
        factor = jnp.where(changed, most / norm, 1)
        after = jnp.where(jnp.isinf(norm), 0, jnp.minimum(norm, most))
        state = state._replace(
            norm_before=norm.astype(jnp.float32),
            norm_after=after.astype(jnp.float32),
            steps=jnp.asarray(optax.safe_increment(state.steps)),
            clipped=jnp.where(changed, optax.safe_increment(state.clipped), state.clipped),
        )
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(clip_statistics(optax.identity()).init, update)


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with gradients, parameters and state in at least float32; updates as they came."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        wide, state = inner.update(_widen(updates), state, _widen(params))
        return jax.tree.map(lambda w, g: w.astype(g.dtype), wide, updates), state

    return optax.GradientTransformation(lambda params: inner.init(_widen(params)), update)


def _promoting(
    inner: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """`inner` under standard promotion, whatever that of its caller: optax mixes float and int."""

    def init(params: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return inner.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def _widen(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(accumulator(x.dtype)), tree)


def _global_norm(tree: Any) -> Array:
    """√Σ x² over all leaves, summed in at least float32."""
    return optax.tree.norm(_widen(tree))


def _same(a: Any, b: Any) -> Array:
    """Whether every entry is the same; NaN is the same as NaN."""
    same = jax.tree.map(lambda a, b: jnp.array_equal(a, b, equal_nan=True), a, b)
    return jax.tree.reduce(jnp.logical_and, same, jnp.array(True))


def _find(tree: Any, kind: type[Node]) -> list[Node]:
    """All nodes of a NamedTuple type, also those inside one another."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    nodes = [node for node in leaves if isinstance(node, kind)]
    return nodes + [inner for node in nodes for inner in _find(tuple(node), kind)]


def _is_injected(node: Any) -> bool:
    return isinstance(node, optax.InjectStatefulHyperparamsState)


def _like(value: float | Array, old: Array) -> Array:
    """`value` with the dtype and shape of `old`: another aval would recompile."""
    return jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)


def _check_not_negative(name: str, value: Any) -> None:
    if isinstance(value, str | bool) or (checks.is_number(value) and not 0 <= value < math.inf):
        raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")
