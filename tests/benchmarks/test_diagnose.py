"""The cost of a diagnosis, measured on sizes that take no time."""

import json

import pytest

from benchmarks import diagnose

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_small_measurement_writes_results_and_page(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnose, "CELLS", {"Elman": diagnose.CELLS["Elman"]})
    diagnose.main(["--shapes", "6", "2", "3", "--rounds", "1", "--into", str(tmp_path)])
    results = json.loads((tmp_path / "benchmarks/results/diagnose.json").read_text("utf-8"))
    (run,) = results["runs"]
    assert run["shape"] == [6, 2, 3]
    assert run["ratio"] == pytest.approx(run["diagnosis_ms"] / run["gradient_ms"], rel=0.1)
    page = (tmp_path / "docs/diagnose_cost.md").read_text("utf-8")
    assert f"{run['ratio']:.1f}" in page
    run["ratio"] = diagnose.GOAL + 1
    assert "(not reached)" in diagnose.page(results)
    diagnose.main(["--report-only", "--into", str(tmp_path)])
    assert (tmp_path / "docs/diagnose_cost.md").read_text("utf-8") == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--rounds", "0"], "at least 1"), (["--report-only"], "diagnose.json does not exist")],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        diagnose.main([*arguments, "--into", str(tmp_path)])
