"""What the examples draw: python -m docs.gallery [NAMES]   (ten minutes on two cores)

Runs each example at its defaults, on the data that it brings, and writes docs/gallery.md and the
pictures in docs/gallery/ from what it prints and draws.
"""

import contextlib
import importlib
import inspect
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PICTURES = FOLDER / "gallery"

DRAWN = {
    "sentiment": ("curves.png",),
    "tagging": ("confusion.png",),
    "translation": ("attention.png",),
    "forecast": ("forecast.png",),
    "digits": ("samples.png",),
    "sequential_mnist": ("beliefs.png",),
    "music": ("music.png", "chorale.mid"),
    "word_lm": ("curves.png",),
    "sweep": ("cliff.png",),
}
"""What each example leaves in its run folder, in the order of the page; the first is shown."""

HEAD = """\
# What the examples draw

<!-- Written by `python -m docs.gallery`: change docs/gallery.py or the examples instead. -->

Each of [examples/](../examples/README.md) at its defaults, on data that it brings or makes up; for data
of your own give `--data`. What they come to on the sets that others report on: [results.md](results.md).
"""


def run(name: str) -> str:
    """What the example prints in the end, once its pictures are in their place."""
    example: Any = importlib.import_module(f"examples.{name}")
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(printed):
            example.main(example.Options(run=Path(folder), display=False))
        PICTURES.mkdir(exist_ok=True)
        for file in DRAWN[name]:
            shutil.copy(Path(folder) / file, PICTURES / f"{name}{Path(file).suffix}")
        return printed.getvalue().replace(folder, f"runs/{name}")


def section(name: str, printed: str) -> str:
    """One example: what it says of itself, what it printed, what it drew."""
    title, *rest = inspect.cleandoc(
        importlib.import_module(f"examples.{name}").__doc__ or ""
    ).split("\n")
    others = [f"[{Path(file).name}](gallery/{name}{Path(file).suffix})" for file in DRAWN[name][1:]]
    lines = [
        f"## {name}.py",
        "",
        title,
        "",
        "```text",
        *"\n".join(rest).strip("\n").split("\n"),
        "```",
    ]
    lines += ["", "It prints", "", "```text", *printed.strip("\n").split("\n"), "```", ""]
    lines += [f"![{title}](gallery/{name}.png)", *(f"\nand {other}" for other in others), ""]
    return "\n".join(lines)


def document(printed: dict[str, str]) -> str:
    """The whole page, of the examples that have run."""
    return "\n".join([HEAD, *(section(name, printed[name]) for name in DRAWN if name in printed)])


def main(names: Sequence[str], folder: Path = FOLDER, run: Callable[[str], str] = run) -> None:
    """Run what is named, or all; what the others printed last stays."""
    unknown = [name for name in names if name not in DRAWN]
    if unknown:
        sys.exit(f"expected some of {', '.join(DRAWN)}, got {', '.join(unknown)}")
    kept = folder / "gallery" / "printed.json"
    printed = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    for name in names or DRAWN:
        print(f"{name} ...", flush=True)
        printed[name] = run(name)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(printed, indent=1, ensure_ascii=False) + "\n", "utf-8")
        (folder / "gallery.md").write_text(document(printed), "utf-8")
    print(f"wrote {folder / 'gallery.md'}")


if __name__ == "__main__":
    main(sys.argv[1:])
