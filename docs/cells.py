"""The catalogue of cells: docs/cells.md and docs/cells.png, from the code itself.

    python -m docs.cells

Equations, sources and the advice when to choose a cell are the docstrings; promises are asked of the
cells; the count of parameters is read off the shapes that the parameters are annotated with, and
checked against the true count.
"""

import dataclasses
import inspect
import math
import re
import textwrap
import typing
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj

FOLDER = Path(__file__).resolve().parent
IN_FEATURES, FEATURES = 256, 256

SYMBOLS = {
    "in_features": "D",
    "features": "H",
    "out_features": "P",
    "state_features": "N",
    "heads": "K",
    "head_features": "H/K",
    "window": "w",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One cell of the catalogue.

    made: what a user writes, with H for the width. build: that cell at a width. defined: the class or
    function whose docstring tells of it. same_width: its input must be as wide as it is.
    """

    made: str
    build: Callable[[int], sj.Cell]
    defined: Any
    same_width: bool = False


def plain(*cells: Any) -> list[Entry]:
    """Entries for cells that need no more than a width."""
    return [Entry(f"{cell.__name__}(H)", cell, cell) for cell in cells]


FAMILIES: dict[str, list[Entry]] = {
    "Simple networks": [
        *plain(sj.Elman, sj.IRNN, sj.PreActivationRNN),
        Entry("SkipRNN(H, skip=k)", lambda H: sj.SkipRNN(H, skip=2), sj.SkipRNN),
        *plain(sj.ClockworkRNN),
    ],
    "Long short-term memory": [
        *plain(sj.LSTM),
        Entry("LSTM(H, projection=P)", lambda H: sj.LSTM(H, projection=H // 2), sj.LSTM),
        *plain(sj.PeepholeLSTM, sj.CIFG, sj.SLSTM),
        Entry("SLSTM(H, heads=K)", lambda H: sj.SLSTM(H, heads=4), sj.SLSTM),
    ],
    "Gated recurrent units": plain(sj.GRU, sj.ChoGRU, sj.MGU),
    "Diagonal recurrences": plain(sj.DiagonalLSTM, sj.DiagonalGRU),
    "Linear recurrences": [
        *plain(sj.MinGRU, sj.MinLSTM, sj.LRU),
        Entry("LRU(H, state_features=N)", lambda H: sj.LRU(H, state_features=2 * H), sj.LRU),
        Entry("RGLRU(H)", sj.RGLRU, sj.RGLRU, same_width=True),
    ],
    "Without memory": [
        Entry("TimeDelay(H, window=w)", lambda H: sj.TimeDelay(H, window=4), sj.TimeDelay)
    ],
}

WRAPPERS = (
    sj.Stack,
    sj.Bidirectional,
    sj.Residual,
    sj.GLU,
    sj.Dropout,
    sj.RecurrentDropout,
    sj.Zoneout,
    sj.LayerNorm,
    sj.LearnedState,
)
WRAPPED = {
    "Stack((LSTM(H), LSTM(H)))": sj.Stack((sj.LSTM(8), sj.LSTM(8))),
    "Bidirectional(LSTM(H), LSTM(H))": sj.Bidirectional(sj.LSTM(8), sj.LSTM(8)),
    "Residual(LSTM(H))": sj.Residual(sj.LSTM(8)),
    "GLU(LRU(H))": sj.GLU(sj.LRU(8)),
    "Dropout(LSTM(H), rate)": sj.Dropout(sj.LSTM(8), rate=0.5),
    "RecurrentDropout(LSTM(H), rate)": sj.RecurrentDropout(sj.LSTM(8), rate=0.5),
    "Zoneout(LSTM(H), rate)": sj.Zoneout(sj.LSTM(8), rate=0.1),
    "Zoneout(MGU(H), rate)": sj.Zoneout(sj.MGU(8), rate=0.1),
    "LayerNorm(LSTM(H))": sj.LayerNorm(sj.LSTM(8)),
    "LayerNorm(DiagonalLSTM(H))": sj.LayerNorm(sj.DiagonalLSTM(8)),
    "LearnedState(LSTM(H))": sj.LearnedState(sj.LSTM(8)),
}


def entries() -> list[Entry]:
    """All cells, in the order of the page."""
    return [entry for family in FAMILIES.values() for entry in family]


def paragraphs(thing: Any) -> list[str]:
    """The docstring, cut at its blank lines."""
    return [part.strip("\n") for part in re.split(r"\n\s*\n", inspect.getdoc(thing) or "")]


def sentence(thing: Any, start: str) -> str:
    """The text of the docstring that begins with `start`, up to where another matter begins."""
    text = " ".join((inspect.getdoc(thing) or "").split())
    found = re.search(rf"{start}.*?(?= Choose it | References?: | Raises a | >>> |$)", text)
    return found.group(0).strip() if found else ""


class Polynomial(Counter[tuple[str, ...]]):
    """A sum of products of symbols: {("D", "H"): 4} is 4·D·H."""

    def __str__(self) -> str:
        """The terms, those of the highest degree first."""
        terms = sorted(self.items(), key=lambda term: (-len(term[0]), term[0]))
        return " + ".join(self._term(symbols, factor) for symbols, factor in terms)

    def _term(self, symbols: tuple[str, ...], factor: int) -> str:
        letters = [symbol[0] for symbol in symbols]
        powers = [
            letter + {1: "", 2: "²", 3: "³"}[letters.count(letter)]
            for letter in dict.fromkeys(letters)
        ]
        over = "/K" * symbols.count("H/K")
        return "·".join([str(factor)] * (factor > 1 or not powers) + powers) + over


def array_annotations(kind: Any) -> list[tuple[str, Any]]:
    """The fields of a NamedTuple of params, each with its annotation without `| None`."""
    hints = typing.get_type_hints(kind)
    return [
        (name, next((a for a in typing.get_args(hint) if a is not type(None)), hint))
        for name, hint in hints.items()
    ]


def parameter_count(cell: sj.Cell, params: Any) -> Polynomial:
    """The number of parameters, by the shapes that they are annotated with."""
    names = dict(SYMBOLS)
    if cell.out_features == cell.features:
        names["out_features"] = "H"
    if getattr(cell, "state_features", cell) is None:
        names["state_features"] = "H"
    if getattr(cell, "heads", 1) == 1:
        names |= {"heads": "", "head_features": "H"}
    count = Polynomial()
    for name, annotation in array_annotations(type(params)):
        if getattr(params, name) is None:
            continue
        factor, symbols = 1, []
        for part in annotation.dim_str.replace("*", " ").split():
            if part.isdigit():
                factor *= int(part)
            elif names[part]:
                symbols.append(names[part])
        count[tuple(sorted(simplified(symbols)))] += factor
    return count


def simplified(symbols: list[str]) -> list[str]:
    """K · H/K is H."""
    symbols = list(symbols)
    while "K" in symbols and "H/K" in symbols:
        symbols.remove("K")
        symbols.remove("H/K")
        symbols.append("H")
    return symbols


def evaluate(count: Polynomial, cell: sj.Cell, in_features: int) -> int:
    """The polynomial at the sizes of a cell."""
    heads = getattr(cell, "heads", 1)
    values = {
        "D": in_features,
        "H": cell.features,
        "P": cell.out_features,
        "N": getattr(cell, "state_features", None) or cell.features,
        "K": heads,
        "H/K": cell.features // heads,
        "w": getattr(cell, "window", 1),
    }
    return sum(f * math.prod(values[s] for s in symbols) for symbols, f in count.items())


def shapes_of(cell: sj.Cell, in_features: int) -> Any:
    """The shapes of the cell's parameters; nothing is drawn."""
    return jax.eval_shape(lambda: cell.init(jax.random.key(0), in_features))


def promises(cell: sj.Cell) -> str:
    """Gated, linear, layer by layer, and how the units mix."""
    kinds = {
        "gated": sj.as_gated(cell) is not None,
        "linear": sj.as_linear(cell) is not None,
        "layer by layer": isinstance(cell, sj.Layered),
    }
    return ", ".join([*(name for name, kept in kinds.items() if kept), f"mixing {cell.mixing}"])


INTRODUCTION = """
# Cells

Made by `python -m docs.cells` from the docstrings and the code. D is `in_features` and H is `features`;
P is the size of y and N that of the state where they are another, K the number of heads, w a window.

A **gated** cell is an affine recurrence followed by a rule on each row. A **linear** one is
h_t = a_t ⊙ h_{t-1} + b_t, where neither a nor b sees the state. **Mixing** is the structure of
∂s_t/∂s_{t-1}: dense, one block for each head, or elementwise. `sj.as_gated`, `sj.as_linear` and
`cell.mixing` ask for these promises; faster ways to run and cheap exact online gradients need them, and
every cell without any runs by the plain scan.
"""

CAPTION = """
The picture shows |∂s_t/∂s_{t-1}| of a layer of eight units in the middle of a random sequence, computed:
black is zero, yellow is one and more. Each panel is cut into the leaves of the state. (An IRNN starts at
the identity and leaves it as it learns; which modules of a Clockwork RNN tick depends on the step.)

![The derivative of the state after a step with respect to the state before it](cells.png)
"""


def document() -> str:
    """The whole page."""
    rows, sections = [], []
    for family, members in FAMILIES.items():
        sections += [f"## {family}", ""]
        for defined in dict.fromkeys(entry.defined for entry in members):
            variants = [entry for entry in members if entry.defined is defined]
            rows += [row(entry, defined.__name__) for entry in variants]
            sections += section(defined, variants)
    sections += ["## Wrappers", "", "Each is itself a cell, made of cells.", ""]
    sections += [
        "| wrapped | promises |",
        "|---|---|",
        *(f"| `{made}` | {promises(cell)} |" for made, cell in WRAPPED.items()),
        "",
        "What goes layer by layer leaves each inner cell its own promises: `sj.explain` shows them.",
        "",
    ]
    for wrapper in WRAPPERS:
        sections += [f"### {wrapper.__name__}", "", *equation_block(wrapper)]
        sections += [*advice(wrapper), *source(wrapper)]
    table = [
        f"| cell | gated | linear | mixing | parameters | at D = H = {FEATURES} |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    parts = [INTRODUCTION.strip(), "\n".join(table), CAPTION.strip(), "\n".join(sections).strip()]
    return "\n\n".join(parts) + "\n"


def row(entry: Entry, heading: str) -> str:
    """One line of the table of promises."""
    cell = entry.build(FEATURES)
    tick = lambda promise: "yes" if promise is not None else ""
    cells = [
        f"[`{entry.made}`](#{heading.lower()})",
        tick(sj.as_gated(cell)),
        tick(sj.as_linear(cell)),
        cell.mixing,
        str(parameter_count(cell, shapes_of(cell, IN_FEATURES))),
        f"{sj.summary(cell, shapes_of(cell, IN_FEATURES)).size:,}",
    ]
    return f"| {' | '.join(cells)} |"


def section(defined: Any, variants: list[Entry]) -> list[str]:
    """The part of the page on one class: equations, advice, promises, parameters, source."""
    lines = [f"### {defined.__name__}", "", *equation_block(defined)]
    lines += advice(defined)
    for entry in variants:
        cell = entry.build(FEATURES)
        count = parameter_count(cell, shapes_of(cell, IN_FEATURES))
        lines.append(f"- `{entry.made}`: {promises(cell)}; {count} parameters")
    return [*lines, "", *source(defined)]


def equation_block(thing: Any) -> list[str]:
    """The first paragraph of the docstring, as it stands."""
    return ["```text", *paragraphs(thing)[0].splitlines(), "```", ""]


def advice(thing: Any) -> list[str]:
    """When to choose it."""
    return [*wrapped(f"*{sentence(thing, 'Choose it ')}*"), ""]


def source(thing: Any) -> list[str]:
    """Authors, years and titles; nothing where a thing has no source."""
    found = sentence(thing, "References?: ")
    return [*wrapped(re.sub("^References?:", "Source:", found)), ""] if found else []


def wrapped(text: str) -> list[str]:
    """Lines of at most 118 characters."""
    return textwrap.wrap(text, 118)


def jacobian(cell: sj.Cell, in_features: int) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """|∂s_t/∂s_{t-1}| of the floating leaves after some steps, and the name and size of each leaf."""
    params = cell.init(jax.random.key(0), in_features)
    xs = jax.random.normal(jax.random.key(1), (12, in_features))
    state, _ = sj.unroll(cell, params, xs[:-1], key=jax.random.key(2))
    leaves, structure = jax.tree.flatten(state)
    names = [jax.tree_util.keystr(p[-1:]).lstrip(".") for p, _ in jax.tree.leaves_with_path(state)]
    moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def after(floating: list[jax.Array]) -> list[jax.Array]:
        merged = list(leaves)
        for i, leaf in zip(moving, floating, strict=True):
            merged[i] = leaf
        stepped, _ = cell.step(params, jax.tree.unflatten(structure, merged), xs[-1])
        return [jax.tree.leaves(stepped)[i] for i in moving]

    floating = [leaves[i] for i in moving]
    holomorphic = all(jnp.iscomplexobj(leaf) for leaf in floating)
    blocks = jax.jacrev(after, holomorphic=holomorphic)(floating)
    rows = [
        np.hstack([np.abs(b).reshape(out.size, -1) for b in row])
        for row, out in zip(blocks, floating, strict=True)
    ]
    return np.vstack(rows), [(names[i], leaves[i].size) for i in moving]


def picture(path: Path) -> None:
    """The derivatives of all cells, one panel each."""
    from matplotlib.figure import Figure

    cells = entries()
    columns = 5
    rows = math.ceil(len(cells) / columns)
    figure = Figure(figsize=(2.4 * columns, 2.75 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, entry in zip(panels, cells, strict=False):
        cell = entry.build(8)
        matrix, leaves = jacobian(cell, 8)
        shown = np.where(matrix > 0, np.log10(np.maximum(matrix, 1e-30)), -30)
        panel.imshow(shown, cmap="magma", vmin=-3, vmax=0.2, interpolation="nearest")
        edges = np.cumsum([size for _, size in leaves])
        for edge in edges[:-1]:
            panel.axhline(edge - 0.5, color="white", linewidth=0.8)
            panel.axvline(edge - 0.5, color="white", linewidth=0.8)
        centres = [edge - size / 2 - 0.5 for edge, (_, size) in zip(edges, leaves, strict=True)]
        panel.set_xticks(centres, [name for name, _ in leaves], fontsize=8)
        panel.set_yticks(centres, [name for name, _ in leaves], fontsize=8)
        panel.tick_params(length=0)
        panel.set_title(f"{entry.made}\n{promises(cell)}", fontsize=8)
    for panel in panels[len(cells) :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Write the page and the picture."""
    (FOLDER / "cells.md").write_text(document(), encoding="utf-8")
    picture(FOLDER / "cells.png")
    print("wrote docs/cells.md and docs/cells.png")


if __name__ == "__main__":
    main()
