"""Argument checks: each names the argument, what was expected and what came, and accepts the rest."""

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


PAIR = Pair(jnp.ones(2), jnp.ones(3))
NOT_FINITE = (math.nan, math.inf, -math.inf, True, "1", None)
SCALARS = [
    (checks.positive, "a positive integer", (1, 10**12), (0, -1, 2.0, True, "3", None)),
    (checks.size, "an integer of at least 0", (0, 3), (-1, 2.0, True, "3", None)),
    (
        checks.fraction,
        "a rate in [0, 1)",
        (0, 0.0, 0.5, 0.999),
        (-1e-9, 1, 1.0, 2.5, math.nan, math.inf, False, "0.5", None),
    ),
    (checks.finite_positive, "a positive number", (1, 1e-30, 1e30), (0, -1.0, *NOT_FINITE)),
    (checks.not_negative, "a number of at least 0", (0, 0.0, 1e30), (-1e-30, *NOT_FINITE)),
    (checks.finite, "a finite number", (0, -3, 1.5), NOT_FINITE),
    (checks.function, "a function", (len,), (3, "f")),
]


@pytest.mark.parametrize(("check", "expected", "good", "bad"), SCALARS)
def test_a_check_of_one_value_accepts_the_good_and_names_the_bad(
    check, expected, good, bad, unchecked
):
    for value in good:
        check("f: x", value)
    for value in bad:
        with pytest.raises(ValueError, match="f: x") as error:
            check("f: x", value)
        assert str(error.value) == f"f: x: expected {expected}, got {value!r}"


def test_one_of_lists_the_known_names():
    with pytest.raises(ValueError, match="colour") as error:
        checks.one_of("colour", "green", ("red", None, 3))
    assert str(error.value) == "colour: expected one of 'red', None, 3, got 'green'"
    checks.one_of("colour", None, ("red", None, 3))


def test_instance_names_the_kind():
    with pytest.raises(ValueError, match=r"^cell: expected a Pair, got 3$"):
        checks.instance("cell", 3, Pair)
    checks.instance("cell", PAIR, Pair)


def test_trailing_asks_for_the_last_axis_under_any_batch():
    for shape in ((3,), (0, 3), (2, 4, 3)):
        checks.trailing("x", jnp.ones(shape), 3)
    for shape in ((), (2,), (3, 2)):
        with pytest.raises(ValueError, match="x has shape") as error:
            checks.trailing("x", jnp.ones(shape), 3)
        assert str(error.value) == (
            f"x has shape {shape}; expected [*batch, 3], as the parameters were made for 3 features"
        )


def test_same_tree_names_the_leaf_that_differs():
    checks.same_tree("state", PAIR, jax.eval_shape(lambda: PAIR), "init")
    checks.same_tree("state", PAIR._replace(b=jnp.ones(3, int)), PAIR, "init", dtypes=False)
    with pytest.raises(ValueError, match=r"state has structure .*; expected .*Pair.*, as init"):
        checks.same_tree("state", tuple(PAIR), PAIR, "init")
    for b, came in (
        (jnp.ones(4), "float32[4]"),
        (jnp.ones(3, jnp.int32), "int32[3]"),
        (jnp.ones(()), "float32[]"),
    ):
        with pytest.raises(ValueError, match="state") as error:
            checks.same_tree("state", PAIR._replace(b=b), PAIR, "init")
        assert str(error.value) == f"state.b is {came}; expected float32[3], as init gives it"


def test_array_takes_lists_and_numpy_but_nothing_ragged_and_no_words(unchecked):
    assert checks.array("f: xs", [[1.0, 2.0], [3.0, 4.0]]).shape == (2, 2)
    assert checks.array("f: xs", np.arange(3.0)).dtype == jnp.float32
    for value in ([[1.0], [2.0, 3.0]], None, "abc", [None, 1]):
        with pytest.raises(ValueError, match=r"f: xs: expected an array of numbers, .* got"):
            checks.array("f: xs", value)


def test_key_takes_one_key_of_either_kind_or_none(unchecked):
    for value in (jax.random.key(1), jax.random.PRNGKey(1), None):
        checks.key("f: key", value)
    for value in (0, "a", 1.5, jnp.zeros(2), jax.random.split(jax.random.key(0))):
        with pytest.raises(ValueError, match=r"f: key: expected one key, such as jax\.random\.key"):
            checks.key("f: key", value)
