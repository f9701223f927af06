"""PyTorch: `nn.Embedding`, `nn.LSTM`, `nn.Linear`, `clip_grad_norm_`, `torch.optim.Adam`.

Its second bias is zero and stays so: Adam would move both, and their sum twice as far as one.
"""

import itertools

import numpy as np
import torch
from torch import nn

from benchmarks.peers.language import Step, Task
from benchmarks.peers.torch import start as start
from benchmarks.peers.torch import unpacked


class Model(nn.Module):
    """Logits of the token after each, and the state after the last."""

    def __init__(self, vocabulary: int, features: int, layers: int) -> None:
        """Weights as PyTorch draws them."""
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, features)
        self.lstm = nn.LSTM(features, features, num_layers=layers)
        self.readout = nn.Linear(features, vocabulary)

    def forward(self, ids, state):
        """ids: [time, batch]."""
        ys, state = self.lstm(self.embedding(ids), state)
        return self.readout(ys), state


def prepare(task: Task, device: str = "cpu") -> Step:
    """One update after another, op by op."""
    to = torch.device("cpu" if device == "cpu" else "cuda")
    model = Model(task.sizes.vocabulary, task.sizes.features, len(task.layers))
    weights = [
        task.embedding,
        *itertools.chain.from_iterable(map(unpacked, task.layers)),
        np.ascontiguousarray(task.readout_kernel.T),
        task.readout_bias,
    ]
    with torch.no_grad():
        for (name, parameter), array in zip(model.named_parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(array))
            parameter.requires_grad_("bias_hh" not in name)
    model.to(to)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=task.learning_rate)
    state = None
    windows = iter(torch.from_numpy(task.ids.astype(np.int64)))

    def step() -> float:
        nonlocal state
        ids = next(windows).to(to)
        optimizer.zero_grad()
        logits, after = model(ids[:-1], state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(trained, task.clip)
        optimizer.step()
        state = tuple(part.detach() for part in after)
        return loss.item()

    return step
