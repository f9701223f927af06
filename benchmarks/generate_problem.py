"""A language model to write with: its sizes, how it writes, and the weights that all are given.

NumPy alone: the process of PyTorch has no JAX in it.
"""

import math
from typing import NamedTuple

import numpy as np

from benchmarks.peers.problem import Problem, Shape, drawn

GREEDY, SAMPLED, BEAM = "greedy", "sampled", "beam"
WAYS = (GREEDY, SAMPLED, BEAM)
"""The likeliest token; one drawn at temperature 1 of the `top_k` likeliest; beam search."""


class Case(NamedTuple):
    """What is written: by which cell, of which vocabulary, how many texts side by side, how."""

    cell: str
    vocabulary: int
    batch: int
    way: str

    def __str__(self) -> str:
        """As progress has it."""
        return f"{self.cell}, vocabulary {self.vocabulary}, batch {self.batch}, {self.way}"


class Sizes(NamedTuple):
    """The same in all cases: layers and units, the latter of the embedding too; tokens; k; beams."""

    layers: int
    features: int
    tokens: int
    top_k: int
    beams: int


class Model(NamedTuple):
    """E [vocabulary, H], the layers, V [H, vocabulary] and b; and a first token for each text."""

    embedding: np.ndarray
    layers: list[Problem]
    kernel: np.ndarray
    bias: np.ndarray
    prompt: np.ndarray

    @property
    def features(self) -> int:
        """Units H."""
        return self.kernel.shape[0]


def model_of(case: Case, sizes: Sizes) -> Model:
    """E from N(0, 9), the layers as in benchmarks.layers, V from N(0, 900 / H), b from N(0, 1).

    So wide that each token moves the layers, whose texts would else be one token for ever, and that the
    likeliest token is seldom near the second: then roundings would choose.
    """
    random = np.random.default_rng(1)
    H, vocabulary = sizes.features, case.vocabulary
    normal = lambda *shape: random.standard_normal(shape, np.float32)
    shape = Shape(1, 1, H, H)
    return Model(
        embedding=3 * normal(vocabulary, H),
        layers=[drawn(case.cell, shape, seed=number) for number in range(sizes.layers)],
        kernel=normal(H, vocabulary) * np.float32(30 / math.sqrt(H)),
        bias=normal(vocabulary),
        prompt=random.integers(vocabulary, size=case.batch, dtype=np.int32),
    )
