"""The bytes of a file, unpacked where they are packed by gzip; and its lines, numbered from 1."""

import codecs
import gzip
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from seqjax.data.bad_lines import BadLine

GZIP = b"\x1f\x8b"


class Line(NamedTuple):
    """One line of a file, without its end."""

    path: str
    number: int
    raw: bytes

    @property
    def text(self) -> str:
        """The line as text; a `BadLine` where it is not UTF-8."""
        try:
            return self.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = self.raw[error.start]
            raise self.bad(
                f"byte 0x{byte:02x} at offset {error.start} of the line is not UTF-8; "
                "expected a file in UTF-8: convert it"
            ) from None

    def bad(self, reason: str) -> BadLine:
        """What to raise where the line cannot be read."""
        return BadLine(f"{self.path}, line {self.number}: {reason}")

    def cells(self, columns: int) -> list[str]:
        """What stands between the TABs; a `BadLine` where that is not `columns` cells."""
        cells = self.text.split("\t")
        if len(cells) != columns:
            expected = f"expected {columns} columns, parted by TAB"
            if not self.text.strip(" "):
                raise self.bad(f"the line is empty; {expected}")
            raise self.bad(f"{expected}, got {len(cells)}")
        return cells


def stored(path: str | os.PathLike[str]) -> str:
    """The file that is read for `path`: `path` + ".gz" where only that is there, else `path`.

    No other name is tried: what ends in .bak or .old beside it is not what was asked for.
    """
    name = os.fspath(path)
    packed = f"{name}.gz"
    return packed if not Path(name).exists() and Path(packed).is_file() else name


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file, for `ByteTokenizer`, which needs no encoding.

    Where `path` is not there and `path` + ".gz" is, the bytes inside that; a packed file that is asked
    for by its own name is read as it stands.

    Raises FileNotFoundError and IsADirectoryError where there is no file to read, and a ValueError
    for an empty file, and for one that is unpacked and damaged.
    """
    name = stored(path)
    return _raw(name) if name == os.fspath(path) else unpacked(name)


def _raw(name: str) -> bytes:
    file = Path(name)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a directory; expected a file")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist (looked from {Path.cwd()})")
    raw = file.read_bytes()
    if not raw:
        raise ValueError(f"{file} is empty; expected a file with text in it")
    return raw


def unpacked(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; those inside it where it is packed by gzip, whatever its name.

    Where `path` is not there and `path` + ".gz" is, that is read. No text in UTF-8 and no idx file
    begins as a gzip file does. Raises what `read_bytes` raises, and a ValueError for a gzip file that is
    cut off or damaged, or holds nothing.
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


def unmarked(path: str | os.PathLike[str]) -> bytes:
    """What `unpacked` gives, without a byte-order mark at the start.

    Raises what `unpacked` raises, and a ValueError where there is nothing but the mark.
    """
    raw = unpacked(path).removeprefix(codecs.BOM_UTF8)
    if not raw:
        raise ValueError(
            f"{stored(path)}, line 1: nothing but a byte-order mark; expected a file with text in it"
        )
    return raw


def read_lines(path: str | os.PathLike[str]) -> list[Line]:
    r"""The lines of a file, gzip or not, cut at "\n" alone; "\r\n" ends a line too. At least one.

    Where `path` is not there and `path` + ".gz" is, that is read. A byte-order mark at the start is
    dropped. Raises what `unmarked` raises.
    """
    name = stored(path)
    # Other ends of lines that Unicode knows, U+2028 for instance, stand inside sentences.
    raws = unmarked(path).split(b"\n")
    if not raws[-1]:
        raws.pop()
    return [Line(name, n, raw.removesuffix(b"\r")) for n, raw in enumerate(raws, start=1)]
