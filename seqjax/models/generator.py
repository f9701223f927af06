"""One to many: a sequence from a vector, from a class, or from nothing."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from seqjax import checks, losses
from seqjax.cell import Cell, Params, State
from seqjax.data import Padded
from seqjax.engines import unroll
from seqjax.engines.dispatch import Remat, check_options
from seqjax.fields import check_fields
from seqjax.gradients import Metrics
from seqjax.initializers import Initializer
from seqjax.models.elements import Elements
from seqjax.models.inputs import Inputs
from seqjax.models.outputs import check_predictor, real_steps
from seqjax.models.readout import Bridge, Readout, dropped
from seqjax.numerics import compute_dtype


class GeneratorParams(NamedTuple):
    """The params of each part; condition is () and bridge None where there is no condition."""

    condition: Any
    bridge: Bridge | None
    elements: Any
    cell: Params
    readout: Readout


@dataclasses.dataclass(frozen=True)
class Generator:
    """s_0 = tanh(c B + b)
    s_t, y_t = cell(s_{t-1}, [e_{t-1}, c]),   e_0 = 0
    p(e_t | e_1 … e_{t-1}, c) by the numbers y_t V + r

    elements: what the sequence is made of, `Symbols`, `Bits` or `Numbers`; e_t is one as it is read.
    cell: any causal cell.
    condition: what c is made from, `Tokens` for a class, `Vectors` for a vector; None: no c at all, and
        s_0 is as the cell begins.
    dropout: the rate at which entries of y are dropped while a key is given.
    remat: what reverse mode keeps, as in `sj.unroll`.

    A class or a vector with a sequence is one to many; without a condition this is a language model over
    any elements, with a first step that has seen nothing.

    >>> import jax, seqjax as sj
    >>> digits = sj.models.Tokens(vocabulary=10, embedding=8)
    >>> model = sj.models.Generator(sj.models.Bits(28), sj.GRU(16), digits)
    >>> params = model.init(jax.random.key(0))
    >>> labels = jax.numpy.arange(10)
    >>> model.generate(params, jax.random.key(1), labels, steps=28).shape
    (28, 10, 28)
    """

    elements: Elements
    cell: Cell
    condition: Inputs | None = None
    dropout: float = 0.0
    bridge_init: Initializer | str = "glorot"
    readout_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    remat: Remat = "auto"

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no model."""
        checks.instance("Generator: elements", self.elements, Elements)
        check_predictor("Generator", "cell", self.cell)
        if self.condition is not None:
            checks.instance("Generator: condition", self.condition, Inputs)
        checks.fraction("Generator: dropout", self.dropout)
        check_fields(self)
        check_options("auto", self.remat)

    def init(self, key: Array) -> GeneratorParams:
        """Each part by its own key."""
        keys = jax.random.split(key, 5)
        width = 0 if self.condition is None else self.condition.features
        cell = self.cell.init(keys[0], self.elements.features + width)
        return GeneratorParams(
            condition=() if self.condition is None else self.condition.init(keys[1]),
            bridge=None
            if self.condition is None
            else Bridge.init(keys[2], width, self.cell, cell, self.bridge_init, self.param_dtype),
            elements=self.elements.init(keys[3]),
            cell=cell,
            readout=Readout.init(
                keys[4],
                self.cell.out_features,
                self.elements.outputs,
                self.readout_init,
                self.param_dtype,
            ),
        )

    def apply(
        self,
        params: GeneratorParams,
        elements: Any,
        condition: Any = None,
        lengths: ArrayLike | None = None,
        *,
        key: Array | None = None,
    ) -> Float[Array, "time *batch outputs"]:
        """The numbers that make p of each element, given those before it.

        elements: [time, *batch, ...]. condition: int[*batch] of classes, or vectors [*batch, width].
        lengths: int[*batch], None where all steps are real. key: draws the noise; None is evaluation.
        """
        cell = self.cell if key is not None else self.cell.deterministic()
        keys = (None,) * 4 if key is None else jax.random.split(key, 4)
        xs = self.elements.read(params.elements, elements, keys[0])
        batch_shape = xs.shape[1:-1]
        c = self._condition(params, condition, batch_shape, keys[1])
        xs = jnp.concatenate([jnp.zeros_like(xs[:1]), xs])[: xs.shape[0]]
        if c is not None:
            repeated = jnp.broadcast_to(c[None], (xs.shape[0], *c.shape)).astype(xs.dtype)
            xs = jnp.concatenate([xs, repeated], axis=-1)
        state = self._begin(cell, params, c, batch_shape, keys[2])
        _, ys = unroll(cell, params.cell, xs, state, lengths=lengths, remat=self.remat)
        ys = dropped(ys, self.dropout, keys[3])
        return params.readout("Generator: y", ys, compute_dtype(self))

    def loss(
        self, params: GeneratorParams, carry: None, batch: Padded, key: Array | None
    ) -> tuple[Float[Array, ""], tuple[None, Metrics]]:
        """-mean log p(e_t | e_1 … e_{t-1}, c), in nats, over the real steps. Metrics: "nats".

        batch: its inputs are the condition, [rows] or [rows, width]; () without one. Its targets are the
        elements, [time, rows, ...].
        """
        elements, lengths = jnp.asarray(batch.targets), batch.target_lengths
        condition = None if self.condition is None else batch.inputs
        outputs = self.apply(params, elements, condition, lengths, key=key)
        real = real_steps("Generator.loss: target_lengths", lengths, elements.shape[:2])
        nats = losses.mean_over(self.elements.nats(outputs, elements), real)
        return nats.value, (carry, {"nats": nats})

    def generate(
        self,
        params: GeneratorParams,
        key: Array,
        condition: Any = None,
        *,
        steps: int,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
        prompt: ArrayLike | None = None,
    ) -> Array:
        """`steps` elements, [steps, *batch, ...], each drawn given those before it.

        batch_shape: how many, where neither a condition nor a prompt says so.
        prompt: [time, *batch, ...], elements that stand before those; they are not given back.
        temperature: 0 is the likeliest each time; it may change without a new compilation.

        Raises a ValueError for steps below 1 and a temperature below 0.
        """
        checks.positive("Generator.generate: steps", steps)
        if checks.is_number(temperature):
            checks.not_negative("Generator.generate: temperature", temperature)
        return _generate(
            self, params, key, condition, temperature, prompt, steps=steps, batch_shape=batch_shape
        )

    def _condition(
        self,
        params: GeneratorParams,
        condition: Any,
        batch_shape: tuple[int, ...],
        key: Array | None,
    ) -> Array | None:
        """c, or None; a ValueError where it is missing, unasked for, or of another batch."""
        if (self.condition is None) != (condition is None):
            wanted = "none" if self.condition is None else f"one that {self.condition!r} reads"
            raise ValueError(
                f"Generator: condition: expected {wanted}, got {type(condition).__name__}"
            )
        if self.condition is None:
            return None
        c = self.condition.apply(params.condition, condition, key)
        if c.shape[:-1] != batch_shape:
            raise ValueError(
                f"Generator: condition has batch {c.shape[:-1]} but elements have {batch_shape}"
            )
        return c

    def _begin(
        self,
        cell: Cell,
        params: GeneratorParams,
        c: Array | None,
        batch_shape: tuple[int, ...],
        key: Array | None,
    ) -> State:
        """s_0."""
        state = cell.initial_state(params.cell, batch_shape, key=key)
        if c is None or params.bridge is None:
            return state
        return params.bridge("Generator: c", self.cell, state, c, compute_dtype(self))


