import itertools
import signal
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.losses import Mean, mean_over
from seqjax.training import Callback, TrainState, evaluate, fit
from seqjax.training.display import described
from seqjax.training.loop import endless

pytestmark = pytest.mark.usefixtures("standard_promotion")


def line_loss(params, carry, batch, key):
    x, y = batch
    error = mean_over((params * x - y) ** 2)
    return error.value, (carry, {"error": error})


def line(seed=0):
    x = np.linspace(-1, 1, 16, dtype=np.float32)
    return x, 3 * x


def begin(optimizer, params=0.0, carry=None):
    return TrainState.create(jnp.array(params), optimizer, jax.random.key(0), carry)


def test_fit_fits_a_line():
    optimizer = optax.sgd(0.5)
    result = fit(line_loss, optimizer, begin(optimizer), [line()], steps=60, display=False)
    assert float(result.state.params) == pytest.approx(3.0, abs=1e-4)
    assert int(result.state.step) == 60
    assert not result.interrupted
    assert result.records[-1]["train/error"] < result.records[0]["train/error"]


def test_the_state_that_was_given_is_still_there():
    optimizer = optax.adam(0.1)
    state = begin(optimizer)
    fit(line_loss, optimizer, state, [line()], steps=3, display=False)
    assert float(state.params) == 0.0
    chex.assert_trees_all_equal(state.opt_state, optimizer.init(state.params))


def test_log_records_are_means_over_all_tokens_between_them():
    """Batches of 1 and 3 tokens: the mean is over tokens, not over batches."""

    def loss(params, carry, batch, key):
        error = mean_over(batch + 0 * params)
        return error.value, (carry, {"error": error})

    batches = [np.array([8.0], np.float32), np.array([0.0, 0.0, 4.0], np.float32)]
    optimizer = optax.sgd(0.0)
    result = fit(loss, optimizer, begin(optimizer), batches, steps=4, log_every=2, display=False)
    assert [r["train/error"] for r in result.records] == [3.0, 3.0]
    assert [r["tokens"] for r in result.records] == [4.0, 8.0]


def test_evaluation_comes_when_it_is_due_and_at_the_end():
    optimizer, seen = optax.sgd(0.1), []
    result = fit(
        line_loss,
        optimizer,
        begin(optimizer),
        [line()],
        steps=7,
        evaluate=lambda params: {"distance": abs(float(params) - 3)},
        evaluate_every=3,
        on_evaluation=lambda state: seen.append(int(state.step)),
        display=False,
    )
    assert seen == [3, 6, 7]
    assert [r["step"] for r in result.records if "valid/distance" in r] == [3, 6, 7]


def test_training_is_saved_when_a_look_at_it_fails(tmp_path):
    model, state, optimizer, windows = tiny_model()

    def fail(params):
        raise RuntimeError("the disk is full")

    options = {"steps": 4, "directory": tmp_path, "display": False}
    with pytest.raises(RuntimeError, match="the disk is full"):
        fit(model.loss, optimizer, state, windows(), evaluate=fail, **options)
    result = fit(model.loss, optimizer, state, windows(), evaluate=lambda p: {}, **options)
    assert int(result.state.step) == 4
    assert [r["step"] for r in result.records] == [4]  # trained by the first call


def test_metrics_of_an_evaluation_may_be_arrays(tmp_path):
    model, state, optimizer, windows = tiny_model()
    result = fit(
        model.loss,
        optimizer,
        state,
        windows(),
        steps=2,
        evaluate=lambda params: {"size": jnp.float32(2.0)},
        directory=tmp_path,
        display=False,
    )
    assert result.records[-1]["valid/size"] == 2.0


def tiny_model():
    model = sj.models.LanguageModel(5, sj.GRU(3), 2)
    params = model.init(jax.random.key(0))
    optimizer = optax.sgd(0.1)
    state = TrainState.create(
        params, optimizer, jax.random.key(1), model.initial_state(params, (2,))
    )
    ids = np.arange(40) % 5
    return model, state, optimizer, lambda: sj.data.Windows(sj.data.lanes(ids, 2), 4)


def test_tbptt_is_a_method():
    cell = sj.GRU(3)
    params = cell.init(jax.random.key(0), 2)
    xs = np.asarray(jax.random.normal(jax.random.key(1), (10, 4, 2)))

    def loss(params, carry, batch, key):
        state, ys = sj.unroll(cell, params, batch, carry)
        size = mean_over(ys**2)
        return size.value, (state, {"size": size})

    optimizer = optax.adam(1e-2)
    carry = cell.initial_state(params, (4,))
    state = TrainState.create(params, optimizer, jax.random.key(0), carry)
    result = fit(loss, optimizer, state, [xs], steps=2, method=sj.tbptt(4), display=False)
    assert int(optax.tree_utils.tree_get(result.state.opt_state, "count")) == 6  # 4 + 4 + 2, twice
    update = jax.jit(sj.tbptt(4).update(loss, optimizer))
    expected = (params, optimizer.init(params), carry)
    for _ in range(2):
        expected = update(*expected, xs, None)[:3]
    chex.assert_trees_all_close(result.state.params, expected[0], rtol=1e-5)


