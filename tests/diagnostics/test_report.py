"""A diagnosis says the right thing of networks whose trouble is known, and costs what it promises."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from jax.interpreters import partial_eval

import seqjax as sj
from seqjax.diagnostics import sentences as words
from seqjax.diagnostics.exponents import _exponents
from seqjax.diagnostics.gate_counts import Memory, Saturation, watch
from seqjax.diagnostics.products import _products
from seqjax.diagnostics.report import ROWS, sample_size
from seqjax.diagnostics.terms import terms_in_blocks
from seqjax.diagnostics.trajectory import Trajectory, _walk, evenly, walk
from tests.programs import decompositions

pytestmark = pytest.mark.usefixtures("quick_compilation")


def last_step(ys):
    return jnp.sum(ys[-1])


def noise(*shape, scale=1.0):
    return scale * jax.random.normal(jax.random.key(5), shape)


def linear(factor, features=3):
    """h_t = factor · h_{t-1} + x_t: every step back multiplies the gradient by `factor`."""
    cell = sj.Elman(features, activation="identity", input_init="identity")
    params = cell.init(jax.random.key(0), features)
    return cell, params._replace(recurrent_kernel=factor * jnp.eye(features))


def texts(report):
    return " ".join(sentence.text for sentence in report.sentences)


def advice(report):
    return " ".join(sentence.advice or "" for sentence in report.sentences)


def test_a_vanishing_gradient_is_told_by_its_half_life_and_its_reach():
    report = sj.diagnose(*linear(0.5), noise(40, 2, 3), last_step)
    first, reach, meet, weights = report.sentences
    assert first.text == "The gradient halves every step."
    np.testing.assert_allclose(first.numbers["half_life"], 1, rtol=1e-3)
    assert first.advice is not None
    assert "sj.LSTM" in first.advice
    assert "Chrono(40)" in first.advice
    # ∂L/∂b is Σ 0.5^ℓ: after lag ℓ 0.5^(ℓ+1) of it is left, and 0.5^7 is the first below 1 %. The
    # other leaves are sums of noise and need some lags more or less.
    assert 4 <= reach.numbers["lag"] <= 9
    assert f"sj.tbptt(k1, k2={reach.numbers['lag']})" in str(reach)
    assert reach.numbers["left"] <= 0.01
    assert meet.text.startswith("Nearby states converge")
    np.testing.assert_allclose(meet.numbers["largest"], math.log(0.5), rtol=1e-5)
    np.testing.assert_allclose(weights.numbers["bound_per_step"], 0.5, rtol=1e-6)
    assert "as γ‖U‖ is 0.5, every step back shrinks the gradient" in weights.text


def test_an_exploding_gradient_is_told_and_clipping_is_advised():
    report = sj.diagnose(*linear(1.25), noise(40, 2, 3), last_step)
    first, reach, part, weights = report.sentences
    np.testing.assert_allclose(first.numbers["doubling"], math.log(2) / math.log(1.25), rtol=1e-3)
    assert first.text == "The gradient doubles every 3.1 steps."
    assert "clipped_adamw" in str(first)
    assert reach.text == "The gradient comes from all 40 steps."
    assert reach.advice is None
    assert part.text.startswith("Nearby states diverge")
    assert weights.text.endswith("as γ‖U‖ is 1.25, it may grow, but need not.")


def test_a_gradient_that_overflows_is_told_by_the_lag():
    report = sj.diagnose(*linear(10.0), 1e-30 * noise(40, 2, 3), last_step)
    first = report.sentences[0]
    # √6 · 10^ℓ, from lag 1 on at the end of step t - 1, passes 3.4e38 at ℓ = 39.
    assert first.numbers["overflow_lag"] == 39
    assert "beyond float32" in first.text
    assert "clipped_adamw" in str(first)


def test_a_healthy_network_gets_no_advice_but_its_window():
    report = sj.diagnose(*linear(1.0), noise(40, 2, 3), last_step)
    assert (
        report.sentences[0].text
        == "The gradient keeps its size within a factor of 2 over 39 steps."
    )
    assert report.sentences[2].text.startswith("Nearby states keep their distance")
    assert "no step back makes the gradient grow" in report.sentences[3].text
    assert advice(report).strip() == "longer windows, which may bring more"


def lstm(forget_bias):
    """The same cell whatever the bias, so that all tests share its programs."""
    cell = sj.LSTM(4, forget_bias=0.0)
    params = cell.init(jax.random.key(0), 3)
    return cell, params._replace(bias=params.bias.at[4:8].set(forget_bias))


def test_closed_forget_gates_are_told_with_the_argument_that_opens_them():
    report = sj.diagnose(*lstm(-6.0), noise(40, 2, 3), last_step)
    (gates,) = [s for s in report.sentences if "forget gates" in s.text]
    assert gates.numbers["shut"] == 1
    assert gates.text.startswith("The forget gates are open 0 % of the time and shut 100 %")
    assert gates.numbers["half_life"] < 0.5
    assert gates.advice == "forget_bias=sj.initializers.Chrono(40)"
    assert "gates that start by keeping longer" in str(report.sentences[0])


def test_open_forget_gates_need_no_advice():
    report = sj.diagnose(*lstm(8.0), noise(40, 2, 3, scale=0.1), last_step)
    (gates,) = [s for s in report.sentences if "forget gates" in s.text]
    assert gates.text.startswith("The forget gates are open 100 % of the time and shut 0 %")
    assert gates.numbers["half_life"] > 1000
    assert gates.advice is None


@pytest.mark.parametrize(
    ("cell", "keyword"),
    [
        (sj.GRU(3), "update_bias=sj.initializers.Chrono(40)"),
        (sj.MGU(3), "forget_bias=sj.initializers.Chrono(40, negated=True)"),
        (sj.MinGRU(3), "update_bias=sj.initializers.Chrono(40, negated=True)"),
    ],
)
def test_each_cell_has_its_own_argument_for_a_longer_memory(cell, keyword):
    saturation = Saturation((), (Memory("", 0.5, 1.0),))
    (sentence,) = words.of_the_memories(saturation, cell, None, 40)
    assert sentence.advice == keyword
    # The advice can be written as it stands.
    name, value = keyword.split("=", 1)
    type(cell)(3, **{name: eval(value, {"sj": sj})})


def test_saturated_units_and_gates_are_reported():
    cell = sj.Elman(4)
    params = cell.init(jax.random.key(0), 3)
    found = sj.diagnostics.saturation(cell, params, noise(10, 2, 3, scale=100.0))
    (stuck,) = words.of_saturated_units(found)
    assert "tanh units φ" in stuck.text
    assert stuck.numbers["saturated"] > 0.9
    assert "LayerNorm" in str(stuck)
    report = sj.diagnose(*lstm(1.0), noise(40, 2, 3, scale=100.0), last_step)
    assert "The output gates are open" in texts(report)
    assert "The input gates are open" in texts(report)


def test_a_cell_that_forgets_all_has_no_gradient_to_earlier_states():
    cell, params = linear(0.0)
    report = sj.diagnose(cell, params, noise(40, 2, 3), last_step)
    assert report.sentences[0].text.startswith("No gradient reaches any earlier state")
    assert report.sentences[1].text.startswith("Steps more than 0 back contribute 0 % of")


def test_the_optimizer_is_told_by_its_clips_and_skips():
    cell, params = linear(0.9)
    optimizer = sj.optim.clipped_adamw(1e-3, clip_norm=1.0)
    # As users run optax; the diagnosis below shares the programs of the other tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for size in (3.0, 0.01, 5.0, math.nan):
            gradient = jax.tree.map(lambda p, size=size: jnp.full_like(p, size), params)
            _, state = update(gradient, state, params)
    report = sj.diagnose(cell, params, noise(40, 2, 3), last_step, opt_state=state)
    clips, skips = report.sentences[-2:]
    assert clips.text.startswith("The optimizer clipped 67 % of 3 steps")
    np.testing.assert_allclose(clips.numbers["norm_before"], 5 * math.sqrt(21), rtol=1e-5)
    assert clips.advice == "a higher clip_norm, or a lower learning rate"
    assert skips.text == "Steps that the optimizer skipped, as the gradient was not finite: 1."
    assert words.of_the_optimizer(sj.optim.statistics(optax.sgd(1.0).init(params))) == []


def test_a_state_that_is_not_finite_is_told_with_its_cause_in_place_of_everything_else():
    cell, params = lstm(1.0)
    xs = noise(40, 2, 3)
    report = sj.diagnose(cell, params, xs.at[4, 1, 0].set(jnp.nan), last_step)
    assert report.flow is None
    assert report.non_finite is not None
    assert (report.non_finite.step, report.non_finite.row) == (4, (1,))
    assert "state.h and state.c are not finite after step 4, row 1 of the batch: xs[4]" in str(
        report
    )
    broken = params._replace(bias=params.bias.at[0].set(jnp.inf) * jnp.nan)
    report = sj.diagnose(cell, broken, xs, last_step)
    assert "after step 0, row 0 of the batch: params.bias holds numbers that are not" in str(report)
    with pytest.raises(ValueError, match=r"Report\.plot: nothing to draw: state\.h"):
        report.plot()
    report = sj.diagnose(*linear(1e10), noise(40, 2, 3), last_step)
    (sentence,) = report.sentences
    assert "state.h is not finite after step 4" in sentence.text.lower()
    assert 1e29 < sentence.numbers["largest_before"] < 1e32
    assert "smaller recurrent weights" in str(sentence)


def test_a_loss_whose_gradient_is_not_finite_is_told():
    report = sj.diagnose(*lstm(1.0), noise(40, 2, 3), lambda ys: jnp.sum(jnp.log(0 * ys[3])))
    assert "∂L/∂y at step 3 is not" in str(report)
    assert report.flow is None
    assert report.non_finite is None


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_axes_of_batch_are_diagnosed_and_the_report_says_what_it_saw(batch):
    cell, params = linear(0.5)
    report = sj.diagnose(cell, params, noise(16, *batch, 3), lambda ys: jnp.sum(ys**2))
    assert report.flow is not None
    assert f"16 steps, batch {batch}" in str(report)
    rows = min(4, math.prod(batch))
    seen = ", ".join(map(str, report.flow.rows))
    assert len(report.flow.rows) == rows
    assert f"rows {seen} of the batch" in str(report)
    assert "The gradient halves every step." in str(report)
    # The loss of each step is followed: two of the one row, or three of four of the six.
    assert len(report.flow.times) == (2 if rows == 1 else 3)


@pytest.mark.parametrize("loss", [lambda ys: jnp.float32(1), lambda ys: jnp.sum(jnp.round(ys))])
def test_a_loss_that_does_not_see_the_outputs_is_reported_without_a_reach(loss):
    report = sj.diagnose(*linear(0.5), noise(40, 2, 3), loss)
    first, meet, weights = report.sentences
    assert first.text.startswith(
        "To first order the loss does not depend on the outputs: ∂L/∂y is 0"
    )
    assert first.advice == "a loss that is computed from the ys that it is given"
    assert meet.text.startswith("Nearby states converge")
    assert "spectral radius" in weights.text


def test_a_loss_that_enters_early_reaches_back_from_where_it_enters():
    report = sj.diagnose(*linear(0.5), noise(1, 2, 3), last_step)
    assert report.sentences[0].text.startswith("The loss enters at the first step alone")
    assert "k2" not in advice(report)
    assert "steps" not in texts(report).replace("nats per step", "")
    report = sj.diagnose(*linear(1.0), noise(40, 2, 3), lambda ys: jnp.sum(ys[0]))
    assert report.sentences[0].text.startswith("The loss enters at the first step alone")
    assert not any("back" in s.text or "comes from" in s.text for s in report.sentences[:-1])
    for step, over in ((1, "1 step"), (4, "4 steps")):
        loss = lambda ys, step=step: jnp.sum(ys[step])
        first, reach, *_ = sj.diagnose(*linear(1.0), noise(40, 2, 3), loss).sentences
        assert first.text == f"The gradient keeps its size within a factor of 2 over {over}."
        whole = (
            f"The gradient comes from all {step + 1} steps up to the last at which the loss enters."
        )
        assert (reach.text, reach.advice) == (whole, None)


def test_a_loss_that_sees_one_row_is_followed_in_that_row():
    report = sj.diagnose(*linear(0.5), noise(16, 2, 3, 3), lambda ys: jnp.sum(ys[-1, 1, 1]))
    assert report.flow is not None
    assert report.flow.exact
    assert list(report.flow.rows) == [4]
    assert report.sentences[0].text == "The gradient halves every step."


@dataclasses.dataclass(frozen=True)
class Delay(sj.Cell):
    """y_t = x_{t-1} W: the state is x W, and reaches no later state."""

    features: int

    def init(self, key, in_features):
        return {"kernel": jnp.ones((in_features, self.features))}

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*batch_shape, self.features))

    def step(self, params, state, x):
        now = x @ params["kernel"]
        return now, state


def test_a_state_that_reaches_one_output_is_reported_as_such():
    cell = Delay(2)
    report = sj.diagnose(cell, cell.init(jax.random.key(0), 2), noise(10, 2, 2), last_step)
    first, reach, *_ = report.sentences
    assert first.text.startswith("From each step of the loss the gradient reaches a single state")
    assert reach.text == "Steps more than 1 back contribute 0 % of the gradient."


WIDE: Any = {"param_dtype": jnp.float64}
SINGLE = list(range(8))
IN_BLOCKS = [*range(16), *range(19, 71, 4), 70]  # 16 lags by themselves, the others by four


@pytest.mark.parametrize(
    ("cell", "batch", "ends"),
    [(sj.Elman(3, **WIDE), 1, SINGLE), (sj.LSTM(9, **WIDE), 5, IN_BLOCKS)],
)
def test_one_loop_back_finds_what_the_flow_and_the_jacobians_find(cell, batch, ends, x64):
    """Of 3 entries of state, whole; and of 18, by probes."""
    cell = sj.LearnedState(cell)
    params = jax.jit(cell.init, static_argnums=1)(jax.random.key(0), 3)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(leaf + 1), params)
    xs = noise(ends[-1], batch, 3).astype(jnp.float64)
    report = sj.diagnose(cell, params, xs, lambda ys: jnp.sum(jnp.sin(ys)))
    assert report.flow is not None
    assert report.jacobians is not None
    found, rows, times = report.flow, report.flow.rows, report.flow.times
    alone = sj.diagnostics.flow(cell, params, xs, lambda ys: jnp.sum(jnp.sin(ys[times][:, rows])))
    assert list(alone.times) == list(times)
    assert list(alone.rows) == list(rows)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    jax.tree.map(close, found.gradient, alone.gradient)
    close(found.state_norms, alone.state_norms)
    close(found.lag_norms, alone.lag_norms)
    assert list(found.ends) == ends
    close(found.total_rest, alone.total_rest[found.ends])
    jax.tree.map(lambda a, b: close(a, b[found.ends]), found.rest, alone.rest)
    close(np.cumsum(found.total_shares), np.cumsum(alone.total_shares)[found.ends])
    # The norms of a block are those of the sum of its lags.
    for i, (first, end) in enumerate(zip([0, *(end + 1 for end in ends)], ends, strict=False)):
        block = jax.tree.map(lambda leaf, n=first, m=end: leaf[n : m + 1].sum(axis=0), alone.by_lag)
        sizes = jax.tree.map(lambda norms, i=i: norms[i], found.norms)
        jax.tree.map(lambda a, b: close(a, np.linalg.norm(b)), sizes, block)
    assert found.by_lag is None
    assert found.reach(0.5) in ends
    probes = report.jacobians.probes
    assert report.jacobians.exact == (probes == 3)
    products = sj.diagnostics.jacobians(cell, params, xs[:, rows], probes=probes)
    assert list(report.jacobians.lags) == ends
    close(report.jacobians.spectral, products.spectral[found.ends])
    close(report.jacobians.frobenius, products.frobenius[found.ends])
    # A table by powers of two; each becomes the end of its block.
    lags = lambda flow: [int(line.split()[0]) for line in str(flow).splitlines()[1:-1]]
    powers = [n for n in (0, 1, 2, 4, 8, 16, 32, 64) if n < ends[-1]] + ends[-1:]
    assert lags(alone) == powers
    assert lags(found) == [min(end for end in ends if end >= n) for n in powers]


def test_the_slope_of_a_geometric_sequence_is_its_logarithm():
    lags = np.arange(30)
    # At the second time, where the loss enters ten times as much, only ten lags lie behind.
    slope, used = words.decay(np.stack([3 * 0.8**lags, np.where(lags < 10, 30 * 0.8**lags, 0)]))
    np.testing.assert_allclose(slope, math.log(0.8), rtol=1e-10)
    assert used == 28
    # What lies below a millionth of the largest is noise of rounding and does not count.
    slope, _ = words.decay(np.where(lags < 7, 0.1**lags, 1e-9)[None])
    np.testing.assert_allclose(slope, math.log(0.1), rtol=1e-6)
    assert words.decay(np.zeros((1, 5))) == (0, 0)
    assert words.decay(np.array([[0.0, 1.0]])) == (0, 0)


def test_the_figure_has_six_panels_with_the_numbers_of_the_report():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    report = sj.diagnose(*linear(0.5), noise(40, 2, 3), last_step)
    assert report.flow is not None
    assert report.jacobians is not None
    figure = report.plot()
    gradient, jacobian, *_ = figure.axes
    assert len(figure.axes) == 6
    (mean,) = [line for line in gradient.lines if line.get_label() == "mean over t"]
    np.testing.assert_allclose(mean.get_ydata(), report.flow.mean_norms()[1:])
    (limit,) = [line for line in jacobian.lines if "bound" in line.get_label()]
    np.testing.assert_allclose(limit.get_ydata(), 0.5**report.jacobians.lags, rtol=1e-5)
    gated = sj.diagnose(*lstm(1.0), noise(40, 2, 3), last_step).plot()
    assert gated.axes[5].get_legend_handles_labels()[1] == ["f", "i", "o"]


def operations(function, *arguments):
    """Of products of matrices two for each pair multiplied, of all else one for each entry it gives.

    A loop counts with all its turns; what nothing reads does not count.
    """
    whole = jax.make_jaxpr(function)(*arguments).jaxpr
    return _operations(partial_eval.dce_jaxpr(whole, [True] * len(whole.outvars))[0])


def _operations(jaxpr):
    count = 0
    for equation in jaxpr.eqns:
        inner = [getattr(j, "jaxpr", j) for j in jaxprs_in_params(equation.params)]
        assert equation.primitive.name != "while"  # nobody would know how often
        count += equation.params.get("length", 1) * sum(map(_operations, inner))
        if not inner:
            each = 1
            if equation.primitive.name == "dot_general":
                ((contracted, _), _) = equation.params["dimension_numbers"]
                each = 2 * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
            count += each * sum(v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))
    return count


def test_operations_are_those_of_all_turns_and_of_nothing_that_is_not_read():
    matrix = jnp.ones((3, 5))

    def turns(x):
        step = lambda x, _: (x @ matrix @ matrix.T, jnp.exp(x))
        return jax.lax.scan(step, x, None, length=7)[0]

    assert operations(turns, jnp.ones((2, 3))) == 7 * (2 * 2 * 3 * 5 * 2 + 15)


@pytest.mark.parametrize("batch", [32, 4, 1])
def test_all_parts_take_at_most_ten_times_the_operations_of_a_backward_pass_of_the_scan(batch):
    """Without QR and singular values: [128, 4] and [16, 128] in each row and step."""
    cell, time, features = sj.LSTM(64), 40, 64
    params, xs = cell.init(jax.random.key(0), features), noise(time, batch, features)
    loss = lambda ys: jnp.mean(ys**2)
    run = lambda params, xs: sj.unroll(cell, params, xs, engine="scan")[1]
    one = operations(jax.grad(lambda params: loss(run(params, xs))), params)

    rows = evenly(batch, ROWS)
    count, probes = sample_size(batch, len(rows))
    times = evenly(time, count)
    walked = functools.partial(_walk, cell)
    start, before, after, _, ys = jax.eval_shape(walked, params, xs, None, None)
    path = Trajectory(start, before, after, xs, ys, ())
    few = jax.eval_shape(lambda path: path.take_rows(rows)._replace(batch_shape=()), path)
    back = functools.partial(terms_in_blocks, cell, made_for=(batch,), m=probes)
    which = jnp.asarray(times, jnp.int32), jnp.asarray(rows, jnp.int32)
    total = operations(back, params, few, ys, *which, None)
    total += operations(walked, params, xs, None, None)
    steps = (params, few.start, few.before, few.xs)
    total += operations(functools.partial(_exponents, cell, count=4, align=4), *steps)
    total += operations(functools.partial(watch, cell), params, few.start, few.xs)
    assert 1 < total / one < 10


@dataclasses.dataclass(frozen=True)
class Rooted(sj.Cell):
    """h_t = h_{t-1} / 2 + √|x_t W|, whose derivative by W is infinite at x_t = 0."""

    features: int

    def init(self, key, in_features):
        return {"kernel": jnp.ones((in_features, self.features))}

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*batch_shape, self.features))

    def step(self, params, state, x):
        state = state / 2 + jnp.sqrt(jnp.abs(x @ params["kernel"]))
        return state, state


def test_a_derivative_that_is_infinite_within_a_step_is_named_and_nothing_is_made_of_it():
    cell = Rooted(2)
    params, xs = cell.init(jax.random.key(0), 1), jnp.ones((10, 2, 1)).at[4].set(0.0)
    report = sj.diagnose(cell, params, xs, jnp.sum)
    (sentence,) = report.sentences
    assert "∂L/∂params['kernel'] is not: a derivative within a step is infinite" in sentence.text
    assert report.flow is None
    with pytest.raises(ValueError, match=r"flow: ∂L/∂params\['kernel'\] is not finite"):
        sj.diagnostics.flow(cell, params, xs, jnp.sum)


@pytest.mark.parametrize("rows", [1, 4])
def test_no_part_decomposes_several_matrices_at_once(rows):
    """On a CPU of two cores two that do, of two programs under way, wait for each other for ever."""
    cell = sj.LSTM(4)
    params = cell.init(jax.random.key(0), 3)
    path = walk("test", cell, params, noise(10, rows, 3), None, None)
    grown = lambda p: _exponents(cell, p, path.start, path.before, path.xs, 4, 1)
    products = lambda p: _products(cell, p, path.start, path.before, path.xs, 4)
    times, whole = jnp.arange(3), jnp.arange(rows)
    back = lambda p: terms_in_blocks(cell, p, path, path.ys, times, whole, None, made_for=None, m=4)
    for part in (grown, products, back):
        shapes = decompositions(jax.make_jaxpr(part)(params).jaxpr)
        assert shapes
        assert all(len(shape) == 2 for shape in shapes)
