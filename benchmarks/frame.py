"""What suites of timings share: from their options to files, the frame of their JSON, and refusals."""

import contextlib
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.files import in_lines, write_whole
from benchmarks.machine import describe_machine, versions
from benchmarks.peers import PEERS
from benchmarks.processes import MeasurementError
from benchmarks.suites import results_of, write_page

Say = Callable[[str], None]


def run(
    suite: str,
    options: Any,
    measure: Callable[[Any, Say], dict[str, Any]],
    text: Callable[[dict[str, Any]], str],
) -> None:
    """Measure, unless only the report is asked for; then draw and write.

    options: with `device`, `into` and `report_only`, as those of benchmarks.layers.
    measure: (device, say) -> results, which begin with a `frame`. text: of the results, for a terminal.
    The picture is drawn by benchmarks.SUITE_picture.
    """
    folder = options.into / "benchmarks" / "results"
    if options.report_only:
        files = results_of(suite, options.into)
        if not files:
            sys.exit(
                f"{folder / suite}.json does not exist; expected it, as a measurement writes it"
            )
    else:
        device = device_of(options)
        try:
            with jax.default_device(device):
                results = measure(device, lambda line: print(line, flush=True))
        except MeasurementError as error:
            sys.exit(f"{error}\nnothing was written")
        except KeyboardInterrupt:
            sys.exit("\ninterrupted; nothing was written")
        files = [folder / f"{results['name']}.json"]
        write(files[0], in_lines(results) + "\n", options)
        print("\n" + text(results) + "\n")
    for file in files:
        draw(suite, file, options)
    print(f"wrote {write_page(options.into).relative_to(options.into)}")


def device_of(options: Any) -> Any:
    """The first device of the kind that is asked for."""
    try:
        return jax.devices(options.device)[0]
    except RuntimeError:
        sys.exit(f"--device {options.device}: JAX finds none here; expected one, or --device cpu")


def draw(suite: str, file: Path, options: Any) -> None:
    """The picture of a JSON beside it."""
    if importlib.util.find_spec("matplotlib") is None:
        print(
            f"matplotlib is not installed, so {file.with_suffix('.png').name} was not drawn: "
            "pip install seqjax[plot], then --report-only"
        )
        return
    drawing = importlib.import_module(f"benchmarks.{suite}_picture")  # matplotlib is there only now
    content = drawing.picture(json.loads(file.read_text("utf-8")))
    write(file.with_suffix(".png"), content, options)


def frame(suite: str, device: Any, say: Say) -> dict[str, Any]:
    """What every JSON begins with: the suite, the date, the device, the machine, the versions.

    A machine that is at work is told of.
    """
    machine = describe_machine()
    load = machine["load_average"]
    if load is not None and load > 0.25 * machine["cores_usable"]:
        say(
            f"the load is {load}, so other processes are at work; expected a machine left alone: "
            "threads that wait for each other, those of PyTorch above all, come to a crawl here"
        )
    return {
        "benchmark": suite,
        "name": name_of(suite, device),
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": len(jax.devices(device.platform)),
        },
        "machine": machine,
        "threads": {"jax": machine["cores_usable"]},
        "settings": {
            "jax_default_matmul_precision": jax.config.values["jax_default_matmul_precision"],
            "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        },
        "versions": versions() | peer_versions(),
    }


def name_of(suite: str, device: Any) -> str:
    """Of the files: that of the suite, and on a GPU which."""
    if device.platform == "cpu":
        return suite
    letters = [letter if letter.isalnum() else " " for letter in device.device_kind.lower()]
    return "-".join([suite, *"".join(letters).split()])


def peer_versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for peer in PEERS.values():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[peer.distribution] = importlib.metadata.version(peer.distribution)
    return found


def write(path: Path, content: str | bytes, options: Any) -> None:
    """Write a file whole, and say so."""
    write_whole(path, content)
    print(f"wrote {path.relative_to(options.into)}")


def refuse_unknown(name: str, came: Sequence[str], known: Sequence[str], *, least: int = 0) -> None:
    """End with one sentence where an option names something that there is not."""
    for value in came:
        if value not in known:
            sys.exit(f"{name}: {value!r} is unknown; expected some of {', '.join(known)}")
    if len(came) < least:
        sys.exit(f"{name}: expected at least one of {', '.join(known)}")


def refuse_below_one(**numbers: Any) -> None:
    """End with one sentence where a size is below 1; of several, none of which may be missing."""
    for name, value in numbers.items():
        values = value if isinstance(value, tuple) else (value,)
        if not values or min(values) < 1:
            sys.exit(f"{name}: expected at least 1, got {value!r}")


def where(results: dict[str, Any]) -> str:
    """What keeps headings of two devices apart."""
    device = results["device"]
    return "" if device["platform"] == "cpu" else f", on {device['kind']}"


def ran_on(results: dict[str, Any]) -> str:
    """The machine, the threads and the versions, in a paragraph."""
    machine, device = results["machine"], results["device"]
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    threads = ", ".join(f"{name} {count}" for name, count in results["threads"].items())
    on = machine["processor"] if device["platform"] == "cpu" else device["kind"]
    return (
        f"Measured on {results['made']}: {on}, {machine['cores_usable']} cores, {machine['system']}, "
        f"load {machine['load_average']} at the start; threads: {threads}. {packages}."
    )


def aligned(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns for a terminal; the first `left` to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            word.ljust(width) if n < left else word.rjust(width)
            for n, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
