"""Piano rolls and voices from JSON, and MIDI files, which are read back here byte by byte."""

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqjax.data import read_piano_rolls, read_voices, write_midi


@pytest.fixture
def write(tmp_path: Path):
    """Write a file with some text, some bytes, or the JSON of anything else, and return its path."""

    def write(content: Any) -> Path:
        content = content if isinstance(content, str | bytes) else json.dumps(content)
        (tmp_path / "data").write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / "data"

    return write


def test_key_k_of_a_roll_is_note_21_plus_k(write):
    rolls = read_piano_rolls(write({"train": [[[21, 108], [], [60]]], "valid": [[[22]], [[23]]]}))
    assert {part: len(pieces) for part, pieces in rolls.items()} == {"train": 1, "valid": 2}
    expected = np.zeros((3, 88), bool)
    expected[0, 0] = expected[0, 87] = expected[2, 39] = True
    np.testing.assert_array_equal(rolls["train"][0], expected)
    assert rolls["train"][0].dtype == bool
    assert np.flatnonzero(rolls["valid"][1]).tolist() == [2]


def test_voices_keep_their_order_and_their_silence(write):
    voices = read_voices(write({"test": [[[74, 70, 65, 58], [-1, 70, 65, 21]]]}))
    assert voices["test"][0].tolist() == [[74, 70, 65, 58], [-1, 70, 65, 21]]
    assert voices["test"][0].dtype == np.int32
    assert read_voices(write({"a": [[[60]]]}), voices=1)["a"][0].tolist() == [[60]]


@pytest.mark.parametrize("note", [20, 109, -1, 60.0, True, None, "60"])
def test_a_note_outside_the_piano_is_named_with_piece_and_step(note, write, caplog):
    file = write({"train": [[[60]], [[61], [62, note]], [[63]]]})
    expected = (
        rf"data, train\[1\], step 1 \(both counted from 0\): expected MIDI notes in 21 … 108, got "
        rf"{note!r}"
    )
    with pytest.raises(ValueError, match=expected):
        read_piano_rolls(file)
    rolls = read_piano_rolls(file, bad="skip")
    assert [np.flatnonzero(roll).tolist() for roll in rolls["train"]] == [[39], [42]]
    assert "skipped 1 of 3 pieces; the first: " in caplog.text


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_piano_rolls, {"train": [[]]}, r"train\[0\]: expected a list of steps, got \[\]"),
        (read_piano_rolls, {"train": [[60]]}, r"train\[0\], step 0 .*: expected a list of notes"),
        (read_piano_rolls, {"train": [7]}, r"train\[0\]: expected a list of steps, got 7"),
        (read_piano_rolls, {"train": {}}, "expected a JSON object of lists of pieces"),
        (read_piano_rolls, [[[60]]], "expected a JSON object of lists of pieces"),
        (read_piano_rolls, {"train": []}, "holds no pieces; expected at least one"),
        (read_piano_rolls, '{"train":\n [[[60]]}', r"data, line 2: no JSON \(.*, column 9\)"),
        (read_piano_rolls, b"\xff", "data is not UTF-8: byte 0xff at offset 0 of line 1"),
        (
            read_piano_rolls,
            "[" * 100_000,
            "data: JSON is nested too deeply; expected {part: pieces}",
        ),
        (read_voices, "[" * 100_000, "data: JSON is nested too deeply; expected {part: pieces}"),
        (read_voices, {"train": [[[60, 61]]]}, r"train\[0\], step 0 .*: expected 4 voices, got 2"),
        (
            read_voices,
            {"train": [[[60, 60, 60, -2]]]},
            "in 21 … 108 or -1 for silence, got -2",
        ),
        (lambda path: read_voices(path, voices=0), {}, "voices: expected a positive integer"),
    ],
)
def test_other_structures_are_errors(read, content, message, write):
    with pytest.raises(ValueError, match=message):
        read(write(content))


def test_a_byte_order_mark_is_not_part_of_the_json(write):
    assert list(read_voices(write('\ufeff{"a": [[[60]]]}'), voices=1)) == ["a"]


# MIDI -------------------------------------------------------------------------------------------


