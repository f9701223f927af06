"""Train a recurrent language model on a text, watch it learn to write, and let it write.

    python examples/char_lm.py                      the embedded Shakespeare, two minutes on two cores
    python examples/char_lm.py --resume runs/...    go on where a run stopped

Your own data: --data FILE, text in UTF-8; --tokenizer bytes for any other file, words or bpe with
--vocabulary for long texts.

A run folder keeps the configuration, the vocabulary, checkpoints, a log and the curves;
examples/generate.py reads it.
"""

import dataclasses
import datetime
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax

import seqjax as sj

CELLS = {
    "lstm": sj.LSTM,
    "peephole-lstm": sj.PeepholeLSTM,
    "cifg": sj.CIFG,
    "slstm": sj.SLSTM,
    "gru": sj.GRU,
    "cho-gru": sj.ChoGRU,
    "mgu": sj.MGU,
    "elman": sj.Elman,
    "clockwork": sj.ClockworkRNN,
    "diagonal-lstm": sj.DiagonalLSTM,
    "diagonal-gru": sj.DiagonalGRU,
    "min-lstm": sj.MinLSTM,
    "min-gru": sj.MinGRU,
    "lru": sj.LRU,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a recurrent language model with truncated backpropagation through time."""

    data: Path | None = None
    """A text file, UTF-8; the embedded Shakespeare where there is none."""
    tokenizer: Literal["chars", "bytes", "words", "bpe"] = "chars"
    """What a token is; words and bpe learn a vocabulary of `vocabulary` tokens."""
    vocabulary: int = 4096
    """The size of a vocabulary of words or bpe."""
    cell: Literal[tuple(CELLS)] = "lstm"
    """The recurrent cell; docs/cells.md says what each is. The linear ones, and those with a diagonal
    recurrence, want several layers."""
    features: int = 320
    """The width of each layer."""
    layers: int = 1
    """The number of layers."""
    embedding: int = 64
    """The width of a token's embedding."""
    dropout: float = 0.0
    """The rate at which entries of embeddings and outputs are dropped while training."""
    lanes: int = 32
    """Stretches of text read side by side: the batch."""
    window: int = 48
    """Steps between updates, and how far back a gradient reaches."""
    restart: float = 0.05
    """The share of lanes that begin a window from the initial state, as a sample does."""
    steps: int = 1100
    """Updates of the parameters."""
    learning_rate: float = 8e-3
    """The highest learning rate; it warms up over a tenth of the run and falls to nothing."""
    clip: float = 1.0
    """The largest global norm of a gradient."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    evaluations: int = 5
    """How often the held-out last tenth of the text is read, with a sample after it."""
    sample: int = 400
    """How many tokens are written in the end; samples on the way are half as long."""
    temperature: float = 0.8
    """Below 1 the model plays safe; 0 always takes the likeliest token."""
    cores: int = 1
    """How many cores share the lanes; 0 takes all, as far as each has as many."""
    seed: int = 0
    """Everything random follows from it."""
    run: Path | None = None
    """The run folder; runs/<cell>-<date>-<time> where it is not given."""
    resume: Path | None = None
    """A run folder to go on with; its own options are taken, all others here are ignored."""


def main(options: Options) -> None:
    """Set up, train, and write."""
    run, options = find_run(options)
    if options.cores != 1:
        sj.training.use_cores(options.cores or None, batch=options.lanes)
    text_ids, tokenizer = read_data(options, run)
    train_ids, valid_ids = sj.data.split(text_ids)
    windows = sj.data.Windows(
        sj.data.lanes(train_ids, options.lanes), options.window, restart=options.restart
    )
    model = make_model(options, tokenizer.size)

    init_key, fit_key, sample_key = jax.random.split(jax.random.key(options.seed), 3)
    params = model.init(init_key)
    optimizer = make_optimizer(options)
    carry = model.initial_state(params, (options.lanes,))
    state = sj.training.TrainState.create(params, optimizer, fit_key, carry)
    keep(run, options, model, tokenizer)
    print(
        f"{len(train_ids):,} tokens to learn from, {len(valid_ids):,} to check, "
        f"{tokenizer.size} in the vocabulary\n"
        f"{sj.summary(model, params).size:,} parameters; everything goes into {run}\n",
        flush=True,
    )

    prompt = opening(tokenizer, train_ids)

    def write(state: sj.training.TrainState, length: int) -> str:
        key = jax.random.fold_in(sample_key, state.step)
        written = sj.generate(
            model, state.params, key, prompt, length, temperature=options.temperature
        )
        return tokenizer.decode(written.tokens)

    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        windows,
        steps=options.steps,
        evaluate=functools.partial(evaluate, model, valid_ids),
        evaluate_every=max(1, options.steps // options.evaluations),
        on_evaluation=lambda state: indent(write(state, max(1, options.sample // 2))),
        directory=run,
    )
    if result.interrupted:
        print(f"\nstopped and saved; go on with\n  {' '.join(again(run))}")
        sys.exit(130)
    print(f"\n{write(result.state, options.sample)}\n")
    print(f"curves: {run / 'curves.png'}   log: {run / 'log.jsonl'}")
    print(f"write more: python examples/generate.py --run {run}")


def find_run(options: Options) -> tuple[Path, Options]:
    """The run folder, which is not made yet, or the one to go on with and its own options."""
    if options.resume is not None:
        file = options.resume / "options.json"
        if not file.is_file():
            raise ValueError(f"{options.resume} is no run folder: it holds no options.json")
        stored = json.loads(file.read_text("utf-8"))
        stored["data"] = stored["data"] and Path(stored["data"])
        return options.resume, Options(**stored)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    run = options.run or Path("runs") / f"{options.cell}-{stamp}"
    if (run / "options.json").exists():
        raise ValueError(f"{run} holds a run; go on with it by --resume {run}, or name another")
    return run, options


def keep(
    run: Path, options: Options, model: sj.models.LanguageModel, tokenizer: sj.data.Tokenizer
) -> None:
    """Make the run folder, once everything is known to fit together."""
    run.mkdir(parents=True, exist_ok=True)
    stored = dataclasses.asdict(options) | {"run": None, "resume": None}
    stored["data"] = options.data and os.fspath(options.data.absolute())
    tokenizer.save(run / "tokenizer.json")
    sj.training.write_json(run / "model.json", sj.training.to_config(model))
    sj.training.write_json(run / "options.json", stored)


def read_data(options: Options, run: Path) -> tuple[np.ndarray, sj.data.Tokenizer]:
    """The text as token ids, by the vocabulary of the run folder or a new one."""
    vocabulary = run / "tokenizer.json"
    known = sj.data.load_tokenizer(vocabulary) if vocabulary.exists() else None
    if options.tokenizer == "bytes" and options.data is not None:
        anything = sj.data.ByteTokenizer()
        return anything.encode(sj.data.read_bytes(options.data)), anything
    text = sj.data.shakespeare() if options.data is None else sj.data.read_text(options.data)
    tokenizer = make_tokenizer(options, text) if known is None else known
    return tokenizer.encode(text), tokenizer


def make_tokenizer(options: Options, text: str) -> sj.data.Tokenizer:
    """The tokenizer that the options ask for, trained on the text."""
    match options.tokenizer:
        case "chars":
            return sj.data.CharTokenizer.train(text)
        case "bytes":
            return sj.data.ByteTokenizer()
        case "words":
            return sj.data.WordTokenizer.train(text, options.vocabulary)
        case "bpe":
            return sj.data.BPETokenizer.train(text, options.vocabulary)


def opening(tokenizer: sj.data.Tokenizer, ids: np.ndarray) -> np.ndarray:
    """What a sample goes on from: a newline, or the first token of a text that has none."""
    try:
        return tokenizer.encode("\n")[:1]
    except ValueError:
        return ids[:1]


def make_model(options: Options, vocabulary: int) -> sj.models.LanguageModel:
    """The model that the options describe."""
    layer = CELLS[options.cell](options.features)
    cell = layer if options.layers == 1 else sj.Stack((layer,) * options.layers)
    return sj.models.LanguageModel(vocabulary, cell, options.embedding, options.dropout)


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """AdamW, clipped, under a learning rate that rises and falls."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, max(1, options.steps // 10), options.steps
    )
    return sj.optim.clipped_adamw(
        schedule, clip_norm=options.clip, weight_decay=options.weight_decay, b2=0.99
    )


def evaluate(model: sj.models.LanguageModel, ids: np.ndarray, params: Any) -> dict[str, float]:
    """Every held-out token once, in up to 32 lanes, a thousand steps at a time."""
    lanes = sj.data.lanes(ids, min(32, len(ids) - 1))
    carry = model.initial_state(params, lanes.inputs.shape[1:])
    return sj.training.evaluate(model.loss, params, carry, sj.data.passes(lanes, 1024))


def indent(text: str) -> str:
    """A text set off from the lines around it."""
    return "\n".join(f"    {line}" for line in text.splitlines()) + "\n"


def again(run: Path) -> list[str]:
    """The command that goes on with a run."""
    return ["python", "examples/char_lm.py", "--resume", os.fspath(run)]


if __name__ == "__main__":
    from command_line import run

    run(main, Options, cores=0)
