"""One token a character, in the order of code points."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32, UInt32

from seqjax.data.tokenizer import Stream, Tokenizer, to_bytes

# Little-endian code points: a byte order mark would be taken for a character.
ENCODING, POINT = "utf-32-le", "<u4"


@dataclasses.dataclass(frozen=True)
class CharTokenizer(Tokenizer):
    """Token i is characters[i], a character (code point) of the training text.

    `characters` are distinct and ascend. `decode(encode(text))` is `text`. A character that was not
    in the training text is refused with a ValueError; `ByteTokenizer` takes any text.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.size, tokenizer.encode("hole").tolist(), tokenizer.decode([1, 0])
    (4, [1, 3, 2, 0], 'he')
    """

    characters: str
    kind: ClassVar[str] = "char"

    def __post_init__(self) -> None:
        """Refuse what is no sorted set of characters."""
        if not self.characters:
            raise ValueError("CharTokenizer: characters is empty; expected at least one character")
        if np.any(self._points[1:] <= self._points[:-1]):
            raise ValueError(
                "CharTokenizer: characters must be distinct and ascend; "
                "CharTokenizer.train(text) makes them so"
            )

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """A token for each distinct character of `text`; a ValueError where it is empty."""
        return cls(_text(np.unique(_code_points("CharTokenizer.train", text))))

    @property
    def size(self) -> int:
        """The number of distinct characters."""
        return len(self.characters)

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """The ids of `text`, one a character; a ValueError for a character never seen in training."""
        points = _code_points("CharTokenizer.encode", text)
        ids = np.minimum(np.searchsorted(self._points, points), self.size - 1)
        unseen = self._points[ids] != points
        if unseen.any():
            position = int(unseen.argmax())
            raise ValueError(
                f"CharTokenizer.encode: {text[position]!r} (U+{ord(text[position]):04X}) at position "
                f"{position} was not in the training text, which had {self.size} distinct "
                "characters; train the tokenizer again on text that has it, "
                "or use ByteTokenizer, which takes any text"
            )
        return ids.astype(np.int32)

    def decode(self, ids: npt.ArrayLike) -> str:
        """The characters of `ids`, int[tokens]; a ValueError for an id outside [0, size)."""
        return _text(self._points[self.known(ids)])

    def stream(self) -> Stream:
        """A decoder that takes one id at a time; every id completes its character."""
        return CharStream(self)

    @functools.cached_property
    def _points(self) -> UInt32[np.ndarray, " size"]:
        return _code_points("CharTokenizer", self.characters)


class CharStream(Stream):
    """One character for each id."""

    def __init__(self, tokenizer: CharTokenizer) -> None:
        """The characters of `tokenizer`."""
        self._tokenizer = tokenizer

    def __call__(self, token: int) -> str:
        """The character of `token`."""
        return self._tokenizer.decode([token])


def _code_points(name: str, text: str) -> UInt32[np.ndarray, " characters"]:
    return np.frombuffer(to_bytes(name, text, ENCODING), POINT)


def _text(points: UInt32[np.ndarray, " characters"]) -> str:
    return points.tobytes().decode(ENCODING)
