"""SnAp between no influence and RTRL."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from tests.contract.registry import REGISTRY, RunningMean
from tests.gradients import online_problem
from tests.gradients.online_problem import assert_close, distance, forward

pytestmark = pytest.mark.usefixtures("quick_compilation")


@dataclasses.dataclass(frozen=True)
class Chain(sj.Cell):
    """h_{t,i} = tanh(w_i h_{t-1,i-1} + x_t v_i): what enters unit i moves on by one unit a step."""

    features: int

    def init(self, key, in_features):
        v = jax.random.normal(key, (in_features, self.features), jnp.float64)
        return {"v": v, "w": 1 + jnp.arange(self.features, dtype=jnp.float64)}

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*batch_shape, self.features), jnp.float64)

    def step(self, params, state, x):
        before = jnp.concatenate([jnp.zeros_like(state[..., :1]), state[..., :-1]], axis=-1)
        w = jnp.broadcast_to(params["w"], before.shape)
        h = jnp.tanh(0.3 * w * before + x @ params["v"])
        return h, h


def test_snap_n_is_rtrl_once_n_covers_the_dependence(x64):
    problem = online_problem.make(Chain(4), time=6)
    exact = forward(sj.rtrl, problem)[0]
    errors = []
    for n in (1, 2, 3, 4, 5):
        grads, *_, last = forward(order(n), problem)
        assert last.influence["v"].shape == (2, min(n, 4), 3, 4)
        errors.append(distance(grads, exact))
    # From the first unit to the fourth are three steps, of which the one under way is always whole.
    assert min(errors[:2]) > 1e-3 > 1e-12 > max(errors[2:])


def order(n):
    return functools.partial(sj.snap, order=n)


SINGLE = {
    "DiagonalGRU": sj.DiagonalGRU(3, param_dtype=jnp.float64),
    "MinLSTM": sj.MinLSTM(3, param_dtype=jnp.float64),
    "LRU": sj.LRU(3, param_dtype=jnp.float64),
    "a user's cell": RunningMean(3, jnp.float64),
}


@pytest.mark.parametrize("cell", SINGLE.values(), ids=SINGLE)
def test_snap_1_is_rtrl_on_diagonal_recurrences(cell, x64):
    problem = online_problem.make(cell)
    run = jax.jit(lambda: (forward(order(1), problem), forward(sj.rtrl, problem)))
    assert_close(*run())


def test_of_an_lstm_with_a_diagonal_kernel_n_is_2(x64):
    """The output gate enters h, and by way of h only later c."""
    problem = online_problem.make(REGISTRY["DiagonalLSTM"].build(jnp.float64, None))
    exact = forward(sj.rtrl, problem)[0]
    assert_close(forward(order(2), problem)[0], exact)
    assert distance(forward(order(1), problem)[0], exact) > 1e-3


def test_snap_1_on_a_dense_network_keeps_what_a_unit_does_to_itself(x64):
    """Of D_t = φ'(a_t) Uᵀ the diagonal alone: J_{t,j} = φ'_j (U_jj J_{t-1,j} + [x_t, h_{t-1}, 1])."""
    cell = sj.Elman(3, param_dtype=jnp.float64)
    problem = online_problem.make(cell, batch=())
    grads, *_ = forward(order(1), problem)
    W, U, b = (np.asarray(leaf) for leaf in problem.params.cell)
    V = np.asarray(problem.params.head)
    h, J, total = np.zeros(3), np.zeros((7, 3)), np.zeros((7, 3))
    for x, target in zip(*map(np.asarray, problem.batch[:2]), strict=True):
        entering = np.concatenate([x, h, [1.0]])[:, None]
        h = np.tanh(x @ W + h @ U + b)
        slope = 1 - h**2
        delta = (V @ (h @ V - target)) * slope  # ∂L_t/∂a_t
        # The step under way is whole: ∂L_t/∂h_{t-1} = U δ reaches every unit that was.
        total += (U @ delta) * J + delta * entering
        J = slope * (np.diag(U) * J + entering)
    expected = np.concatenate([grads.cell.input_kernel, grads.cell.recurrent_kernel])
    np.testing.assert_allclose(expected, total[:6], rtol=1e-12)
    np.testing.assert_allclose(grads.cell.bias, total[6], rtol=1e-12)
