"""`make test` runs the tests of a few suites; the studies that take longest are marked `full`."""

from pathlib import Path

import pytest

IN_MAKE_TEST = {"test_layers", "test_readout", "test_suites"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of all other suites `full`."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem not in IN_MAKE_TEST:
            item.add_marker(pytest.mark.full)
