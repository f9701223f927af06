"""Arrays in the idx format, images with labels, and MNIST."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from seqjax.data import read_idx, read_labelled_images, read_mnist


@pytest.fixture
def write(tmp_path: Path):
    """Write a file with some bytes, and return its path."""

    def write(raw: bytes) -> Path:
        (tmp_path / "data").write_bytes(raw)
        return tmp_path / "data"

    return write


def idx(kind: int, shape: tuple[int, ...], numbers: bytes) -> bytes:
    """Make an idx file byte by byte from its description."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + numbers


def test_the_last_axis_of_an_idx_file_is_the_fastest(write):
    array = read_idx(write(idx(0x08, (2, 1, 3), bytes([1, 2, 3, 253, 254, 255]))))
    np.testing.assert_array_equal(array, [[[1, 2, 3]], [[253, 254, 255]]])
    assert array.dtype == np.uint8
    assert array.flags.writeable


@pytest.mark.parametrize(
    ("kind", "code", "numbers", "dtype"),
    [
        (0x09, "b", [-128, 127], np.int8),
        (0x0B, "h", [-2, 300], np.int16),
        (0x0C, "i", [-2, 70_000], np.int32),
        (0x0D, "f", [-0.5, 3.25], np.float32),
        (0x0E, "d", [-0.1, 1e300], np.float64),
    ],
)
def test_numbers_of_each_kind_have_their_highest_byte_first(kind, code, numbers, dtype, write):
    array = read_idx(write(idx(kind, (2,), struct.pack(f">2{code}", *numbers))))
    assert array.tolist() == numbers
    assert array.dtype == dtype
    assert array.dtype.isnative


@settings(max_examples=20)
@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4)))
def test_an_array_that_was_written_is_read(tmp_path_factory, array):
    file = tmp_path_factory.mktemp("idx") / "images"
    file.write_bytes(idx(0x08, array.shape, array.tobytes()))
    np.testing.assert_array_equal(read_idx(file), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n", "magic number 89 50 4e 47; expected 00 00, one of 08, 09, "),
        (idx(0x07, (1,), b"\0"), "magic number 00 00 07 01"),
        (b"\0\0\x08\0", "magic number 00 00 08 00"),
        (b"\0\0", "magic number 00 00; expected"),
        (b"\0\0\x08\x03\0\0\0\x01", "is cut off: 8 bytes, but the sizes of 3 axes end at 16"),
        (idx(0x08, (2, 3), b"12345"), r"is cut off: 17 bytes; expected 18 for uint8\[2, 3\]"),
        (idx(0x0C, (2,), bytes(9)), r"is too long: 17 bytes; expected 16 for int32\[2\]"),
    ],
)
def test_another_file_is_an_error(content, message, write):
    with pytest.raises(ValueError, match=message):
        read_idx(write(content))


def write_images(folder: Path, images: bytes, labels: bytes) -> tuple[Path, Path]:
    """Write an idx file of each."""
    (folder / "images").write_bytes(images)
    (folder / "labels").write_bytes(labels)
    return folder / "images", folder / "labels"


