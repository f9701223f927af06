"""A contestant on JAX in a process of its own, which divides the batch among all cores."""

import importlib
import sys
from typing import Any

import jax

from benchmarks.peers import PEERS
from benchmarks.peers.problem import Prepared, Problem
from benchmarks.peers.worker import Server, serve

OURS = "ours"

NAMES = (OURS, "linen", "haiku", "equinox")
"""Those that there are with all cores."""


class Divided(Server):
    """Its module is that of a peer on JAX, or ours."""

    def __init__(self, name: str) -> None:
        """Nothing is prepared yet."""
        file = "benchmarks.peers.ours" if name == OURS else PEERS[name].module
        self.module = importlib.import_module(file)
        self.prepared = None

    def start(self, device: str, threads: int) -> dict[str, Any]:
        """A device of every core."""
        jax.config.update("jax_num_cpu_devices", threads)
        return {"threads": jax.device_count("cpu")}

    def begin(self, problem: Problem, kind: str) -> Prepared:
        """What its module makes of it, on the devices that there are."""
        return self.module.prepare(problem, kind)


if __name__ == "__main__":
    serve(sys.argv[1], Divided)
