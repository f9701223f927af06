"""Norms of products of Jacobians, their bound, and the matrices that they are made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax._tree import from_vector, to_vector
from seqjax.cell import gates_of
from seqjax.diagnostics import bound, factor, jacobians, matrices, spectrum

pytestmark = pytest.mark.usefixtures("quick_compilation")


def inputs(*shape, scale=1.0):
    return jnp.asarray(scale * np.random.RandomState(0).standard_normal((*shape, 2)), jnp.float64)


@functools.partial(jax.jit, static_argnames="cell")
def final_state(cell, params, start, vector, xs, steps):
    """The state after the first steps of xs, from `start` with the real vector of s_0."""
    start = from_vector(start, vector)
    return sj.unroll(cell, params, xs, start, lengths=steps, engine="scan")[0]


@functools.partial(jax.jit, static_argnames="cell")
def jacobian(cell, params, start, xs, steps):
    """The Jacobian of that state, through unroll."""
    run = lambda vector: to_vector(final_state(cell, params, start, vector, xs, steps))
    return jax.jacfwd(run)(to_vector(start))


CELLS = {
    "Elman": lambda: sj.Elman(3, param_dtype=jnp.float64),
    "LSTM": lambda: sj.LSTM(2, param_dtype=jnp.float64),
    "LRU, whose state is complex": lambda: sj.LRU(2, param_dtype=jnp.float64),
    "ClockworkRNN, with a clock": lambda: sj.ClockworkRNN(
        4, periods=(1, 2), param_dtype=jnp.float64
    ),
    "Stack": lambda: sj.Stack(
        (sj.GRU(2, param_dtype=jnp.float64), sj.Residual(sj.CIFG(2, param_dtype=jnp.float64)))
    ),
}


@pytest.mark.parametrize("name", list(CELLS))
def test_norms_are_those_of_the_jacobian_through_unroll(name, x64):
    cell = CELLS[name]()
    params, xs = cell.init(jax.random.key(1), 2), inputs(5)
    s_0 = cell.initial_state(params)
    found = jacobians(cell, params, xs)
    assert found.exact
    assert list(found.lags) == [0, 1, 2, 3, 4, 5]
    for lag in range(6):
        start = final_state(cell, params, s_0, to_vector(s_0), xs, jnp.asarray(5 - lag))
        later = jnp.asarray(np.roll(xs, lag - 5, axis=0))
        J = np.asarray(jacobian(cell, params, start, later, jnp.asarray(lag)))
        np.testing.assert_allclose(found.frobenius[lag, 0], np.linalg.norm(J), rtol=1e-10)
        np.testing.assert_allclose(found.spectral[lag, 0], np.linalg.norm(J, 2), rtol=1e-10)


def test_rows_end_and_lags_choose_what_is_computed(x64):
    cell = sj.GRU(3, param_dtype=jnp.float64)
    params, xs = cell.init(jax.random.key(1), 2), inputs(6, 2, 2)
    whole = jacobians(cell, params, xs[:5])
    assert whole.spectral.shape == (6, 4)
    some = jacobians(cell, params, xs, end=4, lags=2, rows=2)
    assert some.end == 4
    np.testing.assert_allclose(some.spectral, whole.spectral[:3, np.array([1, 3])], rtol=1e-12)
    alone = jacobians(cell, params, xs[:5, 0, 1])
    np.testing.assert_allclose(alone.frobenius[:, 0], whole.frobenius[:, 1], rtol=1e-12)
    nothing = jacobians(cell, params, xs[:0])
    np.testing.assert_allclose(nothing.spectral, np.ones((1, 4)), rtol=1e-12)


def test_probes_estimate_the_frobenius_norm_without_bias_and_bound_the_spectral_one(x64):
    """Over many runs whose Jacobian is the same but turned: U = Q A Qᵀ for random rotations Q."""
    size, m, turns = 12, 3, 200
    cell = sj.Elman(size, activation="identity", param_dtype=jnp.float64)
    A = np.random.RandomState(0).standard_normal((size, size))
    exact = np.sum(A**2)
    params = cell.init(jax.random.key(1), 2)
    rotations = jax.random.orthogonal(jax.random.key(2), size, (turns,), dtype=jnp.float64)
    # The rows of a batch share U, so each rotation is a cell of its own; one compilation serves all.
    estimates, spectral = [], []
    for Q in np.asarray(rotations):
        turned = params._replace(recurrent_kernel=jnp.asarray(Q @ A @ Q.T))
        found = jacobians(cell, turned, inputs(1), probes=m)
        estimates.append(float(found.frobenius[1, 0]) ** 2 / exact)
        spectral.append(float(found.spectral[1, 0]))
    found = jacobians(cell, params, inputs(1), probes=m)
    assert not found.exact
    assert found.probes == m
    # The mean of 200 has a standard error below √(2/3) / √200 = 0.06.
    assert abs(np.mean(estimates) - 1) < 0.17
    assert np.std(estimates) < np.sqrt(2 / m)
    assert np.std(estimates) > 0.05  # it is an estimate
    largest = np.linalg.norm(A, 2)
    assert max(spectral) <= largest * (1 + 1e-12)
    assert max(spectral) > 0.5 * largest


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "identity"])
@pytest.mark.parametrize("make", [sj.Elman, sj.PreActivationRNN])
def test_the_bound_is_never_below_the_exact_norm(activation, make, x64):
    cell = make(4, activation=activation, recurrent_init="glorot", param_dtype=jnp.float64)
    params = cell.init(jax.random.key(1), 2)
    params = params._replace(recurrent_kernel=1.7 * params.recurrent_kernel)
    found = jacobians(cell, params, inputs(6, 3, scale=0.1))
    γ = {"tanh": 1, "sigmoid": 0.25, "relu": 1, "identity": 1}[activation]
    largest = np.linalg.svd(np.asarray(params.recurrent_kernel), compute_uv=False)[0]
    assert found.bound is not None
    np.testing.assert_allclose(np.asarray(found.bound), (γ * largest) ** np.arange(7), rtol=1e-12)
    assert np.all(np.asarray(found.spectral) <= np.asarray(found.bound)[:, None] * (1 + 1e-12))
    # Near the steepest point of φ a step comes close to it: it is no idle bound.
    if activation != "relu":
        first = jacobians(cell, params, inputs(1, scale=0.01), end=0)
        assert first.spectral[1, 0] > 0.99 * found.bound[1]


def test_the_bound_of_a_leaky_network_holds_and_counts_what_it_keeps(x64):
    cell = sj.Elman(4, leak=0.3, param_dtype=jnp.float64)
    params = cell.init(jax.random.key(1), 2)
    params = params._replace(recurrent_kernel=0.5 * jnp.eye(4))
    found = jacobians(cell, params, inputs(6, scale=0.01))
    assert found.bound is not None
    np.testing.assert_allclose(found.bound, (0.7 + 0.3 * 0.5) ** np.arange(7), rtol=1e-12)
    assert np.all(found.spectral[:, 0] <= found.bound * (1 + 1e-12))
    assert found.spectral[6, 0] > 0.99 * found.bound[6]


def test_only_simple_networks_have_a_bound():
    def factor_of(cell):
        return factor(cell, cell.init(jax.random.key(1), 3))

    plain = sj.Elman(3)
    expected = factor_of(plain)
    for cell in (sj.Residual(plain), sj.Dropout(plain, rate=0.5)):
        np.testing.assert_allclose(np.asarray(factor_of(cell)), np.asarray(expected), rtol=1e-6)
    assert factor_of(sj.LearnedState(plain)) is not None
    for cell in (sj.LSTM(3), sj.Stack((plain, plain)), sj.LayerNorm(plain), sj.Zoneout(plain, 0.1)):
        assert factor_of(cell) is None
    cell = sj.RecurrentDropout(plain, rate=0.5)  # a kept entry counts twice
    assert bound(cell, cell.init(jax.random.key(1), 3), jnp.arange(3.0)) is None


def matrices_of(cell):
    params = cell.init(jax.random.key(1), 3)
    return {m.name: m for m in spectrum(cell, params).matrices}, params


@pytest.mark.parametrize("small", [512, 2])
def test_the_spectrum_takes_packed_gates_apart(small, monkeypatch):
    """On the host, and those of more rows than `small` on the device."""
    monkeypatch.setattr(matrices, "SMALL", small)
    found, params = matrices_of(sj.LSTM(4, recurrent_init="glorot"))
    assert list(found) == [f"U of gate {letter}" for letter in "ifgo"]
    blocks = np.split(np.asarray(params.recurrent_kernel), 4, axis=1)
    for U, matrix in zip(blocks, found.values(), strict=True):
        eigenvalues = np.abs(np.linalg.eigvals(U.astype(np.float64)))
        np.testing.assert_allclose(np.asarray(matrix.radius), eigenvalues.max(), rtol=1e-6)
        squares = np.linalg.eigvalsh((U.T @ U).astype(np.float64))[::-1]
        np.testing.assert_allclose(matrix.singular_values**2, squares, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "letters"),
    [
        (sj.LSTM(4), "ifgo"),
        (sj.CIFG(4), "fgo"),
        (sj.GRU(4), "rzn"),
        (sj.SLSTM(4), "0fzo"),  # its i is no activation, and has no name
        (sj.SLSTM(4, forget_gate="exp"), "01zo"),
        (sj.MGU(4), "01"),  # not a gated cell
        (sj.Elman(4), "φ"),
    ],
)
def test_a_matrix_has_the_letter_of_the_gate_that_it_enters(cell, letters):
    found, params = matrices_of(cell)
    names = [f"U of gate {letter}" for letter in letters] if len(letters) > 1 else ["U"]
    assert list(found) == names
    # In a step without input each matrix is what its gate makes of h: φ(h U_g + b_g).
    state = cell.initial_state(params)._replace(h=0.1 * jnp.arange(4.0))
    gates = gates_of(cell, params, state, jnp.zeros(3))
    blocks = np.split(np.asarray(params.recurrent_kernel), len(letters), axis=-1)
    if isinstance(cell, sj.SLSTM):
        blocks = list(np.moveaxis(np.asarray(params.recurrent_kernel)[0], 1, 0))
    for g, letter in enumerate(letters):
        values = np.linalg.svd(blocks[g], compute_uv=False)
        np.testing.assert_allclose(found[names[g]].singular_values, values, rtol=1e-5)
        if letter in "ifgozrφ":
            φ = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}[str(gates[letter].activation)]
            a = state.h @ blocks[g] + params.bias.reshape(-1, 4)[g]
            np.testing.assert_allclose(gates[letter].value, φ(a), rtol=1e-5)


def test_the_spectrum_of_heads_diagonals_skips_and_stacks():
    found, params = matrices_of(sj.SLSTM(4, heads=2))
    block = np.asarray(params.recurrent_kernel)[1, :, 3]
    np.testing.assert_allclose(
        found["U of gate o, head 1"].singular_values, np.linalg.svd(block)[1], rtol=1e-6
    )
    found, params = matrices_of(sj.DiagonalGRU(4))
    u_z = np.abs(np.asarray(params.recurrent_scale)[4:8])
    np.testing.assert_allclose(np.asarray(found["u of gate z"].radius), u_z.max(), rtol=1e-6)
    found, params = matrices_of(sj.SkipRNN(4, skip=2, recurrent_init="glorot"))
    V = np.asarray(params.skip_kernel)
    np.testing.assert_allclose(
        found["U from state 1"].singular_values, np.linalg.svd(V)[1], rtol=1e-5
    )
    found, _ = matrices_of(sj.Stack((sj.Elman(3), sj.Zoneout(sj.MGU(3), 0.1), sj.MinGRU(3))))
    assert list(found) == ["layers[0] U", "layers[1] U of gate 0", "layers[1] U of gate 1"]
    found, _ = matrices_of(sj.LSTM(4, projection=3))
    assert found["U of gate i"].radius is None
    assert "–" in str(spectrum(sj.LSTM(4, projection=3), matrices_of(sj.LSTM(4, projection=3))[1]))


@pytest.mark.usefixtures("unchecked")
def test_the_bound_takes_lags_as_a_list():
    cell = sj.Elman(3)
    params = cell.init(jax.random.key(1), 2)
    params = params._replace(recurrent_kernel=0.5 * jnp.eye(3))
    found = bound(cell, params, [0, 1, 2])  # pyright: ignore[reportArgumentType] - as users write it
    np.testing.assert_allclose(np.asarray(found), [1, 0.5, 0.25], rtol=1e-6)


def test_singular_values_are_right_to_the_rounding_of_float32_where_they_differ_widely():
    V, W = (np.linalg.qr(np.random.RandomState(i).standard_normal((6, 6)))[0] for i in (0, 1))
    values = 10.0 ** -np.arange(6)
    cell = sj.Elman(6)
    params = cell.init(jax.random.key(1), 2)
    U = jnp.asarray((V * values) @ W, jnp.float32)
    found = spectrum(cell, params._replace(recurrent_kernel=U)).matrices[0].singular_values
    # The rounding of U itself, 6e-8 of the largest, moves each of them by about as much.
    np.testing.assert_allclose(found, values, atol=2e-7)
