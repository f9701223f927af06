"""How a call is timed, the same in every process."""

import gc
import time
from collections.abc import Callable
from typing import Any


def seconds_of(call: Callable[[], Any], at_least: float) -> float:
    """Seconds of one call, out of so many as last `at_least` seconds together."""
    calls, collecting = 0, gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        while True:
            call()
            calls += 1
            elapsed = time.perf_counter() - start
            if elapsed >= at_least:
                return elapsed / calls
    finally:
        if collecting:
            gc.enable()


def rest(most: float = 1.0) -> None:
    """Wait until no thread of this process works, for at most so many seconds.

    The threads of OpenMP spin for up to 0.2 s after their work, and would take a core from whatever
    another process times next.
    """
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        wall, work = time.perf_counter(), time.process_time()
        time.sleep(0.005)
        if time.process_time() - work < 0.1 * (time.perf_counter() - wall):
            return
