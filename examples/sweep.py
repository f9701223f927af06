"""Where gradients explode: many networks at once, each with its own learning rate and clipping.

    python examples/sweep.py               the adding problem over 30 steps, 8 × 6 networks
    python examples/sweep.py --seeds 3     each three times; a map shows the best of the three

    h_t = max(0, x_t W + h_{t-1} U + b)     U = I at first (IRNN; Le, Jaitly, Hinton 2015)
    ∇ ← ∇ · min(1, τ / ‖∇‖)                 θ ← θ - α ∇

All networks train in one compiled program, on the same batches. One long step makes U grow, and then a
gradient over 30 steps grows like ‖U‖³⁰: the map of the largest ‖∇‖ shows the cliff, that of the error
who fell from it (a cross is lost for good). τ = inf does not clip. The same call goes on where one
stopped.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.colors
import matplotlib.figure
import numpy as np
import optax

import seqjax as sj


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a grid of networks on the adding problem, and draw what became of them."""

    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """α, from left to right."""
    clip_norms: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0, float("inf"))
    """τ, from below."""
    seeds: int = 1
    """Networks at each point, from other initial values."""
    length: int = 30
    """Steps of a sequence."""
    features: int = 32
    """The width of each network."""
    batch: int = 32
    """Sequences in an update."""
    steps: int = 1500
    """Updates of each network."""
    run: Path = Path("runs/sweep")
    """The run folder."""
    display: bool = True
    """Show progress while it trains."""


class Batches:
    """New sequences for every update, and where they are: what a run folder keeps."""

    def __init__(self, length: int, batch: int) -> None:
        """Before the first."""
        self.position = 0
        self._draw = jax.jit(lambda key: sj.data.adding_problem(key, length, batch))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> sj.data.AddingBatch:
        self.position += 1
        return self._draw(jax.random.fold_in(jax.random.key(0), self.position))

    def get_state(self) -> dict[str, int]:
        """The number of the last one."""
        return {"position": self.position}

    def set_state(self, state: dict[str, int]) -> None:
        """Go on after it."""
        self.position = state["position"]


def main(options: Options) -> dict[str, float]:
    """Train all, draw two maps, and give the best error and how many did not learn."""
    cell = sj.IRNN(options.features, input_stddev=0.3)

    def loss(params, carry, batch, key):
        _, ys = sj.unroll(cell, params["cell"], batch.inputs)
        answers = ys @ params["V"] + params["a"]
        error = sj.losses.mean_over(jnp.square(answers - batch.targets)[..., 0], batch.mask)
        return error.value, (carry, {"error": error})

    def build(setting):
        """What `fit` would take, under a setting whose numbers are traced."""
        cell_key, readout_key, fit_key = jax.random.split(jax.random.key(setting["seed"]), 3)
        V = jax.random.normal(readout_key, (options.features, 1)) / options.features**0.5
        params = {"cell": cell.init(cell_key, 2), "V": V, "a": jnp.zeros(1)}
        clip = sj.optim.clip_statistics(optax.clip_by_global_norm(setting["clip_norm"]))
        optimizer = optax.chain(clip, optax.sgd(setting["learning_rate"]))
        return loss, optimizer, sj.training.TrainState.create(params, optimizer, fit_key)

    test = sj.data.adding_problem(jax.random.key(1), options.length, 200)
    sj.training.keep_options(options.run, options)
    result = sj.training.sweep(
        build,
        sj.training.grid(
            learning_rate=options.learning_rates,
            clip_norm=options.clip_norms,
            seed=range(options.seeds),
        ),
        Batches(options.length, options.batch),
        steps=options.steps,
        evaluate=lambda setting, params: {"error": loss(params, None, test, None)[0]},
        evaluate_every=max(1, options.steps // 10),
        log_every=5,
        directory=options.run,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)
    print("\n".join(str(result).splitlines()[:9]))
    norms = result.curve("norm_before")[1]
    largest = np.fmax.reduce(np.where(np.isfinite(norms), norms, np.nan))  # NaN where all are
    draw(options, result, largest)
    print(f"the largest gradient: {np.nanmax(largest):.3g}; see {options.run / 'cliff.png'}")
    lost = np.sum(~(result.scores < 1 / 6))  # the error of one who answers 1 to everything
    return {"error": float(np.nanmin(result.scores)), "lost": int(lost), "norm": np.nanmax(largest)}


def draw(options: Options, result: sj.training.SweepResult, largest: np.ndarray) -> None:
    """cliff.png: the largest norm of a gradient on the left, the error of the test on the right."""
    shape = len(options.learning_rates), len(options.clip_norms)
    figure = matplotlib.figure.Figure(figsize=(11, 4), layout="constrained")
    errors = np.where(np.isfinite(result.scores), result.scores, np.nan)
    maps = {"the largest ‖∇‖ of a training": largest, "error after training": errors}
    for panel, (title, values) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        best = np.fmin.reduce(values.reshape(*shape, -1), axis=2)  # NaN where all seeds are
        norm = matplotlib.colors.LogNorm(vmax=min(np.nanmax(best), 1e4 * np.nanmin(best)))
        shown = panel.imshow(best.T, norm=norm, origin="lower", aspect="auto", cmap="magma")
        figure.colorbar(shown, ax=panel, extend="max")
        panel.plot(*np.nonzero(np.isnan(best)), "x", color="black")
        panel.set(title=title, xlabel="learning rate α", ylabel="threshold τ")
        panel.set_xticks(range(shape[0]), options.learning_rates)
        panel.set_yticks(range(shape[1]), options.clip_norms)
    figure.savefig(options.run / "cliff.png", dpi=130)


if __name__ == "__main__":
    from command_line import run

    run(main, Options, length=2)
