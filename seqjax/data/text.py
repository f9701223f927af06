"""Text from a file or from the package, and the split by position."""

import gzip
import importlib.resources
import os

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax.data.files import stored, unmarked
from seqjax.data.ids import one_row


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole of a UTF-8 file, packed by gzip or not, line ends as they are.

    Where `path` is not there and `path` + ".gz" is, that is read. A byte-order mark at the start is
    dropped.

    Raises FileNotFoundError and IsADirectoryError where there is no file to read, and a ValueError
    for an empty file, a damaged gzip file, or bytes that are not UTF-8.
    """
    raw = unmarked(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, offset = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1)
        raise ValueError(
            f"{stored(path)} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset} of line "
            f"{line}; convert the file, or take its bytes as tokens: seqjax.data.read_bytes and "
            "ByteTokenizer"
        ) from None


def shakespeare() -> str:
    """Tiny Shakespeare: 1,115,394 characters, 65 distinct, in the public domain.

    The text of char-rnn and nanoGPT, carried inside the package; nothing is downloaded. Its usual
    split is the first 90 % for training (see `split`).

    >>> shakespeare()[:14]
    'First Citizen:'
    """
    asset = importlib.resources.files("seqjax.data") / "assets" / "tinyshakespeare.txt.gz"
    return gzip.decompress(asset.read_bytes()).decode("utf-8")


def split(
    ids: npt.ArrayLike, train: float = 0.9
) -> tuple[Int32[np.ndarray, " train"], Int32[np.ndarray, " validation"]]:
    """The first ⌊train · N⌋ of N tokens, and the rest: by position, without a shuffle, as in nanoGPT.

    Raises a ValueError where `train` is not a share in (0, 1), or where a part would hold fewer than
    2 tokens, which is no pair to learn or to score.

    >>> [part.tolist() for part in split(range(8), train=0.75)]
    [[0, 1, 2, 3, 4, 5], [6, 7]]
    """
    ids = one_row("split: ids", ids)
    if not 0 < train < 1:
        raise ValueError(f"split: train: expected a share in (0, 1), got {train!r}")
    first = int(train * ids.size)
    if min(first, ids.size - first) < 2:
        raise ValueError(
            f"split: {ids.size} tokens with train={train} make parts of {first} and "
            f"{ids.size - first}; expected at least 2 tokens each: "
            "give more text, or another share"
        )
    return ids[:first], ids[first:]
