import gzip
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from examples import digits

pytestmark = pytest.mark.usefixtures("quick_compilation")


def outline(digit, font):
    """A digit from its outline in the font: a pixel is ink within an odd number of its curves."""
    path = TextPath((0, 0), str(digit), size=100, prop=FontProperties(font))
    (left, low), (right, high) = path.get_extents().get_points()
    x, y = np.meshgrid(np.linspace(left, right, 30), np.linspace(high, low, 40))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    curves = path.to_polygons(closed_only=True)
    inside = [Path(curve).contains_points(points) for curve in curves]
    return np.logical_xor.reduce(inside).reshape(40, 30)


def cropped(image):
    """The box around the ink, as 40 × 30 pixels."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    return image[
        np.linspace(rows[0], rows[-1], 40).round().astype(int)[:, None],
        np.linspace(columns[0], columns[-1], 30).round().astype(int),
    ]


def test_printed_digits_are_what_they_are_called_in_every_font_size_and_place():
    images, classes = digits.made_up(600, seed=0)
    assert images.shape == (600, 28, 28)
    shapes = np.array([outline(d, font) for font in digits.FONTS for d in range(10)])
    differ = np.array([(shapes != cropped(image)).mean(axis=(1, 2)) for image in images])
    fonts, found = np.divmod(differ.argmin(axis=1), 10)
    assert np.mean(found == classes) > 0.95  # a few pixels of a stroke can be lost between others
    assert len(set(fonts)) == len(digits.FONTS) == 12
    ink = [np.flatnonzero(image.any(axis=1)) for image in images]
    assert len({rows[0] for rows in ink}) >= 5
    assert len({len(rows) for rows in ink}) >= 4
    edges = np.ones((28, 28), bool)
    edges[1:-1, 1:-1] = False
    assert not images[:, edges].any()  # no digit is cut off


@pytest.mark.full
def test_it_learns_what_independent_pixels_cannot(tmp_path, capsys):
    options = digits.Options(
        features=64, batch=32, steps=300, learning_rate=1e-2, run=tmp_path, display=False
    )
    results = digits.main(options)
    assert results["nats per image"] < 0.75 * results["baseline"]
    # E; B and b to h and to c; the gates, which read a row and E; V and r.
    h, e, row = 64, 16, 28
    parts = (10 * e, 2 * (e + 1) * h, 4 * h * (row + e + h + 1), (h + 1) * row)
    assert results["parameters"] == sum(parts)
    for name in ("curves.png", "samples.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
    assert "nats an image   independent pixels: " in capsys.readouterr().out
    assert digits.main(options) == results  # nothing is left to do


def write_part(folder, part, images, classes):
    """The two idx files of a part of MNIST, packed."""
    for kind, shape, numbers in (
        ("images-idx3", images.shape, images),
        ("labels-idx1", classes.shape, classes),
    ):
        raw = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(numbers.ravel())
        (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(raw))


@pytest.fixture
def mnist(tmp_path):
    """A folder of 40 grey images for training and 20 for testing, of 6 × 5 pixels."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        images = draw.choice(np.array([0, 128, 255], np.uint8), (count, 6, 5), p=[0.5, 0.2, 0.3])
        write_part(tmp_path, part, images, draw.integers(10, size=count).astype(np.uint8))
    return tmp_path


def test_files_are_read_grey_is_a_probability_and_an_image_is_the_sum_of_its_rows(
    mnist, monkeypatch
):
    train, test = sj.data.read_mnist(mnist)
    images, classes = digits.ink(train)
    raw = gzip.decompress((mnist / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    grey = np.frombuffer(raw, np.uint8).reshape(40, 6, 5)
    assert images[grey == 255].all()
    assert not images[grey == 0].any()
    assert 0.35 < images[grey == 128].mean() < 0.65
    np.testing.assert_array_equal(images, digits.ink(train)[0])  # drawn once

    initial = sj.models.Generator.init
    zeros = lambda self, key: jax.tree.map(jnp.zeros_like, initial(self, key))
    monkeypatch.setattr(sj.models.Generator, "init", zeros)
    results = digits.main(
        digits.Options(
            data=mnist,
            features=2,
            embedding=2,
            batch=4,
            steps=1,
            learning_rate=0.0,
            run=mnist / "run",
        )
    )
    # Zeros everywhere: each of 30 pixels is ink with probability ½.
    assert results["nats per image"] == pytest.approx(30 * np.log(2), rel=1e-5)  # float32
    # The baseline by counting, on all but the last twelfth, which is the development part.
    (test, truth), total = digits.ink(test), 0.0
    for image, c in zip(test, truth, strict=True):
        same = [other for other, d in zip(images[:37], classes[:37], strict=True) if c == d]
        for place in np.ndindex(6, 5):
            p = (1 + sum(other[place] for other in same)) / (2 + len(same))
            total -= np.log(p if image[place] else 1 - p)
    assert results["baseline"] == pytest.approx(total / 20, rel=1e-6)


def test_files_that_are_cut_off_missing_or_do_not_belong_together_are_named(mnist, script):
    run = ("digits.py", "--data", mnist, "--run", mnist / "run")
    file = mnist / "t10k-images-idx3-ubyte.gz"
    raw = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(raw[:-1]))
    assert (
        f"digits.py: {file} is cut off or too long: it has 615 bytes; expected 616"
        in script(*run).err
    )
    write_part(mnist, "t10k", np.zeros((20, 6, 5), np.uint8), np.zeros(19, np.uint8))
    wanted = "holds uint8[19]; expected a label for each of 20 images"
    assert wanted in script(*run).err
    write_part(mnist, "t10k", np.zeros((2, 6, 5), np.uint8), np.array([0, 10], np.uint8))
    assert "label 2: expected from 0 to 9, got 10" in script(*run).err
    file.unlink()
    ended = script(*run)
    assert ended.code == 1
    assert f"{file.with_suffix('')} does not exist" in ended.err
