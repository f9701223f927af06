"""What benchmarks.layers is to reach on a CPU, and how much of it was reached: all from the JSON."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.peers.problem import Shape

Found = dict[str, Any]


class Goal(NamedTuple):
    """A sentence; the least that a case asks for, None where it asks for nothing; and what it has."""

    says: str
    least: Callable[[Found, Shape], float | None]
    has: Callable[[Found], float | None]


def best(case: Found) -> Found:
    """The comparison with ours as it runs on all cores where the batch allows it, else as it is."""
    return case.get("cores", case)


def of_torch(case: Found) -> float | None:
    """Times as long as ours takes PyTorch."""
    return best(case)["ratios"].get("torch")


def of_fastest(case: Found) -> float | None:
    """And the fastest library on JAX, as its documents use it."""
    compared = best(case)
    return compared["ratios"].get(compared["fastest"])


def of_fastest_cores(case: Found) -> float | None:
    """And the fastest of those with the batch divided among all cores."""
    compared = case.get("cores", {"ratios": {}, "fastest_cores": None})
    return compared["ratios"].get(compared["fastest_cores"])


def backward(case: Found) -> bool:
    """Whether it is the gradient that was timed."""
    return case["kind"] == "forward+backward"


def to_torch_backward(case: Found, shape: Shape) -> float | None:
    """1, and 1.2 where the cell has less in it than an LSTM."""
    return (1.0 if case["cell"] == "LSTM" else 1.2) if backward(case) else None


def to_torch_forward(case: Found, shape: Shape) -> float | None:
    """Near 1; PyTorch stands on the floor of the matmuls where the layer is large."""
    return None if backward(case) else (0.88 if shape.features >= 512 else 0.95)


def to_fastest(case: Found, shape: Shape) -> float | None:
    """Less to gain where the matmuls are more of it."""
    return 1.5 if shape.features <= 128 else 1.2 if shape.features <= 256 else 1.05


GOALS = (
    Goal(
        "forward+backward, at least as fast as PyTorch (GRU and Elman: 1.2 times)",
        to_torch_backward,
        of_torch,
    ),
    Goal("forward, 0.95 of PyTorch (0.88 at H = 512)", to_torch_forward, of_torch),
    Goal(
        "1.5 times the fastest of the libraries on JAX, as their documents use them (H = 256: 1.2, "
        "H = 512: 1.05)",
        to_fastest,
        of_fastest,
    ),
    Goal(
        "1.1 times those with the batch divided as ours is, H ≤ 256",
        lambda case, shape: 1.1 if shape.features <= 256 else None,
        of_fastest_cores,
    ),
    Goal(
        "LSTM, B ≥ 32, forward+backward: 85 % of the rate of a large matmul (H = 128: 80 %)",
        lambda case, shape: (
            (0.8 if shape.features <= 128 else 0.85)
            if case["cell"] == "LSTM" and shape.batch >= 32 and backward(case)
            else None
        ),
        lambda case: best(case)["share_of_matmul_rate"],
    ),
)


class Verdict(NamedTuple):
    """Of a goal: how many cases it was asked of, and those that did not reach it, in words."""

    says: str
    asked: int
    missed: list[str]


def verdicts(results: Found) -> Iterator[Verdict]:
    """Each goal that any case was asked for; a case that was not measured is not asked."""
    for goal in GOALS:
        asked, missed = 0, []
        for case in results["cases"]:
            shape = Shape._make(case["shape"])
            least, has = goal.least(case, shape), goal.has(case)
            if least is None or has is None:
                continue
            asked += 1
            if has < least:
                kind = "" if "forward" in goal.says else f" {case['kind']}"
                missed.append(f"{case['cell']} {shape}{kind} ({has:.2f} of {least:g})")
        if asked:
            yield Verdict(goal.says, asked, missed)
