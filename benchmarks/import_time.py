"""What `import seqjax` costs beyond `import jax`."""

import statistics
from typing import Any

from benchmarks.processes import watch

PROGRAM = """
import json, time
start = time.perf_counter()
import jax
between = time.perf_counter()
import seqjax
print(json.dumps([between - start, time.perf_counter() - between]))
"""


def import_time(repeats: int) -> dict[str, Any]:
    """Medians of fresh processes, in seconds, after one that fills the caches of the file system."""
    pairs = [watch(["-c", PROGRAM]).result for _ in range(repeats + 1)][1:]
    jax_seconds, seqjax_seconds = zip(*pairs, strict=True)
    return {
        "repeats": repeats,
        "jax_seconds": round(statistics.median(jax_seconds), 4),
        "seqjax_seconds": round(statistics.median(seqjax_seconds), 4),
        "seqjax_all": [round(seconds, 4) for seconds in seqjax_seconds],
    }
