"""Tests run stricter than users do: ranks and dtypes never promote by themselves, types are checked."""

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jaxtyping

# Before jax reads its settings: what one process compiles, the other workers of pytest-xdist and the
# interpreters that tests start load. The folder lasts one run, so that every run starts cold.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _programs = tempfile.mkdtemp(prefix="seqjax-tests-")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Before anything of seqjax is imported: beartype checks every jaxtyping annotation in it.
_hook = jaxtyping.install_import_hook("seqjax", "beartype.beartype")

import jax  # noqa: E402 - the hook above must come first
import pytest  # noqa: E402 - as above

MOST_MAPS = 50_000
"""Maps of memory at which a process forgets its compiled programs."""

_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def programs_leave_room_for_more() -> Iterator[None]:
    """Each compiled program holds maps of memory, of which a process may have 65,530: thousands of tests
    in one process would end in a segmentation fault inside the compiler.
    """
    yield
    maps = Path("/proc/self/maps")  # of Linux; others have no such limit
    if next(_tests) % 32 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def strict_promotion() -> Iterator[None]:
    """Strict promotion of dtypes and ranks; a test that calls optax asks for `standard_promotion`."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def standard_promotion(strict_promotion: None) -> Iterator[None]:
    """As users run: optax's optimizers mix dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision, for finite differences and identities to rounding."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key() -> jax.Array:
    """One fixed random key."""
    return jax.random.key(0)
