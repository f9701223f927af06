"""One training of one cell on one task by one gradient method, in a process of its own:

python -m benchmarks.long_memory_methods_run JSON

The JSON is {"core": …, "run": [cell, task, T, seed, rate, method], "recipe": {…}}. The last line that it
writes is the result, as JSON.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import seqjax as sj
from benchmarks.long_memory_methods_gradients import NOISE, cosine
from benchmarks.long_memory_methods_recipe import METHODS, MethodRecipe, MethodRun, build
from benchmarks.long_memory_recipe import TASKS
from benchmarks.long_memory_run import (
    Params,
    compiled_with,
    exact,
    learn,
    on_one_core,
    rounded,
)

COMPARED = 8
"""Batches on which a gradient is compared with that of BPTT."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the JSON says, and write the result."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    asked = json.loads(text)
    on_one_core(asked["core"])
    result = train(MethodRun(*asked["run"]), MethodRecipe(**asked["recipe"]), print)
    print(json.dumps(result))


def train(
    run: MethodRun, recipe: MethodRecipe, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """As benchmarks.long_memory_run.train, by the gradient of the method; one update a batch.

    `cosines` are those with the gradient of BPTT before the first update and after the last.
    """
    task, cell, start = TASKS[run.task], build(run, recipe), time.perf_counter()
    gradient = METHODS[run.method].gradient(cell, task)
    init_key, data_key, test_key = jax.random.split(jax.random.key(run.seed), 3)
    program = compiled_with(gradient, cell, run, recipe, init_key)
    compare = jax.jit(comparison(gradient, cell, run, recipe))
    compare_keys = jax.random.split(jax.random.fold_in(jax.random.key(run.seed), NOISE))
    before = float(compare(program.params, compare_keys[0]))
    compile_seconds = round(time.perf_counter() - start, 2)
    result, params = learn(program, run, recipe, data_key, test_key, say)
    after = float(compare(params, compare_keys[1]))
    return {
        **result,
        "compile_seconds": compile_seconds,
        "cosines": [rounded(before), rounded(after)],
    }


def comparison(
    gradient: Any, cell: sj.Cell, run: MethodRun, recipe: MethodRecipe
) -> Callable[[Params, Array], Array]:
    """The mean over new batches of the cosine between the gradients of a batch, by both methods."""
    task = TASKS[run.task]
    reference = exact(cell, task)

    def compare(params: Params, key: Array) -> Array:
        def one(key: Array) -> Array:
            batch = task.draw(key, run.length, recipe.batch)
            return cosine(gradient(params, batch, key), reference(params, batch, key))

        return jnp.mean(jax.lax.map(one, jax.random.split(key, COMPARED)))

    return compare


def command(run: MethodRun, recipe: MethodRecipe, core: int | None) -> list[str]:
    """The arguments of Python that train in a process of its own."""
    asked = {"core": core, "run": list(run), "recipe": dataclasses.asdict(recipe)}
    return ["-m", "benchmarks.long_memory_methods_run", json.dumps(asked)]


if __name__ == "__main__":
    main()
