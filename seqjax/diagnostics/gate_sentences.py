"""What the gates of a diagnosis say in plain words: how long they keep, and which of them are stuck."""

import math
from typing import Any

from seqjax.cell import Cell, Params, leaves
from seqjax.diagnostics.gate_counts import Saturation, Values
from seqjax.diagnostics.sentences import MOSTLY, SHORT, Sentence, percent

CALLED = {"f": "forget", "i": "input", "o": "output", "z": "update", "r": "reset"}


def of_the_memories(found: Saturation, cell: Cell, params: Params, steps: int) -> list[Sentence]:
    """How long each layer's gates keep."""
    advised = {leaf.name: leaf.cell.longer_memory for leaf in leaves(cell, params)}
    sentences = []
    for memory in found.memories:
        of_layer = [v for v in found.values if _layer(v) == memory.name]
        forget = next((v for v in of_layer if _forgets(v)), None)
        where = f"In {memory.name} the" if memory.name else "The"
        text = f"{where} memory keeps {percent(memory.keep)} at each step by its gates"
        numbers: dict[str, Any] = {"keep": memory.keep, "half_life": memory.half_life}
        if forget is not None:
            text = f"{where} {_open_and_shut(forget)}"
            numbers |= {"open": forget.open, "shut": forget.shut}
        if math.isinf(memory.half_life):
            text += "; by its gates alone a memory lasts."
        else:
            text += f"; by them alone half of a memory is left after {memory.half_life:.2g} steps."
        short = steps > 1 and memory.half_life < SHORT * steps
        advice = advised[memory.name] if short else None
        sentences.append(Sentence(text, numbers, advice and advice.format(steps=steps)))
    return sentences


def of_stuck_gates(found: Saturation) -> list[Sentence]:
    """Which other gates are open or shut most of the time."""
    return [
        Sentence(
            f"The {_open_and_shut(v, _in_layer(v))}, where they learn little.",
            {"open": v.open, "shut": v.shut},
            "smaller inputs, or sj.LayerNorm",
        )
        for v in found.values
        if v.gate and v.saturated > MOSTLY and not _forgets(v)
    ]


def of_saturated_units(found: Saturation) -> list[Sentence]:
    """Which tanh units are saturated most of the time."""
    return [
        Sentence(
            f"The tanh units {_letter(v)}{_in_layer(v)} are beyond ±0.9 {percent(v.saturated)} of "
            "the time, where they learn little.",
            {"saturated": v.saturated},
            "smaller inputs, smaller initial weights, or sj.LayerNorm",
        )
        for v in found.values
        if not v.gate and v.saturated > MOSTLY
    ]


def _layer(v: Values) -> str:
    return v.name.rpartition(" ")[0]


def _letter(v: Values) -> str:
    return v.name.rpartition(" ")[2]


def _forgets(v: Values) -> bool:
    return v.gate and _letter(v) in ("f", "z")


def _open_and_shut(v: Values, of_layer: str = "") -> str:
    gate = CALLED.get(_letter(v), _letter(v))
    return (
        f"{gate} gates{of_layer} are open {percent(v.open)} of the time and shut {percent(v.shut)}"
    )


def _in_layer(v: Values) -> str:
    return f" of {_layer(v)}" if _layer(v) else ""
