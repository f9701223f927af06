"""A peer that trains in a process of its own; see `worker`, whose questions and answers these are."""

import importlib
import sys
from typing import Any

from benchmarks.peers.language import Begun, Sizes, begin, drawn, seconds_of
from benchmarks.peers.worker import Worker, serve


def worker(name: str) -> Worker:
    """The process of one peer."""
    return Worker(name, "benchmarks.peers.language_worker")


class Server:
    """What is asked of it are its methods."""

    def __init__(self, name: str) -> None:
        """Nothing is prepared yet."""
        self.module = importlib.import_module(f"benchmarks.peers.language_{name}")
        self.device = "cpu"
        self.begun: Begun | None = None

    def start(self, device: str, threads: int) -> Any:
        """The device and the threads, of all that comes."""
        self.device = device
        return self.module.start(device, threads)

    def prepare(self, sizes: list[int], windows: int) -> dict[str, Any]:
        """Draw the same numbers as the other processes, make the first updates, and keep the step."""
        task = drawn(Sizes._make(sizes), windows)
        self.begun = begin(lambda: self.module.prepare(task, self.device))
        return {
            "first_call_seconds": self.begun.first_call_seconds,
            "losses": self.begun.losses,
        }

    def time(self, updates: int) -> float:
        """Seconds of one update, out of so many."""
        assert self.begun is not None
        return seconds_of(self.begun.step, updates)


if __name__ == "__main__":
    serve(sys.argv[1], Server)
