"""Fields of leaf cells: each is validated by what its name says."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
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
    update_bias: Any = None
    param_dtype: Any = jnp.float32
    dtype: Any = None
    skip: Any = "anything"


def test_good_fields_pass(unchecked):
    check_fields(Fields())
    check_fields(
        Fields(recurrent_init=Orthogonal(2.0), bias_init=Constant(1.0), dtype=jnp.bfloat16)
    )
    for bias in (0, -1.5, Chrono(10)):
        check_fields(Fields(forget_bias=bias))
    check_fields(Fields(update_bias=2.0))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("features", 0, "a positive integer"),
        ("features", 2.0, "a positive integer"),
        ("input_activation", "swish", "one of 'tanh', 'sigmoid', 'relu', 'identity'"),
        ("recurrent_init", "kaiming", "one of 'orthogonal', 'identity', 'uniform_fan_in'"),
        ("bias_init", None, "one of 'uniform_fan_in', 'zeros'"),
        ("bias_init", "orthogonal", "one of 'uniform_fan_in', 'zeros'"),
        ("forget_bias", "one", "a finite number"),
        ("forget_bias", float("nan"), "a finite number"),
        ("forget_bias", None, "a finite number"),
        ("update_bias", "two", "a finite number"),
        ("param_dtype", None, "a floating-point dtype such as jnp.float32"),
        ("param_dtype", jnp.int32, "a floating-point dtype such as jnp.float32"),
        ("dtype", "float33", "a floating-point dtype such as jnp.float32"),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value, expected, unchecked):
    with pytest.raises(ValueError, match="Fields") as refusal:
        check_fields(Fields(**{field: value}))
    assert str(refusal.value).startswith(f"Fields: {field}: expected {expected}")
    assert str(refusal.value).endswith(f"got {value!r}")


def test_a_rule_must_draw_the_rank_of_its_field(unchecked):
    for field in ("bias_init", "forget_bias"):
        with pytest.raises(ValueError, match=f"Fields: {field}: Orthogonal.*draws matrices only"):
            check_fields(Fields(**{field: Orthogonal()}))
    with pytest.raises(ValueError, match="Fields: recurrent_init: expected one of 'orthogonal'"):
        check_fields(Fields(recurrent_init=np.eye(2)))


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")])
def test_a_dtype_is_one_type_however_it_is_written(dtype, unchecked):
    one, other = sj.CIFG(4, dtype=dtype), sj.CIFG(4, dtype=jnp.bfloat16)
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)
    plain = sj.CIFG(4, param_dtype=jnp.dtype("float32"))
    assert (plain, hash(plain), repr(plain)) == (sj.CIFG(4), hash(sj.CIFG(4)), "CIFG(features=4)")
