"""Fixtures of the tests alone; the strict ones that every test has are in the root conftest."""

from collections.abc import Iterator

import jax
import jaxtyping
import pytest


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run: without beartype, which refuses wrong types before our own messages can."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """For programs that run once on a few numbers, whose time is all the compiler's."""
    before = jax.config.values["jax_disable_most_optimizations"]  # True in `make test`
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
