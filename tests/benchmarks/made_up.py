"""Results of a machine that there is not: what they all begin with."""

from typing import Any


def frame(name: str) -> dict[str, Any]:
    """As `benchmarks.frame.frame` has it, of a suite."""
    return {
        "name": name,
        "made": "2026-01-31",
        "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        "machine": {
            "processor": "Abacus 9000",
            "cores_usable": 2,
            "system": "Linux x86_64",
            "load_average": 0.25,
        },
        "threads": {"jax": 2},
        "versions": {"jax": "0.10.2"},
    }
