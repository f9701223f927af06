"""One process of benchmarks.parallel: a language model in training, on so many host devices."""

import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import seqjax as sj
from benchmarks.peers.timing import seconds_of
from benchmarks.peers.worker import serve
from seqjax.training.fit import compiled_update
from seqjax.training.sharded import on_cores, place

COMPARED = 5
"""Updates whose losses are compared between numbers of devices, before anything is timed."""


class Sizes(NamedTuple):
    """Units of the LSTM, width of an embedding, sequences of a batch, steps of a window."""

    features: int
    embedding: int
    batch: int
    time: int


def task(sizes: Sizes) -> tuple[sj.models.LanguageModel, Any, Any, sj.data.Windows]:
    """Model, optimizer, the state at the beginning and the windows of examples/char_lm.py."""
    text = sj.data.shakespeare()
    tokenizer = sj.data.CharTokenizer.train(text)
    lanes = sj.data.lanes(tokenizer.encode(text), sizes.batch)
    model = sj.models.LanguageModel(tokenizer.size, sj.LSTM(sizes.features), sizes.embedding)
    params = model.init(jax.random.key(0))
    optimizer = sj.optim.clipped_adamw(2e-3, clip_norm=1.0, weight_decay=0.01, b2=0.99)
    carry = model.initial_state(params, (sizes.batch,))
    state = sj.training.TrainState.create(params, optimizer, jax.random.key(1), carry)
    return model, optimizer, state, sj.data.Windows(lanes, sizes.time, restart=0.05)


class Trainer:
    """What is asked of the process."""

    def __init__(self, name: str) -> None:
        """name: the number of devices; they are made before JAX starts."""
        jax.config.update("jax_platforms", "cpu")
        if int(name) > 1:
            sj.training.use_cores(int(name))
        self.step: Any = None

    def prepare(self, *sizes: int) -> dict[str, Any]:
        """Compile the update of `sj.training.fit`, and make the first ones."""
        model, optimizer, state, windows = task(Sizes(*sizes))
        update = on_cores(sj.bptt).update(model.loss, optimizer)
        compiled = compiled_update(update)
        # A copy: its buffers are given away, and one zero may stand in many places.
        state = place(update, jax.tree.map(jnp.copy, state))

        def step() -> float:
            nonlocal state
            state, metrics = jax.block_until_ready(compiled(state, next(windows)))
            nats = jax.device_get(metrics)["nats"]
            return float(nats.total[0] / nats.count[0])

        self.step, start = step, time.perf_counter()
        first = step()
        seconds = time.perf_counter() - start
        losses = [first, *(step() for _ in range(COMPARED - 1))]
        return {"first_call_seconds": seconds, "losses": losses}

    def time(self, at_least: float) -> float:
        """Seconds of one update."""
        return seconds_of(self.step, at_least)


if __name__ == "__main__":
    serve(sys.argv[1], Trainer)
