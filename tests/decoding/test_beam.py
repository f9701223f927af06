"""Beam search against all sequences there are, and against a search over plain lists."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.decoding import Hypotheses, beam_search, continuations
from seqjax.decoding import beam as module
from seqjax.models import translate

pytestmark = pytest.mark.usefixtures("quick_compilation")

VOCABULARY, STOP, LENGTH, BATCH = 3, 0, 4, 2
PREFIXES = sum(VOCABULARY**n for n in range(LENGTH + 1))


class Prefix(NamedTuple):
    """Which row of the batch, and which of all beginnings: a model that forgets nothing."""

    row: Any
    number: Any


ALL = 33
"""More beams than the 31 sequences that there are."""

START = Prefix(np.arange(BATCH), np.full(BATCH, -1))
"""Before the start token, which leads to prefix 0."""


def number_of(tokens) -> int:
    """The number of a beginning; the same walk as that of `step`."""
    return functools.reduce(lambda number, token: number * VOCABULARY + token + 1, tokens, 0)


def table(seed=0, scale=2.0):
    """Logits after each beginning, for each row: int [batch, prefixes, vocabulary]."""
    draw = np.random.default_rng(seed)
    return scale * draw.normal(size=(BATCH, PREFIXES, VOCABULARY)).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("beam", "stop", "min_length", "penalty", "max_length"))
def search(logits, alpha=0.0, beam=3, stop=STOP, min_length=1, penalty="wu", max_length=LENGTH):
    def step(state, token):
        number = state.number * VOCABULARY + token + 1
        number = jnp.where(state.number < 0, 0, number)
        # At a dead end, where no prefix is, any logits will do.
        return Prefix(state.row, number), logits[state.row, jnp.minimum(number, PREFIXES - 1)]

    return beam_search(
        step,
        jax.tree.map(jnp.asarray, START),
        jnp.zeros(len(logits), jnp.int32),
        beam=beam,
        max_length=max_length,
        stop=stop,
        min_length=min_length,
        alpha=alpha,
        penalty=penalty,
    )


def penalty_of(penalty, alpha, length):
    return ((5 + length) / 6) ** alpha if penalty == "wu" else length**alpha


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max()
    return logits - top - np.log(np.sum(np.exp(logits - top)))


def every_sequence(logits, stop=STOP, min_length=1):
    """{tokens: log p} of all that end with stop, or are cut at LENGTH."""
    found = {}
    for length in range(1, LENGTH + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            stopped = tokens[-1] == stop
            if stop in tokens[:-1] or (stopped and length < min_length):
                continue
            if not stopped and length < LENGTH:
                continue
            steps = (log_softmax(logits[number_of(tokens[:i])])[t] for i, t in enumerate(tokens))
            found[tokens] = sum(steps)
    return found


def listed(found: Hypotheses, row: int) -> list[tuple[int, ...]]:
    """The sequences of a row, the best first, without those that are none."""
    tokens, lengths = np.asarray(found.tokens)[:, row], np.asarray(found.lengths)[row]
    assert np.all(np.asarray(tokens).T[np.arange(LENGTH) >= lengths[:, None]] == 0)
    return [tuple(tokens[:n, k].tolist()) for k, n in enumerate(lengths) if n]


def by_lists(logits, beam, alpha, penalty):
    """The search as one would write it with lists, which never stops early."""
    going, ended = [((), 0.0)], []
    for _ in range(LENGTH):
        extended = [
            ((*tokens, token), log_p + step)
            for tokens, log_p in going
            for token, step in enumerate(log_softmax(logits[number_of(tokens)]))
        ]
        extended.sort(key=lambda hypothesis: -hypothesis[1])
        ended += [h for h in extended[:beam] if h[0][-1] == STOP]
        going = [h for h in extended if h[0][-1] != STOP][:beam]
    ended += going
    score = lambda h: h[1] / penalty_of(penalty, alpha, len(h[0]))
    return [h[0] for h in sorted(ended, key=lambda h: -score(h))][:beam]


PENALTIES = pytest.mark.parametrize(
    ("penalty", "alpha"), [("wu", 0.0), ("wu", 0.6), ("wu", 2.0), ("length", 1.0)]
)


@PENALTIES
def test_a_beam_that_holds_all_sequences_ranks_them_all(penalty, alpha):
    logits = table()
    everything = [every_sequence(row) for row in logits]
    found = search(logits, alpha, beam=ALL, penalty=penalty)
    for row, log_p in enumerate(everything):
        np.testing.assert_allclose(sum(np.exp(list(log_p.values()))), 1, rtol=1e-6)
        score = lambda tokens: log_p[tokens] / penalty_of(penalty, alpha, len(tokens))  # noqa: B023 - used at once
        order = sorted(log_p, key=score, reverse=True)
        assert listed(found, row) == order
        count = len(order)
        np.testing.assert_allclose(found.scores[row, :count], [score(y) for y in order], rtol=1e-4)
        np.testing.assert_allclose(
            found.log_probs[row, :count], [log_p[y] for y in order], rtol=1e-4, atol=1e-6
        )
        assert found.cut[row, :count].tolist() == [STOP not in y for y in order]
        assert np.all(np.isneginf(found.scores[row, count:]))
        assert not np.any(found.cut[row, count:])


@PENALTIES
@pytest.mark.parametrize("beam", [1, 3])
def test_a_narrow_beam_finds_what_a_search_over_lists_finds(beam, penalty, alpha):
    """Stopping early changes nothing: the lists go on to the last length."""
    for seed in range(20):
        logits = table(seed, scale=1.0 + seed % 3)
        found = search(logits, alpha, beam=beam, penalty=penalty)
        for row in range(BATCH):
            assert listed(found, row) == by_lists(logits[row], beam, alpha, penalty)


def test_no_sequence_is_found_twice():
    for seed in range(10):
        found = search(table(seed), 1.0)
        for row in range(BATCH):
            sequences = listed(found, row)
            assert len(set(sequences)) == len(sequences) == 3


def test_equal_logits_give_as_many_different_sequences():
    """Where all are alike, an order among equals must still not repeat any."""
    found = search(np.zeros((BATCH, PREFIXES, VOCABULARY), np.float32), beam=ALL)
    assert set(listed(found, 0)) == set(every_sequence(np.zeros((PREFIXES, VOCABULARY))))
    assert len(listed(found, 0)) == 31
    expected = -np.log(3) * np.asarray(found.lengths[0, :31])
    np.testing.assert_allclose(found.log_probs[0, :31], expected, rtol=1e-5)


def test_one_beam_without_a_penalty_is_the_greedy_text():
    for seed in range(10):
        logits = table(seed)
        found = search(logits, beam=1)
        for row in range(BATCH):
            tokens: list[int] = []
            while len(tokens) < LENGTH and STOP not in tokens:
                tokens.append(int(np.argmax(logits[row, number_of(tokens)])))
            assert listed(found, row) == [tuple(tokens)]


def test_an_ended_hypothesis_is_not_pushed_out_by_open_ones():
    """It ends at once with p = 0.3, below two open ones, and is the best in the end."""
    logits = np.zeros((BATCH, PREFIXES, VOCABULARY), np.float32)
    logits[:, 0] = np.log([0.3, 0.36, 0.34])
    found = search(logits, beam=3)
    assert listed(found, 0)[0] == (STOP,)
    # In a beam of one it is not among the best of its length: that is the pruning, not a push.
    assert (STOP,) not in listed(search(logits, beam=1), 0)


def test_stop_is_forbidden_before_the_least_length():
    logits, least = table(3), 3
    logits[..., STOP] += 3  # it would stop at once
    found = search(logits, beam=ALL, min_length=least)
    for row in range(BATCH):
        expected = every_sequence(logits[row], min_length=least)
        assert listed(found, row) == sorted(expected, key=expected.__getitem__, reverse=True)
        assert min(len(y) for y in listed(found, row)) == least


def test_a_hypothesis_without_stop_is_cut_and_says_so():
    logits = table()
    logits[..., STOP] = -np.inf
    found = search(logits)
    assert np.all(found.cut)
    assert np.all(found.lengths == LENGTH)
    forced = np.full_like(logits, -np.inf)
    forced[..., STOP] = 0
    found = search(forced)
    assert listed(found, 0) == listed(found, 1) == [(STOP,)]
    assert not np.any(found.cut)
    np.testing.assert_array_equal(found.log_probs[:, 0], 0)


def test_forbidden_tokens_never_occur_and_make_no_nan():
    """Not even where the model gives NaN after them: more beams are asked for than there are texts."""
    logits = table(5)
    logits[..., 2] = -np.inf
    after = [
        y for n in range(1, LENGTH + 1) for y in itertools.product(range(3), repeat=n) if 2 in y
    ]
    logits[:, [number_of(y) for y in after]] = np.nan
    found = search(logits, 0.6, beam=ALL)
    for row in range(BATCH):
        expected = every_sequence(np.where(np.isfinite(logits[row]), logits[row], -1e30))
        expected = {y: log_p for y, log_p in expected.items() if 2 not in y}
        assert set(listed(found, row)) == set(expected)
    assert not np.any(np.isnan(found.scores))
    # Of a row in which nothing is allowed nothing is found.
    logits[1] = -np.inf
    found = search(logits)
    assert listed(found, 1) == []
    assert listed(found, 0)
    assert not np.any(np.isnan(found.scores))


def test_a_nan_of_the_model_is_seen_in_the_scores():
    logits = table()
    logits[1] = np.nan
    found = search(logits)
    assert np.isnan(found.scores[1, 0])
    assert not np.any(np.isnan(found.scores[0]))


def test_rows_of_a_batch_do_not_influence_each_other():
    """One ends at once, the other goes on to the last length: each finds what it finds alone."""
    logits = table(7)
    logits[0, :, STOP] += 8
    logits[1, :, STOP] -= 8
    together = search(logits, 0.6)
    for row in range(BATCH):
        twice = search(np.stack([logits[row]] * BATCH), 0.6)
        assert listed(together, row) == listed(twice, 0) == listed(twice, 1)
        np.testing.assert_array_equal(together.scores[row], twice.scores[row])
    assert np.all(together.lengths[0, 0] == 1)
    assert np.all(together.cut[1])


def test_the_loop_ends_where_nothing_can_change_any_more():
    steps = []

    def step(state, token):
        jax.debug.callback(lambda: steps.append(0))
        logits = jnp.broadcast_to(jnp.array([9.0, 0.0, -1.0]), (*token.shape, 3))
        return state, logits

    run = lambda beam: beam_search(
        step, (), jnp.zeros((), jnp.int32), beam=beam, max_length=50, stop=STOP, alpha=0.0
    )
    found = jax.jit(run, static_argnums=0)(1)
    jax.effects_barrier()
    assert (len(steps), int(found.lengths[0])) == (1, 1)


def test_random_keys_in_the_state_move_with_their_beams():
    """Zoneout keeps one for each row."""
    model = sj.models.LanguageModel(6, sj.Zoneout(sj.GRU(5), 0.3), 4)
    params = jax.tree.map(lambda p: 2 * p, model.init(jax.random.key(0)))
    found = continuations(model, params, jnp.array([1]), 4, beam=3, alpha=0.0)
    assert_scores(model, params, jnp.array([1]), found, 0)


def assert_scores(model, params, prompt, found: Hypotheses, row: int | None):
    """Log p of what was found is that which the model gives to the text."""
    rows = (slice(None),) if row is None else ()
    for k in range(found.lengths.shape[-1]):
        tokens = found.tokens[:, *rows, k] if rows else found.tokens[:, k]
        scored = sj.score(model, params, jnp.concatenate([prompt, tokens]))
        expected = np.asarray(scored.log_probs)[len(prompt) - 1 :].sum(axis=0)
        np.testing.assert_allclose(found.log_probs[..., k], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def language():
    model = sj.models.LanguageModel(vocabulary=6, cell=sj.LSTM(8), embedding=4)
    return model, jax.tree.map(lambda p: 3 * p, model.init(jax.random.key(0)))


PROMPTS = jnp.array([[1, 2, 3], [0, 5, 1]])


def test_continuations_are_scored_as_the_language_model_scores_them(language):
    model, params = language
    found = continuations(model, params, PROMPTS, 5, beam=3)
    assert found.tokens.shape == (5, 3, 3)
    assert np.all(found.cut)
    assert_scores(model, params, PROMPTS, found, None)
    greedy = sj.generate(model, params, jax.random.key(0), PROMPTS, 5, temperature=0.0)
    assert np.all(np.asarray(found.log_probs[:, 0]) >= greedy.log_probs.sum(axis=0) - 1e-5)


def test_one_beam_continues_as_greedy_generation_does(language):
    model, params = language
    key = jax.random.key(0)
    found = continuations(model, params, PROMPTS, 8, beam=1, alpha=0.0, stop=3)
    greedy = sj.generate(model, params, key, PROMPTS, 8, temperature=0.0, stop=3)
    np.testing.assert_array_equal(found.tokens[..., 0], greedy.tokens)
    np.testing.assert_array_equal(found.lengths[..., 0], greedy.lengths)


@pytest.fixture(scope="module")
def translator():
    tokens = sj.models.Tokens(6, 4)
    encoder, attention = sj.Bidirectional(sj.GRU(3), sj.GRU(3)), sj.models.AdditiveAttention(4)
    model = sj.models.Seq2Seq(tokens, encoder, tokens, sj.LSTM(5), attention)
    return model, jax.tree.map(lambda p: 3 * p, model.init(jax.random.key(1)))


SOURCES, SOURCE_LENGTHS = jnp.array([[4, 5, 1], [5, 4, 0], [1, 0, 0]]), jnp.array([3, 2, 1])


def test_a_translation_is_the_best_of_all_sequences(translator):
    """All 5 + 25 + 125 + 1 of three tokens at most, as the model scores them by itself."""
    model, params = translator
    every = [y for y in itertools.product(range(6), repeat=3) if 3 not in y[:-1]]
    every += [(*y, 3) for n in (0, 1) for y in itertools.product((0, 1, 2, 4, 5), repeat=n)]
    padded = np.array([y + (0,) * (3 - len(y)) for y in every], np.int32).T
    real = np.array([[t < len(y) for y in every] for t in range(3)])
    found = translate(model, params, SOURCES, SOURCE_LENGTHS, max_length=3, beam=160)
    apply = jax.jit(model.apply)
    for row in range(3):
        repeated = jnp.broadcast_to(SOURCES[:, row, None], (3, len(every)))
        lengths = jnp.full(len(every), SOURCE_LENGTHS[row])
        logits = apply(params, repeated, lengths, padded)
        log_p = -sj.losses.token_cross_entropy(logits, jnp.asarray(padded), mask=jnp.asarray(real))
        log_p = np.asarray(log_p.sum(axis=0), np.float64)
        scores = log_p / np.array([((5 + len(y)) / 6) ** 0.6 for y in every])
        best = np.argsort(-scores)
        np.testing.assert_allclose(found.scores[row, :156], scores[best][:156], rtol=1e-4)
        length = int(found.lengths[row, 0])
        assert tuple(found.tokens[:length, row, 0].tolist()) == every[best[0]]


def test_padded_sources_are_translated_as_alone(translator):
    model, params = translator
    run = functools.partial(translate, model, params, max_length=5, beam=3)
    together = run(SOURCES, SOURCE_LENGTHS)
    alone = run(SOURCES[:2, 1])
    np.testing.assert_array_equal(alone.tokens, together.tokens[:, 1])
    np.testing.assert_allclose(alone.scores, together.scores[1], rtol=1e-4)


def test_one_beam_translates_as_greedy_generation_from_the_target_side(translator):
    model, params = translator
    found = translate(model, params, SOURCES, SOURCE_LENGTHS, max_length=7, beam=1, alpha=0.0)
    source = model.encode(params, SOURCES, SOURCE_LENGTHS)
    side, given = sj.models.TargetSide(model), sj.models.TargetSideParams(params, source)
    start = jnp.full((1, 3), model.start)
    key = jax.random.key(0)
    greedy = sj.generate(side, given, key, start, 7, temperature=0.0, stop=model.stop)
    np.testing.assert_array_equal(found.tokens[..., 0], greedy.tokens)
    np.testing.assert_allclose(found.log_probs[:, 0], greedy.log_probs.sum(axis=0), rtol=1e-4)


def test_another_alpha_does_not_compile_again(language):
    model, params = language
    compiled: Any = module._continuations
    continuations(model, params, PROMPTS, 5, beam=3)
    before = compiled._cache_size()
    for alpha in (0.0, 1.0, 0.3):
        continuations(model, params, PROMPTS, 5, beam=3, alpha=alpha)
    assert compiled._cache_size() == before


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named(language):
    model, params = language
    run = functools.partial(continuations, model, params, PROMPTS)
    for options, message in [
        ({"beam": 0}, "beam_search: beam: expected a positive integer, got 0"),
        ({"min_length": 6}, "min_length: expected at most the max_length of 5, got 6"),
        ({"alpha": -1.0}, "alpha: expected a number of at least 0, got -1.0"),
        ({"penalty": "mean"}, "penalty: expected one of 'wu', 'length', got 'mean'"),
        ({"stop": -1}, "stop: expected an integer of at least 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(5, **options)
    with pytest.raises(ValueError, match="max_length: expected a positive integer, got 0"):
        run(0)
    start, logits = jnp.zeros(2, jnp.int32), jnp.zeros((2, 2, 5))
    run = functools.partial(beam_search, start=start, beam=2, max_length=3, stop=0)
    with pytest.raises(ValueError, match=r"state\.row has shape \(3,\); expected it to lead with"):
        run(lambda s, t: (s, logits), Prefix(jnp.ones(3), jnp.ones(2)))
    with pytest.raises(ValueError, match=r"step gives logits float32\[2, 5\]; expected"):
        run(lambda s, t: (s, logits[0]), ())
    with pytest.raises(ValueError, match="the state that step gives has structure"):
        run(lambda s, t: (t, logits), ())
