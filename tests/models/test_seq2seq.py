"""Many to many, unaligned: against a NumPy loop, step against scan, and padding that changes nothing."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.data import Example, pad
from seqjax.models import AdditiveAttention, MultiplicativeAttention, Seq2Seq, Tokens, translate
from tests import oracles
from tests.cells.comparison import unpacked

pytestmark = pytest.mark.usefixtures("quick_compilation")

BOTH = sj.Bidirectional(sj.GRU(3), sj.GRU(2))
EXAMPLES = [
    Example([4, 1, 5], [5, 1, 4, 1, 3]),
    Example([5], [4, 3]),
    Example([1, 4], [3]),
]


@functools.cache
def make(attention: Any = None, encoder: sj.Cell = BOTH, decoder: sj.Cell | None = None, **options):
    decoder = sj.LSTM(4) if decoder is None else decoder
    model = Seq2Seq(Tokens(6, 3), encoder, Tokens(7, 2), decoder, attention, **options)
    return model, model.init(jax.random.key(0))


def in_float64(part: Any) -> Any:
    """The same in double precision."""
    fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    inner = {name: in_float64(v) for name, v in fields.items() if dataclasses.is_dataclass(v)}
    inner |= {"param_dtype": jnp.float64} if "param_dtype" in fields else {}
    return dataclasses.replace(part, **{k: v for k, v in inner.items() if "init" not in k})


KINDS = pytest.mark.parametrize(
    ("attention", "feeding"),
    [
        (AdditiveAttention(3), True),
        pytest.param(MultiplicativeAttention(), False, marks=pytest.mark.full),
        (None, True),
        pytest.param(None, False, marks=pytest.mark.full),
    ],
    ids=["additive, fed", "multiplicative", "cho", "sutskever"],
)


def log_probs_by_hand(model, params, x, targets):
    """Log p of each target of one example, by the equations, in float64."""

    def gru(cell, xs):
        gates = unpacked("rzn", cell.input_kernel, cell.recurrent_kernel, cell.bias)
        return oracles.gru(gates, cell.inner_bias, xs, np.zeros(len(cell.inner_bias)))

    xs = params.source[np.array(x)]
    forward = gru(params.encoder.forward, xs)
    backward = gru(params.encoder.backward, xs[::-1])[::-1]
    memory = np.concatenate([forward, backward], axis=1)
    c = np.concatenate([memory[-1], memory[0]])
    h, s = np.split(np.tanh(c @ params.bridge.readout.kernel + params.bridge.readout.bias), 2)
    cell = params.decoder.cell
    gates = unpacked("ifgo", cell.input_kernel, cell.recurrent_kernel, cell.bias)
    fed, found = np.zeros(4), []
    for before, target in zip([2, *targets], targets, strict=False):
        parts = [params.target[before]]
        if model.input_feeding:
            parts.append(c if model.attention is None else fed)
        hs, ss = oracles.lstm(gates, np.concatenate(parts)[None], h, s)
        h, s = hs[0], ss[0]
        fed = h
        if model.attention is not None:
            if isinstance(model.attention, AdditiveAttention):
                W, U, v = params.decoder.attention
                e = np.array([v @ np.tanh(h @ W + m @ U) for m in memory])
            else:
                e = np.array([h @ (m @ params.decoder.attention.kernel) for m in memory])
            a = np.exp(e) / np.exp(e).sum()
            both = np.concatenate([a @ memory, h])
            fed = np.tanh(both @ params.decoder.combine.kernel + params.decoder.combine.bias)
        o = fed @ params.readout.kernel + params.readout.bias
        found.append(o[target] - np.log(np.exp(o).sum()))
    return np.array(found)


@KINDS
def test_the_loss_and_its_gradient_are_those_of_the_equations(attention, feeding, x64):
    model = in_float64(make(attention, input_feeding=feeding)[0])
    params = model.init(jax.random.key(0))
    batch = pad(EXAMPLES, time=6, rows=4)
    measure = jax.jit(jax.value_and_grad(lambda p: model.loss(p, None, batch, None), has_aux=True))
    (value, (_, metrics)), gradient = measure(params)

    def loss(params):
        found = [log_probs_by_hand(model, params, e.inputs, e.targets) for e in EXAMPLES]
        return -np.concatenate(found).mean()

    arrays = jax.tree.map(np.array, params)
    np.testing.assert_allclose(value, loss(arrays), rtol=1e-10)
    assert float(metrics["nats"].count) == float(metrics["accuracy"].count) == 8
    np.testing.assert_allclose(metrics["nats"].value, value, rtol=1e-12)

    draw = np.random.default_rng(0)
    for ours, array in zip(jax.tree.leaves(gradient), jax.tree.leaves(arrays), strict=True):
        assert ours.shape == array.shape
        entries = {tuple(draw.integers(array.shape)) for _ in range(3)}
        for entry in entries:
            there = float(array[entry])
            moved = []
            for step in (1e-5, -1e-5):
                array[entry] = there + step
                moved.append(loss(arrays))
            array[entry] = there
            difference = (moved[0] - moved[1]) / 2e-5
            np.testing.assert_allclose(ours[entry], difference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("attention", [AdditiveAttention(3), None], ids=["attention", "plain"])
def test_padding_and_rows_that_are_not_real_change_neither_loss_nor_gradient(attention):
    model, params = make(attention)
    measure = jax.jit(jax.value_and_grad(lambda p, batch: model.loss(p, None, batch, None)[0]))
    value, gradient = measure(params, pad(EXAMPLES, time=5, rows=3))
    padded = pad(EXAMPLES, time=9, rows=6)
    steps = np.arange(9)[:, None]
    spoiled = padded._replace(  # ids that would be NaN
        inputs=np.where(steps < padded.lengths, padded.inputs, -1),
        targets=np.where(steps < padded.target_lengths, padded.targets, 99),
    )
    again, same = measure(params, spoiled)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), same, gradient
    )


@pytest.mark.parametrize(
    "decoder",
    [
        sj.GRU(4),
        sj.Stack(
            (sj.Dropout(sj.LSTM(4), 0.5), sj.LRU(4, state_features=3), sj.ClockworkRNN(4, (1, 2)))
        ),
    ],
    ids=["gru", "stack"],
)
def test_step_by_step_gives_the_logits_of_apply(decoder):
    model, params = make(AdditiveAttention(3), decoder=decoder)
    batch = pad(EXAMPLES, time=6, rows=3)
    logits = model.apply(params, batch.inputs, batch.lengths, batch.targets)
    source = model.encode(params, batch.inputs, batch.lengths)
    state = model.initial_state(params, source)
    token = jnp.full(3, model.start)
    for target, expected in zip(batch.targets, logits, strict=True):
        state, stepped = model.step(params, source, state, token)
        np.testing.assert_allclose(stepped, expected, rtol=1e-4, atol=1e-5)
        token = jnp.asarray(target)


def test_the_target_side_scores_as_a_language_model_does():
    model, params = make(AdditiveAttention(3))
    batch = pad(EXAMPLES, time=6, rows=3)
    source = model.encode(params, batch.inputs, batch.lengths)
    side, given = sj.models.TargetSide(model), sj.models.TargetSideParams(params, source)
    text = np.concatenate([np.full((1, 3), 2), batch.targets])
    scored = sj.score(side, given, text)
    for row, example in enumerate(EXAMPLES):
        n = len(example.targets)
        expected = log_probs_by_hand(
            model, jax.tree.map(np.asarray, params), example.inputs, example.targets
        )
        np.testing.assert_allclose(scored.log_probs[:n, row], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"prompt has the batch \(2,\) but the source has \(3,\)"):
        sj.score(side, given, text[:, :2])


def test_the_decoder_begins_from_both_ends_of_the_source():
    """Every floating leaf of memory by one affine map and tanh; the noise and the clocks as they are."""
    decoder = sj.Stack(
        (sj.Dropout(sj.LSTM(4), 0.5), sj.LRU(4, state_features=3), sj.ClockworkRNN(4, (1, 2)))
    )
    model, params = make(decoder=decoder, input_feeding=False)
    source = model.encode(params, np.array([4, 1, 5]))
    _, ys = sj.unroll(model.encoder, params.encoder, params.source[np.array([4, 1, 5])])
    ends = np.concatenate([ys[-1], ys[0]])
    np.testing.assert_allclose(source.end, ends, rtol=1e-6)
    bridged = np.tanh(
        ends @ np.asarray(params.bridge.readout.kernel) + np.asarray(params.bridge.readout.bias)
    )
    state = model.initial_state(params, source, key=jax.random.key(1))
    dropped, complex_state, clocked = state.cell.layers
    real, imaginary = bridged[8:11], bridged[11:14]
    np.testing.assert_allclose(dropped.cell.h, bridged[:4], rtol=1e-5)
    np.testing.assert_allclose(dropped.cell.c, bridged[4:8], rtol=1e-5)
    np.testing.assert_allclose(complex_state.h, real + 1j * imaginary, rtol=1e-5)
    np.testing.assert_allclose(clocked.h, bridged[14:], rtol=1e-5)
    assert bridged.shape == (18,)
    assert int(clocked.t) == 0
    assert dropped.mask.dtype == bool
    assert state.fed is None


def test_remat_changes_neither_values_nor_gradients():
    batch = pad(EXAMPLES, time=6, rows=3)
    expected = None
    for remat in ("auto", "state", 4):  # 4: a whole segment, and a shorter one
        small = {"encoder": sj.GRU(2), "decoder": sj.GRU(3)}
        model, params = make(AdditiveAttention(3), **small, remat=remat, dropout=0.3)
        measure = jax.jit(jax.value_and_grad(lambda p, m=model: m.loss(p, None, batch, KEY)[0]))
        found = measure(params)
        expected = found if expected is None else expected
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected
        )


KEY = jax.random.key(5)


def test_noise_is_there_with_a_key_only():
    dropping = sj.Dropout(sj.GRU(4), 0.5)
    still, params = make(None, sj.GRU(3), sj.GRU(4))
    batch = pad(EXAMPLES, time=5, rows=3)
    for model in (
        dataclasses.replace(still, decoder=dropping),
        dataclasses.replace(still, dropout=0.5),
    ):
        loss = jax.jit(lambda key, m=model: m.loss(params, None, batch, key)[0])
        first, again, other = (float(loss(jax.random.key(seed))) for seed in (1, 1, 2))
        assert first == again
        assert abs(first - other) > 1e-4
        expected = still.loss(params, None, batch, None)[0]
        np.testing.assert_allclose(loss(None), expected, rtol=1e-6)


def test_the_logits_of_apply_are_those_of_the_loss_and_smoothing_is_for_training_alone():
    model, params = make(label_smoothing=0.2)
    batch = pad(EXAMPLES, time=5, rows=3)
    logits = model.apply(params, batch.inputs, batch.lengths, batch.targets)
    targets, mask = jnp.asarray(batch.targets), np.arange(5)[:, None] < batch.target_lengths
    expected = functools.partial(sj.losses.cross_entropy, logits, targets, mask=jnp.asarray(mask))
    np.testing.assert_allclose(model.loss(params, None, batch, None)[0], expected(), rtol=1e-5)
    trained, (_, metrics) = model.loss(params, None, batch, KEY)
    np.testing.assert_allclose(trained, expected(label_smoothing=0.2), rtol=1e-5)
    np.testing.assert_allclose(metrics["nats"].value, expected(), rtol=1e-5)
    right = np.argmax(logits, axis=-1) == batch.targets
    np.testing.assert_allclose(metrics["accuracy"].value, right[mask].mean(), rtol=1e-6)


def test_gradients_of_bfloat16_params_are_summed_in_float32():
    """Those of the attention and of the source too, which all steps of the target meet in."""
    half = {"param_dtype": jnp.bfloat16}
    wide = Seq2Seq(Tokens(6, 3), sj.GRU(3), Tokens(7, 2), sj.GRU(4), AdditiveAttention(3))
    narrow = dataclasses.replace(wide, encoder=sj.GRU(3, **half), decoder=sj.GRU(4, **half))
    narrow = dataclasses.replace(narrow, attention=AdditiveAttention(3, **half))
    # With this draw no gradient nearly cancels, which would leave rounding alone to compare.
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), wide.init(jax.random.key(1)))
    targets = [*np.random.default_rng(1).integers(4, 7, size=300).tolist(), 3]
    batch = pad([Example([4, 1, 5], targets)], time=301, rows=1)

    def gradient(model, params):
        return jax.jit(jax.grad(lambda p: model.loss(p, None, batch, None)[0]))(params)

    exact = gradient(wide, jax.tree.map(lambda p: p.astype(jnp.float32), params))
    for ours, expected in zip(
        jax.tree.leaves(gradient(narrow, params)), jax.tree.leaves(exact), strict=True
    ):
        assert ours.dtype == jnp.bfloat16
        error = np.linalg.norm(np.asarray(ours, np.float32) - expected)
        assert error < 0.05 * np.linalg.norm(expected)


def test_alignments_are_the_weights_over_the_real_source():
    model, params = make(AdditiveAttention(3))
    batch = pad(EXAMPLES, time=5, rows=3)
    weights = np.asarray(model.align(params, batch.inputs, batch.lengths, batch.targets))
    assert weights.shape == (5, 5, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    for row, n in enumerate(batch.lengths):
        assert np.all(weights[:, n:, row] == 0)
        assert np.all(weights[:, :n, row] > 0)
    with pytest.raises(ValueError, match="attention is None; expected a model that has one"):
        make()[0].align(make()[1], batch.inputs, batch.lengths, batch.targets)


def test_a_model_learns_to_reverse(standard_promotion):
    """All 39 words of at most 3 letters, until beam search writes each of them backwards."""
    letters = (4, 5, 6)
    words = [[a, *rest] for a in letters for rest in [[], *([b] for b in letters)]]
    words += [[a, b, c] for a in letters for b in letters for c in letters]
    batch = pad([Example(word, [*word[::-1], 3]) for word in words], time=4, rows=len(words))
    tokens = Tokens(7, 8)
    encoder = sj.Bidirectional(sj.GRU(12), sj.GRU(12))
    model = Seq2Seq(tokens, encoder, tokens, sj.GRU(16), AdditiveAttention(12))
    optimizer = optax.adam(0.02)
    params = model.init(jax.random.key(0))

    def update(carry, _):
        params, opt_state = carry
        value, gradient = jax.value_and_grad(lambda p: model.loss(p, None, batch, None)[0])(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    train = jax.jit(lambda carry: jax.lax.scan(update, carry, None, length=150))
    (params, _), values = train((params, optimizer.init(params)))
    assert float(values[-1]) < 0.02
    found = translate(model, params, batch.inputs, batch.lengths, max_length=6, beam=2)
    for row, word in enumerate(words):
        length = int(found.lengths[row, 0])
        assert found.tokens[:length, row, 0].tolist() == [*word[::-1], 3]


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    model, params = make()
    batch = pad([Example([1], 2)], time=3, rows=2)
    with pytest.raises(ValueError, match=r"batch\.targets has shape \(2,\); expected int\[time"):
        model.loss(params, None, batch, None)
    with pytest.raises(ValueError, match="Seq2Seq: stop: expected an id below the 7"):
        make(stop=7)
    with pytest.raises(ValueError, match=r"decoder is Bidirectional.*expected a cell without"):
        make(decoder=BOTH)
    with pytest.raises(ValueError, match="Seq2Seq: attention: expected a Attention, got 'luong'"):
        make("luong")
    with pytest.raises(ValueError, match="Seq2Seq: target: expected a Tokens"):
        Seq2Seq(Tokens(6, 3), BOTH, sj.models.Vectors(3), sj.GRU(2))  # pyright: ignore[reportArgumentType] - refused
    with pytest.raises(ValueError, match="Seq2Seq: input_feeding: expected a bool, got 1"):
        make(input_feeding=1)
