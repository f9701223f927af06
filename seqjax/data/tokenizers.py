"""Tokenizers map text to ids and back: the contract, and characters, bytes and words."""

import abc
import codecs
import collections
import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32, UInt32

from seqjax.data.text import FilePath, one_row

# Little-endian code points: without the byte order, Python would write a mark before the text.
ENCODING, POINT = "utf-32-le", "<u4"
UNKNOWN, NEWLINE = "<unk>", "\n"
WORD = re.compile(r"\n|\S+")


class Stream(abc.ABC):
    """Decode ids one at a time. The pieces, and then that of `end`, join to `decode` of all ids."""

    @abc.abstractmethod
    def __call__(self, token: int) -> str:
        """Return the text that `token` completes; empty while a character is incomplete."""

    def end(self) -> str:
        """Return what is left after the last token: U+FFFD for an incomplete character."""
        return ""


@dataclasses.dataclass(frozen=True)
class Tokenizer(abc.ABC):
    """Map text to ids in [0, size) and back.

    Concrete tokenizers are frozen dataclasses, so two with the same vocabulary are equal. Their fields
    are text and tuples of text, which `save` writes as JSON and `load_tokenizer` reads; `kind` names the
    class in the file.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type["Tokenizer"]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Register the class under its `kind`, for `load_tokenizer`."""
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            Tokenizer.kinds[cls.kind] = cls

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The number of tokens in the vocabulary."""

    @abc.abstractmethod
    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Return the ids of `text`."""

    @abc.abstractmethod
    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of `ids`, int[tokens]. Raises a ValueError for an id outside [0, size)."""

    @abc.abstractmethod
    def stream(self) -> Stream:
        """Return a decoder that takes one id at a time, for text as it is generated."""

    def save(self, path: FilePath) -> None:
        """Write a JSON file from which `load_tokenizer` restores an equal tokenizer."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        Path(path).write_text(json.dumps({"kind": self.kind, **fields}), encoding="utf-8")

    def known(self, ids: npt.ArrayLike) -> Int32[np.ndarray, " tokens"]:
        """Validate `ids` and return them as int32[tokens]."""
        return one_row(f"{type(self).__name__}: ids", ids, self.size)


def load_tokenizer(path: FilePath) -> Tokenizer:
    """Restore the tokenizer that `Tokenizer.save` wrote to `path`.

    Raises FileNotFoundError if there is no such file, and a ValueError if it holds no tokenizer.
    """
    frozen = lambda value: tuple(map(frozen, value)) if isinstance(value, list) else value
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        fields = {name: frozen(value) for name, value in saved.items() if name != "kind"}
        return Tokenizer.kinds[saved["kind"]](**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"load_tokenizer: {os.fspath(path)} holds no tokenizer ({error!r}); "
            f"expected a file that Tokenizer.save wrote, of kind {', '.join(Tokenizer.kinds)}"
        ) from error


def encoded(name: str, text: str, encoding: str = "utf-8") -> bytes:
    """Encode `text`. Raises a ValueError for a lone surrogate, which is not a character."""
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: text holds a lone surrogate, U+{ord(text[error.start]):04X}, at position "
            f"{error.start}; expected Unicode characters: decode the bytes it came from as UTF-8"
        ) from None


class Utf8Tokenizer(Tokenizer):
    """The contract of a tokenizer whose tokens are bytes of UTF-8, any number each.

    Invalid UTF-8, as a model may generate it, decodes to U+FFFD (�), the replacement character.
    """

    @functools.cached_property
    @abc.abstractmethod
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each token."""

    @property
    def size(self) -> int:
        """The number of tokens in the vocabulary."""
        return len(self.pieces)

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of `ids`, int[tokens]. Raises a ValueError for an id outside [0, size)."""
        raw = b"".join(self.pieces[i] for i in self.known(ids).tolist())
        return raw.decode("utf-8", errors="replace")

    def stream(self) -> Stream:
        """Return a decoder that takes one id at a time; a character appears with its last byte."""
        return Utf8Stream(self)


