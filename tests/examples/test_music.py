import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("mido", reason="mido is not installed")

from examples import music

pytestmark = pytest.mark.usefixtures("quick_compilation")

MAJOR = {0, 2, 4, 5, 7, 9, 11}
ROOT = {0: 0, 2: 1, 5: 3, 7: 4, 9: 5}  # degrees, by half-tones above the tonic: I is 0
AFTER = {0: {3, 5}, 1: {4}, 3: {4, 1}, 4: {0, 5}, 5: {1, 3}}


def test_made_up_chorales_keep_to_a_key_to_the_rules_of_harmony_and_to_their_form():
    tonics = set()
    for roll in music.made_up(200, seed=0):
        notes = np.array([np.flatnonzero(step) + 21 for step in roll])  # [time, 4]: four voices
        assert notes.shape in [(32, 4), (48, 4), (64, 4)]
        np.testing.assert_array_equal(notes[::2], notes[1::2])  # at every other step, all at once
        tonic = notes[0, 0] % 12
        tonics.add(tonic)
        above = (notes[::2] - tonic) % 12
        assert set(above.flat) <= MAJOR
        chords = [ROOT[root] for root in above[:, 0]]  # the bass has the root
        for chord, (root, *others) in zip(chords, above, strict=True):
            third = 4 if chord in (0, 3, 4) else 3
            assert {(tone - root) % 12 for tone in others} <= {0, third, 7}
        for number in range(len(chords) // 8):
            phrase = chords[8 * number : 8 * number + 8]
            assert phrase[0] == 0
            assert all(b in AFTER[a] for a, b in itertools.pairwise(phrase[:6]))
            assert phrase[6:] == ([4, 0] if number % 2 else [3, 4])
    assert len(tonics) == 12


@pytest.mark.full
def test_it_learns_what_keys_alone_do_not_show_and_composes(tmp_path, capsys):
    options = music.Options(features=64, steps=250, learning_rate=2e-2, run=tmp_path, display=False)
    results = music.main(options)
    assert results["nats per step"] < 0.8 * results["baseline, Markov"]
    assert results["baseline, Markov"] < 0.8 * results["baseline, fixed"]
    features, keys = 64, 88
    gates = 4 * features * (keys + features + 1)
    assert results["parameters"] == gates + (features + 1) * keys
    for name in ("curves.png", "music.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "chorale.mid").read_bytes()[:4] == b"MThd"
    assert "baseline, fixed: 10." in capsys.readouterr().out
    assert music.main(options) == results  # nothing is left to do


def pieces(seed, count):
    """Pieces of 5 to 12 steps as notes, in which steps are silent too."""
    draw = np.random.default_rng(seed)
    step = lambda: sorted(set(draw.integers(50, 58, draw.integers(4)).tolist()))
    return [[step() for _ in range(draw.integers(5, 13))] for _ in range(count)]


def test_a_file_is_read_and_all_but_first_steps_are_counted(tmp_path, monkeypatch):
    file, parts = tmp_path / "music.json", {"train": pieces(0, 9), "valid": pieces(1, 3)}
    parts["test"] = pieces(2, 5)
    file.write_text(json.dumps(parts), "utf-8")
    initial = sj.models.Generator.init
    zeros = lambda self, key: jax.tree.map(jnp.zeros_like, initial(self, key))
    monkeypatch.setattr(sj.models.Generator, "init", zeros)
    options = music.Options(
        data=file,
        given=3,
        features=2,
        dropout=0.5,
        steps=1,
        learning_rate=0.0,
        run=tmp_path / "run",
    )
    results = music.main(options)
    # Zeros everywhere: each of 88 keys sounds with probability ½, in every step.
    for name in ("nats per step", "nats per step, mean of pieces"):
        assert results[name] == pytest.approx(88 * np.log(2), rel=1e-6)
    # The baselines by counting, key by key and step by step.
    for name, conditional in (("baseline, fixed", False), ("baseline, Markov", True)):
        on, seen = np.ones((88, 2)), np.full((88, 2), 2)  # one of each to begin with
        total = steps = 0
        for part in ("train", "test"):
            for piece in parts[part]:
                for last, now in itertools.pairwise(piece):
                    steps += part == "test"
                    for k in range(88):
                        case = int(k + 21 in last) if conditional else 0
                        if part == "train":
                            on[k, case] += k + 21 in now
                            seen[k, case] += 1
                        else:
                            p = on[k, case] / seen[k, case]
                            total -= np.log(p if k + 21 in now else 1 - p)
        assert results[name] == pytest.approx(total / steps, rel=1e-5)


def test_a_bad_note_and_a_missing_part_are_named(tmp_path, script):
    file = tmp_path / "music.json"
    file.write_text(json.dumps({"train": [[[60], [200]]], "valid": [[[60]]], "test": [[[60]]]}))
    ended = script("music.py", "--data", file, "--run", tmp_path / "run")
    assert ended.code == 1
    assert f"music.py: {file}, train[0], step 1 (both counted from 0): expected" in ended.err
    pieces = {"train": [[[60], [200]], [[60], [62]]], "valid": [[[60]]], "test": [[[60], [62]]]}
    file.write_text(json.dumps(pieces))
    options = music.Options(
        data=file, bad="skip", features=2, steps=1, run=tmp_path / "skipped", display=False
    )
    found = music.main(options)["baseline, fixed"]
    # Of the one piece that is left, the second step: its key sounded in half of the steps.
    odds = np.array([1] + 87 * [0])
    p = (odds + 1) / 3
    assert found == pytest.approx(-np.sum(odds * np.log(p) + (1 - odds) * np.log(1 - p)))
    file.write_text(json.dumps({"train": [[[60], [62]]], "test": [[[60], [62]]]}))
    with pytest.raises(
        ValueError, match=r"music\.json: expected pieces in train, valid and test, of two steps"
    ):
        music.main(music.Options(data=file, run=tmp_path / "run"))
