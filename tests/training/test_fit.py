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
from seqjax.training import Callback, evaluate, fit
from seqjax.training.display import described
from seqjax.training.loop import endless
from tests.training import runs
from tests.training.runs import begin

pytestmark = pytest.mark.usefixtures("standard_promotion")

QUIET: Any = {"display": False}
SGD = optax.sgd(0.1)


def line_loss(params, carry, batch, key):
    x, y = batch
    error = mean_over((params * x - y) ** 2)
    return error.value, (carry, {"error": error})


X = np.linspace(-1, 1, 16, dtype=np.float32)
LINE = X, 3 * X


def test_fit_fits_a_line_and_leaves_the_state_that_was_given():
    optimizer = optax.sgd(0.5, momentum=0.1)
    state = begin(optimizer)
    result = fit(line_loss, optimizer, state, [LINE], steps=60, **QUIET)
    assert float(result.state.params) == pytest.approx(3.0, abs=1e-4)
    assert (int(result.state.step), result.interrupted) == (60, False)
    assert result.records[-1]["train/error"] < result.records[0]["train/error"]
    chex.assert_trees_all_equal((state.params, state.opt_state), (0.0, optimizer.init(0.0)))


def test_log_records_are_means_over_all_tokens_between_them():
    """Batches of 1 and 3 tokens: the mean is over tokens, not over batches. A scalar counts once."""

    def loss(params, carry, batch, key):
        error = mean_over(batch + 0 * params)
        return error.value, (carry, {"error": error, "most": batch.max(), "one": 1})

    batches = [np.array([8.0], np.float32), np.array([0.0, 0.0, 4.0], np.float32)]
    result = fit(loss, SGD, begin(SGD), batches, steps=4, log_every=2, **QUIET)
    expected = {"train/error": 3.0, "train/most": 6.0, "train/one": 1.0}
    assert [{n: r[n] for n in expected} for r in result.records] == [expected] * 2
    assert [r["tokens"] for r in result.records] == [4.0, 8.0]
    held_out = evaluate(loss, jnp.array(0.0), None, batches)
    assert held_out == {"loss": 3.0, "error": 3.0, "most": 6.0, "one": 1.0}


def test_evaluation_comes_when_it_is_due_and_at_the_end():
    seen = []
    result = fit(
        line_loss,
        SGD,
        begin(SGD),
        [LINE],
        steps=7,
        evaluate=lambda params: {"distance": jnp.abs(params - 3)},  # may be an array
        evaluate_every=3,
        on_evaluation=lambda state: seen.append(int(state.step)),
        **QUIET,
    )
    assert seen == [3, 6, 7]
    assert [r["step"] for r in result.records if "valid/distance" in r] == [3, 6, 7]
    assert result.records[-1]["valid/distance"] == abs(float(result.state.params) - 3)


def test_training_is_saved_when_a_look_at_it_fails(tmp_path):
    def fail(params):
        raise RuntimeError("the disk is full")

    run = lambda evaluate: fit(
        runs.loss,
        SGD,
        begin(SGD),
        runs.Data(),
        steps=4,
        evaluate=evaluate,
        directory=tmp_path,
        **QUIET,
    )
    with pytest.raises(RuntimeError, match="the disk is full"):
        run(fail)
    result = run(lambda params: {})
    assert int(result.state.step) == 4
    assert [r["step"] for r in result.records] == [4]  # trained by the first call


def test_tbptt_is_a_method():
    def loss(params, carry, batch, key):
        error = mean_over((params * batch + carry - 1) ** 2)
        return error.value, (carry + batch[-1], {"error": error})

    optimizer, xs = optax.adam(1e-2), np.asarray(jax.random.normal(jax.random.key(1), (10, 4)))
    carry = jnp.zeros(4)
    state = begin(optimizer, carry=carry)
    result = fit(loss, optimizer, state, [xs], steps=2, method=sj.tbptt(4), **QUIET)
    assert int(optax.tree_utils.tree_get(result.state.opt_state, "count")) == 6  # 4 + 4 + 2, twice
    update = jax.jit(sj.tbptt(4).update(loss, optimizer))
    expected = (state.params, state.opt_state, carry)
    for _ in range(2):
        expected = update(*expected, xs, None)[:3]
    chex.assert_trees_all_close(result.state.params, expected[0], rtol=1e-5)


def test_step_n_draws_from_the_key_of_step_n():
    def loss(params, carry, batch, key):
        return params * 0.0, (carry, {"drawn": jax.random.normal(key)})

    result = fit(loss, SGD, begin(SGD), [0.0], steps=3, log_every=1, **QUIET)
    drawn = [r["train/drawn"] for r in result.records]
    keys = [jax.random.fold_in(jax.random.key(0), n) for n in range(3)]
    np.testing.assert_allclose(drawn, [jax.random.normal(key) for key in keys], rtol=1e-6)


def test_a_non_finite_step_is_skipped_counted_and_logged():
    optimizer = sj.optim.clipped_adamw(0.1)
    batches = [LINE, (X * np.nan, 3 * X)]
    result = fit(line_loss, optimizer, begin(optimizer), batches, steps=4, log_every=4, **QUIET)
    last = result.records[-1]
    assert (last["skipped"], last["steps"]) == (2, 2)
    assert last["train/error"] is None  # JSON has no NaN
    assert np.isfinite(float(result.state.params))


