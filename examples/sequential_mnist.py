"""Which digit is it? Pixels come one by one, and then it is named: many to one, over a long sequence.

    python examples/sequential_mnist.py    calculator digits, 12 × 12 pixels: 144 steps; MNIST: 784

Your own data: --data FOLDER with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k,
or .gz of them, as MNIST has them: grey images of any one size, labels from 0 to 9.

    x_t = pixel_t     s_t, y_t = cell(s_{t-1}, x_t)     p(digit) = softmax(y_T V + b)

A calculator digit has any size and place, and 2 % of all pixels are turned. Which stroke a pixel is of
shows only beside others that were read long before, and the nearest mean of a class, the baseline,
cannot see that. beliefs.png: p(digit) if the image ended after each of its pixels.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import jax
import matplotlib.figure
import numpy as np

import seqjax as sj
from seqjax.data import Buckets, Example, read_mnist
from seqjax.initializers import Chrono

CELLS = {  # whose first memories are of all lengths up to the whole sequence
    "lstm": lambda features, steps: sj.LSTM(features, forget_bias=Chrono(steps)),
    "gru": lambda features, steps: sj.GRU(features, update_bias=Chrono(steps)),
    "mingru": lambda features, steps: sj.MinGRU(features, update_bias=Chrono(steps, negated=True)),
    "lru": lambda features, steps: sj.LRU(features, r_min=0.9),
}
ROWS = "75557 11111 71747 71717 55711 74717 74757 71111 75757 75717"  # of 0 … 9, each row in octal
GLYPHS = np.array([[[int(row) >> k & 1 for k in (2, 1, 0)] for row in d] for d in ROWS.split()])


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a classifier of images that are read as sequences."""

    data: Path | None = None
    """A folder with the four idx files of MNIST; calculator digits where there is none."""
    order: Literal["pixels", "permuted", "rows"] = "pixels"
    """What a step reads: a pixel, a pixel in one random order of all, or a row."""
    cell: Literal[*CELLS] = "gru"  # pyright: ignore[reportInvalidTypeForm] - the names of a table
    """The cell."""
    layers: int = 1
    """How many of them; a gated linear unit follows each above the first, and a residual goes around."""
    features: int = 64
    """The width of each."""
    dropout: float = 0.0
    """The rate at which entries of y_T are dropped while training."""
    batch: int = 64
    """Images in an update."""
    steps: int = 1000
    """Updates of the parameters."""
    learning_rate: float = 1e-2
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 0.0
    """The share of the parameters that an update takes off, times the learning rate."""
    seed: int = 0
    """Everything random follows from it, but for the data and its order."""
    run: Path = Path("runs/sequential_mnist")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calculator digits, 7 or 9 pixels high and 5 to 7 wide, anywhere; and which they are."""
    draw = np.random.default_rng(seed)
    digits, images = draw.integers(10, size=count), np.zeros((count, 12, 12), int)
    for image, digit in zip(images, digits, strict=True):
        high, wide = draw.integers([2, 3], [4, 6])  # between two strokes
        top, left = draw.integers([10 - 2 * high, 11 - wide])
        glyph = GLYPHS[digit].repeat([1, high, 1, high, 1], axis=0).repeat([1, wide, 1], axis=1)
        image[top : top + len(glyph), left : left + wide + 2] = glyph
    return (images ^ (draw.random(images.shape) < 0.02)).astype(np.float32), digits


def main(options: Options) -> dict[str, float]:
    """Train, test, draw beliefs, and give the accuracy on the test part."""
    if options.data is None:
        train, dev, test = (made_up(n, seed) for seed, n in enumerate((5000, 500, 1000)))
    else:
        (images, digits), test = read_mnist(options.data)
        cut = len(images) - len(images) // 12  # the last 5,000 of 60,000 are the development part
        train, dev = (images[:cut], digits[:cut]), (images[cut:], digits[cut:])
    length = train[0].shape[1] if options.order == "rows" else train[0][0].size
    order = np.arange(train[0][0].size).reshape(length, -1)
    if options.order == "permuted":
        order = np.random.default_rng(0).permutation(order)
    examples = lambda part: [Example(x.ravel()[order], int(y)) for x, y in zip(*part, strict=True)]
    layer, steps = CELLS[options.cell](options.features, length), options.steps
    above = sj.Residual(sj.GLU(layer))
    cell = sj.Stack(tuple(above if i else layer for i in range(options.layers)))
    pixels = sj.models.Vectors(order.shape[1])
    model = sj.models.Classifier(pixels, cell, 10, dropout=options.dropout)

    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    rate = sj.optim.warmup_cosine(options.learning_rate, steps)
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
    params, classes = result.state.params, np.unique(train[1])
    means = np.stack([train[0][train[1] == c].mean(axis=0) for c in classes])
    nearest = classes[[np.argmin(np.sum((means - x) ** 2, axis=(1, 2))) for x in test[0]]]
    accuracy, baseline = score(params, 1)["accuracy"], float(np.mean(nearest == test[1]))
    figure = matplotlib.figure.Figure(figsize=(8, 7), layout="constrained")
    ends = np.unique(np.linspace(1, length, 144).astype(np.int32))
    for (left, right), x in zip(figure.subplots(4, 2, width_ratios=[1, 4]), test[0], strict=False):
        same = np.repeat(x.ravel()[order][:, None], len(ends), axis=1)
        p = jax.nn.softmax(model.apply(params, same, ends))
        left.imshow(x, cmap="gray_r")
        left.set_axis_off()
        right.pcolormesh(ends, range(10), p.T, cmap="Blues", vmin=0, vmax=1)
        right.set(yticks=range(10), ylabel="p(digit)", xlabel="steps that are read")
    figure.savefig(options.run / "beliefs.png")
    print(f"test: {accuracy:.2%}   the nearest mean of a class: {baseline:.2%}   see {options.run}")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"accuracy": accuracy, "baseline": baseline, "parameters": parameters}


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
