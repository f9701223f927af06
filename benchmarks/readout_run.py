"""The measurements of benchmarks.readout: all contestants in turn, round after round."""

import contextlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.frame import Say
from benchmarks.layers_run import agree, in_turn, reason, significant
from benchmarks.peers import PEERS
from benchmarks.peers.problem import sample
from benchmarks.peers.timing import seconds_of
from benchmarks.peers.worker import Worker
from benchmarks.readout_problem import Problem, Sizes, drawn
from seqjax import losses

OURS = "ours"
"""What the others are set beside."""


class Present(NamedTuple):
    """The names of what runs here, PyTorch's process where it is there, what is missing, threads."""

    names: list[str]
    torch: Worker | None
    missing: dict[str, str]
    threads: dict[str, Any]


def in_one(ys: Any, kernel: Any, bias: Any, targets: Any) -> Any:
    """`losses.linear_cross_entropy`."""
    return losses.linear_cross_entropy(ys, kernel.T, bias, targets).nats.value


def written_out(ys: Any, kernel: Any, bias: Any, targets: Any) -> Any:
    """All logits at once, and `losses.cross_entropy` of them."""
    return losses.cross_entropy(ys @ kernel.T + bias, targets)


def of_optax(ys: Any, kernel: Any, bias: Any, targets: Any) -> Any:
    """All logits at once, and the loss of optax."""
    logits = ys @ kernel.T + bias
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


LOSSES = {OURS: in_one, "ours, logits": written_out, "optax": of_optax}


def start(names: Sequence[str], device: Any, threads: int, stack: contextlib.ExitStack) -> Present:
    """What can be run; the process of PyTorch ends with `stack`."""
    here = [name for name in LOSSES if name in names or name.startswith(OURS)]
    present = Present(here, None, {}, {})
    if "torch" not in names:
        return present
    if not PEERS["torch"].installed:
        return present._replace(missing={"torch": "torch is not installed"})
    try:
        worker = stack.enter_context(Worker("torch", "benchmarks.readout_worker"))
        told = worker.ask("start", device.platform, threads)["threads"]
    except Exception as error:  # whatever a library of others does, it is named and left out
        return present._replace(missing={"torch": reason(error)})
    return present._replace(torch=worker, threads={"torch": told})


def measure(sizes: Sizes, present: Present, rounds: int, say: Say) -> dict[str, Any]:
    """Seconds of the gradient by ys, V and b, what a program holds beside it, and ratios to ours."""
    problem, calls, temporary = drawn(sizes), {}, {}
    mine: list[list[float]] = []
    for name in present.names:
        call, temporary[name] = compiled(LOSSES[name], problem)
        found = sample([np.asarray(leaf) for leaf in call()])
        mine = mine or found
        agree(found, mine)
        calls[name] = lambda at_least, call=call: seconds_of(call, at_least)
    if present.torch is not None:
        agree(present.torch.ask("prepare", sizes)["sample"], mine)
        calls["torch"] = present.torch.time
    seconds = in_turn(calls, rounds)
    ratio = lambda name: statistics.median(
        a / b for a, b in zip(seconds[name], seconds[OURS], strict=True)
    )
    case = {
        "sizes": list(sizes),
        "seconds": {name: [significant(s) for s in each] for name, each in seconds.items()},
        "ratios": {name: significant(ratio(name)) for name in calls if name != OURS},
        "temporary_bytes": temporary,
    }
    others = ", ".join(f"{name} {r:.2f}" for name, r in case["ratios"].items())
    say(f"T, B, H, V = {sizes}: {1e3 * statistics.median(seconds[OURS]):.3g} ms, {others}")
    return case


def compiled(loss: Callable[..., Any], problem: Problem) -> tuple[Callable[[], Any], int]:
    """A call that waits for the gradient, and the bytes of the program beside inputs and results."""
    arrays = [jnp.asarray(a) for a in problem]
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arrays).compile()
    analysis: Any = program.memory_analysis()
    return lambda: jax.block_until_ready(program(*arrays)), int(analysis.temp_size_in_bytes)
