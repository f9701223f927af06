"""The process of benchmarks.soak: it trains on all cores and says so; its last line is its result."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

import seqjax as sj
from benchmarks.parallel_run import Sizes, task

SAMPLE = 100
"""Characters that are written after each evaluation."""


def told(windows: sj.data.Windows, every: int) -> Iterator[Any]:
    """The windows; before every so many of them how many are done."""
    for done, window in enumerate(windows):
        if done % every == 0:
            print(json.dumps({"done": done}), flush=True)
        yield window


def main(cores: int, steps: int, every: int, evaluations: int, *sizes: int) -> None:
    """Train, look at the model now and then as examples/char_lm.py does, and say how it went."""
    print(json.dumps({"cores": sj.training.use_cores(cores)}), flush=True)
    model, optimizer, state, windows = task(Sizes(*sizes))
    start = time.perf_counter()
    before = windows.get_state()
    held_out = [next(windows)]
    windows.set_state(before)

    def evaluate(params: Any) -> dict[str, float]:
        carry = model.initial_state(params, (Sizes(*sizes).batch,))
        return sj.training.evaluate(model.loss, params, carry, held_out)

    def write(state: sj.training.TrainState) -> None:
        key = jax.random.fold_in(jax.random.key(2), state.step)
        sj.generate(model, state.params, key, held_out[0].inputs[:1, 0], SAMPLE)

    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        told(windows, every),
        steps=steps,
        evaluate=evaluate,
        evaluate_every=max(1, steps // evaluations),
        on_evaluation=write,
        display=False,
    )
    nats = [record["train/nats"] for record in result.records if "train/nats" in record]
    print(
        json.dumps(
            {
                "steps": int(result.state.step),
                "devices": jax.local_device_count(),
                "seconds": time.perf_counter() - start,
                "evaluations": sum("valid/nats" in record for record in result.records),
                "first_nats": nats[0],
                "last_nats": nats[-1],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
