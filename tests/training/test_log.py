"""The log that is read back, and the options beside it."""

import dataclasses
import json
import re
from pathlib import Path

import optax
import pytest

from seqjax.training import fit, keep_options, plot_curves, read_log
from tests.training import runs


def test_a_last_line_that_a_killed_process_left_unfinished_is_no_record(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "tra')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_log_that_is_not_utf_8_is_an_error_with_its_file(tmp_path: Path):
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": \xff}\n')
    expected = f"{file} is not UTF-8: byte 0xff at offset 21; expected a log that training wrote"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_log(file)


def test_a_panel_is_drawn_for_each_metric_that_has_a_value(tmp_path: Path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed")
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    records = [{"step": n, "train/a": 1.0 / n, "train/b": None, "norm": 1.0} for n in (1, 2)]
    records += [{"step": 2, "valid/a": 0.5}, {"step": 2, "valid/c": [1.0, None]}]
    assert plot_curves(records, tmp_path / "curves.png")
    panels = {
        axes.get_ylabel(): [line.get_label() for line in axes.lines] for axes in drawn[0].axes
    }
    assert panels == {"a": ["train/a", "valid/a"], "c": ["valid/c", "_child1"]}
    assert plot_curves(records, tmp_path / "curves.png", metrics=["c"])
    assert len(drawn[1].axes) == 1
    assert not plot_curves(records[:2], tmp_path / "curves.png", metrics=["b"])


@dataclasses.dataclass(frozen=True)
class Options:
    """What a script takes."""

    rate: float = 0.1
    words: tuple[str, ...] = ("a", "b")
    run: Path = Path("here")
    display: bool = True


def test_a_run_is_resumed_with_its_own_options_alone(tmp_path):
    def trained(options):
        keep_options(tmp_path, options)
        optimizer = optax.sgd(options.rate)
        state, data = runs.begin(optimizer), runs.Data()
        options = {"steps": 3, "directory": tmp_path, "display": False}
        return fit(runs.loss, optimizer, state, data, **options).state.params

    stored = lambda: json.loads((tmp_path / "options.json").read_text("utf-8"))
    keep_options(tmp_path, Options(rate=0.5))
    (tmp_path / "checkpoints").mkdir()  # as a `fit` leaves it that fails at its first step
    first = trained(Options())
    assert stored() == {"rate": 0.1, "words": ["a", "b"]}
    assert trained(Options(run=Path("there"), display=False)) == first
    for options, message in (
        (Options(rate=0.2), r"holds a run with rate 0\.1, and this one has rate 0\.2"),
        (Options(rate=1.0, words=()), r"rate 0\.1, words \['a', 'b'\], .* rate 1\.0, words \[\]"),
        (vars(Options()) | {"seed": 1}, "with seed None, and this one has seed 1"),
    ):
        with pytest.raises(ValueError, match=message):
            keep_options(tmp_path, options)
    keep_options(tmp_path, Options(rate=0.2), free=("rate", "run", "display"))


@pytest.mark.usefixtures("unchecked")
def test_options_that_have_no_json_are_an_error(tmp_path):
    for options, message in (
        (3, "keep_options: options: expected a dataclass or a dict, got 3"),
        ({"cell": object()}, "to_config: <object object .* has no form in JSON"),
    ):
        with pytest.raises(ValueError, match=message):
            keep_options(tmp_path, options)
    assert not (tmp_path / "options.json").exists()
