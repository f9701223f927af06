"""How the examples end as commands: what makes no sense is refused at once, and an end is a sentence.

An example that is copied elsewhere wants this file beside it.
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

Range = tuple[str, Callable[[float], bool]]
RATE = "a rate in [0, 1)", lambda x: 0 <= x < 1
POSITIVE = "a positive number up to 1e30", lambda x: 0 < x <= 1e30  # float32 ends at 3e38
NOT_NEGATIVE = "a number from 0 to 1e30", lambda x: 0 <= x <= 1e30
THRESHOLD = "a positive number up to 1e30, or inf", lambda x: 0 < x <= 1e30 or x == math.inf
ROWS = "a number of rows, or a share up to 1.0", lambda x: x >= 1 if type(x) is int else 0 < x <= 1


def integer(low: int, high: int = 1_000_000) -> Range:
    """From the one to the other."""
    return f"an integer from {low} to {high:,}", lambda n: low <= n <= high


RANGES = {
    "seed": integer(0, 2**31 - 1),
    "steps": integer(1, 2**31 - 1),
    "beam": integer(1, 100),
    "layers": integer(1, 100),
    "dropout": RATE,
    "token_dropout": RATE,
    "weight_drop": RATE,
    "restart": RATE,
    "top_p": ("a share in (0, 1]", lambda x: 0 < x <= 1),
    "learning_rate": POSITIVE,
    "learning_rates": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "temperature": NOT_NEGATIVE,
    "clip": THRESHOLD,
    "clip_norms": THRESHOLD,
    "train": ROWS,
    "dev": ROWS,
    "test": ROWS,
}
"""What a number may be, by the name that its option has in all examples; the others are counts."""


def run(main: Callable[[Any], Any], options: type, **least: int) -> None:
    """`main` of the options of the command line; exit status 1 after a refusal, 130 after Ctrl-C.

    least: how small a count may be that does not begin at 1.
    """
    name = Path(sys.argv[0]).name
    try:
        given = tyro.cli(options, description=sys.modules[main.__module__].__doc__)
        check(given, RANGES | {option: integer(low) for option, low in least.items()})
        main(given)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{name}: {error}")
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "Out of memory" not in str(error):
            raise
        came = str(error).rpartition(": ")[2]  # what JAX puts before it says no more
        sys.exit(f"{name}: expected sizes that fit into the memory here: {came}")
    except KeyboardInterrupt:
        print(f"\n{name}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


def check(options: Any, ranges: dict[str, Range]) -> None:
    """Refuse the first number that is out of its range, by the name of its option."""
    for field in dataclasses.fields(options):
        value, option = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        expected, good = ranges.get(field.name, integer(1))
        if value == () != field.default:
            raise ValueError(f"{option}: expected at least one, got none")
        for number in value if isinstance(value, tuple) else (value,):
            if type(number) in (int, float) and not good(number):
                raise ValueError(f"{option}: expected {expected}, got {number}")
