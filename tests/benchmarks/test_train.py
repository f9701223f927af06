"""The benchmark of training: that all contestants train the same, and what the section says of them."""

import importlib
import importlib.util
import json

import jax
import numpy as np
import pytest

from benchmarks import train, train_report, train_run
from benchmarks.peers import PEERS, language, language_ours
from benchmarks.peers.language import Sizes, begin, drawn
from benchmarks.peers.language_worker import worker
from benchmarks.peers.problem import GATES, split
from benchmarks.processes import MeasurementError
from tests.oracles import Gate, lstm

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZES = Sizes(vocabulary=11, features=6, batch=4, time=5)

# Some ten roundings of float32, in sums of a hundred entries and more.
ROUNDING = 1e-6


def task():
    """Clipped at a norm that every gradient exceeds, and at a rate that shows."""
    return drawn(SIZES, windows=4)._replace(clip=0.1, learning_rate=0.01)


def losses(prepare, count=4) -> list[float]:
    step = prepare()
    return [step() for _ in range(count)]


@pytest.fixture(scope="module")
def expected() -> list[float]:
    """What ours trains with its defaults."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return losses(lambda: language_ours.prepare(task(), language_ours.FORMS["ours"]))


def by_hand(problem: language.Task) -> list[float]:
    """The losses of the first two windows without any update: float64, one sequence at a time."""
    widened = lambda *arrays: [np.asarray(array, np.float64) for array in arrays]
    E, V, a = widened(problem.embedding, problem.readout_kernel, problem.readout_bias)
    layers = []
    for layer in problem.layers:
        W, U, b = (split(array, GATES["LSTM"]) for array in widened(*layer.weights))
        layers.append({gate: Gate(W[gate], U[gate], b[gate]) for gate in GATES["LSTM"]})
    found = []
    states = [[np.zeros((2, SIZES.features)) for _ in layers] for _ in range(SIZES.batch)]
    for ids in problem.ids[:2]:
        nats = []
        for n, state in enumerate(states):
            xs = E[ids[:-1, n]]
            for number, gates in enumerate(layers):
                xs, cs = lstm(gates, xs, *state[number])
                state[number] = np.stack([xs[-1], cs[-1]])
            logits = xs @ V + a
            p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
            nats += [-np.log(p[t, target]) for t, target in enumerate(ids[1:, n])]
        found.append(float(np.mean(nats)))
    return found


@pytest.mark.usefixtures("standard_promotion")
def test_the_loss_is_that_of_the_model_and_the_state_goes_on():
    standing = task()._replace(learning_rate=0.0)
    form = language_ours.FORMS["ours"]
    came = losses(lambda: language_ours.prepare(standing, form), 2)
    np.testing.assert_allclose(came, by_hand(standing), rtol=ROUNDING)


@pytest.mark.full
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", [name for name in language_ours.FORMS if name != "ours"])
def test_every_form_of_ours_trains_the_same(name, expected):
    came = losses(lambda: language_ours.prepare(task(), language_ours.FORMS[name]))
    np.testing.assert_allclose(came, expected, rtol=ROUNDING)


@pytest.mark.full
@pytest.mark.peer
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", train_run.LIBRARIES)
def test_a_library_trains_the_same_from_the_same_weights(name, expected):
    if not PEERS[name].installed:
        pytest.skip(f"{PEERS[name].distribution} is not installed")
    module = importlib.import_module(f"benchmarks.peers.language_{name}")
    came = losses(lambda: module.prepare(task()))
    np.testing.assert_allclose(came, expected, rtol=ROUNDING)


@pytest.mark.usefixtures("standard_promotion")
def test_no_clipping_and_no_update_would_show(expected):
    free = task()._replace(clip=10.0)
    came = losses(lambda: language_ours.prepare(free, language_ours.FORMS["ours"]))
    assert came[0] == expected[0]
    # Adam takes a step of the same size whatever the first gradient was, and remembers it later.
    assert abs(came[2] - expected[2]) > 10 * ROUNDING
    assert abs(by_hand(task())[1] - expected[1]) > 100 * ROUNDING


def test_gates_in_another_order_are_refused(expected):
    right = task()
    turned = lambda array: np.concatenate(
        [np.split(array, 4, axis=-1)[k] for k in (1, 0, 2, 3)], -1
    )
    W, U, b = map(turned, right.layers[1].weights)
    layer = right.layers[1]._replace(input_kernel=W, recurrent_kernel=U, bias=b)
    wrong = right._replace(layers=(right.layers[0], layer))
    assert train_run.agree(by_hand(right)[:1], expected[:1]) < ROUNDING
    with pytest.raises(MeasurementError, match="trains something else: its first losses"):
        train_run.agree(by_hand(wrong)[:1], expected[:1])
    with pytest.raises(MeasurementError):
        train_run.agree([float("nan")], [1.0])


def test_every_window_is_new_and_no_weight_is_zero():
    problem = drawn(SIZES, windows=8)
    assert problem.ids.shape == (8, 6, 4)
    assert problem.ids.min() == 0
    assert problem.ids.max() == 10
    assert len(np.unique(problem.ids.reshape(8, -1), axis=0)) == 8
    weights = [w for layer in problem.layers for w in layer.weights]
    weights += [problem.embedding, problem.readout_kernel, problem.readout_bias]
    assert all(np.all(array != 0) and array.dtype == np.float32 for array in weights)
    assert not np.array_equal(problem.layers[0].bias, problem.layers[1].bias)
    again = drawn(SIZES, windows=8)
    assert np.array_equal(problem.ids, again.ids)


def test_a_turn_is_so_many_updates_and_the_first_call_is_apart(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(language.time, "perf_counter", lambda: now[0])

    def step():
        calls.append(1)
        now[0] += 5.0 if len(calls) == 1 else 0.5
        return float(len(calls))

    begun = begin(lambda: step)
    assert (begun.first_call_seconds, begun.losses) == (5.0, [1.0, 2.0, 3.0])
    assert language.seconds_of(begun.step, 6) == 0.5
    assert len(calls) == 9


def test_ratios_are_medians_over_rounds():
    seconds = {"ours": [1.0, 2.0, 4.0], "torch": [2.0, 2.0, 2.0], "linen": [3.0, 6.0, 4.0]}
    assert train_run.ratios(seconds, "ours") == {"torch": 1.0, "linen": 3.0}
    assert train_run.ratios(seconds, train_run.ON_CORES) == {}
    to_torch = train_run.ratios(seconds, "torch")
    assert to_torch == {"ours": 1.0, "linen": 2.0}


@pytest.fixture
def in_children(monkeypatch):
    """Processes of their own compile as quickly as this one."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.mark.full
