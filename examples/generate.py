"""Write text with a model that examples/char_lm.py trained, or score a text with it.

    python examples/generate.py --run runs/... --prompt "ROMEO:"
    python examples/generate.py --run runs/... --temperature 0.5 --top-p 0.9 --stream
    python examples/generate.py --run runs/... --score "To be, or not to be"

Writing draws token_{t+1} ~ p(· | token_1 … token_t) and feeds it back. A score is
log p = Σ_t log p(token_{t+1} | token_1 … token_t), in nats: the first token is the context of the
others and has none itself. Per token it is shown as a loss, -log p / tokens, and as its perplexity.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import seqjax as sj


@dataclasses.dataclass(frozen=True)
class Options:
    """Write text with a trained model, or score a text with it."""

    run: Path
    """The run folder that examples/char_lm.py made."""
    prompt: str = ""
    """The text to go on with; where it is empty the model starts after a newline, or after the first
    token of its vocabulary where that has no newline."""
    length: int = 400
    """How many tokens to write."""
    temperature: float = 0.8
    """Below 1 the model plays safe; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Draw only from the k likeliest tokens."""
    top_p: float | None = None
    """Draw only from the likeliest tokens that together have this probability."""
    seed: int = 0
    """Another seed, another text."""
    stop: str | None = None
    """Stop after this text, which is one token."""
    stream: bool = False
    """Show every character as soon as it is drawn."""
    score: str | None = None
    """Write nothing; show how likely the model finds this text."""


def main(options: Options) -> None:
    """Write or score."""
    model, params, tokenizer = load(options.run)
    if options.score is not None:
        print(score_table(model, params, tokenizer, options.score))
        return
    prompt = encode_prompt(tokenizer, options.prompt)
    tokens = write(model, params, prompt, stop_token(tokenizer, options.stop), options)
    pieces = tokenizer.stream()
    opening = "".join([pieces(token) for token in prompt.tolist()])
    print(opening if options.prompt else "", end="", flush=True)
    for token in tokens:
        print(pieces(token), end="", flush=options.stream)
    print(pieces.end())


def load(run: Path) -> tuple[sj.models.LanguageModel, Any, sj.data.Tokenizer]:
    """The model, its newest parameters and its tokenizer; a ValueError where they are not there."""
    config, checkpoints = run / "model.json", run / "checkpoints"
    if not config.is_file():
        raise ValueError(
            f"{run} is no run folder: it holds no model.json; examples/char_lm.py makes one"
        )
    if not checkpoints.is_dir():  # opening it would make it
        raise ValueError(
            f"{run} holds no checkpoint yet; the first comes with the first evaluation"
        )
    model = sj.training.from_config(json.loads(config.read_text("utf-8")))
    saved = sj.training.Checkpoints(checkpoints)
    params = saved.restore_params(jax.eval_shape(model.init, jax.random.key(0)))
    saved.close()
    return model, params, sj.data.load_tokenizer(run / "tokenizer.json")


def encode_prompt(tokenizer: sj.data.Tokenizer, prompt: str) -> np.ndarray:
    """The tokens of the prompt, at least one: there is no distribution before the first token."""
    ids = tokenizer.encode(prompt)
    if ids.size == 0:
        try:
            ids = tokenizer.encode("\n")
        except ValueError:
            ids = np.zeros(1, np.int32)
    return ids


def stop_token(tokenizer: sj.data.Tokenizer, text: str | None) -> int | None:
    """The token that ends a text."""
    if text is None:
        return None
    ids = tokenizer.encode(text)
    if ids.size != 1:
        raise ValueError(f"--stop: {text!r} is {ids.size} tokens to this model; expected one")
    return int(ids[0])


def write(
    model: sj.models.LanguageModel,
    params: Any,
    prompt: np.ndarray,
    stop: int | None,
    options: Options,
) -> Iterator[int]:
    """The tokens that follow the prompt: one by one as they are drawn, or from one compiled scan."""
    key = jax.random.key(options.seed)
    how: dict[str, Any] = {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "stop": stop,
    }
    if options.stream:
        return itertools.islice(sj.stream(model, params, key, prompt, **how), options.length)
    written = sj.generate(model, params, key, prompt, options.length, **how)
    return iter(np.asarray(written.tokens)[: int(written.lengths)].tolist())


def score_table(
    model: sj.models.LanguageModel, params: Any, tokenizer: sj.data.Tokenizer, text: str
) -> str:
    """The log p of each token and of all; nats and bits per token, and the perplexity."""
    ids = tokenizer.encode(text)
    if ids.size < 2:
        raise ValueError(
            f"--score: {text!r} has fewer than two tokens; the first is the context of the others"
        )
    log_probs = np.asarray(sj.score(model, params, ids).log_probs, np.float64)
    names = [repr(tokenizer.decode([token])) for token in ids]
    loss = -log_probs.mean()
    rows = [("token", "log p, nats"), (names[0], "given")]
    rows += [(name, f"{value:.3f}") for name, value in zip(names[1:], log_probs, strict=True)]
    rows += [
        ("total", f"{log_probs.sum():.3f}"),
        ("", ""),
        ("nats per token", f"{loss:.3f}"),
        ("bits per token", f"{loss / math.log(2):.3f}"),
        ("perplexity", f"{math.exp(loss):.3f}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>11}".rstrip() for name, value in rows)


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
