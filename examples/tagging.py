"""What part of speech is each word? A tag for every word, from what stands around it and in it.

    python examples/tagging.py    English sentences from the web, which come with it

Your own data: --data FOLDER with train.tsv, dev.tsv, test.tsv, one word TAB tag a line, an empty line
after each sentence; --bad skip leaves out sentences that cannot be read.

    x_t = [E[word_t], ends of LSTM→, LSTM← over letters]   p(tag_t) = softmax([LSTM→, LSTM←]_t V + b)

The words around "that" tell a pronoun from a conjunction, and the letters of "undrstood", which is
not in the training part, that it is a verb. confusion.png shows which tags are taken for which.
"""

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import jax
import matplotlib.figure
import numpy as np

import seqjax as sj
from seqjax.data import Buckets, Example, Labels, Vocabulary, read_columns
from seqjax.models import Spelled, Tagger, Tokens, WordsAndLetters

ENGLISH = Path(__file__).parent / "data" / "ud-english-ewt-dev.tsv.gz"
HALF = 8  # letters that are read from either end of a word


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a tagger."""

    data: Path | None = None
    """A folder with train, dev and test; the sentences beside this file where there is none."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What to do with a line of yours that cannot be read: stop, or leave the sentence out and count."""
    letters: int = 32
    """The width of each direction over the letters of a word, and of a letter's embedding."""
    features: int = 64
    """The width of each direction over the words."""
    embedding: int = 64
    """The width of a word's embedding."""
    dropout: float = 0.3
    """The rate at which entries of embeddings, spellings and outputs are dropped while training."""
    token_dropout: float = 0.2
    """The rate at which a word is read as unknown, and so by its letters alone, while training."""
    batch: int = 16
    """Sentences in an update."""
    steps: int = 500
    """Updates of the parameters."""
    learning_rate: float = 8e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 1e-2
    """Decoupled weight decay."""
    seed: int = 0
    """Everything random follows from it."""
    run: Path = Path("runs/tagging")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def read(options: Options) -> list[list[tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Training, development, test: of each hundred sentences of ours the first 75, next 10, last 15."""
    if options.data is None:
        ours, cuts = read_columns(ENGLISH), ((0, 75), (75, 85), (85, 100))
        return [[s for i, s in enumerate(ours) if low <= i % 100 < high] for low, high in cuts]
    train, *rest = (options.data / f"{name}.tsv" for name in ("train", "dev", "test"))
    sentences = read_columns(train, bad=options.bad)
    known = Labels.train(tag for _, tags in sentences for tag in tags)
    return [sentences, *(read_columns(file, labels=known, bad=options.bad) for file in rest)]


def main(options: Options) -> dict[str, float]:
    """Train, tag the test part, show some of it, and give the shares that are right."""
    train, _, test = parts = read(options)
    pairs = [pair for sentence in train for pair in zip(*sentence, strict=True)]
    frequent = dict(p for p, _ in reversed(Counter(pairs).most_common()))  # the rarest first
    vocabulary = Vocabulary.train(([w.lower()] for w, _ in pairs), min_count=2)
    alphabet = Vocabulary.train((w for w, _ in pairs), min_count=2)
    labels = Labels.train(tag for _, tag in pairs)
    print("train, dev, test:", ", ".join(f"{len(part):,} sentences" for part in parts))

    def example(words: tuple[str, ...], tags: tuple[str, ...]) -> Example:
        rows = [alphabet.encode(word[:HALF] + word[HALF:][-HALF:]) for word in words]
        letters = np.stack([np.pad(row, (0, 2 * HALF - len(row))) for row in rows])
        spelled = Spelled(vocabulary.encode(word.lower() for word in words), letters)
        return Example(spelled, [labels.encode(tag) for tag in tags])

    learned, checked, tested = ([example(*pair) for pair in part] for part in parts)
    words = Tokens(vocabulary.size, options.embedding, options.dropout, options.token_dropout)
    letters = Tokens(alphabet.size, options.letters)
    both = lambda width: sj.Bidirectional(sj.LSTM(width), sj.LSTM(width))
    inputs = WordsAndLetters(words, letters, sj.Dropout(both(options.letters), options.dropout))
    model = Tagger(inputs, both(options.features), labels.size, dropout=options.dropout)

    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    groups, steps = 2 if len(train) < 5000 else 6, options.steps  # each is a program to compile
    rate = sj.optim.warmup_cosine(options.learning_rate, steps)
    optimizer = sj.optim.clipped_adamw(rate, weight_decay=options.weight_decay)
    whole = Buckets(checked, 64, boundaries=groups)
    sj.training.keep_options(options.run, options)
    result = sj.training.fit(
        model.loss,
        optimizer,
        sj.training.TrainState.create(model.init(init_key), optimizer, fit_key),
        Buckets(learned, options.batch, boundaries=groups, seed=options.seed),
        steps=steps,
        evaluate=lambda p: sj.training.evaluate(model.loss, p, None, whole.one_pass()),
        evaluate_every=max(1, steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)

    params, apply, found = result.state.params, jax.jit(model.apply), []
    for batch in Buckets(tested, 32, boundaries=1).one_pass():
        best = np.asarray(apply(params, batch.inputs, batch.lengths)).argmax(axis=-1)
        found += [best[:length, row] for row, length in enumerate(batch.lengths) if length]
    for (words, tags), numbers in list(zip(test, found, strict=True))[:3]:
        named = zip(words, tags, map(labels.decode, numbers), strict=True)
        print(*(f"{w}/{n}" if n == t else f"{w}/{n} (no, {t})" for w, t, n in named))
    flat = [pair for sentence in test for pair in zip(*sentence, strict=True)]
    guessed = [frequent.get(w, "PROPN" if w[0].isupper() else "NOUN") for w, _ in flat]
    unseen = np.array([w not in frequent for w, _ in flat])
    wanted, taken = np.concatenate([e.targets for e in tested]), np.concatenate(found)
    rights = {"accuracy": taken == wanted, "baseline": np.array(guessed) == [t for _, t in flat]}
    results = {name: float(right.mean()) for name, right in rights.items()}
    for name, right in rights.items() if unseen.any() else ():
        results[f"{name} of unseen words"] = float(right[unseen].mean())
    print(", ".join(f"{name} {value:.1%}" for name, value in results.items()))
    counts = sj.metrics.confusion_matrix(wanted, taken, labels.size)
    figure = matplotlib.figure.Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(labels.size), labels.names, rotation=90)
    axes.set(xlabel="taken for", ylabel="is", yticks=range(labels.size), yticklabels=labels.names)
    figure.savefig(options.run / "confusion.png")
    return results | {"parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
