"""What truncated backpropagation refuses: lengths, batches and losses that make no windows."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax.gradients.bptt import Loss, Metrics


def check_lengths(name: str, k1: int, k2: int, losses: str) -> None:
    """k1 and k2 are numbers of steps; `losses` is one of its names."""
    checks.positive(f"{name}: k1", k1)
    checks.positive(f"{name}: k2", k2)
    checks.one_of(f"{name}: losses", losses, ("new", "window"))


def arrays(name: str, tree: Any) -> Any:
    """`tree` with its leaves as arrays; each is named where it is none."""
    as_array = lambda path, leaf: checks.array(f"{name}{jax.tree_util.keystr(path)}", leaf)
    return jax.tree_util.tree_map_with_path(as_array, tree)


def check_call(
    name: str, method: Any, loss: Loss, params: Any, carry: Any, batch: Any, key: Array | None
) -> tuple[Any, Any, jax.ShapeDtypeStruct]:
    """Carry and batch as arrays, once all that an update is called with fits the loss.

    method: has k1, k2, short_batches and weight. Nothing is computed; last comes the form of the scalar.
    """
    checks.key(f"{name}: key", key)
    carry, batch = arrays(f"{name}: carry", carry), arrays(f"{name}: batch", batch)
    check_length(name, batch, method.k1, method.k2, method.short_batches)
    first = jax.tree.map(lambda a: a[: method.k1], batch)
    return carry, batch, check_loss(name, loss, params, carry, first, key, method.weight)


def check_length(name: str, batch: Any, k1: int, k2: int, short_batches: bool) -> None:
    """The batch is [time, ...] and holds a window, unless short ones are welcome."""
    time = time_steps(name, batch)
    for argument, length in (("k1", k1), ("k2", k2)):
        if length > time and not short_batches:
            raise ValueError(
                f"{name}: {argument} is {length} but the batch has {time} steps; expected at most "
                f"{time}: take a smaller {argument} or longer batches, seqjax.gradients.whole_batch "
                "for BPTT through all of each, or short_batches=True where only the last batch of a "
                "pass is short, as sj.data.Windows gives it"
            )


def time_steps(name: str, batch: Any) -> int:
    """The length of the first axis, on which all leaves of the batch agree."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    lengths = {jax.tree_util.keystr(path): jnp.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(
            f"{name}: the leaves of batch begin with axes of {lengths}; "
            "expected [time, ...] with one time for all"
        )
    time = next(iter(lengths.values()))[0]
    if time == 0:
        raise ValueError(f"{name}: batch has 0 time steps; expected at least 1")
    return time


def check_loss(
    name: str,
    loss: Loss,
    params: Any,
    carry: Any,
    batch: Any,
    key: Array | None,
    weight: str | None,
) -> jax.ShapeDtypeStruct:
    """The loss gives its carry as it came (a scan carries it), and the count to weigh by."""
    value, (after, metrics) = jax.eval_shape(loss, params, carry, batch, key)
    if jax.tree.structure(after) != jax.tree.structure(carry):
        raise ValueError(
            f"{name}: carry has structure {jax.tree.structure(carry)} but the loss gives back "
            f"{jax.tree.structure(after)}; start from the state that the model gives, "
            "such as carry=model.initial_state(params, (lanes,))"
        )
    checks.same_tree(
        f"{name}: the carry that the loss gives back", after, carry, "the carry before"
    )
    check_weight(name, weight, metrics)
    return value


def check_weight(name: str, weight: str | None, metrics: Metrics) -> None:
    """`weight` names a metric with one count, where it names any."""
    if weight is None:
        return
    if weight not in metrics:
        raise ValueError(
            f"{name}: weight is {weight!r}; expected the name of a metric of the loss, "
            f"one of {sorted(metrics)}, or None for steps"
        )
    shape = jnp.shape(metrics[weight].count)
    if shape:
        raise ValueError(
            f"{name}: weight is {weight!r}, whose count has shape {shape}; expected one number"
        )
