"""Polyphonic music from JSON, as Boulanger-Lewandowski, Bengio and Vincent 2012 cut it into steps."""

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int32

from seqjax import checks
from seqjax.data.bad_lines import BadLine, BadLines
from seqjax.data.files import stored, unmarked

LOWEST, HIGHEST, SILENT = 21, 108, -1  # MIDI numbers of the keys of a piano, A0 to C8
KEYS = HIGHEST - LOWEST + 1
Piece = TypeVar("Piece")


def read_piano_rolls(
    path: str | os.PathLike[str], *, bad: str = "refuse"
) -> dict[str, list[Bool[np.ndarray, "_time 88"]]]:
    """{part: pieces}, True where key k sounds at a step; key k is MIDI note 21 + k.

    The file is JSON: {"train": [piece, …], "valid": …}, a piece is a list of steps, a step the list of
    the notes that sound, [] for silence.

    path: UTF-8, packed by gzip or not; where it is not there, the same name with ".gz" after it.
    bad: what to do with a piece that has no step, or a note outside 21 … 108. "refuse" raises a
        ValueError with the file, the piece and the step; "skip" leaves the piece out, and logs how many
        of how many.

    Raises a ValueError too for another structure and for a file that is empty or has no good piece,
    and FileNotFoundError or IsADirectoryError where there is none.

    The next step from those before: `Example(roll[:-1], roll[1:])`.
    """
    return _pieces("read_piano_rolls", path, bad, _roll)


def read_voices(
    path: str | os.PathLike[str], *, voices: int = 4, bad: str = "refuse"
) -> dict[str, list[Int32[np.ndarray, "_time voices"]]]:
    """{part: pieces}, the MIDI note of each voice at each step; -1 where the voice is silent.

    The file is as for `read_piano_rolls`, but a step names one note for each of `voices`, in one order:
    soprano, alto, tenor, bass for the chorales. Raises the same, and ValueErrors for other numbers of
    voices.
    """
    checks.positive("read_voices: voices", voices)
    return _pieces("read_voices", path, bad, lambda place, piece: _voices(place, piece, voices))


def _pieces(
    reader: str,
    path: str | os.PathLike[str],
    bad: str,
    read: Callable[[str, list[Any]], Piece],
) -> dict[str, list[Piece]]:
    path = stored(path)
    handled = BadLines(reader, path, bad, unit="pieces")
    parts: dict[str, list[Piece]] = {}
    for part, pieces in _parts(path).items():
        parts[part] = []
        for number, piece in enumerate(pieces):
            with handled:
                place = f"{path}, {part}[{number}]"
                if not isinstance(piece, list) or not piece:
                    raise BadLine(f"{place}: expected a list of steps, got {piece!r:.60}")
                parts[part].append(read(place, piece))
    handled.report()
    return parts


def _parts(path: str) -> dict[str, list[Any]]:
    try:
        parts = json.loads(unmarked(path).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (offset {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: no JSON ({error.msg}, column {error.colno}); "
            "expected {part: pieces}"
        ) from None
    except RecursionError:
        raise ValueError(
            f"{path}: JSON that is nested too deeply to be read; expected {{part: pieces}}"
        ) from None
    if not isinstance(parts, dict) or not all(isinstance(p, list) for p in parts.values()):
        raise ValueError(
            f"{path}: expected a JSON object of lists of pieces, such as "
            '{"train": [[[60, 64], [62]]]}'
        )
    return parts


def _roll(place: str, piece: list[Any]) -> np.ndarray:
    roll = np.zeros((len(piece), KEYS), bool)
    for t, step in enumerate(piece):
        for note in _notes(place, t, step):
            _check_note(place, t, note, silence=False)
            roll[t, note - LOWEST] = True
    return roll


def _voices(place: str, piece: list[Any], voices: int) -> np.ndarray:
    for t, step in enumerate(piece):
        if len(_notes(place, t, step)) != voices:
            raise BadLine(f"{_step(place, t)}: expected {voices} voices, got {len(step)}")
        for note in step:
            _check_note(place, t, note, silence=True)
    return np.array(piece, np.int32)


def _notes(place: str, t: int, step: Any) -> list[Any]:
    if not isinstance(step, list):
        raise BadLine(f"{_step(place, t)}: expected a list of notes, got {step!r:.60}")
    return step


def _check_note(place: str, t: int, note: Any, *, silence: bool) -> None:
    if type(note) is int and (LOWEST <= note <= HIGHEST or (silence and note == SILENT)):
        return
    or_silent = f" or {SILENT} for silence" if silence else ""
    raise BadLine(
        f"{_step(place, t)}: expected MIDI notes in {LOWEST} … {HIGHEST}{or_silent}, got {note!r:.60}"
    )


def _step(place: str, t: int) -> str:
    return f"{place}, step {t} (both counted from 0)"
