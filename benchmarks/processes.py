"""Fresh processes, watched: what they write, and when it comes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

# A cache of compiled programs would make the second run unlike the first, and the others make rich
# draw a live line into a pipe.
UNWANTED = ("JAX_COMPILATION_CACHE_DIR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class MeasurementError(Exception):
    """A measurement that could not be made; the message says what was expected."""


class Line(NamedTuple):
    """One line, and the seconds from the start of its process until it was read."""

    seconds: float
    text: str


class Watched(NamedTuple):
    """A process that has ended well: its seconds from start to end, and its lines."""

    seconds: float
    lines: list[Line]

    @property
    def text(self) -> str:
        """All that it wrote."""
        return "".join(line.text + "\n" for line in self.lines)

    @property
    def result(self) -> Any:
        """The JSON of the last line."""
        return json.loads(self.lines[-1].text)


def watch(arguments: Sequence[str], echo: Callable[[str], None] | None = None) -> Watched:
    """Run this Python with `arguments` in a fresh process, in the checkout, and read it as it writes.

    echo: called with every line as it comes.

    Raises a MeasurementError, with the last lines that it wrote, where it ends with another status
    than 0. The process does not outlive the call.
    """
    lines = []
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        )
        assert process.stdout is not None
        try:
            for text in process.stdout:
                lines.append(Line(time.perf_counter() - start, text.rstrip("\n")))
                if echo is not None:
                    echo(lines[-1].text)
            status = process.wait()
            seconds = time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if status:
            said = [line.text for line in lines[-5:]] + last_lines(errors)
            raise MeasurementError(
                f"`python {' '.join(arguments)}` ended with status {status}, expected 0; its last "
                "lines:\n" + "\n".join(f"    {text}" for text in said)
            )
    return Watched(seconds, lines)


def environment() -> dict[str, str]:
    """That of this process, without what would change what is measured."""
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    # As a terminal shows it: every line when it is written.
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def last_lines(file: IO[bytes], count: int = 15) -> list[str]:
    """The last lines of a file that was written to."""
    file.seek(0)
    return file.read().decode("utf-8", "replace").splitlines()[-count:]
