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
            raise self.bad(f"expected {columns} columns, parted by TAB, got {len(cells)}")
        return cells


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file, for `ByteTokenizer`, which needs no encoding.

    Raises FileNotFoundError and IsADirectoryError where there is no file to read, and a ValueError
    for an empty file.
    """
    file = Path(path)
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

    No text in UTF-8 and no idx file begins as a gzip file does. Raises what `read_bytes` raises, and a
    ValueError for a gzip file that is cut off or damaged, or holds nothing.
    """
    raw = read_bytes(path)
    if not raw.startswith(GZIP):
        return raw
    try:
        inside = gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be unpacked ({error}); expected a whole gzip file: "
            "fetch it again"
        ) from None
    if not inside:
        raise ValueError(
            f"{os.fspath(path)} holds nothing once unpacked; expected a file with data"
        )
    return inside


def read_lines(path: str | os.PathLike[str]) -> list[Line]:
    r"""The lines of a file, gzip or not, cut at "\n" alone; "\r\n" ends a line too.

    A byte-order mark at the start is dropped. Raises what `unpacked` raises.
    """
    name = os.fspath(path)
    # Other ends of lines that Unicode knows, U+2028 for instance, stand inside sentences.
    raws = unpacked(path).removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not raws[-1]:
        raws.pop()
    return [Line(name, n, raw.removesuffix(b"\r")) for n, raw in enumerate(raws, start=1)]
