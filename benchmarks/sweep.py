"""Many small models in one program, beside one after another: python -m benchmarks sweep  (five minutes)

python -m benchmarks sweep --members 8 --host-devices 1    some of it
python -m benchmarks sweep --report-only                   draw and write again from the JSON
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from benchmarks import frame, sweep_report
from benchmarks.processes import ROOT, MeasurementError, watch
from benchmarks.suites import read_options
from benchmarks.sweep_run import LEAST, Asked, Sizes, measure

section = sweep_report.section


@dataclasses.dataclass(frozen=True)
class Options:
    """Train small models in one program and one after another, in turn, and report.

    Results appear when all is measured; Ctrl-C leaves the old ones as they are. Leave the machine
    alone meanwhile.
    """

    members: tuple[int, ...] = (1, 4, 16, 32)
    """How many models."""
    features: int = 32
    """Units of each LSTM."""
    time: int = 50
    """Steps of a sequence of the adding problem."""
    batch: int = 32
    """Sequences of an update."""
    steps: int = 100
    """Updates whose losses are compared, and that the totals are of."""
    rounds: int = 7
    """Rounds, after one that is not counted."""
    host_devices: int | None = None
    """Devices that a CPU is cut into, beside one; all cores unless given."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks sweep")
    sizes = {name: getattr(options, name) for name in ("features", "batch", "rounds")}
    frame.refuse_below_one(members=options.members, **sizes)
    if options.host_devices is not None:
        frame.refuse_below_one(host_devices=options.host_devices)
    for name, least in (("time", 2), ("steps", LEAST)):
        if getattr(options, name) < least:
            sys.exit(f"{name}: expected at least {least}, got {getattr(options, name)}")
    measured = lambda device, say: measure_on(device, options, say)
    frame.run("sweep", options, measured, sweep_report.text)


def measure_on(device: Any, options: Options, say: frame.Say) -> dict[str, Any]:
    """All numbers. Devices of a CPU are made before JAX starts: each count has a process of its own."""
    results = frame.frame("sweep", device, say)
    sizes = Sizes(options.features, options.time, options.batch)
    members = tuple(dict.fromkeys(sorted(options.members)))
    asked = lambda devices: Asked(devices, members, sizes, options.steps, options.rounds)
    if device.platform == "cpu":
        most = options.host_devices or results["machine"]["cores_usable"]
        if most == 1:
            say("there is one core, or one was asked for: nothing is shared among host devices")
        cases = [case for count in dict.fromkeys((1, most)) for case in apart(asked(count), say)]
    elif jax.default_backend() != device.platform:
        raise MeasurementError(
            f"--device {options.device}: JAX runs on {jax.default_backend()} by itself, where "
            f"`sj.training.sweep` goes; expected {device.platform}"
        )
    else:
        cases = measure(asked(jax.local_device_count()), say)
    return results | {
        "rounds": options.rounds,
        "steps": options.steps,
        "sizes": sizes._asdict(),
        "members": list(members),
        "auto": "map" if device.platform == "cpu" else "vmap",
        "cases": cases,
    }


def apart(asked: Asked, say: frame.Say) -> list[dict[str, Any]]:
    """The cases of a process with so many host devices."""
    text = json.dumps(asked._asdict())
    # Its last line is its result, and all others are for who waits.
    progress = lambda line: None if line.startswith("[") else say(line)
    return watch(["-m", "benchmarks.sweep_run", text], progress).result


if __name__ == "__main__":
    main()
