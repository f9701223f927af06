"""Ctrl-C as a wish: the step in flight is finished and saved before a run ends."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, the first Ctrl-C sets `asked`; a second one stops at once, as usual."""

    def __init__(self) -> None:
        """Nothing asked yet."""
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "Interrupt":
        # Only the main thread may set handlers; in another one Ctrl-C is not ours to catch.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Straight to the descriptor: a handler may come in the middle of a write of the display.
        os.write(2, b"\nstopping after this step; Ctrl-C once more stops at once\n")

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
