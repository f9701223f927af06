"""The `tokenizers` package, fed line by line: many lines are encoded at once, on every core."""

import importlib
import io
from typing import Any

import numpy as np
from jaxtyping import Int32

from seqjax.data.tokenizer import to_bytes

# The package makes an object for each line and for each token; we hold those of one block at a time.
BLOCK = 4096


def package(name: str) -> Any:
    """The `tokenizers` package; an ImportError that says how to install it where it is missing."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError:
        raise ImportError(
            f"{name} needs the tokenizers package: pip install 'seqjax[text]'; "
            "CharTokenizer and ByteTokenizer need nothing"
        ) from None


def lines(name: str, text: str) -> list[str]:
    """`text` cut after each newline, and nowhere else; a ValueError for a lone surrogate."""
    to_bytes(name, text, "utf-8")
    return list(io.StringIO(text, newline="\n"))


def training_lines(name: str, text: str) -> list[str]:
    """`lines` of a text to train on; a ValueError where it is empty."""
    if not text:
        raise ValueError(f"{name}: text is empty; expected text to train on")
    return lines(name, text)


def encode_lines(tokenizer: Any, text: list[str]) -> Int32[np.ndarray, " tokens"]:
    """The ids of all lines, one after the other."""
    blocks = [np.zeros(0, np.int32)]
    for start in range(0, len(text), BLOCK):
        block = tokenizer.encode_batch_fast(text[start : start + BLOCK], add_special_tokens=False)
        blocks.extend(np.array(line.ids, np.int32) for line in block)
    return np.concatenate(blocks)
