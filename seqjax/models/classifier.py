"""Many to one: a class for a whole sequence."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Cell, Params
from seqjax.data import Padded
from seqjax.engines.dispatch import Remat, check_options
from seqjax.fields import check_fields
from seqjax.gradients import Metrics
from seqjax.initializers import Initializer
from seqjax.models.inputs import Inputs
from seqjax.models.outputs import POOLS, choice, outputs, pooled_features, pooled_outputs
from seqjax.models.readout import Readout, dropped
from seqjax.numerics import compute_dtype


class ClassifierParams(NamedTuple):
    """The params of the inputs, of the cell, and the readout."""

    inputs: Any
    cell: Params
    readout: Readout


@dataclasses.dataclass(frozen=True)
class Classifier:
    """s_t, y_t = cell(s_{t-1}, x_t)
    v = pool(y_1 … y_T) over the real steps
    p(class | x_1 … x_T) = softmax(v V + b)

    inputs: `Tokens` for ids, `Vectors` for what is a vector at each step already.
    cell: any cell, one in both directions included.
    classes: how many there are.
    pool: "last" takes y_T; of a cell that reads the future too, y_T and y_1 side by side, at which its
        two directions have read everything. "mean" and "max" go over all real steps, entry by entry; of
        a sequence without steps they are 0.
    dropout: the rate at which entries of v are dropped while a key is given. What is dropped of x stands
        in `inputs`, and noise of the cell in the cell.
    label_smoothing: as in `sj.losses.cross_entropy`.

    >>> import jax, seqjax as sj
    >>> both = sj.Bidirectional(sj.LSTM(8), sj.LSTM(8))
    >>> model = sj.models.Classifier(sj.models.Tokens(100, 16), both, classes=2, pool="max")
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, jax.numpy.ones((7, 3), int), jax.numpy.array([7, 2, 5])).shape
    (3, 2)
    """

    inputs: Inputs
    cell: Cell
    classes: int
    pool: str = "last"
    dropout: float = 0.0
    label_smoothing: float = 0.0
    readout_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    remat: Remat = "auto"

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no model."""
        checks.instance("Classifier: inputs", self.inputs, Inputs)
        checks.instance("Classifier: cell", self.cell, Cell)
        checks.positive("Classifier: classes", self.classes)
        checks.one_of("Classifier: pool", self.pool, POOLS)
        checks.fraction("Classifier: dropout", self.dropout)
        checks.fraction("Classifier: label_smoothing", self.label_smoothing)
        check_fields(self)
        check_options("auto", self.remat)

    def init(self, key: Array) -> ClassifierParams:
        """Each part by its own key."""
        inputs_key, cell_key, readout_key = jax.random.split(key, 3)
        width = pooled_features(self.pool, self.cell)
        return ClassifierParams(
            self.inputs.init(inputs_key),
            self.cell.init(cell_key, self.inputs.features),
            Readout.init(readout_key, width, self.classes, self.readout_init, self.param_dtype),
        )

    def apply(
        self,
        params: ClassifierParams,
        inputs: Any,
        lengths: ArrayLike | None = None,
        *,
        key: Array | None = None,
    ) -> Float[Array, "*batch classes"]:
        """The logits of the classes.

        inputs: int[time, *batch] for `Tokens`, [time, *batch, width] for `Vectors`.
        lengths: int[*batch], None where all steps are real. key: draws the noise; None is evaluation.
        """
        cell, ys, key = outputs(self, params, inputs, lengths, key)
        pooled = pooled_outputs(self.pool, cell, ys, lengths)
        pooled = dropped(pooled, self.dropout, key)
        return params.readout("Classifier: pooled", pooled, compute_dtype(self))

    def loss(
        self, params: ClassifierParams, carry: None, batch: Padded, key: Array | None
    ) -> tuple[Float[Array, ""], tuple[None, Metrics]]:
        """-mean log p(target | inputs), in nats, over the real rows. Metrics: "nats", "accuracy".

        batch: its targets are int[rows].
        """
        logits = self.apply(params, batch.inputs, batch.lengths, key=key)
        targets, real = jnp.asarray(batch.targets), jnp.asarray(batch.real)
        smoothing = self.label_smoothing if key is not None else 0.0
        value, metrics = choice(logits, targets, real, smoothing)
        return value, (carry, metrics)
