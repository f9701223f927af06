"""Many to many, aligned: a tag for each step."""

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
from seqjax.models.outputs import choice, outputs, real_steps
from seqjax.models.readout import Readout, dropped
from seqjax.numerics import compute_dtype


class TaggerParams(NamedTuple):
    """The params of the inputs, of the cell, and the readout."""

    inputs: Any
    cell: Params
    readout: Readout


@dataclasses.dataclass(frozen=True)
class Tagger:
    """s_t, y_t = cell(s_{t-1}, x_t)
    p(tag_t | x_1 … x_T) = softmax(y_t V + b)

    inputs: `Tokens`, `Vectors`, or `WordsAndLetters`.
    cell: any cell; one in both directions reads the words after a word too.
    tags: how many there are.
    dropout: the rate at which entries of y are dropped while a key is given.
    label_smoothing: as in `sj.losses.cross_entropy`.

    Reference: Plank, Søgaard, Goldberg 2016, "Multilingual part-of-speech tagging with bidirectional
    long short-term memory models and auxiliary loss", without the auxiliary loss.

    >>> import jax, seqjax as sj
    >>> both = sj.Bidirectional(sj.LSTM(8), sj.LSTM(8))
    >>> model = sj.models.Tagger(sj.models.Tokens(100, 16), both, tags=17)
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, jax.numpy.ones((7, 3), int)).shape
    (7, 3, 17)
    """

    inputs: Inputs
    cell: Cell
    tags: int
    dropout: float = 0.0
    label_smoothing: float = 0.0
    readout_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    remat: Remat = "auto"

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no model."""
        checks.instance("Tagger: inputs", self.inputs, Inputs)
        checks.instance("Tagger: cell", self.cell, Cell)
        checks.positive("Tagger: tags", self.tags)
        checks.fraction("Tagger: dropout", self.dropout)
        checks.fraction("Tagger: label_smoothing", self.label_smoothing)
        check_fields(self)
        check_options("auto", self.remat)

    def init(self, key: Array) -> TaggerParams:
        """Each part by its own key."""
        inputs_key, cell_key, readout_key = jax.random.split(key, 3)
        width, rule = self.cell.out_features, self.readout_init
        return TaggerParams(
            self.inputs.init(inputs_key),
            self.cell.init(cell_key, self.inputs.features),
            Readout.init(readout_key, width, self.tags, rule, self.param_dtype),
        )

    def apply(
        self,
        params: TaggerParams,
        inputs: Any,
        lengths: ArrayLike | None = None,
        *,
        key: Array | None = None,
    ) -> Float[Array, "time *batch tags"]:
        """The logits of the tags of each step; those of the padding mean nothing.

        inputs: what `inputs` reads, [time, *batch, ...]. lengths: int[*batch], None where all steps are
        real. key: draws the noise; None is evaluation.
        """
        _, ys, key = outputs(self, params, inputs, lengths, key)
        return params.readout("Tagger: y", dropped(ys, self.dropout, key), compute_dtype(self))

    def loss(
        self, params: TaggerParams, carry: None, batch: Padded, key: Array | None
    ) -> tuple[Float[Array, ""], tuple[None, Metrics]]:
        """-mean log p(tag_t | inputs), in nats, over the real steps. Metrics: "nats", "accuracy".

        batch: its targets are int[time, rows].
        """
        logits = self.apply(params, batch.inputs, batch.lengths, key=key)
        targets = jnp.asarray(batch.targets)
        real = real_steps("Tagger.loss: lengths", batch.lengths, targets.shape)
        smoothing = self.label_smoothing if key is not None else 0.0
        value, metrics = choice(logits, targets, real, smoothing)
        return value, (carry, metrics)
