"""Text and bytes from files, rows of token ids, and their split by position."""

import codecs
import gzip
import importlib.resources
import os
import zlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

GZIP = b"\x1f\x8b"
LARGEST = np.iinfo(np.int32).max
FilePath: TypeAlias = str | os.PathLike[str]


def stored(path: FilePath) -> str:
    """Return the name of the file to read: `path` + ".gz" if only that exists, else `path`."""
    name = os.fspath(path)
    packed = f"{name}.gz"
    return packed if not Path(name).exists() and Path(packed).is_file() else name


def read_bytes(path: FilePath) -> bytes:
    """Read the bytes of a file, for `ByteTokenizer`, which needs no encoding.

    If only `path` + ".gz" exists, return its unpacked content. A packed file that is asked for by its
    own name is returned as it is.

    Raises FileNotFoundError or IsADirectoryError if there is no such file, and a ValueError for an empty
    file or a damaged gzip file.
    """
    name = stored(path)
    return _raw(name) if name == os.fspath(path) else unpacked(name)


def _raw(name: str) -> bytes:
    file = Path(name)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a directory; expected a file")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist (looked from {Path.cwd()})")
    if not (raw := file.read_bytes()):
        raise ValueError(f"{file} is empty; expected a file with text in it")
    return raw


def unpacked(path: FilePath) -> bytes:
    """Read a file; if its content is packed by gzip, whatever its name, unpack it.

    No UTF-8 text and no idx file begins as a gzip file does. Raises the errors of `read_bytes`.
    """
    name = stored(path)
    raw = _raw(name)
    if not raw.startswith(GZIP):
        return raw
    try:
        inside = gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{name} cannot be unpacked ({error}); expected a whole gzip file: fetch it again"
        ) from None
    if not inside:
        raise ValueError(f"{name} holds nothing once unpacked; expected a file with data")
    return inside


def unmarked(path: FilePath) -> bytes:
    """Read and unpack a file, without a byte-order mark at the start."""
    raw = unpacked(path).removeprefix(codecs.BOM_UTF8)
    if not raw:
        raise ValueError(
            f"{stored(path)}, line 1: nothing but a byte-order mark; expected a file with text in it"
        )
    return raw


def read_text(path: FilePath) -> str:
    """Read a UTF-8 file, packed by gzip or not. Line ends are kept.

    If only `path` + ".gz" exists, it is read. A byte-order mark at the start is dropped.

    Raises FileNotFoundError or IsADirectoryError if there is no such file, and a ValueError for an empty
    file, a damaged gzip file, or bytes that are not UTF-8.
    """
    raw = unmarked(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, offset = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1)
        raise ValueError(
            f"{stored(path)} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset} of line "
            f"{line}; convert the file, or use its bytes as tokens: seqjax.data.read_bytes and "
            "ByteTokenizer"
        ) from None


def shakespeare() -> str:
    """Return Tiny Shakespeare: 1,115,394 characters, 65 distinct, in the public domain.

    This is the text of char-rnn and nanoGPT. It is part of the package; nothing is downloaded. The usual
    split trains on the first 90 % (see `split`).

    >>> shakespeare()[:14]
    'First Citizen:'
    """
    asset = importlib.resources.files("seqjax.data") / "assets" / "tinyshakespeare.txt.gz"
    return gzip.decompress(asset.read_bytes()).decode("utf-8")


def one_row(name: str, ids: npt.ArrayLike, size: int | None = None) -> Int32[np.ndarray, " tokens"]:
    """Convert token ids to int32[tokens].

    Raises a ValueError for another rank, for values that are not integers, and for an id outside
    [0, 2³¹) or, if `size` is given, outside a vocabulary of that size.
    """
    row = np.asarray(ids)
    if row.ndim != 1:
        raise ValueError(f"{name} has shape {row.shape}; expected one row of token ids, [tokens]")
    if row.size == 0:
        return np.zeros(0, np.int32)  # the dtype of an empty list is float64
    if not np.issubdtype(row.dtype, np.integer):
        raise ValueError(f"{name} is {row.dtype}; expected token ids, which are integers")
    smallest, largest = int(row.min()), int(row.max())
    if smallest < 0 or largest > LARGEST:
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"{name} holds {wrong}; expected token ids in [0, {LARGEST}]")
    if size is not None and largest >= size:
        position = int((row >= size).argmax())
        raise ValueError(
            f"{name}: id {row[position]} at position {position} is outside the vocabulary; "
            f"expected ids in [0, {size})"
        )
    return row.astype(np.int32, copy=False)


def split(
    ids: npt.ArrayLike, train: float = 0.9
) -> tuple[Int32[np.ndarray, " train"], Int32[np.ndarray, " validation"]]:
    """Split N tokens into the first ⌊train · N⌋ and the rest, by position, as nanoGPT does.

    Raises a ValueError if `train` is not in (0, 1), or if a part has fewer than 2 tokens, which make no
    pair to predict.

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
            f"{ids.size - first}; expected at least 2 tokens each: give more text, or another share"
        )
    return ids[:first], ids[first:]
