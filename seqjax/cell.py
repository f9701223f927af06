"""The contract: a recurrent cell is one pure function, `step(params, state, x) -> (state, y)`.

How a cell is run over time, differentiated, inspected and trained are separate layers over this file.
`Cell` is the contract; `GatedCell`, `LinearCell` and `Layered` are promises that let an engine run it
faster, or layer by layer.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax.gates import Gate, collect_gates, name_gate
from seqjax.numerics import recurrent_matmul
from seqjax.plan import Plan

Params: TypeAlias = Any
"""A pytree of real arrays with named fields, made by `Cell.init`."""

State: TypeAlias = Any
"""A pytree of arrays with named fields, made by `Cell.initial_state`; every leaf is [*batch, ...]."""

Mixing: TypeAlias = Literal["elementwise", "heads", "dense"]

P = TypeVar("P")
S = TypeVar("S")


class Cell(abc.ABC, Generic[P, S]):
    """A recurrent cell: hyperparameters and pure functions, no arrays.

    Concrete cells are frozen dataclasses: hashable and comparable, so that a cell is a static
    argument under `jax.jit` and equal cells never compile twice. `features` is the width: a field of a
    leaf, a property of a wrapper. It is also the size of y, unless the cell overrides `out_features`.
    For a type checker a cell may be generic over its params and its state: `Cell[GRUParams, GRUState]`.

    A user-defined cell needs `init`, `initial_state` and `step`. Gates that it names with
    `sj.name_gate` show up in the diagnostics:

    >>> import dataclasses, jax, jax.numpy as jnp, seqjax as sj
    >>> @dataclasses.dataclass(frozen=True)
    ... class LeakySum(sj.Cell):
    ...     features: int
    ...     def init(self, key, in_features):
    ...         return jax.random.normal(key, (in_features, self.features))
    ...     def initial_state(self, params, batch_shape=(), *, key=None):
    ...         return jnp.zeros((*batch_shape, self.features))
    ...     def step(self, params, state, x):
    ...         write = sj.name_gate("i", jax.nn.sigmoid(x @ params))
    ...         state = 0.9 * state + write
    ...         return state, state
    >>> cell = LeakySum(features=3)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> state, ys = sj.unroll(cell, params, jnp.ones((5, 2)))
    >>> ys.shape
    (5, 3)
    """

    features: Any  # an int: a field of a leaf, a property of a wrapper (a type that admits both)

    memory_path: ClassVar[str | None] = None
    """The named value (`sj.name_gate`) in [0, 1] that is the share of the memory a step keeps, unit by
    unit: "f" in an LSTM. None for a cell whose memory has no path through a gate."""

    longer_memory: ClassVar[str | None] = None
    """The argument with which the cell starts with a longer memory, as the advice of a diagnosis gives
    it: "forget_bias=sj.initializers.Chrono({steps})"."""

    @abc.abstractmethod
    def init(self, key: Array, in_features: int) -> P:
        """Draw parameters for inputs of `in_features`. All leaves are real."""

    @abc.abstractmethod
    def initial_state(
        self, params: P, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> S:
        """Return the state before the first step; every leaf leads with `batch_shape`.

        `key` draws the noise that the state holds; a cell without noise ignores it.
        """

    @abc.abstractmethod
    def step(self, params: P, state: S, x: Array) -> tuple[S, Array]:
        """Compute one step. x: [*batch, in_features], y: [*batch, out_features].

        The state comes back with exactly the structure, shapes and dtypes that it had.
        """

    @property
    def out_features(self) -> int:
        """The size of y: `features`, unless the cell emits less or more than its width."""
        return self.features

    def children(self) -> "tuple[Child, ...]":
        """The cells inside this one, the first nearest to the input; a leaf cell has none."""
        return ()

    def output(self, params: P, state: S, x: Array) -> Array:
        """Read y_t off the state *after* step t.

        `step` gives y already; a wrapper that changes the state between steps, such as `sj.Zoneout`,
        needs the y of the new state. All leaf cells of the library define it, the gated ones by `emit`.
        """
        raise ValueError(
            f"{type(self).__name__}: output(params, state, x) is not defined; a wrapper that changes "
            "the state between steps needs it, to read y off the new state"
        )

    def redraw(self, state: S, key: Array) -> S:
        """Return the state with new noise and the same memory.

        Leaves of memory are returned as the same objects: the library takes the leaves that `redraw`
        replaces for noise. A cell without noise returns `state`.
        """
        return state

    def deterministic(self) -> "Cell[P, S]":
        """Return the cell for evaluation: same params, same state structure, no noise.

        Leaves that hold noise stay in the state, unused.
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
        """The cell as a gated one with the same params and states, or None."""
        return None

    def linear(self) -> "LinearCell | None":
        """The cell as a linear one with the same params and states, or None."""
        return None

    def jacobian_bound(self, recurrent_norm: Any) -> Any | None:
        """An upper bound on ‖∂s_t/∂s_{t-1}‖ from the largest singular value of the recurrent matrix.

        None for a cell whose weights alone give no bound.
        """
        return None


