"""Files as text, bytes, JSON and numbered lines; rows of token ids and their split by position."""

import codecs
import gzip
import importlib.resources
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

GZIP, NEWLINE = b"\x1f\x8b", b"\n"
LIMIT = 2**31
FilePath: TypeAlias = str | os.PathLike[str]


Found = TypeVar("Found")


class Line(NamedTuple):
    """One line of a file, without its end; numbers count from 1."""

    path: str
    number: int
    raw: bytes

    def parse(self, read: Callable[[str], Found]) -> Found:
        """Return `read` of the text. A ValueError, also for bytes that are not UTF-8, names the line."""
        try:
            return read(self.raw.decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.path}, line {self.number}: {error}") from None


def stored(path: FilePath) -> str:
    """Return the name of the file to read: `path` + ".gz" if only that exists, else `path`."""
    name = os.fspath(path)
    packed = f"{name}.gz"
    return packed if not Path(name).exists() and Path(packed).is_file() else name


def read_bytes(path: FilePath) -> bytes:
    """Read the bytes of a file, for `ByteTokenizer`, which needs no encoding.

    If only `path` + ".gz" exists, return its unpacked content. A packed file that is asked for by its
    own name is returned as it is. Raises the errors of `read_text`, but for the encoding.
    """
    return unpacked(path, unpack=stored(path) != os.fspath(path))


def unpacked(path: FilePath, *, unpack: bool = True) -> bytes:
    """Read a file, and unpack what gzip packed, whatever its name.

    No UTF-8 text and no idx file begins as a gzip file does.
    """
    file = Path(stored(path))
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist (looked from {Path.cwd()})")
    raw = file.read_bytes()
    try:
        raw = gzip.decompress(raw) if unpack and raw.startswith(GZIP) else raw
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{file} cannot be unpacked ({error}); expected a whole gzip file: fetch it again"
        ) from None
    if not raw:
        raise ValueError(f"{file} is empty; expected a file with data")
    return raw


def _unmarked(path: FilePath) -> bytes:
    """Read and unpack a file, without a byte-order mark at the start."""
    raw = unpacked(path).removeprefix(codecs.BOM_UTF8)
    if not raw:
        raise ValueError(f"{stored(path)} holds nothing but a byte-order mark; expected text")
    return raw


def read_lines(path: FilePath) -> list[Line]:
    r"""Read the lines of a file, at least one, cut at "\n" or "\r\n" alone."""
    # Other line ends of Unicode, such as U+2028, occur inside sentences.
    name, raws = stored(path), _unmarked(path).split(NEWLINE)
    if not raws[-1]:
        raws.pop()
    return [Line(name, n, raw.removesuffix(b"\r")) for n, raw in enumerate(raws, start=1)]


def read_text(path: FilePath) -> str:
    """Read a UTF-8 file, packed by gzip or not; if only `path` + ".gz" exists, it is read.

    Line ends are kept. A byte-order mark at the start is dropped.

    Raises FileNotFoundError or IsADirectoryError if there is no such file, and a ValueError for an empty
    file, a damaged gzip file, or bytes that are not UTF-8.
    """
    raw = _unmarked(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        number = raw.count(NEWLINE, 0, error.start) + 1
        raise ValueError(
            f"{stored(path)}, line {number}: {error}; convert the file, or use its bytes as tokens: "
            "seqjax.data.read_bytes and ByteTokenizer"
        ) from None


def shakespeare() -> str:
    """Return Tiny Shakespeare: 1,115,394 characters, 65 distinct, in the public domain.

    This is the text of char-rnn and nanoGPT, and part of the package. The usual split trains on the
    first 90 % (see `split`).

    >>> shakespeare()[:14]
    'First Citizen:'
    """
    asset = importlib.resources.files("seqjax.data") / "assets" / "tinyshakespeare.txt.gz"
    return gzip.decompress(asset.read_bytes()).decode("utf-8")


def saved(path: FilePath, kind: str, **fields: Any) -> None:
    """Write the JSON object {"kind": kind, **fields}."""
    Path(path).write_text(json.dumps({"kind": kind, **fields}), encoding="utf-8")


def restored(name: str, path: FilePath, kinds: Mapping[str, Callable[..., Any]]) -> Any:
    """Return `kinds[kind](**fields)` of what `saved` wrote; lists become tuples.

    Raises a ValueError by function `name` for another file, and FileNotFoundError if there is none.
    """
    frozen = lambda value: tuple(map(frozen, value)) if isinstance(value, list) else value
    try:
        fields = json.loads(Path(path).read_bytes())
        make = kinds[fields.pop("kind")]
        return make(**{field: frozen(value) for field, value in fields.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{name}: {os.fspath(path)} ({error!r}): expected a file that `save` wrote, of kind "
            f"{', '.join(kinds)}"
        ) from error


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
    limit = LIMIT if size is None else size
    wrong = np.flatnonzero((row < 0) | (row >= limit))
    if wrong.size:
        raise ValueError(
            f"{name}: id {row[wrong[0]]} at position {wrong[0]} is outside the vocabulary; "
            f"expected ids in [0, {limit})"
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
