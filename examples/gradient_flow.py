"""Draw how the gradient through time fades or grows, and what that does to learning.

    python examples/gradient_flow.py              two pictures, in gradient_flow/

The first shows ‖∂L/∂s_{T-ℓ}‖ against the lag ℓ, for a loss L at the last step of the adding problem,
before and after training: the logistic function forgets within a few steps, tanh within tens, gates
that start open and units that start by adding up keep the gradient for as long as the sequence lasts.

The second takes a network whose gradient explodes as soon as it learns, an IRNN with lively inputs, and
plain gradient descent: the loss after training against the learning rate, without a remedy, with the
gradient clipped, halved while it is too long, or truncated after a few steps; and how long the
gradients were at first. Clipped it learns the task, at rates at which it is lost without; truncation
alone does not save it. Truncated and clipped it learns too, though half of the numbers lie beyond the
reach of the gradient: an IRNN adds up from the start, and what it learns of the near ones holds for
all.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax import Array, lax

import seqjax as sj
from seqjax.gradients import Method
from seqjax.initializers import Chrono


@dataclasses.dataclass(frozen=True)
class Options:
    """Train small networks on the adding problem, and draw their gradients through time."""

    steps: int = 60
    """T, the steps of a sequence."""
    features: int = 32
    """The width of every network."""
    batch: int = 32
    """Sequences in an update."""
    updates: int = 500
    """Updates of each training of the first picture."""
    descent_steps: int = 30
    """T in the second picture."""
    descent_updates: int = 3000
    """Updates of each training of the second picture."""
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    """The step sizes of plain gradient descent."""
    truncated: int = 10
    """The steps that a truncated gradient reaches back."""
    seed: int = 0
    """Everything random follows from it."""
    into: Path = Path("gradient_flow")
    """The folder for the pictures."""


SHOWN = 200
"""Updates whose gradients are drawn."""


class Params(NamedTuple):
    """A cell, and the readout v, a of its output."""

    cell: Any
    weights: Array
    bias: Array


def networks(features: int, steps: int) -> dict[str, sj.Cell]:
    """What a course compares."""
    return {
        "Elman, logistic": sj.Elman(features, activation="sigmoid"),
        "Elman, tanh": sj.Elman(features),
        "Elman, relu": sj.Elman(features, activation="relu"),
        "IRNN": sj.IRNN(features),
        "SkipRNN, skip 10": sj.SkipRNN(features, skip=10),
        "LSTM, forget bias 0": sj.LSTM(features, forget_bias=0.0),
        "LSTM, forget bias 1": sj.LSTM(features),
        "LSTM, chrono": sj.LSTM(features, forget_bias=Chrono(steps)),
        "GRU": sj.GRU(features),
    }


def remedies(truncated: int) -> dict[str, tuple[Method, optax.GradientTransformation]]:
    """How a batch becomes a gradient, and what is done to it before plain gradient descent."""
    clip, keep = optax.clip_by_global_norm(1.0), optax.identity()
    short = sj.tbptt(truncated, weight="error", accumulate=True)
    return {
        "none": (sj.bptt, keep),
        "clipped at norm 1": (sj.bptt, clip),
        "halved until below 1": (sj.bptt, sj.optim.halve_by_global_norm(1.0, repeat=True)),
        f"truncated after {truncated}": (short, keep),
        f"truncated after {truncated}, clipped": (short, clip),
    }


def start(cell: sj.Cell, options: Options) -> Params:
    """Weights by the cell's own rule."""
    cell_key, readout_key = jax.random.split(jax.random.key(options.seed))
    weights = jax.random.normal(readout_key, (cell.out_features, 1)) / cell.out_features**0.5
    return Params(cell.init(cell_key, 2), weights, jnp.zeros(1))


def train(
    cell: sj.Cell,
    params: Params,
    options: Options,
    method: Method,
    optimizer: optax.GradientTransformation,
) -> tuple[Params, Array, Array]:
    """Params after training, and the loss and the length of the gradient at every update."""

    def loss(params: Params, carry: Any, batch: sj.data.AddingBatch, key: Array | None):
        carry, ys = sj.unroll(cell, params.cell, batch.inputs, carry)
        error = jnp.square(ys @ params.weights + params.bias - batch.targets)[..., 0]
        mean = sj.losses.mean_over(error, batch.mask)
        return mean.value, (carry, {"error": mean})

    recorded = optax.chain(sj.optim.clip_statistics(optax.identity()), optimizer)
    update = method.update(loss, recorded)

    def one(model: Any, key: Array) -> tuple[Any, tuple[Array, Array]]:
        params, opt_state = model
        batch = sj.data.adding_problem(key, options.steps, options.batch)
        carry = cell.initial_state(params.cell, (options.batch,))
        params, opt_state, _, metrics = update(params, opt_state, carry, batch, None)
        return (params, opt_state), (metrics["error"].value[-1], opt_state[0].norm_before)

    keys = jax.random.split(jax.random.key(options.seed + 1), options.updates)
    (params, _), (losses, norms) = lax.scan(one, (params, recorded.init(params)), keys)
    return params, losses, norms


