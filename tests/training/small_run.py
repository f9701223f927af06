"""A small training run as a process of its own, for tests that kill it: `small_run.py DIRECTORY`."""

import functools
import json
import sys
from pathlib import Path

import jax

import seqjax as sj

STEPS, EVERY = 60, 5


def main(directory: Path) -> None:
    text = "the quick brown fox jumps over the lazy dog. " * 40
    tokenizer = sj.data.CharTokenizer.train(text)
    train, valid = sj.data.split(tokenizer.encode(text))
    model = sj.models.LanguageModel(tokenizer.size, sj.Dropout(sj.GRU(8), 0.2), 4, dropout=0.1)
    params = model.init(jax.random.key(1))
    optimizer = sj.optim.clipped_adamw(1e-2, clip_norm=0.5)
    carry = model.initial_state(params, (4,), key=jax.random.key(3))
    state = sj.training.TrainState.create(params, optimizer, jax.random.key(2), carry)
    lanes = sj.data.lanes(valid, 4)
    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        sj.data.Windows(sj.data.lanes(train, 4), 8, windows_per_batch=2),
        steps=STEPS,
        method=sj.tbptt(8),
        evaluate=lambda p: sj.training.evaluate(
            model.loss, p, model.initial_state(p, (4,)), [lanes]
        ),
        evaluate_every=EVERY,
        log_every=2,
        directory=directory,
    )
    if result.interrupted:
        print("interrupted", int(result.state.step), flush=True)
        return
    total = functools.reduce(
        lambda sum_, leaf: sum_ + float(abs(leaf).sum()),
        jax.tree.leaves((result.state.params, result.state.carry.cell)),
        0.0,
    )
    (directory / "result.json").write_text(json.dumps({"total": total.hex()}))
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
