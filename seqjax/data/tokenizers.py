"""Tokenizers map text to ids and back: the contract, characters, bytes, words and byte pairs."""

import abc
import codecs
import collections
import dataclasses
import functools
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax import checks
from seqjax.data.text import FilePath, one_row, restored, saved

UNKNOWN, NEWLINE = "<unk>", "\n"
WORD = re.compile(r"\n|\S+")
LEAST_FREQUENCY = 2  # a merge that training saw once saves nothing
BLOCK = 4096  # lines encoded at once: `tokenizers` makes an object for each line and each token


@dataclasses.dataclass
class Stream:
    """Decode ids one at a time. The pieces, and then that of `end`, join to `decode` of all ids.

    piece: returns the text that a token completes; empty while a character is incomplete.
    end: returns what is left after the last token: U+FFFD for an incomplete character.
    """

    piece: Callable[[int], str]
    end: Callable[[], str] = str

    def __call__(self, token: int) -> str:
        """Return the text that `token` completes."""
        return self.piece(token)


@dataclasses.dataclass(frozen=True)
class Tokenizer(abc.ABC):
    """Map text to ids in [0, size) and back.

    Concrete tokenizers are frozen dataclasses, so two with the same vocabulary are equal. Their fields
    are text and tuples of text, which `save` writes as JSON and `load_tokenizer` reads; `kind` names the
    class in the file. A lone surrogate in a text, which is not a character, raises a ValueError.
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
        saved(path, self.kind, **fields)

    def known(self, ids: npt.ArrayLike) -> Int32[np.ndarray, " tokens"]:
        """Validate `ids` and return them as int32[tokens]."""
        return one_row(f"{type(self).__name__}: ids", ids, self.size)


def load_tokenizer(path: FilePath) -> Tokenizer:
    """Restore the tokenizer that `Tokenizer.save` wrote to `path`.

    Raises FileNotFoundError if there is no such file, and a ValueError if it holds no tokenizer.
    """
    return restored("load_tokenizer", path, Tokenizer.kinds)


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
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        return Stream(
            lambda token: decoder.decode(self.pieces[self.known([token])[0]]),
            lambda: decoder.decode(b"", final=True),
        )


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
        if not self.characters or list(self.characters) != sorted(set(self.characters)):
            raise ValueError(
                f"CharTokenizer: characters: expected one or more, distinct and ascending, as "
                f"CharTokenizer.train(text) makes them, got {self.characters!r:.60}"
            )

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """Make a token for each distinct character of `text`, which must not be empty."""
        text.encode()  # raises for a lone surrogate
        return cls("".join(sorted(set(text))))

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Return one id per character. Raises a ValueError for a character not seen in training."""
        try:
            return np.fromiter(map(self._ids.__getitem__, text), np.int32, len(text))
        except KeyError as error:
            (unseen,) = error.args
            raise ValueError(
                f"CharTokenizer.encode: {unseen!r} (U+{ord(unseen):04X}) at position "
                f"{text.index(unseen)} was not in the training text, which had {self.size} distinct "
                "characters; train the tokenizer again on text that has it, "
                "or use ByteTokenizer, which takes any text"
            ) from None

    @functools.cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each character."""
        return [character.encode() for character in self.characters]

    @functools.cached_property
    def _ids(self) -> Mapping[str, int]:
        return {character: i for i, character in enumerate(self.characters)}


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
        raw = text.encode() if isinstance(text, str) else text
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
        _check_training("WordTokenizer", text, size, 2, f"{UNKNOWN!r} and one word")
        counts = collections.Counter(WORD.findall(text))
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
        text.encode()  # raises for a lone surrogate
        known = self._ids
        return np.fromiter((known.get(m.group(), 0) for m in WORD.finditer(text)), np.int32)

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the words of `ids`, int[tokens], separated by one space."""
        words = " ".join(self.words[i] for i in self.known(ids).tolist())
        return words.replace(f" {NEWLINE}", NEWLINE).replace(f"{NEWLINE} ", NEWLINE)

    def stream(self) -> Stream:
        """Return a decoder that takes one id at a time; a word comes with the space before it."""
        before = NEWLINE

        def piece(token: int) -> str:
            nonlocal before
            last, before = before, self.decode([token])
            return before if NEWLINE in (last, before) else f" {before}"

        return Stream(piece)

    @functools.cached_property
    def _ids(self) -> Mapping[str, int]:
        return {word: i for i, word in enumerate(self.words)}


