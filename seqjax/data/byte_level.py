"""One token a byte: any text, any file, no training."""

import dataclasses
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax.data.tokenizer import Stream, Tokenizer, Utf8Stream, to_bytes


@dataclasses.dataclass(frozen=True)
class ByteTokenizer(Tokenizer):
    """Token i is the byte i of UTF-8; `decode(encode(text))` is `text`.

    Bytes that are no UTF-8, as a model may make them, decode to U+FFFD (�), the replacement
    character. What a file holds can be encoded as bytes, whatever its encoding.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.size, tokenizer.encode("né").tolist(), tokenizer.decode([110, 195])
    (256, [110, 195, 169], 'n�')
    """

    kind: ClassVar[str] = "bytes"

    @property
    def size(self) -> int:
        """256."""
        return 256

    def encode(self, text: str | bytes) -> Int32[np.ndarray, " tokens"]:
        """The ids of `text` in UTF-8, or of raw bytes, as `read_bytes` gives them."""
        raw = to_bytes("ByteTokenizer.encode", text, "utf-8") if isinstance(text, str) else text
        return np.frombuffer(raw, np.uint8).astype(np.int32)

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of `ids`, int[tokens]; a ValueError for an id outside [0, 256)."""
        return self.known(ids).astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def stream(self) -> Stream:
        """A decoder that takes one byte at a time; a character appears with its last byte."""
        return Utf8Stream(self, [bytes([byte]) for byte in range(256)])
