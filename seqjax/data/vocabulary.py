"""Numbers for tokens and for labels that are already cut."""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax import checks
from seqjax.data.text import FilePath, one_row, restored, saved

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Token i is tokens[i]; the first four are special.

    0 "<pad>" fills a batch, as `pad` does. 1 "<unk>" stands for a token that is not in the vocabulary.
    2 "<s>" and 3 "</s>" mark the start and the end of a sequence; only `encode(start=, stop=)` writes
    them. A "<s>" in a text is an unknown token.

    A sequence is any iterable of tokens, such as a tuple of words; a `str` is a sequence of characters.
    A `Tokenizer`, in contrast, cuts a whole text into tokens by itself.

    >>> vocabulary = Vocabulary.train([("to", "be", "or"), ("not", "to", "be")], size=6)
    >>> vocabulary.tokens
    ('<pad>', '<unk>', '<s>', '</s>', 'be', 'to')
    >>> ids = vocabulary.encode(("to", "see"), start=True, stop=True)
    >>> ids.tolist(), vocabulary.decode(ids)
    ([2, 5, 1, 3], ('to', '<unk>'))
    """

    tokens: tuple[str, ...]
    PADDING: ClassVar[int] = 0
    UNKNOWN: ClassVar[int] = 1
    START: ClassVar[int] = 2
    STOP: ClassVar[int] = 3

    def __post_init__(self) -> None:
        """Validate the tokens."""
        if self.tokens[: len(SPECIAL)] != SPECIAL or not _distinct(self.tokens):
            raise ValueError(
                f"Vocabulary: tokens: expected {', '.join(SPECIAL)} and then distinct tokens; "
                "Vocabulary.train(sequences) makes them so"
            )

    @classmethod
    def train(
        cls, sequences: Iterable[Iterable[str]], *, min_count: int = 1, size: int | None = None
    ) -> "Vocabulary":
        """Take the tokens of the training part, the most frequent first, then by their characters.

        Args:
            sequences: the tokens of each sequence.
            min_count: the least number of times that a token must occur.
            size: the largest number of tokens, the four special ones included; None is no limit.

        Raises a ValueError if no token is left.
        """
        checks.positive("Vocabulary.train: min_count", min_count)
        if size is not None and size <= len(SPECIAL):
            raise ValueError(
                f"Vocabulary.train: size is {size}; expected at least {len(SPECIAL) + 1}, "
                f"{', '.join(SPECIAL)} and one token"
            )
        counts = collections.Counter(token for sequence in sequences for token in sequence)
        for special in SPECIAL:
            del counts[special]
        kept = [token for token, count in counts.items() if count >= min_count]
        if not kept:
            raise ValueError(
                f"Vocabulary.train: sequences holds {len(counts)} distinct tokens, the special ones "
                f"apart, and none of them {min_count} times; expected one: give a min_count of at most "
                f"{max(counts.values(), default=1)}, or more sequences"
            )
        kept.sort(key=lambda token: (-counts[token], token))
        return cls((*SPECIAL, *kept)[:size])

    @property
    def size(self) -> int:
        """The number of tokens, the special ones included."""
        return len(self.tokens)

    def encode(
        self, tokens: Iterable[str], *, start: bool = False, stop: bool = False
    ) -> Int32[np.ndarray, " tokens"]:
        """Return the ids of `tokens`, after START if `start`, and before STOP if `stop`."""
        ids = [self._ids.get(token, self.UNKNOWN) for token in tokens]
        return np.array([self.START] * start + ids + [self.STOP] * stop, np.int32)

    def decode(self, ids: npt.ArrayLike) -> tuple[str, ...]:
        """Return the tokens of `ids`, int[tokens], up to the first STOP, without PADDING and START."""
        row = one_row("Vocabulary.decode: ids", ids, self.size).tolist()
        row = row[: row.index(self.STOP)] if self.STOP in row else row
        return tuple(self.tokens[i] for i in row if i not in (self.PADDING, self.START))

    def save(self, path: FilePath) -> None:
        """Write a JSON file from which `Vocabulary.load` restores an equal vocabulary."""
        saved(path, "vocabulary", names=self.tokens)

    @classmethod
    def load(cls, path: FilePath) -> "Vocabulary":
        """Restore what `save` wrote. Raises a ValueError if the file holds no vocabulary."""
        return restored("Vocabulary.load", path, {"vocabulary": lambda names: cls(names)})

    @functools.cached_property
    def _ids(self) -> Mapping[str, int]:
        return {token: i for i, token in enumerate(self.tokens) if i >= len(SPECIAL)}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Label i is names[i]; none is special, and an unseen label has no number.

    >>> labels = Labels.train(["NOUN", "VERB", "NOUN", "ADJ"])
    >>> labels.names, labels.encode("NOUN"), labels.decode(2)
    (('ADJ', 'NOUN', 'VERB'), 1, 'VERB')
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Validate the names."""
        if not self.names or not _distinct(self.names):
            raise ValueError(f"Labels: names: expected distinct names, got {self.names!r}")

    @classmethod
    def train(cls, names: Iterable[str]) -> "Labels":
        """Take the distinct `names`, sorted by their characters, so that "0" is 0 and "1" is 1."""
        return cls(tuple(sorted(set(names))))

    @property
    def size(self) -> int:
        """The number of labels."""
        return len(self.names)

    def encode(self, name: str) -> int:
        """Return the number of a label. Raises a ValueError that lists the known labels."""
        if name not in self._numbers:
            known = ", ".join(map(repr, self.names[:SHOWN]))
            more = f" and {self.size - SHOWN} more" if self.size > SHOWN else ""
            raise ValueError(f"label {name!r} is not known; expected one of {known}{more}")
        return self._numbers[name]

    def decode(self, number: int | np.integer) -> str:
        """Return the label of a number. Raises a ValueError for a number outside [0, size)."""
        if not 0 <= number < self.size:
            raise ValueError(f"Labels.decode: number is {number}; expected one in [0, {self.size})")
        return self.names[int(number)]

    def save(self, path: FilePath) -> None:
        """Write a JSON file from which `Labels.load` restores equal labels."""
        saved(path, "labels", names=self.names)

    @classmethod
    def load(cls, path: FilePath) -> "Labels":
        """Restore what `save` wrote. Raises a ValueError if the file holds no labels."""
        return restored("Labels.load", path, {"labels": cls})

    @functools.cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def _distinct(names: tuple[str, ...]) -> bool:
    tuple_of_text = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    return tuple_of_text and len(set(names)) == len(names)
