"""The picture of docs/diagnostics.md: a diagnosis of a tanh network, drawn.

python -m docs.diagnostics
"""

from pathlib import Path

import jax
import jax.numpy as jnp

import seqjax as sj

FOLDER = Path(__file__).resolve().parent
STEPS, BATCH, DELAY = 100, 16, 10


def problem(cell: sj.Cell) -> tuple:
    """A task of delay: y_t shall be what x was `DELAY` steps before; params as they start."""
    params = cell.init(jax.random.key(0), in_features=4)
    xs = jax.random.normal(jax.random.key(1), (STEPS, BATCH, 4))

    def loss(ys: jax.Array) -> jax.Array:
        return jnp.mean((ys[DELAY:, :, :4] - xs[:-DELAY]) ** 2)

    return params, xs, loss


def main() -> None:
    """Write the picture."""
    cell = sj.Elman(features=32, recurrent_init=sj.initializers.Orthogonal(0.95))
    figure = sj.diagnose(cell, *problem(cell)).plot()
    figure.savefig(FOLDER / "diagnostics.png", dpi=80)
    print("wrote docs/diagnostics.png")


if __name__ == "__main__":
    main()
