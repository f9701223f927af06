"""Read a sequence, write another of any length: an encoder, a decoder, and attention that is drawn.

    python examples/translation.py                    dates: "march 5, 2021" -> "2021-03-05"
    python examples/translation.py --data my/folder   its train.de, train.en, dev.de, ...; --from, --to

The encoder reads in both directions; at each step the decoder looks back at what it needs (Bahdanau,
Cho, Bengio 2015), and beam search writes. attention.png shows from where each token was read. A run
folder keeps checkpoints, log and curves; the same call goes on where one stopped.
"""

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import tyro

import seqjax as sj
from seqjax.data import Buckets, Example, Vocabulary, read_parallel

Pairs = list[tuple[tuple[str, ...], tuple[str, ...]]]


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a translator."""

    data: Path | None = None
    """A folder with train, dev and test in two languages; made-up dates where there is none."""
    source: Annotated[str, tyro.conf.arg(name="from")] = "de"
    """The language that is read: the ending of its files."""
    target: Annotated[str, tyro.conf.arg(name="to")] = "en"
    """The language that is written."""
    features: int = 64
    """The width of the encoder's directions, of the decoder, and of attention."""
    embedding: int = 32
    """The width of a token's embedding."""
    dropout: float = 0.2
    """The rate at which entries of embeddings and outputs are dropped while training."""
    min_count: int = 2
    """Tokens that training saw less often are unknown."""
    batch: int = 64
    """Pairs in an update."""
    buckets: int = 2
    """Groups of like length; each is a program of its own, which takes a while to compile."""
    steps: int = 300
    """Updates of the parameters."""
    learning_rate: float = 5e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
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
    sides = (options.data / f"{part}.{language}" for language in (options.source, options.target))
    cut = lambda text: tuple(text.lower().split())
    return [(cut(a), cut(b)) for a, b in read_parallel(*sides)]


def main(options: Options) -> float:
    """Train, translate the test part, draw one, and give the share that is right to the last token."""
    parts = {
        name: read(options, name, n) for name, n in (("train", 6000), ("dev", 300), ("test", 200))
    }
    sides = zip(*parts["train"], strict=True)
    source, target = (Vocabulary.train(side, min_count=options.min_count) for side in sides)
    examples = {
        name: [Example(source.encode(a), target.encode(b, stop=True)) for a, b in pairs]
        for name, pairs in parts.items()
    }
    tokens = lambda v: sj.models.Tokens(v.size, options.embedding, dropout=options.dropout)
    encoder = sj.Bidirectional(sj.GRU(options.features), sj.GRU(options.features))
    decoder, attention = sj.GRU(options.features), sj.models.AdditiveAttention(options.features)
    model = sj.models.Seq2Seq(
        tokens(source), encoder, tokens(target), decoder, attention, dropout=options.dropout
    )

    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    rate = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, options.steps // 10, options.steps
    )
    optimizer = sj.optim.clipped_adamw(rate)
    state = sj.training.TrainState.create(model.init(init_key), optimizer, fit_key)
    dev = Buckets(examples["dev"], 100, boundaries=1)
    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        Buckets(examples["train"], options.batch, boundaries=options.buckets, seed=options.seed),
        steps=options.steps,
        evaluate=lambda p: sj.training.evaluate(model.loss, p, None, dev.one_pass()),
        evaluate_every=max(1, options.steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)

    params, written = result.state.params, []
    longest = 2 * max(len(b) for _, b in parts["train"])
    for batch in Buckets(examples["test"], 100, boundaries=1).one_pass():
        found = sj.translate(
            model, params, batch.inputs, batch.lengths, max_length=longest, beam=options.beam
        )
        written += [target.decode(row) for row in found.tokens[:, batch.real, 0].T]
    truth = [b for _, b in parts["test"]]
    between = "" if options.data is None else " "
    for (a, b), text in list(zip(parts["test"], written, strict=True))[:5]:
        print(f"{between.join(a)} -> {between.join(text)}   ({between.join(b)})")
    right = float(np.mean([a == b for a, b in zip(written, truth, strict=True)]))
    texts = ([between.join(side) for side in sides] for sides in (written, truth))
    print(f"right to the last token: {right:.1%}   {sj.metrics.corpus_bleu(*texts)}")
    draw(model, params, source, target, parts["test"][0][0], written[0], options.run)
    return right


def draw(model, params, source, target, read, written, run: Path) -> None:
    """attention.png: a row for each token that is written, a column for each that is read."""
    inputs = jnp.asarray(source.encode(read))
    weights = model.align(params, inputs, None, jnp.asarray(target.encode(written, stop=True)))
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(read)), read)
    axes.set_yticks(range(len(written) + 1), [*written, "</s>"])
    axes.set(xlabel="read", ylabel="written", title="what each token was read from")
    figure.savefig(run / "attention.png")
    print(f"attention: {run / 'attention.png'}   curves: {run / 'curves.png'}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"translation.py: {error}")