@pytest.mark.usefixtures("in_children", "standard_promotion")
def test_ours_on_all_cores_trains_the_same():
    with worker("cores") as process:
        process.ask("start", "cpu", 2)
        try:
            answer = process.ask("prepare", SIZES, 4)
        except MeasurementError as error:
            pytest.skip(str(error))
        assert process.time(1) > 0
    form = language_ours.FORMS["ours"]
    mine = losses(lambda: language_ours.prepare(drawn(SIZES, 4), form), 3)
    np.testing.assert_allclose(answer["losses"], mine, rtol=ROUNDING)


def run(tmp_path, *arguments: str) -> dict:
    """The results of a small run on the CPU."""
    small = ["--models", *map(str, SIZES), "--rounds", "2", "--updates", "1", "--device", "cpu"]
    train.main([*small, *arguments, "--into", str(tmp_path)])
    return json.loads((tmp_path / "benchmarks/results/train.json").read_text("utf-8"))


@pytest.fixture
def one_core(monkeypatch):
    """Without the process of ours on all cores."""
    monkeypatch.setattr(train_run, "on_cores", lambda threads, stack: refusing)


def refusing(task):
    raise MeasurementError("no two cores share it")


@pytest.mark.peer
@pytest.mark.usefixtures("one_core", "standard_promotion")
def test_a_small_run_writes_results_picture_and_section(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("flax", reason="Flax is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    forms = {name: language_ours.FORMS[name] for name in ("ours", "ours, at once")}
    monkeypatch.setattr(language_ours, "FORMS", forms)
    found = run(tmp_path)
    (case,) = found["cases"]
    assert list(case["contestants"]) == [*forms, *train_run.LIBRARIES]
    assert case["tokens_per_update"] == 20
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    shown = capsys.readouterr().out
    for name, contestant in case["contestants"].items():
        assert len(contestant["seconds"]) == 2
        assert min(contestant["seconds"]) > 0
        assert len(contestant["losses"]) == 3
        assert contestant["deviation"] < ROUNDING
        rate = f"{contestant['tokens_per_second']:,.0f}"
        assert f"| {name} | {rate} |" in page
        assert rate in shown
    assert case["left_out"] == {train_run.ON_CORES: "no two cores share it"}
    assert f"- {train_run.ON_CORES} is left out of V, H, B, T = 11, 6, 4, 5: no two cores" in page
    assert found["threads"]["torch"] == found["machine"]["cores_usable"]
    assert {"jax", "torch", "flax"} <= set(found["versions"])
    picture = tmp_path / "benchmarks/results/train.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    picture.unlink()
    train.main(["--report-only", "--into", str(tmp_path)])
    assert (tmp_path / "docs/benchmarks.md").read_text("utf-8") == page
    assert picture.is_file()


@pytest.mark.usefixtures("one_core")
def test_libraries_that_are_missing_or_fail_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PEERS, "torch", PEERS["torch"]._replace(package="no_such_package"))
    monkeypatch.setattr(importlib.util, "find_spec", not_found("matplotlib", "no_such_package"))
    monkeypatch.setattr(train_run, "local", lambda prepare, form: contestant([2.0, 2.1, 2.0]))
    found = run(tmp_path, "--peers", "torch")
    assert found["missing"] == {"torch": "torch is not installed"}
    shown = capsys.readouterr().out
    assert "torch is left out: torch is not installed" in shown
    assert "no other library is there: ours is timed alone" in shown
    assert "matplotlib is not installed, so train.png was not drawn" in shown
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    assert "- torch is missing: torch is not installed." in page
    assert "No other library was there" in page


def not_found(*packages: str):
    """`find_spec` where these are not installed."""
    find = importlib.util.find_spec
    return lambda name, *rest: None if name in packages else find(name, *rest)


def contestant(losses):
    """One that takes no time, and says these losses."""
    return lambda task: train_run.Contestant(lambda updates: 0.5, 0.1, losses)


def test_what_trains_something_else_or_fails_is_left_out_and_named(monkeypatch):
    def failing(task):
        raise TypeError("no such thing\nas this")

    monkeypatch.setattr(train_run, "local", lambda prepare, form: contestant([2.0, 2.1, 2.0]))
    said = []
    runs = {"linen": failing, "torch": contestant([2.0, 2.1, 2.1])}
    present = train_run.Present(runs, {}, {})
    found = train_run.measure(SIZES, present, 1, 1, said.append)
    assert set(found["contestants"]) == set(language_ours.FORMS)
    assert found["contestants"]["ours"]["tokens_per_second"] == 40
    assert found["left_out"]["linen"] == "TypeError: no such thing"
    assert found["left_out"]["torch"].startswith("it trains something else")
    assert any(line.startswith("linen is left out of V, H, B, T = 11, 6, 4, 5") for line in said)


def made_up(torch: float, on_cores: float) -> dict:
    """Results that no machine has measured, with these ratios of PyTorch."""
    one = {
        "seconds": [0.02],
        "median_ms": 20.0,
        "tokens_per_second": 1000.0,
        "first_call_seconds": 1.5,
        "losses": [1.0, 1.0, 1.0],
        "deviation": 3e-7,
    }
    case = {
        "sizes": list(SIZES),
        "tokens_per_update": 20,
        "contestants": {"ours": one, train_run.ON_CORES: one, "torch": one, "linen": one},
        "left_out": {},
        "ratios": {train_run.ON_CORES: 0.6, "torch": torch, "linen": 1.3},
        "ratios_to_cores": {"ours": 1.7, "torch": on_cores, "linen": 2.0},
    }
    return {
        "name": "train",
        "made": "2026-01-31",
        "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        "machine": {
            "processor": "Abacus 9000",
            "cores_usable": 2,
            "system": "Linux x86_64",
            "load_average": 0.25,
        },
        "threads": {"jax": 2, "torch": 2},
        "versions": {"jax": "0.10.2"},
        "rounds": 7,
        "updates": 6,
        "missing": {},
        "cases": [case],
    }


