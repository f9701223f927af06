"""What the numbers of a diagnosis say in plain words, and what to try: one rule in each function."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.cell import Cell, Params
from seqjax.diagnostics.by_lag import Flow
from seqjax.diagnostics.exponents import Lyapunov
from seqjax.diagnostics.gate_counts import Saturation, Values
from seqjax.diagnostics.layers import leaves
from seqjax.diagnostics.matrices import Spectrum
from seqjax.diagnostics.products import Jacobians
from seqjax.diagnostics.trajectory import NonFinite, Trajectory
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

CALLED = {"f": "forget", "i": "input", "o": "output", "z": "update", "r": "reset"}

KEEPS_LONGER = {
    "LSTM": "forget_bias=sj.initializers.Chrono({steps})",
    "PeepholeLSTM": "forget_bias=sj.initializers.Chrono({steps})",
    "CIFG": "forget_bias=sj.initializers.Chrono({steps})",
    "DiagonalLSTM": "forget_bias=sj.initializers.Chrono({steps})",
    "MinLSTM": "forget_bias=sj.initializers.Chrono({steps})",
    "SLSTM": "a higher forget_bias",
    "GRU": "update_bias=sj.initializers.Chrono({steps})",
    "ChoGRU": "update_bias=sj.initializers.Chrono({steps})",
    "DiagonalGRU": "update_bias=sj.initializers.Chrono({steps})",
    "MGU": "forget_bias=sj.initializers.Chrono({steps}, negated=True)",
    "MinGRU": "update_bias=sj.initializers.Chrono({steps}, negated=True)",
    "RGLRU": "a decay_min nearer to 1",
    "LRU": "an r_min nearer to 1",
    "Elman": "a smaller leak",
}
"""The argument with which each cell starts by keeping its memory longer."""


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
    broken = [
        f"params{jax.tree_util.keystr(place)}"
        for place, leaf in jax.tree_util.tree_leaves_with_path(params)
        if not bool(jnp.all(jnp.isfinite(leaf)))
    ]
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
    norms = flow.mean_norms()
    if not np.any(norms > 0):
        text = (
            "No gradient reaches any earlier state: what a step emits depends on its input alone."
        )
        return Sentence(text, {"steps": steps})
    if not np.all(np.isfinite(norms)):
        lag = int(np.flatnonzero(~np.isfinite(norms))[0])
        text = f"The gradient overflows: {lag} steps back it is beyond {flow.lag_norms.dtype}."
        return Sentence(text, {"steps": steps, "overflow_lag": lag}, _against_growth())
    slope, used = decay(np.asarray(flow.lag_norms))
    change = math.exp(min(abs(slope) * used, 700.0))
    numbers = {"steps": steps, "nats_per_step": slope, "lags_fitted": used, "change": change}
    if change < 2:
        return Sentence(
            f"The gradient keeps its size within a factor of 2 over {used} steps.", numbers
        )
    n = math.log(2) / abs(slope)
    if slope < 0:
        advice = _against_vanishing(cell, params, gates, steps) if n < SHORT * steps else None
        text = f"The gradient falls by half every {_steps(n)}."
        return Sentence(text, {**numbers, "half_life": n}, advice)
    advice = _against_growth() if change > GROWN else None
    text = f"The gradient doubles every {_steps(n)}."
    return Sentence(text, {**numbers, "doubling": n}, advice)


def of_the_reach(flow: Flow) -> Sentence | None:
    """From how far back the gradient comes, which is how long a window has to be."""
    if not np.all(np.isfinite(np.asarray(flow.total_rest))):
        return None
    steps, lag = int(flow.lags[-1]), flow.reach(LEFT)
    kernels = {
        jax.tree_util.keystr(place): float(rest[lag])
        for place, rest in jax.tree_util.tree_leaves_with_path(flow.rest)
        if "recurrent" in jax.tree_util.keystr(place)
    }
    left = float(flow.total_rest[lag])
    numbers = {"lag": lag, "left": left, **kernels}
    of = "the gradient"
    if len(kernels) == 1:
        ((name, left),) = kernels.items()
        of = f"∂L/∂params{name}"
    if lag < NEARLY_ALL * steps:
        text = f"Steps more than {lag} back contribute {_percent(left)} of {of}."
        advice = f"sj.tbptt(k1, k2={max(lag, 1)}), which reaches so far back"
        return Sentence(text, numbers, advice)
    slope, used = decay(np.asarray(flow.lag_norms))
    grows = slope * used > math.log(GROWN)
    text = f"The gradient comes from all {steps} steps."
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


def of_the_gates(found: Saturation, cell: Cell, params: Params, steps: int) -> list[Sentence]:
    """How long each layer's gates keep, and which gates are stuck."""
    names = {leaf.name: type(leaf.cell).__name__ for leaf in leaves(cell, params)}
    sentences = []
    for memory in found.memories:
        of_layer = [v for v in found.values if _layer(v) == memory.name]
        forget = next((v for v in of_layer if v.gate and _letter(v) in ("f", "z")), None)
        kind = names.get(memory.name, "")
        where = f"In {memory.name} the" if memory.name else "The"
        text = f"{where} memory keeps {_percent(memory.keep)} at each step by its gates"
        numbers: dict[str, Any] = {"keep": memory.keep, "half_life": memory.half_life}
        if forget is not None:
            text = f"{where} {_gate(forget)} gates are open {_percent(forget.open)} of the time"
            text += f" and shut {_percent(forget.shut)}"
            numbers |= {"open": forget.open, "shut": forget.shut}
        short = memory.half_life < SHORT * steps
        if math.isinf(memory.half_life):
            text += "; by its gates alone a memory lasts."
        else:
            text += f"; by them alone half of a memory is left after {memory.half_life:.2g} steps."
        advice = KEEPS_LONGER.get(kind, "") if short else ""
        sentences.append(Sentence(text, numbers, advice.format(steps=steps) or None))
    for v in found.values:
        if v.gate and v.saturated > MOSTLY and _letter(v) not in ("f", "z"):
            text = f"The {_gate(v)} gates{_in_layer(v)} are open {_percent(v.open)} of the time"
            text += f" and shut {_percent(v.shut)}, where they learn little."
            numbers = {"open": v.open, "shut": v.shut}
            sentences.append(Sentence(text, numbers, "smaller inputs, or sj.LayerNorm"))
    return sentences


