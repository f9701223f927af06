import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import seqjax as sj
from examples import char_lm
from tests.examples.conftest import TEXT, TINY, Script, Trained

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_a_run_leaves_a_folder_with_all_that_generation_needs(trained: Trained):
    run, finished = trained
    assert (finished.code, finished.err) == (0, "")
    names = {file.name for file in run.iterdir()}
    assert names >= {"options.json", "model.json", "tokenizer.json", "log.jsonl", "checkpoints"}
    assert sj.data.load_tokenizer(run / "tokenizer.json") == sj.data.CharTokenizer.train(TEXT)
    model = sj.training.from_config(json.loads((run / "model.json").read_text("utf-8")))
    assert model == sj.models.LanguageModel(len(set(TEXT)), sj.LSTM(8), embedding=4)
    assert sj.training.read_log(run / "log.jsonl")[-1]["step"] == 6


def test_a_run_says_what_it_learns_from_and_how_to_go_on(trained: Trained):
    run, finished = trained
    assert "432 tokens to learn from, 48 to check, 12 in the vocabulary" in finished.out
    assert re.search(r"^step +6 .*nats \d", finished.out, re.MULTILINE)
    assert f"python examples/generate.py --run {run}" in finished.out


def test_a_finished_run_that_is_resumed_trains_no_more_and_writes_the_same(
    trained: Trained, tmp_path: Path, script: Script
):
    run = tmp_path / "copy"
    shutil.copytree(trained.run, run)
    resumed = script("char_lm.py", "--resume", run)
    assert resumed.code == 0
    assert "nothing is left to train from step 6" in resumed.out
    assert sj.training.read_log(run / "log.jsonl") == sj.training.read_log(
        trained.run / "log.jsonl"
    )
    written = [out.out.split("\ncurves: ")[0][-12:] for out in (trained.finished, resumed)]
    assert written[0] == written[1]


def test_a_run_is_never_written_over(trained: Trained, text_file: Path, script: Script):
    before = {file: file.stat().st_mtime_ns for file in trained.run.rglob("*")}
    code, out, err = script("char_lm.py", *TINY, "--data", text_file, "--run", trained.run)
    assert (code, out) == (1, "")
    assert err == (
        f"char_lm.py: {trained.run} holds a run; go on with it by --resume {trained.run}, "
        "or name another"
    )
    assert before == {file: file.stat().st_mtime_ns for file in trained.run.rglob("*")}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"ten chars.", "split: 10 tokens with train=0.9 make parts of 9 and 1"),
        (b"a bit more text, not enough", "a lane holds 12; expected at least one window"),
        (b"", "is empty; expected a file with data"),
        (b"caf\xe9 au lait", "can't decode byte 0xe9 in position 3"),
        (None, "does not exist"),
    ],
    ids=["two parts", "one window", "empty", "undecodable", "missing"],
)
def test_a_text_that_cannot_be_learned_from_ends_in_one_line(
    content: bytes | None, complaint: str, tmp_path: Path, script: Script
):
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    window = ("--window", 32)
    finished = script("char_lm.py", *TINY, *window, "--data", file, "--run", tmp_path / "run")
    assert finished.code == 1
    assert finished.err.startswith("char_lm.py: ")
    assert complaint in finished.err
    assert "\n" not in finished.err
    assert not (tmp_path / "run").exists()  # nothing is left behind that would be in the way


@pytest.mark.parametrize(
    ("option", "most"),
    [("--steps", "2,147,483,647"), ("--evaluations", "1,000,000"), ("--sample", "1,000,000")],
)
def test_a_count_below_one_ends_in_one_line(option: str, most: str, tmp_path: Path, script: Script):
    finished = script("char_lm.py", *TINY, option, 0, "--run", tmp_path / "run")
    assert finished == (1, "", f"char_lm.py: {option}: expected an integer from 1 to {most}, got 0")


def test_bytes_that_are_no_utf_8_are_learned_as_bytes(tmp_path: Path, script: Script):
    file, run = tmp_path / "text.txt", tmp_path / "run"
    file.write_bytes(b"caf\xe9 au lait, " * 20)
    finished = script("char_lm.py", *TINY, "--tokenizer", "bytes", "--data", file, "--run", run)
    assert finished.code == 0
    assert "256 in the vocabulary" in finished.out


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path, script: Script):
    finished = script("char_lm.py", "--resume", tmp_path)
    assert finished == (1, "", f"char_lm.py: {tmp_path} is no run folder: it holds no options.json")


@pytest.mark.parametrize("cell", list(char_lm.CELLS))
def test_every_cell_on_offer_makes_a_model_that_learns(cell: str, quick_compilation: None):
    model = char_lm.make_model(char_lm.Options(cell=cell, features=8, embedding=4), 5)
    params = model.init(jax.random.key(0))
    tokens = np.arange(12, dtype=np.int32).reshape(4, 3) % 5
    nothing = np.zeros((4, 3), bool)
    batch = sj.data.Batch(tokens, (tokens + 1) % 5, ~nothing, nothing)
    measure = jax.jit(jax.value_and_grad(lambda p: model.loss(p, None, batch, None)[0]))
    loss, gradient = measure(params)
    assert np.isfinite(loss)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
