"""What was measured to be fastest: the engine of gated cells, and the steps of a chunk."""

from typing import NamedTuple

import jax


class Tuned(NamedTuple):
    """For one backend.

    engine: what `engine="auto"` with `remat="auto"` gives a gated cell that says which of its values
        are worth keeping (`seqjax.gates.kept`).
    chunk: the steps whose inputs are projected, and whose gradients meet the weights, at once.
    together: they are more where all their projections are no more numbers than this.
    """

    engine: str
    chunk: int
    together: int = 0


# `python -m benchmarks tune` measures the choices side by side and writes the line of its backend.
TUNED: dict[str, Tuned] = {
    "cpu": Tuned(engine="chunked", chunk=16, together=262144),
}

UNMEASURED = Tuned(engine="scan", chunk=16)


def tuned() -> Tuned:
    """What the backend that JAX runs on has in the table."""
    return TUNED.get(jax.default_backend(), UNMEASURED)


def chunk_length(time: int, numbers: int | None = None) -> int:
    """The steps of a chunk of so long a run: about as many as in the table, and a part of the time.

    numbers: in the projection of one step, of all rows; None where a chunk is to be no longer than
        usual. A last chunk of another length would be traced and compiled by itself; where no part is
        near, it is.
    """
    usual = tuned().chunk
    if numbers is not None:
        usual = max(usual, tuned().together // max(1, numbers))
    near = [n for n in range(-(-3 * usual // 4), 3 * usual // 2 + 1) if time % n == 0]
    return min(near, key=lambda n: abs(n - usual), default=usual)
