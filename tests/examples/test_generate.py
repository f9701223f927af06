import io
import math
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from examples import generate
from tests.examples.conftest import Script, Trained, in_a_process


def written(capsys: pytest.CaptureFixture[str], trained: Trained, **options) -> str:
    """What generate.py prints, without its last line end."""
    generate.main(generate.Options(run=trained.run, **options))
    out = capsys.readouterr().out
    assert out.endswith("\n")
    return out[:-1]


@pytest.mark.parametrize("stream", [False, True])
def test_the_prompt_is_followed_by_as_many_characters_as_asked_for(capsys, trained, stream):
    text = written(capsys, trained, prompt="the ", length=30, stream=stream)
    assert text.startswith("the ")
    assert len(text) == 4 + 30


@pytest.mark.parametrize("stream", [False, True])
def test_a_seed_gives_one_text_and_another_seed_another(capsys, trained, stream):
    texts = [written(capsys, trained, length=30, seed=s, stream=stream) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_at_temperature_0_a_stream_writes_what_the_compiled_scan_writes(capsys, trained):
    options = {"prompt": "the c", "length": 20, "temperature": 0.0}
    whole = written(capsys, trained, **options)
    assert written(capsys, trained, **options, stream=True) == whole


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}], ids=["top-k", "top-p"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_narrowest_cut_leaves_only_the_likeliest_token(capsys, trained, cut, stream):
    likeliest = written(capsys, trained, length=20, temperature=0.0)
    options = {"length": 20, "temperature": 1.0, "stream": stream}
    assert written(capsys, trained, **options, **cut) == likeliest
    assert written(capsys, trained, **options) != likeliest


def test_a_stream_shows_each_character_before_it_draws_the_next(monkeypatch, trained):
    screen, shown = io.StringIO(), []

    def stream(*arguments, **options):
        for token in [5, 6, 7]:
            shown.append(screen.getvalue())
            yield token

    monkeypatch.setattr(sj, "stream", stream)
    # A screen that shows what has been flushed, and nothing before.
    buffered = io.TextIOWrapper(io.BufferedWriter(Unbuffered(screen)), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", buffered)
    generate.main(generate.Options(run=trained.run, prompt="the ", length=3, stream=True))
    tokenizer = sj.data.load_tokenizer(trained.run / "tokenizer.json")
    text = tokenizer.decode([5, 6])
    assert shown == ["the ", f"the {text[0]}", f"the {text}"]


class Unbuffered(io.RawIOBase):
    """Bytes that come as text on a screen."""

    def __init__(self, screen: io.StringIO) -> None:
        self.screen = screen

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.screen.write(bytes(data).decode())
        return len(data)


@pytest.mark.parametrize("stream", [False, True])
def test_the_stop_character_ends_the_text(capsys, trained, stream):
    options = {"prompt": "c", "length": 200, "temperature": 1.0, "stream": stream}
    text = written(capsys, trained, **options, stop="t")
    assert text.endswith("t")
    assert text.count("t") == 1
    assert len(text) < 200


def test_an_empty_prompt_starts_after_a_newline_that_is_not_shown(capsys, trained):
    assert "\n" + written(capsys, trained, length=20) == written(
        capsys, trained, prompt="\n", length=20
    )


def test_an_empty_prompt_starts_after_the_first_token_where_there_is_no_newline():
    tokenizer = sj.data.CharTokenizer.train("xyz")
    assert generate.encode_prompt(tokenizer, "").tolist() == [0]
    assert generate.encode_prompt(tokenizer, "zy").tolist() == [2, 1]


def test_a_score_is_that_of_reading_the_text_token_by_token(capsys, trained):
    model, params, tokenizer = generate.load(trained.run)
    ids = tokenizer.encode("the mat\n")
    state, log_probs = model.initial_state(params), []
    for before, after in zip(jnp.asarray(ids[:-1]), ids[1:], strict=True):
        state, logits = model.step(params, state, before)
        log_probs.append(float(jax.nn.log_softmax(logits)[after]))
    loss = -sum(log_probs) / 7
    summary = {
        "total": sum(log_probs),
        "nats per token": loss,
        "bits per token": loss / math.log(2),
        "perplexity": math.exp(loss),
    }

    lines = [line for line in written(capsys, trained, score="the mat\n").splitlines() if line]
    names, values = zip(*(line.rsplit(maxsplit=1) for line in lines[2:]), strict=True)
    assert [line.split() for line in lines[:2]] == [
        ["token", "log", "p,", "nats"],
        ["'t'", "given"],
    ]
    assert list(names) == [*map(repr, "he mat\n"), *summary]
    shown = [float(value) for value in values]
    np.testing.assert_allclose(shown, [*log_probs, *summary.values()], atol=6e-4)


def test_the_parameters_are_those_of_the_newest_checkpoint(trained):
    model, params, _ = generate.load(trained.run)
    fresh = model.init(jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(fresh)
    assert not np.array_equal(params.readout.bias, fresh.readout.bias)  # which starts at 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--prompt", "né"], "'é' (U+00E9) at position 1 was not in the training text"),
        (["--score", "né"], "'é' (U+00E9) at position 1 was not in the training text"),
        (["--score", "n"], "--score: 'n' has fewer than two tokens"),
        (["--score", ""], "--score: '' has fewer than two tokens"),
        (["--stop", "th"], "--stop: 'th' is 2 tokens to this model; expected one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_written_or_scored_ends_in_one_line(
    arguments: list[str], complaint: str, trained: Trained, script: Script
):
    code, _, err = script("generate.py", "--run", trained.run, *arguments)
    assert code == 1
    assert err.startswith("generate.py: ")
    assert complaint in err
    assert "\n" not in err


def test_a_character_that_training_never_saw_ends_a_process_without_a_traceback(trained):
    code, out, err = in_a_process("generate.py", "--run", trained.run, "--prompt", "né")
    assert (code, out) == (1, "")
    assert err.startswith("generate.py: CharTokenizer.encode: 'é' (U+00E9) at position 1 was not")
    assert err.count("\n") == 1


def test_a_folder_without_a_run_is_named(tmp_path: Path, script: Script):
    code, _, err = script("generate.py", "--run", tmp_path / "none")
    assert (code, err) == (
        1,
        f"generate.py: {tmp_path / 'none'} is no run folder: it holds no model.json; "
        "examples/char_lm.py makes one",
    )


@pytest.mark.parametrize("emptied", [True, False])
def test_a_run_without_a_checkpoint_is_named_and_left_as_it_is(
    emptied: bool, tmp_path: Path, trained: Trained, script: Script
):
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    shutil.rmtree(run / "checkpoints")
    if emptied:
        (run / "checkpoints").mkdir()
    code, _, err = script("generate.py", "--run", run)
    assert code == 1
    assert "holds no checkpoint" in err
    assert (run / "checkpoints").exists() == emptied