def of_saturation(found: Saturation) -> list[Sentence]:
    """Which tanh units are saturated most of the time."""
    return [
        Sentence(
            f"The tanh units {_letter(v)}{_in_layer(v)} are beyond ±0.9 {_percent(v.saturated)} of "
            "the time, where they learn little.",
            {"saturated": v.saturated},
            "smaller inputs, smaller initial weights, or sj.LayerNorm",
        )
        for v in found.values
        if not v.gate and v.saturated > MOSTLY
    ]


def of_the_optimizer(found: Statistics | None) -> list[Sentence]:
    """How often gradients were clipped or skipped."""
    sentences = []
    if found is not None and found.steps is not None and np.sum(found.steps) > 0:
        told = (found.clip_rate, found.norm_before, found.norm_after)
        rate, before, after = (float(np.mean(np.asarray(value))) for value in told)
        text = f"The optimizer clipped {_percent(rate)} of {int(np.sum(found.steps))} steps; the"
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


def _percent(share: float) -> str:
    """Two digits, and no false zero."""
    if share != 0 and abs(share) < 0.0001:
        return "less than 0.01 %"
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"


def _layer(v: Values) -> str:
    return v.name.rpartition(" ")[0]


def _letter(v: Values) -> str:
    return v.name.rpartition(" ")[2]


def _gate(v: Values) -> str:
    return CALLED.get(_letter(v), _letter(v))


def _in_layer(v: Values) -> str:
    return f" of {_layer(v)}" if _layer(v) else ""


def _inexact(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
