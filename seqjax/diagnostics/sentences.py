"""What the numbers of a diagnosis mean in words, and what to try: one rule in each function."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.cell import Cell, Params, leaves
from seqjax.diagnostics.by_lag import Flow
from seqjax.diagnostics.exponents import Lyapunov
from seqjax.diagnostics.gate_counts import Saturation, Values
from seqjax.diagnostics.matrices import Spectrum
from seqjax.diagnostics.products import Jacobians
from seqjax.diagnostics.trajectory import NonFinite, Trajectory, not_finite
from seqjax.initializers import Orthogonal, as_rule
from seqjax.optim import Statistics

SHORT = 0.1
"""A half-life below this share of the steps is short: over all steps less than 1/1000 is left."""

GROWN = 10.0
"""A gradient that grows by more than this factor over the steps explodes."""

LEFT = 0.01
"""A truncation may lose this share of the gradient."""

NEARLY_ALL = 0.9
"""A reach above this share of the steps counts as all of them."""

MOSTLY = 0.5
"""More than this share of the values is most of them."""


class Sentence(NamedTuple):
    """A finding, the numbers that it rests on, and advice where a rule gives any."""

    text: str
    numbers: dict[str, Any]
    advice: str | None = None

    def __str__(self) -> str:
        """Finding and advice."""
        return self.text if self.advice is None else f"{self.text} Try {self.advice}."


def all_of(report: Any, params: Params) -> tuple[Sentence, ...]:
    """Put the parts of a `Report` into words, the gradient first."""
    gates, cell, steps = report.saturation, report.cell, report.steps
    sentences = (
        of_the_gradient(report.flow, cell, params, gates),
        of_the_reach(report.flow),
        of_lyapunov(report.lyapunov),
        of_the_weights(report.spectrum, report.jacobians),
        *of_the_memories(gates, cell, params, steps),
        *of_saturated_gates(gates),
        *of_saturated_units(gates),
        *of_the_optimizer(report.statistics),
    )
    return tuple(sentence for sentence in sentences if sentence is not None)


def of_non_finite(found: NonFinite, params: Params, path: Trajectory) -> Sentence:
    """Say which state is the first that is not finite, and what made it so."""
    step = max(found.step, 0)
    row = int(np.ravel_multi_index(found.row, path.batch_shape)) if found.row else 0
    broken = not_finite("params", params)
    inputs = np.asarray(jnp.all(jnp.isfinite(path.xs[: step + 1, row]), axis=-1))
    floating = [s for s in jax.tree.leaves(path.before) if jnp.issubdtype(s.dtype, jnp.inexact)]
    largest = max((float(jnp.max(jnp.abs(s[step, row]), initial=0)) for s in floating), default=0.0)
    numbers = {**found._asdict(), "params": broken, "largest_before": largest}
    text = str(found)
    if broken:
        verb = "holds" if len(broken) == 1 else "hold"
        text += f": {' and '.join(broken)} {verb} numbers that are not finite."
        return Sentence(text, numbers, "an earlier checkpoint, and sj.optim.skip_non_finite")
    if not inputs.all():
        bad = int(np.flatnonzero(~inputs)[0])
        text += f": xs[{bad}] of that row is not finite."
        advice = "to find it in the data; lengths= keeps NaN in padding out"
        return Sentence(text, {**numbers, "input": bad}, advice)
    text += f"; the largest number in the state before it is {largest:.3g}."
    return Sentence(text, numbers, "smaller recurrent weights, or sj.LayerNorm")


def of_the_loss(step: int) -> Sentence:
    """Report a loss whose gradient is not finite, though all states are."""
    text = (
        f"All states are finite, but ∂L/∂y at step {step} is not: look for the error in the loss."
    )
    return Sentence(text, {"step": step}, "sj.losses, which are computed from logits")


def of_the_derivative(leaf: str) -> Sentence:
    """Report a gradient that is not finite, though all states and ∂L/∂y are."""
    text = (
        f"All states are finite, and so is ∂L/∂y, but ∂L/∂params{leaf} is not: a derivative within a "
        "step is infinite."
    )
    return Sentence(text, {"leaf": leaf}, "to look for √0 in the cell, and for ∞ in xs")


def of_the_gradient(flow: Flow, cell: Cell, params: Params, gates: Saturation) -> Sentence:
    """Say how the gradient changes with the lag, and how to preserve it or keep it small."""
    steps = int(flow.lags[-1])
    numbers: dict[str, Any] = {"steps": steps}
    norms = flow.mean_norms()
    if flow.times.size == 0:
        text = "To first order the loss does not depend on the outputs: ∂L/∂y is 0 at every step."
        return Sentence(text, numbers, "a loss that is computed from the ys that it is given")
    if not np.any(norms != 0):
        text = (
            "No gradient reaches any earlier state: to first order the output of a step depends on "
        )
        return Sentence(f"{text}its input alone.", numbers)
    if not np.all(np.isfinite(norms)):
        lag = int(np.flatnonzero(~np.isfinite(norms))[0])
        text = f"The gradient overflows: {lag} steps back it is beyond {flow.lag_norms.dtype}."
        return Sentence(text, {**numbers, "overflow_lag": lag}, AGAINST_GROWTH)
    slope, used = decay(np.asarray(flow.lag_norms))
    if used == 0:  # no two lags to compare
        if flow.times[-1] == 0:
            text = "The loss enters at the first step alone, before which there is a single state."
        else:
            text = "From each step of the loss the gradient reaches a single state; at all others it is "
            text += "below a millionth of that."
        return Sentence(text, numbers)
    change = math.exp(min(abs(slope) * used, 700.0))
    numbers |= {"nats_per_step": slope, "lags_fitted": used, "change": change}
    if change < 2:
        over = "1 step" if used == 1 else f"{used} steps"
        return Sentence(f"The gradient keeps its size within a factor of 2 over {over}.", numbers)
    n = math.log(2) / abs(slope)
    digits = f"{n:.2g}" if n < 10 else f"{n:.0f}"
    every = "step" if digits == "1" else f"{digits} steps"
    if slope < 0:
        advice = _against_vanishing(cell, params, gates, steps) if n < SHORT * steps else None
        return Sentence(f"The gradient halves every {every}.", {**numbers, "half_life": n}, advice)
    advice = AGAINST_GROWTH if change > GROWN else None
    return Sentence(f"The gradient doubles every {every}.", {**numbers, "doubling": n}, advice)


AGAINST_GROWTH = (
    "clipping, sj.optim.clipped_adamw(clip_norm=1.0), and recurrent weights that start smaller, "
    "recurrent_init=sj.initializers.SpectralRadius(0.9)"
)


def _against_vanishing(cell: Cell, params: Params, gates: Saturation, steps: int) -> str:
    """Advise gates that keep for longer, or a cell with gates."""
    if gates.memories:
        return "gates that start by keeping longer, see below"
    rules = [getattr(leaf.cell, "recurrent_init", "orthogonal") for leaf in leaves(cell, params)]
    already = all(isinstance(as_rule(rule), Orthogonal) for rule in rules)
    orthogonal = "" if already else " or are orthogonal"
    return (
        f"a gated cell, such as sj.LSTM with forget_bias=sj.initializers.Chrono({steps}), or recurrent "
        f"weights that start at the identity (sj.IRNN){orthogonal}"
    )


def decay(norms: np.ndarray) -> tuple[float, int]:
    """Fit the slope of log norm over the lag, in nats per step; also return the span of lags used.

    The fit is least squares with one slope and one offset for each time, since the loss enters more at
    some steps than at others. It leaves out lag 0 and norms below 10⁻⁶ of the largest of their time.
    With fewer than two lags the slope is 0.

    Args:
        norms: [times, lags].
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


