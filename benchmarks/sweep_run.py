"""The measurements of benchmarks.sweep: many small models in one program, and one after another.

python -m benchmarks.sweep_run JSON     on so many host devices, in this process: prints the cases
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj
from benchmarks.layers_run import in_turn, significant
from seqjax.training.fit import compiled_update
from seqjax.training.members import Build, Members

SINGLES = "singles"
FORMS = ("map", "vmap")
"""How one program holds its members: `across` of `sj.training.sweep`."""

RATES = tuple(10 ** (-3 + number / 8) for number in range(8))
"""Learning rates, of one member after another; each member has a seed of its own."""

LAST = 10
"""The final loss is the mean over so many of the last updates."""

IN_A_TURN = 64
"""Updates of single models in one turn, about; a turn has at least `LEAST` updates of all members."""
LEAST = 4

LARGEST_DIFFERENCE = 1e-3
"""The final losses of a member and of its single training: roundings of float32, which training lets
grow, stay below."""

Advance = Callable[[Any], np.ndarray]
"""One update on a batch: the losses before it, [members]; it is waited for."""


class Sizes(NamedTuple):
    """Units H, steps T, sequences B."""

    features: int
    time: int
    batch: int


class Asked(NamedTuple):
    """What is measured: on so many devices, so many members, trained for so many updates."""

    devices: int
    members: tuple[int, ...]
    sizes: Sizes
    steps: int
    rounds: int


class Trained(NamedTuple):
    """After its updates: how to go on, seconds of the first and of all, the final losses [members]."""

    advance: Advance
    first_call_seconds: float
    total_seconds: float
    final: np.ndarray


def adding(sizes: Sizes) -> Build:
    """An LSTM on the adding problem under a setting of a learning rate and a seed: what `fit` takes."""
    cell = sj.LSTM(sizes.features)

    def loss(params: Any, carry: Any, batch: Any, key: Any) -> Any:
        _, ys = sj.unroll(cell, params["cell"], batch.inputs)
        errors = jnp.square(ys @ params["V"] + params["a"] - batch.targets)[..., 0]
        error = sj.losses.mean_over(errors, batch.mask)
        return error.value, (carry, {"error": error})

    def build(setting: Any) -> Any:
        cell_key, readout_key, fit_key = jax.random.split(jax.random.key(setting["seed"]), 3)
        V = jax.random.normal(readout_key, (sizes.features, 1)) / sizes.features**0.5
        params = {"cell": cell.init(cell_key, 2), "V": V, "a": jnp.zeros(1)}
        optimizer = sj.optim.clipped_adamw(setting["learning_rate"])
        return loss, optimizer, sj.training.TrainState.create(params, optimizer, fit_key)

    return build


def settings(members: int) -> list[dict[str, Any]]:
    """The first so many."""
    return [{"learning_rate": RATES[n % len(RATES)], "seed": n} for n in range(members)]


def batches(sizes: Sizes, steps: int) -> list[Any]:
    """New sequences for each update, drawn beforehand."""
    draw = jax.jit(lambda key: sj.data.adding_problem(key, sizes.time, sizes.batch))
    return [jax.device_get(draw(key)) for key in jax.random.split(jax.random.key(1), steps)]


def single(build: Build, setting: Mapping[str, Any]) -> Advance:
    """The compiled update of `sj.training.fit`, which is compiled for each training."""
    loss, optimizer, state = build(setting)
    update = compiled_update(sj.bptt.update(loss, optimizer))
    state = jax.tree.map(
        jnp.copy, state
    )  # as `fit` does: the buffers of each are given to the next

    def advance(batch: Any) -> np.ndarray:
        nonlocal state
        state, metrics = jax.block_until_ready(update(state, batch))
        error = jax.device_get(metrics)["error"]
        return np.asarray(error.total / error.count, np.float64)

    return advance


def together(build: Build, members: int, across: Any) -> Advance:
    """The compiled update of `sj.training.sweep`, for all members."""
    group = Members(
        build,
        settings(members),
        range(members),
        (),
        method=sj.bptt,
        evaluate=None,
        across=across,
    )
    group.begin()

    def advance(batch: Any) -> np.ndarray:
        total, count = group.update(batch)["error"]
        return total / count

    return advance


def trained(make: Callable[[], Advance], data: Sequence[Any]) -> Trained:
    """From nothing through an update on each batch."""
    start = time.perf_counter()
    advance = make()
    losses = [advance(data[0])]
    first = time.perf_counter() - start
    losses += [advance(batch) for batch in data[1:]]
    total = time.perf_counter() - start
    return Trained(advance, first, total, np.mean(losses[-LAST:], axis=0))


def measure(asked: Asked, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each number of members: single trainings, and one program in each form."""
    build, data = adding(asked.sizes), batches(asked.sizes, asked.steps)
    alone = [
        trained(lambda setting=setting: single(build, setting), data)
        for setting in settings(max(asked.members))
    ]
    say(f"{counted(asked.devices)}: singles trained, {len(alone)} of them")
    return [case(build, members, alone[:members], data, asked, say) for members in asked.members]


