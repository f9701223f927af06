"""What is asked of PyTorch in a process of its own: to write texts."""

import sys
import time
from typing import Any

from benchmarks.generate_problem import Case, Sizes
from benchmarks.generate_torch import prepare
from benchmarks.peers import torch
from benchmarks.peers.problem import Prepared
from benchmarks.peers.timing import seconds_of
from benchmarks.peers.worker import serve


class Server:
    """The methods are the questions."""

    def __init__(self, name: str) -> None:
        """Nothing is prepared yet; the name is that of the one peer that answers here."""
        self.device = "cpu"
        self.prepared: Prepared | None = None

    def start(self, device: str, threads: int) -> dict[str, Any]:
        """The device and the threads, of all that comes."""
        self.device = device
        return torch.start(device, threads)

    def prepare(self, case: list[Any], sizes: list[int]) -> dict[str, Any]:
        """Draw the same weights as the other processes, write once, and keep the call."""
        prepared = prepare(Case(*case), Sizes(*sizes), self.device)
        start = time.perf_counter()
        result = prepared.run()
        seconds = time.perf_counter() - start
        self.prepared = prepared
        return {"first_call_seconds": seconds, "ids": prepared.read(result)[0].tolist()}

    def time(self, at_least: float) -> float:
        """Seconds of one call."""
        assert self.prepared is not None
        return seconds_of(self.prepared.run, at_least)


if __name__ == "__main__":
    serve(sys.argv[1], Server)
