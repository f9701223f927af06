"""Lanes of a text that run side by side, and windows of them for truncated backpropagation.

A text of N tokens has N - 1 pairs (a token, the token after it). They are laid into lanes, each a
contiguous stretch of the text, and read window by window; the state of a lane crosses windows.
"""

import operator
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int32

from seqjax import checks
from seqjax.data.text import one_row


class Batch(NamedTuple):
    """Pairs of a token and the next one, time-major.

    inputs, targets: token ids; 0 in the padding.
    mask: True where there is a pair, False in the padding.
    resets: True at a step before which the state becomes the initial one.
    """

    inputs: Int32[np.ndarray, "time lanes"]
    targets: Int32[np.ndarray, "time lanes"]
    mask: Bool[np.ndarray, "time lanes"]
    resets: Bool[np.ndarray, "time lanes"]


def lanes(ids: npt.ArrayLike, count: int) -> Batch:
    """Lay the N - 1 pairs of `ids` into `count` contiguous lanes of T = ⌈(N - 1) / count⌉ steps.

    Lane b holds the pairs b·T … (b + 1)·T - 1; the end of the last lanes is padding. Step 0 of every
    lane is a reset, so that a pass over the text starts from the initial state.

    Raises a ValueError for a count below 1 and for more lanes than pairs.

    >>> batch = lanes([5, 6, 7, 8, 9, 5], count=2)
    >>> batch.inputs.T.tolist(), batch.targets.T.tolist()
    ([[5, 6, 7], [8, 9, 0]], [[6, 7, 8], [9, 5, 0]])
    >>> batch.mask.T.tolist()
    [[True, True, True], [True, True, False]]
    """
    ids = one_row("lanes: ids", ids)
    checks.positive("lanes: count", count)
    pairs = max(ids.size - 1, 0)
    if count > pairs:
        raise ValueError(
            f"lanes: count is {count} but {ids.size} tokens make {pairs} pairs of a token and the next; "
            "expected a pair for each lane: ask for fewer, or give more text"
        )
    time = -(-pairs // count)

    def lay(row: np.ndarray) -> np.ndarray:
        padded = np.pad(row, (0, time * count - pairs))
        return np.ascontiguousarray(padded.reshape(count, time).T)

    resets = np.zeros((time, count), bool)
    resets[0] = True
    return Batch(lay(ids[:-1]), lay(ids[1:]), lay(np.ones(pairs, bool)), resets)


def rolled(batch: Batch, offset: int) -> Batch:
    """Cut the lanes of `batch` elsewhere: lane 0 starts `offset` steps further in the text.

    The lanes, end to end and padding included, are a ring that is turned, so every pair still occurs
    exactly once. Resets turn with their steps, so the start of the text stays separated from its end,
    and step 0 of every lane gets a reset.
    """
    time, count = batch.mask.shape
    turned = (np.roll(field.T.reshape(-1), -offset).reshape(count, time).T for field in batch)
    batch = Batch(*(np.ascontiguousarray(field) for field in turned))
    batch.resets[0] = True
    return batch


def passes(batch: Batch, length: int) -> Iterator[Batch]:
    """Make one pass, for evaluation, in windows of `length` steps; the last may be shorter.

    >>> [window.inputs.shape for window in passes(lanes(range(8), count=1), length=3)]
    [(3, 1), (3, 1), (1, 1)]
    """
    checks.instance("passes: batch", batch, Batch)
    checks.positive("passes: length", length)
    starts = range(0, len(batch.mask), length)
    return (jax.tree.map(operator.itemgetter(slice(t, t + length)), batch) for t in starts)


def check_state(
    name: str, state: Mapping[str, Any], here: Mapping[str, Any], position: Sequence[str]
) -> None:
    """Validate a saved state: integers of at least 0 in `position`, all else as it is `here`."""
    if set(state) != set(here):
        raise ValueError(
            f"{name}: state has the keys {sorted(state)}; expected {sorted(here)}, "
            "as get_state returns them"
        )
    for key in here:
        if key in position:
            checks.size(f"{name}: {key}", state[key])
        elif state[key] != here[key]:
            raise ValueError(
                f"{name}: state has {key} {state[key]} but this one has {here[key]}; resume with the "
                "data, sizes and seed it began with, or begin another run"
            )


class Windows:
    """Read a batch pass after pass without end, `length · windows_per_batch` steps at a time.

    Args:
        batch: as `lanes` returns it.
        length: the steps of one window, through which gradients flow.
        windows_per_batch: the windows of one training step.
        seed: None makes every pass alike. An integer turns the text before each pass by an offset drawn
            from (seed, pass), so that lanes and windows begin elsewhere in every pass (see `rolled`).
        restart: the share of lanes that begin a window with a reset, drawn for each window. A state that
            is always carried is never the initial one, and a model may fail to start from it; a small
            share (0.05) trains it to.

    Yields a `Batch` of length · windows_per_batch steps; the last of a pass holds the rest. Nothing is
    dropped and no batch holds steps of two passes. The position is plain data: `get_state` returns it as
    integers for JSON, `set_state` goes there.

    Raises a ValueError for an argument out of range, and a batch shorter than one window.

    >>> windows = Windows(lanes(range(8), count=1), length=3)
    >>> [next(windows).inputs[:, 0].tolist() for _ in range(4)]
    [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2]]
    >>> windows.steps_per_pass, windows.pass_number
    (3, 1)
    """

    def __init__(
        self,
        batch: Batch,
        length: int,
        *,
        windows_per_batch: int = 1,
        seed: int | None = None,
        restart: float = 0.0,
    ) -> None:
        """Start before the first batch of pass 0."""
        checks.instance("Windows: batch", batch, Batch)
        checks.positive("Windows: length", length)
        checks.positive("Windows: windows_per_batch", windows_per_batch)
        checks.fraction("Windows: restart", restart)
        if seed is not None:
            checks.size("Windows: seed", seed)
        if length > len(batch.mask):
            raise ValueError(
                f"Windows: length is {length} steps but a lane holds {len(batch.mask)}; expected at "
                "least one window a lane: ask for shorter windows or fewer lanes, or give more text"
            )
        self._batch, self._seed, self._restart = batch, seed, restart
        self._length, self._stride = length, length * windows_per_batch
        self._go_to(0, 0)

    @property
    def pass_number(self) -> int:
        """The number of finished passes, which is that of the pass of the next batch."""
        return self._pass_number

    @property
    def steps_per_pass(self) -> int:
        """The number of batches in one pass, the shorter last one included."""
        return -(-len(self._batch.mask) // self._stride)

    def __iter__(self) -> "Windows":
        return self

    def __next__(self) -> Batch:
        stop = self._position + self._stride
        window = jax.tree.map(operator.itemgetter(slice(self._position, stop)), self._laid)
        window = self._with_restarts(window)
        if stop < len(self._batch.mask):
            self._position = stop
        else:
            self._go_to(self._pass_number + 1, 0)
        return window

    def get_state(self) -> dict[str, int]:
        """Return the position (in passes, and in steps of the pass), and the data it belongs to."""
        return self._state(self._pass_number, self._position)

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position that `get_state` returned, here or in equal `Windows` elsewhere.

        Raises a ValueError for a state of another text, number of lanes or seed.
        """
        state = {name: int(value) for name, value in state.items()}
        here = self._state(max(state.get("pass_number", 0), 0), self._position)
        check_state("Windows.set_state", state, here, position=("pass_number", "position"))
        if state["position"] >= here["time"]:
            raise ValueError(
                f"Windows.set_state: state is at position {state['position']}; expected one in "
                f"[0, {here['time']})"
            )
        self._go_to(state["pass_number"], state["position"])

    def _state(self, pass_number: int, position: int) -> dict[str, int]:
        time, count = self._batch.mask.shape
        return {
            "pass_number": pass_number,
            "position": position,
            "time": time,
            "lanes": count,
            "offset": self._offset(pass_number),
            "checksum": zlib.crc32(self._batch.targets.tobytes()),
        }

    def _go_to(self, pass_number: int, position: int) -> None:
        self._pass_number, self._position = pass_number, position
        offset = self._offset(pass_number)
        self._laid = rolled(self._batch, offset) if offset else self._batch

    def _offset(self, pass_number: int) -> int:
        if self._seed is None:
            return 0
        return int(np.random.default_rng((self._seed, pass_number)).integers(self._batch.mask.size))

    def _with_restarts(self, window: Batch) -> Batch:
        """Add resets drawn from the position, so that a resumed run draws the same ones."""
        if self._restart == 0:
            return window
        draw = np.random.default_rng((self._seed or 0, self._pass_number, self._position))
        resets = window.resets.copy()
        first_steps = resets[:: self._length]
        first_steps |= draw.random(first_steps.shape) < self._restart
        return window._replace(resets=resets)
