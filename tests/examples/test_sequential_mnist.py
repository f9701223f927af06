import dataclasses
import gzip
import itertools
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from examples import sequential_mnist
from examples.sequential_mnist import Options


@pytest.mark.full
def test_it_learns_what_no_pixel_shows_by_itself(tmp_path, capsys):
    options = Options(features=48, steps=300, run=tmp_path, display=False)
    results = sequential_mnist.main(options)
    assert results["accuracy"] > 0.5 > 1.4 * results["baseline"]
    assert results["parameters"] == 3 * 48 * (1 + 48 + 1) + 48 + (48 + 1) * 10  # c_n beside 3 gates
    for name in ("curves.png", "beliefs.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
    assert "nearest mean of a class: " in capsys.readouterr().out
    assert sequential_mnist.main(options) == results  # nothing is left to do


@pytest.mark.full
def test_layers_above_the_first_have_a_unit_and_a_way_around(tmp_path):
    options = Options(features=4, steps=1, batch=4, run=tmp_path, display=False)
    layers = lambda n, run: dataclasses.replace(options, cell="lru", layers=n, run=tmp_path / run)
    one, three = (sequential_mnist.main(layers(n, str(n)))["parameters"] for n in (1, 3))
    above = sj.LRU(4, r_min=0.9).init(jax.random.key(0), 4)
    size = sum(leaf.size for leaf in jax.tree.leaves(above))
    assert three - one == 2 * (size + 2 * 4 * (4 + 1))
    with pytest.raises(ValueError, match="expected a tuple of at least one cell"):
        sequential_mnist.main(layers(0, "0"))


# The strokes of 0 … 9: a, g and d lie, from the top; f and b stand above g, e and c below it.
STROKES = ["abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg"]


def drawn(strokes, half, wide, top, left):
    """A digit as lines between the six ends of its strokes, on 12 × 12 pixels."""
    image = np.zeros((12, 12), int)
    up, middle, low, right = top, top + half, top + 2 * half, left + wide
    for stroke in strokes:
        if stroke in "agd":
            image[{"a": up, "g": middle, "d": low}[stroke], left : right + 1] = 1
        else:
            first, last = (up, middle) if stroke in "fb" else (middle, low)
            image[first : last + 1, left if stroke in "fe" else right] = 1
    return image


def test_made_up_digits_are_strokes_of_any_size_and_place_with_turned_pixels():
    images, digits = sequential_mnist.made_up(500, seed=0)
    assert images.shape == (500, 12, 12)
    assert set(images.ravel()) == {0.0, 1.0}
    kinds = [
        (d, half, wide, top, left)
        for d, half, wide in itertools.product(range(10), (3, 4), (4, 5, 6))
        for top, left in itertools.product(range(12 - 2 * half), range(12 - wide))
    ]
    clean = np.array([drawn(STROKES[d], *rest) for d, *rest in kinds]).reshape(len(kinds), 144)
    seen = images.reshape(500, 144).astype(int)
    turned = (seen @ (1 - clean).T) + (1 - seen) @ clean.T  # pixels that differ, [images, kinds]
    same = np.array([d for d, *_ in kinds]) == digits[:, None]
    closest = np.where(same, turned, 145)
    # 2 % of 144 pixels are 2.9; the closest may be a neighbour that a turned pixel suits better.
    assert 2.3 < closest.min(axis=1).mean() < 3.0
    assert np.mean(closest.min(axis=1) == turned.min(axis=1)) > 0.95
    used = {kinds[i][1:] for i in closest.argmin(axis=1)}
    assert len(used) > 0.8 * len({kind[1:] for kind in kinds})


def write_part(folder, part, images, digits):
    """The two idx files of a part of MNIST, packed."""
    for kind, numbers in (("images-idx3", images), ("labels-idx1", digits)):
        shape = numbers.shape
        raw = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(numbers.ravel())
        (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(raw))


@pytest.fixture
def mnist(tmp_path):
    """A folder of 36 images for training and 20 for testing, of 5 × 3 pixels."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 36), ("t10k", 20)):
        images = draw.integers(256, size=(count, 5, 3)).astype(np.uint8)
        write_part(tmp_path, part, images, draw.integers(10, size=count).astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    ("order", "cell"),
    [
        pytest.param("pixels", "lstm", marks=pytest.mark.full),
        ("permuted", "mingru"),
        pytest.param("rows", "lru", marks=pytest.mark.full),
    ],
)
def test_files_are_read_in_the_order_that_is_asked_for(mnist, monkeypatch, order, cell):
    images, digits = sj.data.read_mnist(mnist)[0]
    raw = gzip.decompress((mnist / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    np.testing.assert_array_equal(images * 255, np.frombuffer(raw, np.uint8).reshape(36, 5, 3))
    sequences = []
    buckets = sequential_mnist.Buckets

    def watched(examples, *arguments, **options):
        sequences.append(examples)
        return buckets(examples, *arguments, **options)

    monkeypatch.setattr(sequential_mnist, "Buckets", watched)
    initial = sj.models.Classifier.init
    zeros = lambda self, key: jax.tree.map(jnp.zeros_like, initial(self, key))
    monkeypatch.setattr(sj.models.Classifier, "init", zeros)
    options = Options(
        data=mnist,
        order=order,
        cell=cell,
        features=2,
        batch=4,
        steps=1,
        learning_rate=0.0,
        seed=7,
        run=mnist / "run",
    )
    results = sequential_mnist.main(options)
    # Zeros everywhere: all digits are as likely, and the first of them is what is named.
    test, truth = sj.data.read_mnist(mnist)[1]
    assert results["accuracy"] == pytest.approx(np.mean(truth == 0))
    known = sorted(set(digits[:33]))  # all but the last twelfth, which is the development part
    means = [
        np.mean([x for x, y in zip(images[:33], digits, strict=False) if y == d], 0) for d in known
    ]
    named = [known[int(np.argmin([np.linalg.norm(x - mean) for mean in means]))] for x in test]
    assert results["baseline"] == pytest.approx(np.mean(truth == named))

    read, wanted = [np.array([e.inputs for e in sequences[-1]]), images[:33]]
    assert [e.targets for e in sequences[-1]] == digits[:33].tolist()
    if order == "rows":
        np.testing.assert_array_equal(read, wanted)
    elif order == "pixels":
        np.testing.assert_array_equal(read, wanted.reshape(33, 15, 1))
    else:  # the same for all images, and for any seed
        places = np.random.default_rng(0).permutation(15)
        assert sorted(places) != list(places)
        np.testing.assert_array_equal(read[..., 0], wanted.reshape(33, 15)[:, places])


def test_files_that_are_cut_off_missing_or_do_not_belong_together_are_named(mnist, script):
    run = ("sequential_mnist.py", "--data", mnist, "--run", mnist / "run")
    file = mnist / "t10k-labels-idx1-ubyte.gz"
    raw = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(raw[:-1]))
    assert (
        f"sequential_mnist.py: {file} is cut off or too long: it has 27 bytes; expected 28"
        in script(*run).err
    )
    write_part(mnist, "t10k", np.zeros((20, 5, 3), np.uint8), np.zeros(19, np.uint8))
    wanted = "holds uint8[19]; expected a label for each of 20 images"
    assert wanted in script(*run).err
    write_part(mnist, "t10k", np.zeros((2, 5, 3), np.uint8), np.array([0, 10], np.uint8))
    assert "label 2: expected from 0 to 9, got 10" in script(*run).err
    file.unlink()
    ended = script(*run)
    assert ended.code == 1
    assert f"{file.with_suffix('')} does not exist" in ended.err
