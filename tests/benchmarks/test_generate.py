"""The benchmark of generation: that all write the same texts, and that the section says what came."""

import functools
import importlib
import json

import jax
import numpy as np
import pytest

from benchmarks import generate, generate_ours, generate_report, generate_run
from benchmarks.generate_problem import BEAM, GREEDY, SAMPLED, WAYS, Case, Sizes, model_of
from benchmarks.peers import PEERS
from benchmarks.processes import MeasurementError

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZES = Sizes(layers=2, features=32, tokens=20, top_k=3, beams=3)
VOCABULARY, BATCH = 61, 3


def case(cell: str, way: str) -> Case:
    return Case(cell, VOCABULARY, BATCH, way)


def ids_of(name: str, case: Case, sizes: Sizes = SIZES) -> np.ndarray:
    if name == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    prepared = importlib.import_module(f"benchmarks.generate_{name}").prepare(case, sizes)
    (ids,) = prepared.read(prepared.run())
    assert ids.shape == (sizes.tokens, case.batch)
    return ids


@functools.cache
def loop(cell: str):
    """One step in NumPy and float64: (states, tokens) -> states, log p [rows, vocabulary]."""
    drawn = model_of(case(cell, GREEDY), SIZES)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))

    def step(states, tokens):
        x, after = drawn.embedding[tokens].astype(np.float64), []
        for layer, (h, c) in zip(drawn.layers, states, strict=True):
            z, r = x @ layer.input_kernel + layer.bias, h @ layer.recurrent_kernel
            if cell == "LSTM":
                i, f, g, o = np.split(z + r, 4, axis=-1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (z_r, z_u, z_n), (r_r, r_u, r_n) = (np.split(a, 3, axis=-1) for a in (z, r))
                n = np.tanh(z_n + sigmoid(z_r + r_r) * (r_n + layer.inner_bias))
                u = sigmoid(z_u + r_u)
                h = (1 - u) * n + u * h
            after.append((h, c))
            x = h
        logits = x @ drawn.kernel + drawn.bias
        most = logits.max(-1, keepdims=True)
        return after, logits - most - np.log(np.exp(logits - most).sum(-1, keepdims=True))

    return step, drawn.prompt


def start(rows: int):
    zero = np.zeros((rows, SIZES.features))
    return [(zero, zero)] * SIZES.layers


@functools.cache
def greedy(cell: str) -> np.ndarray:
    step, tokens = loop(cell)
    states, ids = start(BATCH), []
    for _ in range(SIZES.tokens):
        states, log_p = step(states, tokens)
        tokens = log_p.argmax(-1)
        ids.append(tokens)
    return np.stack(ids)


@functools.cache
def beam_search(cell: str) -> np.ndarray:
    """Text by text, hypothesis by hypothesis."""
    step, prompt = loop(cell)
    best = []
    for first in prompt:
        open_ones = [(0.0, [], start(1), first)]
        for _ in range(SIZES.tokens):
            longer = []
            for total, text, states, token in open_ones:
                states, log_p = step(states, np.array([token]))
                longer += [(total + p, [*text, n], states, n) for n, p in enumerate(log_p[0])]
            open_ones = sorted(longer, key=lambda one: -one[0])[: SIZES.beams]
        best.append(open_ones[0][1])
    return np.array(best).T


CELLS = ("LSTM", "GRU")
NAMES = [
    "ours",
    pytest.param("linen", marks=pytest.mark.peer),
    pytest.param("torch", marks=pytest.mark.peer),
]


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", NAMES)
def test_greedy_ids_are_equal_for_ours_each_peer_and_a_loop(name, cell):
    expected = greedy(cell)
    # Texts that go on, and not one token for ever.
    assert min(len(set(column)) for column in expected.T) >= 3
    np.testing.assert_array_equal(ids_of(name, case(cell, GREEDY)), expected)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", NAMES)
def test_beam_search_finds_the_same_texts_for_ours_each_peer_and_a_loop(name, cell):
    expected = beam_search(cell)
    assert np.any(expected != greedy(cell))
    np.testing.assert_array_equal(ids_of(name, case(cell, BEAM)), expected)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", NAMES)
def test_sampled_tokens_are_among_the_likeliest_and_are_not_always_the_likeliest(name):
    ids = ids_of(name, case("LSTM", SAMPLED))
    step, tokens = loop("LSTM")
    states, ranks = start(BATCH), []
    for row in ids:
        states, log_p = step(states, tokens)
        ranks.append((log_p > log_p[np.arange(BATCH), row][:, None]).sum(-1))
        tokens = row
    assert set(np.ravel(ranks)) == set(range(SIZES.top_k))


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", NAMES)
def test_sampled_from_the_one_likeliest_token_is_greedy(name):
    ids = ids_of(name, case("GRU", SAMPLED), SIZES._replace(top_k=1))
    np.testing.assert_array_equal(ids, greedy("GRU"))


def test_texts_that_go_apart_late_are_counted_and_other_texts_are_refused():
    texts = np.arange(80).reshape(40, 2) % 7
    late = texts.copy()
    late[35:, 1] += 1  # after the beginning
    assert generate_run.agree(texts, texts) == 1
    assert generate_run.agree(late, texts) == 0.5
    with pytest.raises(MeasurementError, match="0 % of its texts begin as ours do"):
        generate_run.agree(texts + 1, texts)
    with pytest.raises(MeasurementError, match=r"ids \(39, 2\); expected \(40, 2\)"):
        generate_run.agree(texts[1:], texts)


def test_contestants_take_turns_and_all_rounds_count():
    order = []

    def contestant(name):
        def timed(at_least):
            order.append(name)
            return float(order.count(name))

        return timed

    seconds = generate_run.in_turn({name: contestant(name) for name in "abc"}, 4)
    assert seconds == {name: [1.0, 2.0, 3.0, 4.0] for name in "abc"}
    turns = ["".join(order[n : n + 3]) for n in range(0, 12, 3)]
    assert turns == ["abc", "acb", "cab", "cba"]


def test_a_rate_counts_all_tokens_of_all_texts_and_ratios_are_medians(monkeypatch):
    seconds = {"ours": [1.0, 2.0, 4.0], "linen": [2.0, 2.0, 2.0], "torch": [0.5, 0.5, 0.5]}
    ids = np.zeros((20, 3), int)
    still = lambda case, sizes: generate_run.Contestant(lambda at_least: 1.0, 0.25, ids)
    monkeypatch.setattr(generate_run, "local", lambda prepare: still)
    monkeypatch.setattr(generate_run, "in_turn", lambda calls, rounds: seconds)
    said = []
    present = generate_run.Present({"linen": still, "torch": still}, {}, {})
    found = generate_run.measure(case("GRU", GREEDY), SIZES, present, 3, said.append, "1/1")
    rates = {name: each["tokens_per_second"] for name, each in found["contestants"].items()}
    assert rates == {"ours": 30, "linen": 30, "torch": 120}
    assert found["ratios"] == {"linen": 1.0, "torch": 0.25}
    assert found["contestants"]["torch"]["same_texts"] == 1
    assert said == [
        "1/1 GRU, vocabulary 61, batch 3, greedy: ours 30, linen 30, torch 120 tokens/s"
    ]


def test_a_peer_that_fails_or_writes_something_else_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(generate_run, "AT_LEAST", 1e-4)

    def failing(case, sizes):
        raise TypeError("no such thing\nas this")

    def cheating(case, sizes):
        return generate_run.Contestant(lambda at_least: 1e-9, 0.1, np.full((20, 3), -1))

    said = []
    present = generate_run.Present({"linen": failing, "torch": cheating}, {}, {})
    found = generate_run.measure(case("GRU", GREEDY), SIZES, present, 1, said.append, "1/1")
    assert set(found["contestants"]) == {"ours"}
    assert found["left_out"]["linen"] == "TypeError: no such thing"
    assert found["left_out"]["torch"].startswith("it writes something else")
    assert said[0].startswith("linen is left out of GRU, vocabulary 61, batch 3, greedy: TypeError")


def made_up(**changed) -> dict:
    """Results that no machine has measured."""

    def one(rate, same=None):
        return {
            "seconds": [0.1],
            "tokens_per_second": rate,
            "first_call_seconds": 0.5,
            "same_texts": same,
        }

    def row(way, torch, linen, same):
        contestants = {"ours": one(51234.0), "torch": one(20480.0, same), "linen": one(90.0, same)}
        return {
            "cell": "GRU",
            "vocabulary": 256,
            "batch": 32,
            "way": way,
            "contestants": contestants,
            "ratios": {"torch": torch, "linen": linen},
            "left_out": {},
        }

    return {
        "name": "generate",
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
        "rounds": 3,
        "sizes": SIZES._asdict(),
        "missing": {},
        "cases": [
            row(GREEDY, 2.5, 1.25, 1.0),
            row(SAMPLED, 0.75, 1.5, None),
            row(BEAM, 3.0, 1.75, 1.0),
        ],
    } | changed


def test_the_section_says_what_the_numbers_say():
    page = generate_report.section(made_up())
    for line in (
        "## Generation\n",
        "texts of 20 tokens after one given token, by a language model of\n2 layers of 32 units",
        "- Ours is faster than torch in 2 of 3 rows. torch takes from 0.75 times as long (GRU, "
        "vocabulary 256, batch 32, sampled) to 3.00 times (GRU, vocabulary 256, batch 32, beam).",
        "- Ours is faster than linen in 3 of 3 rows.",
        "| 256 | 32 | greedy | 51,200 | 20,500 (2.50) | 90 (1.25) | 0.50 / 0.50 / 0.50 |",
        "- torch writes the same texts as ours to the last token, greedily and by beam search.",
        "Measured on 2026-01-31: Abacus 9000, 2 cores",
        "threads: jax 2, torch 2.",
    ):
        assert line in page


def test_the_section_says_where_ours_is_slower_and_where_texts_go_apart():
    found = made_up(missing={"linen": "flax is not installed"})
    for row in found["cases"]:
        del row["contestants"]["linen"], row["ratios"]["linen"]
        row["ratios"]["torch"] = 0.5
    found["cases"][2]["contestants"]["torch"]["same_texts"] = 0.75
    found["cases"][0]["left_out"] = {"linen": "TypeError: no"}
    page = generate_report.section(found)
    assert "- Ours is faster than torch in 0 of 3 rows. torch takes from 0.50 times" in page
    assert "faster than linen" not in page
    assert "- linen is missing: flax is not installed." in page
    assert (
        "by beam search, in 1 of 2 rows; near ties part the others: 75 % of GRU, vocabulary 256, "
        "batch 32, beam."
    ) in page
    assert "- linen is left out of GRU, vocabulary 256, batch 32, greedy: TypeError: no." in page
    alone = made_up()
    for row in alone["cases"]:
        row["contestants"], row["ratios"] = {"ours": row["contestants"]["ours"]}, {}
    assert "- No other library was there: ours wrote alone." in generate_report.section(alone)


def run(tmp_path, *arguments: str) -> dict:
    """The results of a small run on the CPU."""
    sizes = ["--features", "4", "--tokens", "3", "--vocabularies", "7", "--top-k", "2"]
    small = [*sizes, "--batches", "2", "--beam-batch", "2", "--beams", "2", "--rounds", "1"]
    generate.main([*small, "--device", "cpu", *arguments, "--into", str(tmp_path)])
    return json.loads((tmp_path / "benchmarks/results/generate.json").read_text("utf-8"))


@pytest.mark.peer
@pytest.mark.usefixtures("standard_promotion")
def test_a_small_run_writes_results_picture_and_section(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr(generate_run, "AT_LEAST", 1e-4)
    monkeypatch.setitem(PEERS, "linen", PEERS["linen"]._replace(package="no_such_package"))
    found = run(tmp_path, "--cells", "GRU")
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    shown = capsys.readouterr().out
    assert [(c["way"], c["batch"]) for c in found["cases"]] == [(way, 2) for way in WAYS]
    for each in found["cases"]:
        assert set(each["contestants"]) == {"ours", "torch"}
        assert each["left_out"] == {}
        for contestant in each["contestants"].values():
            (seconds,) = contestant["seconds"]
            assert contestant["tokens_per_second"] == pytest.approx(2 * 3 / seconds, rel=1e-3)
            assert contestant["first_call_seconds"] > 0
        same = each["contestants"]["torch"]["same_texts"]
        assert same == (None if each["way"] == SAMPLED else 1)
        assert f" ({each['ratios']['torch']:.2f}) |" in page
        assert f" ({each['ratios']['torch']:.2f}) " in shown
    assert found["missing"] == {"linen": "flax is not installed"}
    assert "linen is left out: flax is not installed" in shown
    assert found["threads"]["torch"] == found["machine"]["cores_usable"]
    picture = tmp_path / "benchmarks/results/generate.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    picture.unlink()
    generate.main(["--report-only", "--into", str(tmp_path)])
    assert (tmp_path / "docs/benchmarks.md").read_text("utf-8") == page
    assert picture.is_file()


def test_beam_search_has_a_batch_of_its_own():
    options = generate.Options(cells=("GRU",), vocabularies=(9, 11), batches=(1, 5), beam_batch=8)
    written = [(c.vocabulary, c.way, c.batch) for c in generate.cases_of(options)]
    of_one = [(GREEDY, 1), (GREEDY, 5), (SAMPLED, 1), (SAMPLED, 5), (BEAM, 8)]
    assert written == [(size, *each) for size in (9, 11) for each in of_one]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "haiku"], r"^peers: 'haiku' is unknown; expected some of torch, linen$"),
        (["--cells", "IRNN"], r"^cells: 'IRNN' is unknown; expected some of LSTM, GRU, Elman$"),
        (["--ways"], "^ways: expected at least one of greedy"),
        (["--rounds", "0"], "^rounds: expected at least 1, got 0"),
        (["--batches", "1", "0"], "^batches: expected at least 1"),
        (["--beams", "8"], "^beams: expected at most the 7 tokens of the vocabulary, got 8"),
        (["--report-only"], "generate.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^--device gpu: JAX finds none here"):
        generate.main(["--device", "gpu", "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_an_interruption_leaves_the_old_files_whole(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    file = tmp_path / "benchmarks" / "results" / "generate.json"
    file.parent.mkdir(parents=True)
    file.write_text("old", "utf-8")
    monkeypatch.setattr(generate_run, "measure", interrupted)
    with pytest.raises(SystemExit, match="interrupted; nothing was written"):
        run(tmp_path, "--peers")
    assert file.read_text("utf-8") == "old"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_nothing_that_writes_is_zero():
    drawn = model_of(case("GRU", GREEDY), SIZES)
    for array in (drawn.embedding, drawn.kernel, drawn.bias):
        assert array.dtype == np.float32
        assert np.all(array != 0)
    model, params = generate_ours.built(case("GRU", GREEDY), drawn)
    assert [leaf.dtype for leaf in jax.tree.leaves(params)] == [np.float32] * 11
    assert model.vocabulary == VOCABULARY
