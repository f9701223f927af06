"""The memory benchmark, on sizes that take no time."""

import json

import pytest

from benchmarks import memory, memory_report

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_small_measurement_writes_results_picture_and_page(tmp_path, monkeypatch):
    few = {name: memory.CELLS[name] for name in ("LSTM", "MGU, not gated")}
    monkeypatch.setattr(memory, "CELLS", few)
    small = ["--long", "80", "2", "3", "4", "--longest", "200", "1", "3", "4"]
    memory.main([*small, "--rounds", "1", "--into", str(tmp_path)])
    results = json.loads((tmp_path / "benchmarks/results/memory.json").read_text("utf-8"))
    assert (tmp_path / "benchmarks/results/memory.png").read_bytes()[1:4] == b"PNG"
    page = (tmp_path / "docs/memory.md").read_text("utf-8")
    for entry in results["bytes"]:
        assert entry["temporary_bytes"] > 0
        assert f"{entry['temporary_bytes'] / 1e6:,.1f}" in page
    memory.main(["--report-only", "--into", str(tmp_path)])
    assert (tmp_path / "docs/memory.md").read_text("utf-8") == page


def test_a_goal_that_is_not_reached_is_said_to_be():
    assert memory_report.verdict("1.20", False) == "1.20 (not reached)"
    assert memory_report.verdict("1.00", True) == "**1.00**"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--rounds", "0"], "at least 1"), (["--report-only"], "memory.json does not exist")],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        memory.main([*arguments, "--into", str(tmp_path)])