def gradient_norms(cell: sj.Cell, params: Params, options: Options) -> np.ndarray:
    """‖∂L/∂s_{T-ℓ}‖ for ℓ = 1 … T, as a share of that for ℓ = 1."""
    batch = sj.data.adding_problem(jax.random.key(99), options.steps, options.batch)
    answer = lambda ys: ys[-1] @ params.weights + params.bias
    loss = lambda ys: jnp.mean(jnp.square(answer(ys) - batch.targets[-1]))
    norms = sj.diagnostics.flow(cell, params.cell, batch.inputs, loss).mean_norms()[1:]
    return norms / norms[0]


def draw_flow(options: Options) -> None:
    """The first picture: before and after training."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for name, cell in networks(options.features, options.steps).items():
        params = start(cell, options)
        optimizer = sj.optim.clipped_adamw(3e-3)
        trained, losses, _ = jax.jit(
            lambda p, cell=cell, o=optimizer: train(cell, p, options, sj.bptt, o)
        )(params)
        before, after = (gradient_norms(cell, p, options) for p in (params, trained))
        lags = np.arange(1, options.steps + 1)
        for panel, norms in zip(axes, (before, after), strict=True):
            panel.plot(lags, norms, label=name)
        print(
            f"{name:<22} {before[-1]:>9.2g} before, {after[-1]:>9.2g} after training to "
            f"{jnp.mean(losses[-20:]):.3f}",
            flush=True,
        )
    axes[0].set(title="before training", ylabel="‖∂L/∂s‖ over that one step back")
    axes[1].set(title=f"after {options.updates} updates")
    for panel in axes:
        panel.set(yscale="log", ylim=(1e-10, 1e3), xlabel="lag in steps")
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, options.into / "flow.png")


def draw_remedies(options: Options) -> None:
    """The second picture: a gradient that grows, and what helps."""
    cell = sj.IRNN(options.features, input_stddev=0.3)
    options = dataclasses.replace(
        options, steps=options.descent_steps, updates=options.descent_updates
    )
    params, rates = start(cell, options), jnp.asarray(options.learning_rates)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    print(f"{'learning rate':<28}", *(f"{rate:8.3g}" for rate in options.learning_rates))
    for name, (method, remedy) in remedies(options.truncated).items():

        def trained(rate: Array, method: Method = method, remedy: Any = remedy) -> Any:
            optimizer = optax.chain(remedy, optax.sgd(rate))
            return train(cell, params, options, method, optimizer)[1:]

        losses, norms = jax.jit(jax.vmap(trained))(rates)
        last = np.asarray(jnp.mean(losses[:, -50:], axis=1))
        axes[0].plot(rates, np.where(np.isfinite(last), last, np.nan), marker="o", label=name)
        axes[1].plot(norms[len(rates) // 2][:SHOWN], label=name, linewidth=1)
        print(f"{name:<28}", *(f"{value:8.3g}" for value in last), flush=True)
    axes[0].axhline(1 / 6, color="grey", linewidth=0.8, linestyle=":", label="without memory")
    axes[0].set(xscale="log", yscale="log", xlabel="learning rate", ylabel="loss (lost: no point)")
    axes[0].legend(fontsize=8)
    rate = options.learning_rates[len(rates) // 2]
    axes[1].set(yscale="log", xlabel="update", ylabel=f"‖∂L/∂θ‖ at rate {rate}")
    save(figure, options.into / "remedies.png")


def save(figure: Any, file: Path) -> None:
    """Write it, and say where."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130, metadata={"Software": None})
    plt.close(figure)
    print(f"wrote {file}")


def main(options: Options) -> None:
    """Both pictures."""
    if options.truncated > options.descent_steps:
        raise ValueError(
            f"--truncated: expected at most the {options.descent_steps} of --descent-steps, "
            f"got {options.truncated}"
        )
    draw_flow(options)
    draw_remedies(options)


if __name__ == "__main__":
    from command_line import run

    run(main, Options, steps=2, descent_steps=2)
