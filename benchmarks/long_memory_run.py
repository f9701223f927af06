"""One training of one cell on one task, in a process of its own:

python -m benchmarks.long_memory_run JSON

The JSON is {"core": …, "run": [cell, task, T, seed, rate], "recipe": {…}}. The last line that it writes
is the result, as JSON.
"""

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

import seqjax as sj
from benchmarks.long_memory_recipe import TASKS, Recipe, Run, Task, build

FINAL_TESTS = 8

Gradient = Callable[[Any, Any, Array], Any]
"""`gradient(params, batch, key)`: shaped like params, of the loss over the whole batch."""


class Params(NamedTuple):
    """The embedding E, the cell, and the head V, a."""

    embedding: Array
    cell: Any
    head: Array
    bias: Array


class Program(NamedTuple):
    """The two compiled programs, and what the first one starts from."""

    update: Callable[[Params, Any, Array], tuple[Params, Any]]
    test: Callable[[Params, Array], Array]
    params: Params
    opt_state: Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the JSON says, and write the result."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    asked = json.loads(text)
    on_one_core(asked["core"])
    result = train(Run(*asked["run"]), Recipe(**asked["recipe"]), lambda line: print(line))
    print(json.dumps(result))


def on_one_core(core: int | None) -> None:
    """Keep this process, and the threads that JAX is still to start, on one core.

    XLA makes as many threads as it may use cores, so that pinning comes before the first array.
    """
    flags = "--xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def train(run: Run, recipe: Recipe, say: Callable[[str], None] = lambda line: None) -> dict:
    """x_t -> E x_t -> the cell -> V y_t + a, trained until the task is solved or the updates are spent.

    It is solved when two evaluations in a row (or the very last one), and then the final test, lie below
    the threshold; and given up where it is lost or stuck.
    `say` hears a line after each evaluation.
    """
    start = time.perf_counter()
    init_key, data_key, test_key = jax.random.split(jax.random.key(run.seed), 3)
    program = compiled(run, recipe, init_key)
    compile_seconds = round(time.perf_counter() - start, 2)
    result, _ = learn(program, run, recipe, data_key, test_key, say)
    return {**result, "compile_seconds": compile_seconds}


