"""Updates from an online rule: one every few steps, with the traces carried from batch to batch."""

import dataclasses
import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell
from seqjax.gradients.bptt import Metrics
from seqjax.gradients.online_refusals import check_reset, typed_key
from seqjax.gradients.online_rule import OnlineParams, Rule
from seqjax.gradients.refusals import arrays, time_steps
from seqjax.gradients.updates import Update, UpdateFn, check_optimizer
from seqjax.losses import Mean
from seqjax.numerics import accumulator


class OnlineBatch(NamedTuple):
    """What an online method takes, time first: any triple, or a pair, of this form will do.

    xs: [time, *batch, in_features]; targets: a pytree of [time, ...], a step of which goes to the
    loss; resets: bool[time, *batch], True at the first step of a document, or None.
    """

    xs: Any
    targets: Any
    resets: Any = None


@dataclasses.dataclass(frozen=True)
class OnlineMethod:
    """An online rule as a way to train; made by `online`."""

    cell: Cell
    rule: Rule
    every: int

    def __post_init__(self) -> None:
        """Refuse what is no rule, or no number of steps."""
        checks.positive("online: every", self.every)
        try:
            inspect.signature(self.rule).bind(self.cell, None)
        except TypeError:
            raise ValueError(
                f"online: rule is {self.rule!r}; expected one that is called as rule(cell, step_loss), "
                "such as sj.rtrl, sj.snap(1) or sj.uoro"
            ) from None

    def __call__(self, step_loss: Any, optimizer: optax.GradientTransformation) -> UpdateFn:
        """The update function: a scan over the steps of a batch, with an update every few steps.

        step_loss: a `StepLoss`; not typed as one, as other methods take the loss of a whole batch.
        """
        rule = self.rule(self.cell, step_loss)
        check_optimizer("online", optimizer)

        def update(
            params: OnlineParams, opt_state: Any, carry: Any, batch: Any, key: Array | None
        ) -> Update:
            batch = check_batch(batch)
            time, *batch_shape = batch.xs.shape[:-1]
            begin = functools.partial(rule.init, batch_shape=tuple(batch_shape))
            online_state = carry
            if carry is None:
                online_state = begin(params, key=key)
            else:
                expected = jax.eval_shape(lambda p: begin(p, key=jax.random.key(0)), params)
                source = f"init(params, {tuple(batch_shape)}), for xs of shape {batch.xs.shape},"
                checks.same_tree("online: carry", carry, expected, source, dtypes=False)
                key = typed_key("online", key)
                if key is not None:
                    online_state = carry._replace(cell=self.cell.redraw(carry.cell, key))

            def step(summed: Any, inputs: OnlineBatch) -> tuple[Any, Array]:
                (params, online_state), grads = summed
                x, target, reset = inputs
                result = rule.update(params, online_state, x, target, reset=reset)
                grads = jax.tree.map(lambda s, g: s + g.astype(s.dtype), grads, result.grads)
                return ((params, result.state), grads), result.loss

            def window(model: Any, steps: OnlineBatch) -> tuple[Any, Metrics]:
                params, opt_state, online_state = model
                none = jax.tree.map(lambda p: jnp.zeros(p.shape, accumulator(p.dtype)), params)
                ((_, online_state), grads), losses = lax.scan(
                    step, ((params, online_state), none), steps
                )
                grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
                updates, opt_state = optimizer.update(grads, opt_state, params)
                params = optax.apply_updates(params, updates)
                losses = losses.astype(accumulator(losses.dtype))
                loss = Mean(losses.sum(), jnp.asarray(len(losses), losses.dtype))
                return (params, opt_state, online_state), {"loss": loss}

            whole = time // self.every
            cut = whole * self.every
            windows = jax.tree.map(
                lambda a: a[:cut].reshape(whole, self.every, *a.shape[1:]), batch
            )
            model, metrics = lax.scan(window, (params, opt_state, online_state), windows)
            if cut < time:
                model, last = window(model, jax.tree.map(lambda a: a[cut:], batch))
                metrics = jax.tree.map(lambda m, n: jnp.append(m, n), metrics, last)
            params, opt_state, online_state = model
            return Update(params, opt_state, None if carry is None else online_state, metrics)

        return update


def online(cell: Cell, rule: Rule, every: int = 1) -> OnlineMethod:
    """An online rule as a method for `fit`: every so many steps an update, from their summed gradients.

    `online(cell, rule, every)(step_loss, optimizer)` is a pure function
    `update(params, opt_state, carry, batch, key) -> Update`, with params an `OnlineParams`, batch an
    `OnlineBatch` or a plain (xs, targets), time first, and `step_loss(head, y, target)` the loss of
    one step. The last update of a batch takes the steps that are left where `every` does not divide
    the time. The metric "loss" has for each update the mean over its steps.

    carry: the online state, `rule(cell, step_loss).init(params, batch_shape)`, which lives on from
    batch to batch, so that gradients reach back without end; or None: each batch begins anew.
    key: draws the noise of each batch anew; the memory and the traces stay.

    Raises a ValueError for an `every` below 1 and for what is no rule, and, when called, for a batch of
    another form and a carry that the rule does not give for it.

    >>> import jax, jax.numpy as jnp, optax, seqjax as sj
    >>> cell = sj.DiagonalLSTM(features=4)
    >>> params = sj.OnlineParams(cell.init(jax.random.key(0), in_features=2))
    >>> step_loss = lambda head, y, target: jnp.mean((y - target) ** 2)
    >>> optimizer = optax.sgd(0.1)
    >>> update = jax.jit(sj.online(cell, sj.rtrl, every=5)(step_loss, optimizer))
    >>> carry = sj.rtrl(cell, step_loss).init(params, (3,))
    >>> batch = jnp.ones((12, 3, 2)), jnp.zeros((12, 3, 4))
    >>> result = update(params, optimizer.init(params), carry, batch, None)
    >>> result.metrics["loss"].value.shape
    (3,)
    """
    return OnlineMethod(cell, rule, every)


def check_batch(batch: Any) -> OnlineBatch:
    """The batch as an `OnlineBatch` whose leaves agree on a time of at least 1."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise ValueError(
            f"online: batch is a {type(batch).__name__}; expected (xs, targets) or (xs, targets, resets)"
        )
    xs, targets, resets = OnlineBatch(*batch)
    xs = checks.array("online: xs", xs)
    if xs.ndim < 2:
        raise ValueError(
            f"online: xs has shape {xs.shape}; expected [time, *batch, in_features], time first"
        )
    targets = arrays("online: targets", targets)
    time_steps("online", (xs, targets))
    if resets is not None:
        resets = checks.array("online: resets", resets)
        check_reset("online: resets", resets, xs.shape[:-1], "[time, *batch]")
    return OnlineBatch(xs, targets, resets)
