"""Counts of the last few tokens: what a model without any memory beyond them can know."""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int32

from seqjax import checks
from seqjax.data.text import one_row


class Counts(NamedTuple):
    """The grams of one order, and the contexts that they continue; codes rise.

    grams, seen: the code of each (context, token), and how often it occurs.
    contexts, total, kinds: the code of each context, how many tokens follow it, and how many kinds.
    """

    grams: np.ndarray
    seen: np.ndarray
    contexts: np.ndarray
    total: np.ndarray
    kinds: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class NGram:
    """p_k(w | h) = (c(h w) + t(h) p_{k-1}(w | h')) / (c(h) + t(h)),   p_{-1} = 1 / vocabulary

    h are the last k tokens and h' those without the first, c counts in the training text, and t(h) is
    how many kinds of token follow h there: so often was something new, and so much is left for it.
    Where h never occurs p_k = p_{k-1}. The last `order` tokens are all that it sees: a Markov chain, and
    the measure of what memory buys.

    Reference: Witten, Bell 1991, "The zero-frequency problem", interpolated as by Chen, Goodman 1999.

    >>> import seqjax as sj
    >>> model = sj.models.NGram.train([0, 1, 0, 1, 0, 2], vocabulary=3, order=1)
    >>> model.distribution([0]).round(3).tolist()
    [0.178, 0.533, 0.289]
    """

    vocabulary: int
    counts: tuple[Counts, ...]

    @classmethod
    def train(cls, ids: npt.ArrayLike, vocabulary: int, order: int) -> "NGram":
        """From int[tokens], one text.

        Raises a ValueError for a text that is not longer than the order, ids outside the vocabulary, and
        an order so high that (order + 1) tokens have no code of 63 bits.
        """
        checks.positive("NGram: vocabulary", vocabulary)
        checks.size("NGram: order", order)
        row = _known(ids, vocabulary)
        if len(row) <= order:
            raise ValueError(
                f"NGram: ids holds {len(row)} tokens; expected more than the order of {order}"
            )
        if vocabulary ** (order + 1) >= 2**63:
            highest = int(63 // np.log2(max(vocabulary, 2))) - 1
            raise ValueError(
                f"NGram: order: expected at most {highest} for {vocabulary} tokens, got {order}"
            )
        return cls(vocabulary, tuple(_counts(row, k, vocabulary) for k in range(order + 1)))

    @property
    def order(self) -> int:
        """How many tokens it looks back."""
        return len(self.counts) - 1

    def nats(self, ids: npt.ArrayLike) -> Float[np.ndarray, " targets"]:
        """-log p of each token given those before it, from the second one on.

        ids: int[tokens]. The first tokens have shorter contexts. Their mean is to be compared with the
        "nats" of a `LanguageModel` on the same text.
        """
        row = _known(ids, self.vocabulary)
        p = np.full(max(0, len(row) - 1), 1 / self.vocabulary)
        for k, counts in enumerate(self.counts):
            if len(row) <= max(k, 1):
                break
            start = max(k, 1)  # the first token that has k before it, and is scored at all
            grams = _codes(row, k + 1, self.vocabulary)[start - k :]
            p[start - 1 :] = _mixed(counts, grams // self.vocabulary, grams, p[start - 1 :])
        return -np.log(p)

    def distribution(self, context: npt.ArrayLike) -> Float[np.ndarray, " vocabulary"]:
        """P of each token after `context`, int[tokens], of which the last `order` count."""
        row = _known(context, self.vocabulary)
        p = np.full(self.vocabulary, 1 / self.vocabulary)
        for k, counts in enumerate(self.counts[: len(row) + 1]):
            h = int(_codes(row[len(row) - k :], k, self.vocabulary)[0]) if k else 0
            grams = h * self.vocabulary + np.arange(self.vocabulary)
            p = _mixed(counts, np.full(self.vocabulary, h), grams, p)
        return p

    def generate(
        self, seed: int, prompt: npt.ArrayLike, length: int
    ) -> Int32[np.ndarray, " length"]:
        """`length` tokens that continue `prompt`, each drawn by its probability."""
        checks.positive("NGram.generate: length", length)
        draw, text = np.random.default_rng(seed), _known(prompt, self.vocabulary).tolist()
        for _ in range(length):
            p = self.distribution(text[max(0, len(text) - self.order) :])
            text.append(int(draw.choice(self.vocabulary, p=p / p.sum())))
        return np.array(text[len(text) - length :], np.int32)


def _mixed(
    counts: Counts, contexts: np.ndarray, grams: np.ndarray, shorter: np.ndarray
) -> np.ndarray:
    """p_k from p_{k-1}, for each (context, token)."""
    total, kinds = _find(counts.contexts, contexts, counts.total, counts.kinds)
    (seen,) = _find(counts.grams, grams, counts.seen)
    return np.where(total > 0, (seen + kinds * shorter) / np.maximum(total + kinds, 1), shorter)


def _find(codes: np.ndarray, wanted: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """The values at each wanted code; 0 where it is not there."""
    place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    there = codes[place] == wanted
    return [np.where(there, value[place], 0) for value in values]


def _counts(row: np.ndarray, k: int, vocabulary: int) -> Counts:
    """What follows the last k tokens, over a whole text."""
    grams, seen = np.unique(_codes(row, k + 1, vocabulary), return_counts=True)
    contexts, first, kinds = np.unique(grams // vocabulary, return_index=True, return_counts=True)
    return Counts(grams, seen, contexts, np.add.reduceat(seen, first), kinds)


def _codes(row: np.ndarray, tokens: int, vocabulary: int) -> np.ndarray:
    """Each stretch of so many tokens as one number, its tokens as digits."""
    codes = np.zeros(len(row) - tokens + 1, np.int64)
    for offset in range(tokens):
        codes = codes * vocabulary + row[offset : offset + len(codes)]
    return codes


def _known(ids: npt.ArrayLike, vocabulary: int) -> np.ndarray:
    """Ids as int64, all of them in the vocabulary."""
    row = one_row("NGram: ids", ids).astype(np.int64)
    if row.size and row.max() >= vocabulary:
        raise ValueError(f"NGram: ids: expected ids in [0, {vocabulary}), got {row.max()}")
    return row
