"""The libraries that ours is timed beside: one file for each, as its own documents use it.

Each file has `prepare(problem, kind)`, which gives a `Prepared`: a call that runs once and waits for its
result, and the way to read that result as arrays in our order. None is needed to run the others.
"""

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NOTHING: Mapping[str, str] = MappingProxyType({})


class Peer(NamedTuple):
    """A library: its file here, its package, what to install, and where it differs from ours.

    without: cells that it does not have. other: cells that are another function there, and which. lacks:
    cells that are ours with a part missing, and which part.
    """

    file: str
    package: str
    distribution: str
    without: tuple[str, ...] = ()
    other: Mapping[str, str] = NOTHING
    lacks: Mapping[str, str] = NOTHING

    @property
    def module(self) -> str:
        """What has its `prepare`."""
        return f"{__name__}.{self.file}"

    @property
    def installed(self) -> bool:
        """Whether its package is found; nothing is imported for it."""
        return importlib.util.find_spec(self.package) is not None

    def variant(self, cell: str) -> str | None:
        """How its cell differs from ours, where it does."""
        return self.other.get(cell) or self.lacks.get(cell)


PEERS = {
    "linen": Peer("flax_linen", "flax", "flax"),
    "nnx": Peer("flax_nnx", "flax", "flax", lacks={"GRU": "has no inner bias c_n"}),
    "haiku": Peer(
        "haiku",
        "haiku",
        "dm-haiku",
        other={
            "GRU": "resets before the recurrent matmul",
            "Elman": "has relu where ours has tanh",
        },
    ),
    "equinox": Peer("equinox", "equinox", "equinox", without=("Elman",)),
    "keras": Peer("keras", "keras", "keras"),
    "torch": Peer("torch", "torch", "torch"),
}
"""By the names that options, tables and results have."""

FASTEST_OF = ("linen", "nnx", "haiku", "equinox")
"""The libraries on JAX the fastest of which ours is set beside."""

PROCESS_OF_ITS_OWN = ("torch",)
"""Those whose threads must not share a process with JAX."""
