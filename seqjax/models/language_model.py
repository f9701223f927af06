"""A recurrent language model: embedding, any cell, readout."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from seqjax import checks, losses
from seqjax.cell import Cell, Params, State
from seqjax.data import Batch
from seqjax.engines import unroll, unroll_fold
from seqjax.engines.dispatch import Remat, check_options
from seqjax.fields import check_fields
from seqjax.gradients import Metrics
from seqjax.initializers import Initializer, Normal
from seqjax.losses import Mean
from seqjax.models.inputs import Tokens
from seqjax.models.outputs import check_predictor
from seqjax.models.readout import Readout, dropped_steps
from seqjax.numerics import affine, compute_dtype, widened
from seqjax.wrappers import drop_weights


class LanguageModelParams(NamedTuple):
    """Embedding E, the params of the cell, and the readout; no kernel where it is tied to E."""

    embedding: Float[Array, "vocabulary embedding"]
    cell: Params
    readout: Readout


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """x_t = E[token_t]
    s_t, y_t = cell(s_{t-1}, x_t)
    p(token_{t+1} | token_1 … token_t) = softmax(y_t V + b)

    vocabulary: the number of tokens; cell: any causal cell, a stack or residual one included.
    embedding: the width of x. tied: V = Eᵀ (Press, Wolf 2017), where embedding = cell.out_features.
    embedding_init: None draws E from N(0, 1), so that a token moves the cell more than the recurrence
        does (small embeddings leave an untrained LSTM in attractors of its own), and from
        N(0, 1 / embedding) where E is the readout too.
    dropout: the rate at which entries of x and of y are dropped, anew at every step, while a key is
        given (Zaremba, Sutskever, Vinyals 2014). A cell's own noise, such as `sj.Dropout`, is drawn
        by the same key, once for each window.
    weight_drop: the rate at which entries of every recurrent kernel are dropped, the same ones for a
        whole window, while a key is given (Merity, Keskar, Socher 2018); see `sj.drop_weights`.
    remat: what reverse mode keeps of a window, as in `sj.unroll`. Logits exist for a few steps at a time
        in any case: `loss` folds them into the run, and finds their gradient as it meets them
        (`sj.losses.linear_cross_entropy`).

    A pure pair of `init` and `apply`; `loss` has the one training signature, and `step` is what
    generation needs. Without a key a model is deterministic, as in evaluation.

    Raises a ValueError for sizes below 1, a rate outside [0, 1), a cell that reads the future, and a
    tied readout of another width.
    Reference: Mikolov et al. 2010, "Recurrent neural network based language model".

    >>> import jax, seqjax as sj
    >>> model = LanguageModel(vocabulary=65, cell=sj.LSTM(32), embedding=16)
    >>> params = model.init(jax.random.key(0))
    >>> state, logits = model.apply(params, model.initial_state(params), jax.numpy.arange(9))
    >>> logits.shape
    (9, 65)
    """

    vocabulary: int
    cell: Cell
    embedding: int
    dropout: float = 0.0
    weight_drop: float = 0.0
    tied: bool = False
    embedding_init: Initializer | str | None = None
    readout_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    remat: Remat = "auto"

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no model."""
        checks.positive("LanguageModel: vocabulary", self.vocabulary)
        checks.positive("LanguageModel: embedding", self.embedding)
        check_predictor("LanguageModel", "cell", self.cell)
        check_fields(self)
        checks.fraction("LanguageModel: dropout", self.dropout)
        checks.fraction("LanguageModel: weight_drop", self.weight_drop)
        check_options("auto", self.remat)
        if self.tied and self.embedding != self.cell.out_features:
            raise ValueError(
                f"LanguageModel: tied needs embedding equal to the out_features of the cell, "
                f"got {self.embedding} and {self.cell.out_features}"
            )

    @property
    def tokens(self) -> Tokens:
        """The embedding, as other models read tokens."""
        rule = self.embedding_init
        if rule is None:
            rule = Normal(self.embedding**-0.5 if self.tied else 1.0)
        return Tokens(
            self.vocabulary, self.embedding, embedding_init=rule, param_dtype=self.param_dtype
        )

    def init(self, key: Array) -> LanguageModelParams:
        """E by `embedding_init`, the cell's params by the cell, V by `readout_init`, b = 0."""
        embedding_key, cell_key, readout_key = jax.random.split(key, 3)
        sizes = self.cell.out_features, self.vocabulary
        readout = Readout.init(readout_key, *sizes, self.readout_init, self.param_dtype)
        return LanguageModelParams(
            embedding=self.tokens.init(embedding_key),
            cell=self.cell.init(cell_key, self.embedding),
            readout=readout._replace(kernel=None) if self.tied else readout,
        )

    def initial_state(
        self,
        params: LanguageModelParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> State:
        """The state before the first token: that of the cell.

        Without a key its noise is that of the deterministic cell: nothing is dropped.
        """
        cell = self.cell.deterministic() if key is None else self.cell
        return cell.initial_state(params.cell, batch_shape, key=key)

    def apply(
        self,
        params: LanguageModelParams,
        state: State,
        tokens: ArrayLike,
        *,
        key: Array | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[State, Float[Array, "time *batch vocabulary"]]:
        """The state after the last token, and the logits of the token that follows each.

        tokens: int[time, *batch]. key: draws the noise of this call; None is evaluation. lengths and
        resets are those of `sj.unroll`.
        """
        state, ys = self.outputs(params, state, tokens, key=key, lengths=lengths, resets=resets)
        return state, self.readout(params, ys)

    def outputs(
        self,
        params: LanguageModelParams,
        state: State,
        tokens: ArrayLike,
        *,
        key: Array | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[State, Float[Array, "time *batch features"]]:
        """`apply` without the readout: the state after the last token, and what logits are read off."""
        ids = jnp.asarray(tokens)
        cell, cell_key, embedding_keys, output_keys = self._noise(key, ids.shape[0])
        xs = dropped_steps(self.embed(params, ids), self.dropout, embedding_keys)
        state, ys = unroll(
            cell,
            self._thinned(params.cell, key),
            xs,
            state,
            key=cell_key,
            lengths=lengths,
            resets=resets,
            remat=self.remat,
        )
        return state, dropped_steps(ys, self.dropout, output_keys)

    def step(
        self, params: LanguageModelParams, state: State, token: ArrayLike
    ) -> tuple[State, Float[Array, "*batch vocabulary"]]:
        """One token, int[*batch], without noise: the state after it, the logits of the next one."""
        state, y = self.advance(params, state, token)
        return state, self.readout(params, y)

    def advance(
        self, params: LanguageModelParams, state: State, token: ArrayLike
    ) -> tuple[State, Float[Array, "*batch features"]]:
        """`step` without the readout."""
        return self.cell.deterministic().step(params.cell, state, self.embed(params, token))

    def loss(
        self, params: LanguageModelParams, carry: State, batch: Batch, key: Array | None
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        """-mean log p(target_t | inputs up to t), in nats, over the real tokens of a window.

        The carry is the state of the cell. Metrics: "nats", the same mean, and "accuracy".
        """
        inputs, targets, mask, resets = (jnp.asarray(field) for field in batch)
        cell, cell_key, embedding_keys, output_keys = self._noise(key, inputs.shape[0])

        wide, narrow = widened(params)

        def measure(ys: Array, operands: Any) -> dict[str, Mean]:
            targets, mask, keys = operands
            readout, dtype = self._readout(narrow(wide)), compute_dtype(self)
            ys = dropped_steps(ys, self.dropout, keys)
            found = losses.linear_cross_entropy(ys, *readout, targets, mask=mask, dtype=dtype)
            return found._asdict()

        carry, metrics = unroll_fold(
            cell,
            self._thinned(params.cell, key),
            dropped_steps(self.embed(params, inputs), self.dropout, embedding_keys),
            measure,
            (targets, mask, output_keys),
            carry,
            key=cell_key,
            resets=resets,
            remat=self.remat,
        )
        return metrics["nats"].value, (carry, metrics)

    def embed(
        self, params: LanguageModelParams, tokens: ArrayLike
    ) -> Float[Array, "*any embedding"]:
        """Look up rows of E; see `Tokens.apply`."""
        return self.tokens.apply(params.embedding, tokens)

    def readout(
        self, params: LanguageModelParams, y: Float[Array, "*any features"]
    ) -> Float[Array, "*any vocabulary"]:
        """Logits = y V + b."""
        return affine("LanguageModel: y", y, *self._readout(params), compute_dtype(self))

    def _readout(self, params: LanguageModelParams) -> tuple[Array, Array]:
        """V, which is Eᵀ where it is tied, and b."""
        kernel, bias = params.readout
        return (params.embedding.T if kernel is None else kernel), bias

    def _noise(
        self, key: Array | None, time: int
    ) -> tuple[Cell, Array | None, Array | None, Array | None]:
        """The cell of a run, the key of its noise, and a key for each embedding and each output."""
        if key is None:
            return self.cell.deterministic(), None, None, None
        cell_key, embedding_key, output_key = jax.random.split(key, 3)
        if self.dropout == 0:
            return self.cell, cell_key, None, None
        embedding_keys, output_keys = (
            jax.random.split(k, time) for k in (embedding_key, output_key)
        )
        return self.cell, cell_key, embedding_keys, output_keys

    def _thinned(self, params: Params, key: Array | None) -> Params:
        """The params of the cell, under one mask a call where weights are dropped."""
        if key is None or self.weight_drop == 0:
            return params
        return drop_weights(params, jax.random.fold_in(key, 3), self.weight_drop)