def test_step_n_draws_from_the_key_of_step_n():
    drawn = []

    def loss(params, carry, batch, key):
        return params * 0.0, (carry, {"drawn": mean_over(jax.random.normal(key, (1,)))})

    optimizer = optax.sgd(0.1)
    result = fit(loss, optimizer, begin(optimizer), [0.0], steps=3, log_every=1, display=False)
    drawn = [r["train/drawn"] for r in result.records]
    key = jax.random.key(0)
    expected = [float(jax.random.normal(jax.random.fold_in(key, n), (1,))[0]) for n in range(3)]
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_a_non_finite_step_is_skipped_counted_and_logged():
    optimizer = sj.optim.clipped_adamw(0.1)
    x, y = line()
    batches = [(x, y), (x * np.nan, y)]
    result = fit(
        line_loss, optimizer, begin(optimizer), batches, steps=4, log_every=4, display=False
    )
    assert result.records[-1]["skipped"] == 2
    assert result.records[-1]["steps"] == 2
    assert result.records[-1]["train/error"] is None  # JSON has no NaN
    assert np.isfinite(float(result.state.params))


def test_the_first_line_and_every_evaluation_reach_a_plain_screen(capsys):
    optimizer = sj.optim.clipped_adamw(0.1)
    fit(
        line_loss,
        optimizer,
        begin(optimizer),
        [line()],
        steps=4,
        evaluate=lambda params: {"nats": 1.0},
        evaluate_every=2,
        on_evaluation=lambda state: "a [sample] as it is",
    )
    out = capsys.readouterr().out
    assert "step      1  error 3" in out
    assert out.count("nats 1.000 (perplexity 2.72)") == 2
    assert out.count("a [sample] as it is") == 2
    assert "clipped" in out
    assert "targets/s" in out


def test_nothing_is_shown_where_nothing_is_asked_for(capsys):
    optimizer = optax.sgd(0.1)
    fit(line_loss, optimizer, begin(optimizer), [line()], steps=2, display=False)
    assert capsys.readouterr().out == ""


def test_evaluate_weighs_every_token_alike_and_carries_state():
    def loss(params, carry, batch, key):
        assert key is None
        return jnp.sum(params), (
            carry + 1,
            {"x": mean_over(batch), "carry": Mean(carry, jnp.array(1.0))},
        )

    batches = [jnp.array([1.0, 2.0, 3.0]), jnp.array([10.0])]
    values = evaluate(loss, jnp.array(0.0), jnp.array(0.0), batches)
    assert values == {"loss": 0.0, "x": 4.0, "carry": 0.5}
    with pytest.raises(ValueError, match="batches is empty"):
        evaluate(loss, jnp.array(0.0), jnp.array(0.0), [])


def test_a_loss_without_a_name_weighs_batches_by_what_they_hold():
    """Four tokens of 1 and one of 6, in two batches: their mean is 2 and not that of the batches."""

    def loss(params, carry, batch, key):
        mean = mean_over(batch)
        return mean.value + 0.5, (carry, {"x": mean})

    batches = [jnp.ones(4), jnp.array([6.0])]
    assert evaluate(loss, jnp.array(0.0), None, batches) == {"loss": 2.5, "x": 2.0}
    bare = lambda params, carry, batch, key: (jnp.mean(batch), (carry, {}))
    assert evaluate(bare, jnp.array(0.0), None, batches) == {"loss": 3.5}


def test_perplexity_is_shown_of_what_may_be_a_token():
    assert described({"nats": 2.0, "loss": 2.1}) == ["loss 2.100", "nats 2.000 (perplexity 7.39)"]
    assert described({"nats": 60.4}) == ["nats 60.400"]


def test_a_run_that_is_done_says_so_and_one_that_went_further_is_refused(capsys):
    optimizer = optax.sgd(0.5)
    state = fit(line_loss, optimizer, begin(optimizer), [line()], steps=4, display=False).state
    again = fit(line_loss, optimizer, state, [line()], steps=4)
    assert again.state.params == state.params
    assert "nothing is left to train from step 4" in capsys.readouterr().out
    with pytest.raises(ValueError, match="steps is 3, but the state that was given is at step 4"):
        fit(line_loss, optimizer, state, [line()], steps=3, display=False)