def case(
    build: Build,
    members: int,
    alone: Sequence[Trained],
    data: Sequence[Any],
    asked: Asked,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """So many members: trained, set beside the single trainings, and then timed in turn."""
    final = np.concatenate([one.final for one in alone])
    forms = {
        form: trained(lambda form=form: together(build, members, form), data) for form in FORMS
    }
    updates = max(LEAST, IN_A_TURN // members)
    window = [data[n % len(data)] for n in range(updates)]
    groups = {SINGLES: [one.advance for one in alone]}
    groups |= {form: [one.advance] for form, one in forms.items()}
    seconds = in_turn({name: turn(group, window) for name, group in groups.items()}, asked.rounds)
    first = {SINGLES: sum(one.first_call_seconds for one in alone)}
    total = {SINGLES: sum(one.total_seconds for one in alone)}
    for form, one in forms.items():
        first[form], total[form] = one.first_call_seconds, one.total_seconds
    found = {
        "devices": asked.devices,
        "members": members,
        "updates": updates,
        "contestants": {
            name: {
                "seconds": [significant(each) for each in of_rounds],
                "median_ms": significant(1e3 * statistics.median(of_rounds)),
                "first_call_seconds": significant(first[name]),
                "total_seconds": significant(total[name]),
            }
            for name, of_rounds in seconds.items()
        },
        "ratios": ratios(seconds),
        "final_losses": {
            SINGLES: [significant(value) for value in final],
            **{form: [significant(value) for value in one.final] for form, one in forms.items()},
        },
        "differences": {
            form: significant(difference(one.final, final)) for form, one in forms.items()
        },
    }
    told = ", ".join(f"{form} {ratio:.2f}" for form, ratio in found["ratios"].items())
    one = found["contestants"][SINGLES]["median_ms"]
    say(f"{counted(asked.devices)}, N = {members}: singles {one:.3g} ms an update of all, {told}")
    return found


def counted(devices: int) -> str:
    """1 device, 2 devices."""
    return f"{devices} device{'s' * (devices > 1)}"


def turn(group: Sequence[Advance], window: Sequence[Any]) -> Callable[[float], float]:
    """Seconds of one update of all, out of those on each batch of `window`: as `in_turn` calls it."""

    def timed(_: float) -> float:
        collecting = gc.isenabled()
        gc.disable()
        try:
            start = time.perf_counter()
            for advance in group:
                for batch in window:
                    advance(batch)
            return (time.perf_counter() - start) / len(window)
        finally:
            if collecting:
                gc.enable()

    return timed


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How many times as long the single trainings take: the median over rounds of those of a round."""
    return {
        form: significant(
            statistics.median(a / b for a, b in zip(seconds[SINGLES], seconds[form], strict=True))
        )
        for form in FORMS
    }


def difference(came: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of a final loss, in units of the expected one; NaN where any is."""
    return float(np.max(np.abs(came - expected) / np.abs(expected)))


def main(text: str) -> None:
    """What the JSON asks for, on the CPU; the last line is the cases."""
    asked = json.loads(text)
    asked = Asked(**asked | {"sizes": Sizes._make(asked["sizes"])})
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", asked.devices)
    found = measure(asked, lambda line: print(line, flush=True))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
