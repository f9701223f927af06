"""How many characters a second a trained model writes, one text at a time.

    python -m benchmarks.generation_rate RUN      RUN: a run folder of examples/char_lm.py

The last line is JSON.
"""

import dataclasses
import importlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import tyro

import seqjax as sj
from benchmarks.processes import ROOT


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure how fast a trained model writes, one text at a time."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder of examples/char_lm.py."""
    characters: int = 2000
    """The length of the text that one call writes."""
    calls: int = 5
    """Calls that are timed, after one that is not; the median counts."""


class Trained(NamedTuple):
    """What a run folder holds."""

    model: sj.models.LanguageModel
    params: Any
    tokenizer: sj.data.Tokenizer
    temperature: float


def main(options: Options) -> None:
    """Load, write, and print the rates."""
    trained = load(options.run)
    prompt = trained.tokenizer.encode("\n")
    arguments = (trained.model, trained.params)

    def scanned(key: jax.Array) -> Any:
        return sj.generate(
            *arguments, key, prompt, options.characters, temperature=trained.temperature
        )

    def streamed(key: jax.Array) -> Any:
        tokens = sj.stream(*arguments, key, prompt, temperature=trained.temperature)
        return list(itertools.islice(tokens, options.characters))

    device = jax.devices()[0]
    result = {
        "characters": options.characters,
        "calls": options.calls,
        "temperature": trained.temperature,
        "generate": rate(scanned, options),
        "stream": rate(streamed, options),
        "parameters": sj.summary(*arguments).size,
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
    }
    print(json.dumps(result))


def rate(write: Callable[[jax.Array], Any], options: Options) -> dict[str, Any]:
    """Characters a second: the median of calls after the first, each blocked until it is ready."""
    seconds = []
    for key in jax.block_until_ready(jax.random.split(jax.random.key(0), options.calls + 1)):
        start = time.perf_counter()
        jax.block_until_ready(write(key))
        seconds.append(time.perf_counter() - start)
    return {
        "characters_per_second": round(options.characters / statistics.median(seconds[1:]), 1),
        "first_call_seconds": round(seconds[0], 4),
        "seconds": [round(value, 4) for value in seconds[1:]],
    }


def load(run: Path) -> Trained:
    """The model of a run folder, with the parameters of its newest checkpoint.

    Raises a ValueError where the folder holds no run.
    """
    if not (run / "model.json").is_file():
        raise ValueError(f"{run} holds no model.json; expected a run folder of examples/char_lm.py")
    char_lm = example("char_lm")
    options = char_lm.Options(**json.loads((run / "options.json").read_text("utf-8")))
    model = sj.training.from_config(json.loads((run / "model.json").read_text("utf-8")))

    def before_training() -> sj.training.TrainState:
        params = model.init(jax.random.key(0))
        carry = model.initial_state(params, (options.lanes,))
        optimizer = char_lm.make_optimizer(options)
        return sj.training.TrainState.create(params, optimizer, jax.random.key(0), carry)

    checkpoints = sj.training.Checkpoints(run / "checkpoints")
    # The target of a checkpoint is the whole training state; its shapes are enough.
    state, _ = checkpoints.restore(jax.eval_shape(before_training))
    checkpoints.close()
    tokenizer = sj.data.load_tokenizer(run / "tokenizer.json")
    return Trained(model, state.params, tokenizer, options.temperature)


def example(name: str) -> Any:
    """A script of examples/ as a module."""
    sys.path.insert(0, str(ROOT / "examples"))
    return importlib.import_module(name)


if __name__ == "__main__":
    main(tyro.cli(Options))
