"""The benchmark of sweeps: that it times `sweep` and `fit`, and what the section says of the numbers."""

import json

import jax
import numpy as np
import pytest

import seqjax as sj
from benchmarks import sweep, sweep_report, sweep_run
from benchmarks.processes import MeasurementError
from benchmarks.sweep_run import FORMS, SINGLES, Asked, Sizes

pytestmark = pytest.mark.usefixtures("quick_compilation", "standard_promotion")

SIZES = Sizes(features=3, time=4, batch=5)
STEPS = 12
ASKED = Asked(devices=1, members=(1, 2), sizes=SIZES, steps=STEPS, rounds=2)


@pytest.fixture(scope="module")
def cases() -> list[dict]:
    """A small measurement in this process."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return sweep_run.measure(ASKED, lambda line: None)


@pytest.fixture(scope="module")
def by_sweep() -> np.ndarray:
    """The losses of two members, step after step, as `sj.training.sweep` has them in its log."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        result = sj.training.sweep(
            sweep_run.adding(SIZES),
            sweep_run.settings(2),
            sweep_run.batches(SIZES, STEPS),
            steps=STEPS,
            log_every=1,
            display=False,
        )
    return result.curve("train/error")[1]


def test_one_program_trains_as_sweep_does(cases, by_sweep):
    final = np.mean(by_sweep[-sweep_run.LAST :], axis=0)
    assert [case["members"] for case in cases] == [1, 2]
    for case in cases:
        # The log adds in float64; four digits are kept in the JSON.
        came = case["final_losses"]
        np.testing.assert_allclose(came["map"], final[: case["members"]], rtol=6e-4)
        assert case["differences"]["map"] < 1e-5
        assert case["differences"]["vmap"] < 1e-5
        np.testing.assert_allclose(came[SINGLES], came["map"], rtol=6e-4)
    # What agrees is not alike anyway: every member is another training.
    assert np.ptp(final) > 100 * sweep_run.LARGEST_DIFFERENCE * final.min()


def test_a_single_training_is_that_of_fit(by_sweep):
    build, data = sweep_run.adding(SIZES), sweep_run.batches(SIZES, STEPS)
    setting = sweep_run.settings(2)[1]
    result = sj.training.fit(*build(setting), data, steps=STEPS, log_every=1, display=False)
    logged = [record["train/error"] for record in result.records if "train/error" in record]
    advance = sweep_run.single(build, setting)
    came = [advance(batch).item() for batch in data]
    np.testing.assert_allclose(came, logged, rtol=1e-6)
    np.testing.assert_allclose(came, by_sweep[:, 1], rtol=1e-5)
    assert min(came) < max(came)


def test_a_case_has_every_round_and_all_that_is_compiled(cases):
    for case in cases:
        assert case["updates"] == 64 // case["members"]
        of = case["contestants"]
        assert list(of) == [SINGLES, *FORMS]
        for one in of.values():
            assert len(one["seconds"]) == 2
            assert min(one["seconds"]) > 0
            assert 0 < one["first_call_seconds"] < one["total_seconds"]
        for form in FORMS:
            singles, together = np.array(of[SINGLES]["seconds"]), np.array(of[form]["seconds"])
            assert case["ratios"][form] == pytest.approx(np.median(singles / together), rel=2e-3)
    one, two = (case["contestants"][SINGLES]["first_call_seconds"] for case in cases)
    assert two > one  # each single training compiles its own program


def test_a_turn_is_every_member_on_every_batch_and_counts_one_update_of_all(monkeypatch):
    now, seen = [0.0], []
    monkeypatch.setattr(sweep_run.time, "perf_counter", lambda: now[0])

    def advance(name):
        def one(batch):
            seen.append((name, batch))
            now[0] += 0.25
            return np.zeros(1)

        return one

    timed = sweep_run.turn([advance("a"), advance("b")], [1, 2, 3])
    assert timed(0.0) == pytest.approx(0.5)
    assert seen == [(name, batch) for name in "ab" for batch in (1, 2, 3)]


def test_ratios_and_differences_are_what_they_say():
    seconds = {SINGLES: [2.0, 2.0, 9.0], "map": [1.0, 4.0, 3.0], "vmap": [2.0, 2.0, 3.0]}
    assert sweep_run.ratios(seconds) == {"map": 2.0, "vmap": 1.0}
    came = sweep_run.difference(np.array([1.0, 2.2]), np.array([1.0, 2.0]))
    assert came == pytest.approx(0.1)
    assert np.isnan(sweep_run.difference(np.array([1.0, np.nan]), np.array([1.0, 2.0])))


