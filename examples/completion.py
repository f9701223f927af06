"""Complete words letter by letter: a character model of three words, and a symbol that ends them.

    python examples/completion.py
    python examples/completion.py --starts de le mach

    h_t = tanh(x_t W + h_{t-1} U + b),  x_t = E[letter_t]
    p(next | letters so far) = softmax(h_t V + a)

"deep", "learn" and "machine" are read side by side as tokens [time, batch] = [7, 3], each padded
to the longest and masked; the targets are the letters one step on, and the stop symbol after the
last. "e" in "deep" is followed by another "e" once and by "p" then: the answer is in the state, not
in the letter. After seconds each first letter is completed to its word, every letter with a
probability near 1; the table shows them all.
"""

import dataclasses
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj

STOP = "\n"


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a character model on a few words, and let it complete their beginnings."""

    words: tuple[str, ...] = ("deep", "learn", "machine")
    """The words to learn."""
    starts: tuple[str, ...] = ("d", "l", "m")
    """The beginnings to complete."""
    features: int = 16
    """The width of the hidden state."""
    embedding: int = 8
    """The width of a letter's embedding."""
    steps: int = 150
    """Updates of the parameters, each from all the words."""
    learning_rate: float = 0.03
    """The step size of AdamW."""
    seed: int = 0
    """Everything random follows from it."""
    display: bool = True
    """Show progress while it trains."""


class Completion(NamedTuple):
    """A completed word, and how the model came to it.

    probabilities: [vocabulary, steps]: column t is p(· | the first t + 1 letters).
    """

    word: str
    probabilities: np.ndarray


def batch_of(words: tuple[str, ...], tokenizer: sj.data.Tokenizer) -> sj.data.Batch:
    """The words side by side, [time, words]: each letter, and what follows it."""
    lengths = np.array([len(word) for word in words])
    symbols = np.zeros((lengths.max() + 1, len(words)), np.int32)
    for column, word in enumerate(words):
        symbols[: len(word) + 1, column] = tokenizer.encode(word + STOP)
    step = np.arange(lengths.max())[:, None]
    first = np.broadcast_to(step == 0, (lengths.max(), len(words)))
    return sj.data.Batch(symbols[:-1], symbols[1:], mask=step < lengths, resets=first)


def complete(
    model: sj.models.LanguageModel, params: Any, tokenizer: sj.data.Tokenizer, start: str
) -> Completion:
    """The likeliest letter again and again, until the stop symbol or 20 letters."""
    stop = int(tokenizer.encode(STOP)[0])
    unused = jax.random.key(0)  # the likeliest letter needs no chance
    prompt = tokenizer.encode(start)
    written = sj.generate(model, params, unused, prompt, 20, temperature=0.0, stop=stop)
    word = start + tokenizer.decode(written.tokens[: int(written.lengths)]).removesuffix(STOP)
    letters = jnp.asarray(tokenizer.encode(word))
    _, logits = model.apply(params, model.initial_state(params), letters)
    return Completion(word, np.asarray(jax.nn.softmax(logits)).T)


def table(tokenizer: sj.data.CharTokenizer, completion: Completion) -> str:
    """A row for each symbol, a column for each letter that has been read."""
    names = ["stop" if c == STOP else c for c in tokenizer.characters]
    rows = ["after   " + "".join(f"{letter:>7}" for letter in completion.word)]
    for name, row in zip(names, completion.probabilities, strict=True):
        rows.append(f"p({name})".ljust(8) + "".join(f"{p:7.3f}" for p in row))
    return "\n".join(rows)


def main(options: Options) -> dict[str, Completion]:
    """Train, complete each beginning, print its table, and give the completions."""
    letters = "".join(sorted(set("".join(options.words))))
    for start in options.starts:
        if not start or set(start) - set(letters):
            raise ValueError(f"--starts: {start!r}: expected one or more of the letters {letters}")
    tokenizer = sj.data.CharTokenizer.train(letters + STOP)
    model = sj.models.LanguageModel(tokenizer.size, sj.Elman(options.features), options.embedding)
    params_key, fit_key = jax.random.split(jax.random.key(options.seed))
    params = model.init(params_key)
    optimizer = sj.optim.clipped_adamw(options.learning_rate)
    carry = model.initial_state(params, (len(options.words),))
    state = sj.training.TrainState.create(params, optimizer, fit_key, carry)
    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        [batch_of(options.words, tokenizer)],
        steps=options.steps,
        display=options.display,
    )
    if result.interrupted:
        sys.exit(130)
    completions = {}
    for start in options.starts:
        completions[start] = complete(model, result.state.params, tokenizer, start)
        print(f"\n{start} -> {completions[start].word}\n{table(tokenizer, completions[start])}")
    return completions


if __name__ == "__main__":
    from command_line import run

    run(main, Options)
