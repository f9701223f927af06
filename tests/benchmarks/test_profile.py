"""benchmarks.profile: what the threads of XLA did, told apart by the names of operations."""

import json

import pytest

from benchmarks import profile, profile_report, profile_run, suites
from benchmarks.peers.problem import KINDS, Shape
from benchmarks.profile_run import Event
from tests.benchmarks.made_up import frame


def results() -> dict:
    """Results that no machine has measured."""
    shares = {"matmuls": 0.3, "helping": 0.2, "gates": 0.2, "memory": 0.1, "dispatch": 0.05}
    shares["idle"] = 0.15
    case = {
        "cell": "LSTM",
        "shape": [3, 5, 4, 6],
        "kind": "forward",
        "ms": 1.5,
        "traced_ms": 2.0,
        "shares": shares,
        "heaviest": {"ynn_fusion": 0.4, "add_tanh_fusion": 0.1},
    }
    return {
        **frame("profile"),
        "calls": 10,
        "cases": [case],
    }


def test_the_section_has_the_shares_and_the_heaviest_operations():
    section = profile_report.section(results())
    row = "| LSTM | 3, 5, 4, 6 | forward | 1.5 | 2 | 30% | 20% | 20% | 10% | 5% | 15% | "
    assert row + "`ynn_fusion` 40%, `add_tanh_fusion` 10% |" in section
    assert "all 2 cores over 10 calls" in section
    assert "15%" in profile_report.text(results())


def test_a_picture_is_drawn_from_results():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from benchmarks.profile_picture import picture

    assert picture(results())[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ynn_fusion.2", "matmuls"),
        ("dot.12", "matmuls"),
        ("add_dot_fusion", "matmuls"),
        ("SlinkyThreadPool::Await", "matmuls"),
        ("add_tanh_fusion", "gates"),
        ("broadcast_add_fusion", "gates"),
        ("wrapped_broadcast.4", "memory"),
        ("bitcast_dynamic-update-slice_fusion.3", "memory"),
        ("copy.43", "memory"),
        ("while.21", "dispatch"),
        ("ThunkExecutor::Execute", "dispatch"),
    ],
)
def test_an_operation_is_told_by_its_name(name, kind):
    assert profile_run.kind_of(name) == kind


def test_the_time_of_an_operation_is_without_what_runs_inside_it():
    one = [
        Event("while", 0, 100),
        Event("dot", 10, 30),
        Event("copy", 15, 5),
        Event("dot", 50, 20),
        Event("copy", 100, 7),
    ]
    other = [Event("dot", 0, 40)]
    assert profile_run.own_times([one, other]) == {"while": 50, "dot": 85, "copy": 12}


def test_shares_are_of_the_time_of_all_cores_and_the_rest_is_idle():
    operations = {"dot.1": 40.0, "add_tanh_fusion": 10.0, "while": 5.0, "a::b": 5.0}
    found = profile_run.shares(operations, 75.0, 100.0)
    named = {"matmuls": 0.4, "gates": 0.1, "memory": 0.0, "dispatch": 0.1}
    assert found == named | {"helping": 0.15, "idle": 0.25}
    assert profile_run.heaviest(operations, 100.0) == {"dot.1": 0.4, "add_tanh_fusion": 0.1}


def test_a_small_run_finds_matmuls_and_gates_and_is_written(tmp_path, capsys):
    arguments = ["--cells", "LSTM", "--shapes", "8", "16", "32", "32", "--calls", "2"]
    suites.run(["profile", *arguments, "--into", str(tmp_path)])
    found = json.loads((tmp_path / "benchmarks/results/profile.json").read_text("utf-8"))
    assert [case["kind"] for case in found["cases"]] == list(KINDS)
    for case in found["cases"]:
        assert case["shares"]["matmuls"] > 0
        assert case["shares"]["gates"] > 0
        assert sum(case["shares"].values()) == pytest.approx(1, abs=0.01)
        assert len(case["heaviest"]) == profile_run.HEAVIEST
    assert "## Where the time goes" in (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    assert str(Shape(8, 16, 32, 32)) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--calls 0", "calls: expected at least 1"),
        ("--shapes 1 0 1 1", "shapes: expected at least 1"),
        ("--report-only", "profile.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        profile.main([*arguments.split(), "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())