@functools.partial(jax.jit, static_argnames=("model", "steps", "batch_shape"))
def _generate(model, params, key, condition, temperature, prompt, *, steps, batch_shape):
    """`Generator.generate`, as one scan."""
    cell, elements = model.cell.deterministic(), model.elements
    read = None if prompt is None else elements.read(params.elements, prompt)
    if read is not None:
        batch_shape = read.shape[1:-1]
    elif condition is not None:
        batch_shape = model.condition.apply(params.condition, condition).shape[:-1]
    c = model._condition(params, condition, batch_shape, None)
    state = model._begin(cell, params, c, batch_shape, None)

    def advance(state, e):
        x = e if c is None else jnp.concatenate([e, c.astype(e.dtype)], axis=-1)
        state, y = cell.step(params.cell, state, x)
        return state, params.readout("Generator: y", y, compute_dtype(model))

    def body(carry, key):
        state, outputs = advance(*carry)
        drawn = elements.draw(key, outputs, temperature)
        return (state, elements.read(params.elements, drawn).astype(carry[1].dtype)), drawn

    e = jnp.zeros((*batch_shape, elements.features), model.param_dtype)
    if read is not None:
        before = jnp.concatenate([e[None].astype(read.dtype), read])
        state, _ = lax.scan(lambda state, e: (advance(state, e)[0], None), state, before[:-1])
        e = before[-1]
    return lax.scan(body, (state, e), jax.random.split(key, steps))[1]
