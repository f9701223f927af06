"""The fields that leaf cells share: each is checked by what its name says."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import pytest

from seqjax.fields import check_fields
from seqjax.initializers import Chrono, Constant, Initializer, Orthogonal


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a leaf cell may have, and one field that is its own affair."""

    features: Any = 3
    input_activation: Any = "tanh"
    recurrent_init: Initializer | str | Any = "orthogonal"
    bias_init: Any = "zeros"
    forget_bias: Any = 1.0
    param_dtype: Any = jnp.float32
    dtype: Any = None
    skip: Any = "anything"


def test_good_fields_pass(unchecked):
    check_fields(Fields())
    check_fields(
        Fields(recurrent_init=Orthogonal(2.0), bias_init=Constant(1.0), dtype=jnp.bfloat16)
    )
    for bias in (0, -1.5, None, Chrono(10)):
        check_fields(Fields(forget_bias=bias))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("features", 0, "a positive integer"),
        ("features", 2.0, "a positive integer"),
        ("input_activation", "swish", "one of 'tanh', 'sigmoid', 'relu', 'identity'"),
        ("recurrent_init", "kaiming", "one of 'orthogonal', 'identity', 'uniform_fan_in'"),
        ("bias_init", "orthogonal", "one of 'uniform_fan_in', 'zeros'"),
        ("forget_bias", "one", "a finite number"),
        ("forget_bias", float("nan"), "a finite number"),
        ("param_dtype", jnp.int32, "a floating-point dtype such as jnp.float32"),
        ("dtype", "float33", "a floating-point dtype such as jnp.float32"),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value, expected, unchecked):
    with pytest.raises(ValueError, match="Fields") as refusal:
        check_fields(Fields(**{field: value}))
    assert str(refusal.value).startswith(f"Fields: {field}: expected {expected}")
    assert str(refusal.value).endswith(f"got {value!r}")


@pytest.mark.parametrize("field", ["bias_init", "forget_bias"])
def test_a_rule_that_draws_matrices_is_refused_for_a_bias(field):
    with pytest.raises(ValueError, match=f"Fields: {field}: Orthogonal.*draws matrices only"):
        check_fields(Fields(**{field: Orthogonal()}))
