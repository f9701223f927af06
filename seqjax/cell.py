"""The contract: a recurrent cell is one pure function, `step(params, state, x) -> (state, y)`.

Everything else (how a cell is run over time, differentiated, looked at, trained) is a separate layer
over this file. `Cell` is the contract; `GatedCell`, `LinearCell` and `Layered` are promises that
unlock faster or more general ways to run.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax.numerics import recurrent_matmul
from seqjax.plan import Plan

Params: TypeAlias = Any
"""A pytree of real arrays with named fields, made by `Cell.init`."""

State: TypeAlias = Any
"""A pytree of arrays with named fields, made by `Cell.initial_state`; every leaf is [*batch, ...]."""

Mixing: TypeAlias = Literal["elementwise", "heads", "dense"]


class Cell(abc.ABC):
    """A recurrent cell: hyperparameters and pure functions, no arrays.

    Concrete cells are frozen dataclasses: hashable and comparable, so that a cell is a static
    argument under `jax.jit` and equal cells never compile twice. `features` is the width: a field of a
    leaf, a property of a wrapper. It is the size of y too, unless a cell says otherwise by
    `out_features`.

    A cell of one's own needs `init`, `initial_state` and `step`:

    >>> import dataclasses, jax, jax.numpy as jnp, seqjax as sj
    >>> @dataclasses.dataclass(frozen=True)
    ... class LeakySum(sj.Cell):
    ...     features: int
    ...     def init(self, key, in_features):
    ...         return jax.random.normal(key, (in_features, self.features))
    ...     def initial_state(self, params, batch_shape=(), *, key=None):
    ...         return jnp.zeros((*batch_shape, self.features))
    ...     def step(self, params, state, x):
    ...         state = 0.9 * state + x @ params
    ...         return state, state
    >>> cell = LeakySum(features=3)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> state, ys = sj.unroll(cell, params, jnp.ones((5, 2)))
    >>> ys.shape
    (5, 3)
    """

    features: Any  # an int: a field of a leaf, a property of a wrapper (a type that admits both)

    @abc.abstractmethod
    def init(self, key: Array, in_features: int) -> Params:
        """Parameters for inputs of `in_features`, drawn with `key`. All leaves are real."""

    @abc.abstractmethod
    def initial_state(
        self, params: Params, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> State:
        """The state before the first step; every leaf leads with `batch_shape`.

        `key` draws the noise that the state holds; a cell without noise ignores it.
        """

    @abc.abstractmethod
    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """One step. x: [*batch, in_features], y: [*batch, out_features].

        The state comes back with exactly the structure, shapes and dtypes that it had.
        """

    @property
    def out_features(self) -> int:
        """The size of y: `features`, unless the cell emits less or more than its width."""
        return self.features

    def output(self, params: Params, state: State, x: Array) -> Array:
        """y_t, read off the state *after* step t.

        `step` gives y already; this is for what changes a state between steps, as `sj.Zoneout` does,
        and must then know the y that belongs to it. All leaf cells of the library define it, the gated
        ones by `emit`.
        """
        raise ValueError(
            f"{type(self).__name__}: output(params, state, x) is not defined; a wrapper that changes "
            "the state between steps needs it, to read y off the new state"
        )

    def redraw(self, state: State, key: Array) -> State:
        """New noise, same memory.

        Leaves that are memory are returned as they came, the very same objects: what `redraw`
        replaces is what the library takes for noise. A cell without noise returns `state`.
        """
        return state

    def deterministic(self) -> "Cell":
        """The cell for evaluation: same params, same state structure, no noise.

        What holds noise in the state of the one holds noise, unused, in that of the other.
        """
        return self

    @property
    def causal(self) -> bool:
        """Whether y_t depends on x_1 … x_t alone, so that it may predict x_{t+1}."""
        return True

    @property
    def mixing(self) -> Mixing:
        """The structure of ∂s_t/∂s_{t-1}: elementwise, block-diagonal by heads, or dense."""
        return "dense"

    def __repr__(self) -> str:
        """The class and what differs from its defaults: `LSTM(features=256)`."""
        fields = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        values = {f.name: getattr(self, f.name) for f in fields}
        shown = [f"{f.name}={values[f.name]!r}" for f in fields if values[f.name] != f.default]
        return f"{type(self).__name__}({', '.join(shown)})"

    def gated(self) -> "GatedCell | None":
        """The cell as a gated one with the same params and states, where it is one."""
        return None

    def linear(self) -> "LinearCell | None":
        """The cell as a linear one with the same params and states, where it is one."""
        return None


class GatedCell(Cell):
    """An affine recurrence followed by a rule on each row.

    z_t = project(params, x_t)
    r_t = recurrent_input(s_{t-1}) @ recurrent_kernel(params)
    s_t, y_t = gate(gate_params(params), z_t, r_t, s_{t-1})

    The kernel is dense, or has one block for each head (`seqjax.numerics.recurrent_matmul`). `gate`
    never mixes rows of the batch nor multiplies by a matrix. `project` does not see the state,
    so it can run for many steps at once; a backward pass can emit only the gradients with respect to
    z and r and leave all weight gradients to matmuls after the loop.
    """

    @abc.abstractmethod
    def project(self, params: Params, x: Array) -> Array:
        """z: [*any, in_features] -> [*any, gates · features], biases included."""

    @abc.abstractmethod
    def recurrent_input(self, state: State) -> Array:
        """What the recurrent kernel multiplies: [*batch, rows]."""

    @abc.abstractmethod
    def recurrent_kernel(self, params: Params) -> Array:
        """The recurrent matrix, in the dtype that r is computed in.

        [rows, gates · features], or block-diagonal by heads: [heads, rows, gates, features] of a head.
        """

    def gate_params(self, params: Params) -> Params:
        """The few weights that `gate` uses directly; the only ones whose gradient a loop must sum."""
        return ()

    @property
    def gate_blocks(self) -> tuple[int, ...] | None:
        """How the packed gates group where they are normalised: (2, 1) is two together, one alone.

        Together stand the gates whose halves of z and r are only ever added; None is all of them.
        """
        return None

    @abc.abstractmethod
    def gate(self, gate_params: Params, z: Array, r: Array, state: State) -> tuple[State, Array]:
        """The rule on each row: (state, y) from z, r and the state before."""

    @property
    def emits(self) -> bool:
        """Whether `emit` is defined: y_t is then a function of the state after step t alone."""
        return type(self).emit is not GatedCell.emit

    def emit(self, state: State) -> Array:
        """y_t, read off the state after step t alone; the same y that `gate` gives."""
        raise ValueError(
            f"{type(self).__name__}: emit(state) is not defined; a wrapper that changes the state "
            "between steps needs it, to read y off the new state"
        )

    def output(self, params: Params, state: State, x: Array) -> Array:
        """y_t by `emit`."""
        return self.emit(state)

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """One step, composed from the four parts above."""
        z = self.project(params, x)
        r = recurrent_matmul(self.recurrent_input(state), self.recurrent_kernel(params))
        return self.gate(self.gate_params(params), z, r, state)

    def gated(self) -> "GatedCell | None":
        """Itself."""
        return self


class LinearCell(Cell):
    """A recurrence that is linear in its state and mixes no units.

    a_t, b_t = coefficients(params, x_t)
    h_t = a_t ⊙ h_{t-1} + b_t
    y_t = readout(params, h_t, x_t)

    The state has one leaf, h, which may be complex. Neither a nor b sees the state, so all steps of a
    sequence can be run side by side: h_t is an associative combination of the pairs (a, b).
    """

    @abc.abstractmethod
    def coefficients(self, params: Params, x: Array) -> tuple[Array, Array]:
        """(a, b): b [*any, width] in the dtype of h, and a that broadcasts to b."""

    @abc.abstractmethod
    def readout(self, params: Params, h: Array, x: Array) -> Array:
        """y: [*any, out_features] from h [*any, width] and x [*any, in_features]."""

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """One step, composed from the two parts above."""
        a, b = self.coefficients(params, x)
        state = jax.tree.map(lambda h: jnp.broadcast_to(a, b.shape) * h + b, state)
        return state, self.output(params, state, x)

    def output(self, params: Params, state: State, x: Array) -> Array:
        """The readout of the one leaf of the state."""
        (h,) = jax.tree.leaves(state)
        return self.readout(params, h, x)

    @property
    def mixing(self) -> Mixing:
        """Elementwise: ∂h_t/∂h_{t-1} = diag(a_t)."""
        return "elementwise"

    def linear(self) -> "LinearCell":
        """Itself."""
        return self


Run: TypeAlias = Callable[[Cell, Params, State, Array, Plan], tuple[State, Array]]
"""Runs one inner cell through all time with the engine it can have; the driver hands it in."""


class Layered(Cell):
    """A cell made of cells that goes through all time one layer at a time.

    Each inner cell so has the engine it can have. `step` goes through all layers at one time, for
    streaming; both give the same values.
    """

    @abc.abstractmethod
    def unroll_with(
        self, run: Run, params: Params, state: State, xs: Array, plan: Plan
    ) -> tuple[State, Array]:
        """All of `xs` [time, *batch, in_features] through all layers.

        `run` takes an inner cell with its own params and state, and the plan as that cell sees it:
        `plan.of(lambda state: state.cell)` selects its part.
        """


def as_gated(cell: Cell) -> GatedCell | None:
    """The cell as a `GatedCell` with the same params and states, or None where it is not one.

    An engine asks by instance, not by class: a wrapper around an LSTM can be gated where the same
    wrapper around a user's cell is not.
    """
    return cell.gated()


def as_linear(cell: Cell) -> LinearCell | None:
    """The cell as a `LinearCell` with the same params and states, or None where it is not one."""
    return cell.linear()


def noise_only(cell: Cell, state: State) -> State:
    """`state` with True at the leaves that hold noise and False at those that hold memory.

    What `redraw` returns as it came is memory. This is traced and never computed.
    """
    leaves, structure = jax.tree.flatten(state)
    is_noise: list[bool] = []

    def probe(leaves: list[Array], key: Array) -> None:
        redrawn = jax.tree.leaves(cell.redraw(jax.tree.unflatten(structure, leaves), key))
        is_noise.extend(new is not old for new, old in zip(redrawn, leaves, strict=True))

    jax.eval_shape(probe, leaves, jax.eval_shape(lambda: jax.random.key(0)))
    return jax.tree.unflatten(structure, is_noise)
