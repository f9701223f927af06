"""The benchmark of one layer: that each contestant computes what is claimed, and how they are timed."""

import functools
import importlib
import importlib.util
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from benchmarks import frame, layers, layers_report, layers_run
from benchmarks.layers_goals import verdicts
from benchmarks.machine import describe_machine
from benchmarks.peers import PEERS, matmul, ours, timing
from benchmarks.peers.problem import (
    GATES,
    KINDS,
    Prepared,
    Problem,
    Shape,
    bytes_needed,
    deviation,
    drawn,
    flops,
    sample,
)
from benchmarks.peers.worker import Worker
from benchmarks.processes import MeasurementError
from seqjax.cells.elman import ElmanParams
from seqjax.cells.gru import ChoGRUParams, GRUParams

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHAPE = Shape(batch=3, time=5, inputs=4, features=6)

OTHERS: dict[tuple[str, str], tuple[sj.Cell, Callable[..., Any]]] = {
    ("haiku", "GRU"): (sj.ChoGRU(6), lambda W, U, b, c: ChoGRUParams(W, U, b)),
    ("haiku", "Elman"): (sj.Elman(6, activation="relu"), ElmanParams),
    ("nnx", "GRU"): (sj.GRU(6), lambda W, U, b, c: GRUParams(W, U, b, 0 * c)),
}
"""The cells of peers that are another function, as cells of ours, and their params."""

CONTESTANTS = [(name, cell) for name in PEERS for cell in GATES if cell not in PEERS[name].without]


def results(prepared: Prepared) -> list[np.ndarray]:
    return prepared.read(prepared.run())


def by_unroll(problem: Problem, cell: Any, params_of: Callable[..., Any]) -> list[list[np.ndarray]]:
    """The outputs, and the gradients by all weights that there are."""

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(weights):
        ys = sj.unroll(cell, params_of(*weights), problem.xs)[1]
        return jnp.mean(jnp.square(ys)), ys

    (_, ys), gradients = loss(problem.weights)
    return [[np.asarray(ys)], [np.asarray(gradient) for gradient in gradients]]


@functools.cache
def by_ours(cell: str) -> list[list[np.ndarray]]:
    make, params = ours.CELLS[cell]
    return by_unroll(drawn(cell, SHAPE), make(6), params)


def assert_same(came: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for theirs, mine in zip(came, expected, strict=True):
        assert theirs.shape == mine.shape
        # Some ten roundings of float32 in sums of up to five steps.
        np.testing.assert_allclose(theirs, mine, rtol=0, atol=3e-6 * np.abs(mine).max())


@pytest.mark.full
@pytest.mark.peer
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("name", "cell"), CONTESTANTS)
def test_a_peer_computes_the_same_values_and_gradients_from_the_same_weights(name, cell):
    peer = PEERS[name]
    if not peer.installed:
        pytest.skip(f"{peer.distribution} is not installed")
    prepare = importlib.import_module(peer.module).prepare
    problem = drawn(cell, SHAPE)
    ys, gradients = (results(prepare(problem, kind)) for kind in KINDS)
    differs = (name, cell) in OTHERS
    assert differs == (peer.variant(cell) is not None)
    expected = by_unroll(problem, *OTHERS[name, cell]) if differs else by_ours(cell)
    assert ys[0].shape == (5, 3, 6)
    assert_same(ys, expected[0])
    # What is another function has W, U and b, and no c_n.
    assert_same(gradients, expected[1][:3] if differs else expected[1])


@pytest.mark.parametrize("cell", GATES)
def test_ours_computes_the_same_whatever_is_kept(cell):
    for kind, expected in zip(KINDS, by_ours(cell), strict=True):
        for way in ours.WAYS:
            assert_same(results(ours.prepare(drawn(cell, SHAPE), kind, way)), expected)


def test_nothing_that_is_timed_is_zero():
    for cell in GATES:
        problem = drawn(cell, SHAPE)
        assert all(np.all(array != 0) for array in (*problem.weights, problem.xs))
        assert all(array.dtype == np.float32 for array in (*problem.weights, problem.xs))


@pytest.mark.parametrize("gates", [(1, 0, 2, 3), (0, 1, 3, 2)])
def test_gates_in_another_order_are_noticed(gates):
    right = drawn("LSTM", SHAPE)

    def turned(array):
        blocks = np.split(array, 4, axis=-1)
        return np.concatenate([blocks[k] for k in gates], axis=-1)

    W, U, b = map(turned, right.weights)
    wrong = Problem("LSTM", W, U, b, None, right.xs)
    for kind in KINDS:
        mine, theirs = (sample(results(ours.prepare(p, kind))) for p in (right, wrong))
        assert layers_run.agree(mine, mine) == 0
        with pytest.raises(MeasurementError, match="computes something else"):
            layers_run.agree(theirs, mine)


