"""Many to many, unaligned: one sequence is read, another of any length is written."""

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
from seqjax.decoding import Hypotheses, continuations
from seqjax.engines import unroll
from seqjax.engines.dispatch import Remat, check_options, run_cell
from seqjax.engines.fold import fold_pieces
from seqjax.fields import check_fields
from seqjax.gradients import Metrics
from seqjax.initializers import Initializer
from seqjax.losses import Mean
from seqjax.models.attention import Attention, Memory
from seqjax.models.inputs import Inputs, Tokens
from seqjax.models.outputs import check_predictor, pooled_features, pooled_outputs, real_steps
from seqjax.models.readout import Bridge, Readout, dropped_steps
from seqjax.numerics import accumulator, compute_dtype, widened
from seqjax.plan import Plan
from seqjax.wrappers.wrapper import OneCell


class Source(NamedTuple):
    """What the decoder knows of a source that has been read; the same at every step.

    end: c, the outputs of the encoder at its ends. memory: all its outputs, None without attention.
    """

    end: Float[Array, "*batch ends"]
    memory: Memory | None


class DecoderParams(NamedTuple):
    """The params of the cell, of the attention and of C; the last two are None without attention.

    source: what is attended to, put there once it has been read. It is None in the params of a model.
    """

    cell: Params
    attention: Any
    combine: Readout | None
    source: Source | None = None


class DecoderState(NamedTuple):
    """The state of the decoder's cell, and what it reads beside the next token.

    fed: ã_{t-1} with attention, c without; None where nothing is fed.
    """

    cell: State
    fed: Float[Array, "*batch fed"] | None


