"""`explain`: which engine runs for each layer of a cell, and why."""

from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, Params, State, as_gated, as_linear, run_layers
from seqjax.engines.dispatch import Remat, check_options, choose
from seqjax.engines.validate import check_cell, check_params, check_shapes, check_step, named
from seqjax.plan import Plan


class LayerExplanation(NamedTuple):
    """One leaf cell of a run: its promises, its engine, and the reason."""

    cell: Cell
    gated: bool
    linear: bool
    mixing: str
    engine: str
    reason: str


class Explanation(NamedTuple):
    """The engines of a run; prints as a table."""

    layers: tuple[LayerExplanation, ...]

    def __str__(self) -> str:
        """One line for each leaf cell, in the order in which they run."""
        return "\n".join(
            f"{number}. {layer.cell!r}\n"
            f"   {'gated' if layer.gated else 'linear' if layer.linear else 'not gated'}, "
            f"mixing {layer.mixing}; "
            f"engine {layer.engine}: {layer.reason}"
            for number, layer in enumerate(self.layers, start=1)
        )


def explain(
    cell: Cell,
    params: Params,
    xs: ArrayLike | jax.ShapeDtypeStruct,
    *,
    engine: str = "auto",
    remat: Remat = "auto",
) -> Explanation:
    """Explain which engine `sj.unroll(cell, params, xs, engine=..., remat=...)` runs, and why.

    Nothing is computed: `params` and `xs` may be shapes (`jax.ShapeDtypeStruct`).

    >>> import jax, seqjax as sj
    >>> cell = sj.Stack((sj.LSTM(8), sj.Dropout(sj.GRU(8), rate=0.1)))
    >>> params = cell.init(jax.random.key(0), in_features=4)
    >>> xs = jax.ShapeDtypeStruct((20, 3, 4), "float32")
    >>> [layer.engine for layer in sj.explain(cell, params, xs).layers]
    ['chunked', 'chunked']
    """
    with named("explain"):
        return _explain(cell, params, xs, engine, remat)


def _explain(cell: Cell, params: Params, xs: Any, engine: str, remat: Remat) -> Explanation:
    check_cell(cell)
    check_options(engine, remat)
    layers: list[LayerExplanation] = []

    def record(
        cell: Cell, params: Params, state: State, xs: Array, plan: Plan
    ) -> tuple[State, Array]:
        check_step(cell, params, state, xs)
        choice = choose(cell, engine, remat)
        promises = as_gated(cell) is not None, as_linear(cell) is not None, cell.mixing
        layers.append(LayerExplanation(cell, *promises, choice.engine, choice.reason))
        return choice.run(cell, params, state, xs, plan)

    def trace(params: Params, xs: Array) -> tuple[State, Array]:
        batch_shape = check_shapes(xs, None, None)
        check_params(cell, params, xs)
        state = cell.initial_state(params, batch_shape, key=jax.random.key(0))
        return run_layers(record, cell, params, state, xs)

    if not isinstance(xs, jax.ShapeDtypeStruct):
        xs = checks.array("unroll: xs", xs)
    jax.eval_shape(trace, params, xs)
    return Explanation(tuple(layers))