class Utf8Stream(Stream):
    """Decode tokens of UTF-8 bytes; a character appears with its last byte."""

    def __init__(self, tokenizer: Utf8Tokenizer) -> None:
        """Start before the first token."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, token: int) -> str:
        """Return the characters that end in `token`."""
        (token,) = self._tokenizer.known([token])
        return self._decoder.decode(self._tokenizer.pieces[token])

    def end(self) -> str:
        """Return U+FFFD if the last character is incomplete."""
        return self._decoder.decode(b"", final=True)


@dataclasses.dataclass(frozen=True)
class CharTokenizer(Utf8Tokenizer):
    """Token i is characters[i], a character (code point) of the training text.

    `characters` are distinct and ascending. `decode(encode(text))` is `text`. A character that was not
    in the training text raises a ValueError; `ByteTokenizer` takes any text.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.size, tokenizer.encode("hole").tolist(), tokenizer.decode([1, 0])
    (4, [1, 3, 2, 0], 'he')
    """

    characters: str
    kind: ClassVar[str] = "char"

    def __post_init__(self) -> None:
        """Validate the characters."""
        if not self.characters:
            raise ValueError("CharTokenizer: characters is empty; expected at least one character")
        if np.any(self._points[1:] <= self._points[:-1]):
            raise ValueError(
                "CharTokenizer: characters must be distinct and ascend; "
                "CharTokenizer.train(text) makes them so"
            )

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """Make a token for each distinct character of `text`, which must not be empty."""
        encoded("CharTokenizer.train", text)
        return cls("".join(sorted(set(text))))

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Return one id per character. Raises a ValueError for a character not seen in training."""
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

    @functools.cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each character."""
        return [character.encode() for character in self.characters]

    @functools.cached_property
    def _points(self) -> UInt32[np.ndarray, " size"]:
        return _code_points("CharTokenizer", self.characters)


def _code_points(name: str, text: str) -> UInt32[np.ndarray, " characters"]:
    return np.frombuffer(encoded(name, text, ENCODING), POINT)


@dataclasses.dataclass(frozen=True)
class ByteTokenizer(Utf8Tokenizer):
    """Token i is the byte i of UTF-8; `decode(encode(text))` is `text`.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.size, tokenizer.encode("né").tolist(), tokenizer.decode([110, 195])
    (256, [110, 195, 169], 'n�')
    """

    kind: ClassVar[str] = "bytes"

    @functools.cached_property
    def pieces(self) -> Sequence[bytes]:
        """The 256 bytes."""
        return [bytes([byte]) for byte in range(256)]

    def encode(self, text: str | bytes) -> Int32[np.ndarray, " tokens"]:
        """Return the ids of `text` in UTF-8, or of raw bytes, as `read_bytes` returns them."""
        raw = encoded("ByteTokenizer.encode", text) if isinstance(text, str) else text
        return np.frombuffer(raw, np.uint8).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class WordTokenizer(Tokenizer):
    r"""Token i is words[i]: a word between white space, or a newline.

    words[0] is "<unk>", for every word that is not in the vocabulary; the others are sorted by their
    frequency in training. Newlines are kept; other white space is not: `decode` puts one space between
    two words of a line. So `decode(encode(text))` is `text` if all words are known and separated by
    single spaces. WikiText-2 has 2,088,628 tokens in training and 33,278 words this way.

    >>> tokenizer = WordTokenizer.train("to be or not to be\n", size=4)
    >>> tokenizer.words
    ('<unk>', 'be', 'to', '\n')
    >>> tokenizer.encode("to see\n").tolist(), tokenizer.decode([2, 0, 3])
    ([2, 0, 3], 'to <unk>\n')
    """

    words: tuple[str, ...]
    kind: ClassVar[str] = "word"

    def __post_init__(self) -> None:
        """Validate the words."""
        if self.words[:1] != (UNKNOWN,) or len(set(self.words)) != len(self.words):
            raise ValueError(
                f"WordTokenizer: words: expected {UNKNOWN!r} and then distinct words; "
                "WordTokenizer.train(text, size) makes them so"
            )

    @classmethod
    def train(cls, text: str, size: int) -> "WordTokenizer":
        """Take the most frequent words of `text`, at most `size` tokens with "<unk>" and the newline.

        Words of equal frequency are sorted by their characters. Raises a ValueError for an empty text
        and for a size below 2.
        """
        if not text:
            raise ValueError("WordTokenizer.train: text is empty; expected text to train on")
        if size < 2:
            raise ValueError(
                f"WordTokenizer.train: size is {size}; expected at least 2, {UNKNOWN!r} and one word"
            )
        encoded("WordTokenizer.train", text)
        counts = collections.Counter(match.group() for match in WORD.finditer(text))
        # Some corpora, such as WikiText, hold "<unk>" as a word, which is the unknown token itself.
        del counts[UNKNOWN]
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((UNKNOWN, *ranked)[:size])

    @property
    def size(self) -> int:
        """The number of words, "<unk>" included."""
        return len(self.words)

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Return the ids of `text`; 0, the id of "<unk>", for an unknown word."""
        encoded("WordTokenizer.encode", text)
        known = self._ids
        return np.fromiter((known.get(m.group(), 0) for m in WORD.finditer(text)), np.int32)

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the words of `ids`, int[tokens], separated by one space."""
        words = " ".join(self.words[i] for i in self.known(ids).tolist())
        return words.replace(f" {NEWLINE}", NEWLINE).replace(f"{NEWLINE} ", NEWLINE)

    def stream(self) -> Stream:
        """Return a decoder that takes one id at a time; a word comes with the space before it."""
        return WordStream(self)

    @functools.cached_property
    def _ids(self) -> Mapping[str, int]:
        return {word: i for i, word in enumerate(self.words)}


class WordStream(Stream):
    """Decode one word per id, with the space that separates it from the word before."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        """Start before the first word of `tokenizer`."""
        self._tokenizer, self._before = tokenizer, NEWLINE

    def __call__(self, token: int) -> str:
        """Return the word of `token`."""
        word = self._tokenizer.decode([token])
        space = "" if NEWLINE in (self._before, word) else " "
        self._before = word
        return space + word
