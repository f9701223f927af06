"""What is compiled: the gradient of mean(ys²) through layers of one cell, by each library.

Each gives a `Program`, which makes new functions and modules whenever it is asked, so that nothing of an
earlier compilation hangs on them. Weights come and go as in `benchmarks.peers`. None of the libraries is
needed by the others.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj
from benchmarks.peers import ours
from benchmarks.peers.problem import Problem, Shape, drawn
from seqjax.wrappers.stack import StackParams

Forward = Callable[[Any, Any], Any]
"""(params, xs) -> ys, xs [T, B, D]."""


class Program(NamedTuple):
    """What makes the forward pass anew; its params; what reads their gradient as arrays in our order."""

    make: Callable[[], Forward]
    params: Any
    weights: Callable[[Any], list[np.ndarray]]


def layers_of(cell: str, shape: Shape, depth: int) -> list[Problem]:
    """The weights of each layer; the xs are those of the first."""
    batch, _, _, features = shape
    above = Shape(batch, 1, features, features)
    return [drawn(cell, above if number else shape, seed=number) for number in range(depth)]


def gradient_of(forward: Forward) -> Forward:
    """The gradient of mean(ys²) by the params: a new function object at every call."""
    return jax.grad(lambda params, xs: jnp.mean(jnp.square(forward(params, xs))))


def of_ours(layers: Sequence[Problem]) -> Program:
    """`sj.unroll` with its defaults, of the cell or of a `sj.Stack` of several."""
    make_cell, params_of = ours.CELLS[layers[0].cell]
    params = StackParams(tuple(params_of(*layer.weights) for layer in layers))

    def make() -> Forward:
        cells = tuple(make_cell(layer.features) for layer in layers)
        if len(cells) == 1:
            return lambda params, xs: sj.unroll(cells[0], params.layers[0], xs)[1]
        return lambda params, xs: sj.unroll(sj.Stack(cells), params, xs)[1]

    return Program(make, params, jax.tree.leaves)


def of_linen(layers: Sequence[Problem]) -> Program:
    """Flax: `nn.RNN` around each cell, one after the other in `nn.Sequential`."""
    from flax import linen as nn

    from benchmarks.peers import flax_linen

    cell = layers[0].cell
    make_cell = flax_linen.CELLS[cell]
    names = [f"layers_{number}" for number in range(len(layers))]
    params = {
        name: {"cell": flax_linen.unpacked(layer)}
        for name, layer in zip(names, layers, strict=True)
    }

    def make() -> Forward:
        return nn.Sequential(
            [nn.RNN(make_cell(layer.features), time_major=True) for layer in layers]
        ).apply

    def weights(found: Any) -> list[np.ndarray]:
        each = [flax_linen.packed(cell, found["params"][name]["cell"]) for name in names]
        return [array for arrays in each for array in arrays]

    return Program(make, {"params": params}, weights)


def of_haiku(layers: Sequence[Problem]) -> Program:
    """Haiku: `hk.dynamic_unroll` of the core, or of a `hk.DeepRNN`, which is one scan for all layers."""
    import haiku as hk

    from benchmarks.peers import haiku

    cell = layers[0].cell
    make_core = haiku.CELLS[cell]
    each = [haiku.PARAMS[cell](layer) for layer in layers]

    def numbered(name: str, number: int) -> str:
        """As the second and later modules of one kind are called: lstm_1/linear."""
        core, *rest = name.split("/")
        return "/".join([f"{core}_{number}" if number else core, *rest])

    def run(xs: Any) -> Any:
        cores = [make_core(layer.features) for layer in layers]
        core = cores[0] if len(cores) == 1 else hk.DeepRNN(cores)
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    def weights(found: Any) -> list[np.ndarray]:
        arrays = []
        for number, (params, read) in enumerate(each):
            arrays += read({name: found[numbered(name, number)] for name in params})
        return arrays

    params = {
        numbered(name, number): value
        for number, (of_layer, _) in enumerate(each)
        for name, value in of_layer.items()
    }
    return Program(lambda: hk.without_apply_rng(hk.transform(run)).apply, params, weights)


def of_equinox(layers: Sequence[Problem]) -> Program:
    """Equinox: `lax.scan` and `vmap` over each cell, one after the other."""
    import equinox as eqx

    from benchmarks.peers import equinox

    cells = []
    for layer in layers:
        make_cell = equinox.CELLS[layer.cell]
        cell = make_cell(layer.input_kernel.shape[0], layer.features, key=jax.random.key(0))
        weights = equinox.transposed(layer.weights)
        cells.append(eqx.tree_at(equinox.weights_of, cell, weights))

    def read(found: Any) -> list[np.ndarray]:
        each = [equinox.transposed(equinox.weights_of(cell)) for cell in found]
        return [array for arrays in each for array in arrays]

    def make() -> Forward:
        through = lambda xs, cell: equinox.forward(cell, xs)
        return lambda cells, xs: functools.reduce(through, cells, xs)

    return Program(make, cells, read)


BUILDERS: dict[str, Callable[[Sequence[Problem]], Program]] = {
    "ours": of_ours,
    "linen": of_linen,
    "haiku": of_haiku,
    "equinox": of_equinox,
}
"""Those by the names of `benchmarks.peers`: what has no tracing of its own, as PyTorch, is not here."""
