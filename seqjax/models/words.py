"""Words by what they are and by how they are spelled."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Cell, Params
from seqjax.engines import unroll
from seqjax.models.inputs import Inputs, Tokens
from seqjax.models.pooling import pooled_features, pooled_outputs


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