def of_the_reach(flow: Flow) -> Sentence | None:
    """Say how far back the gradient comes from, and where it may be truncated.

    The share is that of the recurrent kernel if there is one. Lags beyond the first step hold only what
    an initial state that is made from params contributes. None if there is no gradient, it is not
    finite, or the loss enters at the first step alone.
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
        return Sentence(
            text, numbers, f"sj.tbptt(k1, k2={max(lag, 1)}), which reaches that far back"
        )
    if span < flow.lags[-1]:
        text = f"The gradient comes from all {span} steps up to the last at which the loss enters."
        return Sentence(text, numbers)
    slope, used = decay(np.asarray(flow.lag_norms))
    grows = slope * used > math.log(GROWN)
    text = f"The gradient comes from all {span} steps."
    return Sentence(text, numbers, None if grows else "longer windows, which may bring more")


def of_lyapunov(found: Lyapunov) -> Sentence:
    """Say whether nearby states converge or diverge."""
    largest = float(np.mean(np.asarray(found.exponents)[:, 0]))
    numbers = {"largest": largest, "steps": found.steps}
    exponent = f"the largest Lyapunov exponent is {largest:.3g} nats per step"
    if abs(largest) * found.steps < math.log(2):
        return Sentence(f"Nearby states keep their distance: {exponent}.", numbers)
    if largest < 0:
        return Sentence(f"Nearby states converge: {exponent}.", numbers)
    return Sentence(f"Nearby states diverge, as in chaos: {exponent}.", numbers, AGAINST_GROWTH)


def of_the_weights(found: Spectrum, jacobians: Jacobians) -> Sentence | None:
    """Say what follows from the recurrent matrices alone, by the bound if there is one."""
    if not found.matrices:
        return None
    radius = max((m.radius for m in found.matrices if m.radius is not None), default=math.nan)
    largest = max(float(m.singular_values[0]) for m in found.matrices)
    numbers = {"radius": radius, "largest_singular_value": largest}
    text = f"The largest spectral radius of a recurrent matrix is {radius:.3g}"
    if jacobians.bound is None or len(jacobians.bound) < 2:
        return Sentence(f"{text}; the weights alone give no bound for this cell.", numbers)
    factor = float(jacobians.bound[1])
    if factor < 1:
        follows = "every step back shrinks the gradient to that or less"
    elif factor < 1 + 1e-4:
        follows = "no step back makes the gradient grow"
    else:
        follows = "it may grow, but need not"
    numbers["bound_per_step"] = factor
    return Sentence(f"{text}; as γ‖U‖ is {factor:.3g}, {follows}.", numbers)


def of_the_optimizer(found: Statistics | None) -> list[Sentence]:
    """Say how often gradients were clipped or skipped."""
    sentences = []
    if found is not None and found.steps is not None and np.sum(found.steps) > 0:
        means = (found.clip_rate, found.norm_before, found.norm_after)
        rate, before, after = (float(np.mean(np.asarray(value))) for value in means)
        text = f"The optimizer clipped {percent(rate)} of {int(np.sum(found.steps))} steps; the"
        text += f" last gradient had norm {before:.3g} before and {after:.3g} after."
        advice = "a higher clip_norm, or a lower learning rate" if rate > MOSTLY else None
        sentences.append(Sentence(text, {"clip_rate": rate, "norm_before": before}, advice))
    if found is not None and found.skipped is not None and np.sum(found.skipped) > 0:
        skipped = int(np.sum(found.skipped))
        text = f"Steps that the optimizer skipped, as the gradient was not finite: {skipped}."
        sentences.append(Sentence(text, {"skipped": skipped}, "a lower learning rate"))
    return sentences


def of_the_memories(found: Saturation, cell: Cell, params: Params, steps: int) -> list[Sentence]:
    """Say how long the gates of each layer keep its memory."""
    advised = {leaf.name: leaf.cell.longer_memory for leaf in leaves(cell, params)}
    sentences = []
    for memory in found.memories:
        forget = next((v for v in found.values if _layer(v) == memory.name and _forgets(v)), None)
        where = f"In {memory.name} the" if memory.name else "The"
        text = f"{where} memory keeps {percent(memory.keep)} at each step by its gates"
        numbers: dict[str, Any] = {"keep": memory.keep, "half_life": memory.half_life}
        if forget is not None:
            text = f"{where} {_open_and_shut(forget)}"
            numbers |= {"open": forget.open, "shut": forget.shut}
        if math.isinf(memory.half_life):
            text += "; by its gates alone a memory lasts."
        else:
            text += f"; by them alone half of a memory is left after {memory.half_life:.2g} steps."
        short = steps > 1 and memory.half_life < SHORT * steps
        advice = advised[memory.name] if short else None
        sentences.append(Sentence(text, numbers, advice and advice.format(steps=steps)))
    return sentences


def of_saturated_gates(found: Saturation) -> list[Sentence]:
    """Report the other gates that are open or shut most of the time."""
    return [
        Sentence(
            f"The {_open_and_shut(v, _in_layer(v))}, where they learn little.",
            {"open": v.open, "shut": v.shut},
            "smaller inputs, or sj.LayerNorm",
        )
        for v in found.values
        if v.gate and v.saturated > MOSTLY and not _forgets(v)
    ]


def of_saturated_units(found: Saturation) -> list[Sentence]:
    """Report the tanh units that are saturated most of the time."""
    return [
        Sentence(
            f"The tanh units {_letter(v)}{_in_layer(v)} are beyond ±0.9 {percent(v.saturated)} of "
            "the time, where they learn little.",
            {"saturated": v.saturated},
            "smaller inputs, smaller initial weights, or sj.LayerNorm",
        )
        for v in found.values
        if not v.gate and v.saturated > MOSTLY
    ]


def percent(share: float) -> str:
    """A share in percent with two digits; a small one is never shown as 0."""
    if share != 0 and abs(share) < 0.0001:
        return "less than 0.01 %"
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"


GATES = {"f": "forget", "i": "input", "o": "output", "z": "update", "r": "reset"}
"""What gates are called, by their letters."""


def _layer(v: Values) -> str:
    return v.name.rpartition(" ")[0]


def _letter(v: Values) -> str:
    return v.name.rpartition(" ")[2]


def _in_layer(v: Values) -> str:
    return f" of {_layer(v)}" if _layer(v) else ""


def _forgets(v: Values) -> bool:
    return v.gate and _letter(v) in ("f", "z")


def _open_and_shut(v: Values, of_layer: str = "") -> str:
    gate = GATES.get(_letter(v), _letter(v))
    return (
        f"{gate} gates{of_layer} are open {percent(v.open)} of the time and shut {percent(v.shut)}"
    )
