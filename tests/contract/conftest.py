"""Each test of the contract runs once for each registered cell."""

from collections.abc import Iterator

import pytest

from seqjax.engines.tuned import TUNED
from tests.contract.cases import Case, make_case
from tests.contract.registry import REGISTRY


@pytest.fixture(params=list(REGISTRY))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def case(name: str, x64: None, short_chunks: None) -> Case:
    return make_case(name)


@pytest.fixture(scope="module")
def short_chunks() -> Iterator[None]:
    """Chunks of two steps, so that a run of four crosses from one to the next."""
    usual = TUNED["cpu"]
    TUNED["cpu"] = usual._replace(chunk=2, together=0)
    yield
    TUNED["cpu"] = usual
