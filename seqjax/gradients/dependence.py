"""The sparsity of a Jacobian, read off the program: which outputs can depend on which inputs.

Values are never used: a unit that is off, a closed gate or a mask of zeros hides nothing. The result is
a superset of the entries of the Jacobian that can ever differ from zero.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

Masks = list[np.ndarray | None]
"""A bool[rows, *shape] for each array, True where the row can depend on it; None for nowhere."""

ROWS_AT_ONCE = 2**25
"""The number of entries of a Jacobian that are held at the same time."""


def dependence(
    function: Callable[..., Any], count: int, *arguments: Any
) -> Iterator[list[np.ndarray]]:
    """Yield for each entry of the output the ascending indices into each vector that it can depend on.

    function: takes `count` real vectors, [entries] each, and further arguments; returns a real vector.
    arguments: arrays or their shapes.

    The tangent map of the function is linear, so its program is read backwards from the outputs to the
    inputs: sums, products with constants, and moves of entries pass a dependence on entry by entry.
    A primitive without a rule here makes every output depend on every input.
    """
    vectors, rest = arguments[:count], arguments[count:]

    def tangent(tangents: Any, vectors: Any, rest: Any) -> Any:
        return jax.jvp(lambda *vectors: function(*vectors, *rest), vectors, tangents)[1]

    closed = jax.make_jaxpr(tangent)(vectors, vectors, rest)
    tainted = [i < count for i in range(len(closed.jaxpr.invars))]
    sizes = [var.aval.shape[0] for var in closed.jaxpr.invars[:count]]
    (out,) = closed.jaxpr.outvars
    rows = out.aval.shape[0]
    at_once = max(1, ROWS_AT_ONCE // max(1, sum(sizes)))
    for start in range(0, rows, at_once):
        chunk = np.eye(rows, dtype=bool)[start : start + at_once]
        masks = _backwards(closed.jaxpr, tainted, [chunk])[:count]
        for row in range(len(chunk)):
            yield [np.zeros(0, np.intp) if m is None else np.flatnonzero(m[row]) for m in masks]


def _backwards(jaxpr: Jaxpr, tainted: Sequence[bool], out: Masks) -> Masks:
    """Return the masks of the inputs, from those of the outputs, by way of `tainted` inputs."""
    depends = _tainted(jaxpr, tainted)
    masks: dict[Var, np.ndarray] = {}

    def add(var: Any, mask: np.ndarray | None) -> None:
        if mask is not None and not isinstance(var, Literal) and var in depends:
            masks[var] = masks[var] | mask if var in masks else mask

    for var, mask in zip(jaxpr.outvars, out, strict=True):
        add(var, mask)
    for eqn in reversed(jaxpr.eqns):
        after = [masks.pop(var, None) for var in eqn.outvars]
        if any(mask is not None for mask in after):
            takes = [not isinstance(var, Literal) and var in depends for var in eqn.invars]
            before = _rule(eqn)(eqn, takes, after)
            for var, mask in zip(eqn.invars, before, strict=True):
                add(var, mask)
    return [masks.get(var) for var in jaxpr.invars]


def _tainted(jaxpr: Jaxpr, inputs: Sequence[bool]) -> set[Var]:
    """Return the variables that depend on those inputs."""
    found = {var for var, taint in zip(jaxpr.invars, inputs, strict=True) if taint}
    for eqn in jaxpr.eqns:
        takes = [not isinstance(var, Literal) and var in found for var in eqn.invars]
        if any(takes):
            inner = _inner(eqn)
            if inner is None:
                found.update(eqn.outvars)
            else:
                reached = _tainted(inner, takes)
                pairs = zip(eqn.outvars, inner.outvars, strict=True)
                found.update(v for v, w in pairs if not isinstance(w, Literal) and w in reached)
    return found


def _inner(eqn: Any) -> Jaxpr | None:
    """Return the program of a call, whose inputs and outputs are those of the call; None for others."""
    if eqn.primitive.name not in ("jit", "pjit", "closed_call", "checkpoint"):
        return None
    inner = eqn.params["jaxpr"]
    return inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner


Rule = Callable[[Any, Sequence[bool], Masks], Masks]


def _rule(eqn: Any) -> Rule:
    if _inner(eqn) is not None:
        return lambda eqn, takes, out: _backwards(_inner(eqn), takes, out)  # pyright: ignore[reportArgumentType] - it is not None
    name = eqn.primitive.name
    if name in ENTRY_BY_ENTRY:
        return _entry_by_entry
    if name == "split":
        return _split
    if name in MOVES:
        return lambda eqn, takes, out: [
            _moved(MOVES[name], eqn, i, out[0]) if take else None for i, take in enumerate(takes)
        ]
    return _everything


def _everything(eqn: Any, takes: Sequence[bool], out: Masks) -> Masks:
    """Let every row with any dependence depend on every entry of every input."""
    some = np.any([m.reshape(len(m), -1).any(1) for m in out if m is not None], axis=0)
    return [
        _fill(np.asarray(some), var.aval.shape) if take else None
        for var, take in zip(eqn.invars, takes, strict=True)
    ]


def _fill(some: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(some.reshape(-1, *(1,) * len(shape)), (len(some), *shape))


ENTRY_BY_ENTRY = {
    "add",
    "add_any",
    "sub",
    "neg",
    "mul",
    "div",
    "select_n",
    "convert_element_type",
    "copy",
    "real",
    "imag",
    "complex",
    "conj",
    "reduce_precision",
}  # fmt: skip - a list of names
"""Linear in the tangents, entry by entry: an entry depends on the same entry of each input."""


def _entry_by_entry(eqn: Any, takes: Sequence[bool], out: Masks) -> Masks:
    (mask,) = out
    assert mask is not None
    same = [var.aval.shape == mask.shape[1:] for var in eqn.invars]
    if not all(fits for fits, take in zip(same, takes, strict=True) if take):
        return _everything(eqn, takes, out)  # a number that stands for all entries
    return [mask if take else None for take in takes]


def _split(eqn: Any, takes: Sequence[bool], out: Masks) -> Masks:
    """Concatenate the masks of the pieces."""
    rows = max(len(mask) for mask in out if mask is not None)
    pieces = [
        np.zeros((rows, *var.aval.shape), bool) if mask is None else mask
        for var, mask in zip(eqn.outvars, out, strict=True)
    ]
    return [np.concatenate(pieces, axis=1 + eqn.params["axis"])]


def _moved(move: Any, eqn: Any, i: int, mask: Any) -> np.ndarray:
    """Return the mask of input i, in its shape."""
    return move(eqn, i, mask).reshape(len(mask), *eqn.invars[i].aval.shape)


def _dot_general(eqn: Any, i: int, mask: np.ndarray) -> np.ndarray:
    """Let the outputs depend on the entries of a factor with the same free and batch indices."""
    contract, batch = eqn.params["dimension_numbers"]
    rank, other = (len(eqn.invars[k].aval.shape) for k in (i, 1 - i))
    free = [d for d in range(rank) if d not in contract[i] and d not in batch[i]]
    # The outputs are [batch, free of the first, free of the second].
    others = other - len(contract[1 - i]) - len(batch[1 - i])
    first = 1 + len(batch[i]) + (len(free) if i == 0 else 0)
    mask = np.asarray(mask.any(axis=tuple(range(first, first + others))))
    held = [*batch[i], *free]
    mask = mask.reshape(*mask.shape, *(1,) * len(contract[i]))
    order = np.argsort([*held, *contract[i]])
    mask = mask.transpose(0, *(1 + order))
    return np.broadcast_to(mask, (len(mask), *eqn.invars[i].aval.shape))


def _broadcast_in_dim(eqn: Any, i: int, mask: np.ndarray) -> np.ndarray:
    shape, kept = eqn.invars[i].aval.shape, eqn.params["broadcast_dimensions"]
    sizes = [1] * (mask.ndim - 1)
    for axis, size in zip(kept, shape, strict=True):
        sizes[axis] = size
    repeated = tuple(1 + d for d, size in enumerate(sizes) if size != mask.shape[1 + d])
    return np.any(mask, axis=repeated, keepdims=True)


def _reduce_sum(eqn: Any, i: int, mask: np.ndarray) -> np.ndarray:
    mask = np.expand_dims(mask, tuple(1 + d for d in eqn.params["axes"]))
    return np.broadcast_to(mask, (len(mask), *eqn.invars[i].aval.shape))


def _slice(eqn: Any, i: int, mask: np.ndarray) -> np.ndarray:
    p = eqn.params
    steps = p["strides"] or (1,) * (mask.ndim - 1)
    whole = np.zeros((len(mask), *eqn.invars[i].aval.shape), bool)
    cut = zip(p["start_indices"], p["limit_indices"], steps, strict=True)
    whole[(slice(None), *(slice(*part) for part in cut))] = mask
    return whole


def _concatenate(eqn: Any, i: int, mask: np.ndarray) -> np.ndarray:
    axis = eqn.params["dimension"]
    sizes = [var.aval.shape[axis] for var in eqn.invars]
    return np.split(mask, np.cumsum(sizes)[:-1], axis=1 + axis)[i]


MOVES: dict[str, Callable[[Any, int, np.ndarray], np.ndarray]] = {
    "dot_general": _dot_general,
    "broadcast_in_dim": _broadcast_in_dim,
    "reduce_sum": _reduce_sum,
    "slice": _slice,
    "concatenate": _concatenate,
    "transpose": lambda eqn, i, m: m.transpose(0, *(1 + np.argsort(eqn.params["permutation"]))),
    "rev": lambda eqn, i, m: np.flip(m, tuple(1 + d for d in eqn.params["dimensions"])),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), lambda eqn, i, m: m),
}
"""Linear in the tangents: each maps the mask of its one output to that of input i."""
