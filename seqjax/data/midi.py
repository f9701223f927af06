"""Piano rolls to MIDI files, which any player reads."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from seqjax import checks
from seqjax.data.piano_rolls import KEYS, LOWEST

TICKS = 480  # of a step: what many sequencers have for a quarter note
VELOCITY = 80  # of 127: mezzo forte
SLOWEST, FASTEST = 4, 6000  # steps a minute: the file holds the microseconds of one in 24 bits


def write_midi(path: str | os.PathLike[str], roll: npt.ArrayLike, *, tempo: float = 90.0) -> None:
    """A piano roll as a Standard MIDI File of format 0, one track of a piano.

    roll: [time, 88] of bool, or of 0 and 1; key k is MIDI note 21 + k, as `read_piano_rolls` has it. A
        key that sounds at neighbouring steps is one note that is held: a roll does not say where it
        is struck again. Silence at the end is kept.
    tempo: steps a minute; a step is a quarter note in the file.

    Needs the `mido` package: pip install 'seqjax[music]'. Raises a ValueError for another shape, for
    other numbers, and for a tempo outside 4 … 6000, of which the format does not hold the slower.
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
    mido = _mido()
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
    silence = np.zeros((1, KEYS), np.int8)
    changes = np.diff(np.concatenate([silence, keys.astype(np.int8), silence]), axis=0)
    now = 0  # a message says how many ticks it stands after the one before
    for t, change in enumerate(changes):
        for key in np.argsort(change, kind="stable"):  # what ends comes before what begins
            if change[key]:
                kind = "note_on" if change[key] > 0 else "note_off"
                time = TICKS * (t - now)
                track.append(
                    mido.Message(kind, note=LOWEST + int(key), velocity=VELOCITY, time=time)
                )
                now = t
    track.append(mido.MetaMessage("end_of_track", time=TICKS * (len(keys) - now)))
    mido.MidiFile(type=0, ticks_per_beat=TICKS, tracks=[track]).save(os.fspath(path))


def _mido() -> Any:
    """The package, which only this file needs."""
    try:
        import mido
    except ImportError:
        raise ImportError(
            "write_midi needs the mido package: pip install 'seqjax[music]'"
        ) from None
    return mido
