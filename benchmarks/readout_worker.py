"""What is asked of PyTorch in a process of its own: the gradient of a readout's cross-entropy."""

import sys
import time
from typing import Any

import torch

from benchmarks.peers import torch as ours
from benchmarks.peers.problem import Prepared, sample
from benchmarks.peers.timing import seconds_of
from benchmarks.peers.worker import serve
from benchmarks.readout_problem import Sizes, drawn


def prepare(sizes: Sizes, device: str) -> Prepared:
    """`F.linear` and `F.cross_entropy`, and their backward pass."""
    to, problem = torch.device("cpu" if device == "cpu" else "cuda"), drawn(sizes)
    weights = [torch.from_numpy(a).to(to).requires_grad_() for a in problem[:3]]
    targets = torch.from_numpy(problem.targets).long().to(to).reshape(-1)

    def run() -> Any:
        ys, kernel, bias = weights
        logits = torch.nn.functional.linear(ys, kernel, bias).reshape(-1, sizes.classes)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        gradient = torch.autograd.grad(loss, weights)
        if device != "cpu":
            torch.cuda.synchronize()
        return gradient

    return Prepared(run, lambda gradient: [g.cpu().numpy() for g in gradient])


class Server:
    """The methods are the questions."""

    def __init__(self, name: str) -> None:
        """Nothing is prepared yet; the name is that of the one peer that answers here."""
        self.device = "cpu"
        self.prepared: Prepared | None = None

    def start(self, device: str, threads: int) -> dict[str, Any]:
        """The device and the threads, of all that comes."""
        self.device = device
        return ours.start(device, threads)

    def prepare(self, sizes: list[int]) -> dict[str, Any]:
        """Draw the same numbers as the other process, run once, and keep the call."""
        start = time.perf_counter()
        prepared = prepare(Sizes._make(sizes), self.device)
        found = sample(prepared.read(prepared.run()))
        self.prepared = prepared
        return {"first_call_seconds": time.perf_counter() - start, "sample": found}

    def time(self, at_least: float) -> float:
        """Seconds of one call."""
        assert self.prepared is not None
        return seconds_of(self.prepared.run, at_least)


if __name__ == "__main__":
    serve(sys.argv[1], Server)
