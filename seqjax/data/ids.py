"""Token ids: one row of int32, refused at the boundary where they are anything else."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

LARGEST = np.iinfo(np.int32).max


def one_row(name: str, ids: npt.ArrayLike) -> Int32[np.ndarray, " tokens"]:
    """`ids` as int32[tokens]; raises a ValueError for another rank, for fractions, for negative ids."""
    row = np.asarray(ids)
    if row.ndim != 1:
        raise ValueError(f"{name} has shape {row.shape}; expected one row of token ids, [tokens]")
    if row.size == 0:
        return np.zeros(0, np.int32)  # an empty list has no integers to show its dtype by
    if not np.issubdtype(row.dtype, np.integer):
        raise ValueError(f"{name} is {row.dtype}; expected token ids, which are integers")
    smallest, largest = int(row.min()), int(row.max())
    if smallest < 0 or largest > LARGEST:
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"{name} holds {wrong}; expected token ids in [0, {LARGEST}]")
    return row.astype(np.int32, copy=False)
