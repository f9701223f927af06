"""Which keys of a piano sound next? Music in several voices: from one step to the next.

    python examples/music.py    chorales that are made up here

Your own data: --data FILE, JSON {"train": pieces, "valid": pieces, "test": pieces}, a piece a list of
steps, a step a list of MIDI notes, 21 to 108; --bad skip leaves out pieces that cannot be read.

    s_t, y_t = cell(s_{t-1}, x_{t-1})     x_0 = 0     p = σ(y_t V + r)
    p(x_t | x_1 … x_{t-1}) = Π_k p_k^x_tk (1 - p_k)^(1 - x_tk)     of 88 keys k

Made-up chorales keep to a key; four voices move at every other step, by rules of harmony, and close on
V and I by turns. The baselines see keys alone: how often each sounds, and how often after it did or not.
Nats are of a step of the test part, first steps left out (Bai, Kolter, Koltun 2018). music.png and
chorale.mid: a test piece, and how the network goes on with it.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import jax
import matplotlib.figure
import numpy as np

import seqjax as sj
from seqjax.data import Buckets, Example, pad, read_piano_rolls, write_midi

SCALE, TRIAD = np.array([0, 2, 4, 5, 7, 9, 11]), np.array([0, 2, 4])
NEXT = {0: (3, 3, 3, 5), 1: (4,), 3: (4, 4, 4, 1), 4: (0, 0, 0, 5), 5: (1, 1, 1, 3)}  # I is 0


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a composer."""

    data: Path | None = None
    """A JSON file of pieces; made-up chorales where there is none."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What to do with a piece of yours that cannot be read: stop, or leave it out and count."""
    given: int = 16
    """Steps of a test piece that the network goes on with; all where it has fewer."""
    features: int = 128
    """The width of the cell."""
    dropout: float = 0.0
    """The rate at which entries of y, and of h on its way around, are dropped while training."""
    batch: int = 16
    """Pieces in an update."""
    steps: int = 600
    """Updates of the parameters."""
    learning_rate: float = 1e-2
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 0.0
    """The share of the parameters that an update takes off, times the learning rate."""
    seed: int = 0
    """Everything random follows from it, but for the data."""
    run: Path = Path("runs/music")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def made_up(count: int, seed: int) -> list[np.ndarray]:
    """Piano rolls of 2 to 4 phrases: four bars, eight chords, sixteen steps each."""
    draw, pieces, notes = np.random.default_rng(seed), [], np.arange(21, 109)
    for _ in range(count):
        tonic, chords = draw.integers(12), []
        for phrase in range(draw.integers(2, 5)):
            chords.append(0)
            while len(chords) % 8 != 6:
                chords.append(int(draw.choice(NEXT[chords[-1]])))
            chords += [4, 0] if phrase % 2 else [3, 4]
        roll = np.zeros((2 * len(chords), 88), bool)
        for t, chord in enumerate(chords):
            tones = (tonic + SCALE[(chord + TRIAD) % 7]) % 12
            for place in (69, 62, 55, 45):  # each voice sings what is nearest; the bass the root
                fits = notes[np.isin(notes % 12, tones[:1] if place == 45 else tones)]
                roll[2 * t : 2 * t + 2, fits[np.abs(fits - place).argmin()] - 21] = True
        pieces.append(roll)
    return pieces


def main(options: Options) -> dict[str, float]:
    """Train, test, compose, and give the nats of a step of the test part."""
    if options.data is None:
        train, dev, test = (made_up(n, seed) for seed, n in enumerate((400, 50, 100)))
    else:
        parts = read_piano_rolls(options.data, bad=options.bad)
        train, dev, test = (parts.get(name, []) for name in ("train", "valid", "test"))
    if not (train and dev and test) or min(map(len, test)) < 2:
        raise ValueError(f"{options.data}: expected pieces in train, valid and test, of two steps")
    examples = lambda part: [Example((), roll) for roll in part]
    cell, steps = sj.RecurrentDropout(sj.LSTM(options.features), options.dropout), options.steps
    model = sj.models.Generator(sj.models.Bits(88), cell, dropout=options.dropout)

    init_key, fit_key, draw_key = jax.random.split(jax.random.key(options.seed), 3)
    rate = sj.optim.warmup_cosine(options.learning_rate, steps)
    optimizer = sj.optim.clipped_adamw(rate, weight_decay=options.weight_decay)
    look = Buckets(examples(dev), 100, boundaries=1)
    sj.training.keep_options(options.run, options, free=("data", "run", "display", "given"))
    result = sj.training.fit(
        model.loss,
        optimizer,
        sj.training.TrainState.create(model.init(init_key), optimizer, fit_key),
        Buckets(examples(train), options.batch, boundaries=2, seed=options.seed),
        steps=steps,
        evaluate=lambda params: sj.training.evaluate(model.loss, params, None, look.one_pass()),
        evaluate_every=max(1, steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)

    params, x = result.state.params, pad(examples(test), max(map(len, test)), len(test))
    before, after = (np.concatenate([roll[cut] for roll in train]) for cut in np.s_[:-1, 1:])
    odds = lambda among: np.log(((after & among).sum(0) + 1) / ((~after & among).sum(0) + 1))

    def per_step(outputs) -> sj.metrics.StepMeans:
        nats = model.elements.nats(jax.numpy.float32(outputs), x.targets)[1:]
        real = np.arange(1, len(x.targets))[:, None] < x.target_lengths
        return sj.metrics.nll_per_step(np.where(real, nats, 0).sum(axis=0), x.target_lengths - 1)

    network = per_step(model.apply(params, x.targets, None, x.target_lengths))
    markov = np.where(np.roll(x.targets, 1, axis=0), odds(before), odds(~before))
    results = {
        "nats per step": network.over_steps,
        "nats per step, mean of pieces": network.over_pieces,
        "baseline, fixed": per_step(np.broadcast_to(odds(True), x.targets.shape)).over_steps,
        "baseline, Markov": per_step(markov).over_steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }
    print("   ".join(f"{name}: {value:,.6g}" for name, value in results.items()))
    given = test[0][: options.given]
    new = model.generate(params, draw_key, steps=64, prompt=given)
    figure = matplotlib.figure.Figure(figsize=(9, 5), layout="constrained")
    axes, octaves = figure.subplots(), range(1, 9)
    axes.imshow(np.concatenate([0.4 * given, new]).T, "Blues", origin="lower", aspect="auto")
    axes.set(yticks=[12 * n - 9 for n in octaves], yticklabels=[f"C{n}" for n in octaves])
    axes.set(xlabel="step", title=f"{len(given)} steps of a test piece, and how it goes on")
    figure.savefig(options.run / "music.png")
    write_midi(options.run / "chorale.mid", np.concatenate([given, new]))
    return results


if __name__ == "__main__":
    from command_line import run

    run(main, Options, given=0)
