"""Byte-level byte-pair encoding (BPE) with the `tokenizers` package."""

import dataclasses
import functools
import importlib
import io
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int32

from seqjax.data.tokenizers import Utf8Tokenizer, encoded

LEAST_FREQUENCY = 2  # a merge that training saw once saves nothing
BLOCK = 4096  # lines encoded at once: the package makes an object for each line and each token


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
    """Tokens 0 … 255 are single bytes of UTF-8; each other token joins two earlier ones.

    `merges` are the pairs that are joined, in order, spelled with `byte_symbols`. Text is first cut as
    in GPT-2 (words with the space before them, numbers, punctuation) and never joined across a newline.
    `decode(encode(text))` is `text` for any text. Invalid UTF-8, as a model may generate it, decodes to
    U+FFFD (�), the replacement character.

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
        if not text:
            raise ValueError("BPETokenizer.train: text is empty; expected text to train on")
        if size < 256:
            raise ValueError(
                f"BPETokenizer.train: size is {size}; expected at least 256, one token a byte; "
                "for a smaller vocabulary use CharTokenizer"
            )
        trainer = _package().trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=LEAST_FREQUENCY,
            initial_alphabet=list(byte_symbols()),
            show_progress=False,
        )
        tokenizer = cls(())._byte_level
        tokenizer.train_from_iterator(_lines("BPETokenizer.train", text), trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(tuple((left, right) for left, right in merges))

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Return the ids of `text`."""
        lines = _lines("BPETokenizer.encode", text)
        blocks = [np.zeros(0, np.int32)]
        for start in range(0, len(lines), BLOCK):
            block = lines[start : start + BLOCK]
            found = self._byte_level.encode_batch_fast(block, add_special_tokens=False)
            blocks.extend(np.array(line.ids, np.int32) for line in found)
        return np.concatenate(blocks)

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
        package = _package()
        vocabulary = {token: i for i, token in enumerate(self._tokens)}
        tokenizer = package.Tokenizer(package.models.BPE(vocabulary, list(self.merges)))
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer


def _lines(name: str, text: str) -> list[str]:
    """Cut `text` after each newline, and nowhere else."""
    encoded(name, text)
    return list(io.StringIO(text, newline="\n"))


def _package() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError:
        raise ImportError(
            "BPETokenizer needs the tokenizers package: pip install 'seqjax[text]'; "
            "the other tokenizers need nothing"
        ) from None
