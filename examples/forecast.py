"""What comes next? Many rows of numbers in, the next rows out, all of them at once.

    python examples/forecast.py    carbon dioxide in the air: 12 months from 48

Your own data: --data FILE, a CSV whose first line names the columns, each row a step; --columns for some
of them, --past and --horizon, --season; --bad interpolate or skip where values are missing.

    s_t, y_t = LSTM(s_{t-1}, z_t - z_T)     [p_1 … p_horizon] = y_T V + b + z_T     z = (x - μ) / σ

The gas breathes with the seasons and rises: repeating the last month or the last year misses the rise,
which the network reads from its past. μ and σ are those of the training part; the test part lies 2.9 σ
to 4.5 σ above μ, so all is counted from z_T (else it fails: --level target). forecast.png draws the end.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import jax
import matplotlib.figure
import numpy as np

import seqjax as sj
from seqjax.data import Buckets, Example

CARBON_DIOXIDE = Path(__file__).parent / "data" / "co2-concentration.csv"


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a forecaster."""

    data: Path | None = None
    """A table with a header, CSV; carbon dioxide in the air where there is none."""
    bad: Literal["refuse", "interpolate", "skip"] = "refuse"
    """What to do with a value that is no number: stop, draw a line through it, or leave its row out."""
    columns: tuple[str, ...] = ()
    """The columns to read and to predict; all but the dates where none is named."""
    train: int | float = 0.7
    """The rows, or the share of them, to train on: the first."""
    dev: int | float = 0.15
    """Those to look at while training: the next."""
    test: int | float = 0.15
    """Those to test on. The first windows of dev and test reach back into the part before."""
    past: int = 48
    """Rows that are read."""
    horizon: int = 12
    """Rows that are predicted."""
    season: int = 12
    """Rows of a season, for baselines that repeat it if `past` is longer; 0 for none."""
    level: Literal["all", "target", "none"] = "all"
    """What is counted from the last row that is read: all, what is predicted alone, or nothing."""
    layers: int = 1
    """Layers, with dropout between them."""
    features: int = 32
    """The width of each layer."""
    dropout: float = 0.0
    """The rate at which entries of outputs are dropped while training."""
    batch: int = 32
    """Windows in an update."""
    steps: int = 1000
    """Updates of the parameters."""
    learning_rate: float = 5e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    weight_decay: float = 1e-2
    """Decoupled weight decay."""
    seed: int = 0
    """Everything random follows from it."""
    run: Path = Path("runs/forecast")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


def baselines(past: np.ndarray, horizon: int, season: int) -> dict[str, np.ndarray]:
    """What needs no training: the last row; the last season; and that with what it grew by."""
    steps = np.arange(horizon)
    found = {"repeat last": past[0 * steps - 1]}
    if 0 < season < len(past):
        found["repeat season"] = past[steps % season - season]
        growth = (1 + steps // season)[:, None, None] * (past[-1] - past[-1 - season])
        found["season and growth"] = found["repeat season"] + growth
    return found


def main(options: Options) -> dict[str, float]:
    """Train, forecast the test part, draw the last of it, and give the errors."""
    columns, bad = options.columns or (("CO2",) if options.data is None else None), options.bad
    names, values, _ = sj.data.read_csv(options.data or CARBON_DIOXIDE, columns, bad=bad)
    past, horizon, steps = options.past, options.horizon, options.steps
    parts = sj.data.split_by_position(values, (options.train, options.dev, options.test), past=past)
    scaling = sj.data.Scaling.fit(parts[0])
    windows = [sj.data.forecast_windows(scaling.apply(p), past, horizon) for p in parts]
    # The error of a forecast is what it was where past and future are both counted from z_T.
    counted = lambda w: Example(w.inputs - w.inputs[-1], w.targets - w.inputs[-1])
    train, dev, test = ([*map(counted, w)] if options.level == "all" else w for w in windows)
    width, layer, depth = len(names), sj.LSTM(options.features), options.layers
    cell = sj.Stack((*[sj.Dropout(layer, options.dropout)] * (depth - 1), *[layer] * min(depth, 1)))
    last = tuple(range(width)) if options.level == "target" else None
    vectors, dropout = sj.models.Vectors(width), options.dropout
    model = sj.models.Regressor(vectors, cell, width, horizon, last=last, dropout=dropout)

    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    rate = sj.optim.warmup_cosine(options.learning_rate, steps)
    optimizer = sj.optim.clipped_adamw(rate, weight_decay=options.weight_decay)
    sj.training.keep_options(options.run, options)
    result = sj.training.fit(
        model.loss,
        optimizer,
        sj.training.TrainState.create(model.init(init_key), optimizer, fit_key),
        Buckets(train, options.batch, seed=options.seed),
        steps=steps,
        evaluate=lambda p: sj.training.evaluate(model.loss, p, None, Buckets(dev, 256).one_pass()),
        evaluate_every=max(1, steps // 6),
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)

    params, apply = result.state.params, jax.jit(model.apply)
    inputs, truth, *_ = sj.data.pad(test, past, len(test), target_time=horizon)
    found = [apply(params, inputs[:, i : i + 256]) for i in range(0, len(test), 256)]
    forecasts = {"": np.concatenate(found, 1), **baselines(inputs, horizon, options.season)}
    results: dict[str, float] = {"parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}
    for name, p in forecasts.items():
        errors = sj.metrics.forecast_errors(*map(jax.numpy.asarray, (p, truth)), scaling.deviation)
        line = {"mse": errors.mse.value, "mae": errors.mae.value}
        line |= {f"mae of {n}": v for n, v in zip(names, errors.column_mae.value, strict=True)}
        print(f"{name or 'LSTM'}: {', '.join(f'{k} {v:.4f}' for k, v in line.items())}")
        results.update({f"{name} {k}".strip(): float(v) for k, v in line.items()})
    shown = np.arange(len(test))[::-horizon][7::-1]  # windows whose futures lie end to end
    wrong = np.moveaxis(forecasts[""] - truth, 1, 0)[shown].reshape(-1, width) * scaling.deviation
    came = parts[-1][-len(wrong) :]
    figure = matplotlib.figure.Figure(figsize=(8, 1 + 1.5 * width), layout="constrained")
    panels = figure.subplots(width, sharex=True, squeeze=False)[:, 0]
    for panel, name, *pair in zip(panels, names, came.T, (came + wrong).T, strict=True):
        panel.plot(np.transpose(pair), label=["what came", "forecast"])
        panel.set(ylabel=name, xticks=range(0, len(wrong) + 1, horizon))
    panels[0].legend()
    figure.savefig(options.run / "forecast.png")
    return results


if __name__ == "__main__":
    from command_line import run

    run(main, Options, season=0)
