"""Ragged examples to padded batches of like length, shuffled anew before each pass."""

import functools
import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from seqjax import checks

logger = logging.getLogger(__name__)


class Example(NamedTuple):
    """One example: what is read, and what is wanted.

    Each is a pytree of arrays. The first axis of an array is time; all arrays of `inputs` have the same
    time, and so have those of `targets`. A number stands for the whole sequence, such as a label.
    """

    inputs: Any
    targets: Any


class Padded(NamedTuple):
    """Examples side by side, time-major: each array is [time, rows, ...], each number [rows].

    lengths, target_lengths: int32[rows], the real steps of inputs and targets; None where those are
        numbers.
    real: False for a row that only fills the batch; all its arrays are 0 and its lengths too.
    """

    inputs: Any
    targets: Any
    lengths: Any
    target_lengths: Any
    real: Bool[np.ndarray, " rows"]


def pad(
    examples: Sequence[Example],
    time: int,
    rows: int,
    *,
    target_time: int | None = None,
    multiple: int = 8,
) -> Padded:
    """`examples` as one batch of `rows` rows and `time` steps, with 0 for what is not there.

    target_time: the steps of the targets, those of the inputs unless given.
    Axes after time may differ too, as the letters of words do: they are padded to the longest of the
    batch, rounded up to `multiple`, so that few shapes occur. Integers become int32, floats float32.

    Raises a ValueError for more than `rows` examples, for one longer than `time`, and where the arrays
    of one example, or of two of them, do not fit one another.

    >>> batch = pad([Example([7, 8, 9], 1), Example([5], 0)], time=4, rows=3)
    >>> batch.inputs.T.tolist(), batch.lengths.tolist()
    ([[7, 8, 9, 0], [5, 0, 0, 0], [0, 0, 0, 0]], [3, 1, 0])
    >>> batch.targets.tolist(), batch.target_lengths, batch.real.tolist()
    ([1, 0, 0], None, [True, True, False])
    """
    if not 0 < len(examples) <= rows:
        raise ValueError(f"pad: expected from 1 to {rows} examples, got {len(examples)}")
    sides = [Example(_arrays(e.inputs), _arrays(e.targets)) for e in examples]
    lengths = Example(*([_length(side) for side in of] for of in zip(*sides, strict=True)))
    times = Example(time, time if target_time is None else target_time)
    for name, found, room in zip(Example._fields, lengths, times, strict=True):
        longest = max((n for n in found if n is not None), default=0)
        if longest > room:
            raise ValueError(f"pad: {name} of {longest} steps do not fit in {room}")
        if len({n is None for n in found}) > 1:
            raise ValueError(f"pad: {name}: expected arrays in all examples, or numbers in all")
    if len({jax.tree.structure(e) for e in sides}) > 1:
        raise ValueError("pad: expected examples of one structure, got several")
    inputs, targets = (
        jax.tree.map(lambda *leaves, room=room: _stacked(leaves, room, rows, multiple), *of)
        for of, room in zip(zip(*sides, strict=True), times, strict=True)
    )
    row = lambda found: (
        None if found[0] is None else np.pad(np.array(found, np.int32), (0, rows - len(found)))
    )
    real = np.arange(rows) < len(examples)
    return Padded(inputs, targets, row(lengths.inputs), row(lengths.targets), real)


