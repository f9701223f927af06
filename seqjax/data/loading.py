"""A tokenizer from the file that it was saved to."""

import json
import os
from pathlib import Path
from typing import Any

from seqjax.data.byte_level import ByteTokenizer
from seqjax.data.characters import CharTokenizer
from seqjax.data.subwords import BPETokenizer
from seqjax.data.tokenizer import Tokenizer
from seqjax.data.words import WordTokenizer

KINDS = {
    tokenizer.kind: tokenizer
    for tokenizer in (CharTokenizer, ByteTokenizer, WordTokenizer, BPETokenizer)
}


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote to `path`, equal to the one that was saved.

    The file is JSON. Raises FileNotFoundError where there is none, and a ValueError where it holds
    no tokenizer.
    """
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        fields = {name: _frozen(value) for name, value in saved.items() if name != "kind"}
        return KINDS[saved["kind"]](**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"load_tokenizer: {os.fspath(path)} holds no tokenizer ({error!r}); "
            f"expected a file that Tokenizer.save wrote, of kind {', '.join(KINDS)}"
        ) from error


def _frozen(value: Any) -> Any:
    """Lists as the tuples they were before they became JSON."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
