"""Classify three-word sentences with a recurrent network: many words in, one yes or no out.

    python examples/sentences.py

    cat mat rat -> 1        h_t = tanh(x_t W + h_{t-1} U + b)        t = 1, 2, 3
    rat rat mat -> 1        p(1 | sentence) = σ(v · h_3 + a)
    mat mat cat -> 0

x_t is the word one-hot: [time, batch, words] = [3, 3, 3]. The loss is the binary cross-entropy of the
last state; its gradient reaches the first word through all three steps. After a few seconds every
sentence has its label with a probability above 0.95.
"""

import dataclasses
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import seqjax as sj

SENTENCES = {"cat mat rat": True, "rat rat mat": True, "mat mat cat": False}
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})


@dataclasses.dataclass(frozen=True)
class Options:
    """Train an Elman network on three sentences of three words."""

    features: int = 4
    """The width of the hidden state."""
    steps: int = 200
    """Updates of the parameters, each from all three sentences."""
    learning_rate: float = 0.03
    """The step size of AdamW."""
    seed: int = 0
    """Everything random follows from it."""
    display: bool = True
    """Show progress while it trains."""


class Params(NamedTuple):
    """The cell, and the readout v, a."""

    cell: Any
    weights: Array
    bias: Array


class Batch(NamedTuple):
    """Sentences side by side: words [time, batch, words], labels bool[batch]."""

    words: Array
    labels: Array


def encode(sentences: dict[str, bool]) -> Batch:
    """Each word one-hot, time first."""
    ids = jnp.array([[WORDS.index(word) for word in s.split()] for s in sentences])
    return Batch(jax.nn.one_hot(ids.T, len(WORDS)), jnp.array(list(sentences.values())))


def logits(cell: sj.Elman, params: Params, words: Array) -> Array:
    """The logit v · h_T + a, [batch]: h_T is the state after the last word."""
    state, _ = sj.unroll(cell, params.cell, words)
    return state.h @ params.weights + params.bias


def main(options: Options) -> dict[str, float]:
    """Train, print the table, and give p(1) of each sentence."""
    cell = sj.Elman(options.features)
    batch = encode(SENTENCES)

    def loss(params: Params, carry: None, batch: Batch, key: Array | None):
        z = logits(cell, params, batch.words)
        correct = sj.losses.mean_over((z > 0) == batch.labels)
        return sj.losses.binary_cross_entropy(z, batch.labels), (carry, {"accuracy": correct})

    cell_key, readout_key, fit_key = jax.random.split(jax.random.key(options.seed), 3)
    params = Params(
        cell=cell.init(cell_key, len(WORDS)),
        weights=jax.random.normal(readout_key, (options.features,)) / options.features**0.5,
        bias=jnp.zeros(()),
    )
    optimizer = sj.optim.clipped_adamw(options.learning_rate)
    state = sj.training.TrainState.create(params, optimizer, fit_key)
    result = sj.training.fit(
        loss, optimizer, state, [batch], steps=options.steps, display=options.display
    )
    if result.interrupted:
        sys.exit(130)

    probabilities = jax.nn.sigmoid(logits(cell, result.state.params, batch.words)).tolist()
    print("sentence      label   p(1)")
    for (sentence, label), p in zip(SENTENCES.items(), probabilities, strict=True):
        print(f"{sentence}   {label:>5}  {p:.3f}")
    return dict(zip(SENTENCES, probabilities, strict=True))


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
