"""The examples as commands: what they refuse before they read anything, and how Ctrl-C ends them."""

import dataclasses
import importlib
import math
import os
import re
import signal
import subprocess
import sys
import typing
from pathlib import Path

import jax
import numpy as np
import pytest

import seqjax as sj

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from tests.examples.conftest import ROOT, Script

EXAMPLES = sorted(
    file.stem
    for file in (ROOT / "examples").glob("*.py")
    if "from command_line import run" in file.read_text("utf-8")
)
LONG = {"char_lm", "generate", "gradient_flow"}  # tools more than examples


def options_of(name: str) -> dict[str, str]:
    """The types of the options of an example, as they are written."""
    options = importlib.import_module(f"examples.{name}").Options
    kinds = typing.get_type_hints(options)
    return {field.name: str(kinds[field.name]) for field in dataclasses.fields(options)}


def asked_for_data(name: str) -> str | None:
    """The sentence on data of one's own, on one line."""
    text = importlib.import_module(f"examples.{name}").__doc__ or ""
    found = re.search(r"^Your own data: .*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    return found and " ".join(found[0].split())


def test_an_example_that_is_to_be_read_is_shorter_than_150_lines():
    for name in set(EXAMPLES) - LONG:
        assert len((ROOT / "examples" / f"{name}.py").read_text("utf-8").splitlines()) < 150


BAD = {
    "int": [-4, -1, 2**40],
    "float": [-4.0, math.nan, 1e300, -math.inf],
    "int | float": [-4, 0, 1.5, math.nan],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_number_that_makes_no_sense_is_refused_by_its_option_before_anything_is_read(
    name: str, tmp_path: Path, script: Script
):
    tried = 0
    run = ["--run", tmp_path / "run"] if "run" in options_of(name) else []
    for option, kind in options_of(name).items():
        one = re.sub(r"<class '(\w+)'>|tuple\[(\w+), \.\.\.\]|(\w+) \| None", r"\1\2\3", kind)
        flag = f"--{option.replace('_', '-')}"
        for number in BAD.get(one, []):
            finished = script(f"{name}.py", *run, flag, number)
            said = rf"{name}\.py: {flag}: expected an? .*, got {re.escape(str(number))}"
            assert re.fullmatch(said, finished.err), f"{flag} {number}: {finished}"
            assert finished.code == 1
            assert finished.out == ""
            tried += 1
        if "tuple" in kind and one in BAD:
            finished = script(f"{name}.py", *run, flag)
            assert finished.err == f"{name}.py: {flag}: expected at least one, got none"
    assert tried >= 4
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "option", "number", "expected"),
    [
        ("sentiment", "batch", 0, "an integer from 1 to 1,000,000"),
        ("sentiment", "dropout", 1.0, "a rate in [0, 1)"),
        ("translation", "beam", 0, "an integer from 1 to 100"),
        ("word_lm", "vocabulary", 1, "an integer from 2 to 1,000,000"),
        ("sweep", "length", 1, "an integer from 2 to 1,000,000"),
        ("forecast", "learning_rate", 0.0, "a positive number up to 1e30"),
        ("forecast", "test", 0.0, "a number of rows, or a share up to 1.0"),
        ("generate", "top_p", 0.0, "a share in (0, 1]"),
        ("generate", "length", 0, "an integer from 1 to 1,000,000"),
    ],
)
def test_the_first_number_beyond_a_range_is_refused(name, option, number, expected, script):
    flag = f"--{option.replace('_', '-')}"
    run = ["--run", "none"] if name == "generate" else []
    finished = script(f"{name}.py", *run, flag, number)
    assert finished == (1, "", f"{name}.py: {flag}: expected {expected}, got {number}")


def test_a_gradient_that_is_cut_further_back_than_it_reaches_is_refused(script):
    finished = script("gradient_flow.py", "--truncated", 31)
    assert finished.err == (
        "gradient_flow.py: --truncated: expected at most the 30 of --descent-steps, got 31"
    )


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ctrl-C, as soon as an example has read its options; gives the run folder that it may name."""

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "model.json").write_text("{}", "utf-8")  # what generate.py looks for
    monkeypatch.setattr(jax.random, "key", ctrl_c)
    monkeypatch.setattr(np.random, "default_rng", ctrl_c)
    monkeypatch.setattr(sj.data, "read_columns", ctrl_c)
    monkeypatch.setattr(sj.training, "from_config", ctrl_c)
    return tmp_path


@pytest.mark.parametrize("name", EXAMPLES)
def test_ctrl_c_ends_in_one_sentence(name: str, interrupted: Path, script: Script):
    run = ["--run", interrupted] if "run" in options_of(name) else []
    finished = script(f"{name}.py", *run)
    assert (finished.code, finished.err) == (130, f"\n{name}.py: stopped by Ctrl-C\n")


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("forecast", ["--season", 0, "--seed", 0, "--weight-decay", 0]),
        ("music", ["--given", 0, "--dropout", 0, "--batch", 1]),
        ("sweep", ["--clip-norms", "inf", 1, "--seeds", 1]),
        ("generate", ["--temperature", 0, "--top-p", 1, "--top-k", 1]),
    ],
)
def test_the_ends_that_make_sense_are_taken(name, taken, interrupted, script):
    assert script(f"{name}.py", "--run", interrupted, *taken).code == 130


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_ctrl_c_ends_a_process_that_reads_in_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "train.tsv")
    command = [sys.executable, ROOT / "examples" / "sentiment.py", "--data", tmp_path]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.fspath(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    with (tmp_path / "train.tsv").open(
        "w"
    ):  # which waits for one who reads; and that one waits then
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "\nsentiment.py: stopped by Ctrl-C\n")


@pytest.mark.parametrize("name", ["sentences", "parity", "completion"])
def test_ctrl_c_while_it_trains_ends_an_example_without_a_run_folder_too(name, script, monkeypatch):
    stopped = lambda loss, optimizer, state, *_, **__: sj.training.FitResult(state, [], True)
    monkeypatch.setattr(sj.training, "fit", stopped)
    finished = script(f"{name}.py", "--no-display")
    assert (finished.code, finished.out) == (130, "")


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 8. GiB"), None])
def test_sizes_that_do_not_fit_into_memory_end_in_one_sentence(error, script, monkeypatch):
    came = error or jax.errors.JaxRuntimeError("INTERNAL: Error: Out of memory allocating 9 bytes.")

    def full(*_, **__):
        raise came

    monkeypatch.setattr(sj.training, "fit", full)
    finished = script("sentences.py")
    assert finished.code == 1
    start = "sentences.py: expected sizes that fit into the memory here: "
    assert finished.err == start + str(came).removeprefix("INTERNAL: Error: ")
    if error is None:
        came = jax.errors.JaxRuntimeError("INTERNAL: something else")
        with pytest.raises(jax.errors.JaxRuntimeError):
            script("sentences.py")


@pytest.mark.parametrize("name", [n for n in EXAMPLES if "data" in options_of(n)])
def test_the_help_says_what_data_of_ones_own_want(name: str, script: Script):
    sentence = asked_for_data(name)
    assert sentence is not None
    assert sentence.startswith("Your own data: --data F")
    finished = script(f"{name}.py", "--help")
    assert finished.code == 0
    assert sentence in " ".join(finished.out.split())
    named = {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", sentence)}
    assert named <= set(options_of(name))