def test_a_sample_is_small_and_finds_nan_and_missing_arrays():
    long = np.arange(1.0, 10_000)
    (short,) = sample([long])
    assert 128 <= len(short) <= 256
    assert deviation([short], [[1.1 * value for value in short]]) == pytest.approx(0.1 / 1.1)
    assert deviation([short, short], [short]) == np.inf
    with pytest.raises(MeasurementError):
        layers_run.agree([[float("nan")]], [[1.0]])


@pytest.mark.parametrize("cell", GATES)
def test_operations_are_those_of_the_matmuls_of_every_step(cell):
    batch, time, inputs, features = SHAPE
    columns = len(GATES[cell]) * features
    product = lambda rows, inner, columns: 2 * rows * inner * columns
    forward = product(batch, inputs, columns) + product(batch, features, columns)
    weights = product(inputs, batch, columns) + product(features, batch, columns)
    before = product(batch, columns, features)
    assert flops(cell, SHAPE, "forward") == time * forward
    assert flops(cell, SHAPE, "forward+backward") == time * (forward + weights + before)


def test_calls_are_repeated_until_they_last_long_enough(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    calls = []

    def call():
        calls.append(1)
        now[0] += 0.011

    assert timing.seconds_of(call, 0.03) == pytest.approx(0.011)
    assert len(calls) == 3
    assert timing.seconds_of(call, 0.001) == pytest.approx(0.011)
    assert len(calls) == 4


def test_contestants_take_turns_and_the_first_round_does_not_count():
    order = []

    def contestant(name):
        def timed(at_least):
            order.append(name)
            return float(order.count(name))

        return timed

    seconds = layers_run.in_turn({name: contestant(name) for name in "abc"}, 4)
    assert seconds == {name: [2.0, 3.0, 4.0, 5.0] for name in "abc"}
    rounds = [tuple(order[n : n + 3]) for n in range(0, 15, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3


def test_ratios_are_medians_over_rounds_and_the_fastest_has_the_same_function():
    seconds = {
        "ours": [1.0, 2.0, 4.0],
        "linen": [2.0, 2.0, 2.0],  # twice, as long, half as long
        "haiku": [1.0, 1.0, 1.0],
        "keras": [0.1, 0.1, 0.1],
        "torch": [3.0, 6.0, 4.0],
    }
    case = layers_run.Case("Elman", SHAPE, "forward")
    rates = [10 * flops(*case), 2 * flops(*case), flops(*case)]
    found = layers_run.compared(seconds, case, rates, "ours")
    assert found["ratios"] == {"linen": 1.0, "haiku": 0.5, "keras": 0.05, "torch": 3.0}
    assert found["share_of_matmul_rate"] == 0.25  # of 0.1, 0.25 and 0.25
    assert found["fastest"] == "linen"  # haiku's has relu, and keras is not one of those
    lstm = layers_run.compared(seconds, case._replace(cell="LSTM"), rates, "ours")
    assert lstm["fastest"] == "haiku"
    alone = layers_run.compared({"ours": [1.0]}, case, [1.0], "ours")
    assert (alone["fastest"], alone["ratios"]) == (None, {})


@pytest.fixture
def quick(monkeypatch):
    """Measurements that take no time."""
    monkeypatch.setattr(layers_run, "AT_LEAST", 1e-4)
    monkeypatch.setattr(matmul, "SIZES", {"cpu": 16, "gpu": 16})
    monkeypatch.setattr(matmul, "one_core", lambda: 3e9)


def run(tmp_path, *arguments: str) -> dict:
    """The results of a small run on the CPU."""
    small = ["--shapes", *map(str, SHAPE), "--rounds", "2", "--device", "cpu"]
    layers.main([*small, *arguments, "--into", str(tmp_path)])
    return json.loads((tmp_path / "benchmarks/results/layers.json").read_text("utf-8"))


@pytest.mark.peer
@pytest.mark.usefixtures("quick", "standard_promotion")
def test_a_small_run_writes_results_picture_and_section(tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("equinox", reason="Equinox is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    found = run(tmp_path, "--cells", "GRU", "Elman", "--peers", "linen", "equinox", "torch")
    assert [(c["cell"], c["kind"]) for c in found["cases"]] == [
        (cell, kind) for cell in ("GRU", "Elman") for kind in KINDS
    ]
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    shown = capsys.readouterr().out
    for case in found["cases"]:
        others = {"linen", "torch"} | ({"equinox"} if case["cell"] == "GRU" else set())
        assert set(case["contestants"]) == {*ours.WAYS, *others}
        for contestant in case["contestants"].values():
            assert len(contestant["seconds"]) == 2
            assert min(contestant["seconds"]) > 0
            assert 0 <= contestant["deviation"] < 1e-5
        assert f" {case['ratios']['torch']:.2f} | {case['ratios'][case['fastest']]:.2f} (" in page
        assert f" {case['ratios']['torch']:.2f} " in shown
        floors = [case["flops"] / 1e6 / rate for rate in case["matmul_gflops"]]
        assert min(floors) <= 1.01 * case["floor_ms"] <= 1.03 * max(floors)  # digits cut off
    assert found["cases"][2]["left_out"] == {"equinox": "has no Elman"}
    assert "- equinox has no Elman." in page
    assert found["threads"]["torch"] == found["machine"]["cores_usable"]
    assert {"jax", "torch", "equinox"} <= set(found["versions"])
    assert "3 on one core" in shown
    picture = tmp_path / "benchmarks/results/layers.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    picture.unlink()
    layers.main(["--report-only", "--into", str(tmp_path)])
    assert (tmp_path / "docs/benchmarks.md").read_text("utf-8") == page
    assert picture.is_file()


@pytest.mark.usefixtures("quick", "standard_promotion")
def test_peers_that_are_not_installed_are_named(tmp_path, monkeypatch, capsys):
    nowhere = PEERS["haiku"]._replace(package="no_such_package")
    monkeypatch.setitem(PEERS, "haiku", nowhere)
    monkeypatch.setattr(importlib.util, "find_spec", not_found("matplotlib", "no_such_package"))
    found = run(tmp_path, "--cells", "Elman", "--kinds", "forward", "--peers", "haiku")
    assert found["missing"] == {"haiku": "dm-haiku is not installed"}
    shown = capsys.readouterr().out
    assert "haiku is left out: dm-haiku is not installed" in shown
    assert "no other library is there: ours is timed alone" in shown
    assert "matplotlib is not installed, so layers.png was not drawn" in shown
    assert not (tmp_path / "benchmarks/results/layers.png").exists()
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    assert "- haiku is missing: dm-haiku is not installed." in page
    assert "No other library was there" in page
    (case,) = found["cases"]
    assert set(case["contestants"]) == set(ours.WAYS)


@pytest.mark.full
@pytest.mark.usefixtures("quick", "standard_promotion")
def test_with_the_batch_divided_among_cores_the_same_is_computed_and_set_beside_its_like(tmp_path):
    count = describe_machine()["cores_usable"]
    if count < 2:
        pytest.skip("there is one core")
    shape = [str(size) for size in (2 * count, 5, 4, 6)]
    found = run(tmp_path, "--cells", "LSTM", "--peers", "linen", "--shapes", *shape)
    for case in found["cases"]:
        assert set(case["contestants"]) == {*ours.WAYS, "linen", "ours, cores", "linen, cores"}
        assert all(one["deviation"] < 1e-5 for one in case["contestants"].values())
        rounds = [case["contestants"][f"{name}, cores"]["seconds"] for name in ("linen", "ours")]
        ratios = [theirs / mine for theirs, mine in zip(*rounds, strict=True)]
        assert case["cores"]["ratios"]["linen, cores"] == pytest.approx(np.median(ratios), rel=1e-2)
        assert case["cores"]["fastest"] == "linen"
        assert case["cores"]["fastest_cores"] == "linen, cores"
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    assert "| ours, cores, ms | of matmul | ours | fastest | fastest, cores |" in page
    assert "### What is to be reached" in page


def test_goals_ask_the_cases_that_they_speak_of_and_name_those_that_miss():
    def case(cell, shape, kind, torch, share=0.9):
        ratios = {"torch": torch, "linen": 1.3, "linen, cores": 1.05}
        compared = {
            "ratios": ratios,
            "fastest": "linen",
            "fastest_cores": "linen, cores",
            "share_of_matmul_rate": share,
        }
        return {"cell": cell, "shape": shape, "kind": kind, **compared, "cores": compared}

    small, large = [32, 128, 128, 128], [64, 128, 512, 512]
    cases = [
        case("LSTM", small, "forward+backward", 1.01, share=0.79),
        case("GRU", small, "forward+backward", 1.19),
        case("LSTM", large, "forward", 0.89),
        case("Elman", small, "forward", 0.94),
    ]
    backward, forward, fastest, divided, share = verdicts({"cases": cases})
    assert (backward.asked, backward.missed) == (2, ["GRU 32, 128, 128, 128 (1.19 of 1.2)"])
    assert (forward.asked, forward.missed) == (2, ["Elman 32, 128, 128, 128 (0.94 of 0.95)"])
    assert (fastest.asked, len(fastest.missed)) == (4, 3)  # at H = 512 it is 1.05 that is asked
    assert "Elman 32, 128, 128, 128 forward (1.30 of 1.5)" in fastest.missed
    assert (divided.asked, len(divided.missed)) == (3, 3)
    assert (share.asked, share.missed) == (1, ["LSTM 32, 128, 128, 128 (0.79 of 0.8)"])


def not_found(*packages: str):
    """`find_spec` where these are not installed."""
    find = importlib.util.find_spec
    return lambda name, *rest: None if name in packages else find(name, *rest)


@pytest.mark.usefixtures("quick")
def test_a_peer_that_fails_or_computes_something_else_is_left_out_and_named():
    def failing(case, problem):
        raise TypeError("no such thing\nas this")

    def cheating(case, problem):
        return layers_run.Contestant(lambda at_least: 1e-9, 0.1, [[0.0] * 90])

    said = []
    present = layers_run.Present({"linen": failing, "torch": cheating}, {}, {}, 2)
    case = layers_run.Case("Elman", SHAPE, "forward")
    found = layers_run.measure(case, present, jax.devices("cpu")[0], 1, said.append, "1/1")
    assert set(found["contestants"]) == set(ours.WAYS)
    assert found["left_out"]["linen"] == "TypeError: no such thing"
    assert found["left_out"]["torch"].startswith("it computes something else")
    assert any(line.startswith("linen is left out of Elman forward") for line in said)
    notes = layers_report.notes({"missing": {}, "cases": [found]})
    assert any(
        "torch is left out of Elman forward, B, T, D, H = 3, 5, 4, 6: it" in n for n in notes
    )


def test_a_process_that_fails_says_why_and_does_not_outlive_its_block():
    with Worker("nobody") as worker:
        with pytest.raises(MeasurementError, match="KeyError: 'nobody'"):
            worker.ask("start", "cpu", 1)
        worker.process.kill()
        with pytest.raises(MeasurementError, match="the process of nobody ended with -9"):
            worker.ask("start", "cpu", 1)
    with Worker("nobody") as worker:
        assert worker.process.poll() is None
    assert worker.process.poll() is not None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process is held to one core")
def test_the_rate_of_one_core_comes_from_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(matmul, "SIZES", {"cpu": 64})
    before = os.sched_getaffinity(0)
    rate = matmul.one_core(rounds=1)
    assert rate is not None
    assert rate > 0
    assert os.sched_getaffinity(0) == before


def test_a_shape_that_does_not_fit_in_memory_is_refused(tmp_path):
    with pytest.raises(
        SystemExit, match=r"^B, T, D, H = 1000, 1000000, 9, 9 needs about 1,080.0 GB"
    ):
        run(tmp_path, "--shapes", "1000", "1000000", "9", "9")
    assert bytes_needed(Shape(1000, 1_000_000, 9, 9)) == 1_080_000_000_000
    assert not any(tmp_path.iterdir())


def test_free_memory_is_what_linux_says_where_it_says_it(tmp_path):
    cpu = jax.devices("cpu")[0]
    file = tmp_path / "meminfo"
    assert layers.free_bytes(cpu, file) is None
    file.write_text("MemTotal:       16 kB\nMemAvailable:       3 kB\n", "utf-8")
    assert layers.free_bytes(cpu, file) == 3072


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "expected at least 1"),
        (["--shapes", "3", "0", "4", "6"], "expected at least 1"),
        (["--cells"], "cells: expected at least one"),
        (["--report-only"], "layers.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^--device gpu: JAX finds none here"):
        layers.main(["--device", "gpu", "--into", str(tmp_path)])


@pytest.mark.usefixtures("quick")
def test_an_interruption_leaves_the_old_files_whole(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    file = tmp_path / "benchmarks" / "results" / "layers.json"
    file.parent.mkdir(parents=True)
    file.write_text("old", "utf-8")
    monkeypatch.setattr(layers_run, "measure", interrupted)
    with pytest.raises(SystemExit, match="interrupted; nothing was written"):
        run(tmp_path, "--peers")
    assert file.read_text("utf-8") == "old"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_results_of_a_gpu_have_a_name_and_headings_of_their_own():
    class Device:
        platform, device_kind = "gpu", "NVIDIA H200 (SXM)"

    assert frame.name_of("layers", Device) == "layers-nvidia-h200-sxm"
    assert layers_report.where({"device": {"platform": "gpu", "kind": "H200"}}) == ", on H200"
    assert frame.name_of("layers", jax.devices("cpu")[0]) == "layers"
