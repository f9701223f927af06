"""What a person sees while a model trains."""

import math
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

MOST_NATS = 20
"""More than this is not of a token, whatever the vocabulary, but of a whole step of many numbers."""


class Display:
    """A live line on a terminal; elsewhere a plain line now and then.

    The line: step, metrics (with the perplexity, where the metric is nats per token), targets a
    second, the share of clipped steps, skipped steps if any, time left.
    """

    def __init__(self, steps: int, start: int, *, enabled: bool, plain_every: float = 10.0) -> None:
        """`start` steps of `steps` are done; `plain_every` seconds between lines off a terminal."""
        self.console = Console(quiet=not enabled, highlight=False, soft_wrap=True)
        self.plain_every = plain_every
        self.live = enabled and self.console.is_terminal
        self._next = -math.inf
        columns = [
            # Counter and time left keep their place on a narrow terminal; the end of the text is cut.
            MofNCompleteColumn(
                table_column=Column(no_wrap=True, min_width=2 * len(str(steps)) + 1)
            ),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn(
                "{task.fields[line]}",
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
        ]
        if self.console.width >= 100:
            columns.insert(1, BarColumn(bar_width=20))
        self._progress = Progress(
            TextColumn("step", table_column=Column(no_wrap=True, min_width=4)),
            *columns,
            console=self.console,
            expand=True,
            disable=not self.live,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("", total=steps, completed=start, line="compiling …")

    def __enter__(self) -> "Display":
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Stop drawing and leave the last line."""
        self._progress.stop()

    def due(self) -> bool:
        """Whether it is time for a new line: to make one costs a look at the device."""
        return not self.console.quiet and time.monotonic() >= self._next

    def show(self, step: int, line: str) -> None:
        """Show the newest line."""
        self._next = time.monotonic() + (0.25 if self.live else self.plain_every)
        if self.live:
            self._progress.update(self._task, completed=step, line=line)
        else:
            self.say(f"step {step:>6}  {line}")

    def say(self, text: str | None) -> None:
        """Print a text above the live line, as it is; nothing where there is none."""
        if text:
            self.console.print(escape(text))


def describe(metrics: dict[str, float]) -> str:
    """Metrics in words; nats that may be of one token come with their perplexity.

    >>> describe({"accuracy": 0.75, "loss": 0.5, "nats": 0.5})
    'nats 0.500 (perplexity 1.65)  accuracy 0.750'
    """
    parts = []
    for name, value in sorted(metrics.items(), key=lambda item: item[0] not in ("nats", "loss")):
        if name == "loss" and "nats" in metrics:
            continue  # the same number, but for what a regulariser adds
        of_tokens = name == "nats" and value < MOST_NATS
        perplexity = f" (perplexity {math.exp(value):.2f})" if of_tokens else ""
        parts.append(f"{name} {value:.3f}{perplexity}")
    return "  ".join(parts)
