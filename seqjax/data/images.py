"""Arrays in the idx format, and MNIST, which comes in it."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from seqjax.data.text import FilePath, stored, unpacked

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: FilePath) -> npt.NDArray[np.generic]:
    """Read the array of an idx file, in its shape and dtype.

    The file is: two bytes 0, one for the dtype, one for the number of axes; the size of each axis in
    four bytes; the numbers, the last axis fastest. All are big-endian. The file may be packed by gzip;
    if only `path` + ".gz" exists, it is read.

    Raises a ValueError for a wrong magic number and for a file that is shorter or longer than its axes
    say; FileNotFoundError or IsADirectoryError if there is no such file.
    Reference: LeCun, Cortes, Burges, the MNIST database.
    """
    name, raw = stored(path), unpacked(path)
    magic = raw[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not magic[3]:
        kinds = ", ".join(f"{kind:02x}" for kind in DTYPES)
        raise ValueError(
            f"{name} has the magic number {magic.hex(' ')}; expected 00 00, one of {kinds}, "
            "and the number of axes, as idx files begin"
        )
    dtype, axes = np.dtype(DTYPES[magic[2]]), magic[3]
    start = 4 + 4 * axes
    if len(raw) < start:
        raise ValueError(
            f"{name} is cut off: {len(raw)} bytes, but the sizes of {axes} axes end at {start}"
        )
    shape = np.frombuffer(raw[4:start], ">u4").tolist()
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        wrong = "is cut off" if len(raw) < expected else "is too long"
        raise ValueError(
            f"{name} {wrong}: {len(raw)} bytes; expected {expected} for {dtype.name}{shape}"
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_labelled_images(
    images: FilePath, labels: FilePath, *, classes: int = 10
) -> tuple[Float[np.ndarray, "images rows columns"], Int[np.ndarray, " images"]]:
    """Read grey values from 0 to 1, and a class for each image, from an idx file of each.

    Raises the errors of `read_idx`, and a ValueError if the images are not bytes in rows and columns, if
    there are not as many labels as images, and for a label outside [0, classes), with its number.
    """
    images, labels = stored(images), stored(labels)
    grey, numbers = read_idx(images), read_idx(labels)
    if grey.ndim != 3 or grey.dtype != np.uint8:
        raise ValueError(
            f"{images} holds {grey.dtype}{list(grey.shape)}; expected images, "
            "uint8[images, rows, columns]"
        )
    if numbers.shape != grey.shape[:1] or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"{labels} holds {numbers.dtype}{list(numbers.shape)}; expected a label for each of "
            f"{len(grey)} images"
        )
    found = numbers.astype(np.int32)
    wrong = np.flatnonzero((found < 0) | (found >= classes))
    if wrong.size:
        raise ValueError(
            f"{labels}, label {wrong[0] + 1}: expected from 0 to {classes - 1}, got {found[wrong[0]]}"
        )
    return grey.astype(np.float32) / 255, found


def read_mnist(
    folder: FilePath,
) -> tuple[
    tuple[Float[np.ndarray, "train rows columns"], Int[np.ndarray, " train"]],
    tuple[Float[np.ndarray, "test rows columns"], Int[np.ndarray, " test"]],
]:
    """Read ((images, digits), (images, digits)) of MNIST, for training and for testing.

    `folder` holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, or the same names with ".gz" appended. Grey values are from 0 to 1.

    Raises the errors of `read_labelled_images`, and a ValueError for a part without images and for
    images of different sizes.
    """
    parts, files = [], []
    for part in ("train", "t10k"):
        images, digits = (f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
        files.append(stored(Path(folder) / images))
        parts.append(read_labelled_images(files[-1], Path(folder) / digits))
        count, rows, columns = parts[-1][0].shape
        if 0 in (count, rows, columns):
            raise ValueError(
                f"{files[-1]} holds {count} images of {rows} × {columns}; expected at least one, "
                "with pixels in it"
            )
    size, other = (" × ".join(map(str, images.shape[1:])) for images, _ in parts)
    if size != other:
        raise ValueError(
            f"{files[0]} holds images of {size} but {files[1]} of {other}; expected one size"
        )
    return parts[0], parts[1]
