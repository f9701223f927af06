"""The one command for all benchmarks, and the page that it writes."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import suites
from benchmarks.processes import ROOT
from benchmarks.suites import SECTIONS, SUITES
from tests.benchmarks.made_up import frame


def results(**changed) -> dict:
    """Results that no machine has measured."""
    times = {"seconds": [0.001], "median_ms": 1.0, "first_call_seconds": 0.5, "deviation": 0.0}
    case = {
        "cell": "GRU",
        "shape": [3, 5, 4, 6],
        "kind": "forward",
        "contestants": {"ours": times, "ours, state": times, "nnx": times, "linen": times},
        "left_out": {},
        "ratios": {"ours, state": 1.04, "nnx": 1.25, "linen": 1.51},
        "fastest": "nnx",
        "share_of_matmul_rate": 0.824,
    }
    made_up = {
        **frame("layers"),
        "rounds": 7,
        "missing": {"torch": "torch is not installed"},
        "matmul": {"size": 2048, "gflops": 205.0, "one_core_gflops": None},
        "cases": [case],
    }
    return made_up | changed


def keep(into: Path, name: str, found: dict) -> None:
    file = into / "benchmarks" / "results" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found), "utf-8")


def test_without_a_suite_all_are_listed(capsys):
    for arguments in ([], ["--help"]):
        suites.run(arguments)
        listed = capsys.readouterr().out
        for name, suite in SUITES.items():
            assert f"  {name} " in listed
            assert suite.measures in listed
        assert "  report " in listed


def test_a_suite_that_does_not_exist_is_one_sentence_and_a_failure():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    names = ", ".join(SUITES)
    expected = f"no suite is called 'nothing'; expected one of {names}, or report"
    assert done.stderr.strip() == expected


def test_every_suite_takes_arguments_and_has_its_page():
    for name, suite in SUITES.items():
        module = suites.module(name)
        assert list(inspect.signature(module.main).parameters) == ["arguments"]
        if suite.page == SECTIONS:
            assert callable(module.section)
        else:
            assert (ROOT / "docs" / suite.page).is_file()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("memory", ["--report-only"], "memory.json does not exist"),
        ("layers", ["--report-only"], "layers.json does not exist"),
        ("diagnose", ["--rounds", "0"], "expected at least 1"),
        ("quality", ["nothing"], "rows: expected some of"),
    ],
)
def test_a_suite_gets_the_arguments_after_its_name(name, arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        suites.run([name, *arguments, "--into", str(tmp_path)])


def test_the_report_has_a_section_for_each_device_and_links_to_the_other_pages(tmp_path, capsys):
    keep(tmp_path, "layers", results())
    gpu = {"platform": "gpu", "kind": "H200", "count": 1}
    keep(tmp_path, "layers-h200", results(name="layers-h200", device=gpu))
    keep(tmp_path, "memory", {})
    suites.run(["report", "--into", str(tmp_path)])
    page = (tmp_path / "docs" / SECTIONS).read_text("utf-8")
    row = "| 3, 5, 4, 6 | forward | 1 | 82 % | 1.04 | 1.25 (nnx) | 1.51 | 1.25 † | "
    for line in (
        "## One layer, forward and backward\n",
        "## One layer, forward and backward, on H200\n",
        "![How many times as long as ours](../benchmarks/results/layers-h200.png)",
        "### GRU\n",
        "### GRU, on H200\n",
        row.rstrip(),
        "- torch is missing: torch is not installed.",
        "- † nnx: its GRU has no inner bias c_n.",
        "Measured on 2026-01-31: Abacus 9000, 2 cores",
        "One matmul of 2048²: 205 GFLOP/s.",
        "(memory.md)",
    ):
        assert line in page
    assert page.count(row.rstrip()) == 2
    assert str(tmp_path / "docs" / SECTIONS) in capsys.readouterr().out


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no results of layers, .*; expected them"):
        suites.run(["report", "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_without_tyro_there_are_the_defaults_and_no_options(monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert suites.read_options(suites.Report, [], "report") == suites.Report()
    with pytest.raises(SystemExit, match="tyro is not installed; expected it, for options"):
        suites.read_options(suites.Report, ["--into", "."], "report")
