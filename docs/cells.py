"""The catalogue of cells: docs/cells.md and docs/cells.png, from the code itself.

    python -m docs.cells

Every cell that seqjax exports is in it. Equations, sources and advice come from the docstrings,
gates and promises from the cells, and the number of parameters from the shapes in the annotations.
"""

import dataclasses
import functools
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
import seqjax.wrappers
from seqjax.cell import gates_of

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


REQUIRED = {"skip": ("k", 2), "window": ("w", 4)}
"""Letter and value of the fields without a default; another one is shown by its own name, as 2."""

VARIANTS: dict[str, tuple[str, Callable[[int], dict[str, int]]]] = {
    "LSTM": ("projection=P", lambda H: {"projection": H // 2}),
    "SLSTM": ("heads=K", lambda H: {"heads": 4}),
    "LRU": ("state_features=N", lambda H: {"state_features": 2 * H}),
}
"""Options that get a row of their own."""

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


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the catalogue.

    made: the call, with H for the width. build: the cell at a width. defined: the class or function
    whose docstring describes it.
    """

    made: str
    build: Callable[[int], sj.Cell]
    defined: Any


def entries(package: Any = sj) -> list[Entry]:
    """Return all cells that a package exports: concrete classes, and functions that return a cell."""
    found: list[Entry] = []
    for name, thing in vars(package).items():
        is_cell = inspect.isclass(thing) and issubclass(thing, sj.Cell)
        is_leaf = is_cell and not inspect.isabstract(thing) and thing not in wrappers().values()
        if not is_leaf and not _makes_a_cell(thing):
            continue
        parameters = inspect.signature(thing).parameters.values()
        needed = [p.name for p in parameters if p.default is p.empty and p.name != "features"]
        letters = {field: REQUIRED.get(field, (field, 2)) for field in needed}
        fixed = {field: value for field, (_, value) in letters.items()}
        shown = "".join(f", {field}={letter}" for field, (letter, _) in letters.items())
        found.append(Entry(f"{name}(H{shown})", functools.partial(thing, **fixed), thing))
        if name in VARIANTS:
            option, at = VARIANTS[name]
            build = lambda H, thing=thing, at=at: thing(H, **at(H))
            found.append(Entry(f"{name}(H, {option})", build, thing))
    return found


def _makes_a_cell(thing: Any) -> bool:
    """Whether a function returns a cell."""
    made = inspect.signature(thing).return_annotation if inspect.isfunction(thing) else None
    return inspect.isclass(made) and issubclass(made, sj.Cell)


def family(cell: sj.Cell) -> str:
    """Return the section of a cell, by its promises."""
    if sj.as_linear(cell) is not None:
        return "Linear recurrences"
    if sj.as_gated(cell) is None:
        return "Other cells"
    return "Diagonal recurrences" if cell.mixing == "elementwise" else "Gated cells"


def wrappers() -> dict[str, Any]:
    """Return the wrappers by name."""
    is_wrapper = lambda thing: inspect.isclass(thing) and issubclass(thing, sj.Cell)
    exported = vars(seqjax.wrappers).items()
    return {n: w for n, w in exported if is_wrapper(w) and not inspect.isabstract(w)}


def takes(cell: sj.Cell, in_features: int) -> bool:
    """Whether the cell takes inputs of this size: a cell may need inputs as wide as itself."""
    try:
        return shapes_of(cell, in_features) is not None
    except ValueError:
        return False


def named(cell: sj.Cell) -> str:
    """Return the gates and units of a cell by name, and the path of its memory."""
    gates: dict[str, Any] = {}

    def step(key: jax.Array) -> None:
        params = cell.init(key, cell.features)
        x = jnp.zeros(cell.features)
        gates.update(gates_of(cell, params, cell.initial_state(params, key=key), x))

    jax.eval_shape(step, jax.random.key(0))
    of = lambda kind: ", ".join(name for name, g in gates.items() if g.activation == kind)
    parts = [
        f"{what} {of(kind)}" for what, kind in (("gates", "sigmoid"), ("tanh", "tanh")) if of(kind)
    ]
    if cell.memory_path in gates:
        parts.append(f"keeps {cell.memory_path} of its memory at each step")
    return "; ".join(parts)


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


FAMILIES = {
    "Gated cells": "An affine recurrence followed by a rule on each row: one recurrent matmul a step.",
    "Diagonal recurrences": "Gated cells whose recurrent matrix is diagonal: units do not mix.",
    "Linear recurrences": "Linear in the state, with coefficients that do not depend on it.",
    "Other cells": "More than one matmul of the state in a step, or none.",
}

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
    """Write the whole page."""
    families: dict[str, list[Entry]] = {name: [] for name in FAMILIES}
    for entry in entries():
        families[family(entry.build(FEATURES))].append(entry)
    rows, sections = [], []
    for name, members in families.items():
        rows += [row(entry) for entry in members]
        sections += [f"## {name}", "", FAMILIES[name], ""]
        for defined in dict.fromkeys(entry.defined for entry in members):
            first = next(e for e in entries() if e.defined is defined)
            if family(first.build(FEATURES)) == name:
                sections += section(defined, [e for e in entries() if e.defined is defined])
    sections += ["## Wrappers", "", "A wrapper is a cell around other cells.", ""]
    sections += [
        "| wrapped | promises |",
        "|---|---|",
        *(f"| `{made}` | {promises(cell)} |" for made, cell in WRAPPED.items()),
        "",
        "A wrapper that runs layer by layer leaves each inner cell its own promises: see `sj.explain`.",
        "",
    ]
    for name, wrapper in wrappers().items():
        sections += [f"### {name}", "", *equation_block(wrapper)]
        sections += [*advice(wrapper), *source(wrapper)]
    table = [
        f"| cell | gated | linear | mixing | parameters | at D = H = {FEATURES} |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    parts = [INTRODUCTION.strip(), "\n".join(table), CAPTION.strip(), "\n".join(sections).strip()]
    return "\n\n".join(parts) + "\n"


def row(entry: Entry) -> str:
    """One line of the table of promises."""
    cell = entry.build(FEATURES)
    tick = lambda promise: "yes" if promise is not None else ""
    cells = [
        f"[`{entry.made}`](#{entry.defined.__name__.lower()})",
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
        names = f"; {named(cell)}" if named(cell) else ""
        lines.append(f"- `{entry.made}`: {promises(cell)}{names}; {count} parameters")
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