@dataclasses.dataclass(frozen=True, repr=False)
class Decoder(OneCell[DecoderParams, DecoderState]):
    """s_t, h_t = cell(s_{t-1}, [x_t, ã_{t-1}])
    y_t = ã_t = tanh([attention(h_t, m), h_t] C + d)

    The decoder of a `Seq2Seq` as a cell, so that it runs as every cell does. Its params hold the source
    that has been read. The arguments are those of `Seq2Seq`; heard and ends are the widths of m and c.
    """

    cell: Cell
    attention: Attention | None
    heard: int
    ends: int
    input_feeding: bool
    combine_init: Initializer | str
    param_dtype: DTypeLike
    dtype: DTypeLike | None

    @property
    def features(self) -> int:
        """The width of ã."""
        return self.cell.out_features

    def inner_params(self, params: DecoderParams) -> Params:
        """Select the params of the cell."""
        return params.cell

    def inner_state(self, state: DecoderState) -> State:
        """Select the state of the cell."""
        return state.cell

    def init(self, key: Array, in_features: int) -> DecoderParams:
        """Draw each part by its own key; in_features is the width of an embedding."""
        cell_key, attention_key, combine_key = jax.random.split(key, 3)
        fed, both = self.ends, self.heard + self.features
        attention = combine = None
        if self.attention is not None:
            fed = self.features
            attention = self.attention.init(attention_key, self.features, self.heard)
            sizes = both, self.features, self.combine_init, self.param_dtype
            combine = Readout.init(combine_key, *sizes)
        cell = self.cell.init(cell_key, in_features + (fed if self.input_feeding else 0))
        return DecoderParams(cell, attention, combine)

    def initial_state(
        self, params: DecoderParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> DecoderState:
        """Return the state of the cell, and what is fed to it before there is a ã."""
        state = self.cell.initial_state(params.cell, batch_shape, key=key)
        if not self.input_feeding or params.source is None:
            return DecoderState(state, None)
        if self.attention is None:
            return DecoderState(state, params.source.end)
        fed = jnp.zeros((*batch_shape, self.features), accumulator(compute_dtype(self)))
        return DecoderState(state, fed)

    def redraw(self, state: DecoderState, key: Array) -> DecoderState:
        """Redraw the noise of the cell."""
        return state._replace(cell=self.cell.redraw(state.cell, key))

    def step(
        self, params: DecoderParams, state: DecoderState, x: Array
    ) -> tuple[DecoderState, Array]:
        """Compute one step: the state after it, and ã."""
        state, attended, _ = self.attend(params, state, x)
        return state, attended

    def attend(
        self, params: DecoderParams, state: DecoderState, x: Array
    ) -> tuple[DecoderState, Array, Array | None]:
        """Compute one step, and the weights of the attention beside it."""
        fed = state.fed
        if fed is not None:
            x = jnp.concatenate([x, fed.astype(x.dtype)], axis=-1)
        inner, h = self.cell.step(params.cell, state.cell, x)
        memory = None if params.source is None else params.source.memory
        if self.attention is None or memory is None or params.combine is None:
            return DecoderState(inner, fed), h, None
        context, weights = self.attention.apply(params.attention, memory, h)
        both = jnp.concatenate([context, h.astype(context.dtype)], axis=-1)
        attended = jnp.tanh(params.combine("Seq2Seq: [c, h]", both, compute_dtype(self)))
        return DecoderState(inner, None if fed is None else attended), attended, weights


class Seq2SeqParams(NamedTuple):
    """The params of each part, in the order in which they are used.

    bridge: from the end of the source to the decoder's first state.
    """

    source: Any
    encoder: Params
    bridge: Bridge
    target: Any
    decoder: DecoderParams
    readout: Readout


@dataclasses.dataclass(frozen=True)
class Seq2Seq:
    """m_1 … m_S = encoder(x_1 … x_S),   c = m_S, or [m_S, m_1] of both directions
    s_0 = tanh(c B + b)
    s_t, h_t = decoder(s_{t-1}, [E[y_{t-1}], ã_{t-1}]),   y_0 = START
    ã_t = tanh([attention(h_t, m), h_t] C + d)
    p(y_t | y_1 … y_{t-1}, x) = softmax(ã_t V + r)

    source: `Tokens` or `Vectors`, what the encoder reads. encoder: any cell, both directions included.
    target: `Tokens`, what is written. decoder: any causal cell. Of its state s_0 gives every floating
        leaf of memory, of a complex one the real and the imaginary part; the rest is as the cell begins.
    attention: `AdditiveAttention`, `MultiplicativeAttention`, or None: then ã_t = h_t.
    input_feeding: whether the decoder reads more than E[y_{t-1}]: ã_{t-1} with ã_0 = 0, as above;
        without attention c, the same at each step (Cho et al. 2014).
    dropout: the rate at which entries of ã_t are dropped on their way to V, while a key is given. What
        is dropped of x and of E[y] stands in `source` and `target`, and noise of the cells in the cells.
    label_smoothing: as in `sj.losses.cross_entropy`, while a key is given.
    start, stop: the ids of START and STOP.
    remat: what reverse mode keeps, as in `sj.unroll`. Logits exist for some steps of the target at a
        time, as in `sj.unroll_fold`: for 64, or those of a segment where that is "sqrt" or an integer.

    Targets are y_1 … y_n STOP, without START, which the model puts before them. The step is one
    function: `loss` and `apply` scan it over given targets, and `TargetSide` hands it to what draws,
    scores and searches, in `seqjax.decoding`.

    Raises a ValueError for parts of another kind, a decoder that reads the future, rates outside [0, 1),
    and a start or stop outside the vocabulary.
    References: Sutskever, Vinyals, Le 2014; Cho et al. 2014; Bahdanau, Cho, Bengio 2015; the order of
    decoder and attention, and input feeding: Luong, Pham, Manning 2015.

    >>> import jax, seqjax as sj
    >>> tokens = sj.models.Tokens(vocabulary=20, embedding=8)
    >>> encoder = sj.Bidirectional(sj.GRU(8), sj.GRU(8))
    >>> attention = sj.models.AdditiveAttention(units=8)
    >>> model = sj.models.Seq2Seq(tokens, encoder, tokens, sj.GRU(12), attention)
    >>> params = model.init(jax.random.key(0))
    >>> examples = [sj.data.Example([7, 4, 9, 5], [9, 4, 3]), sj.data.Example([8], [6, 6, 3])]
    >>> batch = sj.data.pad(examples, time=6, rows=2)
    >>> value, (_, metrics) = model.loss(params, None, batch, None)
    >>> float(metrics["nats"].count)
    6.0
    """

    source: Inputs
    encoder: Cell
    target: Tokens
    decoder: Cell
    attention: Attention | None = None
    input_feeding: bool = True
    dropout: float = 0.0
    label_smoothing: float = 0.0
    start: int = 2
    stop: int = 3
    bridge_init: Initializer | str = "glorot"
    combine_init: Initializer | str = "glorot"
    readout_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    remat: Remat = "auto"

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no model."""
        checks.instance("Seq2Seq: source", self.source, Inputs)
        checks.instance("Seq2Seq: encoder", self.encoder, Cell)
        checks.instance("Seq2Seq: target", self.target, Tokens)
        check_predictor("Seq2Seq", "decoder", self.decoder)
        if self.attention is not None:
            checks.instance("Seq2Seq: attention", self.attention, Attention)
        checks.instance("Seq2Seq: input_feeding", self.input_feeding, bool)
        checks.fraction("Seq2Seq: dropout", self.dropout)
        checks.fraction("Seq2Seq: label_smoothing", self.label_smoothing)
        for name in ("start", "stop"):
            value = getattr(self, name)
            checks.size(f"Seq2Seq: {name}", value)
            if value >= self.target.vocabulary:
                raise ValueError(
                    f"Seq2Seq: {name}: expected an id below the {self.target.vocabulary} of the "
                    f"target's vocabulary, got {value}"
                )
        check_fields(self)
        check_options("auto", self.remat)

    def init(self, key: Array) -> Seq2SeqParams:
        """Each part by its own key."""
        keys = jax.random.split(key, 6)
        decoder, dtype = self._decoder(None), self.param_dtype
        drawn = decoder.init(keys[0], self.target.features)
        sizes = self.decoder.out_features, self.target.vocabulary
        return Seq2SeqParams(
            source=self.source.init(keys[1]),
            encoder=self.encoder.init(keys[2], self.source.features),
            bridge=Bridge.init(
                keys[3], decoder.ends, self.decoder, drawn.cell, self.bridge_init, dtype
            ),
            target=self.target.init(keys[4]),
            decoder=drawn,
            readout=Readout.init(keys[5], *sizes, self.readout_init, dtype),
        )

    def encode(
        self,
        params: Seq2SeqParams,
        inputs: Any,
        lengths: ArrayLike | None = None,
        *,
        key: Array | None = None,
    ) -> Source:
        """The source, read once.

        inputs: int[time, *batch] for `Tokens`, [time, *batch, width] for `Vectors`.
        lengths: int[*batch], None where all steps are real. key: draws the noise; None is evaluation.
        """
        cell = self.encoder if key is not None else self.encoder.deterministic()
        input_key, cell_key = (None, None) if key is None else jax.random.split(key)
        xs = self.source.apply(params.source, inputs, input_key)
        _, ys = unroll(cell, params.encoder, xs, key=cell_key, lengths=lengths, remat=self.remat)
        end = pooled_outputs("last", cell, ys, lengths)
        end = end.astype(accumulator(end.dtype))  # where it is fed, all steps meet in its gradient
        if self.attention is None:
            return Source(end, None)
        return Source(end, self.attention.remember(params.decoder.attention, ys, lengths))

    def initial_state(
        self, params: Seq2SeqParams, source: Source, *, key: Array | None = None
    ) -> DecoderState:
        """s_0 from c, and what is fed before the first token. key: draws the decoder's noise."""
        decoder, given = self._decoder(key), params.decoder._replace(source=source)
        state = decoder.initial_state(given, source.end.shape[:-1], key=key)
        cell = params.bridge(
            "Seq2Seq: source.end", self.decoder, state.cell, source.end, compute_dtype(self)
        )
        return state._replace(cell=cell)

    def step(
        self, params: Seq2SeqParams, source: Source, state: DecoderState, token: ArrayLike
    ) -> tuple[DecoderState, Float[Array, "*batch vocabulary"]]:
        """One token, int[*batch], without noise: the state after it, the logits of the next one."""
        given, x = params.decoder._replace(source=source), self.target.apply(params.target, token)
        state, attended = self._decoder(None).step(given, state, x)
        return state, self._logits(params, attended)

    def apply(
        self,
        params: Seq2SeqParams,
        inputs: Any,
        lengths: ArrayLike | None,
        targets: ArrayLike,
    ) -> Float[Array, "time *batch vocabulary"]:
        """The logits of each target, int[time, *batch], given the source and the targets before it."""
        source = self.encode(params, inputs, lengths)
        state = self.initial_state(params, source)
        return self.continued(params, source, state, self._before(jnp.asarray(targets)))[1]

    def continued(
        self, params: Seq2SeqParams, source: Source, state: DecoderState, tokens: ArrayLike
    ) -> tuple[DecoderState, Float[Array, "time *batch vocabulary"]]:
        """`step` over int[time, *batch]: the state after them, and the logits of what follows each."""
        given, xs = params.decoder._replace(source=source), self.target.apply(params.target, tokens)
        plan, options = Plan(), {"engine": "auto", "remat": self.remat}
        state, attended = run_cell(self._decoder(None), given, state, xs, plan, **options)
        return state, self._logits(params, attended)

    def align(
        self,
        params: Seq2SeqParams,
        inputs: Any,
        lengths: ArrayLike | None,
        targets: ArrayLike,
    ) -> Float[Array, "time source_time *batch"]:
        """The weights of the attention at each target, as a picture of which source it was read from.

        targets: int[time, *batch]. Raises a ValueError for a model without attention.
        """
        if self.attention is None:
            raise ValueError("Seq2Seq.align: attention is None; expected a model that has one")
        source = self.encode(params, inputs, lengths)
        decoder, given = self._decoder(None), params.decoder._replace(source=source)

        def body(state: DecoderState, x: Array) -> tuple[DecoderState, Any]:
            state, _, weights = decoder.attend(given, state, x)
            return state, weights

        xs = self.target.apply(params.target, self._before(jnp.asarray(targets)))
        return lax.scan(body, self.initial_state(params, source), xs)[1]

    def loss(
        self, params: Seq2SeqParams, carry: None, batch: Padded, key: Array | None
    ) -> tuple[Float[Array, ""], tuple[None, Metrics]]:
        """-mean log p(y_t | y_1 … y_{t-1}, x), in nats, over the real tokens of the targets.

        batch: its targets are int[time, rows], each y_1 … y_n STOP. Metrics: "nats", "accuracy".
        """
        targets = jnp.asarray(batch.targets)
        if targets.ndim != 2 or batch.target_lengths is None:
            raise ValueError(
                f"Seq2Seq.loss: batch.targets has shape {targets.shape}; expected int[time, rows], "
                "y_1 … y_n STOP, with its target_lengths"
            )
        real = real_steps("Seq2Seq.loss: target_lengths", batch.target_lengths, targets.shape)
        real = real & jnp.broadcast_to(jnp.asarray(batch.real)[None], real.shape)
        source_key, token_key, cell_key, output_key = (
            (None,) * 4 if key is None else jax.random.split(key, 4)
        )
        source = self.encode(params, batch.inputs, batch.lengths, key=source_key)
        # No token of the padding is looked up: after a NaN not even a masked loss has a gradient.
        tokens = jnp.where(real, self._before(targets), jnp.asarray(self.start, targets.dtype))
        xs = self.target.apply(params.target, tokens, token_key)
        keys = None
        if output_key is not None and self.dropout:
            keys = jax.random.split(output_key, len(targets))
        smoothing = self.label_smoothing if key is not None else 0.0
        wide, narrow = widened(params)
        decoder = self._decoder(cell_key)

        def run(state: DecoderState, xs: Array, plan: Plan, **options: Any) -> tuple[Any, Array]:
            given = narrow(wide).decoder._replace(source=source)
            return run_cell(decoder, given, state, xs, plan, **options)

        def measure(attended: Array, operands: Any) -> dict[str, Mean]:
            targets, real, keys = operands
            logits = self._logits(narrow(wide), dropped_steps(attended, self.dropout, keys))
            nats = losses.token_cross_entropy(logits, targets, mask=real)
            smoothed = losses.token_cross_entropy(
                logits, targets, mask=real, label_smoothing=smoothing
            )
            right = losses.token_accuracy(logits, targets, mask=real)
            values = {"nats": nats, "accuracy": right, "smoothed": smoothed}
            return {name: losses.mean_over(value, real) for name, value in values.items()}

        state = self.initial_state(params, source, key=cell_key)
        operands, options = (targets, real, keys), {"engine": "auto", "remat": self.remat}
        _, metrics = fold_pieces(run, measure, state, xs, operands, Plan(), **options)
        return metrics.pop("smoothed").value, (carry, metrics)

    def _decoder(self, key: Array | None) -> Decoder:
        """The decoder and what it attends to, as a cell; without noise where the key is None."""
        return Decoder(
            self.decoder if key is not None else self.decoder.deterministic(),
            self.attention,
            self.encoder.out_features,
            pooled_features("last", self.encoder),
            self.input_feeding,
            self.combine_init,
            self.param_dtype,
            self.dtype,
        )

    def _logits(
        self, params: Seq2SeqParams, attended: Float[Array, "*any width"]
    ) -> Float[Array, "*any vocabulary"]:
        """ã V + r."""
        return params.readout("Seq2Seq: attended", attended, compute_dtype(self))

    def _before(self, targets: Array) -> Array:
        """START y_1 … y_{n-1}: what stands before each target."""
        start = jnp.full_like(targets[:1], self.start)
        return jnp.concatenate([start, targets])[: targets.shape[0]]


class TargetSideParams(NamedTuple):
    """The params of the model, and the source that has been read with them by `Seq2Seq.encode`."""

    model: Seq2SeqParams
    source: Source


@dataclasses.dataclass(frozen=True)
class TargetSide:
    """p(y | x) for an x that has been read: a language model, to be generated from and scored.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> tokens = sj.models.Tokens(vocabulary=20, embedding=8)
    >>> model = sj.models.Seq2Seq(tokens, sj.GRU(8), tokens, sj.GRU(8))
    >>> params = model.init(jax.random.key(0))
    >>> source = model.encode(params, jnp.array([[7, 8], [4, 5]]))
    >>> side, given = TargetSide(model), TargetSideParams(params, source)
    >>> start = jnp.full((1, 2), model.start)
    >>> sj.generate(side, given, jax.random.key(1), start, 9, stop=model.stop).tokens.shape
    (9, 2)
    """

    model: Seq2Seq

    def initial_state(
        self, params: TargetSideParams, batch_shape: tuple[int, ...] = ()
    ) -> DecoderState:
        """The state before START; a ValueError where the source has another batch."""
        if batch_shape != params.source.end.shape[:-1]:
            raise ValueError(
                f"TargetSide: the prompt has the batch {batch_shape} but the source has "
                f"{params.source.end.shape[:-1]}; expected them equal"
            )
        return self.model.initial_state(params.model, params.source)

    def apply(
        self, params: TargetSideParams, state: DecoderState, tokens: Array
    ) -> tuple[DecoderState, Float[Array, "time *batch vocabulary"]]:
        """The state after int[time, *batch], and the logits of what follows each token."""
        return self.model.continued(params.model, params.source, state, tokens)

    def step(
        self, params: TargetSideParams, state: DecoderState, token: ArrayLike
    ) -> tuple[DecoderState, Float[Array, "*batch vocabulary"]]:
        """One token, int[*batch]: the state after it, the logits of the next one."""
        return self.model.step(params.model, params.source, state, token)


def translate(
    model: Seq2Seq,
    params: Seq2SeqParams,
    inputs: Any,
    lengths: ArrayLike | None = None,
    *,
    max_length: int,
    beam: int = 4,
    min_length: int = 1,
    alpha: float | Array = 0.6,
    penalty: str = "wu",
) -> Hypotheses:
    """The likeliest targets of each source that beam search finds, as one compiled loop.

    inputs, lengths: the sources, as for `Seq2Seq.encode`. The other arguments are those of
    `beam_search`, whose ValueErrors it raises; another alpha does not compile again. What the best ones
    attend to, for a picture, is `model.align(params, inputs, lengths, found.tokens[..., 0])`; to draw
    targets instead, give a `TargetSide` to `sj.generate`.

    >>> import seqjax as sj
    >>> tokens, attention = sj.models.Tokens(20, 8), sj.models.MultiplicativeAttention()
    >>> model = sj.models.Seq2Seq(tokens, sj.GRU(8), tokens, sj.GRU(8), attention)
    >>> params = model.init(jax.random.key(0))
    >>> source = jnp.array([[7, 8, 4], [4, 5, 0]])
    >>> found = translate(model, params, source, jnp.array([2, 2, 1]), max_length=9, beam=5)
    >>> found.tokens.shape, found.scores.shape
    ((9, 3, 5), (3, 5))
    """
    options = {"beam": beam, "min_length": min_length, "penalty": penalty}
    return _translate(model, params, inputs, lengths, max_length, alpha, **options)


@functools.partial(
    jax.jit, static_argnames=("model", "max_length", "beam", "min_length", "penalty")
)
def _translate(model, params, inputs, lengths, max_length, alpha, **options):
    source = model.encode(params, inputs, lengths)
    prompt = jnp.full((1, *source.end.shape[:-1]), model.start, jnp.int32)
    side, given = TargetSide(model), TargetSideParams(params, source)
    options = {"stop": model.stop, "alpha": alpha, **options}
    return continuations(side, given, prompt, max_length, **options)
