"""All the cores of a machine, as devices of JAX."""

import os

import jax

from seqjax import checks

_asked: list[int] = []  # what the newest call of `use_cores` gave, if there was one


def use_cores(count: int | None = None, *, batch: int | None = None) -> int:
    """Train on all the cores from here on: `fit` then shares each batch among them; gives how many.

    One device of JAX on a CPU runs the small loop of a recurrent cell on one core, whatever the machine
    has. This makes a device of every core, before JAX starts; `fit` then runs each method as
    `sharded(method)`, which says what that asks of a loss and of a batch. `sweep` shares its members
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
