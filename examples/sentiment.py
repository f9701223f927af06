"""Is a sentence praise or complaint? Many words in, one label out, words in both directions.

    python examples/sentiment.py    sentences that are made up here

Your own data: --data FOLDER with train.tsv, dev.tsv, test.tsv, one sentence TAB label a line; --header
where the first line names the columns; --bad skip leaves out lines that cannot be read.

    x_t = E[word_t]     y_t = [LSTM→, LSTM←]_t     v = max_t y_t     p(label) = softmax(v V + b)

The made-up sentences hold what a bag of words cannot see: "not bad" is praise, and after "but" the rest
counts. A run folder keeps checkpoints, log and curves; the same call goes on where one stopped.
"""

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import seqjax as sj
from seqjax.data import Buckets, Example, Labels, Vocabulary, read_tsv

Sentences = list[tuple[tuple[str, ...], str]]


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a classifier of sentences."""

    data: Path | None = None
    """A folder with train.tsv, dev.tsv and test.tsv; made-up sentences where there is none."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What to do with a line of yours that cannot be read: stop, or leave it out and count."""
    header: bool = False
    """The first line of each file names the columns."""
    features: int = 64
    """The width of each direction."""
    embedding: int = 64
    """The width of a word's embedding."""
    dropout: float = 0.5
    """The rate at which entries of embeddings and of v are dropped while training."""
    token_dropout: float = 0.1
    """The rate at which words are read as unknown while training."""
    batch: int = 64
    """Sentences in an update."""
    steps: int = 600
    """Updates of the parameters."""
    learning_rate: float = 2e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 0.1
    """Decoupled weight decay."""
    seed: int = 0
    """Everything random follows from it."""
    run: Path = Path("runs/sentiment")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def made_up(count: int, seed: int) -> Sentences:
    """Sentences whose label follows from their grammar: negation turns it, and "but" overrides."""
    draw = np.random.default_rng(seed)
    pick = lambda words: str(draw.choice(words.split()))

    def clause(praise: bool) -> str:
        thing, degree = pick("film plot acting music ending cast"), pick("very really quite so")
        turned = draw.random() < 0.4
        word = pick("good great moving funny" if praise != turned else "bad dull awful silly")
        return f"the {thing} is {'not ' if turned else ''}{degree if not turned else ''} {word}"

    sentences = []
    for _ in range(count):
        praise = bool(draw.random() < 0.5)
        text = clause(praise)
        if draw.random() < 0.5:
            text = f"{clause(not praise)} but {text}"
        sentences.append((tuple(text.split()), "praise" if praise else "complaint"))
    return sentences


def read(options: Options) -> dict[str, Sentences]:
    """Training, development and test."""
    if options.data is None:
        return {name: made_up(n, seed) for seed, (name, n) in enumerate(PARTS.items())}
    train, *rest = (options.data / f"{name}.tsv" for name in PARTS)
    sentences = read_tsv(train, header=options.header, bad=options.bad)
    known = Labels.train(label for _, label in sentences)
    others = [read_tsv(f, header=options.header, labels=known, bad=options.bad) for f in rest]
    return dict(zip(PARTS, [sentences, *others], strict=True))


PARTS = {"train": 4000, "dev": 500, "test": 500}


def main(options: Options) -> dict[str, float]:
    """Train, show a few sentences, and give the accuracy on the test part."""
    parts = read(options)
    for name, part in parts.items():
        print(f"{name}: {len(part):,} sentences,", dict(Counter(label for _, label in part)))
    vocabulary = Vocabulary.train((w for w, _ in parts["train"]), min_count=2)
    labels = Labels.train(label for _, label in parts["train"])
    examples = {
        name: [Example(vocabulary.encode(words), labels.encode(label)) for words, label in part]
        for name, part in parts.items()
    }
    rates = {"dropout": options.dropout, "token_dropout": options.token_dropout}
    tokens = sj.models.Tokens(vocabulary.size, options.embedding, **rates)
    both = sj.Bidirectional(sj.LSTM(options.features), sj.LSTM(options.features))
    model = sj.models.Classifier(tokens, both, labels.size, pool="max", dropout=options.dropout)

    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    rate = sj.optim.warmup_cosine(options.learning_rate, options.steps)
    optimizer = sj.optim.clipped_adamw(rate, weight_decay=options.weight_decay)

    def score(params: sj.models.ClassifierParams, part: str) -> dict[str, float]:
        whole = Buckets(examples[part], 256).one_pass()
        return sj.training.evaluate(model.loss, params, None, whole)

    sj.training.keep_options(options.run, options)
    result = sj.training.fit(
        model.loss,
        optimizer,
        sj.training.TrainState.create(model.init(init_key), optimizer, fit_key),
        Buckets(examples["train"], options.batch, seed=options.seed),
        steps=options.steps,
        evaluate=lambda params: score(params, "dev"),
        evaluate_every=max(1, options.steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)
    params = result.state.params
    for words, label in parts["test"][:5]:
        logits = model.apply(params, vocabulary.encode(words))
        p = jax.nn.softmax(logits)[labels.encode(label)]
        print(f"p({label}) = {p:.3f}   {' '.join(words)}")
    accuracy = score(params, "test")["accuracy"]
    print(f"test: {accuracy:.1%} of {len(parts['test'])}   curves: {options.run / 'curves.png'}")
    return {"accuracy": accuracy, "parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
