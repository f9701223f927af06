"""One token a word, and one a line end, as word-level corpora count them."""

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32

from seqjax.data.line_by_line import encode_lines, lines, package, training_lines
from seqjax.data.tokenizer import Stream, Tokenizer

UNKNOWN, NEWLINE = "<unk>", "\n"


@dataclasses.dataclass(frozen=True)
class WordTokenizer(Tokenizer):
    r"""Token i is words[i]: what stands between white space, or a newline.

    words[0] is "<unk>", which stands for every word that is not in the vocabulary; the others come
    by how often training saw them. Newlines are kept; other white space is not: between two words of
    a line `decode` puts one space. So `decode(encode(text))` is `text` where all words are known and
    single spaces part them. WikiText-2 has 2,088,628 tokens in training and 33,278 words this way.

    Needs the `tokenizers` package: pip install 'seqjax[text]'.

    >>> tokenizer = WordTokenizer.train("to be or not to be\n", size=4)
    >>> tokenizer.words
    ('<unk>', 'be', 'to', '\n')
    >>> tokenizer.encode("to see\n").tolist(), tokenizer.decode([2, 0, 3])
    ([2, 0, 3], 'to <unk>\n')
    """

    words: tuple[str, ...]
    kind: ClassVar[str] = "word"

    def __post_init__(self) -> None:
        """Refuse what is no vocabulary."""
        if self.words[:1] != (UNKNOWN,) or len(set(self.words)) != len(self.words):
            raise ValueError(
                f"WordTokenizer: words: expected {UNKNOWN!r} and then distinct words; "
                "WordTokenizer.train(text, size) makes them so"
            )

    @classmethod
    def train(cls, text: str, size: int) -> "WordTokenizer":
        """The most frequent words of `text`; with "<unk>" and the newline at most `size` tokens.

        Words seen equally often come in the order of their characters.
        Raises a ValueError for an empty text and for a size below 2.
        """
        text_lines = training_lines("WordTokenizer.train", text)
        if size < 2:
            raise ValueError(
                f"WordTokenizer.train: size is {size}; expected at least 2, {UNKNOWN!r} and one word"
            )
        trainer = package("WordTokenizer").trainers.WordLevelTrainer(
            vocab_size=size, show_progress=False
        )
        tokenizer = _word_level((UNKNOWN,))
        tokenizer.train_from_iterator(text_lines, trainer)
        vocabulary = tokenizer.get_vocab()
        ranked = sorted(vocabulary, key=vocabulary.__getitem__)
        # Some corpora, WikiText among them, hold "<unk>" as a word: it is that token, not a second.
        return cls((UNKNOWN, *(word for word in ranked if word != UNKNOWN))[:size])

    @property
    def size(self) -> int:
        """The number of words, "<unk>" included."""
        return len(self.words)

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """The ids of `text`; 0, that of "<unk>", for a word that is not in the vocabulary."""
        return encode_lines(self._word_level, lines("WordTokenizer.encode", text))

    def decode(self, ids: npt.ArrayLike) -> str:
        """The words of `ids`, int[tokens], one space apart; a ValueError for an id outside [0, size)."""
        words = " ".join(self.words[i] for i in self.known(ids).tolist())
        return words.replace(f" {NEWLINE}", NEWLINE).replace(f"{NEWLINE} ", NEWLINE)

    def stream(self) -> Stream:
        """A decoder that takes one id at a time; a word comes with the space before it."""
        return WordStream(self)

    @functools.cached_property
    def _word_level(self) -> Any:
        return _word_level(self.words)


class WordStream(Stream):
    """A word for each id, and the space that parts it from the one before."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        """The words of `tokenizer`."""
        self._tokenizer = tokenizer
        self._before = NEWLINE

    def __call__(self, token: int) -> str:
        """The word of `token`."""
        word = self._tokenizer.decode([token])
        space = "" if NEWLINE in (self._before, word) else " "
        self._before = word
        return space + word


def _word_level(words: tuple[str, ...]) -> Any:
    tokenizers = package("WordTokenizer")
    vocabulary = {word: token for token, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # The pattern is what is kept: inverted, everything else is the delimiter.
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(rf"{NEWLINE}|\S+"), behavior="removed", invert=True
    )
    return tokenizer
