"""benchmarks.precision: bfloat16 beside float32, in time and in accuracy."""

import json

import numpy as np
import pytest

from benchmarks import precision, precision_report, precision_run, suites
from benchmarks.peers.problem import KINDS, Shape
from tests.benchmarks.made_up import frame


def results(*speeds: float) -> dict:
    """Results that no machine has measured, a case for each speed."""
    case = lambda speed, kind: {
        "cell": "LSTM",
        "shape": [3, 5, 4, 6],
        "kind": kind,
        "seconds": {"float32": [0.002, 0.002], "bfloat16": [0.002 / speed] * 2},
        "speed": speed,
        "error": 4.2e-3,
    }
    run = lambda seconds: {"loss": 2.5, "seconds": seconds, "losses": [3.0, 2.0]}
    return {
        **frame("precision"),
        "rounds": 2,
        "cases": [case(speed, kind) for speed, kind in zip(speeds, KINDS, strict=True)],
        "training": {
            "features": 128,
            "updates": 2,
            "runs": {"float32": run(0.02), "bfloat16": run(0.03)},
        },
    }


@pytest.mark.parametrize(
    ("speeds", "verdict"),
    [
        ((0.5, 1.04), "It pays in none of 2 cases here."),
        ((1.05, 2.0), "It pays in all 2 cases here."),
        ((0.5, 2.0), "It pays in 1 of 2 cases here**: LSTM 3, 5, 4, 6 forward+backward."),
    ],
)
def test_the_section_says_where_it_pays(speeds, verdict):
    section = precision_report.section(results(*speeds))
    assert verdict in section
    assert f"| LSTM | 3, 5, 4, 6 | forward | 2 | {speeds[0]:.2f} | 4.2e-03 |" in section
    assert "2.500 nats in bfloat16, 30.0 ms an update" in section
    assert verdict in precision_report.text(results(*speeds))


def test_a_picture_is_drawn_from_results():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from benchmarks.precision_picture import picture

    assert picture(results(0.5, 2.0))[1:4] == b"PNG"


def test_the_error_is_that_of_the_array_that_is_furthest():
    wide = [np.array([3.0, 4.0]), np.array([1.0])]
    assert precision_run.error([wide[0], wide[1] + 0.5], wide) == 0.5
    assert precision_run.error([np.array([3.0, 3.0]), wide[1]], wide) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "Elman"])
def test_a_layer_in_bfloat16_differs_from_float32_by_rounding(cell, kind, monkeypatch):
    monkeypatch.setattr(precision_run, "AT_LEAST", 1e-4)
    case = precision_run.layer(cell, Shape(3, 7, 4, 6), kind, 1)
    assert 1e-4 < case["error"] < 0.03  # bfloat16 rounds to 2⁻⁹
    one, other = case["seconds"]["float32"][0], case["seconds"]["bfloat16"][0]
    assert case["speed"] == pytest.approx(one / other, rel=1e-2)


@pytest.mark.usefixtures("standard_promotion")
def test_a_small_run_is_written_and_both_trainings_learn_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precision_run, "AT_LEAST", 1e-4)
    arguments = (
        "--cells Elman --shapes 3 5 4 6 --rounds 1 --features 8 --updates 4 --device cpu --into"
    )
    suites.run(["precision", *arguments.split(), str(tmp_path)])
    found = json.loads((tmp_path / "benchmarks/results/precision.json").read_text("utf-8"))
    assert [case["kind"] for case in found["cases"]] == list(KINDS)
    wide, narrow = (found["training"]["runs"][name]["losses"] for name in precision_run.DTYPES)
    assert len(wide) == 4
    assert wide != narrow
    np.testing.assert_allclose(wide, narrow, rtol=0.01)
    assert "## Matmuls in bfloat16" in (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    assert "nats in bfloat16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rounds 0", "rounds: expected at least 1"),
        ("--updates 0", "updates: expected at least 1"),
        ("--shapes 1 0 1 1", "shapes: expected at least 1"),
        ("--report-only", "precision.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        precision.main([*arguments.split(), "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())
