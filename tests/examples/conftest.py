"""One tiny run of examples/char_lm.py, and the examples as scripts."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SIZES = {"features": 8, "embedding": 4, "lanes": 2, "window": 8, "steps": 6, "sample": 12}
TINY = [f"--{name}={value}" for name, value in (SIZES | {"evaluations": 1}).items()]
TEXT = "the cat sat on the mat.\n" * 20


class Finished(NamedTuple):
    """How a script ended; `err` is what the interpreter prints where it is ended by a message."""

    code: int
    out: str
    err: str


Script = Callable[..., Finished]


def in_a_process(name: str, *arguments: object) -> Finished:
    """examples/`name` in an interpreter of its own, as a person starts it."""
    # Off the GPU, where the memory may be taken by the process that tests.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.fspath(ROOT)}
    command = [sys.executable, ROOT / "examples" / name, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return Finished(done.returncode, done.stdout, done.stderr)


def in_this_process(name: str, *arguments: object) -> Finished:
    """Run examples/`name` as `__main__`, without a new interpreter."""
    path = os.fspath(ROOT / "examples" / name)
    out, err, code, message = io.StringIO(), io.StringIO(), 0, ""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", [path, *map(str, arguments)])
        patch.setattr(sys, "path", [os.fspath(ROOT / "examples"), *sys.path])  # as python has
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            message = end.code if isinstance(end.code, str) else ""
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Finished(code, out.getvalue(), err.getvalue() + message)


@pytest.fixture
def script() -> Script:
    """`script(name, *arguments)` runs examples/`name` in this process."""
    return in_this_process


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text."""
    file = tmp_path_factory.mktemp("data") / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


class Trained(NamedTuple):
    """A run folder, and what its training printed."""

    run: Path
    finished: Finished


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Trained:
    """What a tiny training leaves; tests only read it."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    finished = in_this_process("char_lm.py", *TINY, "--data", text_file, "--run", run)
    return Trained(run, finished)