def test_the_section_says_whether_the_goal_is_reached():
    at = "at V, H, B, T = 11, 6, 4, 5"
    for line in (
        f"torch beside ours (goal: at least 1.00 times as long): 0.93 {at}, not reached.",
        f"torch beside ours, cores (goal: at least 1.00 times as long): 1.00 {at}, reached.",
        f"linen beside ours (goal: at least 1.00 times as long): 1.30 {at}, reached.",
    ):
        results = made_up(torch=0.93, on_cores=1.0)
        assert f"- {line}\n" in train.section(results)
        assert line in train_report.text(results)
    section = train.section(made_up(torch=1.01, on_cores=0.99))
    assert f"1.01 {at}, reached." in section
    assert f"0.99 {at}, not reached." in section
    assert "| torch | 1,000 | 20 | 1.01 | 1.5 |" in section
    assert "Measured on 2026-01-31: Abacus 9000, 2 cores" in section
    assert "differ from ours by\nat most 3.0e-07 of themselves" in section


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds: expected at least 1"),
        (["--models", "3", "0", "4", "6"], "models: expected at least 1"),
        (["--models"], "models: expected at least 1"),
        (["--peers", "keras"], "peers: 'keras' is unknown; expected some of linen, torch$"),
        (["--report-only"], "train.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^--device gpu: JAX finds none here"):
        train.main(["--device", "gpu", "--into", str(tmp_path)])


def test_an_interruption_leaves_the_old_files_whole(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    file = tmp_path / "benchmarks" / "results" / "train.json"
    file.parent.mkdir(parents=True)
    file.write_text("old", "utf-8")
    monkeypatch.setattr(train_run, "measure", interrupted)
    with pytest.raises(SystemExit, match="interrupted; nothing was written"):
        run(tmp_path, "--peers")
    assert file.read_text("utf-8") == "old"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