def learn(
    program: Program,
    run: Any,
    recipe: Recipe,
    data_key: Array,
    test_key: Array,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], Params]:
    """Updates until the end, for `train` and the like; the result, and the params that were learned."""
    task = TASKS[run.task]
    params, opt_state = program.params, program.opt_state
    threshold, curve, solved, start = task.threshold(run.length), [], False, time.perf_counter()
    patience = recipe.patience_for(task)
    evaluations = -(-recipe.updates // recipe.evaluate_every)
    *test_keys, final_key = jax.random.split(test_key, evaluations + 1)
    final_keys = jax.random.split(final_key, FINAL_TESTS)
    for number in range(evaluations):
        params, opt_state = program.update(params, opt_state, jax.random.fold_in(data_key, number))
        curve.append(float(program.test(params, test_keys[number])))
        say(f"update {(number + 1) * recipe.evaluate_every:>6}  value {curve[-1]:.4g}")
        asked = 1 if len(curve) == evaluations else 2
        solved = (
            held(curve, threshold, asked)
            and final_value(program.test, params, final_keys) < threshold
        )
        updates = len(curve) * recipe.evaluate_every
        late = patience is not None and updates >= patience
        if solved or lost(curve) or (late and stuck(curve, task.baseline(run.length))):
            break
    value = final_value(program.test, params, final_keys)
    seconds = time.perf_counter() - start

    statistics = sj.optim.statistics(opt_state)
    assert statistics is not None
    assert statistics.clip_rate is not None
    result = {
        **run._asdict(),
        "solved": solved,
        "updates_needed": first_below(curve, threshold) * recipe.evaluate_every if solved else None,
        "value": rounded(value),
        "updates": len(curve) * recipe.evaluate_every,
        "seconds": round(seconds, 2),
        "parameters": sj.summary("the whole network", params).size,
        "clip_rate": rounded(float(statistics.clip_rate)),
        "skipped": int(jnp.asarray(statistics.skipped)),
        "curve": [rounded(value) for value in curve],
    }
    return result, params


def held(curve: Sequence[float], threshold: float, asked: int) -> bool:
    """Whether the last evaluations, as many as asked, lie below the threshold; NaN is below nothing."""
    return len(curve) >= asked and all(value < threshold for value in curve[-asked:])


def first_below(curve: Sequence[float], threshold: float) -> int:
    """The number of the last evaluation, or of the one before where that lies below too."""
    return len(curve) - int(len(curve) > 1 and curve[-2] < threshold)


def lost(curve: Sequence[float]) -> bool:
    """Whether the last two evaluations are not finite: weights that overflow do not come back."""
    return len(curve) > 1 and not any(math.isfinite(value) for value in curve[-2:])


def stuck(curve: Sequence[float], baseline: float) -> bool:
    """Whether the last ten evaluations are in the mean no better than 95 % of that without memory."""
    return len(curve) >= 10 and math.fsum(curve[-10:]) / 10 > 0.95 * baseline


def final_value(test: Callable[[Params, Array], Array], params: Params, keys: Array) -> float:
    """The mean of as many tests as there are keys."""
    return math.fsum(float(test(params, key)) for key in keys) / len(keys)


def compiled(run: Run, recipe: Recipe, key: Array) -> Program:
    """Both programs, where gradients are those of BPTT through the whole sequence."""
    cell = build(run, recipe)
    return compiled_with(exact(cell, TASKS[run.task]), cell, run, recipe, key)


def exact(cell: sj.Cell, task: Task) -> Gradient:
    """BPTT through the whole sequence."""

    def loss(params: Params, batch: Any) -> Array:
        return task.loss(outputs(cell, params, batch.inputs)[1], batch)

    return lambda params, batch, key: jax.grad(loss)(params, batch)


def outputs(cell: sj.Cell, params: Params, inputs: Array, state: Any = None) -> tuple[Any, Array]:
    """The state after the last step, and V y_t + a at each."""
    state, ys = sj.unroll(cell, params.cell, inputs @ params.embedding, state)
    return state, ys @ params.head + params.bias


def compiled_with(
    gradient: Gradient, cell: sj.Cell, run: Any, recipe: Recipe, key: Array
) -> Program:
    """Both programs, compiled ahead of time. Data is drawn inside them."""
    task = TASKS[run.task]
    optimizer = sj.optim.clipped_adamw(run.learning_rate, clip_norm=recipe.clip_norm)
    # Compiled too: cells draw their weights by many small operations.
    params = jax.jit(lambda key: init(cell, run, recipe, key))(key)
    opt_state = optimizer.init(params)

    def one(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], None]:
        params, opt_state = carry
        batch = task.draw(key, run.length, recipe.batch)
        grads = gradient(params, batch, key)
        change, opt_state = optimizer.update(grads, opt_state, params)
        after: Any = optax.apply_updates(params, change)
        return (after, opt_state), None

    def update(params: Params, opt_state: Any, key: Array) -> tuple[Params, Any]:
        keys = jax.random.split(key, recipe.evaluate_every)
        return jax.lax.scan(one, (params, opt_state), keys)[0]

    def test(params: Params, key: Array) -> Array:
        batch = task.draw(key, run.length, recipe.tested)
        return task.value(outputs(cell, params, batch.inputs)[1], batch)

    return Program(
        update=jax.jit(update).lower(params, opt_state, key).compile(),
        test=jax.jit(test).lower(params, key).compile(),
        params=params,
        opt_state=opt_state,
    )


def init(cell: sj.Cell, run: Any, recipe: Recipe, key: Array) -> Params:
    """E and V by Glorot's rule, the cell by its own, a = 0."""
    task, glorot = TASKS[run.task], jax.nn.initializers.glorot_uniform()
    embedding_key, cell_key, head_key = jax.random.split(key, 3)
    return Params(
        embedding=glorot(embedding_key, (task.in_features, recipe.features)),
        cell=cell.init(cell_key, recipe.features),
        head=glorot(head_key, (cell.out_features, task.out_features)),
        bias=jnp.zeros(task.out_features),
    )


def rounded(value: float) -> float | None:
    """Six digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def command(run: Run, recipe: Recipe, core: int | None) -> list[str]:
    """The arguments of Python that train in a process of its own."""
    asked = {"core": core, "run": list(run), "recipe": dataclasses.asdict(recipe)}
    return ["-m", "benchmarks.long_memory_run", json.dumps(asked)]


if __name__ == "__main__":
    main()