class Child(NamedTuple):
    """A cell inside another, and where its params and state are within those of the outer cell.

    name: the path to it, such as "layers[0]"; "" for the only cell of a wrapper.
    """

    name: str
    cell: Cell
    params: Callable[[Params], Params]
    state: Callable[[State], State]


class GatedCell(Cell[P, S]):
    """An affine recurrence followed by a rule on each row.

    z_t = project(params, x_t)
    r_t = recurrent_input(s_{t-1}) @ recurrent_kernel(params)
    s_t, y_t = gate(gate_params(params), z_t, r_t, s_{t-1})

    The kernel is dense, or has one block for each head (`seqjax.numerics.recurrent_matmul`). `gate`
    never mixes rows of the batch nor multiplies by a matrix. `project` does not see the state, so an
    engine can project many steps at once; and a backward pass can emit only the gradients with respect
    to z and r, and leave all weight gradients to matmuls after the loop.
    """

    additive: ClassVar[bool] = False
    """Whether z and r enter `gate` only as z + r, so that their gradients are equal."""

    saves_gates: ClassVar[bool] = False
    """Whether `gate` marks its residuals (`packed_gates`, `save_for_backward`), so that an engine which
    keeps nothing else need not evaluate an activation again in the backward pass."""

    @abc.abstractmethod
    def project(self, params: P, x: Array) -> Array:
        """Compute z: [*any, in_features] -> [*any, gates · features], biases included."""

    @abc.abstractmethod
    def recurrent_input(self, state: S) -> Array:
        """Return the operand of the recurrent kernel: [*batch, rows]."""

    @abc.abstractmethod
    def recurrent_kernel(self, params: P) -> Array:
        """Return the recurrent matrix, in the compute dtype of r.

        [rows, gates · features], or block-diagonal by heads: [heads, rows, gates, features] of a head.
        """

    def gate_params(self, params: P) -> Params:
        """Return the weights that `gate` uses directly; a loop sums the gradients of these alone."""
        return ()

    @property
    def gate_blocks(self) -> tuple[int, ...] | None:
        """How the packed gates are grouped for normalisation: (2, 1) is two together and one alone.

        Gates whose parts of z and r are only added belong together; None groups all gates.
        """
        return None

    @abc.abstractmethod
    def gate(self, gate_params: Params, z: Array, r: Array, state: S) -> tuple[S, Array]:
        """Apply the rule on each row: (state, y) from z, r and the state before."""

    @property
    def emits(self) -> bool:
        """Whether `emit` is defined: y_t is then a function of the state after step t alone."""
        return type(self).emit is not GatedCell.emit

    def emit(self, state: S) -> Array:
        """Read y_t off the state after step t alone; the same y that `gate` gives."""
        raise ValueError(
            f"{type(self).__name__}: emit(state) is not defined; a wrapper that changes the state "
            "between steps needs it, to read y off the new state"
        )

    def output(self, params: P, state: S, x: Array) -> Array:
        """Read y_t off the state by `emit`."""
        return self.emit(state)

    def step(self, params: P, state: S, x: Array) -> tuple[S, Array]:
        """Compute one step from the four parts above."""
        check_state(self, params, state, x)
        z = self.project(params, x)
        r = recurrent_matmul(self.recurrent_input(state), self.recurrent_kernel(params))
        return self.gate(self.gate_params(params), z, r, state)

    def gated(self) -> "GatedCell | None":
        """Return the cell itself."""
        return self


