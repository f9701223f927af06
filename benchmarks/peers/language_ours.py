"""Ours: `sj.models.LanguageModel`, trained as `sj.training.fit` does it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj
from benchmarks.peers.language import Step, Task
from seqjax.cells.lstm import LSTMParams
from seqjax.models.language_model import LanguageModelParams
from seqjax.models.readout import Readout
from seqjax.training.fit import compiled_update
from seqjax.training.sharded import place
from seqjax.wrappers.stack import StackParams


class Form(NamedTuple):
    """What reverse mode keeps, and whether the loss is `LanguageModel.loss`, folded into the run."""

    remat: Any = "auto"
    folded: bool = True


FORMS = {
    "ours": Form(),
    "ours, state": Form("state"),
    "ours, sqrt": Form("sqrt"),
    "ours, at once": Form(folded=False),
}
"""By the names that tables and results have; the others are set beside the first."""


def prepare(task: Task, form: Form, method: Any = sj.bptt) -> Step:
    """The compiled update, whose state is given to the next one: parameters, moments, recurrent state.

    Masks and resets are there, as `sj.data.Windows` has them; with the logits "at once" they are not
    looked at, and no accuracy is counted. method: how a batch becomes an update.
    """
    vocabulary, features, batch, time = task.sizes
    cell = sj.Stack((sj.LSTM(features),) * len(task.layers))
    model = sj.models.LanguageModel(vocabulary, cell, features, remat=form.remat)
    params = LanguageModelParams(
        jnp.asarray(task.embedding),
        StackParams(tuple(LSTMParams(*map(jnp.asarray, layer.weights)) for layer in task.layers)),
        Readout(jnp.asarray(task.readout_kernel), jnp.asarray(task.readout_bias)),
    )

    def at_once(params: Any, carry: Any, batch: Any, key: Any) -> Any:
        carry, logits = model.apply(params, carry, batch.inputs)
        nats = sj.losses.mean_over(sj.losses.token_cross_entropy(logits, batch.targets))
        return nats.value, (carry, {"nats": nats})

    optimizer = sj.optim.clipped_adamw(task.learning_rate, clip_norm=task.clip)
    update = method.update(model.loss if form.folded else at_once, optimizer)
    compiled = compiled_update(update)
    carry = model.initial_state(params, (batch,))
    state = sj.training.TrainState.create(params, optimizer, jax.random.key(0), carry)
    # A copy: its buffers are given away, and one zero may stand in many places.
    state = place(update, jax.tree.map(jnp.copy, state))
    real = np.ones((time, batch), bool)
    windows = (sj.data.Batch(ids[:-1], ids[1:], real, ~real) for ids in task.ids)

    def step() -> float:
        nonlocal state
        state, metrics = jax.block_until_ready(compiled(state, next(windows)))
        nats = jax.device_get(metrics)["nats"]
        return float(nats.total[0] / nats.count[0])

    return step