@pytest.mark.full
def test_host_devices_have_a_process_of_their_own(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    said = []
    asked = ASKED._replace(devices=2, members=(1,), steps=4, rounds=1)
    (case,) = sweep.apart(asked, said.append)
    assert (case["devices"], case["members"]) == (2, 1)
    # One member on two devices: it is trained on each, and counts once.
    assert len(case["final_losses"]["map"]) == 1
    assert max(case["differences"].values()) < 1e-5
    assert len(said) == 2
    assert said[0] == "2 devices: singles trained, 1 of them"
    assert said[1].startswith("2 devices, N = 1: singles ")


def made_up(ratios: dict[int, float], platform: str = "cpu", difference: float = 2e-7) -> dict:
    """Results that no machine has measured, with these ratios of the form that is taken by itself."""
    auto, other = ("map", "vmap") if platform == "cpu" else ("vmap", "map")
    time = lambda ms: {
        "seconds": [ms / 1e3],
        "median_ms": ms,
        "first_call_seconds": 2.0,
        "total_seconds": 3.0,
    }
    cases = [
        {
            "devices": 1,
            "members": members,
            "updates": 4,
            "contestants": {SINGLES: time(10.0), auto: time(8.0), other: time(16.0)},
            "ratios": {auto: ratio, other: 0.625},
            "differences": {auto: 1e-7, other: difference},
        }
        for members, ratio in ratios.items()
    ]
    return {
        "name": "sweep",
        "made": "2026-01-31",
        "device": {
            "platform": platform,
            "kind": "H200" if platform == "gpu" else "cpu",
            "count": 1,
        },
        "machine": {
            "processor": "Abacus 9000",
            "cores_usable": 2,
            "system": "Linux x86_64",
            "load_average": 0.25,
        },
        "threads": {"jax": 2},
        "versions": {"jax": "0.10.2"},
        "rounds": 7,
        "steps": 100,
        "sizes": SIZES._asdict(),
        "members": list(ratios),
        "auto": auto,
        "cases": cases,
    }


def test_the_section_says_where_the_goal_is_reached_and_where_not():
    goal = "single trainings take at least 1.00 times as long:"
    for ratios, verdict in (
        ({1: 1.0, 4: 0.93}, "reached at N = 1 (1.00); not reached at N = 4 (0.93)."),
        ({1: 0.5, 4: 0.93}, "not reached at N = 1 (0.50), N = 4 (0.93)."),
        ({1: 1.5, 4: 1.93}, "reached at N = 1 (1.50), N = 4 (1.93)."),
    ):
        line = f"One host device, map; goal: {goal} {verdict}"
        assert f"- {line}\n" in sweep.section(made_up(ratios))
        assert line in sweep_report.text(made_up(ratios))
    section = sweep.section(made_up({1: 1.0}))
    assert "| 1 | 10 | 8 | 16 | 1.00 | 0.62 | 2.0 | 2.0 | 3.0 | 3.0 |" in section
    assert "the quicker of map and vmap: map at N = 1 (2.00 times)." in section
    assert "Measured on 2026-01-31: Abacus 9000, 2 cores" in section


def test_a_gpu_is_asked_for_a_quarter_of_the_time():
    section = sweep.section(made_up({16: 3.9, 32: 4.1}, platform="gpu"))
    assert "## A sweep in one program, on H200\n" in section
    assert "One device, vmap; goal: single trainings take at least 4.00 times as long:" in section
    assert "reached at N = 32 (4.10); not reached at N = 16 (3.90)." in section


@pytest.mark.parametrize("difference", [0.02, float("nan")])
def test_members_that_end_elsewhere_are_told_of(difference):
    fine = sweep.section(made_up({4: 1.0}))
    assert "of its single training agree: they differ by at most 2.0e-07 of themselves." in fine
    wrong = sweep.section(made_up({4: 1.0}, difference=difference))
    told = f"{difference:.1e} (vmap of N = 4, one host device)"
    assert f"do not agree: they differ by {told}; expected at most 1e-03." in wrong


def run(tmp_path, *arguments: str) -> dict:
    """The results of a small run on the CPU."""
    small = ["--members", "2", "1", "2", "--steps", str(STEPS), "--rounds", "2", "--device", "cpu"]
    small += ["--features", "3", "--time", "4", "--batch", "5"]
    sweep.main([*small, *arguments, "--into", str(tmp_path)])
    return json.loads((tmp_path / "benchmarks/results/sweep.json").read_text("utf-8"))


def test_a_small_run_writes_results_picture_and_section(tmp_path, monkeypatch, capsys, cases):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    asked_for = []

    def apart(asked, say):
        asked_for.append(asked)
        return [case | {"devices": asked.devices} for case in cases]

    monkeypatch.setattr(sweep, "apart", apart)
    found = run(tmp_path, "--host-devices", "3")
    assert asked_for == [ASKED, ASKED._replace(devices=3)]
    assert found["cases"] == [case | {"devices": n} for n in (1, 3) for case in cases]
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    shown = capsys.readouterr().out
    assert "### One host device\n" in page
    assert "### 3 host devices\n" in page
    for case in found["cases"]:
        ratios = [f"{case['ratios'][form]:.2f}" for form in FORMS]
        assert f" | {' | '.join(ratios)} | " in page
        assert "  ".join(ratios).split()[0] in shown
    assert found["threads"] == {"jax": found["machine"]["cores_usable"]}
    assert {"jax", "seqjax"} <= set(found["versions"])
    picture = tmp_path / "benchmarks/results/sweep.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    picture.unlink()
    sweep.main(["--report-only", "--into", str(tmp_path)])
    assert (tmp_path / "docs/benchmarks.md").read_text("utf-8") == page
    assert picture.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds: expected at least 1"),
        (["--members", "0"], "members: expected at least 1"),
        (["--members"], "members: expected at least 1"),
        (["--host-devices", "0"], "host_devices: expected at least 1"),
        (["--time", "1"], "time: expected at least 2, got 1"),
        (["--steps", "3"], "steps: expected at least 4, got 3"),
        (["--report-only"], "sweep.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^--device gpu: JAX finds none here"):
        sweep.main(["--device", "gpu", "--into", str(tmp_path)])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted; nothing was written"),
        (MeasurementError("it ended"), "it ended\nnothing was written"),
    ],
)
def test_what_ends_early_leaves_the_old_files_whole(error, message, tmp_path, monkeypatch):
    def ending(*arguments, **options):
        raise error

    file = tmp_path / "benchmarks" / "results" / "sweep.json"
    file.parent.mkdir(parents=True)
    file.write_text("old", "utf-8")
    monkeypatch.setattr(sweep, "watch", ending)
    with pytest.raises(SystemExit, match=message):
        run(tmp_path)
    assert file.read_text("utf-8") == "old"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
