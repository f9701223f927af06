"""Ours: `sj.generate`, and `sj.continuations` for beam search, from a `sj.models.LanguageModel`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj
from benchmarks.generate_problem import BEAM, GREEDY, Case, Model, Sizes, model_of
from benchmarks.peers import ours
from benchmarks.peers.problem import Prepared
from seqjax.models.language_model import LanguageModelParams
from seqjax.models.readout import Readout
from seqjax.wrappers.stack import StackParams


def prepare(case: Case, sizes: Sizes) -> Prepared:
    """A call that writes; its ids [tokens, batch], of beam search the best ones."""
    drawn = model_of(case, sizes)
    model, params = built(case, drawn)
    prompt, key = jnp.asarray(drawn.prompt)[None], jax.random.key(0)

    def run() -> Any:
        if case.way == BEAM:
            found = sj.continuations(model, params, prompt, sizes.tokens, beam=sizes.beams)
        elif case.way == GREEDY:
            found = sj.generate(model, params, key, prompt, sizes.tokens, temperature=0.0)
        else:
            found = sj.generate(model, params, key, prompt, sizes.tokens, top_k=sizes.top_k)
        return jax.block_until_ready(found)

    best = lambda found: found.tokens[..., 0] if case.way == BEAM else found.tokens
    return Prepared(run, lambda found: [np.asarray(best(found))])


def built(case: Case, drawn: Model) -> tuple[sj.models.LanguageModel, LanguageModelParams]:
    """The model, and its params from the weights that were drawn."""
    make, params_of = ours.CELLS[case.cell]
    cell = sj.Stack(tuple(make(drawn.features) for _ in drawn.layers))
    params = LanguageModelParams(
        embedding=jnp.asarray(drawn.embedding),
        cell=StackParams(
            tuple(params_of(*map(jnp.asarray, layer.weights)) for layer in drawn.layers)
        ),
        readout=Readout(jnp.asarray(drawn.kernel), jnp.asarray(drawn.bias)),
    )
    return sj.models.LanguageModel(case.vocabulary, cell, drawn.features), params
