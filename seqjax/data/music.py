"""Polyphonic music: piano rolls and voices from JSON, and piano rolls to MIDI files."""

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int32

from seqjax import checks
from seqjax.data.lines import BadLine, collect
from seqjax.data.text import FilePath, read_text, stored

LOWEST, HIGHEST, SILENT = 21, 108, -1  # MIDI numbers of the keys of a piano, A0 to C8
KEYS = HIGHEST - LOWEST + 1
TICKS = 480  # of a step: the usual resolution of a quarter note in sequencers
VELOCITY = 80  # of 127: mezzo forte
SLOWEST, FASTEST = 4, 6000  # steps a minute: the file holds the microseconds of one in 24 bits


def read_piano_rolls(
    path: FilePath, *, bad: str = "refuse"
) -> dict[str, list[Bool[np.ndarray, "_time 88"]]]:
    """Read {part: pieces}; True where key k sounds at a step. Key k is MIDI note 21 + k.

    The file is JSON: {"train": [piece, …], "valid": …}. A piece is a list of steps; a step is the list
    of the notes that sound, [] for silence.

    Args:
        path: UTF-8, packed by gzip or not; if only `path` + ".gz" exists, it is read.
        bad: what to do with a piece that has no step, or a note outside 21 … 108. "refuse" raises a
            ValueError with the file, the piece and the step; "skip" leaves the piece out and logs how
            many of how many.

    Raises a ValueError too for another structure and for a file that is empty or has no good piece, and
    FileNotFoundError or IsADirectoryError if there is no such file.

    To predict each step from those before: `Example(roll[:-1], roll[1:])`.
    Reference: Boulanger-Lewandowski, Bengio, Vincent 2012.
    """

    def roll(piece: list[list[int]]) -> np.ndarray:
        keys = np.zeros((len(piece), KEYS), bool)
        for t, step in enumerate(piece):
            keys[t, np.array(step, int) - LOWEST] = True
        return keys

    return _pieces("read_piano_rolls", path, bad, roll, None)


def read_voices(
    path: FilePath, *, voices: int = 4, bad: str = "refuse"
) -> dict[str, list[Int32[np.ndarray, "_time voices"]]]:
    """Read {part: pieces}, the MIDI note of each voice at each step; -1 where the voice is silent.

    The file is as for `read_piano_rolls`, but a step has one note for each of `voices`, in a fixed
    order: soprano, alto, tenor, bass for the chorales. Raises the same errors, and a ValueError for
    another number of voices.
    """
    checks.positive("read_voices: voices", voices)
    return _pieces("read_voices", path, bad, lambda piece: np.array(piece, np.int32), voices)


def _pieces(
    name: str, path: FilePath, bad: str, read: Callable[[Any], np.ndarray], voices: int | None
) -> dict[str, list[np.ndarray]]:
    path = stored(path)
    try:
        parts = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: no JSON ({error.msg}, column {error.colno}); "
            "expected {part: pieces}"
        ) from None
    except RecursionError:
        raise ValueError(f"{path}: JSON is nested too deeply; expected {{part: pieces}}") from None
    if not isinstance(parts, dict) or not all(isinstance(p, list) for p in parts.values()):
        raise ValueError(
            f'{path}: expected a JSON object of lists of pieces, such as {{"train": [[[60, 64], [62]]]}}'
        )
    items = [(p, f"{path}, {p}[{i}]", piece) for p in parts for i, piece in enumerate(parts[p])]
    one = lambda item: (item[0], read(_checked(item[1], item[2], voices)))
    found = collect(name, path, items, one, bad, unit="pieces")
    return {part: [piece for p, piece in found if p == part] for part in parts}


def _checked(place: str, piece: Any, voices: int | None) -> list[list[int]]:
    """Validate the steps and notes of a piece; only voices may be silent."""
    if not isinstance(piece, list) or not piece:
        raise BadLine(f"{place}: expected a list of steps, got {piece!r:.60}")
    silent = "" if voices is None else f" or {SILENT} for silence"
    for t, step in enumerate(piece):
        at = f"{place}, step {t} (both counted from 0)"
        if not isinstance(step, list):
            raise BadLine(f"{at}: expected a list of notes, got {step!r:.60}")
        if voices is not None and len(step) != voices:
            raise BadLine(f"{at}: expected {voices} voices, got {len(step)}")
        for note in step:
            known = type(note) is int and (LOWEST <= note <= HIGHEST or (silent and note == SILENT))
            if not known:
                raise BadLine(
                    f"{at}: expected MIDI notes in {LOWEST} … {HIGHEST}{silent}, got {note!r:.60}"
                )
    return piece


def write_midi(path: FilePath, roll: npt.ArrayLike, *, tempo: float = 90.0) -> None:
    """Write a piano roll as a Standard MIDI File of format 0, one track of a piano.

    Args:
        path: the file to write.
        roll: [time, 88] of bool, or of 0 and 1; key k is MIDI note 21 + k, as in `read_piano_rolls`. A
            key that sounds at neighbouring steps is one held note, since a roll does not say where it is
            struck again. Silence at the end is kept.
        tempo: steps a minute, from 4 (the slowest that the format can hold) to 6000; a step is a quarter
            note in the file.

    Needs the `mido` package: pip install 'seqjax[music]'. Raises a ValueError for another shape, for
    other numbers, and for another tempo.
    Reference: MIDI Manufacturers Association, Standard MIDI Files 1.0.

    >>> import pathlib, tempfile
    >>> roll = np.zeros((4, 88), bool)
    >>> roll[:3, 60 - 21] = roll[2:, 64 - 21] = True  # C for three steps, E from the third
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "two_notes.mid")
    ...     write_midi(file, roll)
    ...     file.read_bytes()[:4]
    b'MThd'
    """
    keys = np.asarray(roll)
    if keys.ndim != 2 or keys.shape[1] != KEYS or not np.isin(keys, (0, 1)).all():
        raise ValueError(
            f"write_midi: roll is {keys.dtype}{list(keys.shape)}; expected [time, {KEYS}] of 0 and 1"
        )
    if not checks.is_number(tempo) or not SLOWEST <= tempo <= FASTEST:
        raise ValueError(
            f"write_midi: tempo: expected {SLOWEST} to {FASTEST} steps a minute, got {tempo!r}"
        )
    try:
        import mido
    except ImportError:
        raise ImportError(
            "write_midi needs the mido package: pip install 'seqjax[music]'"
        ) from None
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    silence = np.zeros((1, KEYS), np.int8)
    changes = np.diff(np.concatenate([silence, keys.astype(np.int8), silence]), axis=0)
    now = 0  # a message holds the ticks since the one before
    for t, change in enumerate(changes):
        for key in np.argsort(change, kind="stable"):  # notes end before others begin
            if change[key]:
                kind = "note_on" if change[key] > 0 else "note_off"
                note, wait = LOWEST + int(key), TICKS * (t - now)
                track.append(mido.Message(kind, note=note, velocity=VELOCITY, time=wait))
                now = t
    track.append(mido.MetaMessage("end_of_track", time=TICKS * (len(keys) - now)))
    mido.MidiFile(type=0, ticks_per_beat=TICKS, tracks=[track]).save(os.fspath(path))
