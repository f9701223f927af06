"""DropConnect on recurrent weights: a function on params, not a cell."""

import jax
from jaxtyping import Array

from seqjax import checks
from seqjax.numerics import scale_kept
from seqjax.cell import Params


def drop_weights(
    params: Params,
    key: Array,
    rate: float,
    *,
    names: str | tuple[str, ...] = ("recurrent_kernel",),
) -> Params:
    """Ũ = M ⊙ U / (1 - rate),   M_{ij} ~ Bernoulli(1 - rate)

    `params` with entries of every leaf called by one of `names` dropped, wherever in the pytree it
    stands, each leaf under a mask of its own; all others are returned as they came. `rate` is the
    share that is dropped. One call draws one mask, so call it once before a run, in the loss: the
    same weights are then missing at all steps and in all rows. U itself is what the optimizer keeps, and
    its dropped entries have gradient 0. For evaluation leave it out.

    names: other weights too, such as ("recurrent_kernel", "skip_kernel") of a `SkipRNN`.

    Raises a ValueError for a rate outside [0, 1), and for a name that no leaf has.
    References: Wan et al. 2013 (DropConnect); on recurrent weights: Merity, Keskar, Socher 2018.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.LSTM(features=4)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> dropped = sj.drop_weights(params, jax.random.key(1), rate=0.5)
    >>> kept = dropped.recurrent_kernel != 0
    >>> bool(jnp.all(jnp.where(kept, dropped.recurrent_kernel == 2 * params.recurrent_kernel, True)))
    True
    >>> dropped.input_kernel is params.input_kernel
    True
    """
    checks.fraction("drop_weights: rate", rate)
    names = (names,) if isinstance(names, str) else tuple(names)
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    called = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in leaves]
    for name in names:
        if name not in called:
            there = ", ".join(repr(n) for n in dict.fromkeys(called))
            raise ValueError(
                f"drop_weights: params has no leaf called {name!r}; "
                f"expected one of the names that are there, {there or 'none'}"
            )
    keys = iter(jax.random.split(key, sum(name in names for name in called)))
    return jax.tree.unflatten(
        structure,
        [
            _drop(leaf, next(keys), rate) if name in names else leaf
            for name, (_, leaf) in zip(called, leaves, strict=True)
        ],
    )


def _drop(weights: Array, key: Array, rate: float) -> Array:
    return scale_kept(weights, jax.random.bernoulli(key, 1 - rate, weights.shape), rate)
