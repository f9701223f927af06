"""What a person sees while a model trains."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from seqjax.training.loop import Callback, Run
from seqjax.training.state import Record

MOST_NATS = 20
"""A larger number of nats belongs to a step of many numbers, not to a token."""

FORMATS: dict[str, Callable[[float], str]] = {
    "nats": lambda v: f"{v:.3f} (perplexity {math.exp(v):.2f})" if v < MOST_NATS else f"{v:.3f}",
}
"""How metrics of these names are shown; any other has three decimals."""


class Display(Callback):
    """A live line on a terminal; elsewhere a plain line now and then. Needs the `rich` package.

    The line shows step, metrics, targets a second, the share of clipped steps, skipped steps if any,
    and the time left. A target is what the loss counts: a token, or the class of a sequence.
    """

    def __init__(self, plain_every: float = 10.0) -> None:
        """plain_every: seconds between lines off a terminal."""
        self._plain_every = plain_every
        self._next, self._progress = -math.inf, None

    def on_start(self, run: Run) -> None:
        """Begin to draw."""
        try:
            from rich import console, markup, progress, table
        except ImportError:
            raise ImportError(
                f"{run.name}: display needs the rich package: pip install 'seqjax[train]'; or pass "
                "display=False"
            ) from None
        self._console = console.Console(highlight=False, soft_wrap=True)
        self._escape, self._live = markup.escape, self._console.is_terminal
        # Counter and time left keep their place on a narrow terminal; the end of the text is cut.
        fixed = lambda width: table.Column(no_wrap=True, min_width=width)
        line = table.Column(ratio=1, no_wrap=True, overflow="ellipsis")
        bar = [progress.BarColumn(bar_width=20)] * (self._console.width >= 100)
        self._progress = progress.Progress(
            progress.TextColumn("step", table_column=fixed(4)),
            progress.MofNCompleteColumn(table_column=fixed(2 * len(str(run.steps)) + 1)),
            *bar,
            progress.TimeRemainingColumn(table_column=fixed(7)),
            progress.TextColumn("{task.fields[line]}", table_column=line),
            console=self._console,
            expand=True,
            disable=not self._live,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(
            "", total=run.steps, completed=run.step, line="compiling …"
        )
        self._rate_from = run.seconds, run.tokens
        self._progress.start()

    def on_step(self, run: Run) -> None:
        """Show the newest line, if it is time for one: making it waits for the device."""
        if self._progress is None or (time.monotonic() < self._next and run.step < run.steps):
            return
        self._next = time.monotonic() + (0.25 if self._live else self._plain_every)
        if self._live:
            self._progress.update(self._task, completed=run.step, line=self._line(run))
        else:
            self.on_message(run, f"step {run.step:>6}  {self._line(run)}")

    def on_evaluation(self, run: Run, values: Record) -> None:
        """Print the values above the live line."""
        if values:
            text = "  ".join(described(values))
            self.on_message(run, f"step {run.step:>6}  {run.seconds:5.1f} s  {text}")

    def on_message(self, run: Run, text: str) -> None:
        """Print a text above the live line, as it is."""
        self._console.print(self._escape(text))

    def on_end(self, run: Run) -> None:
        """Stop drawing and leave the last line."""
        if self._progress is not None:
            self._progress.stop()

    def _line(self, run: Run) -> str:
        seconds, tokens = self._rate_from
        rate = (run.tokens - tokens) / max(run.seconds - seconds, 1e-9)
        if run.seconds - seconds > 5:
            self._rate_from = run.seconds, run.tokens
        main, numbers = described(run.metrics.means()), run.statistics()
        parts = [*main[:1], f"{rate:,.0f} targets/s"]
        if "clip_rate" in numbers:
            parts.append(f"clipped {np.mean(numbers['clip_rate']):.0%}")
        if skipped := int(np.sum(numbers.get("skipped", 0))):
            parts.append(f"skipped {skipped} non-finite")
        return "  ".join([*parts, *main[1:]])


def described(values: Record) -> list[str]:
    """Metrics in words, the loss first; without it where another metric has its value.

    A list, one entry for each setting of a sweep, is shown by its range and its divergences.

    >>> described({"accuracy": 0.75, "loss": 0.5, "nats": 0.5})
    ['nats 0.500 (perplexity 1.65)', 'accuracy 0.750']
    >>> described({"loss": [0.5, 0.25, 1.0, float("nan")]})
    ['loss 0.250 at best, 0.500 in the middle, 1 of 4 diverged']
    """
    texts = {name: in_words(name, value) for name, value in values.items()}
    number = {name: in_words("", value) for name, value in values.items()}
    first = [n for n in texts if n != "loss" and number[n] == number.get("loss")]
    first = first or ["loss"] * ("loss" in texts)
    names = [*first, *(n for n in texts if n not in (*first, "loss"))]
    return [f"{name} {texts[name]}" for name in names]


def in_words(name: str, value: Any) -> str:
    """A number, or the range of a list of them."""
    show = FORMATS.get(name, "{:.3f}".format)
    if not isinstance(value, list):
        return show(value)
    finite = [number for number in value if math.isfinite(number)]
    lost = f"{len(value) - len(finite)} of {len(value)} diverged"
    if not finite:
        return lost
    return f"{show(min(finite))} at best, {show(np.median(finite))} in the middle, {lost}"