def test_the_first_interrupt_says_what_happens_and_the_second_stops(capfd):
    class Interrupts(Callback):
        def on_step(self, run):
            signal.raise_signal(signal.SIGINT)
            assert run.stopping
            if run.step == 3:
                signal.raise_signal(signal.SIGINT)

    optimizer, before = optax.sgd(0.1), signal.getsignal(signal.SIGINT)
    options = {"steps": 9, "callbacks": [Interrupts()], "display": False}
    result = fit(line_loss, optimizer, begin(optimizer), [line()], **options)
    assert (int(result.state.step), result.interrupted) == (1, True)
    assert "stopping after this step; Ctrl-C once more stops at once" in capfd.readouterr().err
    state = result.state._replace(step=jnp.array(2))
    with pytest.raises(KeyboardInterrupt):
        fit(line_loss, optimizer, state, [line()], **options)
    assert signal.getsignal(signal.SIGINT) is before


def test_callbacks_see_the_run_in_order_and_keep_their_state(tmp_path):
    class Counts(Callback):
        def __init__(self):
            self.seen, self.count = [], 0

        def on_start(self, run):
            self.seen.append(("start", run.step, self.count))

        def on_step(self, run):
            self.count += 1
            self.seen.append((run.step, list(run.metrics.means()), run.tokens))
            run.stopping = run.step == 3

        def on_evaluation(self, run, values):
            self.seen.append((int(run.state.step), values))
            run.say(f"at {run.directory and run.directory.name}")

        def on_message(self, run, text):
            self.seen.append(text)

        def on_end(self, run):
            self.seen.append("end")

        def get_state(self):
            return self.count

        def set_state(self, state):
            self.count = state

    model, state, optimizer, windows = tiny_model()
    options: dict[str, Any] = {"evaluate_every": 2, "directory": tmp_path / "run", "display": False}
    first, other, second = Counts(), Counts(), Counts()
    fit(model.loss, optimizer, state, windows(), steps=5, callbacks=[first, other], **options)
    at, there = "at run", f"{tmp_path / 'run'}"
    stopped = f"stopped after step 3, saved in {there}; the same call goes on there"
    steps = [(n, ["accuracy", "loss", "nats"], 8.0 * n) for n in range(1, 5)]
    assert first.seen[:3] == [("start", 0, 0), *steps[:2]]
    assert first.seen[3:] == [(2, {}), at, at, steps[2], stopped, "end"]
    fit(model.loss, optimizer, state, windows(), steps=4, callbacks=[second], **options)
    going = f"going on from step 3 in {there}"
    assert second.seen == [("start", 3, 3), going, steps[3], (4, {}), at, "end"]


def test_collections_begin_again_and_iterators_do_not():
    assert list(itertools.islice(endless([1, 2], "fit"), 5)) == [1, 2, 1, 2, 1]
    with pytest.raises(ValueError, match="batches ended after 0"):
        next(endless([], "fit"))
    used = endless(iter([1]), "fit")
    assert next(used) == 1
    with pytest.raises(ValueError, match="batches ended after 1"):
        next(used)


def test_metrics_of_another_form_are_named():
    optimizer = optax.sgd(0.1)
    wrongs: Any = ({"error": "high"}, {"error": jnp.ones(2)}, {"error": 1j}, None)
    for metrics in wrongs:
        loss: Any = lambda p, c, b, k, m=metrics: (p * 1.0, (c, m))
        with pytest.raises(ValueError, match=r"expected a dict of sj.losses.Mean or scalars, or"):
            fit(loss, optimizer, begin(optimizer), [0.0], steps=1, display=False)


def test_a_scalar_among_the_metrics_counts_once_a_batch():
    def loss(params, carry, batch, key):
        error = mean_over(batch)
        return params * 1.0, (carry, {"error": error, "most": batch.max(), "one": 1})

    batches, optimizer = [jnp.array([1.0, 5.0]), jnp.array([3.0])], optax.sgd(0.0)
    expected = {"loss": 0.0, "error": 3.0, "most": 4.0, "one": 1.0}
    assert evaluate(loss, jnp.array(0.0), None, batches) == expected
    result = fit(loss, optimizer, begin(optimizer), batches, steps=2, display=False)
    assert {n: result.records[-1][f"train/{n}"] for n in expected} == expected
    assert result.records[-1]["tokens"] == 3.0


def test_bad_input_is_named(tmp_path):
    optimizer = optax.sgd(0.1)
    state = begin(optimizer)
    for name in ("steps", "log_every", "evaluate_every"):
        options: dict[str, Any] = {"steps": 3} | {name: 0}
        with pytest.raises(ValueError, match=f"fit: {name}: expected a positive integer"):
            fit(line_loss, optimizer, state, [line()], display=False, **options)
    with pytest.raises(ValueError, match="list without get_state and set_state"):
        fit(line_loss, optimizer, state, [line()], steps=1, directory=tmp_path, display=False)