class LinearCell(Cell[P, S]):
    """A recurrence that is linear in its state and mixes no units.

    a_t, b_t = coefficients(params, x_t)
    h_t = a_t ⊙ h_{t-1} + b_t
    y_t = readout(params, h_t, x_t)

    The state has one leaf, h, which may be complex. Neither a nor b depends on the state, so h_t is an
    associative combination of the pairs (a, b). |a_t| is the share of the memory that a step keeps.
    """

    memory_path: ClassVar[str | None] = "|a|"

    @abc.abstractmethod
    def coefficients(self, params: P, x: Array) -> tuple[Array, Array]:
        """Compute (a, b): b [*any, width] in the dtype of h, and a that broadcasts to b."""

    @abc.abstractmethod
    def readout(self, params: P, h: Array, x: Array) -> Array:
        """Compute y: [*any, out_features] from h [*any, width] and x [*any, in_features]."""

    def step(self, params: P, state: S, x: Array) -> tuple[S, Array]:
        """Compute one step from the two parts above."""
        check_state(self, params, state, x)
        a, b = self.coefficients(params, x)
        a = jnp.broadcast_to(a, b.shape)
        name_gate("|a|", jnp.abs(a), None)
        state = jax.tree.map(lambda h: a * h + b, state)
        return state, self.output(params, state, x)

    def output(self, params: P, state: S, x: Array) -> Array:
        """Apply the readout to the one leaf of the state."""
        (h,) = jax.tree.leaves(state)
        return self.readout(params, h, x)

    @property
    def mixing(self) -> Mixing:
        """Elementwise: ∂h_t/∂h_{t-1} = diag(a_t)."""
        return "elementwise"

    def linear(self) -> "LinearCell":
        """Return the cell itself."""
        return self


RunCell: TypeAlias = Callable[[Cell, Params, State, Array, Plan], tuple[State, Array]]
"""`run_cell(cell, params, state, xs, plan)` runs a cell over all time."""

RunChild: TypeAlias = Callable[[Child, Params, State, Array, Plan], tuple[State, Array]]
"""`run(child, params, state, xs, plan)` runs an inner cell over all time with its own engine.

It takes the params, the state and the plan of the *outer* cell, and selects the part of the child.
"""


class Layered(Cell[P, S]):
    """A cell made of cells that runs over all time one layer at a time.

    Each inner cell is run by its own engine. `step` goes through all layers at one time, for streaming;
    both give the same values.
    """

    @abc.abstractmethod
    def unroll_with(
        self, run: RunChild, params: P, state: S, xs: Array, plan: Plan
    ) -> tuple[S, Array]:
        """Run `xs` [time, *batch, in_features] through all layers, each by `run(child, ...)`."""


def run_children(run_cell: RunCell) -> RunChild:
    """Make the `run` of `Layered.unroll_with` from a function that runs a cell with its own parts."""

    def run(
        child: Child, params: Params, state: State, xs: Array, plan: Plan
    ) -> tuple[State, Array]:
        if not isinstance(child, Child):
            raise ValueError(f"unroll_with: run: expected one of self.children(), got {child!r}")
        parts = child.params(params), child.state(state)
        return run_cell(child.cell, *parts, xs, plan.of(child.state))

    return run


def run_layers(
    run_leaf: Callable[..., tuple[State, Array]],
    cell: Cell,
    params: Params,
    state: State,
    xs: Array,
    plan: Plan | None = None,
) -> tuple[State, Array]:
    """Run a cell layer by layer, each layer by `run_leaf(cell, params, state, xs, plan)`.

    The layers come in the order in which they run.
    """
    plan = Plan() if plan is None else plan
    if not isinstance(cell, Layered):
        return run_leaf(cell, params, state, xs, plan)
    run = run_children(lambda *parts: run_layers(run_leaf, *parts))
    return cell.unroll_with(run, params, state, xs, plan)


