"""The readers on real files: published counts, and known baselines.

The folder is named by the environment variable SEQJAX_DATA; without it, or without a set in it, the
tests of that set are skipped by name.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from seqjax import data


@pytest.fixture
def real():
    """Return the path of a file of a real set, or skip and say what is missing."""

    def real(name: str) -> Path:
        folder = os.environ.get("SEQJAX_DATA")
        if folder is None:
            pytest.skip("SEQJAX_DATA is not set; it names the folder of the real data sets")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"SEQJAX_DATA={folder} has no {name}")
        return path

    return real


@pytest.mark.parametrize(
    ("part", "counts"), [("train", (6_920, 3_610)), ("dev", (872, 444)), ("test", (1_821, 909))]
)
def test_sst_2_has_its_sentences(part, counts, real):
    found = data.read_tsv(real(f"sst2/{part}.tsv"), labels=data.Labels(("0", "1")))
    assert (len(found), sum(label == "1" for _, label in found)) == counts


@pytest.mark.parametrize(
    ("part", "counts"),
    [("train", (12_544, 204_577)), ("dev", (2_001, 25_147)), ("test", (2_077, 25_094))],
)
def test_english_ewt_has_its_sentences_and_words(part, counts, real):
    found = data.read_columns(real(f"ud_english_ewt/{part}.tsv.gz"))
    assert (len(found), sum(len(sentence) for sentence, _ in found)) == counts
    assert len({tag for _, tags in found for tag in tags}) == 17


@pytest.mark.parametrize(
    ("part", "pairs"),
    [("train", 29_000), ("val", 1_014), ("test_2016_flickr", 1_000), ("test_2017_flickr", 1_000)],
)
def test_multi30k_has_its_pairs(part, pairs, real):
    found = data.read_parallel(
        real(f"multi30k_deen/{part}.de.gz"), real(f"multi30k_deen/{part}.en.gz")
    )
    assert len(found) == pairs
    german = "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche."
    english = "Two young, White males are outside near many bushes."
    assert part != "train" or found[0] == (german, english)


def test_the_chorales_have_their_pieces_and_steps(real):
    pieces = {"train": 229, "valid": 76, "test": 77}
    rolls = data.read_piano_rolls(real("jsb_chorales/jsb-chorales-quarter.json"))
    assert {part: len(found) for part, found in rolls.items()} == pieces
    steps = {part: sum(map(len, found)) for part, found in rolls.items()}
    assert steps == {"train": 13_807, "valid": 4_602, "test": 4_725}
    voices = data.read_voices(real("jsb_chorales/Jsb16thSeparated.json"))
    assert {part: len(found) for part, found in voices.items()} == pieces
    steps = {part: sum(map(len, found)) for part, found in voices.items()}
    assert steps == {"train": 55_228, "valid": 18_408, "test": 18_900}


def test_mnist_has_its_images(real):
    """44,434: there are 980 zeros, 1,135 ones, 1,032 twos and so on in the test part."""
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = data.read_idx(real(f"mnist/{part}-images-idx3-ubyte.gz"))
        labels = data.read_idx(real(f"mnist/{part}-labels-idx1-ubyte.gz"))
        assert (images.shape, labels.shape) == ((count, 28, 28), (count,))
        assert images.dtype == labels.dtype == np.uint8
        assert round(float(images.mean()) / 255, 2) == 0.13  # the usual mean of MNIST
        assert part == "train" or labels.sum() == 44_434


def test_open_tables_have_their_rows(real):
    carbon = data.read_csv(real("open_series/co2-concentration.csv"))
    assert (carbon.names, carbon.values.shape) == (("CO2", "adjusted CO2"), (741, 2))
    assert (carbon.dates[0], carbon.values[0].tolist()) == ("1958-03-01", [315.70, 314.44])
    weather = real("open_series/seattle-weather.csv")
    assert data.read_csv(weather, ("temp_max", "wind")).values.shape == (1_461, 2)
    with pytest.raises(ValueError, match=r"line 2: column 'weather': expected .* got 'drizzle'"):
        data.read_csv(weather)


def test_repeating_the_last_value_of_ett_has_the_errors_that_are_known(real):
    """Informer's split and scaling: a window more or less, or another scale, would show."""
    series = data.read_csv(real("etth1/ETTh1.csv"))
    assert series.values.shape == (17_420, 7)
    assert (series.names[-1], series.dates[-1]) == ("OT", "2018-06-26 19:00:00")
    train, _, test = data.split_by_position(series.values, (8_640, 2_880, 2_880), past=96)
    scaled = data.Scaling.fit(train).apply(test)
    for horizon, columns, squared, absolute in (
        (24, None, 1.222, 0.671),
        (168, None, 1.325, 0.730),
        (24, [6], 0.034, 0.139),
        (168, [6], 0.087, 0.229),
    ):
        windows = data.forecast_windows(scaled, 96, horizon, targets=columns)
        assert len(windows) == 2_880 - horizon + 1
        last = [w.inputs[-1:] if columns is None else w.inputs[-1:, columns] for w in windows]
        errors = np.stack([a - w.targets for a, w in zip(last, windows, strict=True)])
        assert round(float(np.square(errors).mean()), 3) == squared
        assert round(float(np.abs(errors).mean()), 3) == absolute
