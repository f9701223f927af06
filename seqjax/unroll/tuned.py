"""What was measured to be fastest: the engine of gated cells, and the steps of a chunk."""

from typing import NamedTuple

import jax


class Tuned(NamedTuple):
    """For one backend.

    engine: what `engine="auto"` with `remat="auto"` gives a gated cell that says which of its values
        are worth keeping (`seqjax.activations.kept`).
    chunk: the steps whose inputs are projected, and whose gradients meet the weights, at once.
    """

    engine: str
    chunk: int


# `python -m benchmarks tune` measures the choices side by side and writes the line of its backend.
TUNED: dict[str, Tuned] = {
    "cpu": Tuned(engine="chunked", chunk=32),
}

UNMEASURED = Tuned(engine="scan", chunk=16)


def tuned() -> Tuned:
    """What the backend that JAX runs on has in the table."""
    return TUNED.get(jax.default_backend(), UNMEASURED)


def chunk_length(time: int) -> int:
    """The steps of a chunk of so long a run: about as many as in the table, and a part of the time.

    A last chunk of another length would be traced and compiled by itself; where no part is near, it is.
    """
    usual = tuned().chunk
    near = [n for n in range(-(-3 * usual // 4), 3 * usual // 2 + 1) if time % n == 0]
    return min(near, key=lambda n: abs(n - usual), default=usual)