def test_the_first_line_and_every_evaluation_reach_a_plain_screen_alone(capsys):
    optimizer = sj.optim.clipped_adamw(0.1)
    for display in (False, True):
        assert capsys.readouterr().out == ""
        fit(
            line_loss,
            optimizer,
            begin(optimizer),
            [LINE],
            steps=4,
            evaluate=lambda params: {"nats": 1.0},
            evaluate_every=2,
            on_evaluation=lambda state: "a [sample] as it is",
            display=display,
        )
    out = capsys.readouterr().out
    for text in ("step      1  error 3", "clipped", "targets/s"):
        assert text in out
    assert out.count("nats 1.000 (perplexity 2.72)") == out.count("a [sample] as it is") == 2


def test_the_loss_is_shown_first_and_perplexity_of_what_may_be_a_token():
    assert described({"nats": 2.0, "loss": 2.1}) == ["loss 2.100", "nats 2.000 (perplexity 7.39)"]
    assert described({"nats": 60.4}) == ["nats 60.400"]


def test_evaluate_weighs_every_token_alike_and_carries_state():
    def loss(params, carry, batch, key):
        assert key is None
        x = mean_over(batch)
        return x.value + 0.5, (carry + 1, {"x": x, "carry": Mean(carry, jnp.array(1.0))})

    batches = [jnp.array([1.0, 2.0, 3.0]), jnp.array([10.0])]
    values = evaluate(loss, jnp.array(0.0), jnp.array(0.0), batches)
    assert values == {"loss": 4.5, "x": 4.0, "carry": 0.5}  # the loss weighs batches as x does
    bare = lambda params, carry, batch, key: (jnp.mean(batch), (carry, {}))
    assert evaluate(bare, jnp.array(0.0), None, batches) == {"loss": 6.0}
    with pytest.raises(ValueError, match="batches is empty"):
        evaluate(loss, jnp.array(0.0), jnp.array(0.0), [])


def test_a_run_that_is_done_says_so_and_one_that_went_further_is_an_error(capsys):
    state = fit(line_loss, SGD, begin(SGD), [LINE], steps=4, **QUIET).state
    again = fit(line_loss, SGD, state, [LINE], steps=4)
    assert again.state.params == state.params
    assert "nothing is left to train from step 4" in capsys.readouterr().out
    with pytest.raises(ValueError, match="steps is 3, but the state that was given is at step 4"):
        fit(line_loss, SGD, state, [LINE], steps=3, **QUIET)


def test_the_first_interrupt_says_what_happens_and_the_second_stops(capfd):
    class Interrupts(Callback):
        def on_step(self, run):
            signal.raise_signal(signal.SIGINT)
            assert run.stopping
            if run.step == 3:
                signal.raise_signal(signal.SIGINT)

    before, options = signal.getsignal(signal.SIGINT), QUIET | {"callbacks": [Interrupts()]}
    result = fit(line_loss, SGD, begin(SGD), [LINE], steps=9, **options)
    assert (int(result.state.step), result.interrupted) == (1, True)
    assert "stopping after this step; Ctrl-C once more stops at once" in capfd.readouterr().err
    state = result.state._replace(step=jnp.array(2))
    with pytest.raises(KeyboardInterrupt):
        fit(line_loss, SGD, state, [LINE], steps=9, **options)
    assert signal.getsignal(signal.SIGINT) is before


class Counts(Callback):
    """Keeps all that it is told, and a count that checkpoints keep; stops a run at step 3."""

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
        run.say("look")

    def on_message(self, run, text):
        self.seen.append(text)

    def on_end(self, run):
        self.seen.append("end")

    def get_state(self):
        return self.count

    def set_state(self, state):
        self.count = state


def test_callbacks_see_the_run_in_order_and_keep_their_state(tmp_path):
    options = QUIET | {"evaluate_every": 2, "directory": tmp_path}
    first, other, second = Counts(), Counts(), Counts()
    run = lambda steps, *callbacks: fit(
        runs.loss, SGD, begin(SGD), runs.Data(), steps=steps, callbacks=callbacks, **options
    )
    run(5, first, other)
    steps = [(n, ["error", "loss"], 6.0 * n) for n in range(1, 5)]
    assert first.seen[:6] == [("start", 0, 0), *steps[:2], (2, {}), "look", "look"]
    stopped = f"stopped after step 3, saved in {tmp_path}; the same call goes on there"
    assert first.seen[6:] == [steps[2], stopped, "end"]
    run(4, second)
    going = f"going on from step 3 in {tmp_path}"
    assert second.seen == [("start", 3, 3), going, steps[3], (4, {}), "look", "end"]


def test_collections_begin_again_and_iterators_do_not():
    assert list(itertools.islice(endless([1, 2], "fit"), 5)) == [1, 2, 1, 2, 1]
    for empty, count in (([], 0), (iter([1]), 1)):
        with pytest.raises(ValueError, match=f"fit: batches ended after {count}"):
            list(itertools.islice(endless(empty, "fit"), 2))


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(tmp_path):
    wrong: dict[str, tuple[Any, str]] = {
        "steps": (0, "steps: expected a positive integer"),
        "log_every": (0, "log_every: expected a positive integer"),
        "evaluate_every": (0, "evaluate_every: expected a positive integer"),
        "directory": (tmp_path, "batches is a list without get_state and set_state"),
        "callbacks": ([print], "callbacks: expected a Callback, got <built-in function print>"),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(ValueError, match=f"fit: {message}"):
            fit(line_loss, SGD, begin(SGD), [LINE], **({"steps": 3} | QUIET | {name: value}))
    wrongs: Any = ({"error": "high"}, {"error": jnp.ones(2)}, {"error": 1j}, None)
    for metrics in wrongs:
        loss: Any = lambda p, c, b, k, m=metrics: (p * 1.0, (c, m))
        with pytest.raises(ValueError, match=r"expected a dict of sj.losses.Mean or scalars, or"):
            fit(loss, SGD, begin(SGD), [0.0], steps=1, **QUIET)
