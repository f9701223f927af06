"""A cell against its equations and against peers: what the tests of all cells share.

Oracle, cell and peer are functions of the same float64 arrays, the params, xs and the initial state,
and give the same: (ys, *last state). An oracle is NumPy and takes one sequence, x [time, in_features];
a cell and a peer take all rows of a batch, xs [time, *batch, in_features]. Gradients are those of
`weigh`, one number out of all results, with respect to every array.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from tests import oracles
from tests.oracles import Gate

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3

SIZES = pytest.mark.parametrize(
    "sizes",
    [
        (7, 5, 4, (3,)),
        (1, 1, 3, (2,)),
        (7, 2, 1, (2,)),
        (3, 2, 1, (1,)),
        (3, 2, 4, (1,)),
        (3, 2, 4, ()),
        (1, 1, 5, (3,)),
        (1, 2, 3, (1,)),
        (4, 1, 3, ()),
    ],
    ids=str,
)
"""features, in_features, time and batch: sizes of one, and no batch axis at all."""

Results = Sequence[Any]
"""ys [time, *batch, features], and the arrays of the last state."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A cell, the NumPy loop that it is held against, and the sizes at which it is.

    row: the oracle, (*params, x, *state) -> (ys, *last state), of one sequence.
    prepare: what becomes of the drawn arrays where not every value is a weight or a state.
    state: the cell's state from its arrays, where they are not its fields; a complex field is drawn as
    two arrays. read: what the equations tell of a state.
    """

    cell: Any
    row: Callable[..., Results]
    in_features: int = IN_FEATURES
    time: int = TIME
    batch: tuple[int, ...] = (BATCH,)
    prepare: Callable[..., Sequence[Any]] = lambda *drawn: drawn
    state: Callable[..., Any] | None = None
    read: Callable[[Any], Results] = tuple

    def at(
        self, features: int, in_features: int, time: int, batch: tuple[int, ...], **fields: Any
    ) -> "Comparison":
        """The same at other sizes, and with other hyperparameters."""
        cell = dataclasses.replace(self.cell, features=features, **fields)
        sizes = {"in_features": in_features, "time": time, "batch": batch}
        return dataclasses.replace(self, cell=cell, **sizes)

    @functools.cached_property
    def made(self) -> tuple[Any, Any]:
        """The params and the state that the cell makes, as shapes."""

        def make(key):
            params = self.cell.init(key, self.in_features)
            return params, self.cell.initial_state(params, self.batch)

        return jax.eval_shape(make, jax.random.key(0))

    def arguments(self) -> list[Any]:
        """The params, xs and the initial state: drawn in float64, the same at every call."""
        params, state = map(jax.tree.leaves, self.made)
        shapes = [leaf.shape for leaf in params] + [(self.time, *self.batch, self.in_features)]
        for leaf in state:
            shapes += [leaf.shape] * (2 if leaf.dtype.kind == "c" else 1)
        random = np.random.default_rng(0)
        return list(self.prepare(*(0.8 * random.standard_normal(shape) for shape in shapes)))

    def apart(self, arguments: Sequence[Any]) -> tuple[Sequence[Any], Any, Sequence[Any]]:
        """The arrays of the params, xs, and the arrays of the state."""
        count = len(jax.tree.leaves(self.made[0]))
        return arguments[:count], arguments[count], arguments[count + 1 :]

    def run(self, *arguments: Any) -> Results:
        """The cell's own results, in the precision of the arrays."""
        weights, xs, start = self.apart(arguments)
        params, state = self.made
        state = type(state)(*start) if self.state is None else self.state(*start)
        return unrolled(self.cell, type(params)(*weights), xs, state, self.read)

    def by_equation(self, *arguments: Any) -> Results:
        """The results of the oracle, row by row."""
        params, xs, state = self.apart(arguments)
        batch = xs.shape[1:-1]
        rows = (
            self.row(*params, xs[:, *index], *(leaf[index] for leaf in state))
            for index in np.ndindex(*batch)
        )
        ys, *last = (np.array(part) for part in zip(*rows, strict=True))
        ys = np.moveaxis(ys, 0, 1).reshape(*xs.shape[:-1], -1)
        return ys, *(leaf.reshape((*batch, *leaf.shape[1:])) for leaf in last)

    @functools.cached_property
    def outcome(self) -> tuple[Results, Sequence[Any]]:
        """The cell's own results and gradients in float64."""
        return differentiate(self.run, *self.arguments())


def unrolled(
    cell: Any, params: Any, xs: Any, state: Any, read: Callable[[Any], Results] = tuple
) -> Results:
    """The results of a cell of ours, in the precision of xs."""
    cell = dataclasses.replace(cell, param_dtype=xs.dtype)
    state, ys = sj.unroll(cell, params, xs, state)
    return ys, *read(state)


def split(packed: Any, count: int) -> list[Any]:
    """The blocks along the last axis, of an array of NumPy, JAX or PyTorch."""
    size = packed.shape[-1] // count
    return [packed[..., size * k : size * (k + 1)] for k in range(count)]


def unpacked(names: str, *packed: Any) -> dict[str, Gate]:
    """The W, U and b of each gate by itself; `names`: a letter for each, in the order they stand."""
    blocks = zip(*(split(array, len(names)) for array in packed), strict=True)
    return {name: Gate(*block) for name, block in zip(names, blocks, strict=True)}


def reordered(names: str, packed: Any, order: str, negated: str = "") -> jax.Array:
    """The blocks of a packed array in another order, those of `negated` with the other sign."""
    blocks = dict(zip(names, split(packed, len(names)), strict=True))
    signed = [-blocks[name] if name in negated else blocks[name] for name in order]
    return jnp.concatenate(signed, axis=-1)


