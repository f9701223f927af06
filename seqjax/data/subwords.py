"""Byte-level byte-pair encoding: frequent strings are one token, any text is some tokens."""

import dataclasses
import functools
import json
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax.data.line_by_line import encode_lines, lines, package, training_lines
from seqjax.data.tokenizer import Stream, Tokenizer, Utf8Stream

# A merge is seen at least twice, or it saves nothing.
LEAST_FREQUENCY = 2


def byte_symbols() -> dict[str, int]:
    """The visible character that stands for each byte in byte-level BPE, ascending.

    Printable bytes of Latin-1 stand for themselves, the other 68 are moved to U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(256 + rank): byte for rank, byte in enumerate(others)}


@dataclasses.dataclass(frozen=True)
class BPETokenizer(Tokenizer):
    """Tokens 0 … 255 are single bytes of UTF-8, the others join two earlier tokens each.

    `merges` are the pairs that are joined, in order, spelled with `byte_symbols`. Text
    is cut as in GPT-2 (words with the space before them, numbers, punctuation) and never joined
    across a newline. `decode(encode(text))` is `text`, whatever training saw. Bytes that are no
    UTF-8, as a model may make them, decode to U+FFFD (�), the replacement character.

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
        """Refuse merges of what is not there yet."""
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
        """At most `size` tokens; fewer where no pair is left that `text` holds twice.

        Raises a ValueError for an empty text and for a size below 256, one token a byte.
        """
        text_lines = training_lines("BPETokenizer.train", text)
        if size < 256:
            raise ValueError(
                f"BPETokenizer.train: size is {size}; expected at least 256, one token a byte; "
                "a smaller vocabulary is that of CharTokenizer"
            )
        trainer = package("BPETokenizer").trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=LEAST_FREQUENCY,
            initial_alphabet=list(byte_symbols()),
            show_progress=False,
        )
        tokenizer = _byte_level(())
        tokenizer.train_from_iterator(text_lines, trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(tuple((left, right) for left, right in merges))

    @property
    def size(self) -> int:
        """256 and one for each distinct result of a merge."""
        return len(self._pieces)

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """The ids of `text`."""
        return encode_lines(self._byte_level, lines("BPETokenizer.encode", text))

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of `ids`, int[tokens]; a ValueError for an id outside [0, size)."""
        raw = b"".join(self._pieces[i] for i in self.known(ids).tolist())
        return raw.decode("utf-8", errors="replace")

    def stream(self) -> Stream:
        """A decoder that takes one id at a time; a character appears with its last byte."""
        # Not the package's DecodeStream: it has no end, so it loses what ill-formed bytes stand for.
        return Utf8Stream(self, self._pieces)

    @functools.cached_property
    def _pieces(self) -> tuple[bytes, ...]:
        byte_of = byte_symbols()
        return tuple(bytes(byte_of[symbol] for symbol in token) for token in _tokens(self.merges))

    @functools.cached_property
    def _byte_level(self) -> Any:
        return _byte_level(self.merges)


def _tokens(merges: tuple[tuple[str, str], ...]) -> list[str]:
    """The vocabulary in the order of ids: two merges to the same string are one token."""
    joined = (left + right for left, right in merges)
    return list(dict.fromkeys([*sorted(byte_symbols()), *joined]))


def _byte_level(merges: tuple[tuple[str, str], ...]) -> Any:
    tokenizers = package("BPETokenizer")
    vocabulary = {token: i for i, token in enumerate(_tokens(merges))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer
