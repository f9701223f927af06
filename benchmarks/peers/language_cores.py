"""Ours on all cores: the cores of a CPU as devices of JAX, which share each batch.

They have to be asked for before JAX starts, so this is a process of its own.
"""

from typing import Any

import jax

import seqjax as sj
from benchmarks.peers.language import Step, Task
from benchmarks.peers.language_ours import FORMS
from benchmarks.peers.language_ours import prepare as prepare_ours


def start(device: str, threads: int) -> dict[str, Any]:
    """On the CPU, wherever JAX would run by itself; how many cores is known with the batch."""
    jax.config.update("jax_platforms", device)
    return {"threads": threads}


def prepare(task: Task, device: str = "cpu") -> Step:
    """The update of `sj.training.fit` after `sj.training.use_cores()`.

    Raises a RuntimeError where no two cores can share a batch.
    """
    cores = sj.training.use_cores(batch=task.sizes.batch)
    if cores == 1:
        raise RuntimeError(f"no two cores share {task.sizes.batch} sequences evenly")
    return prepare_ours(task, FORMS["ours"], sj.training.sharded(sj.bptt))
