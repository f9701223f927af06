"""The likeliest targets of a sequence-to-sequence model."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from seqjax.decoding.beam import Hypotheses, continuations
from seqjax.models.seq2seq import Seq2Seq, Seq2SeqParams, TargetSide, TargetSideParams


def translate(
    model: Seq2Seq,
    params: Seq2SeqParams,
    inputs: Any,
    lengths: ArrayLike | None = None,
    *,
    max_length: int,
    beam: int = 4,
    min_length: int = 1,
    alpha: float | Array = 0.6,
    penalty: str = "wu",
) -> Hypotheses:
    """The likeliest targets of each source that beam search finds, as one compiled loop.

    inputs, lengths: the sources, as for `Seq2Seq.encode`. The other arguments are those of
    `beam_search`, whose ValueErrors it raises; another alpha does not compile again. What the best ones
    attend to, for a picture, is `model.align(params, inputs, lengths, found.tokens[..., 0])`; to draw
    targets instead, give a `TargetSide` to `sj.generate`.

    >>> import seqjax as sj
    >>> tokens, attention = sj.models.Tokens(20, 8), sj.models.MultiplicativeAttention()
    >>> model = sj.models.Seq2Seq(tokens, sj.GRU(8), tokens, sj.GRU(8), attention)
    >>> params = model.init(jax.random.key(0))
    >>> source = jnp.array([[7, 8, 4], [4, 5, 0]])
    >>> found = translate(model, params, source, jnp.array([2, 2, 1]), max_length=9, beam=5)
    >>> found.tokens.shape, found.scores.shape
    ((9, 3, 5), (3, 5))
    """
    options = {"beam": beam, "min_length": min_length, "penalty": penalty}
    return _translate(model, params, inputs, lengths, max_length, alpha, **options)


@functools.partial(
    jax.jit, static_argnames=("model", "max_length", "beam", "min_length", "penalty")
)
def _translate(model, params, inputs, lengths, max_length, alpha, **options):
    source = model.encode(params, inputs, lengths)
    prompt = jnp.full((1, *source.end.shape[:-1]), model.start, jnp.int32)
    side, given = TargetSide(model), TargetSideParams(params, source)
    options = {"stop": model.stop, "alpha": alpha, **options}
    return continuations(side, given, prompt, max_length, **options)