def test_images_are_grey_from_0_to_1_beside_their_labels(tmp_path):
    pixels, numbers = bytes([0, 51, 102, 153, 204, 255]), bytes([2, 0, 1])
    files = write_images(tmp_path, idx(0x08, (3, 1, 2), pixels), idx(0x08, (3,), numbers))
    images, labels = read_labelled_images(*files, classes=3)
    np.testing.assert_allclose(images, [[[0, 0.2]], [[0.4, 0.6]], [[0.8, 1]]], rtol=1e-6)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(0x08, (2, 3), bytes(6)), idx(0x08, (2,), bytes(2)), r"images holds uint8\[2, 3\]"),
        (idx(0x0D, (1, 1, 1), bytes(4)), idx(0x08, (1,), bytes(1)), r"images holds float32"),
        (idx(0x08, (2, 1, 1), bytes(2)), idx(0x08, (3,), bytes(3)), r"label for each of 2 images"),
        (idx(0x08, (1, 1, 1), bytes(1)), idx(0x0D, (1,), bytes(4)), r"labels holds float32\[1\]"),
        (idx(0x08, (2, 1, 1), bytes(2)), idx(0x08, (2,), b"\1\5"), r"label 2: .* 0 to 4, got 5"),
        (idx(0x08, (1, 1, 1), bytes(1)), idx(0x09, (1,), b"\xff"), r"label 1: .*, got -1"),
    ],
    ids=["shape", "grey", "count", "kind", "large", "negative"],
)
def test_images_and_labels_that_do_not_match_are_errors(images, labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_labelled_images(*write_images(tmp_path, images, labels), classes=5)


MNIST = {
    "train-images-idx3-ubyte": idx(0x08, (3, 1, 2), bytes([0, 51, 102, 153, 204, 255])),
    "train-labels-idx1-ubyte": idx(0x08, (3,), bytes([2, 0, 9])),
    "t10k-images-idx3-ubyte": idx(0x08, (2, 1, 2), bytes([255, 0, 51, 0])),
    "t10k-labels-idx1-ubyte": idx(0x08, (2,), bytes([7, 1])),
}


@pytest.fixture
def write_mnist(tmp_path: Path):
    """Write a folder of tiny parts; an argument replaces a file, and None removes it."""

    def write_mnist(packed: bool = False, **changed: bytes | None) -> Path:
        named = {f"{name.replace('_', '-')}-ubyte": content for name, content in changed.items()}
        for name, content in (MNIST | named).items():
            if content is not None:
                raw = gzip.compress(content) if packed else content
                (tmp_path / f"{name}{'.gz' * packed}").write_bytes(raw)
        return tmp_path

    return write_mnist


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_what_to_train_on_and_then_what_to_test_on(packed, write_mnist):
    (grey, digits), (others, their_digits) = read_mnist(str(write_mnist(packed)))
    np.testing.assert_allclose(grey, [[[0, 0.2]], [[0.4, 0.6]], [[0.8, 1]]], rtol=1e-6)
    np.testing.assert_allclose(others, [[[1, 0]], [[0.2, 0]]], rtol=1e-6)
    assert (digits.tolist(), their_digits.tolist()) == ([2, 0, 9], [7, 1])
    assert (grey.dtype, others.dtype, digits.dtype) == (np.float32, np.float32, np.int32)


NO_IMAGE = {
    "train_images_idx3": idx(0x08, (0, 28, 28), b""),
    "train_labels_idx1": idx(0x08, (0,), b""),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            NO_IMAGE,
            "train-images-idx3-ubyte{} holds 0 images of 28 × 28; expected at least one, with",
        ),
        (
            {"t10k_images_idx3": idx(0x08, (2, 0, 28), b"")},
            "t10k-images-idx3-ubyte{} holds 2 images of 0 × 28; expected at least one, with pixels",
        ),
        (
            {"t10k_images_idx3": idx(0x08, (2, 2, 1), bytes(4))},
            "train-images-idx3-ubyte{0} holds images of 1 × 2 but .*t10k-images-idx3-ubyte{0} of 2 × 1;",
        ),
        (
            {"t10k_labels_idx1": idx(0x08, (2,), bytes([1, 10]))},
            "/t10k-labels-idx1-ubyte{}, label 2: expected from 0 to 9, got 10$",
        ),
    ],
    ids=["no image", "no pixel", "sizes", "label"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_parts_of_mnist_that_do_not_match_are_errors(packed, changed, message, write_mnist):
    with pytest.raises(ValueError, match=message.format("[.]gz" * packed)):
        read_mnist(write_mnist(packed, **changed))


def test_a_file_of_mnist_that_is_not_there_is_named(write_mnist):
    folder = write_mnist(t10k_labels_idx1=None)
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte does not exist"):
        read_mnist(folder)
