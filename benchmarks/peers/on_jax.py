"""What all contestants on JAX share: a layer is a pure function of its weights and xs, under jit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.problem import Prepared


def prepared(
    forward: Callable[[Any, Any], Any],
    params: Any,
    xs: np.ndarray,
    kind: str,
    weights: Callable[[Any], list[np.ndarray]],
    outputs: Callable[[Any], np.ndarray] = np.asarray,
) -> Prepared:
    """`forward(params, xs) -> ys`, or the gradient of mean(ys²) by params, as one program.

    params and xs are its arguments, so that nothing is folded into it. weights: gradients in our order,
    from what is like params. outputs: ys [T, B, H], from ys.
    """

    def loss(params: Any, xs: Any) -> Any:
        return jnp.mean(jnp.square(forward(params, xs)))

    run = jax.jit(forward if kind == "forward" else jax.grad(loss))
    params, xs = jax.tree.map(jnp.asarray, (params, xs))

    def read(result: Any) -> list[np.ndarray]:
        if kind == "forward":
            return [outputs(result)]
        return weights(jax.tree.map(np.asarray, result))

    return Prepared(lambda: jax.block_until_ready(run(params, xs)), read)
