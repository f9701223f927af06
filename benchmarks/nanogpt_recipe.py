"""The peer: nanoGPT's recipe for characters of Shakespeare on a CPU, written anew in PyTorch.

    python -m benchmarks.nanogpt_recipe

A transformer of 0.8 million weights, 2,000 updates. The settings are those that the README of
karpathy/nanoGPT gives for a machine without a GPU, and its defaults where the README gives none; the
end that it publishes is 1.88 nats per character. Its checkpoints are left out, which would only cost
it time. The last line is JSON.
"""

import dataclasses
import gzip
import json
import math
import sys
import time
from typing import Any

_START = time.perf_counter()
try:
    import torch
except ImportError:
    sys.exit(
        "PyTorch is not installed, so its recipe cannot be run; expected torch, as "
        "`pip install seqjax[interop]` installs it"
    )
IMPORT_SECONDS = time.perf_counter() - _START

import tyro  # noqa: E402 - the import of torch is timed by itself
from torch import Tensor, nn  # noqa: E402 - as above
from torch.nn.functional import cross_entropy, scaled_dot_product_attention  # noqa: E402 - as above

from benchmarks.processes import ROOT  # noqa: E402 - as above

TEXT = ROOT / "seqjax" / "data" / "assets" / "tinyshakespeare.txt.gz"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """nanoGPT's CPU recipe for characters of Shakespeare; other values are no longer the recipe."""

    layers: int = 4
    """Blocks of attention and perceptron."""
    heads: int = 4
    """Heads of attention in each."""
    width: int = 128
    """Features of each position."""
    context: int = 64
    """Characters that a prediction can see."""
    batch: int = 12
    """Windows of `context` characters, drawn anywhere, in one update."""
    iterations: int = 2000
    """Updates; the learning rate falls until the last."""
    learning_rate: float = 1e-3
    """The highest learning rate."""
    least_learning_rate: float = 1e-4
    """The learning rate in the end."""
    warm_up: int = 100
    """Updates until the learning rate is at its highest."""
    beta2: float = 0.99
    """AdamW's decay of squared gradients."""
    weight_decay: float = 0.1
    """Of matrices, embeddings included; not of the scales of the norms."""
    clip: float = 1.0
    """The largest global norm of a gradient."""
    evaluate_every: int = 250
    """Updates between evaluations, of both parts of the text."""
    evaluation_batches: int = 20
    """Random batches of each part in one evaluation."""
    seed: int = 1337
    """Everything random follows from it."""


class Attention(nn.Module):
    """Causal self-attention by heads, without biases."""

    def __init__(self, recipe: Recipe) -> None:
        """One matrix for queries, keys and values together, one for the way out."""
        super().__init__()
        self.heads = recipe.heads
        self.inward = nn.Linear(recipe.width, 3 * recipe.width, bias=False)
        self.outward = nn.Linear(recipe.width, recipe.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, time, width]."""
        by_head = self.inward(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = by_head.unbind()
        heard = scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.outward(heard.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """x ← x + attention(norm(x)); x ← x + perceptron(norm(x))."""

    def __init__(self, recipe: Recipe) -> None:
        """The perceptron is four times as wide inside."""
        super().__init__()
        width = recipe.width
        self.before_attention = nn.LayerNorm(width, bias=False)
        self.attention = Attention(recipe)
        self.before_perceptron = nn.LayerNorm(width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, time, width]."""
        x = x + self.attention(self.before_attention(x))
        return x + self.narrow(nn.functional.gelu(self.widen(self.before_perceptron(x))))


