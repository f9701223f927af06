"""Packed gates: values and derivatives of each gate by itself, kept under their name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.gates import ACTIVATIONS, SAVED, collect_gates, name_gate, packed_gates

PACKED = [
    ("sigmoid", "sigmoid", "tanh", "sigmoid"),
    ("tanh", "tanh"),
    *((name,) for name in ACTIVATIONS),
]


def packed(x, kinds):
    """`packed_gates` with numbers for names."""
    return packed_gates(x, **{f"gate {i}": kind for i, kind in enumerate(kinds)})


def one_by_one(x, kinds):
    """Each gate by its own function, on its own slice."""
    parts = jnp.split(x, len(kinds), axis=-1)
    return tuple(ACTIVATIONS[kind](part) for kind, part in zip(kinds, parts, strict=True))


@pytest.mark.parametrize("kinds", PACKED, ids="-".join)
def test_values_and_first_and_second_derivatives_are_those_of_each_gate(kinds, x64):
    x = 3 * jax.random.normal(jax.random.key(0), (5, 3 * len(kinds)), jnp.float64)
    weigh = lambda gates: sum(jnp.sum(jnp.sin((k + 1) * gate)) for k, gate in enumerate(gates))

    def derivatives(gates_of):
        loss = lambda x: weigh(gates_of(x, kinds))
        along = lambda x: jnp.vdot(jax.grad(loss)(x), jnp.cos(x))
        return loss(x), jax.grad(loss)(x), jax.jvp(loss, (x,), (jnp.cos(x),))[1], jax.grad(along)(x)

    for came, expected in zip(derivatives(packed), derivatives(one_by_one), strict=True):
        np.testing.assert_allclose(came, expected, rtol=1e-12, atol=1e-14)


def test_far_from_zero_gates_are_shut_or_open_and_their_derivatives_zero():
    shut, opened = packed(jnp.array([-200.0, 200.0]), ("sigmoid", "sigmoid"))
    np.testing.assert_array_equal([*shut, *opened], [0, 1])
    slopes = jax.grad(lambda x: sum(g.sum() for g in packed(x, ("sigmoid", "tanh"))))(
        jnp.array([-200.0, 200.0])
    )
    np.testing.assert_array_equal(slopes, [0, 0])


def test_under_a_policy_for_the_name_reverse_mode_keeps_the_values_and_nothing_else():
    x = jnp.ones((2, 12))
    policy = jax.checkpoint_policies.save_only_these_names(SAVED)
    run = jax.checkpoint(lambda x: packed(x, ("sigmoid", "tanh", "sigmoid")), policy=policy)
    _, pull = jax.vjp(run, x)
    (held,) = jax.tree.leaves(pull)
    np.testing.assert_allclose(held[0, 0], jax.nn.sigmoid(1.0), rtol=1e-6)  # not x, which is 1


def test_activations_that_one_tanh_cannot_compute_raise_an_error():
    for kinds in (("relu", "tanh"), ("identity", "identity")):
        with pytest.raises(
            ValueError, match="packed_gates: expected activations 'sigmoid' and 'tanh'"
        ):
            packed(jnp.ones((2, 4)), kinds)
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\); expected 2 equal parts"):
        packed(jnp.ones((2, 5)), ("sigmoid", "tanh"))


def test_names_are_collected_in_order_and_only_within_the_context():
    x = jnp.linspace(-1.0, 1.0, 6)
    with collect_gates() as outer:
        f, g = packed_gates(x, f="sigmoid", g="tanh")
        with collect_gates() as inner:
            name_gate("1 - f", 1 - f, None)
    name_gate("o", g)
    assert list(outer) == ["f", "g"]
    assert list(inner) == ["1 - f"]
    assert outer["f"].value is f
    assert [gate.activation for gate in outer.values()] == ["sigmoid", "tanh"]
