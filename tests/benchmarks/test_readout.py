"""benchmarks.readout: a readout and its cross-entropy in one, beside logits written out."""

import json

import jax
import numpy as np
import pytest

from benchmarks import readout, readout_report, readout_run, suites
from benchmarks.readout_problem import Sizes, drawn
from tests.benchmarks.made_up import frame

SIZES = Sizes(3, 2, 4, 11)


def results(missing: dict[str, str] | None = None) -> dict:
    """Results that no machine has measured."""
    case = {
        "sizes": [35, 20, 256, 10_000],
        "seconds": {"ours": [0.05, 0.06, 0.05], "ours, logits": [0.1] * 3, "optax": [0.1] * 3},
        "ratios": {"ours, logits": 2.0, "optax": 1.75},
        "temporary_bytes": {"ours": 20_000_000, "ours, logits": 40_000_000, "optax": 40_000_000},
    }
    return {**frame("readout"), "rounds": 3, "missing": missing or {}, "cases": [case]}


def test_the_section_shows_ratios_and_bytes_and_who_is_missing():
    section = readout_report.section(results({"torch": "torch is not installed"}))
    assert "| 35, 20, 256, 10,000 | 50 (20 MB) | 2.00 (40 MB) | 1.75 (40 MB) |" in section
    assert "torch is left out: torch is not installed." in section
    assert "35, 20, 256, 10,000" in readout_report.text(results())


def test_a_picture_is_drawn_from_results():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from benchmarks.readout_picture import picture

    assert picture(results())[1:4] == b"PNG"


@pytest.mark.full
@pytest.mark.usefixtures("standard_promotion")
def test_all_contestants_have_the_same_gradient():
    problem = drawn(SIZES)
    gradients = [
        jax.grad(loss, argnums=(0, 1, 2))(*map(jax.numpy.asarray, problem))
        for loss in readout_run.LOSSES.values()
    ]
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.full
@pytest.mark.peer
def test_pytorch_has_it_too():
    pytest.importorskip("torch", reason="PyTorch is not installed: make peers")
    from benchmarks.readout_worker import prepare

    prepared = prepare(SIZES, "cpu")
    arrays = map(jax.numpy.asarray, drawn(SIZES))
    with jax.numpy_rank_promotion("allow"):
        ours = jax.grad(readout_run.in_one, argnums=(0, 1, 2))(*arrays)
    for a, b in zip(ours, prepared.read(prepared.run()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("standard_promotion")
def test_a_small_run_is_written(tmp_path, capsys):
    arguments = "--sizes 3 2 4 11 --rounds 1 --peers optax --device cpu --into"
    suites.run(["readout", *arguments.split(), str(tmp_path)])
    found = json.loads((tmp_path / "benchmarks/results/readout.json").read_text("utf-8"))
    (case,) = found["cases"]
    assert set(case["seconds"]) == {"ours", "ours, logits", "optax"}
    assert case["ratios"]["optax"] == pytest.approx(
        case["seconds"]["optax"][0] / case["seconds"]["ours"][0], rel=1e-2
    )
    assert "## A readout and its cross-entropy" in (tmp_path / "docs/benchmarks.md").read_text(
        "utf-8"
    )
    assert "3, 2, 4, 11" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rounds 0", "rounds: expected at least 1"),
        ("--sizes 1 0 1 1", "sizes: expected at least 1"),
        ("--report-only", "readout.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        readout.main([*arguments.split(), "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())
