"""Devices that share a batch: all the cores of a machine, and where the batch lies in an array."""

import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from seqjax import checks

SHARDS = "shards"
"""The name of the mesh axis that a batch is shared along."""

AUTO = "auto"
"""The batch axis by the convention of the library."""

_SHARED = -1  # instead of None, which is no leaf of a tree

_asked: list[int] = []  # what the newest call of `use_cores` returned


def use_cores(count: int | None = None, *, batch: int | None = None) -> int:
    """Train on all the cores from here on, a device of JAX for each; returns how many.

    One device of JAX on a CPU runs the small loop of a recurrent cell on one core, however many there
    are. After this call, which must come before JAX starts, `fit` runs each method as
    `sharded(method)`, which says what that needs of a loss and of a batch. `sweep` shares its members
    among the devices in any case. A GPU is used as before.

    count: how many cores; None takes all that this process may run on.
    batch: the sequences of a batch: the most cores are taken, up to `count`, that share it evenly.

    Raises a ValueError for sizes below 1, and a RuntimeError where JAX has started with another number
    of devices: call it before anything that makes an array.

    >>> sj.training.use_cores(batch=32)  # doctest: +SKIP
    8
    """
    for name, size in (("count", count), ("batch", batch)):
        if size is not None:
            checks.positive(f"use_cores: {name}", size)
    most = usable() if count is None else count
    cores = most if batch is None else largest_divisor(batch, most)
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:
        there = len(jax.local_devices(backend="cpu"))
        if there != cores:
            raise RuntimeError(
                f"use_cores: JAX has started with {there} CPU device{'s' * (there > 1)}; expected "
                f"{cores}: call use_cores first, before anything that makes an array"
            ) from None
    _asked[:] = [cores]
    return cores


def in_use() -> bool:
    """Whether `use_cores` has been asked for more than one."""
    return _asked > [1]


def usable() -> int:
    """The cores that this process may run on."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`.

    >>> largest_divisor(32, 12), largest_divisor(31, 12)
    (8, 1)
    """
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0)


def specs_of(batch: Any, carry: Any, batch_axes: Any, devices: int) -> Any:
    """How each leaf of `batch` lies on the devices, after checking that they share it evenly.

    batch_axes: "auto", or the axes by hand: a prefix of the batch, as the `in_axes` of `jax.vmap`.
    """
    axes = axes_of(batch, batch_axes)
    named = lambda name, tree: [
        (f"{name}{jax.tree_util.keystr(path)}", jnp.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    of_batch = zip(named("batch", batch), axes, strict=True)
    sizes = {name: (shape, axis) for (name, shape), axis in of_batch if axis != _SHARED}
    check_sizes(sizes | {name: (shape, 0) for name, shape in named("carry", carry)}, devices)
    spec = lambda axis: PartitionSpec(*[*[None] * axis, SHARDS] * (axis != _SHARED))
    return jax.tree.unflatten(jax.tree.structure(batch), map(spec, axes))


def axes_of(batch: Any, batch_axes: Any) -> list[int]:
    """The batch axis of each leaf.

    "auto" is that of [time, batch, ...] and of [batch], as `sj.data.Padded` has its lengths; a number
    is shared.
    """
    if isinstance(batch_axes, str) and batch_axes == AUTO:
        return [(_SHARED, 0, 1)[min(jnp.ndim(leaf), 2)] for leaf in jax.tree.leaves(batch)]
    none = lambda axis: axis is None
    axes = jax.tree.map(lambda a: _SHARED if a is None else a, batch_axes, is_leaf=none)
    try:
        full = jax.tree.leaves(jax.tree.broadcast(axes, batch))
    except ValueError as error:
        raise ValueError(
            f"sharded: batch_axes is {batch_axes!r}, which does not fit the batch; expected an axis, "
            f"or a tree of them that begins as the batch does ({' '.join(str(error).split()):.300})"
        ) from None
    for axis in full:
        if not isinstance(axis, int) or axis < _SHARED:
            raise ValueError(
                f"sharded: batch_axes holds {axis!r}; expected axes from 0, None for what is shared"
            )
    return full


def check_sizes(sizes: dict[str, tuple[tuple[int, ...], int]], devices: int) -> None:
    """Validate that all have the same number of sequences, a multiple of devices.

    sizes: shape and batch axis by name.
    """
    found = {}
    for name, (shape, axis) in sizes.items():
        if axis >= len(shape):
            raise ValueError(
                f"sharded: {name} has shape {shape} and no axis {axis}; expected [batch, ...] in the "
                "carry, and in the batch an array that has it, or batch_axes with None there"
            )
        found[name] = shape[axis]
    if not found:
        raise ValueError(
            "sharded: batch holds nothing that devices can share; expected arrays [time, batch, ...]"
        )
    (first, size), *_ = found.items()
    for name, other in found.items():
        if other != size:
            raise ValueError(
                f"sharded: {first} has {size} sequences (axis {sizes[first][1]} of {sizes[first][0]}) "
                f"but {name} has {other} (axis {sizes[name][1]} of {sizes[name][0]}); expected as many "
                "in all: [time, batch, ...] or [batch], or batch_axes=, as in_axes of jax.vmap"
            )
    if size % devices:
        fewer = largest_divisor(size, devices)
        raise ValueError(
            f"sharded: {first} has {size} sequences, which {devices} devices cannot share evenly; "
            f"expected a multiple of {devices}, or {fewer} device{'s' * (fewer > 1)}, as "
            f"use_cores(batch={size}) makes of the cores"
        )