def weigh(results: Results, array: Callable[[Any], Any] = np.asarray) -> Any:
    """One number out of all results, each entry with another weight."""
    weights = [np.cos(k + np.arange(math.prod(r.shape))) for k, r in enumerate(results)]
    return sum((r * array(w.reshape(r.shape))).sum() for r, w in zip(results, weights, strict=True))


@functools.cache
def _differentiated(function: Callable[..., Results], count: int) -> Callable[..., Any]:
    def loss(*arguments):
        results = function(*arguments)
        return weigh(results), results

    return jax.jit(jax.value_and_grad(loss, argnums=tuple(range(count)), has_aux=True))


def differentiate(
    function: Callable[..., Results], *arguments: Any
) -> tuple[Results, Sequence[Any]]:
    """The results of a function of JAX, and the gradients by every array."""
    (_, results), gradients = _differentiated(function, len(arguments))(*arguments)
    return results, gradients


def differentiate_torch(
    function: Callable[..., Results], *arguments: Any
) -> tuple[Results, Sequence[Any]]:
    """The results of a function of PyTorch, and the gradients by every array."""
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    results = function(*tensors)
    weigh(results, torch.tensor).backward()
    return [result.detach().numpy() for result in results], [a.grad.numpy() for a in tensors]


def assert_close(came: Sequence[Any], expected: Sequence[Any], rtol: float, atol: float) -> None:
    """As many arrays, and each close to its fellow."""
    for ours, theirs in zip(came, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def assert_follows_the_equations(case: Comparison, atol: float = 1e-9) -> None:
    """In float64: the values to rounding, the gradients as far as difference quotients go.

    atol: of the gradients, which are of order 1 to 10; the quotients lose digits to larger ones.
    """
    results, gradients = case.outcome
    assert all(result.dtype == jnp.float64 for result in results)
    assert_close(results, case.by_equation(*case.arguments()), rtol=1e-12, atol=1e-12)
    loss = lambda *arguments: weigh(case.by_equation(*arguments))
    quotients = oracles.finite_differences(loss, *case.arguments())
    assert_close(gradients, quotients, rtol=1e-8, atol=atol)


def assert_values_follow_the_equations(
    case: Comparison, dtype: Any = jnp.float32, atol: float = 1e-6
) -> None:
    """In float32, after some thirty roundings, or in float64."""
    results = case.run(*(jnp.asarray(a, dtype) for a in case.arguments()))
    assert all(result.dtype == dtype for result in results)
    rtol, atol = (1e-5, atol) if dtype == jnp.float32 else (1e-12, 1e-12)
    assert_close(results, case.by_equation(*case.arguments()), rtol, atol)


def assert_agrees(
    case: Comparison, peer: Callable[..., Results], differentiate: Any = differentiate
) -> None:
    """The values and gradients of a peer from the same arrays."""
    results, gradients = case.outcome
    expected, expected_gradients = differentiate(peer, *case.arguments())
    assert_close(results, expected, rtol=1e-12, atol=1e-12)
    assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-12)


def assert_values_agree_with_torch(case: Comparison, peer: Callable[..., Results]) -> None:
    """The values of a peer of PyTorch from the same arrays."""
    expected, _ = differentiate_torch(peer, *case.arguments())
    results = case.run(*map(jnp.asarray, case.arguments()))
    assert_close(results, expected, rtol=1e-10, atol=1e-12)


def run_steps(step: Callable[..., Any], xs: Any, *start: Any) -> Results:
    """The results of `step(x, *state) -> (y, *state)`, by a loop of Python."""
    ys, state = [], list(start)
    for x in xs:
        y, *state = step(x, *state)
        ys.append(y)
    return jnp.stack(ys), *state


def run_torch(kind: str, weights: Sequence[Any], xs: Any, *state: Any, **options: Any) -> Results:
    """The results of PyTorch's RNN, GRU or LSTM.

    weights: W, U, the two biases, and P where there is one, packed as there but not transposed.
    """
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    W, U, b_ih, b_hh, *P = weights
    features = U.shape[1] // {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    module = getattr(torch.nn, kind)(W.shape[0], features, dtype=torch.float64, **options)
    names = [name for name, _ in module.named_parameters()]
    transposed = (W.T, U.T, b_ih, b_hh, *(kernel.T for kernel in P))
    start = tuple(leaf[None] for leaf in state)
    ys, last = torch.func.functional_call(
        module,
        dict(zip(names, transposed, strict=True)),
        (xs, start if kind == "LSTM" else start[0]),
    )
    return ys, *(leaf[0] for leaf in (last if kind == "LSTM" else (last,)))


def run_keras(kind: str, weights: Sequence[Any], xs: Any, *state: Any, **options: Any) -> Results:
    """The results of a recurrent layer of Keras, which is batch-major."""
    os.environ["KERAS_BACKEND"] = "jax"
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed")
    layer = getattr(keras.layers, kind)(
        state[0].shape[-1],
        activation=jnp.tanh,  # that of Keras rounds to float32
        return_sequences=True,
        return_state=True,
        dtype="float64",
        **options,
    )
    inputs = jnp.swapaxes(xs, 0, 1)
    layer.build(inputs.shape)
    unused = [v.value for v in layer.non_trainable_variables]  # the seed of its dropout
    (ys, *last), _ = layer.stateless_call([*weights], unused, inputs, initial_state=[*state])
    return jnp.swapaxes(ys, 0, 1), *last


def largest_gap(values: Any, low: float, high: float) -> float:
    """How far the distribution of `values` is from the uniform one (Kolmogorov, Smirnov)."""
    ranks = np.arange(1, len(values) + 1) / len(values)
    return np.abs((np.sort(values) - low) / (high - low) - ranks).max()
