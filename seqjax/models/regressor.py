"""Many to one, or to many: numbers for a whole sequence, such as the steps that come after it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from seqjax import checks, losses
from seqjax.cell import Cell, Params
from seqjax.data import Padded
from seqjax.engines.dispatch import Remat, check_options
from seqjax.fields import check_fields
from seqjax.gradients import Metrics
from seqjax.initializers import Initializer
from seqjax.models.inputs import Inputs
from seqjax.models.outputs import POOLS, last_step, outputs, pooled_features, pooled_outputs
from seqjax.models.readout import Readout, dropped
from seqjax.numerics import compute_dtype


class RegressorParams(NamedTuple):
    """The params of the inputs, of the cell, and the readout."""

    inputs: Any
    cell: Params
    readout: Readout


@dataclasses.dataclass(frozen=True)
class Regressor:
    """s_t, y_t = cell(s_{t-1}, x_t)
    v = pool(y_1 … y_T) over the real steps
    [p_1 … p_horizon] = v V + b,   and + x_T in the columns of `last`

    inputs: `Vectors` for a series. cell: any cell. outputs: how many numbers are predicted at a time.
    horizon: for how many steps; None is one prediction for the whole sequence.
    pool: as in `Classifier`.
    last: the columns of x, one for each output, to whose last real value the prediction is added: with
        V = 0 it repeats the last value, and a level that drifts is no matter. Needs `Vectors`.
    dropout: the rate at which entries of v are dropped while a key is given.

    >>> import jax, seqjax as sj
    >>> series = sj.models.Vectors(7)
    >>> model = sj.models.Regressor(series, sj.GRU(16), outputs=7, horizon=24, last=tuple(range(7)))
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, jax.numpy.ones((96, 3, 7))).shape
    (24, 3, 7)
    """

    inputs: Inputs
    cell: Cell
    outputs: int
    horizon: int | None = None
    pool: str = "last"
    last: tuple[int, ...] | None = None
    dropout: float = 0.0
    readout_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    remat: Remat = "auto"

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no model."""
        checks.instance("Regressor: inputs", self.inputs, Inputs)
        checks.instance("Regressor: cell", self.cell, Cell)
        checks.positive("Regressor: outputs", self.outputs)
        if self.horizon is not None:
            checks.positive("Regressor: horizon", self.horizon)
        checks.one_of("Regressor: pool", self.pool, POOLS)
        checks.fraction("Regressor: dropout", self.dropout)
        check_fields(self)
        check_options("auto", self.remat)
        if self.last is not None:
            width = self.inputs.features
            if not isinstance(self.last, tuple) or len(self.last) != self.outputs:
                raise ValueError(
                    f"Regressor: last: expected a tuple of {self.outputs} columns, one for each output, "
                    f"got {self.last!r}"
                )
            for column in self.last:
                checks.size("Regressor: last", column)
                if column >= width:
                    raise ValueError(
                        f"Regressor: last: expected columns below {width}, got {column}"
                    )

    def init(self, key: Array) -> RegressorParams:
        """Each part by its own key."""
        inputs_key, cell_key, readout_key = jax.random.split(key, 3)
        numbers = self.outputs * (1 if self.horizon is None else self.horizon)
        width, rule = pooled_features(self.pool, self.cell), self.readout_init
        return RegressorParams(
            self.inputs.init(inputs_key),
            self.cell.init(cell_key, self.inputs.features),
            Readout.init(readout_key, width, numbers, rule, self.param_dtype),
        )

    def apply(
        self,
        params: RegressorParams,
        inputs: Any,
        lengths: ArrayLike | None = None,
        *,
        key: Array | None = None,
    ) -> Array:
        """Predictions [horizon, *batch, outputs]; [*batch, outputs] where the horizon is None.

        inputs: [time, *batch, width]. lengths: int[*batch], None where all steps are real. key: draws
        the noise; None is evaluation.
        """
        cell, ys, key = outputs(self, params, inputs, lengths, key)
        pooled = dropped(pooled_outputs(self.pool, cell, ys, lengths), self.dropout, key)
        found = params.readout("Regressor: pooled", pooled, compute_dtype(self))
        if self.horizon is not None:
            found = found.reshape(*found.shape[:-1], self.horizon, self.outputs)
            found = jnp.moveaxis(found, -2, 0)
        if self.last is None:
            return found
        at_end = self.inputs.apply(params.inputs, inputs)  # without noise
        level = last_step(at_end, lengths)[..., jnp.array(self.last)].astype(found.dtype)
        return found + jnp.broadcast_to(level, found.shape)

    def loss(
        self, params: RegressorParams, carry: None, batch: Padded, key: Array | None
    ) -> tuple[Float[Array, ""], tuple[None, Metrics]]:
        """Mean of (prediction - target)² over all numbers of the real rows.

        batch: its targets are [horizon, rows, outputs], or [rows] where outputs is 1 and the horizon
        None. Metrics: "mse", the same mean, and "mae", that of |prediction - target|.
        """
        predictions = self.apply(params, batch.inputs, batch.lengths, key=key)
        targets = jnp.asarray(batch.targets).astype(predictions.dtype)
        if self.horizon is None and targets.ndim == predictions.ndim - 1:
            targets = targets[..., None]
        if targets.shape != predictions.shape:
            raise ValueError(
                f"Regressor.loss: batch.targets has shape {targets.shape}; expected {predictions.shape}"
            )
        rows = jnp.asarray(batch.real)[:, None]
        real = jnp.broadcast_to(rows, predictions.shape)
        error = predictions - targets
        squared = losses.mean_over(jnp.square(error), real)
        absolute = losses.mean_over(jnp.abs(error), real)
        return squared.value, (carry, {"mse": squared, "mae": absolute})
