"""One diagnosis of a cell on a batch: numbers, what they say, and a picture."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from jax.typing import ArrayLike
from jaxtyping import Array, Key

from seqjax import optim
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics import gate_sentences as gate_words
from seqjax.diagnostics import sentences as words
from seqjax.diagnostics.bounds import bound_of
from seqjax.diagnostics.by_lag import (
    Flow,
    first_bad_gradient,
    first_bad_injection,
    injections,
)
from seqjax.diagnostics.exponents import LEADING, Lyapunov, exponents_of
from seqjax.diagnostics.gate_counts import Saturation, told, watch
from seqjax.diagnostics.matrices import Spectrum, spectrum_of
from seqjax.diagnostics.products import Jacobians
from seqjax.diagnostics.sample import ROWS, choose, look_back
from seqjax.diagnostics.sentences import Sentence
from seqjax.diagnostics.trajectory import (
    NonFinite,
    Trajectory,
    check_some,
    evenly,
    first_non_finite,
    walk,
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What `diagnose` found. `str` says it in words, `plot` draws it.

    sentences: the findings, each with its numbers and, where a rule says so, what to try.
    non_finite: the first state that is not finite; then, and where ∂L/∂y is not, the parts are None.
    flow, jacobians, lyapunov, spectrum, saturation: what the functions of those names return; the flow
        without `by_lag`, and of more than 31 steps with lags in blocks (`flow.ends`); the Jacobians at
        the ends of these.
    statistics: those of the optimizer, None without any.
    """

    cell: Cell
    steps: int
    batch_shape: tuple[int, ...]
    sentences: tuple[Sentence, ...] = ()
    non_finite: NonFinite | None = None
    flow: Flow | None = None
    jacobians: Jacobians | None = None
    lyapunov: Lyapunov | None = None
    spectrum: Spectrum | None = None
    saturation: Saturation | None = None
    statistics: optim.Statistics | None = None

    def __str__(self) -> str:
        """The cell, one paragraph for each sentence, and what was looked at."""
        lines = [f"{self.cell!r}, {self.steps} steps, batch {self.batch_shape}"]
        for sentence in self.sentences:
            lines.append(f"- {sentence.text}")
            if sentence.advice is not None:
                lines.append(f"  Try {sentence.advice}.")
        if self.flow is not None:
            lines.append(f"({self.flow.seen})")
        return "\n".join(lines)

    def plot(self) -> Any:
        """One matplotlib `Figure`; `figure.savefig("diagnosis.png")` writes it. Needs seqjax[plot].

        Raises a ValueError where there is nothing to draw, since a state or ∂L/∂y is not finite.
        """
        if self.flow is None:
            raise ValueError(f"Report.plot: nothing to draw: {self.sentences[0].text}")
        from seqjax.diagnostics.picture import picture  # matplotlib: not for those who only read

        return picture(self)


def diagnose(
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    loss: Callable[[Array], Array],
    *,
    state: State = None,
    key: Key[Array, ""] | None = None,
    opt_state: Any = None,
) -> Report:
    """A report on the gradient of `loss` through time: how far back it reaches, and why no further.

    xs: [time, *batch, in_features]. loss: a scalar from ys [time, *batch, out_features]; targets and
    head are closed over. state, key: as in `sj.unroll`. opt_state: that of an optimizer whose clipping
    and skips are to be told, of `sj.optim.clipped_adamw` for example.

    It looks at a sample, so that all of it takes about as long as two to ten backward passes of a batch:
    up to 4 rows of it, and the loss of up to 8 steps (fewer where the batch is small); the Jacobian of
    the last state by probes, the 4 leading Lyapunov exponents, every gate at every step of those rows.
    The functions of `sj.diagnostics` take as much as they are asked to.

    A state or ∂L/∂y that is not finite is reported, with step, leaf, row and cause; the report then
    holds nothing else. Not for `jax.jit`; what it computes is jitted.

    Raises a ValueError for a cell that is not causal, a loss that is no scalar, an xs without steps or
    rows, and what `sj.unroll` refuses.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.IRNN(features=4, scale=0.5, input_stddev=1.0)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> report = sj.diagnose(cell, params, jnp.ones((40, 3, 2)), lambda ys: jnp.sum(ys[-1]))
    >>> print(report.sentences[0].text)
    The gradient falls by half every step.
    """
    path = walk("diagnose", cell, params, xs, state, key)
    check_some("diagnose", path)
    steps = path.xs.shape[0]
    about = functools.partial(Report, cell, steps, path.batch_shape)
    found = first_non_finite(path)
    if found is not None:
        return about((words.of_non_finite(found, params, path),), found)
    # What knows nothing of the loss: the device computes it while the loss is differentiated.
    rows = evenly(path.xs.shape[1], ROWS)
    few = path.take_rows(rows)
    begun = _begin(cell, params, few)
    injected = injections("diagnose", path, loss)
    bad = first_bad_injection(injected)
    if bad is not None:
        return about((words.of_the_loss(bad),))

    initial = key if state is None else None
    sample = choose(path, injected, rows, few)
    back = look_back(cell, params, sample, state is None, initial)
    if sample.path is not few:
        begun = _begin(cell, params, sample.path)
    parts = _parts(cell, params, *back, *begun)
    leaf = first_bad_gradient(parts["flow"])
    if leaf is not None:
        return about((words.of_the_derivative(leaf),))
    statistics = None if opt_state is None else optim.statistics(opt_state)
    said = _sentences(cell, params, steps, statistics, **parts)
    return about(said, statistics=statistics, **parts)


def _begin(cell: Cell, params: Params, few: Trajectory) -> tuple[Lyapunov, Any]:
    """The exponents, and what is to be told of the gates, of the run of a few rows."""
    lyapunov = exponents_of(cell, params, few, LEADING, few.xs.shape[0] // 10)
    return lyapunov, watch(cell, params, few.start, few.xs)


def _parts(
    cell: Cell, params: Params, flow: Flow, jacobians: Jacobians, lyapunov: Lyapunov, watched: Any
) -> dict[str, Any]:
    """What is found, by the names that a report has for it.

    The spectrum is the part of the host, which needs not wait for the device.
    """
    spectrum = spectrum_of("diagnose", cell, params)
    # A cell whose bound has a ‖U‖ has no other matrix.
    norm = spectrum.matrices[0].singular_values[0] if spectrum.matrices else None
    bound = bound_of(cell, params, jacobians.lags, norm)
    return {
        "flow": flow,
        "jacobians": jacobians._replace(bound=bound),
        "lyapunov": lyapunov,
        "spectrum": spectrum,
        "saturation": told(cell, params, watched),
    }


def _sentences(
    cell: Cell,
    params: Params,
    steps: int,
    statistics: optim.Statistics | None,
    *,
    flow: Flow,
    jacobians: Jacobians,
    lyapunov: Lyapunov,
    spectrum: Spectrum,
    saturation: Saturation,
) -> tuple[Sentence, ...]:
    """What the parts say, the gradient first."""
    sentences = (
        words.of_the_gradient(flow, cell, params, saturation),
        words.of_the_reach(flow),
        words.of_lyapunov(lyapunov),
        words.of_the_weights(spectrum, jacobians),
        *gate_words.of_the_memories(saturation, cell, params, steps),
        *gate_words.of_stuck_gates(saturation),
        *gate_words.of_saturated_units(saturation),
        *words.of_the_optimizer(statistics),
    )
    return tuple(sentence for sentence in sentences if sentence is not None)
