"""Flax: a linen module for one step of all layers, and a `lax.scan` over it, compiled as a whole."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from benchmarks.generate_problem import BEAM, GREEDY, Case, Model, Sizes, model_of
from benchmarks.peers import flax_linen
from benchmarks.peers.problem import Prepared


class Step(nn.Module):
    """Embedding, cells, readout: one token of each text."""

    cell: str
    layers: int
    features: int
    vocabulary: int

    def setup(self) -> None:
        """The modules, by the names that their params have."""
        make = flax_linen.CELLS[self.cell]
        self.embed = nn.Embed(self.vocabulary, self.features)
        self.cells = [make(self.features) for _ in range(self.layers)]
        self.readout = nn.Dense(self.vocabulary)

    def __call__(self, carries: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        """The states after the token, and the logits of the next one."""
        x, after = self.embed(token), []
        for cell, carry in zip(self.cells, carries, strict=True):
            carry, x = cell(carry, x)
            after.append(carry)
        return tuple(after), self.readout(x)


def prepare(case: Case, sizes: Sizes) -> Prepared:
    """A call that writes; its ids [tokens, batch], of beam search the best ones."""
    drawn = model_of(case, sizes)
    step = Step(case.cell, sizes.layers, sizes.features, case.vocabulary)
    write = jax.jit(beam_search(step, sizes) if case.way == BEAM else writing(step, case, sizes))
    params = jax.tree.map(jnp.asarray, {"params": unpacked(drawn)})
    prompt, key = jnp.asarray(drawn.prompt), jax.random.key(0)
    return Prepared(
        lambda: jax.block_until_ready(write(params, prompt, key)), lambda ids: [np.asarray(ids)]
    )


def unpacked(drawn: Model) -> dict[str, Any]:
    """The weights by the names of `Step`."""
    cells = {f"cells_{n}": flax_linen.unpacked(layer) for n, layer in enumerate(drawn.layers)}
    return {
        "embed": {"embedding": drawn.embedding},
        **cells,
        "readout": {"kernel": drawn.kernel, "bias": drawn.bias},
    }


def initial(step: Step, batch: int) -> Any:
    """Zeros, of each layer."""
    make = flax_linen.CELLS[step.cell]
    shape = batch, step.features
    carry = make(step.features, parent=None).initialize_carry(jax.random.key(0), shape)
    return (carry,) * step.layers


def writing(step: Any, case: Case, sizes: Sizes) -> Callable[..., Any]:
    """Greedy, or drawn of the k likeliest."""

    def choose(logits: jax.Array, key: jax.Array) -> jax.Array:
        if case.way == GREEDY:
            return jnp.argmax(logits, axis=-1)
        values, indices = lax.top_k(logits, min(sizes.top_k, case.vocabulary))
        choice = jax.random.categorical(key, values)
        return jnp.take_along_axis(indices, choice[:, None], axis=-1)[:, 0]

    def write(params: Any, prompt: jax.Array, key: jax.Array) -> jax.Array:
        def body(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            carries, token = carry
            carries, logits = step.apply(params, carries, token)
            token = choose(logits, key).astype(jnp.int32)
            return (carries, token), token

        start = initial(step, case.batch), prompt
        return lax.scan(body, start, jax.random.split(key, sizes.tokens))[1]

    return write


def beam_search(step: Any, sizes: Sizes) -> Callable[..., Any]:
    """The likeliest text that beam search finds, of a fixed length."""
    beams, length = sizes.beams, sizes.tokens

    def search(params: Any, prompt: jax.Array, key: jax.Array) -> jax.Array:
        batch = prompt.shape[0]
        rows = jnp.arange(batch)[:, None]

        def body(carry: Any, number: jax.Array) -> tuple[Any, None]:
            carries, token, scores, texts = carry
            carries, logits = step.apply(params, carries, token.reshape(-1))
            vocabulary = logits.shape[-1]
            log_p = jax.nn.log_softmax(logits).reshape(batch, beams, vocabulary)
            total = (scores[..., None] + log_p).reshape(batch, -1)
            scores, index = lax.top_k(total, beams)
            parent, token = index // vocabulary, index % vocabulary
            of_parent = lambda leaf: leaf.reshape(batch, beams, -1)[rows, parent].reshape(
                leaf.shape
            )
            texts = texts[rows, parent].at[:, :, number].set(token)
            return (jax.tree.map(of_parent, carries), token, scores, texts), None

        start = (
            initial(step, batch * beams),
            jnp.repeat(prompt[:, None], beams, axis=1),
            jnp.full((batch, beams), -jnp.inf).at[:, 0].set(0),  # one beginning, not several equal
            jnp.zeros((batch, beams, length), jnp.int32),
        )
        (_, _, _, texts), _ = lax.scan(body, start, jnp.arange(length))
        return texts[:, 0].T

    return search
