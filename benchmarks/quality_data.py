"""The real sets as the examples want them; what is made of them stays beside the runs."""

import re
from collections.abc import Callable
from pathlib import Path

from seqjax.data import read_parallel, read_text

FOLDS = 10
"""Parts of rt-polarity, each the test part once, as is the custom (Pang, Lee 2005; Kim 2014)."""


def as_it_is(place: str) -> Callable[[Path, Path, int], Path]:
    """The file or folder itself."""
    return lambda data, made, trial: data / place


def moving_parts(data: Path, made: Path, trial: int) -> Path:
    """rt-polarity in ten folds: every tenth sentence is tested on, every next one is for development."""
    folder = made / f"rt_polarity-{trial}"
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for ending in ("pos", "neg"):
        lines = read_text(data / "rt_polarity" / f"rt-polarity.{ending}").strip("\n").split("\n")
        for number, line in enumerate(lines):
            part = {trial: "test", (trial + 1) % FOLDS: "dev"}.get(number % FOLDS, "train")
            parts[part].append(f"{line.strip()}\t{ending}\n")
    for part, sentences in parts.items():
        (folder / f"{part}.tsv").write_text("".join(sentences), "utf-8")
    return folder


def captions(data: Path, made: Path, trial: int) -> Path:
    """Multi30k in lower case, cut into words, numbers and marks; tested on test2016."""
    folder = made / "multi30k"
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in (("train", "train"), ("dev", "val"), ("test", "test_2016_flickr")):
        sides = [data / "multi30k_deen" / f"{name}.{language}.gz" for language in ("de", "en")]
        pairs = read_parallel(*sides)
        for side, language in enumerate(("de", "en")):
            lines = [" ".join(words_and_marks(pair[side])) + "\n" for pair in pairs]
            (folder / f"{part}.{language}").write_text("".join(lines), "utf-8")
    return folder


def words_and_marks(text: str) -> list[str]:
    """Words, with the apostrophes and hyphens inside them, and each other mark by itself."""
    return re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", text.lower())
