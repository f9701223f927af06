"""summary: the table of parameters."""

import jax
import jax.numpy as jnp

import seqjax as sj
from seqjax.parameters import ParameterRow

CELL = sj.Stack((sj.LSTM(30), sj.GRU(2, param_dtype=jnp.bfloat16)))


def test_each_array_has_a_row_with_its_path_shape_dtype_and_size(key):
    assert sj.summary(CELL, CELL.init(key, in_features=4)).rows == (
        ParameterRow("layers[0].input_kernel", (4, 120), "float32", 480),
        ParameterRow("layers[0].recurrent_kernel", (30, 120), "float32", 3600),
        ParameterRow("layers[0].bias", (120,), "float32", 120),
        ParameterRow("layers[1].input_kernel", (30, 6), "bfloat16", 180),
        ParameterRow("layers[1].recurrent_kernel", (2, 6), "bfloat16", 12),
        ParameterRow("layers[1].bias", (6,), "bfloat16", 6),
        ParameterRow("layers[1].inner_bias", (2,), "bfloat16", 2),
    )


def test_size_and_bytes_are_totals(key):
    table = sj.summary(CELL, jax.eval_shape(lambda: CELL.init(key, in_features=4)))
    assert table.size == 4200 + 200
    assert table.bytes == 4 * 4200 + 2 * 200


def test_shapes_do_as_well_as_arrays(key):
    shapes = jax.eval_shape(lambda: CELL.init(key, in_features=4))
    assert sj.summary(CELL, shapes) == sj.summary(CELL, CELL.init(key, in_features=4))


def test_it_prints_a_table_that_ends_with_the_total(key):
    table = sj.summary(CELL, jax.eval_shape(lambda: CELL.init(key, in_features=4)))
    lines = str(table).splitlines()
    assert lines[0] == repr(CELL)
    assert lines[1].split() == ["parameter", "shape", "dtype", "size"]
    assert lines[3].split() == ["layers[0].input_kernel", "4×120", "float32", "480"]
    assert lines[-1].split() == ["total", "17,200", "bytes", "4,400"]
    assert len(lines) == len(table.rows) + 5  # name, heading, two rules, total
    assert len({len(line) for line in lines[1:]}) == 1


def test_params_without_a_path_or_of_no_size_are_counted():
    table = sj.summary("a scalar", jnp.zeros(()))
    assert (table.name, table.size, table.bytes) == ("'a scalar'", 1, 4)
    assert "scalar  float32" in str(table)
    assert sj.summary("nothing", ()).size == 0
    assert str(sj.summary("nothing", ())).splitlines()[-1].split() == ["total", "0", "bytes", "0"]
