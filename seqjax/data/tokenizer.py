"""The contract of a tokenizer: text to ids and back, whole or as it comes; kept in a JSON file."""

import abc
import codecs
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax.data.ids import one_row


class Stream(abc.ABC):
    """Text from ids one at a time.

    The pieces that calls give, and then that of `end`, join to what `decode` gives for all the ids.
    """

    @abc.abstractmethod
    def __call__(self, token: int) -> str:
        """The text that `token` completes; empty while a character is still in parts."""

    def end(self) -> str:
        """What is left when no token follows: U+FFFD for a character that was never completed."""
        return ""


@dataclasses.dataclass(frozen=True)
class Tokenizer(abc.ABC):
    """Text to ids in [0, size) and back.

    Concrete tokenizers are frozen dataclasses: two that were trained to the same vocabulary are
    equal. Their fields are text and tuples of text, which `save` writes as JSON and `load_tokenizer`
    reads; `kind` names the class there.
    """

    kind: ClassVar[str]

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The number of tokens in the vocabulary."""

    @abc.abstractmethod
    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """The ids of `text`."""

    @abc.abstractmethod
    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of `ids`, int[tokens]; a ValueError for an id outside [0, size)."""

    @abc.abstractmethod
    def stream(self) -> Stream:
        """A decoder that takes one id at a time, for text as it is generated."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that `load_tokenizer` restores an equal tokenizer from."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        Path(path).write_text(json.dumps({"kind": self.kind, **fields}), encoding="utf-8")

    def known(self, ids: npt.ArrayLike) -> Int32[np.ndarray, " tokens"]:
        """`ids` as int32[tokens], all of them in the vocabulary, or a ValueError."""
        name = type(self).__name__
        row = one_row(f"{name}: ids", ids)
        outside = np.flatnonzero(row >= self.size)
        if outside.size:
            raise ValueError(
                f"{name}: id {row[outside[0]]} at position {outside[0]} is outside the vocabulary; "
                f"expected ids in [0, {self.size})"
            )
        return row


def to_bytes(name: str, text: str, encoding: str) -> bytes:
    """`text` in an encoding of Unicode; a ValueError for a lone surrogate, which is no character."""
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: text holds a lone surrogate, U+{ord(text[error.start]):04X}, at position "
            f"{error.start}; expected Unicode characters: decode the bytes it came from as UTF-8"
        ) from None


class Utf8Stream(Stream):
    """Tokens that are bytes of UTF-8, any number each; a character appears with its last byte."""

    def __init__(self, tokenizer: Tokenizer, pieces: Sequence[bytes]) -> None:
        """`pieces[i]` are the bytes of token i of `tokenizer`."""
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, token: int) -> str:
        """The characters that end in `token`."""
        (token,) = self._tokenizer.known([token])
        return self._decoder.decode(self._pieces[token])

    def end(self) -> str:
        """U+FFFD where a character was never completed."""
        return self._decoder.decode(b"", final=True)
