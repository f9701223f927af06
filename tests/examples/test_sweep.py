import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from examples import sweep

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.mark.full
def test_without_clipping_a_long_step_is_fatal_and_with_it_is_not(tmp_path, capsys):
    options = sweep.Options(
        learning_rates=(0.001, 0.1),
        clip_norms=(1.0, float("inf")),
        steps=120,
        run=tmp_path,
        display=False,
    )
    found = sweep.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["learning_rate", "clip_norm", "valid/error"]
    rows = {tuple(map(float, line.split()[:2])): line.split()[2] for line in lines[1:5]}
    assert rows[0.1, float("inf")] == "diverged"
    assert float(rows[0.1, 1.0]) == pytest.approx(found["error"], rel=1e-3)
    assert found["error"] < 0.25  # 1/6 knows the mean of the answers and nothing else
    assert found["norm"] > 100  # a hundred times the threshold
    for name in ("cliff.png", "sweep.png", "curves.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
    assert sweep.main(options) == found  # nothing is left to do


def test_batches_go_on_where_they_were():
    first = sweep.Batches(length=4, batch=3)
    next(first)
    second = sweep.Batches(length=4, batch=3)
    second.set_state(first.get_state())
    batch = next(second)
    np.testing.assert_array_equal(batch.inputs, next(first).inputs)
    assert batch.inputs.shape == (4, 3, 2)
