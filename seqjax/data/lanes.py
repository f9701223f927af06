"""From one row of ids to lanes that run side by side, and to the windows of truncated backpropagation.

A text of N tokens has N - 1 pairs (a token, the token after it). They are laid into lanes, each a
contiguous stretch of the text, and walked window by window; the state of a lane crosses windows.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int32

from seqjax import checks
from seqjax.data.ids import one_row


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
    """The N - 1 pairs of `ids` in `count` contiguous lanes of T = ⌈(N - 1) / count⌉ steps.

    ids: int[tokens], N of them.
    Lane b holds the pairs b·T … (b + 1)·T - 1; every pair occurs exactly once. What is left over at
    the end of the last lanes is padding, with mask False. resets is True at step 0 of every lane, so
    that a pass over the text starts from the initial state.

    Raises a ValueError for fewer than 2 tokens, a count below 1, or more lanes than pairs.

    >>> batch = lanes([5, 6, 7, 8, 9, 5], count=2)
    >>> batch.inputs.T.tolist(), batch.targets.T.tolist()
    ([[5, 6, 7], [8, 9, 0]], [[6, 7, 8], [9, 5, 0]])
    >>> batch.mask.T.tolist()
    [[True, True, True], [True, True, False]]
    """
    ids = one_row("lanes: ids", ids)
    checks.positive("lanes: count", count)
    pairs = ids.size - 1
    if pairs < 1:
        raise ValueError(
            f"lanes: ids holds {ids.size} tokens; expected at least 2, a token and the one after it"
        )
    if count > pairs:
        raise ValueError(
            f"lanes: count is {count} but {ids.size} tokens make {pairs} pairs; "
            f"expected at most {pairs} lanes: ask for fewer, or give more text"
        )
    time = -(-pairs // count)

    def lay(row: np.ndarray) -> np.ndarray:
        padded = np.pad(row, (0, time * count - pairs))
        return np.ascontiguousarray(padded.reshape(count, time).T)

    resets = np.zeros((time, count), bool)
    resets[0] = True
    return Batch(lay(ids[:-1]), lay(ids[1:]), lay(np.ones(pairs, bool)), resets)


def rolled(batch: Batch, offset: int) -> Batch:
    """`batch` with its lanes cut elsewhere: lane 0 starts `offset` steps further in the text.

    The lanes, end to end and padding included, are one ring, and the ring is turned: every pair is
    still there exactly once. Marks of resets turn with their steps, so the start of the text stays
    cut off from its end, and step 0 of every lane gets a mark of its own.
    """
    time, count = batch.mask.shape
    turned = (np.roll(field.T.reshape(-1), -offset).reshape(count, time).T for field in batch)
    batch = Batch(*(np.ascontiguousarray(field) for field in turned))
    batch.resets[0] = True
    return batch


def passes(batch: Batch, length: int) -> Iterator[Batch]:
    """One pass, for evaluation: windows of `length` steps, the last one shorter where it must be.

    Raises a ValueError for a length below 1.

    >>> [window.inputs.shape for window in passes(lanes(range(8), count=1), length=3)]
    [(3, 1), (3, 1), (1, 1)]
    """
    _check_batch("passes", batch)
    checks.positive("passes: length", length)
    return (_between(batch, start, start + length) for start in range(0, len(batch.mask), length))


class Windows:
    """Pass after pass over a batch without end, `length · windows_per_batch` steps at a time.

    batch: as `lanes` gives it.
    length: the steps of one window, through which gradients flow.
    windows_per_batch: whole windows that one training step takes.
    seed: None walks every pass alike. An integer turns the text before each pass by an offset drawn
        from (seed, pass), so that lanes and windows begin elsewhere in every pass (see `rolled`).
    restart: the share of lanes that begin a window afresh, with a mark in resets, drawn anew for each
        window. A state that is carried for ever is never the initial one, and a model that is not
        trained from there can be lost there; a small share (0.05) teaches it to begin.

    Yields a `Batch` of length · windows_per_batch steps; the last of a pass is as short as what is
    left. Nothing is dropped and no batch holds steps of two passes. The position is plain data:
    `get_state` gives it as integers that JSON can hold, `set_state` goes there.

    Raises a ValueError for a length or windows_per_batch below 1, for a batch shorter than one
    window, and for a seed that is no non-negative integer, and for a restart outside [0, 1).

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
        """Stand before the first batch of pass 0."""
        _check_batch("Windows", batch)
        checks.positive("Windows: length", length)
        checks.positive("Windows: windows_per_batch", windows_per_batch)
        checks.fraction("Windows: restart", restart)
        if seed is not None and (isinstance(seed, bool) or seed < 0):
            raise ValueError(
                f"Windows: seed: expected None or an integer of at least 0, got {seed!r}"
            )
        if length > len(batch.mask):
            raise ValueError(
                f"Windows: length is {length} steps but a lane holds {len(batch.mask)}; "
                "expected at least one window a lane: "
                "ask for shorter windows or fewer lanes, or give more text"
            )
        self._batch = batch
        self._length, self._stride = length, length * windows_per_batch
        self._restart = restart
        self._seed = seed
        self._pass_number = 0
        self._position = 0
        self._laid = self._lay()

    @property
    def pass_number(self) -> int:
        """Passes that are finished; the number of the pass that the next batch belongs to."""
        return self._pass_number

    @property
    def steps_per_pass(self) -> int:
        """Batches in one pass, the shorter last one included."""
        return -(-len(self._batch.mask) // self._stride)

    def __iter__(self) -> "Windows":
        return self

    def __next__(self) -> Batch:
        stop = self._position + self._stride
        window = self._with_restarts(_between(self._laid, self._position, stop))
        if stop < len(self._batch.mask):
            self._position = stop
        else:
            self._pass_number, self._position = self._pass_number + 1, 0
            self._laid = self._lay()
        return window

    def get_state(self) -> dict[str, int]:
        """The position (in passes, and in steps of the pass), and what it is a position in."""
        time, count = self._batch.mask.shape
        return {
            "pass_number": self._pass_number,
            "position": self._position,
            "time": time,
            "lanes": count,
            "offset": self._offset(self._pass_number),
            "checksum": zlib.crc32(self._batch.targets.tobytes()),
        }

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position that `get_state` gave, here or in an equal `Windows` elsewhere.

        Raises a ValueError for a state of another text, of another number of lanes or of another
        seed: going on from there would skip some pairs and repeat others.
        """
        here = self.get_state()
        if set(state) != set(here):
            raise ValueError(
                f"Windows.set_state: state has the keys {sorted(state)}; expected {sorted(here)}, "
                "as get_state gives them"
            )
        state = {name: int(value) for name, value in state.items()}
        here["offset"] = self._offset(state["pass_number"])
        for name in ("time", "lanes", "offset", "checksum"):
            if state[name] != here[name]:
                raise ValueError(
                    f"Windows.set_state: state has {name} {state[name]} but this one has "
                    f"{here[name]}; resume with the text, the number of lanes and the seed it began "
                    "with, or begin another run"
                )
        if state["pass_number"] < 0 or not 0 <= state["position"] < here["time"]:
            raise ValueError(
                f"Windows.set_state: state is at pass {state['pass_number']}, position "
                f"{state['position']}; expected a pass from 0 on and a position in [0, {here['time']})"
            )
        self._pass_number, self._position = state["pass_number"], state["position"]
        self._laid = self._lay()

    def _with_restarts(self, window: Batch) -> Batch:
        """The window with marks drawn from where it is, so that a resumed run draws them again."""
        if self._restart == 0:
            return window
        draw = np.random.default_rng((self._seed or 0, self._pass_number, self._position))
        resets = window.resets.copy()
        first_steps = resets[:: self._length]
        first_steps |= draw.random(first_steps.shape) < self._restart
        return window._replace(resets=resets)

    def _offset(self, pass_number: int) -> int:
        if self._seed is None:
            return 0
        return int(np.random.default_rng((self._seed, pass_number)).integers(self._batch.mask.size))

    def _lay(self) -> Batch:
        offset = self._offset(self._pass_number)
        return rolled(self._batch, offset) if offset else self._batch


def _between(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(*(field[start:stop] for field in batch))


def _check_batch(name: str, batch: Batch) -> None:
    if not isinstance(batch, Batch):
        raise ValueError(
            f"{name}: batch is a {type(batch).__name__}; expected a Batch, "
            "as seqjax.data.lanes(ids, count) gives it"
        )
