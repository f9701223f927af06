"""Online rules: the gradient of one step at a time, without a past, and methods made of them."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from seqjax import checks
from seqjax._tree import from_vector, to_vector
from seqjax.cell import Cell, Params, State, fresh_memory
from seqjax.engines import validate
from seqjax.gradients.method import GradientFn, check_signature
from seqjax.gradients.structure import check_width, input_of
from seqjax.gradients.windows import (
    Visit,
    Walk,
    Windowed,
    WindowGradient,
    arrays,
    cut,
    time_steps,
    zeros,
)
from seqjax.losses import Mean
from seqjax.numerics import accumulator
from seqjax.plan import Plan

StepLoss: TypeAlias = Callable[[Any, Array, Any], Float[Array, ""]]
"""`step_loss(head, y, target) -> scalar`, y: [*batch, out_features]; a sum or a mean over the batch."""

Signal: TypeAlias = Callable[[Any, Array, Any], Float[Array, "*batch out_features"]]
"""`signal(head, y, target)` replaces ∂L_t/∂y_t in rules that teach the cell by other means."""


class OnlineParams(NamedTuple):
    """The params of the cell, and those of the loss: any pytree, () where it has none."""

    cell: Params
    head: Any = ()


class OnlineBatch(NamedTuple):
    """The batch of an online rule, time first; any triple, or a pair, of this form will do.

    xs: [time, *batch, in_features]; targets: a pytree of [time, ...], a step of which goes to the
    loss; resets: bool[time, *batch], True at the first step of a document, or None.
    """

    xs: Any
    targets: Any
    resets: Any = None


class OnlineStep(NamedTuple):
    """The result of one step; `grads` is shaped like params, for any optax chain."""

    state: Any
    grads: OnlineParams
    loss: Float[Array, ""]
    y: Float[Array, "*batch out_features"]


class OnlineRule(Windowed):
    """A method that needs no past: at each step it has the gradient of the loss of that step.

    Leaves are frozen dataclasses with the fields `cell`, a causal cell, and `every`, the steps from one
    update to the next (None: one update a batch). With a `step_loss(head, y, target) -> scalar` and
    params an `OnlineParams`:

    - `rule(step_loss)` is the gradient of the sum of the losses of all steps, with params held constant;
    - `rule.update(step_loss, optimizer)` makes an update every `every` steps from their summed
      gradients; the last update of a batch takes the steps that are left over;
    - `rule.online(step_loss)` goes one step at a time: `Online.init` and `Online.update`.

    The first two take batches of the form of `OnlineBatch`, or plain (xs, targets), time first. The
    metric "loss" is the mean over the steps (of an update, or of the batch).

    carry: the online state, `rule.online(step_loss).init(params, batch_shape)`, which is carried from
        batch to batch, so that gradients reach back without end; or None: each batch begins afresh.
    key: redraws the noise for each batch; the memory and the traces stay.

    Raises a ValueError for an `every` below 1 and a cell that the rule cannot serve, and, when called,
    for a batch of another form and a carry that the rule does not give for it.

    >>> import jax, jax.numpy as jnp, optax, seqjax as sj
    >>> cell = sj.DiagonalLSTM(features=4)
    >>> params = sj.OnlineParams(cell.init(jax.random.key(0), in_features=2))
    >>> step_loss = lambda head, y, target: jnp.mean((y - target) ** 2)
    >>> rule, optimizer = sj.rtrl(cell, every=5), optax.sgd(0.1)
    >>> carry = rule.online(step_loss).init(params, (3,))
    >>> batch = jnp.ones((12, 3, 2)), jnp.zeros((12, 3, 4))
    >>> update = jax.jit(rule.update(step_loss, optimizer))
    >>> update(params, optimizer.init(params), carry, batch, None).metrics["loss"].value.shape
    (3,)
    >>> jax.jit(rule(step_loss))(params, carry, batch, None).grads.cell.bias.shape
    (16,)
    """

    cell: Cell
    every: int | None
    signal: Signal | None = None

    def __post_init__(self) -> None:
        """Validate the cell and the number of steps."""
        if not isinstance(self.cell, Cell):
            raise ValueError(
                f"{self.name}: cell: expected a Cell, got {self.cell!r}; a rule is made as {self.made}"
            )
        with validate.named(self.name):
            validate.check_cell(self.cell)
        if not self.cell.causal:
            raise ValueError(
                f"{self.name}: cell is {self.cell!r}, whose y_t needs inputs after t; expected one with "
                "a step: online rules serve every causal cell, and sj.bptt this one"
            )
        self.check_steps("every", self.every)

    @property
    def made(self) -> str:
        """How a rule of this kind is made."""
        return f"sj.{self.name}(cell)"

    @property
    def differentiated(self) -> Cell:
        """The cell whose derivatives these are, with the params, states and values of `cell`."""
        return self.cell

    def check_steps(self, argument: str, value: Any) -> None:
        """Raise unless `value` is a number of steps, or None; a function is a misplaced loss."""
        if callable(value):
            raise ValueError(
                f"{self.name}: {argument}: expected a positive integer, got {value!r}; the loss comes "
                f"afterwards: {self.made}(step_loss), or {self.made}.online(step_loss) for single steps"
            )
        if value is not None:
            checks.positive(f"{self.name}: {argument}", value)

    @abc.abstractmethod
    def begin(self, params: OnlineParams, x: Any, state: State, key: Array | None) -> Any:
        """Return the online state before the first step; x: the form of [*batch, in_features]."""

    @abc.abstractmethod
    def step(
        self, loss: StepLoss, params: OnlineParams, online_state: Any, inputs: OnlineBatch
    ) -> OnlineStep:
        """Take one step; `inputs` are those of this step. The arguments have been validated."""

    def online(self, step_loss: StepLoss) -> "Online":
        """Return the rule under this loss, for one step at a time."""
        return Online(self, step_loss)

    def gradient(self, loss: StepLoss) -> GradientFn:
        """Return the gradient function of the sum over all steps of a batch."""
        if self.every is None:
            return super().gradient(loss)
        leaf: Any = self
        return dataclasses.replace(leaf, every=None).gradient(loss)

    def walk(self, loss: StepLoss) -> Walk:
        """Return the walk through a batch, with a window for each `every` steps."""
        online = self.online(loss)

        def walk(
            visit: Visit, model: Any, params: Any, carry: Any, batch: Any, key: Array | None
        ) -> tuple[Any, Any, Any]:
            batch = check_batch(self.name, batch)
            every = len(batch.xs) if self.every is None else self.every

            def step(state: Any, inputs: tuple[Array, OnlineBatch, None]) -> tuple[Any, Any]:
                (model, online_state), (_, steps, _) = state, inputs
                gradient = lambda params: summed(online, params, online_state, steps)
                model, online_state, out = visit(model, gradient)
                return (model, online_state), out

            state = model, self._started(online, params, carry, batch, key)
            (model, online_state), out = cut(batch, every, None).scan(step, state)
            return model, None if carry is None else online_state, out

        return walk

    def _started(
        self, online: "Online", params: Any, carry: Any, batch: OnlineBatch, key: Array | None
    ) -> Any:
        """The online state before a batch: a first one, or the carry with its noise redrawn."""
        batch_shape = batch.xs.shape[1:-1]
        if carry is None:
            return online.init(params, batch_shape, key=key)
        expected = jax.eval_shape(
            lambda p: online.init(p, batch_shape, key=jax.random.key(0)), params
        )
        source = f"init(params, {batch_shape}), for xs of shape {batch.xs.shape},"
        checks.same_tree(f"{self.name}: carry", carry, expected, source, dtypes=False)
        key = typed_key(self.name, key)
        return carry if key is None else carry._replace(cell=self.cell.redraw(carry.cell, key))


@dataclasses.dataclass(frozen=True)
class Online:
    """An online rule under one loss, one step at a time; made by `rule.online(step_loss)`.

    `init` and `update` are pure functions, for the caller to jit and to scan. The online state is a
    NamedTuple whose field `cell` is the recurrent state.

    Both raise a ValueError for params, states and inputs that do not fit the cell, the batch and the
    rule, and `update` for a loss that is not a scalar.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.GRU(features=4)
    >>> params = sj.OnlineParams(cell.init(jax.random.key(0), in_features=2))
    >>> online = sj.rtrl(cell).online(lambda head, y, target: jnp.mean((y - target) ** 2))
    >>> state = online.init(params, (3,))
    >>> state, grads, loss, y = online.update(params, state, jnp.ones((3, 2)), jnp.zeros((3, 4)))
    >>> grads.cell.bias.shape
    (12,)
    """

    rule: OnlineRule
    step_loss: StepLoss

    def __post_init__(self) -> None:
        """Validate the loss."""
        name = f"{self.rule.name}: step_loss"
        check_signature(name, self.step_loss, "step_loss(head, y, target)", "sj.bptt")

    def init(
        self,
        params: OnlineParams,
        batch_shape: tuple[int, ...] = (),
        *,
        state: State = None,
        key: Array | None = None,
    ) -> Any:
        """Return the online state before the first step.

        state: the recurrent state to begin with, taken as it is: how it depends on params is not known.
        None is the initial one, whose dependence on params counts. key: draws noise.
        """
        name, cell = self.rule.name, self.rule.cell
        check_params(name, params)
        batch_shape = checks.shape(f"{name}: batch_shape", batch_shape)
        key = typed_key(name, key)
        x = input_of(name, cell, params.cell)

        def start(params: Any, x: Array) -> State:
            state = cell.initial_state(params, batch_shape, key=jax.random.key(0))
            with validate.named(name):
                validate.check_batch(cell, state, batch_shape)
                validate.check_step(cell, params, state, x[None])
            return state

        x = jax.ShapeDtypeStruct((*batch_shape, *x.shape), x.dtype)
        expected = jax.eval_shape(start, params.cell, x)
        if state is not None:
            source = f"{cell!r}.initial_state(params, {batch_shape})"
            checks.same_tree(f"{name}: state", state, expected, source)
        return self.rule.begin(params, x, state, key)

    def update(
        self,
        params: OnlineParams,
        online_state: Any,
        x: Float[Array, "*batch in_features"],
        target: Any,
        *,
        reset: Bool[Array, "*batch"] | None = None,
    ) -> OnlineStep:
        """Take one step of the cell; return its loss and the gradient of that loss.

        reset: True where a document begins at this step: the memory becomes the initial one, the noise
        is kept, and nothing of the past has any influence.
        """
        name = self.rule.name
        check_params(name, params)
        x = checks.array(f"{name}: x", x)
        check_width(name, self.rule.cell, params.cell, x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{name}: x is {x.dtype}; expected floating point: embed token ids beforehand"
            )
        begin = lambda params: self.rule.begin(params, x, None, jax.random.key(0))
        expected, batch_shape = jax.eval_shape(begin, params), x.shape[:-1]
        source = f"init(params, {batch_shape}), for x of shape {x.shape},"
        # Any dtype is allowed: a narrow influence saves memory, and stays narrow.
        checks.same_tree(f"{name}: online_state", online_state, expected, source, dtypes=False)
        if reset is not None:
            reset = checks.array(f"{name}: reset", reset)
            check_reset(f"{name}: reset", reset, batch_shape, "one for each row of the batch")
        inputs = OnlineBatch(x, target, reset)
        return self.rule.step(self.step_loss, params, online_state, inputs)


def summed(
    online: Online, params: OnlineParams, online_state: Any, batch: OnlineBatch
) -> WindowGradient:
    """The sum of the gradients of all steps, one after the other."""

    def step(state: Any, inputs: OnlineBatch) -> tuple[Any, Array]:
        online_state, grads = state
        x, target, reset = inputs
        result = online.update(params, online_state, x, target, reset=reset)
        grads = jax.tree.map(lambda s, g: s + g.astype(s.dtype), grads, result.grads)
        return (result.state, grads), result.loss

    (online_state, grads), losses = lax.scan(step, (online_state, zeros(params)), batch)
    losses = losses.astype(accumulator(losses.dtype))
    loss = Mean(losses.sum(), jnp.asarray(len(losses), losses.dtype))
    return WindowGradient(grads, losses.sum(), jnp.ones(()), online_state, {"loss": loss})


def present(
    rule: OnlineRule, loss: StepLoss, params: OnlineParams, state: State, inputs: OnlineBatch
) -> tuple[State, Array, Callable[[Any, Params], OnlineStep]]:
    """Return s_t and ∂L_t/∂s_{t-1}, [*batch, n], from one VJP of (θ, s_{t-1}) -> y_t.

    The last result is a function of the online state and of what reaches θ by way of s_{t-1}: it adds
    ∂⁺L_t/∂θ, with s_{t-1} held fixed, and returns the step. By way of s_{t-1} and not of s_t, so that
    what y_t takes from params directly, as a readout or a residual connection does, is exact.

    Raises a ValueError for a loss that is not a scalar, and for a signal of another shape than y.
    """
    x, target, _ = inputs

    def forward(cell_params: Params, s: Array) -> tuple[Array, State]:
        after, y = rule.differentiated.step(cell_params, from_vector(state, s), x)
        return y, after

    y, pull, after = jax.vjp(forward, params.cell, to_vector(state, x.ndim - 1), has_aux=True)

    def loss_of(head: Any, y: Array) -> Array:
        return checks.scalar(f"{rule.name}: step_loss", loss(head, y, target))

    value, (head, dy) = jax.value_and_grad(loss_of, argnums=(0, 1))(params.head, y)
    if rule.signal is not None:
        dy = checks.array(f"{rule.name}: signal", rule.signal(params.head, y, target))
        if dy.shape != y.shape:
            raise ValueError(
                f"{rule.name}: signal gives shape {dy.shape}; expected that of y, {y.shape}"
            )
    direct, past = pull(dy.astype(y.dtype))

    def result(online_state: Any, from_past: Params) -> OnlineStep:
        grads = jax.tree.map(lambda d, p: d + p.astype(d.dtype), direct, from_past)
        return OnlineStep(online_state, OnlineParams(grads, head), value, y)

    return after, past, result


def restarted(cell: Cell, params: Params, state: State, reset: Array) -> State:
    """The initial memory where `reset`; the noise stays."""
    return Plan(fresh=fresh_memory(cell, params, state, reset.shape)).restart(reset, state)


def widest(*dtypes: Any) -> Any:
    """The widest of real dtypes, at least float32; strict promotion mixes none by itself."""
    return max((accumulator(d) for d in (*dtypes, jnp.float32)), key=lambda d: d.itemsize)


def in_each_row(function: Callable[..., Any], batch_shape: tuple[int, ...]) -> Callable[..., Any]:
    """`function` of one row for every row: rows never mix, and all arguments lead with the batch."""
    for _ in batch_shape:
        function = jax.vmap(function)
    return function


def typed_key(name: str, key: Any) -> Array | None:
    """One form of key, and so of what states hold, whichever form of key is given."""
    checks.key(f"{name}: key", key)
    if key is None or jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def check_params(name: str, params: Any) -> None:
    """Raise unless params are those of a cell and a loss, and can be differentiated."""
    if not isinstance(params, OnlineParams):
        raise ValueError(
            f"{name}: params is a {type(params).__name__}; "
            "expected sj.OnlineParams(cell, head), with the params of the cell and those of the loss"
        )
    checks.differentiable(f"{name}: params", params)


def check_reset(name: str, reset: Array, shape: tuple[int, ...], meaning: str) -> None:
    """Raise unless there is a bool for each row.

    Another shape would cut the state along one axis and its past along another.
    """
    if reset.shape != shape or reset.dtype != jnp.bool_:
        raise ValueError(
            f"{name} is {reset.dtype}{list(reset.shape)}; expected bool{list(shape)}, {meaning}"
        )


def check_batch(name: str, batch: Any) -> OnlineBatch:
    """The batch as an `OnlineBatch` whose leaves agree on a time of at least 1."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise ValueError(
            f"{name}: batch is a {type(batch).__name__}; expected (xs, targets) or (xs, targets, resets)"
        )
    xs, targets, resets = OnlineBatch(*batch)
    xs = checks.array(f"{name}: xs", xs)
    if xs.ndim < 2:
        raise ValueError(
            f"{name}: xs has shape {xs.shape}; expected [time, *batch, in_features], time first"
        )
    targets = arrays(f"{name}: targets", targets)
    time_steps(name, (xs, targets))
    if resets is not None:
        resets = checks.array(f"{name}: resets", resets)
        check_reset(f"{name}: resets", resets, xs.shape[:-1], "[time, *batch]")
    return OnlineBatch(xs, targets, resets)
