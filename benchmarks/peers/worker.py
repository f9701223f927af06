"""A peer in a process of its own: it sleeps on a pipe until it is asked, and answers when it is at rest.

Questions and answers are lines of JSON: [name, *arguments], and {"answer": …} or {"error": …}.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.peers.problem import Prepared, Problem, Shape, drawn, sample
from benchmarks.peers.timing import rest, seconds_of
from benchmarks.processes import ROOT, MeasurementError, environment, last_lines


class Worker:
    """The process of one peer; it does not outlive the `with` block."""

    def __init__(self, name: str, module: str = "benchmarks.peers.worker") -> None:
        """Start it; what it imports is waited for at the first question. module: what answers there."""
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, name],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            encoding="utf-8",
        )

    def ask(self, question: str, *arguments: Any) -> Any:
        """The answer. Raises a MeasurementError where there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([question, *arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = " ".join(last_lines(self.errors, 1))
            raise MeasurementError(
                f"the process of {self.name} ended with {self.process.wait()}: {said}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise MeasurementError(answer["error"])
        return answer["answer"]

    def time(self, at_least: float) -> float:
        """Seconds of one call of what was prepared last, while this process works on nothing."""
        rest()
        return self.ask("time", at_least)

    def __enter__(self) -> "Worker":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # a question that it never read


class Server:
    """The other side: what is asked of it are its methods."""

    def __init__(self, name: str) -> None:
        """Nothing is prepared yet."""
        self.module = importlib.import_module(PEERS[name].module)
        self.device = "cpu"
        self.prepared: Prepared | None = None

    def start(self, device: str, threads: int) -> Any:
        """The device and the threads, of all that comes."""
        self.device = device
        return self.module.start(device, threads)

    def prepare(self, cell: str, shape: list[int], kind: str) -> dict[str, Any]:
        """Draw the same numbers as the other processes, run once, and keep the call."""
        problem = drawn(cell, Shape._make(shape))
        start = time.perf_counter()
        prepared: Prepared = self.begin(problem, kind)
        result = prepared.run()
        seconds = time.perf_counter() - start
        self.prepared = prepared
        return {"first_call_seconds": seconds, "sample": sample(prepared.read(result))}

    def begin(self, problem: Problem, kind: str) -> Prepared:
        """What its module makes of it."""
        return self.module.prepare(problem, kind, self.device)

    def time(self, at_least: float) -> float:
        """Seconds of one call."""
        assert self.prepared is not None
        return seconds_of(self.prepared.run, at_least)


def serve(name: str, kind: Callable[[str], Any] = Server) -> None:
    """Answer until nobody asks any more. kind: what is asked of a peer are the methods of its result."""
    # Answers have the pipe to themselves: what a library prints goes beside.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server: Any = None
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        try:
            server = server or kind(name)
            answer = {"answer": getattr(server, question)(*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        rest()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