def variable_length(data, at):
    """Read a number in base 128, whose digits but the last have their highest bit set."""
    value = 0
    while True:
        value = value << 7 | data[at] & 0x7F
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def read_midi(raw):
    """Read (ticks and microseconds of a quarter, [(tick, note, on)], the last tick) of format 0."""
    assert raw[:4] == b"MThd"
    length, kind, tracks, division = struct.unpack(">IHHH", raw[4:14])
    assert (length, kind, tracks) == (6, 0, 1)
    assert raw[14:18] == b"MTrk"
    (length,) = struct.unpack(">I", raw[18:22])
    data = raw[22:]
    assert len(data) == length
    at = tick = status = tempo = 0
    notes = []
    while True:
        wait, at = variable_length(data, at)
        tick += wait
        if data[at] >= 0x80:  # else the status of the event before goes on
            status, at = data[at], at + 1
        if status == 0xFF:
            meta, at = data[at], at + 1
            size, at = variable_length(data, at)
            if meta == 0x51:
                tempo = int.from_bytes(data[at : at + size], "big")
            at += size
            if meta == 0x2F:
                assert at == len(data)
                return division, tempo, notes, tick
        else:
            assert status & 0xF0 in (0x80, 0x90)
            note, velocity = data[at : at + 2]
            notes.append((tick, note, status & 0xF0 == 0x90 and velocity > 0))
            at += 2


def keys_down(raw, steps):
    """Return [time, 128], what sounds in each step, and how often a key is struck."""
    division, _, notes, end = read_midi(raw)
    down, now, struck = np.zeros((steps, 128), bool), np.zeros(128, bool), 0
    assert end == steps * division
    for t in range(steps):
        for tick, note, on in notes:
            if tick == t * division:
                assert now[note] != on  # no key goes down twice, or up without having been down
                now[note] = on
                struck += on
        down[t] = now
    return down, struck


@pytest.fixture
def written(tmp_path):
    pytest.importorskip("mido", reason="mido is not installed")

    def write(roll, **options):
        write_midi(tmp_path / "piece.mid", roll, **options)
        return (tmp_path / "piece.mid").read_bytes()

    return write


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_the_file_holds_the_keys_of_every_step_and_nothing_else(written, density):
    roll = np.random.default_rng(0).random((40, 88)) < density
    roll[-3:] = False  # silence at the end lasts as long
    down, struck = keys_down(written(roll), 40)
    np.testing.assert_array_equal(down[:, 21:109], roll)
    assert not down[:, :21].any()
    assert not down[:, 109:].any()
    # What sounds at neighbouring steps is held: a key is struck where it did not sound before.
    assert struck == sum(
        bool(roll[t, k]) and not (t and roll[t - 1, k]) for t in range(40) for k in range(88)
    )


def test_a_key_goes_up_before_another_goes_down_at_the_same_time(written):
    roll = np.zeros((2, 88), bool)
    roll[0, 50] = roll[1, 10] = True
    _, _, notes, _ = read_midi(written(roll))
    expected = [(71, True), (71, False), (31, True), (31, False)]
    assert [(note, on) for _, note, on in notes] == expected


@pytest.mark.parametrize("tempo", [4, 90.0, np.float32(120), 6000])
def test_a_step_is_a_quarter_note_of_the_tempo(unchecked, written, tempo):
    _, microseconds, _, _ = read_midi(written(np.ones((1, 88)), tempo=tempo))
    assert microseconds == round(60_000_000 / float(tempo))


def test_zeros_and_ones_of_any_dtype_and_no_steps_at_all_can_be_written(written):
    rolls = [np.eye(3, 88, dtype=dtype) for dtype in (bool, np.int32, np.float32)]
    assert len({written(roll) for roll in rolls}) == 1
    assert read_midi(written(np.zeros((0, 88), bool)))[2:] == ([], 0)


@pytest.mark.parametrize(
    ("roll", "tempo", "message"),
    [
        (np.zeros((5, 87)), 90, r"roll is float64\[5, 87\]; expected \[time, 88\] of 0 and 1"),
        (np.zeros((5, 1, 88)), 90, r"roll is float64\[5, 1, 88\]; expected \[time, 88\]"),
        (np.full((5, 88), 0.5), 90, r"expected \[time, 88\] of 0 and 1"),
        (np.full((5, 88), np.nan), 90, r"expected \[time, 88\] of 0 and 1"),
        (np.zeros((5, 88)), 3.9, r"write_midi: tempo: expected 4 to 6000 steps a minute, got 3.9"),
        (np.zeros((5, 88)), float("nan"), r"write_midi: tempo: expected 4 to 6000"),
        (np.zeros((5, 88)), "fast", r"write_midi: tempo: expected 4 to 6000 .* got 'fast'"),
    ],
)
def test_another_shape_and_another_tempo_are_errors(unchecked, tmp_path, roll, tempo, message):
    with pytest.raises(ValueError, match=message):
        write_midi(tmp_path / "piece.mid", roll, tempo=tempo)
    assert not (tmp_path / "piece.mid").exists()


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(ImportError, match="write_midi needs the mido package: pip install "):
        write_midi(tmp_path / "piece.mid", np.zeros((2, 88), bool))