def byte_symbols() -> dict[str, int]:
    """Return the visible character that stands for each byte in byte-level BPE, ascending.

    Printable bytes of Latin-1 stand for themselves; the other 68 are moved to U+0100 and above.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(256 + rank): byte for rank, byte in enumerate(others)}


@dataclasses.dataclass(frozen=True)
class BPETokenizer(Utf8Tokenizer):
    """Byte-pair encoding: tokens 0 … 255 are single bytes, each other token joins two earlier ones.

    `merges` are the pairs that are joined, in order, spelled with `byte_symbols`. Text is first cut as
    in GPT-2 (words with the space before them, numbers, punctuation) and never joined across a newline.
    `decode(encode(text))` is `text` for any text.

    Needs the `tokenizers` package: pip install 'seqjax[text]'.

    References: Sennrich, Haddow, Birch 2016; on bytes: Radford et al. 2019.

    >>> tokenizer = BPETokenizer.train("low lower lowest low", size=258)
    >>> tokenizer.merges
    (('l', 'o'), ('lo', 'w'))
    >>> tokenizer.encode("slow").tolist(), tokenizer.decode([82, 257])
    ([82, 257], 'slow')
    """

    merges: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "bpe"

    def __post_init__(self) -> None:
        """Validate that each merge joins tokens that exist by then."""
        known = set(byte_symbols())
        for rank, (left, right) in enumerate(self.merges):
            if left not in known or right not in known:
                raise ValueError(
                    f"BPETokenizer: merge {rank} joins {left!r} and {right!r}; expected two bytes or "
                    "results of earlier merges; BPETokenizer.train(text, size) makes them so"
                )
            known.add(left + right)

    @classmethod
    def train(cls, text: str, size: int) -> "BPETokenizer":
        """Learn at most `size` tokens; fewer if `text` holds no other pair twice.

        Raises a ValueError for an empty text and for a size below 256, one token per byte.
        """
        _check_training("BPETokenizer", text, size, 256, "one token a byte")
        trainer = checks.package("BPETokenizer", "tokenizers", "text").trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=LEAST_FREQUENCY,
            initial_alphabet=list(byte_symbols()),
            show_progress=False,
        )
        tokenizer = cls(())._byte_level
        tokenizer.train_from_iterator(io.StringIO(text, newline=NEWLINE), trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(tuple((left, right) for left, right in merges))

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Return the ids of `text`."""
        text.encode()  # raises for a lone surrogate
        lines = list(io.StringIO(text, newline=NEWLINE))
        ids = [np.zeros(0, np.int32)]
        for start in range(0, len(lines), BLOCK):
            block = lines[start : start + BLOCK]
            found = self._byte_level.encode_batch_fast(block, add_special_tokens=False)
            ids.extend(np.array(line.ids, np.int32) for line in found)
        return np.concatenate(ids)

    @functools.cached_property
    def _tokens(self) -> list[str]:
        """The vocabulary in the order of ids; two merges with the same result are one token."""
        joined = (left + right for left, right in self.merges)
        return list(dict.fromkeys([*sorted(byte_symbols()), *joined]))

    @functools.cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each token."""
        byte_of = byte_symbols()
        return tuple(bytes(byte_of[symbol] for symbol in token) for token in self._tokens)

    @functools.cached_property
    def _byte_level(self) -> Any:
        package = checks.package("BPETokenizer", "tokenizers", "text")
        vocabulary = {token: i for i, token in enumerate(self._tokens)}
        tokenizer = package.Tokenizer(package.models.BPE(vocabulary, list(self.merges)))
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer


def _check_training(owner: str, text: str, size: int, least: int, why: str) -> None:
    text.encode()  # raises for a lone surrogate
    if not text:
        raise ValueError(f"{owner}.train: text is empty; expected text to train on")
    if size < least:
        raise ValueError(f"{owner}.train: size is {size}; expected at least {least}, {why}")
