"""Refusals: each names the argument, what was expected and what came, and lets the rest pass."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax import checks


class Pair(NamedTuple):
    a: jax.Array
    b: jax.Array


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_positive_refuses_what_is_no_positive_integer(value, unchecked):
    with pytest.raises(ValueError, match="size") as refusal:
        checks.positive("size", value)
    assert str(refusal.value) == f"size: expected a positive integer, got {value!r}"


def test_positive_lets_positive_integers_pass():
    checks.positive("size", 1)
    checks.positive("size", 10**12)


@pytest.mark.parametrize("value", [-1e-9, 1, 1.0, 2.5, math.nan, math.inf, False, "0.5", None])
def test_fraction_refuses_what_is_no_rate(value, unchecked):
    with pytest.raises(ValueError, match="rate") as refusal:
        checks.fraction("rate", value)
    assert str(refusal.value) == f"rate: expected a rate in [0, 1), got {value!r}"


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 0.999])
def test_fraction_lets_rates_pass(value, unchecked):
    checks.fraction("rate", value)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, -math.inf, True, "1", None])
def test_finite_positive_refuses_what_is_not(value, unchecked):
    with pytest.raises(ValueError, match="norm") as refusal:
        checks.finite_positive("norm", value)
    assert str(refusal.value) == f"norm: expected a positive number, got {value!r}"


@pytest.mark.parametrize("value", [1, 1e-30, 1e30])
def test_finite_positive_lets_positive_numbers_pass(value, unchecked):
    checks.finite_positive("norm", value)


def test_one_of_lists_the_known_names():
    with pytest.raises(ValueError, match="colour") as refusal:
        checks.one_of("colour", "green", ("red", None, 3))
    assert str(refusal.value) == "colour: expected one of 'red', None, 3, got 'green'"
    checks.one_of("colour", None, ("red", None, 3))


@pytest.mark.parametrize("shape", [(), (2,), (3, 2)])
def test_trailing_refuses_another_last_axis(shape):
    with pytest.raises(ValueError, match="x has shape") as refusal:
        checks.trailing("x", jnp.ones(shape), 3)
    assert str(refusal.value) == (
        f"x has shape {shape}; expected [*batch, 3], as the parameters were made for 3 features"
    )


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 4, 3)])
def test_trailing_lets_any_batch_pass(shape):
    checks.trailing("x", jnp.ones(shape), 3)


def test_same_tree_refuses_another_structure():
    pair = Pair(jnp.ones(2), jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"state has structure .*; expected .*Pair.*, as init gives"
    ):
        checks.same_tree("state", tuple(pair), pair, "init")


@pytest.mark.parametrize(
    ("b", "came"),
    [
        (jnp.ones(4), "float32[4]"),
        (jnp.ones(3, jnp.int32), "int32[3]"),
        (jnp.ones(()), "float32[]"),
    ],
    ids=["shape", "dtype", "scalar"],
)
def test_same_tree_names_the_leaf_that_differs(b, came):
    pair = Pair(jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match="state") as refusal:
        checks.same_tree("state", pair._replace(b=b), pair, "init")
    assert str(refusal.value) == f"state.b is {came}; expected float32[3], as init gives it"


def test_same_tree_lets_shapes_stand_for_arrays():
    pair = Pair(jnp.ones(2), jnp.ones(3))
    checks.same_tree("state", pair, jax.eval_shape(lambda: pair), "init")


def test_instance_names_the_kind():
    with pytest.raises(ValueError, match=r"^cell: expected a Pair, got 3$"):
        checks.instance("cell", 3, Pair)
    checks.instance("cell", Pair(jnp.ones(1), jnp.ones(1)), Pair)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None])
def test_finite_refuses_what_is_no_finite_number(value, unchecked):
    with pytest.raises(ValueError, match="bias") as refusal:
        checks.finite("bias", value)
    assert str(refusal.value) == f"bias: expected a finite number, got {value!r}"


@pytest.mark.parametrize("value", [0, -3, 1.5])
def test_finite_lets_finite_numbers_pass(value, unchecked):
    checks.finite("bias", value)


def test_array_takes_lists_and_numpy():
    assert checks.array("f: xs", [[1.0, 2.0], [3.0, 4.0]]).shape == (2, 2)
    assert checks.array("f: xs", np.arange(3.0)).dtype == jnp.float32


@pytest.mark.parametrize("value", [[[1.0], [2.0, 3.0]], None, "abc", [None, 1]])
def test_array_refuses_what_is_ragged_or_no_number(value, unchecked):
    with pytest.raises(ValueError, match=r"f: xs: expected an array of numbers, .* got"):
        checks.array("f: xs", value)


@pytest.mark.parametrize("value", [0, "a", 1.5, jnp.zeros(2), jax.random.split(jax.random.key(0))])
def test_key_refuses_what_is_not_one_key(value, unchecked):
    with pytest.raises(ValueError, match=r"f: key: expected one key, such as jax\.random\.key"):
        checks.key("f: key", value)


def test_key_lets_keys_of_both_kinds_pass_and_none(unchecked):
    drawn = []
    for value in (jax.random.key(1), jax.random.PRNGKey(1), None):
        checks.key("f: key", value)
        drawn.append(value if value is None else float(jax.random.uniform(value)))
    assert drawn[0] == drawn[1] is not None


def test_function_refuses_what_cannot_be_called(unchecked):
    with pytest.raises(ValueError, match="f: loss: expected a function, got 3"):
        checks.function("f: loss", 3)
