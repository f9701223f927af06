"""Haiku: `hk.dynamic_unroll` inside `hk.transform`, `apply` under jit.

Its LSTM adds 1 to f in the step; its GRU resets before the recurrent matmul; its VanillaRNN has relu.
"""

from collections.abc import Callable
from typing import Any

import haiku as hk
import numpy as np

from benchmarks.peers.on_jax import prepared
from benchmarks.peers.problem import GATES, Prepared, Problem, join, split

CELLS: dict[str, Any] = {"LSTM": hk.LSTM, "GRU": hk.GRU, "Elman": hk.VanillaRNN}


def prepare(problem: Problem, kind: str) -> Prepared:
    """A layer, or its gradient, under jit."""

    def run(xs: Any) -> Any:
        core = CELLS[problem.cell](problem.features)
        ys, _ = hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))
        return ys

    layer = hk.without_apply_rng(hk.transform(run))
    params, weights = PARAMS[problem.cell](problem)
    return prepared(layer.apply, params, problem.xs, kind, weights)


Params = tuple[dict[str, Any], Callable[[Any], list[np.ndarray]]]


def lstm(problem: Problem) -> Params:
    """One kernel for x and h together, in the order i, g, f, o."""
    order = ("i", "g", "f", "o")
    both = split(np.concatenate([problem.input_kernel, problem.recurrent_kernel]), GATES["LSTM"])
    bias = split(problem.bias, GATES["LSTM"])
    bias["f"] = bias["f"] - 1

    def weights(grads: Any) -> list[np.ndarray]:
        linear = grads["lstm/linear"]
        W, b = (join(split(linear[name], order), GATES["LSTM"]) for name in ("w", "b"))
        return [*np.split(W, [len(problem.input_kernel)]), b]

    return {"lstm/linear": {"w": join(both, order), "b": join(bias, order)}}, weights


def gru(problem: Problem) -> Params:
    """In the order z, r, a; where z is 1 the candidate is taken, and σ(-z) = 1 - σ(z)."""
    order = ("z", "r", "n")

    def turned(packed: np.ndarray, come: tuple[str, ...], go: tuple[str, ...]) -> np.ndarray:
        blocks = split(packed, come)
        return join(blocks | {"z": -blocks["z"]}, go)

    names = ("w_i", "w_h", "b")
    params = {
        name: turned(a, GATES["GRU"], order)
        for name, a in zip(names, problem.weights[:3], strict=True)
    }
    weights = lambda grads: [turned(grads["gru"][name], order, GATES["GRU"]) for name in names]
    return {"gru": params}, weights


def elman(problem: Problem) -> Params:
    """A linear layer of x and one of h, each with a bias."""
    params = {
        "vanilla_rnn/linear": {"w": problem.input_kernel, "b": problem.bias},
        "vanilla_rnn/linear_1": {"w": problem.recurrent_kernel, "b": 0 * problem.bias},
    }
    of_x, of_h = params
    return params, lambda grads: [grads[of_x]["w"], grads[of_h]["w"], grads[of_x]["b"]]


PARAMS: dict[str, Callable[[Problem], Params]] = {"LSTM": lstm, "GRU": gru, "Elman": elman}
