"""Arrays in the idx format, in which MNIST comes."""

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from seqjax.data.files import stored, unpacked

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[np.generic]:
    """The array of an idx file, packed by gzip or not, in its shape and dtype.

    The file is: two bytes 0, one for the dtype, one for the number of axes; the size of each axis in
    four bytes; the numbers, the last axis fastest. All have their highest byte first. Where `path` is
    not there and `path` + ".gz" is, that is read.

    There are no lines, and so none to skip. Raises a ValueError for a wrong magic number, and for a
    file that is shorter or longer than its axes say; FileNotFoundError and IsADirectoryError where
    there is none. Reference: LeCun, Cortes, Burges, the MNIST database.
    """
    name, raw = stored(path), unpacked(path)
    magic = raw[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not magic[3]:
        kinds = ", ".join(f"{kind:02x}" for kind in DTYPES)
        raise ValueError(
            f"{name} has the magic number {magic.hex(' ') or 'of no bytes'}; expected "
            f"00 00, one of {kinds}, and the number of axes, as idx files begin"
        )
    dtype, axes = np.dtype(DTYPES[magic[2]]), magic[3]
    start = 4 + 4 * axes
    if len(raw) < start:
        raise ValueError(
            f"{name} is cut off: {len(raw)} bytes, but the sizes of {axes} axes end at {start}"
        )
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", axes, offset=4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        wrong = "is cut off" if len(raw) < expected else "is too long"
        raise ValueError(
            f"{name} {wrong}: {len(raw)} bytes; expected {expected} for {dtype.name}{list(shape)}"
        )
    array = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def read_labelled_images(
    images: str | os.PathLike[str], labels: str | os.PathLike[str], *, classes: int = 10
) -> tuple[Float[np.ndarray, "images rows columns"], Int[np.ndarray, " images"]]:
    """Grey from 0 to 1, and a class for each image: an idx file of each, as `read_idx` reads them.

    Raises a ValueError too where the images are no bytes in rows and columns, where there are not as
    many labels as images, and for a label outside [0, classes), with its number.
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
    found = numbers.astype(np.int64)
    wrong = np.flatnonzero((found < 0) | (found >= classes))
    if wrong.size:
        raise ValueError(
            f"{labels}, label {wrong[0] + 1}: expected from 0 to {classes - 1}, got {found[wrong[0]]}"
        )
    return grey.astype(np.float32) / 255, found.astype(np.int32)


def read_mnist(
    folder: str | os.PathLike[str],
) -> tuple[
    tuple[Float[np.ndarray, "train rows columns"], Int[np.ndarray, " train"]],
    tuple[Float[np.ndarray, "test rows columns"], Int[np.ndarray, " test"]],
]:
    """((images, digits), (images, digits)) of MNIST: those to train on, and those to test on.

    folder: holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, or the same names with ".gz" after them. Grey is from 0 to 1.

    Raises what `read_labelled_images` raises of each part, and a ValueError for a part that holds no
    image, and for images of the two parts that differ in size.
    """
    parts, files = [], []
    for part in ("train", "t10k"):
        images, digits = (f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
        files.append(stored(Path(folder) / images))
        parts.append(read_labelled_images(files[-1], Path(folder) / digits))
        size = parts[-1][0].shape
        if 0 in size:
            raise ValueError(
                f"{files[-1]} holds {size[0]} images of {size[1]} × {size[2]}; expected at least one, "
                "with pixels in it"
            )
    (_, *size), (_, *other) = (images.shape for images, _ in parts)
    if size != other:
        raise ValueError(
            f"{files[0]} holds images of {size[0]} × {size[1]} but {files[1]} of {other[0]} × "
            f"{other[1]}; expected one size"
        )
    return parts[0], parts[1]
