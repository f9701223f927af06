"""What all contestants on JAX share: a layer is a pure function of its weights and xs, under jit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.peers.problem import Prepared

ROWS = PartitionSpec(None, "rows")
"""Where xs and ys are divided: along the batch, their second axis."""


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
    from what is like params. outputs: ys [T, B, H], from ys. In a process with several CPU devices
    (`benchmarks.peers.cores`) each has a part of the batch.
    """

    def loss(params: Any, xs: Any) -> Any:
        return jnp.mean(jnp.square(forward(params, xs)))

    function = forward if kind == "forward" else jax.grad(loss)
    params, xs = jax.tree.map(jnp.asarray, (params, xs))
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        mesh = Mesh(np.array(jax.devices()), ROWS[1:])
        function = divided(function, kind, mesh)
        # Once, as data that is made ready for all devices is: not in every call that is timed.
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        xs = jax.device_put(xs, NamedSharding(mesh, ROWS))
    run = jax.jit(function)

    def read(result: Any) -> list[np.ndarray]:
        if kind == "forward":
            return [outputs(result)]
        return weights(jax.tree.map(np.asarray, result))

    return Prepared(lambda: jax.block_until_ready(run(params, xs)), read)


def divided(
    function: Callable[[Any, Any], Any], kind: str, mesh: Mesh
) -> Callable[[Any, Any], Any]:
    """The same over the rows of all devices: outputs side by side, gradients averaged at once."""

    def mean(params: Any, xs: Any) -> Any:
        gradient, again = ravel_pytree(function(params, xs))
        return again(jax.lax.pmean(gradient, ROWS[1]))

    return jax.shard_map(
        function if kind == "forward" else mean,
        mesh=mesh,
        in_specs=(PartitionSpec(), ROWS),
        out_specs=ROWS if kind == "forward" else PartitionSpec(),
        check_vma=False,
    )
