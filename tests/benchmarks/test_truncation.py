import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import truncation, truncation_report, truncation_run
from benchmarks.files import write_whole

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def made_up() -> dict:
    """Results that no machine has measured: T = 4."""
    biases = [
        {"network": name, "k1": k1, "k2": k2, "seed": seed, "bias": bias, "cosine": 0.875}
        for name in ("Elman", "IRNN")
        for k1, k2, bias in ((1, 1, 0.5), (1, 2, 0.04), (2, 2, 0.3), (1, 4, 2e-16), (4, 4, 0.0))
        for seed, bias in ((0, bias), (1, bias), (2, 9.0))
    ]
    lengths = [("bptt", 4, 4)]
    lengths += [("k1 = 1", 1, k2) for k2 in (1, 2, 4)]
    lengths += [("k1 = k2", k2, k2) for k2 in (1, 2, 4)]
    lengths += [("k2 = T", k1, 4) for k1 in (1, 2, 4)]
    costs = [
        {"form": form, "k1": k1, "k2": k2, "seconds": 0.0123, "temporary_bytes": 2048 * k2}
        for form, k1, k2 in lengths
    ]
    return {
        "benchmark": "truncation",
        "made": "2026-01-31",
        "machine": {
            "processor": "Abacus 9000",
            "cores": 8,
            "cores_usable": 2,
            "system": "Linux x86_64",
            "load_average": 0.25,
            "environment": {},
        },
        "versions": {"jax": "0.10.2"},
        "options": {"features": 32, "time": 4, "lanes": 8, "repeats": 20},
        "biases": biases,
        "costs": costs,
    }


def keep(results: dict, into: Path) -> Path:
    file = into / "benchmarks" / "results" / "truncation.json"
    write_whole(file, json.dumps(results))
    return file


def test_the_page_holds_every_number():
    page = truncation_report.document(made_up())
    one, usual = page.split("### ")[1:3]
    assert "| 1 | 0.50, 0.875 | 0.50, 0.875 |" in one
    assert "| 2 | 4.0e-02, 0.875 |" in one
    assert "| 2 | 0.30, 0.875 |" in usual
    assert "| 2 | 12.3 ms | 4 KiB | 12.3 ms | 4 KiB | 12.3 ms | 8 KiB |" in page
    assert "| *BPTT* | 12.3 ms | 8 KiB |" in page
    for words in ("Abacus 9000", "2 of 8 cores", "jax 0.10.2", "medians over 3 seeds", "4 steps"):
        assert words in page


def test_results_without_a_part_are_refused(tmp_path):
    results = made_up()
    del results["costs"]
    keep(results, tmp_path)
    with pytest.raises(SystemExit, match="hold no costs; expected what"):
        truncation.main(["--report-only", "--into", str(tmp_path)])


def test_the_report_draws_and_writes_from_the_json_alone(tmp_path):
    file = keep(made_up(), tmp_path)
    before = file.read_bytes()
    truncation.main(["--report-only", "--into", str(tmp_path)])
    page = tmp_path / "docs" / "truncation.md"
    assert page.read_text("utf-8") == truncation_report.document(made_up())
    assert (
        (page.parent / "../benchmarks/results/truncation.png").read_bytes().startswith(b"\x89PNG")
    )
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report-only"], "truncation.json does not exist; expected it"),
        (["--seeds", "1", "1"], "expected at least one, from 0 on, and none twice"),
        (["--time", "12"], "time is 12; expected a power of two"),
        (["--lanes", "0"], "lanes is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(truncation, "measure", lambda *_: pytest.fail("it measured"))
    with pytest.raises(SystemExit, match=message):
        truncation.main(["--into", str(tmp_path), *arguments])


def test_bias_and_cosine_are_those_of_vectors():
    exact = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    turned = {"a": jnp.array([0.0, 3.0]), "b": jnp.array([[4.0]])}
    compared = truncation_run.compare(turned, exact)
    assert compared["bias"] == pytest.approx(np.sqrt(18) / 5, rel=1e-5)
    assert compared["cosine"] == pytest.approx(16 / 25, rel=1e-5)


@pytest.mark.usefixtures("quick_compilation")
def test_a_tiny_benchmark_from_end_to_end(tmp_path, monkeypatch, capsys):
    name, all_networks = truncation_run.COSTED, truncation_run.networks
    only = lambda features, dtype: {name: all_networks(features, dtype)[name]}
    monkeypatch.setattr(truncation_run, "networks", only)
    own = ["--features", "3", "--time", "2", "--lanes", "2", "--seeds", "1", "--repeats", "1"]
    truncation.main([*own, "--into", str(tmp_path)])
    text = (tmp_path / "benchmarks" / "results" / "truncation.json").read_text("utf-8")
    results = json.loads(text)
    one, two = (truncation_report.bias(results, name, "k1 = 1", k2, "bias") for k2 in (1, 2))
    assert one > 1e-3
    assert two < 1e-12
    assert {row["form"] for row in results["costs"]} == {"bptt", "k1 = 1", "k1 = k2", "k2 = T"}
    assert all(row["seconds"] > 0 and row["temporary_bytes"] > 0 for row in results["costs"])
    page = (tmp_path / "docs" / "truncation.md").read_text("utf-8")
    assert page == truncation_report.document(results)
    assert str(tmp_path) not in text + page
    assert f"{name}: " in capsys.readouterr().out


def test_the_networks_run_from_forgetting_to_keeping():
    names = ["Elman, radius 0.9", "LSTM, forget bias 1", "IRNN"]
    assert list(truncation_run.networks(4, jnp.float32)) == names
    assert truncation_run.COSTED in names
