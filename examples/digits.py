"""Write a digit, row by row: one class in, a whole image out, one to many.

    python examples/digits.py    digits in twelve fonts, which matplotlib brings

Your own data: --data FOLDER with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k,
or .gz of them, as MNIST has them: grey images of any one size, labels from 0 to 9.

    s_0 = tanh(c B + b)     s_t, y_t = cell(s_{t-1}, [row_{t-1}, c])     c = E[digit],  row_0 = 0
    p(row_t | rows before, digit) = Π_i p_i^row_ti (1 - p_i)^(1 - row_ti)     p = σ(y_t V + r)

A printed digit has a font, a size and a place: its first rows show them and the others keep to them, as
independent pixels for each class, the baseline, cannot. The grey of MNIST is a probability of ink, drawn
once (Salakhutdinov, Murray 2008). samples.png: digits of the data, and of the model at temperature 0.6.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

import seqjax as sj
from seqjax.data import Buckets, Example, read_mnist

STYLES = ("regular", "italic", "bold", "bold:italic")
FONTS = [f"DejaVu {name}:{style}" for name in ("Sans", "Serif", "Sans Mono") for style in STYLES]


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a writer of digits."""

    data: Path | None = None
    """A folder with the four idx files of MNIST; printed digits where there is none."""
    features: int = 128
    """The width of the cell."""
    embedding: int = 16
    """The width of the embedding of a class."""
    dropout: float = 0.0
    """The rate at which entries of y are dropped while training."""
    batch: int = 64
    """Images in an update."""
    steps: int = 1000
    """Updates of the parameters."""
    learning_rate: float = 5e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 0.0
    """The share of the parameters that an update takes off, times the learning rate."""
    seed: int = 0
    """Everything random follows from it, but for the data."""
    run: Path = Path("runs/digits")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [count, 28, 28] of ink, of digits in a font, of a size and at a place that are drawn."""
    figure = matplotlib.figure.Figure(figsize=(10, len(FONTS)), dpi=80)
    for row, font in enumerate(FONTS):
        for digit in range(10):
            place = (digit + 0.5) / 10, 1 - (row + 0.5) / len(FONTS)
            figure.text(*place, str(digit), font=font, size=40, ha="center", va="center_baseline")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ink = np.asarray(canvas.buffer_rgba())[..., 0] < 128
    ink = ink.reshape(len(FONTS), 80, 10, 80).swapaxes(1, 2)  # [fonts, digits, rows, columns]
    draw = np.random.default_rng(seed)
    font, digits = draw.integers([[len(FONTS)], [10]], size=(2, count))
    size, down, right = (draw.uniform(*ends, (count, 1)) for ends in ((1.9, 2.4), (-2, 2), (-1, 1)))
    pixels = np.arange(28) - 13.5  # from the middle; and where they lie on the glyph:
    rows, columns = ((size * (pixels - moved) + 40).astype(int) for moved in (down, right))
    at = font[:, None, None], digits[:, None, None], rows[:, :, None], columns[:, None]
    return ink[at], digits


def ink(part: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Grey images, of which a pixel is ink with the probability that it is dark; and digits."""
    grey, digits = part
    return grey > np.random.default_rng(0).random(grey.shape, np.float32), digits


def main(options: Options) -> dict[str, float]:
    """Train, test, draw digits, and give the nats of an image of the test part."""
    if options.data is None:
        train, dev, test = (made_up(n, seed) for seed, n in enumerate((6000, 500, 1000)))
    else:
        (images, digits), test = map(ink, read_mnist(options.data))
        cut = len(images) - len(images) // 12  # the last 5,000 of 60,000 are the development part
        train, dev = (images[:cut], digits[:cut]), (images[cut:], digits[cut:])
    rows, columns = train[0].shape[1:]
    examples = lambda part: [Example(int(y), x) for x, y in zip(*part, strict=True)]
    cell, digit = sj.LSTM(options.features), sj.models.Tokens(10, options.embedding)
    model = sj.models.Generator(sj.models.Bits(columns), cell, digit, dropout=options.dropout)

    init_key, fit_key, draw_key = jax.random.split(jax.random.key(options.seed), 3)
    steps, rate = options.steps, sj.optim.warmup_cosine(options.learning_rate, options.steps)
    optimizer = sj.optim.clipped_adamw(rate, weight_decay=options.weight_decay)
    state = sj.training.TrainState.create(model.init(init_key), optimizer, fit_key)
    looks = [Buckets(examples(part), 250, boundaries=1) for part in (dev, test)]
    score = lambda params, i: sj.training.evaluate(model.loss, params, None, looks[i].one_pass())
    sj.training.keep_options(options.run, options)
    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        Buckets(examples(train), options.batch, boundaries=1, seed=options.seed),
        steps=steps,
        evaluate=lambda params: score(params, 0),
        evaluate_every=max(1, steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)
    params, each = result.state.params, [train[0][train[1] == c] for c in range(10)]
    p = np.stack([(x.sum(axis=0) + 1) / (len(x) + 2) for x in each])[test[1]]
    baseline = float(-np.log(np.where(test[0], p, 1 - p)).sum(axis=(1, 2)).mean())
    nats = rows * score(params, 1)["nats"]  # which are those of a row
    print(
        f"test: {nats:.1f} nats an image   independent pixels: {baseline:.1f}   see {options.run}"
    )
    figure = matplotlib.figure.Figure(figsize=(9, 6), layout="constrained")
    classes = np.repeat(np.arange(10), 8)
    drawn = model.generate(params, draw_key, classes, steps=rows, temperature=0.6)
    drawn = jnp.swapaxes(drawn, 0, 1).reshape(10, 8, rows, columns)
    seen = [np.resize(x, (8, rows, columns)) for x in each]
    for axes, shown in zip(figure.subplots(1, 2), (seen, drawn), strict=True):
        axes.imshow(np.block([list(of_class) for of_class in shown]), cmap="gray_r")
        axes.set(title="of the data" if shown is seen else "of the model", xticks=[], yticks=[])
    figure.savefig(options.run / "samples.png")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"nats per image": nats, "baseline": baseline, "parameters": parameters}


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
