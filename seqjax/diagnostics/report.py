"""Diagnose a cell on a batch: numbers, what they mean in words, and a figure."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from seqjax import optim
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics import sentences as words
from seqjax.diagnostics.by_lag import (
    Flow,
    chosen,
    first_bad_gradient,
    first_bad_injection,
    injections,
)
from seqjax.diagnostics.exponents import LEADING, Lyapunov, exponents_of
from seqjax.diagnostics.gate_counts import Saturation, counted, watch
from seqjax.diagnostics.matrices import Spectrum, spectrum_of
from seqjax.diagnostics.products import PROBES, Jacobians, bound_of
from seqjax.diagnostics.sentences import Sentence
from seqjax.diagnostics.terms import blocks, terms_in_blocks
from seqjax.diagnostics.trajectory import (
    NonFinite,
    Trajectory,
    check_not_empty,
    evenly,
    first_non_finite,
    walk,
)

ROWS = 4
"""How many rows of the batch a report looks at."""

TIMES = 8
"""How many steps of the loss it follows back, at most."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What `diagnose` found. `str` says it in words, `plot` draws it.

    sentences: the findings, each with its numbers and, where a rule gives any, advice.
    non_finite: the first state that is not finite. If there is one, or ∂L/∂y is not finite, the parts
        are None.
    flow, jacobians, lyapunov, spectrum, saturation: what the functions of these names return. The flow
        has no `by_lag`, and on more than 31 steps its lags are in blocks (`flow.ends`); the Jacobians
        are given at the ends of these.
    statistics: those of the optimizer, or None.
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
        """The cell, one paragraph for each sentence, and what was followed."""
        lines = [f"{self.cell!r}, {self.steps} steps, batch {self.batch_shape}"]
        for sentence in self.sentences:
            lines.append(f"- {sentence.text}")
            if sentence.advice is not None:
                lines.append(f"  Try {sentence.advice}.")
        if self.flow is not None:
            lines.append(f"({self.flow.seen})")
        return "\n".join(lines)

    def plot(self) -> Any:
        """Draw one matplotlib `Figure`; `figure.savefig("diagnosis.png")` writes it. Needs seqjax[plot].

        Raises:
            ValueError: there is nothing to draw, since a state or ∂L/∂y is not finite.
        """
        if self.flow is None:
            raise ValueError(f"Report.plot: nothing to draw: {self.sentences[0].text}")
        from seqjax.diagnostics.picture import picture  # needs matplotlib, which is optional

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
    """Report on the gradient of `loss` through time: how far back it reaches, and why no further.

    It looks at a sample, so that it takes about as long as two to ten backward passes of a batch: up to
    4 rows of the batch and the loss of up to 8 steps (fewer if the batch is small); the Jacobian of the
    last state by probes, the 4 leading Lyapunov exponents, every gate at every step of those rows. The
    functions of `sj.diagnostics` compute as much as they are asked for.

    A state or ∂L/∂y that is not finite is reported with step, leaf, row and cause; the report then holds
    nothing else. Do not call it under `jax.jit`; the computation itself is jitted.

    Args:
        cell: a causal cell.
        params: the params of the cell.
        xs: [time, *batch, in_features].
        loss: a scalar from ys [time, *batch, out_features]; targets and head are closed over.
        state: the initial state, as in `sj.unroll`.
        key: draws the noise of the run, as in `sj.unroll`.
        opt_state: the state of an optimizer whose clipping and skips are to be reported, such as
            `sj.optim.clipped_adamw`.

    Raises:
        ValueError: the cell is not causal, the loss is not a scalar, xs has no steps or rows, or
            `sj.unroll` raises for these arguments.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.IRNN(features=4, scale=0.5, input_stddev=1.0)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> report = sj.diagnose(cell, params, jnp.ones((40, 3, 2)), lambda ys: jnp.sum(ys[-1]))
    >>> print(report.sentences[0].text)
    The gradient halves every step.
    """
    path = walk("diagnose", cell, params, xs, state, key)
    check_not_empty("diagnose", path)
    steps = path.xs.shape[0]
    about = functools.partial(Report, cell, steps, path.batch_shape)
    found = first_non_finite(path)
    if found is not None:
        return about((words.of_non_finite(found, params, path),), found)
    # What does not depend on the loss: the device computes it while the loss is differentiated.
    rows = evenly(path.xs.shape[1], ROWS)
    few = path.take_rows(rows)
    begun = _begin(cell, params, few)
    injected = injections("diagnose", path, loss)
    bad = first_bad_injection(injected)
    if bad is not None:
        return about((words.of_the_loss(bad),))

    sample = chosen(injected, sample_size(injected.shape[1], len(rows))[0], ROWS)
    if not np.array_equal(sample[1], rows):  # the loss sees others
        few = path.take_rows(sample[1])
        begun = _begin(cell, params, few)
    flow, jacobians = _look_back(cell, params, few, injected, sample, key, state is None)
    # The host computes the spectrum, while the device is busy.
    spectrum = spectrum_of("diagnose", cell, params)
    # A cell with a bound has a single matrix, U.
    norm = spectrum.matrices[0].singular_values[0] if spectrum.matrices else None
    jacobians = jacobians._replace(bound=bound_of(cell, params, jacobians.lags, norm))
    lyapunov, watched = begun
    report = about(
        flow=flow,
        jacobians=jacobians,
        lyapunov=lyapunov,
        spectrum=spectrum,
        saturation=counted(cell, params, watched),
        statistics=None if opt_state is None else optim.statistics(opt_state),
    )
    leaf = first_bad_gradient(flow)
    if leaf is not None:
        return about((words.of_the_derivative(leaf),))
    return dataclasses.replace(report, sentences=words.all_of(report, params))


def sample_size(batch: int, rows: int) -> tuple[int, int]:
    """The most steps of the loss and the most probes that are followed in some rows.

    As much as two backward passes of the batch: each step that is followed costs one of its rows.
    """
    size = 2 * batch // rows
    return min(TIMES, max(1, size)), min(PROBES, max(4, size))


def _begin(cell: Cell, params: Params, few: Trajectory) -> tuple[Lyapunov, Any]:
    """Compute the exponents and count the gates of a few rows."""
    lyapunov = exponents_of(cell, params, few, LEADING, few.xs.shape[0] // 10)
    return lyapunov, watch(cell, params, few.start, few.xs)


def _look_back(
    cell: Cell,
    params: Params,
    few: Trajectory,
    injected: Array,
    sample: tuple[np.ndarray, np.ndarray, bool],
    key: Array | None,
    initial: bool,
) -> tuple[Flow, Jacobians]:
    """Compute the flow of a sample, as `chosen`, and its Jacobians; their bound is not in it yet.

    few: the run of the rows of the sample. initial: whether s_0 was made from params.
    """
    times, rows, exact = sample
    time, batch = injected.shape[:2]
    size = few.entries
    m = min(sample_size(batch, len(rows))[1], size)
    ends = np.concatenate([block[:, -1] for block in blocks(time)]).clip(max=time)
    found, (frobenius, spectral) = terms_in_blocks(
        cell,
        params,
        few._replace(batch_shape=()),
        injected,
        np.asarray(times, np.int32),
        np.asarray(rows, np.int32),
        key,
        made_for=few.batch_shape if initial else None,
        m=m,
    )
    lags = np.arange(time + 1)
    flow = Flow(lags, by_lag=None, ends=ends, times=times, rows=rows, exact=exact, **found)
    return flow, Jacobians(ends, frobenius, spectral, None, time - 1, m == size, m)
