"""Synthetic tasks with one long dependency: the adding problem, the copy task, parity.

Each function draws a batch from a key, also under `jax.jit` with static lengths and batch size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from seqjax import checks


class AddingBatch(NamedTuple):
    """Values (channel 0) and markers (channel 1); the target and the mask are at the last step only."""

    inputs: Float[Array, "time batch 2"]
    targets: Float[Array, "time batch 1"]
    mask: Bool[Array, "time batch"]


class SymbolBatch(NamedTuple):
    """One-hot symbols, and a class to predict at each step where `mask` is True."""

    inputs: Float[Array, "time batch in_features"]
    targets: Int[Array, "time batch"]
    mask: Bool[Array, "time batch"]


def adding_problem(key: Key[Array, ""], length: int, batch: int) -> AddingBatch:
    """v_t ~ U(0, 1)
    m_t = 1 for t = i and t = j, else 0,   i ~ U{1 … ⌊T/2⌋},   j ~ U{⌊T/2⌋+1 … T}
    x_t = [v_t, m_t]
    target at T: v_i + v_j

    T is `length`. The constant answer 1 has a mean squared error of Var(v_i + v_j) = 1/6.

    References: Hochreiter, Schmidhuber 1997; one marker in each half, as here: Arjovsky, Shah, Bengio
    2016 (Le, Jaitly, Hinton 2015 mark two steps of the whole sequence).

    >>> inputs, targets, mask = adding_problem(jax.random.key(0), length=100, batch=32)
    >>> inputs.shape, targets.shape, mask.shape
    ((100, 32, 2), (100, 32, 1), (100, 32))
    """
    _check_sizes("adding_problem", batch=batch, length=length)
    if length < 2:
        raise ValueError(f"adding_problem: length: expected at least 2, got {length}")
    value_key, first_key, second_key = jax.random.split(key, 3)
    v = jax.random.uniform(value_key, (length, batch), jnp.float32)
    i = jax.random.randint(first_key, (1, batch), 0, length // 2)
    j = jax.random.randint(second_key, (1, batch), length // 2, length)
    step = jnp.broadcast_to(jnp.arange(length)[:, None], (length, batch))
    m = ((step == i) | (step == j)).astype(jnp.float32)
    mask = step == length - 1
    targets = jnp.where(mask, jnp.sum(v * m, axis=0, keepdims=True), 0.0)
    return AddingBatch(jnp.stack([v, m], axis=-1), targets[..., None], mask)


def copy_task(
    key: Key[Array, ""], delay: int, batch: int, *, symbols: int = 10, alphabet: int = 8
) -> SymbolBatch:
    """s_1 … s_S ~ U{0 … K-1}
    inputs:  s_1 … s_S, blank (delay - 1 times), delimiter, blank (S times)
    targets: blank (delay + S times), s_1 … s_S

    S is `symbols`, K is `alphabet`; blank is class K and the delimiter K + 1, so that inputs have
    K + 2 features and the time is delay + 2 S. After the delimiter, s_k is the target delay + S steps
    after it was the input. All steps count. The best model without memory predicts blanks until the
    delimiter and then each symbol with probability 1/K: S log K / (delay + 2 S) nats a step.

    References: Hochreiter, Schmidhuber 1997; in this form: Arjovsky, Shah, Bengio 2016.

    >>> inputs, targets, mask = copy_task(jax.random.key(0), delay=3, batch=1, symbols=2, alphabet=2)
    >>> jnp.argmax(inputs[:, 0], axis=-1).tolist(), targets[:, 0].tolist()
    ([1, 0, 2, 2, 3, 2, 2], [2, 2, 2, 2, 2, 1, 0])
    """
    _check_sizes("copy_task", delay=delay, batch=batch, symbols=symbols, alphabet=alphabet)
    if alphabet < 2:
        raise ValueError(f"copy_task: alphabet: expected at least 2, got {alphabet}")
    s = jax.random.randint(key, (symbols, batch), 0, alphabet)
    blank = lambda steps: jnp.full((steps, batch), alphabet, s.dtype)
    delimiter = jnp.full((1, batch), alphabet + 1, s.dtype)
    shown = jnp.concatenate([s, blank(delay - 1), delimiter, blank(symbols)])
    targets = jnp.concatenate([blank(delay + symbols), s])
    inputs = jax.nn.one_hot(shown, alphabet + 2, dtype=jnp.float32)
    return SymbolBatch(inputs, targets, jnp.ones(targets.shape, bool))


def parity(key: Key[Array, ""], length: int, batch: int) -> SymbolBatch:
    """b_t ~ U{0, 1}
    x_t = one-hot of b_t
    target at t: (b_1 + … + b_t) mod 2

    All steps count, so that short sequences teach the rule; the answer at the last step shows memory.
    Without memory it is right half of the time, and costs log 2 nats.

    References: linear recurrences with positive eigenvalues cannot flip a state: Sarrof, Veitsman, Hahn
    2024, "The expressive capacity of state space models"; Grazzi et al. 2024, "Unlocking
    state-tracking in linear RNNs through negative eigenvalues".

    >>> inputs, targets, mask = parity(jax.random.key(1), length=6, batch=1)
    >>> inputs[:, 0, 1].astype(int).tolist(), targets[:, 0].tolist()
    ([0, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0])
    """
    _check_sizes("parity", length=length, batch=batch)
    bits = jax.random.randint(key, (length, batch), 0, 2)
    targets = jnp.cumsum(bits, axis=0) % 2
    return SymbolBatch(
        jax.nn.one_hot(bits, 2, dtype=jnp.float32), targets, jnp.ones(bits.shape, bool)
    )


def _check_sizes(name: str, **sizes: int) -> None:
    for argument, size in sizes.items():
        checks.positive(f"{name}: {argument}", size)