class Transformer(nn.Module):
    """Learned positions, blocks, a last norm, and a readout that is the embedding itself."""

    def __init__(self, recipe: Recipe, vocabulary: int) -> None:
        """Matrices from N(0, 0.02²), those that write into the residual stream 1/√(2 layers) of it."""
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, recipe.width)
        self.positions = nn.Embedding(recipe.context, recipe.width)
        self.blocks = nn.ModuleList(Block(recipe) for _ in range(recipe.layers))
        self.norm = nn.LayerNorm(recipe.width, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into_stream = name.endswith(("outward.weight", "narrow.weight"))
                scale = (2 * recipe.layers) ** -0.5 if into_stream else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int[batch, time] -> the logits of the character after each, [batch, time, vocabulary]."""
        x = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return nn.functional.linear(self.norm(x), self.embedding.weight)

    def loss(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """-log p of the targets, in nats."""
        return cross_entropy(self(ids).flatten(0, 1), targets.flatten(), reduction=reduction)


def main(recipe: Recipe) -> None:
    """Train as the recipe does, then read the whole of the held-out text."""
    train_ids, valid_ids, vocabulary = read_text()
    torch.manual_seed(recipe.seed)
    model = Transformer(recipe, vocabulary)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{parameters:,} parameters, {torch.get_num_threads()} threads", flush=True)
    start = time.perf_counter()
    curve = train(model, recipe, train_ids, valid_ids, start)
    seconds = time.perf_counter() - start
    nats = whole_text_loss(model, recipe, valid_ids)
    print(
        f"{seconds:.1f} s of training, its evaluations included; import took {IMPORT_SECONDS:.1f} s\n"
        f"{nats:.4f} nats per character over the whole of the held-out text"
    )
    result = {
        "iterations": recipe.iterations,
        "seed": recipe.seed,
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "import_seconds": round(IMPORT_SECONDS, 3),
        "seconds": round(seconds, 3),
        "recipe_nats": curve[-1]["nats"],
        "nats": round(nats, 5),
        "curve": curve,
    }
    print(json.dumps(result))


def read_text() -> tuple[Tensor, Tensor, int]:
    """The first 90 % of the characters, the last 10 %, and the size of the vocabulary."""
    text = gzip.decompress(TEXT.read_bytes()).decode("utf-8")
    characters = sorted(set(text))
    index = {character: i for i, character in enumerate(characters)}
    ids = torch.tensor([index[character] for character in text])
    first = int(0.9 * len(ids))
    return ids[:first], ids[first:], len(characters)


def train(
    model: Transformer, recipe: Recipe, train_ids: Tensor, valid_ids: Tensor, start: float
) -> list[dict[str, Any]]:
    """All updates, with evaluations before the first, on the way, and after the last."""
    optimizer = make_optimizer(model, recipe)
    curve = []
    for iteration in range(recipe.iterations + 1):
        if iteration % recipe.evaluate_every == 0 or iteration == recipe.iterations:
            of_train, of_valid = (estimate(model, recipe, ids) for ids in (train_ids, valid_ids))
            seconds = time.perf_counter() - start
            curve.append(
                {"step": iteration, "seconds": round(seconds, 3), "nats": round(of_valid, 5)}
            )
            print(
                f"step {iteration:>6}  {seconds:5.1f} s  nats {of_valid:.3f}, {of_train:.3f} on what "
                "it learns from",
                flush=True,
            )
        if iteration == recipe.iterations:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, iteration)
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(*draw_batch(recipe, train_ids))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
    return curve


def make_optimizer(model: Transformer, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW that decays matrices only."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, recipe.beta2))


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """A straight rise, then half a cosine down to the least."""
    if iteration < recipe.warm_up:
        return recipe.learning_rate * (iteration + 1) / (recipe.warm_up + 1)
    share = (iteration - recipe.warm_up) / (recipe.iterations - recipe.warm_up)
    height = (1 + math.cos(math.pi * share)) / 2
    return recipe.least_learning_rate + height * (recipe.learning_rate - recipe.least_learning_rate)


def draw_batch(recipe: Recipe, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Windows that begin anywhere, and the characters after each of theirs."""
    starts = torch.randint(len(ids) - recipe.context, (recipe.batch, 1))
    windows = ids[starts + torch.arange(recipe.context + 1)]
    return windows[:, :-1], windows[:, 1:]


@torch.no_grad()
def estimate(model: Transformer, recipe: Recipe, ids: Tensor) -> float:
    """The mean loss of random batches: the recipe's own evaluation."""
    batches = (draw_batch(recipe, ids) for _ in range(recipe.evaluation_batches))
    return sum(model.loss(*batch).item() for batch in batches) / recipe.evaluation_batches


@torch.no_grad()
def whole_text_loss(model: Transformer, recipe: Recipe, ids: Tensor) -> float:
    """The mean loss over every character but the first, each predicted once.

    The text is cut into windows that do not overlap, so that a character has up to `context`
    characters before it, as in training.
    """
    pairs = len(ids) - 1
    whole = pairs - pairs % recipe.context
    windows = [
        (ids[:whole].view(-1, recipe.context), ids[1 : whole + 1].view(-1, recipe.context)),
        (ids[whole:-1].view(1, -1), ids[whole + 1 :].view(1, -1)),
    ]
    total = 0.0
    for inputs, targets in windows:
        for few, after in zip(inputs.split(64), targets.split(64), strict=True):
            total += model.loss(few, after, reduction="sum").item() if few.numel() else 0.0
    return total / pairs


if __name__ == "__main__":
    main(tyro.cli(Recipe))
