"""Read a sequence, write another of any length: an encoder, a decoder, and attention that is drawn.

    python examples/translation.py    dates: "march 5, 2021" -> "2021-03-05"

Your own data: --data FOLDER --languages de en with train.de, train.en, dev.de, dev.en, test.de, test.en,
one sentence a line, beside its translation; --bad skip leaves out pairs that cannot be read.

The encoder reads in both directions; at each step the decoder looks back at what it needs (Bahdanau,
Cho, Bengio 2015), and beam search writes. attention.png shows from where each token was read. The same
call goes on where one stopped.
"""

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

import seqjax as sj
from seqjax.data import Buckets, Example, Vocabulary, read_parallel

Pairs = list[tuple[tuple[str, ...], tuple[str, ...]]]
COUNTS = {"train": 6000, "dev": 300, "test": 200}


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a translator."""

    data: Path | None = None
    """A folder with train, dev and test in two languages; made-up dates where there is none."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What to do with a pair of yours that cannot be read: stop, or leave it out and count."""
    languages: tuple[str, str] = ("de", "en")
    """What is read and what is written: the endings of the files."""
    features: int = 64
    """The width of embeddings, of the encoder's directions, of the decoder, and of attention."""
    dropout: float = 0.2
    """The rate at which entries of embeddings and outputs are dropped while training."""
    batch: int = 64
    """Pairs in an update."""
    steps: int = 300
    """Updates of the parameters."""
    learning_rate: float = 5e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beam: int = 4
    """Hypotheses that beam search keeps open."""
    seed: int = 0
    """Everything random follows from it."""
    run: Path = Path("runs/translation")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def made_up(count: int, seed: int) -> Pairs:
    """Dates as people write them, letter by letter, and as ISO 8601 does."""
    draw, pairs = np.random.default_rng(seed), []
    for _ in range(count):
        day = datetime.date(1950, 1, 1) + datetime.timedelta(days=int(draw.integers(30_000)))
        form = draw.choice(["%B %d, %Y", "%d %B %Y", "%d %b %y", "%A, %d %B %Y", "%m/%d/%Y"])
        pairs.append((tuple(day.strftime(form).lower()), tuple(day.isoformat())))
    return pairs


def read(options: Options, part: str, count: int) -> Pairs:
    """The pairs of a part, cut at white space, in lower case."""
    if options.data is None:
        return made_up(count, seed=count)
    sides = (options.data / f"{part}.{language}" for language in options.languages)
    cut = lambda text: tuple(text.lower().split())
    return [(cut(a), cut(b)) for a, b in read_parallel(*sides, bad=options.bad)]


def main(options: Options) -> dict[str, float]:
    """Train, translate the test part with and without a beam, and draw one sentence."""
    parts = {part: read(options, part, n) for part, n in COUNTS.items()}
    print(", ".join(f"{name}: {len(pairs):,} pairs" for name, pairs in parts.items()))
    sides = zip(*parts["train"], strict=True)
    source, target = (Vocabulary.train(side, min_count=2) for side in sides)
    coded = lambda pair: Example(source.encode(pair[0]), target.encode(pair[1], stop=True))
    examples = {name: [coded(pair) for pair in pairs] for name, pairs in parts.items()}
    tokens = lambda v: sj.models.Tokens(v.size, options.features, dropout=options.dropout)
    encoder = sj.Bidirectional(sj.GRU(options.features), sj.GRU(options.features))
    decoder, attention = sj.GRU(options.features), sj.models.AdditiveAttention(options.features)
    model = sj.models.Seq2Seq(
        tokens(source), encoder, tokens(target), decoder, attention, dropout=options.dropout
    )
    keys, steps = jax.random.split(jax.random.key(options.seed)), options.steps
    rate = sj.optim.warmup_cosine(options.learning_rate, steps)
    optimizer = sj.optim.clipped_adamw(rate, weight_decay=options.weight_decay)
    whole = {name: Buckets(examples[name], 100, boundaries=1) for name in ("dev", "test")}
    nats = lambda p, part: sj.training.evaluate(model.loss, p, None, whole[part].one_pass())["nats"]
    sj.training.keep_options(options.run, options, free=("data", "run", "display", "beam"))
    result = sj.training.fit(
        model.loss,
        optimizer,
        sj.training.TrainState.create(model.init(keys[0]), optimizer, keys[1]),
        Buckets(examples["train"], options.batch, boundaries=3, seed=options.seed),
        steps=steps,
        evaluate=lambda params: {"nats": nats(params, "dev")},
        evaluate_every=max(1, steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)
    params, truth = result.state.params, [b for _, b in parts["test"]]
    longest, space = 2 * max(len(b) for _, b in parts["train"]), " " if options.data else ""
    found = {"perplexity": float(np.exp(nats(params, "test")))}
    for beam, name in ((1, "greedy"), (options.beam, "beam")):
        written = []
        for batch in whole["test"].one_pass():
            arguments = model, params, batch.inputs, batch.lengths
            best = sj.translate(*arguments, max_length=longest, beam=beam).tokens[..., 0]
            written += [target.decode(row) for row in best[:, batch.real].T]
        texts = ([" ".join(text) for text in side] for side in (written, truth))
        found[f"BLEU, {name}"] = sj.metrics.corpus_bleu(*texts, tokenize="none").score
        found[f"right, {name}"] = sum(map(tuple.__eq__, written, truth)) / len(truth)
    for (a, b), text in list(zip(parts["test"], written, strict=True))[:5]:
        print(f"{space.join(a)} -> {space.join(text)}   ({space.join(b)})")
    print("test:", "   ".join(f"{name} {value:.3f}" for name, value in found.items()))
    draw(model, params, source, target, parts["test"][0][0], written[0], options.run)
    return found | {"parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}


def draw(model, params, source, target, read, written, run: Path) -> None:
    """attention.png: a row for each token that is written, a column for each that is read."""
    ids = jnp.asarray(source.encode(read)), None, jnp.asarray(target.encode(written, stop=True))
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(model.align(params, *ids), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(read)), read)
    axes.set_yticks(range(len(written) + 1), [*written, "</s>"])
    axes.set(xlabel="read", ylabel="written", title="what each token was read from")
    figure.savefig(run / "attention.png")


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
