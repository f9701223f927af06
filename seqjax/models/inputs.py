"""What a model reads, as the vectors that its cell reads."""

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Cell, Params
from seqjax.engines import unroll
from seqjax.fields import check_fields
from seqjax.initializers import Initializer, Normal, draw
from seqjax.models.outputs import pooled_features, pooled_outputs
from seqjax.models.readout import dropped
from seqjax.numerics import widened


class Inputs(abc.ABC):
    """xs [time, *batch, features] from what the data holds. Concrete ones are frozen dataclasses."""

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """The width of xs."""

    @abc.abstractmethod
    def init(self, key: Array) -> Any:
        """The params; () where there are none."""

    @abc.abstractmethod
    def apply(self, params: Any, inputs: Any, key: Array | None = None) -> Array:
        """Xs. key: draws what is dropped; None is evaluation."""


@dataclasses.dataclass(frozen=True)
class Vectors(Inputs):
    """x_t as it is given: [time, *batch, width].

    dropout: the rate at which entries are dropped while a key is given.
    """

    width: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no width and no rate."""
        checks.positive("Vectors: width", self.width)
        checks.fraction("Vectors: dropout", self.dropout)

    @property
    def features(self) -> int:
        """The width."""
        return self.width

    def init(self, key: Array) -> tuple[()]:
        """None."""
        return ()

    def apply(self, params: tuple[()], inputs: ArrayLike, key: Array | None = None) -> Array:
        """The inputs; a ValueError for another width, or integers."""
        xs = jnp.asarray(inputs)
        checks.trailing("Vectors: inputs", xs, self.width)
        if not jnp.issubdtype(xs.dtype, jnp.floating):
            raise ValueError(
                f"Vectors: inputs are {xs.dtype}; expected floating point. For ids take Tokens"
            )
        return dropped(xs, self.dropout, key)


@dataclasses.dataclass(frozen=True)
class Tokens(Inputs):
    """x_t = E[token_t], E: [vocabulary, embedding].

    token_dropout: the rate at which a token is read as `unknown` while a key is given, so that the row
        of unknown words is trained (Kiperwasser, Goldberg 2016, at one rate for all words).
    dropout: the rate at which entries of x are dropped while a key is given.
    embedding_init: None draws E from N(0, 1 / embedding). Rare words keep about what they were drawn
        with, by which a model learns sentences by heart: in SST-2, 6,920 sentences, N(0, 1) came to 70 %
        of the development part, N(0, 0.01) to 81 %.
    """

    vocabulary: int
    embedding: int
    dropout: float = 0.0
    token_dropout: float = 0.0
    unknown: int = 1
    embedding_init: Initializer | str | None = None
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no embedding."""
        checks.positive("Tokens: vocabulary", self.vocabulary)
        checks.positive("Tokens: embedding", self.embedding)
        checks.fraction("Tokens: dropout", self.dropout)
        checks.fraction("Tokens: token_dropout", self.token_dropout)
        checks.size("Tokens: unknown", self.unknown)
        check_fields(self)

    @property
    def features(self) -> int:
        """The width of a row of E."""
        return self.embedding

    def init(self, key: Array) -> Float[Array, "vocabulary embedding"]:
        """E by `embedding_init`."""
        rule = self.embedding_init
        rule = Normal(self.embedding**-0.5) if rule is None else rule
        return draw(rule, key, (self.vocabulary, self.embedding), self.param_dtype)

    def apply(
        self,
        params: Float[Array, "vocabulary embedding"],
        inputs: ArrayLike,
        key: Array | None = None,
    ) -> Float[Array, "*any embedding"]:
        """Look up the rows E[token] of int[*any]; outside the vocabulary NaN, never another token's row.

        Raises a ValueError for tokens that are not integers.
        """
        ids = jnp.asarray(inputs)
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"Tokens: tokens are {ids.dtype}; expected integers")
        if key is not None and self.token_dropout:
            key, token_key = jax.random.split(key)
            lost = jax.random.bernoulli(token_key, self.token_dropout, ids.shape)
            ids = jnp.where(lost, jnp.asarray(self.unknown, ids.dtype), ids)
        # Narrow ids could not be compared with the size of the vocabulary, which would wrap.
        ids = ids if ids.dtype.itemsize >= 4 else ids.astype(jnp.int32)
        vocabulary = params.shape[0]
        rows = jnp.where((ids >= 0) & (ids < vocabulary), ids, vocabulary)
        embedding, narrow = widened(params)  # a frequent token sums over many places
        found = narrow(jnp.take(embedding, rows, axis=0, mode="fill", fill_value=jnp.nan))
        return dropped(found, self.dropout, key)


class Spelled(NamedTuple):
    """Words, int[time, *batch], and their letters, int[time, *batch, letters], 0 after the last one."""

    words: Any
    letters: Any


class SpelledParams(NamedTuple):
    """E of the words, E of the letters, and the params of the cell that reads letters."""

    words: Any
    letters: Any
    cell: Params


@dataclasses.dataclass(frozen=True)
class WordsAndLetters(Inputs):
    """x_t = [E_w[word_t], ends of cell(E_c[letter_1] … E_c[letter_n])]

    A word that was never seen in training still has letters. cell: any cell over letters; in both
    directions its outputs at both ends are taken, so that beginnings and endings of words are seen.
    words.token_dropout has rare words read by their letters alone.

    Reads `Spelled`. Letters are ids from 1 on; 0 is what follows the last letter.
    Reference: Ling et al. 2015, "Finding function in form"; Plank, Søgaard, Goldberg 2016.
    """

    words: Tokens
    letters: Tokens
    cell: Cell

    def __post_init__(self) -> None:
        """Refuse what is no part."""
        checks.instance("WordsAndLetters: words", self.words, Tokens)
        checks.instance("WordsAndLetters: letters", self.letters, Tokens)
        checks.instance("WordsAndLetters: cell", self.cell, Cell)

    @property
    def features(self) -> int:
        """Those of a word, and of the ends of its letters."""
        return self.words.features + pooled_features("last", self.cell)

    def init(self, key: Array) -> SpelledParams:
        """Each part by its own key."""
        words_key, letters_key, cell_key = jax.random.split(key, 3)
        return SpelledParams(
            self.words.init(words_key),
            self.letters.init(letters_key),
            self.cell.init(cell_key, self.letters.features),
        )

    def apply(
        self, params: SpelledParams, inputs: Spelled, key: Array | None = None
    ) -> Float[Array, "time *batch features"]:
        """xs; a ValueError where words and letters are not side by side."""
        words, letters = jnp.asarray(inputs.words), jnp.asarray(inputs.letters)
        if letters.shape[:-1] != words.shape:
            raise ValueError(
                f"WordsAndLetters: letters has shape {letters.shape} and words {words.shape}; expected "
                "[time, *batch, letters] and [time, *batch]"
            )
        words_key, letters_key, cell_key = (
            (None, None, None) if key is None else jax.random.split(key, 3)
        )
        cell = self.cell if key is not None else self.cell.deterministic()
        # All words of the batch at once, each a row of its own.
        lengths = jnp.sum(letters != 0, axis=-1)
        xs = self.letters.apply(params.letters, jnp.moveaxis(letters, -1, 0), letters_key)
        _, ys = unroll(cell, params.cell, xs, key=cell_key, lengths=lengths)
        spelling = pooled_outputs("last", cell, ys, lengths)
        return jnp.concatenate([self.words.apply(params.words, words, words_key), spelling], -1)
