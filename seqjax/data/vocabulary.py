"""Tokens and labels as numbers, and back."""

import collections
import dataclasses
import functools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax import checks
from seqjax.data.ids import one_row

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Token i is tokens[i]; the first four are special.

    0 "<pad>" fills a batch, as `pad` does; 1 "<unk>" stands for a token that is not in the vocabulary;
    2 "<s>" and 3 "</s>" stand before and after a sequence, where `encode` is asked to put them. What
    reads "<s>" in a text is an unknown token: a text cannot write a special one.

    A sequence is any iterable of tokens, such as a tuple of words; a `str` is one of characters. It
    differs from a `Tokenizer`, which cuts a whole text into tokens by itself.

    Raises a ValueError for tokens that do not begin with the special ones, or are not distinct.

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
        """Refuse what is no vocabulary."""
        if self.tokens[: len(SPECIAL)] != SPECIAL or not _distinct(self.tokens):
            raise ValueError(
                f"Vocabulary: tokens: expected {', '.join(SPECIAL)} and then distinct tokens; "
                "Vocabulary.train(sequences) makes them so"
            )

    @classmethod
    def train(
        cls, sequences: Iterable[Iterable[str]], *, min_count: int = 1, size: int | None = None
    ) -> "Vocabulary":
        """The tokens seen at least `min_count` times, the most frequent first, ties by characters.

        size: the most that the vocabulary may hold, the four special tokens included; None is any
        number. Train on the training part alone. Raises a ValueError where no token is left.
        """
        checks.positive("Vocabulary.train: min_count", min_count)
        if size is not None:
            checks.positive("Vocabulary.train: size", size)
            if size <= len(SPECIAL):
                raise ValueError(
                    f"Vocabulary.train: size is {size}; expected at least {len(SPECIAL) + 1}, "
                    f"{', '.join(SPECIAL)} and one token"
                )
        counts = collections.Counter(token for sequence in sequences for token in sequence)
        for special in SPECIAL:
            del counts[special]
        if not counts:
            raise ValueError(
                "Vocabulary.train: sequences holds no token, the special ones apart; expected "
                "sequences with tokens in them"
            )
        kept = [token for token, count in counts.items() if count >= min_count]
        if not kept:
            raise ValueError(
                f"Vocabulary.train: sequences holds {len(counts)} distinct tokens, none of them seen "
                f"{min_count} times; give a min_count of at most {max(counts.values())}, or more "
                "sequences"
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
        """The ids of `tokens`; START before them where `start`, and STOP after them where `stop`."""
        ids = [self._ids.get(token, self.UNKNOWN) for token in tokens]
        return np.array([self.START] * start + ids + [self.STOP] * stop, np.int32)

    def decode(self, ids: npt.ArrayLike) -> tuple[str, ...]:
        """The tokens of `ids`, int[tokens], up to the first STOP; PADDING and START are left out.

        Raises a ValueError for an id outside [0, size).
        """
        row = one_row("Vocabulary.decode: ids", ids)
        outside = np.flatnonzero(row >= self.size)
        if outside.size:
            raise ValueError(
                f"Vocabulary.decode: id {row[outside[0]]} at position {outside[0]} is outside the "
                f"vocabulary; expected ids in [0, {self.size})"
            )
        stops = np.flatnonzero(row == self.STOP)
        row = row[: stops[0]] if stops.size else row
        return tuple(self.tokens[i] for i in row.tolist() if i not in (self.PADDING, self.START))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that `Vocabulary.load` restores an equal vocabulary from."""
        _save(path, "vocabulary", self.tokens)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """The vocabulary that `save` wrote; a ValueError where the file holds none."""
        return cls(_load(path, "vocabulary", "Vocabulary"))

    @functools.cached_property
    def _ids(self) -> Mapping[str, int]:
        first = len(SPECIAL)
        return {token: i for i, token in enumerate(self.tokens[first:], start=first)}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Label i is names[i]. None is special, and none stands for an unseen one.

    Raises a ValueError for no names, and for names that are not distinct.

    >>> labels = Labels.train(["NOUN", "VERB", "NOUN", "ADJ"])
    >>> labels.names, labels.encode("NOUN"), labels.decode(2)
    (('ADJ', 'NOUN', 'VERB'), 1, 'VERB')
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what makes no labels."""
        if not self.names or not _distinct(self.names):
            raise ValueError(f"Labels: names: expected distinct names, got {self.names!r}")

    @classmethod
    def train(cls, names: Iterable[str]) -> "Labels":
        """The distinct `names`, in the order of their characters, so that "0" is 0 and "1" is 1."""
        return cls(tuple(sorted(set(names))))

    @property
    def size(self) -> int:
        """The number of labels."""
        return len(self.names)

    def encode(self, name: str) -> int:
        """The number of a label; a ValueError that says which are known for one that is not."""
        number = self._numbers.get(name)
        if number is None:
            known = ", ".join(repr(known) for known in self.names[:SHOWN])
            more = f" and {self.size - SHOWN} more" if self.size > SHOWN else ""
            raise ValueError(f"label {name!r} is not known; expected one of {known}{more}")
        return number

    def decode(self, number: int | np.integer) -> str:
        """The label of a number; a ValueError for a number outside [0, size)."""
        checks.size("Labels.decode: number", int(number))
        if number >= self.size:
            raise ValueError(f"Labels.decode: number is {number}; expected one in [0, {self.size})")
        return self.names[int(number)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that `Labels.load` restores equal labels from."""
        _save(path, "labels", self.names)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Labels":
        """The labels that `save` wrote; a ValueError where the file holds none."""
        return cls(_load(path, "labels", "Labels"))

    @functools.cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def _distinct(names: tuple[str, ...]) -> bool:
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _save(path: str | os.PathLike[str], kind: str, names: tuple[str, ...]) -> None:
    Path(path).write_text(json.dumps({"kind": kind, "names": names}), encoding="utf-8")


def _load(path: str | os.PathLike[str], kind: str, owner: str) -> tuple[str, ...]:
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        if saved["kind"] != kind or not isinstance(saved["names"], list):
            raise ValueError(f"kind is {saved['kind']!r}")
        return tuple(saved["names"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{owner}.load: {os.fspath(path)} holds no {kind} ({error!r}); "
            f"expected a file that {owner}.save wrote"
        ) from error
