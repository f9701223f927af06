"""benchmarks.tune: every choice computes the same, and the table has the one that was clearly best."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import frame, layers_run, tune
from benchmarks.peers.problem import KINDS, Shape, drawn
from seqjax.engines import tuned as table
from seqjax.engines.tuned import Tuned

chunked = importlib.import_module("seqjax.engines.chunked")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A folder with the table alone."""
    (tmp_path / "seqjax" / "engines").mkdir(parents=True)
    shutil.copy(ROOT / "seqjax" / "engines" / "tuned.py", tmp_path / "seqjax" / "engines")
    return tmp_path


def lines_of(checkout: Path) -> list[str]:
    text = (checkout / "seqjax" / "engines" / "tuned.py").read_text("utf-8")
    return [line.strip() for line in text.splitlines() if '": Tuned(' in line]


def test_a_choice_is_taken_only_where_it_is_clearly_faster_than_the_scan():
    assert tune.chosen({"scan": 1.0, "chunked, 8": 1.04, "chunked, 16": 1.03}) == "scan"
    assert tune.chosen({"scan": 1.0, "chunked, 8": 1.06, "chunked, 16": 1.2}) == "chunked, 16"


def test_the_table_has_one_line_for_each_backend(checkout):
    tune.write_table(checkout, "cpu", Tuned("scan", 8))
    assert lines_of(checkout) == ['"cpu": Tuned(engine="scan", chunk=8, together=0),']
    tune.write_table(checkout, "gpu", Tuned("chunked", 64, 9))
    assert lines_of(checkout)[1:] == ['"gpu": Tuned(engine="chunked", chunk=64, together=9),']
    found: dict = {}
    exec((checkout / "seqjax/engines/tuned.py").read_text("utf-8"), found)
    assert found["TUNED"] == {"cpu": ("scan", 8, 0), "gpu": ("chunked", 64, 9)}


def test_without_a_table_nothing_is_written(tmp_path):
    with pytest.raises(
        frame.MeasurementError, match=r"tuned.py does not exist; expected the table"
    ):
        tune.write_table(tmp_path, "cpu", Tuned("scan", 8))
    assert not any(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_computes_the_same_and_leaves_the_table_as_it_was(kind):
    before = dict(table.TUNED)
    problem = drawn("LSTM", Shape(3, 7, 4, 6))
    by_scan, *others = (
        tune.compiled(problem, kind, "cpu", choice)()
        for choice in (Tuned("scan", 16), Tuned("chunked", 2), Tuned("chunked", 7))
    )
    for other in others:
        for came, expected in zip(other, by_scan, strict=True):
            np.testing.assert_allclose(came, expected, rtol=1e-4, atol=1e-6)
    assert before == table.TUNED


def test_what_is_timed_is_what_the_choice_asks_for(monkeypatch):
    """Also after the next choice is made: chunks of 2 are three rounds of a loop, and a rest."""
    lengths = []

    def noted(time, numbers=None):
        lengths.append(table.chunk_length(time, numbers))
        return lengths[-1]

    monkeypatch.setattr(chunked, "chunk_length", noted)
    problem = drawn("LSTM", Shape(3, 7, 4, 6))
    calls = [
        tune.compiled(problem, "forward", "cpu", choice)
        for choice in (Tuned("chunked", 2), Tuned("chunked", 3), Tuned("scan", 16))
    ]
    assert lengths == [2, 3]
    for call in calls:
        call()
    assert len(lengths) == 2  # nothing is traced again when it is timed


def test_a_small_run_writes_the_table_and_the_section(checkout, monkeypatch, capsys):
    monkeypatch.setattr(layers_run, "AT_LEAST", 1e-4)
    arguments = (
        "--cells Elman --shapes 3 5 4 6 --chunks 2 --together 0 --rounds 1 --device cpu --into"
    )
    tune.main([*arguments.split(), str(checkout)])
    found = json.loads((checkout / "benchmarks/results/tune.json").read_text("utf-8"))
    assert [case["kind"] for case in found["cases"]] == list(KINDS)
    for case in found["cases"]:
        one, other = case["seconds"]["scan"][0], case["seconds"]["chunked, 2"][0]
        assert case["speeds"]["chunked, 2"] == pytest.approx(one / other, rel=1e-2)
    engine, chunk = ("scan", 16) if found["chosen"] == "scan" else ("chunked", 2)
    assert lines_of(checkout) == [f'"cpu": Tuned(engine="{engine}", chunk={chunk}, together=0),']
    page = (checkout / "docs/benchmarks.md").read_text("utf-8")
    assert f"`seqjax/engines/tuned.py`: **{found['chosen']}**" in page
    assert "chosen: " in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["--chunks 0", "--rounds 0", "--shapes 1 0 1 1", "--together -1"])
def test_sizes_below_one_are_refused(bad):
    with pytest.raises(SystemExit, match=r"expected (numbers of )?at least [01]"):
        tune.main(bad.split())
