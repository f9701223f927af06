"""PyTorch: `nn.LSTM`, `nn.GRU`, `nn.RNN`; its two biases add up to ours."""

from typing import Any

import numpy as np
import torch

from benchmarks.peers.problem import GATES, Prepared, Problem, split

CELLS = {"LSTM": "LSTM", "GRU": "GRU", "Elman": "RNN"}


def prepare(problem: Problem, kind: str, device: str = "cpu") -> Prepared:
    """A layer under inference mode, or its outputs and a backward pass."""
    on_gpu = device != "cpu"
    to = torch.device("cuda" if on_gpu else "cpu")
    layer = getattr(torch.nn, CELLS[problem.cell])(problem.xs.shape[-1], problem.features).to(to)
    with torch.no_grad():
        for parameter, array in zip(layer.parameters(), unpacked(problem), strict=True):
            parameter.copy_(torch.from_numpy(array))
    xs = torch.from_numpy(problem.xs).to(to)

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def forward() -> Any:
        with torch.inference_mode():
            ys, _ = layer(xs)
        wait()
        return ys

    def gradient() -> Any:
        layer.zero_grad()
        ys, _ = layer(xs)
        ys.square().mean().backward()
        wait()
        return [parameter.grad for parameter in layer.parameters()]

    if kind == "forward":
        return Prepared(forward, lambda ys: [ys.cpu().numpy()])
    return Prepared(
        gradient, lambda grads: packed(problem.cell, [grad.cpu().numpy() for grad in grads])
    )


def unpacked(problem: Problem) -> list[np.ndarray]:
    """Kernels transposed, in our order; the bias at x, and at h only c_n."""
    W, U, b, *inner = problem.weights
    at_h = 0 * b
    if inner:
        at_h[-problem.features :] = inner[0]
    return [np.ascontiguousarray(W.T), np.ascontiguousarray(U.T), b, at_h]


def packed(cell: str, grads: list[np.ndarray]) -> list[np.ndarray]:
    """Gradients back in our order."""
    W, U, at_x, at_h = grads
    inner = [split(at_h, GATES[cell])["n"]] if cell == "GRU" else []
    return [W.T, U.T, at_x, *inner]


def start(device: str, threads: int) -> dict[str, Any]:
    """Take all cores, and say so; this process has nothing else to do.

    Raises a RuntimeError where a GPU is asked for and it finds none.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise RuntimeError(f"PyTorch {torch.__version__} finds no GPU")
    torch.set_num_threads(threads)
    return {
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cudnn.allow_tf32 if device != "cpu" else None,
    }
