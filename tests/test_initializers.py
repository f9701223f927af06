"""Initial values: what each rule promises, by name and as a dataclass."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.initializers import (
    NAMED,
    Chrono,
    Constant,
    Glorot,
    Initializer,
    Normal,
    Orthogonal,
    ScaledIdentity,
    SpectralRadius,
    UniformFanIn,
    as_rule,
    check_initializer,
    draw,
    draw_gates,
    spectral_radius,
)
from tests import oracles

RULES = [
    Constant(0.5),
    Normal(0.1),
    Orthogonal(2.0),
    ScaledIdentity(0.5),
    UniformFanIn(2.0),
    Glorot(),
    SpectralRadius(0.9),
    Chrono(50),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_equal_rules_compare_and_hash_equal_and_give_the_shape_and_dtype(rule, key):
    other = dataclasses.replace(rule)
    assert rule is not other
    assert rule == other
    assert hash(rule) == hash(other)
    for field in dataclasses.fields(rule):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(rule, field.name, getattr(rule, field.name))
    for dtype in (jnp.float32, jnp.bfloat16):
        drawn = jax.eval_shape(functools.partial(rule, shape=(4, 4), dtype=dtype), key)
        assert (drawn.shape, drawn.dtype) == ((4, 4), dtype)


@pytest.mark.parametrize("name", list(NAMED))
def test_every_named_rule_draws_what_its_name_says(name, key):
    matrix = draw(name, key, (8, 8), jnp.float32)
    assert oracles.is_drawn_by(name, np.asarray(matrix))
    np.testing.assert_array_equal(matrix, NAMED[name](key, (8, 8), jnp.float32))


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_an_orthogonal_matrix_has_orthonormal_rows_or_columns_times_the_scale(shape, x64):
    matrix = np.asarray(Orthogonal(1.5)(jax.random.key(0), shape, jnp.float64))
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), [1.5] * 3, rtol=1e-12)


def test_under_vmap_an_orthogonal_matrix_is_that_of_each_key():
    keys = jax.random.split(jax.random.key(0), (2, 3))
    rule = lambda key: Orthogonal()(key, (4, 3), jnp.float32)
    many = jax.jit(jax.vmap(jax.vmap(rule)))(keys)
    assert many.shape == (2, 3, 4, 3)
    np.testing.assert_allclose(many[1, 2], rule(keys[1, 2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "shape", "bound"),
    [
        (UniformFanIn(2.0), (16, 100), 2 / math.sqrt(16)),
        (UniformFanIn(), (400,), 1 / math.sqrt(400)),
        (Glorot(), (4, 20), math.sqrt(6 / (4 + 20))),
    ],
)
def test_uniform_entries_reach_up_to_their_bound(rule, shape, bound, key):
    drawn = np.abs(np.asarray(rule(key, shape, jnp.float32)))
    assert 0.9 * bound < drawn.max() <= np.nextafter(np.float32(bound), np.float32(1))


def test_normal_has_the_spread_it_names(key):
    drawn = np.asarray(Normal(0.2)(key, (100, 100), jnp.float32))
    # Mean and spread of 10000 entries are known to 0.002 and 0.0014; four times that is allowed.
    np.testing.assert_allclose(drawn.mean(), 0, atol=0.008)
    np.testing.assert_allclose(drawn.std(), 0.2, atol=0.006)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_the_spectral_radius_is_the_one_asked_for(size, x64):
    # Sizes 2 and 5 have pairs of complex eigenvalues too, on which a power iteration would not settle.
    for seed in range(5):
        matrix = np.asarray(SpectralRadius(0.9)(jax.random.key(seed), (size, size), jnp.float64))
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(matrix)).max(), 0.9, rtol=1e-7)
        assert not np.allclose(matrix, np.diag(np.diag(matrix))) or size == 1


def test_in_single_precision_rounding_of_the_squarings_does_not_grow():
    matrix = np.asarray(SpectralRadius(1.1)(jax.random.key(0), (128, 128), jnp.float32))
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(matrix)).max(), 1.1, rtol=1e-5)


def test_the_spectral_radius_of_known_matrices_is_known():
    assert np.isclose(spectral_radius(3 * jnp.eye(4)), 3)
    defective = jnp.array([[0.5, 1e3], [0.0, 0.5]])  # ‖Aᵏ‖ grows at first, like k 0.5ᵏ⁻¹ 1000
    assert np.isclose(spectral_radius(defective), 0.5, rtol=1e-5)
    nilpotent = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    assert spectral_radius(nilpotent) == 0
    assert spectral_radius(jnp.zeros((3, 3))) == 0
    for matrix in (3 * np.eye(4), np.asarray(nilpotent), np.zeros((3, 3)), np.asarray(defective)):
        on_host, on_device = (
            spectral_radius(matrix),
            spectral_radius(jnp.asarray(matrix, jnp.float32)),
        )
        assert isinstance(on_host, np.floating)
        np.testing.assert_allclose(on_host, on_device, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e25])
def test_the_spectral_radius_of_tiny_and_huge_matrices_is_finite(scale, key):
    matrix = np.asarray(jax.random.normal(key, (4, 4)), np.float64)
    expected = scale * np.abs(np.linalg.eigvals(matrix)).max()
    came = spectral_radius(jnp.asarray(scale * matrix, jnp.float32))
    # The logarithm of 1e25 is 58, and so known to 58 · 6e-8.
    np.testing.assert_allclose(came, expected, rtol=2e-5)


def test_chrono_biases_keep_for_2_to_the_longest_number_of_steps(key):
    u = np.exp(np.asarray(Chrono(100)(key, (20000,), jnp.float32)))
    # Uniform on [1, 99]: mean 50, spread 98 / √12, known from 20000 draws to 0.2; four times that.
    assert u.min() >= 1 - 1e-6
    assert u.max() <= 99 + 1e-4
    np.testing.assert_allclose(u.mean(), 50, atol=0.8)
    np.testing.assert_allclose(u.std(), 98 / np.sqrt(12), atol=0.8)


def test_a_negated_chrono_bias_is_the_same_draw_with_the_other_sign(key):
    one, other = (Chrono(30, negated=n)(key, (8,), jnp.float32) for n in (False, True))
    np.testing.assert_array_equal(one, -other)
    assert np.any(np.asarray(one) != 0)


@pytest.mark.parametrize("rule", [ScaledIdentity, Orthogonal, SpectralRadius, Normal, Constant])
def test_a_number_of_numpy_does_not_widen_what_is_drawn(rule, x64, standard_promotion):
    drawn = rule(np.float64(0.5))(jax.random.key(0), (3, 3), jnp.float32)
    assert drawn.dtype == jnp.float32


@pytest.mark.parametrize("name", list(NAMED))
def test_a_name_that_is_said_to_draw_vectors_does(name, key):
    if NAMED[name].least_rank == 1:
        assert draw(name, key, (5,), jnp.float32).shape == (5,)
    else:
        with pytest.raises((ValueError, IndexError)):
            draw(name, key, (5,), jnp.float32)


def test_a_number_is_the_rule_that_gives_it_everywhere(key):
    assert as_rule(1.5) == Constant(1.5)
    np.testing.assert_array_equal(draw(1.5, key, (3,), jnp.float32), np.full(3, 1.5))


@pytest.mark.parametrize("name", ["orthogonal", "glorot", "uniform_fan_in", "zeros"])
def test_a_matrix_without_rows_is_drawn_empty(name, key):
    assert draw(name, key, (0, 4), jnp.float32).shape == (0, 4)


def test_random_rules_depend_on_the_key(key):
    for rule in (Normal(), Orthogonal(), UniformFanIn(), Glorot()):
        one, other = (rule(k, (4, 4), jnp.float32) for k in jax.random.split(key))
        assert not np.allclose(one, other)


def test_gates_are_drawn_one_by_one_and_packed_along_the_last_axis(key):
    packed = draw_gates(("identity", "orthogonal", Constant(2.0)), key, (8, 8), jnp.float32)
    identity, orthogonal, constant = np.split(np.asarray(packed), 3, axis=1)
    assert oracles.is_drawn_by("identity", identity)
    assert oracles.is_drawn_by("orthogonal", orthogonal)
    np.testing.assert_array_equal(constant, np.full((8, 8), 2.0))
    # One packed orthogonal matrix would not have orthogonal gates.
    packed = np.asarray(Orthogonal()(key, (8, 32), jnp.float32))
    assert not any(oracles.is_drawn_by("orthogonal", gate) for gate in np.split(packed, 4, axis=1))


def test_a_user_defined_rule_is_accepted(key):
    class Twos(Initializer):
        def __call__(self, key, shape, dtype):
            return jnp.full(shape, 2, dtype)

    check_initializer("here", Twos())
    check_initializer("here", Normal(), rank=1)
    np.testing.assert_array_equal(draw(Twos(), key, (2, 3), jnp.float32), np.full((2, 3), 2.0))


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (SpectralRadius, (0, -1.0, np.nan, np.inf, "1"), "radius: expected a positive number, got"),
        (
            Chrono,
            (1, 0, -3, 1.5, np.nan, np.inf, 1e39, "10", None),
            "longest: expected a number of steps from 2 to",
        ),
        (lambda negated: Chrono(5, negated=negated), ("no",), "negated: expected a bool, got 'no'"),
        (
            lambda shape: ScaledIdentity()(jax.random.key(0), shape, jnp.float32),
            ((2, 3), (4,), (2, 2, 2)),
            r"^ScaledIdentity: expected a square matrix, got shape \(.*; use it for recurrent kernels$",
        ),
        (
            lambda shape: SpectralRadius()(jax.random.key(0), shape, jnp.float32),
            ((2, 3), (4,)),
            r"^SpectralRadius: expected a square matrix, got shape \(",
        ),
        (
            lambda rule: check_initializer("here", rule, rank=1),
            ("orthogonal", "glorot", "identity", "kaiming"),
            "here: expected one of 'uniform_fan_in', 'zeros', got '",
        ),
        (
            lambda rule: check_initializer("here", rule, rank=1),
            (Orthogonal(),),
            r"here: Orthogonal\(scale=1.0\) draws matrices only",
        ),
        (
            lambda rule: check_initializer("here", rule),
            ("kaiming", "", "Orthogonal", None, 0.1, jax.nn.initializers.orthogonal()),
            f"here: expected one of {', '.join(map(repr, NAMED))}, got ",
        ),
        (
            lambda rule: draw(rule, jax.random.key(0), (2, 2), jnp.float32),
            ("kaiming",),
            "initialiser: expected one of",
        ),
    ],
)
def test_what_cannot_draw_raises(make, values, message, unchecked):
    for value in values:
        with pytest.raises(ValueError, match=message):
            make(value)
