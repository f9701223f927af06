"""What the numbers of a diagnosis say in plain words, and what to try: one rule in each function."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.cell import Cell, Params, leaves
from seqjax.diagnostics.by_lag import Flow
from seqjax.diagnostics.exponents import Lyapunov
from seqjax.diagnostics.gate_counts import Saturation
from seqjax.diagnostics.matrices import Spectrum
from seqjax.diagnostics.products import Jacobians
from seqjax.diagnostics.trajectory import NonFinite, Trajectory, not_finite
from seqjax.initializers import Orthogonal, as_rule
from seqjax.optim import Statistics

SHORT = 0.1
"""A half-life below this share of the steps is short: after all the steps less than 1/1000 is left."""

GROWN = 10.0
"""A gradient that grows by more than this factor over the steps explodes."""

LEFT = 0.01
"""A truncation may lose this share of the gradient."""

NEARLY_ALL = 0.9
"""A reach above this share of the steps is all of them: nothing says that it ends there."""

MOSTLY = 0.5
"""More than this share of the values is most of them."""


class Sentence(NamedTuple):
    """A finding, what to try where a rule says so, and the numbers that both rest on."""

    text: str
    numbers: dict[str, Any]
    advice: str | None = None

    def __str__(self) -> str:
        """Finding and advice."""
        return self.text if self.advice is None else f"{self.text} Try {self.advice}."


def of_non_finite(found: NonFinite, params: Params, path: Trajectory) -> Sentence:
    """Where the first state is that is not finite, and what made it so."""
    step = max(found.step, 0)
    row = int(np.ravel_multi_index(found.row, path.batch_shape)) if found.row else 0
    broken = not_finite("params", params)
    inputs = np.asarray(jnp.all(jnp.isfinite(path.xs[: step + 1, row]), axis=-1))
    before = [leaf[step, row] for leaf in jax.tree.leaves(path.before) if _inexact(leaf)]
    largest = max((float(jnp.max(jnp.abs(leaf), initial=0)) for leaf in before), default=0.0)
    numbers = {**found._asdict(), "params": broken, "largest_before": largest}
    text = str(found)
    if broken:
        verb = "holds" if len(broken) == 1 else "hold"
        text += f": {' and '.join(broken)} {verb} numbers that are not finite."
        return Sentence(text, numbers, "an earlier checkpoint, and sj.optim.skip_non_finite")
    if not inputs.all():
        bad = int(np.flatnonzero(~inputs)[0])
        return Sentence(
            f"{text}: xs[{bad}] of that row is not finite.",
            {**numbers, "input": bad},
            "to find it in the data; lengths= keeps NaN in padding out",
        )
    text += f"; the largest number in the state before it is {largest:.3g}."
    return Sentence(text, numbers, "smaller recurrent weights, or sj.LayerNorm")


def of_the_loss(step: int) -> Sentence:
    """A loss whose gradient is not finite, though all states are."""
    text = f"All states are finite, but ∂L/∂y at step {step} is not: the fault lies in the loss."
    return Sentence(text, {"step": step}, "sj.losses, which are computed from logits")


def of_the_derivative(leaf: str) -> Sentence:
    """A gradient that is not finite, though all states and ∂L/∂y are."""
    text = (
        f"All states are finite, and so is ∂L/∂y, but ∂L/∂params{leaf} is not: a derivative within a "
        "step is infinite."
    )
    return Sentence(text, {"leaf": leaf}, "to look for √0 in the cell, and for ∞ in xs")


def of_the_gradient(flow: Flow, cell: Cell, params: Params, gates: Saturation) -> Sentence:
    """How the gradient changes with the lag, and how to make it last or stay small."""
    steps = int(flow.lags[-1])
    numbers: dict[str, Any] = {"steps": steps}
    norms = flow.mean_norms()
    if flow.times.size == 0:
        text = "To first order the loss does not depend on the outputs: ∂L/∂y is 0 at every step."
        return Sentence(text, numbers, "a loss that is computed from the ys that it is given")
    if not np.any(norms != 0):
        text = "No gradient reaches any earlier state: to first order what a step emits depends on its "
        return Sentence(f"{text}input alone.", numbers)
    if not np.all(np.isfinite(norms)):
        lag = int(np.flatnonzero(~np.isfinite(norms))[0])
        text = f"The gradient overflows: {lag} steps back it is beyond {flow.lag_norms.dtype}."
        return Sentence(text, {**numbers, "overflow_lag": lag}, _against_growth())
    slope, used = decay(np.asarray(flow.lag_norms))
    if used == 0:
        return Sentence(_of_one_lag(int(flow.times[-1])), numbers)
    change = math.exp(min(abs(slope) * used, 700.0))
    numbers |= {"nats_per_step": slope, "lags_fitted": used, "change": change}
    if change < 2:
        over = "1 step" if used == 1 else f"{used} steps"
        return Sentence(f"The gradient keeps its size within a factor of 2 over {over}.", numbers)
    n = math.log(2) / abs(slope)
    if slope < 0:
        advice = _against_vanishing(cell, params, gates, steps) if n < SHORT * steps else None
        text = f"The gradient falls by half every {_steps(n)}."
        return Sentence(text, {**numbers, "half_life": n}, advice)
    advice = _against_growth() if change > GROWN else None
    text = f"The gradient doubles every {_steps(n)}."
    return Sentence(text, {**numbers, "doubling": n}, advice)


def of_the_reach(flow: Flow) -> Sentence | None:
    """How far back the gradient comes from, and where it may be truncated.

    Told of the recurrent kernel where there is one. A later lag than that of the first step has only
    what a state that is made from params brings. Nothing is told where there is no gradient, none that
    is finite, or no step before the loss.
    """
    span = int(flow.times[-1]) + 1 if flow.times.size else 0
    shares, rests = np.asarray(flow.total_shares), np.asarray(flow.total_rest)
    if span < 2 or not np.any(shares) or not np.all(np.isfinite(rests)):
        return None
    lag = flow.reach(LEFT)
    place = int(np.searchsorted(flow.ends, lag))
    kernels = {
        jax.tree_util.keystr(leaf): float(np.asarray(rest)[place])
        for leaf, rest in jax.tree_util.tree_leaves_with_path(flow.rest)
        if "recurrent" in jax.tree_util.keystr(leaf)
    }
    left = float(rests[place])
    numbers = {"lag": lag, "left": left, **kernels}
    if lag < min(NEARLY_ALL * span, span - 1):
        of = "the gradient"
        if len(kernels) == 1:
            ((name, left),) = kernels.items()
            of = f"∂L/∂params{name}"
        text = f"Steps more than {lag} back contribute {percent(left)} of {of}."
        return Sentence(text, numbers, f"sj.tbptt(k1, k2={max(lag, 1)}), which reaches so far back")
    if span < flow.lags[-1]:
        text = f"The gradient comes from all {span} steps up to the last at which the loss enters."
        return Sentence(text, numbers)
    slope, used = decay(np.asarray(flow.lag_norms))
    grows = slope * used > math.log(GROWN)
    text = f"The gradient comes from all {span} steps."
    return Sentence(text, numbers, None if grows else "longer windows, which may bring more")


def of_lyapunov(found: Lyapunov) -> Sentence:
    """Whether nearby states meet or part."""
    largest = float(np.mean(np.asarray(found.exponents)[:, 0]))
    numbers = {"largest": largest, "steps": found.steps}
    told = f"the largest Lyapunov exponent is {largest:.3g} nats per step"
    if abs(largest) * found.steps < math.log(2):
        return Sentence(f"Nearby states keep their distance: {told}.", numbers)
    if largest < 0:
        return Sentence(f"Nearby states meet: {told}.", numbers)
    return Sentence(f"Nearby states part, as in chaos: {told}.", numbers, _against_growth())


def of_the_weights(found: Spectrum, jacobians: Jacobians) -> Sentence | None:
    """What the recurrent matrices alone say, by the bound where there is one."""
    if not found.matrices:
        return None
    radius = max((m.radius for m in found.matrices if m.radius is not None), default=math.nan)
    largest = max(float(m.singular_values[0]) for m in found.matrices)
    numbers = {"radius": radius, "largest_singular_value": largest}
    text = f"The largest spectral radius of a recurrent matrix is {radius:.3g}"
    if jacobians.bound is None or len(jacobians.bound) < 2:
        return Sentence(f"{text}; its weights alone give this cell no bound.", numbers)
    factor = float(jacobians.bound[1])
    numbers["bound_per_step"] = factor
    if factor < 1:
        text += f"; as γ‖U‖ is {factor:.3g}, every step back shrinks the gradient to that or less"
        return Sentence(f"{text}.", numbers)
    may = (
        "no step back makes the gradient grow" if factor < 1 + 1e-4 else "it may grow, but need not"
    )
    return Sentence(f"{text}; as γ‖U‖ is {factor:.3g}, {may}.", numbers)


def of_the_optimizer(found: Statistics | None) -> list[Sentence]:
    """How often gradients were clipped or skipped."""
    sentences = []
    if found is not None and found.steps is not None and np.sum(found.steps) > 0:
        told = (found.clip_rate, found.norm_before, found.norm_after)
        rate, before, after = (float(np.mean(np.asarray(value))) for value in told)
        text = f"The optimizer clipped {percent(rate)} of {int(np.sum(found.steps))} steps; the"
        text += f" last gradient had norm {before:.3g} before and {after:.3g} after."
        advice = "a higher clip_norm, or a lower learning rate" if rate > MOSTLY else None
        sentences.append(Sentence(text, {"clip_rate": rate, "norm_before": before}, advice))
    if found is not None and found.skipped is not None and np.sum(found.skipped) > 0:
        skipped = int(np.sum(found.skipped))
        text = f"Steps that the optimizer skipped, as the gradient was not finite: {skipped}."
        sentences.append(Sentence(text, {"skipped": skipped}, "a lower learning rate"))
    return sentences


def decay(norms: np.ndarray) -> tuple[float, int]:
    """The slope of log norm over the lag, in nats per step, and over how many lags it was taken.

    norms: [times, lags]. Least squares with one slope and, for each time, a height of its own, since
    the loss enters more at some steps than at others. From lag 1 on, without zeros and without what has
    fallen below 10⁻⁶ of the largest at that time. With fewer than two lags the slope is 0.
    """
    across, products, span = 0.0, 0.0, 0
    for row in np.asarray(norms, np.float64):
        lags = np.flatnonzero(row > 1e-6 * row[1:].max(initial=0))
        lags = lags[lags > 0]
        if lags.size > 1:
            heights, offsets = np.log(row[lags]), lags - lags.mean()
            across += float(np.sum(offsets**2))
            products += float(np.sum(offsets * (heights - heights.mean())))
            span = max(span, int(lags[-1] - lags[0]))
    return (products / across if across else 0.0), span


def _of_one_lag(last: int) -> str:
    """Of a gradient that has no two lags to be compared. last: the last step of the loss."""
    if last == 0:
        return "The loss enters at the first step alone, and before that there is a single state."
    return (
        "Of each step of the loss the gradient reaches a single state; at all others it is below a "
        "millionth of that."
    )


def _against_vanishing(cell: Cell, params: Params, gates: Saturation, steps: int) -> str:
    """By what there is: gates that can keep longer, or none."""
    if gates.memories:
        return "gates that start by keeping longer, see below"
    rules = [getattr(leaf.cell, "recurrent_init", "orthogonal") for leaf in leaves(cell, params)]
    already = all(isinstance(as_rule(rule), Orthogonal) for rule in rules)
    orthogonal = "" if already else " or are orthogonal"
    return (
        f"a gated cell, such as sj.LSTM with forget_bias=sj.initializers.Chrono({steps}), or recurrent "
        f"weights that start at the identity (sj.IRNN){orthogonal}"
    )


def _against_growth() -> str:
    """Clipping keeps the step small; smaller weights keep the gradient small."""
    return (
        "clipping, sj.optim.clipped_adamw(clip_norm=1.0), and recurrent weights that start smaller, "
        "recurrent_init=sj.initializers.SpectralRadius(0.9)"
    )


def _steps(number: float) -> str:
    """As "every" takes it: "7.3 steps", "40 steps", "step"."""
    shown = f"{number:.2g}" if number < 10 else f"{number:.0f}"
    return "step" if shown == "1" else f"{shown} steps"


def percent(share: float) -> str:
    """Two digits, and no false zero."""
    if share != 0 and abs(share) < 0.0001:
        return "less than 0.01 %"
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"


def _inexact(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
