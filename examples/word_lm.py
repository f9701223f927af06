"""A language model over words, and what its memory buys: beside counts, and beside a window.

    python examples/word_lm.py                  the embedded Shakespeare, its 4,000 most frequent words
    python examples/word_lm.py --cell window    the same model with no memory beyond three words

Your own data: --data FOLDER with train.txt, valid.txt, test.txt (or .txt.gz), words and marks parted by
white space; --vocabulary for how many of them are known.

    x_t = E[word_t]     s_t, y_t = cell(s_{t-1}, x_t)     p(word_{t+1}) = softmax(y_t Eᵀ + b)

The readout is the embedding (Press, Wolf 2017), the recurrent matrices are thinned (Merity, Keskar,
Socher 2018), and the state crosses windows. Perplexity is exp of the mean of -log p: among how many
words, all alike, one would have to guess. At the end the model is tested once more beside a cache of
what it read lately (Grave, Joulin, Usunier 2017). The same call goes on where one stopped.
"""

import dataclasses
import itertools
import re
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import seqjax as sj
from seqjax.data import Windows, WordTokenizer, lanes, passes, read_text

CELLS = {"lstm": sj.LSTM, "gru": sj.GRU, "elman": sj.Elman}
CELLS["window"] = lambda features: sj.TimeDelay(features, window=3)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a language model over words."""

    data: Path | None = None
    """A folder with train, valid and test, each .txt or .txt.gz; Shakespeare where there is none."""
    vocabulary: int = 4000
    """The most frequent words; the others are read as unknown."""
    cell: Literal[tuple(CELLS)] = "lstm"
    """What reads; "window" sees the last three words and nothing else."""
    layers: int = 1
    """The number of layers."""
    features: int = 128
    """The width of each layer, and of a word's embedding."""
    dropout: float = 0.4
    """The rate at which entries of embeddings and outputs are dropped while training."""
    weight_drop: float = 0.2
    """The rate at which entries of recurrent matrices are dropped while training."""
    lanes: int = 32
    """Stretches of text read side by side: the batch."""
    window: int = 35
    """Steps between updates, and how far back a gradient reaches."""
    steps: int = 700
    """Updates of the parameters."""
    learning_rate: float = 6e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    cache: int = 1000
    """Words that the cache holds when the model is tested; 0 is no cache."""
    seed: int = 0
    """Everything random follows from it."""
    run: Path = Path("runs/word_lm")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def read(options: Options) -> tuple[list[str], WordTokenizer]:
    """The texts of training, validation and test, and the vocabulary of the first."""
    if options.data is None:
        words = re.findall(r"[\w'-]+|[^\w\s]|\n", sj.data.shakespeare().lower())
        cuts = [0, len(words) * 8 // 10, len(words) * 9 // 10, len(words)]
        texts = [" ".join(words[a:b]) for a, b in itertools.pairwise(cuts)]
    else:
        texts = [read_text(options.data / f"{part}.txt") for part in ("train", "valid", "test")]
    return texts, WordTokenizer.train(texts[0], options.vocabulary)


def main(options: Options) -> dict[str, float]:
    """Train, write a little, and give the perplexities of the test part."""
    texts, tokenizer = read(options)
    train, valid, test = (tokenizer.encode(text) for text in texts)
    print(f"{len(train):,} words to train on, {len(valid):,} and {len(test):,} to look at and test")
    cell = CELLS[options.cell](options.features)
    cell = cell if options.layers == 1 else sj.Stack((cell,) * options.layers)
    model = sj.models.LanguageModel(
        tokenizer.size,
        cell,
        options.features,
        dropout=options.dropout,
        weight_drop=0.0 if options.cell == "window" else options.weight_drop,
        tied=True,
    )
    windows = Windows(lanes(train, options.lanes), options.window, seed=options.seed, restart=0.01)
    init_key, fit_key, sample_key = jax.random.split(jax.random.key(options.seed), 3)
    rate = sj.optim.warmup_cosine(options.learning_rate, options.steps)
    optimizer = sj.optim.clipped_adamw(rate, weight_decay=options.weight_decay)
    params = model.init(init_key)
    carry = model.initial_state(params, (options.lanes,))
    state = sj.training.TrainState.create(params, optimizer, fit_key, carry)

    def nats(model: Any, params: Any, words: np.ndarray) -> float:
        start, batches = model.initial_state(params, (10,)), passes(lanes(words, 10), 200)
        return sj.training.evaluate(model.loss, params, start, batches)["nats"]

    sj.training.keep_options(options.run, options, free=("data", "run", "display", "cache"))
    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        windows,
        steps=options.steps,
        evaluate=lambda params: {"nats": nats(model, params, valid)},
        evaluate_every=max(1, options.steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)
    params, prompt = result.state.params, tokenizer.encode("\n")
    written = sj.generate(model, params, sample_key, prompt, 60, temperature=0.8)
    print(tokenizer.decode(written.tokens))
    found = {"perplexity": float(np.exp(nats(model, params, test)))}
    if options.cache:
        cache = sj.models.ContinuousCache(model, options.cache)
        tried = itertools.product((0.1, 0.3, 1.0), (0.05, 0.1, 0.2))
        around = [cache.around(params, sharpness, weight) for sharpness, weight in tried]
        best = min(around, key=lambda params: nats(cache, params, valid[:20_000]))
        found["perplexity with a cache"] = float(np.exp(nats(cache, best, test)))
    for order in (0, 2):
        counts = sj.models.NGram.train(train, tokenizer.size, order).nats(test)
        found[f"perplexity of counts of {order} words"] = np.exp(counts.mean()).item()
    for name, value in found.items():
        print(f"test {name}: {value:.1f}")
    print(f"curves: {options.run / 'curves.png'}")
    return found | {"parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}


if __name__ == "__main__":
    from command_line import run

    run(main, Options, vocabulary=2, cache=0)