class Leaf(NamedTuple):
    """A cell without inner cells, and where it is.

    name: the path to it, such as "layers[1].forward"; "" for a cell that is alone or in wrappers only.
    params: its own part of the params.
    plain: whether all cells around it are `Layered`, which leave its recurrence as it is.
    """

    name: str
    cell: Cell
    params: Params
    plain: bool


def leaves(cell: Cell, params: Params) -> list[Leaf]:
    """Return all leaf cells inside a cell, the first nearest to the input."""

    def walk(cell: Cell, params: Params, name: str, plain: bool) -> Iterator[Leaf]:
        inner = cell.children()
        if not inner:
            yield Leaf(name.lstrip("."), cell, params, plain)
        for child in inner:
            path = f"{name}.{child.name}" if child.name else name
            yield from walk(
                child.cell, child.params(params), path, plain and isinstance(cell, Layered)
            )

    return list(walk(cell, params, "", True))


def gates_of(cell: Cell, params: Params, state: State, x: Array) -> dict[str, Gate]:
    """Collect the named values of one step of a cell; x: [*batch, in_features].

    A wrapper shows the gates of the cell inside it, as they are there.
    """
    # Without jit: a named value must not belong to the trace of a function that the step calls.
    with collect_gates() as gates, jax.disable_jit():
        cell.step(params, state, x)
    return gates


def as_gated(cell: Cell) -> GatedCell | None:
    """Return the cell as a `GatedCell` with the same params and states, or None if it is not one.

    The answer depends on the instance, not on the class: a wrapper around an LSTM can be gated while
    the same wrapper around a user's cell is not.
    """
    return cell.gated()


def as_linear(cell: Cell) -> LinearCell | None:
    """Return the cell as a `LinearCell` with the same params and states, or None if it is not one."""
    return cell.linear()


def noise_only(cell: Cell, state: State) -> State:
    """Return `state` with True at the leaves of noise and False at the leaves of memory.

    A leaf that `redraw` returns as the same object is memory. The call is traced and never computed.
    """
    leaves, structure = jax.tree.flatten(state)
    is_noise: list[bool] = []

    def probe(leaves: list[Array], key: Array) -> None:
        redrawn = jax.tree.leaves(cell.redraw(jax.tree.unflatten(structure, leaves), key))
        is_noise.extend(new is not old for new, old in zip(redrawn, leaves, strict=True))

    jax.eval_shape(probe, leaves, jax.eval_shape(lambda: jax.random.key(0)))
    return jax.tree.unflatten(structure, is_noise)


def fresh_memory(cell: Cell, params: Params, state: State, batch_shape: tuple[int, ...]) -> State:
    """Return the initial memory that a reset restores, with None in place of each leaf of noise."""
    # Any key will do: a reset keeps the noise of the run.
    fresh = cell.initial_state(params, batch_shape, key=jax.random.key(0))
    return jax.tree.map(lambda noise, f: None if noise else f, noise_only(cell, state), fresh)


def check_state(cell: Cell, params: Params, state: State, x: Array) -> None:
    """Validate the state of a step: the structure and shapes of `initial_state`, for the batch of x."""
    leaves, structure = jax.tree.flatten(params)
    shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    source = f"{cell!r}.initial_state(params, {x.shape[:-1]}), for x of shape {x.shape},"
    expected = _state_shapes(cell, structure, shapes, x.shape[:-1])
    name = f"{type(cell).__name__}.step: state"
    checks.same_tree(name, state, expected, source, dtypes=False)


@functools.lru_cache(maxsize=1024)
def _state_shapes(cell: Cell, structure: Any, shapes: Any, batch_shape: tuple[int, ...]) -> State:
    """Return the shapes of the initial state, without computing it."""
    params = structure.unflatten([jax.ShapeDtypeStruct(*shape) for shape in shapes])
    draw = lambda params: cell.initial_state(params, batch_shape, key=jax.random.key(0))
    return jax.eval_shape(draw, params)
