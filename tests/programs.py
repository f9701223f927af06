"""What a traced program holds."""

from typing import Any

from jax.extend.core import jaxprs_in_params

DECOMPOSITIONS = {"qr", "geqrf", "eigh", "eig", "svd", "cholesky", "lu"}


def decompositions(jaxpr: Any) -> list[tuple[int, ...]]:
    """The shape of what each decomposition of matrices in a program takes."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in DECOMPOSITIONS:
            found.append(equation.invars[0].aval.shape)
        for inner in jaxprs_in_params(equation.params):
            found += decompositions(getattr(inner, "jaxpr", inner))
    return found