class Buckets:
    """Pass after pass over ragged examples without end, each batch from one bucket of like lengths.

    examples: any sequence of `Example`s, a list for instance.
    batch_size: the rows of a batch. What is left of a bucket makes a batch with rows that are not real.
    boundaries: the steps of each bucket, rising. An example stands in the first that holds it, by the
        longer of its inputs and targets. A number asks for so many, those that leave the least padding.
    seed: None goes through the examples in their order, short ones first. An integer shuffles the
        examples of each bucket, and the batches, anew before each pass, the same way in every run.
    longer: what to do with an example that no bucket holds, "refuse" or "skip". How many were skipped is
        logged, and stands in `skipped`.
    workers: threads that make batches ahead; 0 makes each when it is asked for.

    Every batch of a bucket has the same shape, that of its longest inputs and of its longest targets, so
    that a compiled function is compiled once a bucket.
    Yields `Padded`. The position is plain data: `get_state` gives it as JSON values, `set_state` goes
    there. Needs the `grain` package: pip install 'seqjax[train]'.

    Raises a ValueError for no examples, a size below 1, boundaries that do not rise, and an example that
    is longer than the last.

    >>> examples = [Example(list(range(n)), n % 2) for n in (3, 9, 4, 2, 8)]
    >>> batches = Buckets(examples, batch_size=2, boundaries=(4, 9))
    >>> [batch.inputs.shape for batch in batches.one_pass()]
    [(4, 2), (4, 2), (9, 2)]
    >>> batches.steps_per_pass, round(batches.padding, 2)
    (3, 0.24)
    """

    def __init__(
        self,
        examples: Sequence[Example],
        batch_size: int,
        *,
        boundaries: Sequence[int] | int = 6,
        seed: int | None = None,
        longer: str = "refuse",
        workers: int = 2,
    ) -> None:
        """Stand before the first batch of pass 0."""
        checks.positive("Buckets: batch_size", batch_size)
        checks.size("Buckets: workers", workers)
        checks.one_of("Buckets: longer", longer, ("refuse", "skip"))
        if seed is not None:
            checks.size("Buckets: seed", seed)
        if len(examples) == 0:
            raise ValueError("Buckets: examples is empty; expected at least one Example")
        seen = [_looked_at(e, i) for i, e in enumerate(examples)]
        sides = np.array([steps for steps, _ in seen])
        self._checksum = functools.reduce(
            lambda a, b: zlib.crc32(b, a), (raw for _, raw in seen), 0
        )
        lengths = sides.max(axis=1)
        if isinstance(boundaries, int):
            checks.positive("Buckets: boundaries", boundaries)
            boundaries = least_padding(lengths, boundaries)
        self.boundaries = _rising(boundaries)
        too_long = np.flatnonzero(lengths > self.boundaries[-1])
        self.skipped = len(too_long)
        if self.skipped and longer == "refuse":
            first = too_long[0]
            raise ValueError(
                f"Buckets: examples[{first}] has {lengths[first]} steps, but the last bucket holds "
                f"{self.boundaries[-1]} ({self.skipped} of {len(lengths)} examples are longer); "
                'expected higher boundaries, or longer="skip"'
            )
        if self.skipped == len(lengths):
            raise ValueError(f"Buckets: no example fits in {self.boundaries[-1]} steps")
        if self.skipped:
            message = "Buckets: skipped %d of %d examples with more than %d steps"
            logger.warning(message, self.skipped, len(lengths), self.boundaries[-1])
        of_bucket = np.searchsorted(self.boundaries, lengths)
        self._members = [np.flatnonzero(of_bucket == b) for b in range(len(self.boundaries))]
        self._examples, self._sides = examples, sides
        self._batch_size, self._seed, self._workers = batch_size, seed, workers
        self._batches = self._dataset(seed)
        self._iterator = self._from_the_start()

    @property
    def steps_per_pass(self) -> int:
        """Batches in one pass."""
        return len(self._batches)

    @property
    def pass_number(self) -> int:
        """Passes that are finished; the number of the pass that the next batch belongs to."""
        return self._iterator.get_state()["next_index"] // self.steps_per_pass

    @property
    def padding(self) -> float:
        """The share of steps of a pass, of inputs and targets, that are padding; whole rows included."""
        size, real, steps = self._batch_size, 0, 0
        for members in self._members:
            if len(members):
                real += int(self._sides[members].sum())
                steps += -(-len(members) // size) * size * int(self._sides[members].max(0).sum())
        return 1 - real / steps if steps else 0.0

    def one_pass(self) -> Iterator[Padded]:
        """Every example once, in order, for evaluation; the position of `self` stays where it is."""
        batches = self._dataset(None)
        return (batches[i] for i in range(len(batches)))

    def __iter__(self) -> "Buckets":
        return self

    def __next__(self) -> Padded:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        """The position, and what it is a position in."""
        found = self._iterator.get_state()["next_index"]
        return {"next_batch": found, **self._identity()}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position that `get_state` gave, here or in equal `Buckets` elsewhere.

        Raises a ValueError for a state of other examples, another batch size, boundaries or seed.
        """
        here = {"next_batch": 0, **self._identity()}
        if set(state) != set(here):
            raise ValueError(
                f"Buckets.set_state: state has the keys {sorted(state)}; expected {sorted(here)}, "
                "as get_state gives them"
            )
        for name, value in self._identity().items():
            if state[name] != value:
                raise ValueError(
                    f"Buckets.set_state: state has {name} {state[name]} but this one has {value}; "
                    "resume with the examples, boundaries, batch size and seed it began with, or begin "
                    "another run"
                )
        checks.size("Buckets.set_state: next_batch", state["next_batch"])
        self._iterator = self._from_the_start()
        self._iterator.set_state({"next_index": state["next_batch"]})

    def _identity(self) -> dict[str, int]:
        """What a position depends on."""
        return {
            "examples": len(self._sides),
            "steps": int(self._sides.sum()),
            "checksum": self._checksum,
            "batches": self.steps_per_pass,
            "batch_size": self._batch_size,
            "longest": self.boundaries[-1],
            "seed": -1 if self._seed is None else self._seed,
        }

    def _dataset(self, seed: int | None) -> Any:
        """One pass as a `grain.MapDataset`, shuffled anew in each repetition where there is a seed."""
        grain = _grain()
        buckets = []
        for number, members in enumerate(self._members):
            if len(members) == 0:
                continue
            bucket = grain.MapDataset.source(_Members(self._examples, members))
            if seed is not None:
                bucket = bucket.shuffle(seed=_seed(seed, number + 1))
            time, target_time = map(int, self._sides[members].max(axis=0))
            collate = functools.partial(
                pad, time=time, rows=self._batch_size, target_time=target_time
            )
            buckets.append(bucket.batch(self._batch_size, batch_fn=collate))
        batches = grain.MapDataset.concatenate(buckets)
        return batches if seed is None else batches.shuffle(seed=_seed(seed, 0))

    def _from_the_start(self) -> Any:
        options = _grain().ReadOptions(
            num_threads=self._workers, prefetch_buffer_size=2 * self._workers
        )
        return iter(self._batches.repeat().to_iter_dataset(options))


class _Members:
    """The examples of one bucket."""

    def __init__(self, examples: Sequence[Example], members: np.ndarray) -> None:
        self._examples, self._members = examples, members

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: Any) -> Example:
        return self._examples[int(self._members[int(index)])]


def least_padding(lengths: np.ndarray, buckets: int) -> tuple[int, ...]:
    """Boundaries that leave the least padding: min Σ_b (examples of bucket b) · boundary_b.

    By dynamic programming over the lengths that occur, or 512 quantiles where there are more.

    >>> least_padding(np.array([1, 2, 2, 3, 9, 9, 10, 50]), buckets=3)
    (3, 10, 50)
    """
    lengths = np.maximum(np.asarray(lengths), 1)
    cuts = np.unique(lengths)
    if len(cuts) > 512:
        cuts = np.unique(np.quantile(lengths, np.arange(1, 513) / 512, method="higher"))
    below = np.concatenate([[0], np.searchsorted(np.sort(lengths), cuts, side="right")])
    # cost[i, j]: all lengths above cut i, up to cut j, in one bucket; cut 0 stands before the first.
    cost = (below[None, :] - below[:, None]) * np.concatenate([[0], cuts])[None, :].astype(float)
    cost[np.tril_indices(len(below))] = np.inf
    np.fill_diagonal(cost, 0.0)  # an empty bucket, where fewer are enough
    best, origin = cost[0], []
    for _ in range(buckets - 1):
        through = best[:, None] + cost
        origin.append(np.argmin(through, axis=0))
        best = np.min(through, axis=0)
    ends = [len(cuts)]
    for came_from in reversed(origin):
        ends.append(int(came_from[ends[-1]]))
    return tuple(int(cuts[end - 1]) for end in sorted({end for end in ends if end}))


def _rising(boundaries: Sequence[int]) -> tuple[int, ...]:
    """Boundaries as a tuple of rising positive integers, or a ValueError."""
    for boundary in boundaries:
        checks.positive("Buckets: boundaries", boundary)
    rising = tuple(int(boundary) for boundary in boundaries)
    if not rising or list(rising) != sorted(set(rising)):
        raise ValueError(f"Buckets: boundaries: expected rising integers, got {boundaries!r}")
    return rising


def _arrays(tree: Any) -> Any:
    """Lists of numbers as arrays, in the dtypes of a batch."""
    is_leaf = lambda node: isinstance(node, list)
    return jax.tree.map(_narrowed, tree, is_leaf=is_leaf)


def _narrowed(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.size == 0 and array.dtype == np.float64 and isinstance(leaf, list):
        return array.astype(np.int32)  # an empty list of ids
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int32)
    return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array


def _length(side: Any) -> int | None:
    """The steps that the arrays of a side have in common; None where there are numbers alone."""
    times = {leaf.shape[0] for leaf in jax.tree.leaves(side) if leaf.ndim}
    if len(times) > 1:
        raise ValueError(f"pad: expected arrays of one length, got {sorted(times)} steps")
    return times.pop() if times else None


def _looked_at(example: Example, index: int) -> tuple[tuple[int, int], bytes]:
    """The steps of inputs and of targets, 0 where those are numbers; and a checksum of all of it."""
    if not isinstance(example, Example):
        raise ValueError(
            f"Buckets: examples[{index}] is a {type(example).__name__}; expected an Example"
        )
    try:
        sides = [_arrays(side) for side in example]
        inputs, targets = (_length(side) or 0 for side in sides)
    except ValueError as error:
        raise ValueError(f"Buckets: examples[{index}]: {error}") from None
    checksum = 0
    for leaf in jax.tree.leaves(sides):
        checksum = zlib.crc32(f"{leaf.dtype}{leaf.shape}".encode(), checksum)
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return (inputs, targets), checksum.to_bytes(4, "little")


def _stacked(leaves: Sequence[np.ndarray], time: int, rows: int, multiple: int) -> np.ndarray:
    """[time, rows, ...], or [rows] of numbers."""
    ranks = {leaf.ndim for leaf in leaves}
    if len(ranks) > 1:
        raise ValueError(f"pad: expected arrays with as many axes each, got {sorted(ranks)}")
    dtype = np.result_type(*leaves)
    if ranks == {0}:
        return np.concatenate([np.array(leaves, dtype), np.zeros(rows - len(leaves), dtype)])
    rest = np.max([leaf.shape[1:] for leaf in leaves], axis=0).astype(int)
    if len({leaf.shape[1:] for leaf in leaves}) > 1:
        rest = -(-rest // multiple) * multiple
    stacked = np.zeros((time, rows, *rest), dtype)
    for row, leaf in enumerate(leaves):
        stacked[(slice(leaf.shape[0]), row, *map(slice, leaf.shape[1:]))] = leaf
    return stacked


def _seed(seed: int, number: int) -> int:
    """A seed for each part, of 32 bits."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _grain() -> Any:
    """The package, which only this file needs."""
    try:
        import grain
    except ImportError:
        raise ImportError("Buckets needs the grain package: pip install 'seqjax[train]'") from None
    return grain
