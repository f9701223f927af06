"""Batches of ragged examples: padding, and buckets of similar lengths that are shuffled each pass."""

import functools
import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from seqjax import checks
from seqjax.data.windows import check_state

logger = logging.getLogger(__name__)


class Example(NamedTuple):
    """The inputs and the targets of one example.

    Each is a pytree of arrays. The first axis of an array is time; all arrays of `inputs` have the same
    time, and so have those of `targets`. A number stands for the whole sequence, such as a label.
    """

    inputs: Any
    targets: Any


class Padded(NamedTuple):
    """Examples side by side, time-major: each array is [time, rows, ...], each number [rows].

    lengths, target_lengths: int32[rows], the valid steps of inputs and targets; None for numbers.
    real: False for a row that only fills the batch; its arrays and its lengths are 0.
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
    """Stack `examples` into one batch of `rows` rows and `time` steps, padded with 0.

    Args:
        examples: from 1 to `rows` of them.
        time: the steps of the inputs.
        rows: the rows of the batch.
        target_time: the steps of the targets; None is those of the inputs.
        multiple: axes after time may differ too, such as the letters of words: they are padded to the
            longest of the batch, rounded up to this multiple, so that few shapes occur.

    Integers become int32, floats float32. Raises a ValueError for more than `rows` examples, for one
    longer than `time`, and for arrays that do not match.

    >>> batch = pad([Example([7, 8, 9], 1), Example([5], 0)], time=4, rows=3)
    >>> batch.inputs.T.tolist(), batch.lengths.tolist()
    ([[7, 8, 9, 0], [5, 0, 0, 0], [0, 0, 0, 0]], [3, 1, 0])
    >>> batch.targets.tolist(), batch.target_lengths, batch.real.tolist()
    ([1, 0, 0], None, [True, True, False])
    """
    if not 0 < len(examples) <= rows:
        raise ValueError(f"pad: expected from 1 to {rows} examples, got {len(examples)}")

    def side(name: str, trees: list[Any], room: int) -> tuple[Any, np.ndarray | None]:
        trees = [_arrays(tree) for tree in trees]
        found = [_length(tree) for tree in trees]
        longest = max((n for n in found if n is not None), default=0)
        if longest > room:
            raise ValueError(f"pad: {name} of {longest} steps do not fit in {room}")
        if len({(n is None, jax.tree.structure(t)) for n, t in zip(found, trees, strict=True)}) > 1:
            raise ValueError(
                f"pad: {name}: expected one structure in all examples, arrays or numbers, got several"
            )
        stacked = jax.tree.map(lambda *leaves: _stacked(leaves, room, rows, multiple), *trees)
        missing = (0, rows - len(found))
        return stacked, None if found[0] is None else np.pad(np.array(found, np.int32), missing)

    inputs, lengths = side("inputs", [e.inputs for e in examples], time)
    target_time = time if target_time is None else target_time
    targets, target_lengths = side("targets", [e.targets for e in examples], target_time)
    return Padded(inputs, targets, lengths, target_lengths, np.arange(rows) < len(examples))


class Buckets:
    """Read ragged examples pass after pass without end, each batch from one bucket of similar lengths.

    Args:
        examples: any sequence of `Example`s, such as a list.
        batch_size: the rows of a batch. The rest of a bucket makes a batch with rows that are not real.
        boundaries: the largest number of steps of each bucket, ascending. An example goes to the first
            bucket that holds the longer of its inputs and targets. An integer is a number of buckets,
            whose boundaries are those with the least padding.
        seed: None reads the examples in order, short ones first. An integer shuffles the examples of
            each bucket, and the batches, before each pass, in the same way in every run.
        longer: what to do with an example that no bucket holds, "refuse" or "skip". The number of
            skipped examples is logged, and is `skipped`.
        workers: threads that make batches in advance; 0 makes each on demand.

    Every batch of a bucket has the same shape, that of its longest inputs and of its longest targets, so
    a function is compiled once per bucket. Yields `Padded`. The position is plain data: `get_state`
    returns it as JSON values, `set_state` goes there.

    Needs the `grain` package: pip install 'seqjax[train]'. Raises a ValueError for a wrong argument, and
    for an example that is longer than the last boundary.

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
        """Start before the first batch of pass 0."""
        checks.positive("Buckets: batch_size", batch_size)
        checks.size("Buckets: workers", workers)
        checks.one_of("Buckets: longer", longer, ("refuse", "skip"))
        if seed is not None:
            checks.size("Buckets: seed", seed)
        if len(examples) == 0:
            raise ValueError("Buckets: examples is empty; expected at least one Example")
        self._examples, self._batch_size = examples, batch_size
        self._seed, self._workers = seed, workers
        self._sides, self._checksum = _measured(examples)
        lengths = self._sides.max(axis=1)
        if isinstance(boundaries, int):
            checks.positive("Buckets: boundaries", boundaries)
            boundaries = least_padding(lengths, boundaries)
        for boundary in boundaries:
            checks.positive("Buckets: boundaries", boundary)
        self.boundaries = tuple(int(boundary) for boundary in boundaries)
        if not self.boundaries or list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"Buckets: boundaries: expected rising integers, got {boundaries!r}")
        self.skipped = int((lengths > self.boundaries[-1]).sum())
        if self.skipped == len(lengths) or (self.skipped and longer == "refuse"):
            first = int((lengths > self.boundaries[-1]).argmax())
            raise ValueError(
                f"Buckets: examples[{first}] has {lengths[first]} steps, but the last bucket holds "
                f"{self.boundaries[-1]} ({self.skipped} of {len(lengths)} examples are longer); "
                'expected higher boundaries, or longer="skip" and some that fit'
            )
        if self.skipped:
            message = "Buckets: skipped %d of %d examples with more than %d steps"
            logger.warning(message, self.skipped, len(lengths), self.boundaries[-1])
        bucket = np.searchsorted(self.boundaries, lengths)
        members = {b: np.flatnonzero(bucket == b) for b in range(len(self.boundaries))}
        self._members = {b: found for b, found in members.items() if found.size}
        self._grain = checks.package("Buckets", "grain", "train")
        self._batches = self._dataset(seed)
        self._iterator = self._from_the_start()

    @property
    def steps_per_pass(self) -> int:
        """The number of batches in one pass."""
        return len(self._batches)

    @property
    def pass_number(self) -> int:
        """The number of finished passes, which is that of the pass of the next batch."""
        return self._iterator.get_state()["next_index"] // self.steps_per_pass

    @property
    def padding(self) -> float:
        """The share of the steps of a pass, in inputs and targets, that are padding."""
        size, steps, valid = self._batch_size, 0, 0
        for sides in (self._sides[members] for members in self._members.values()):
            steps += -(-len(sides) // size) * size * int(sides.max(axis=0).sum())
            valid += int(sides.sum())
        return 1 - valid / steps if steps else 0.0

    def one_pass(self) -> Iterator[Padded]:
        """Read every example once, in order, for evaluation, without a change of the position."""
        batches = self._dataset(None)
        return (batches[i] for i in range(len(batches)))

    def __iter__(self) -> "Buckets":
        return self

    def __next__(self) -> Padded:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        """Return the position, and the data it belongs to."""
        return {
            "next_batch": self._iterator.get_state()["next_index"],
            "examples": len(self._sides),
            "steps": int(self._sides.sum()),
            "checksum": self._checksum,
            "batches": self.steps_per_pass,
            "batch_size": self._batch_size,
            "longest": self.boundaries[-1],
            "seed": -1 if self._seed is None else self._seed,
        }

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position that `get_state` returned, here or in equal `Buckets` elsewhere."""
        check_state("Buckets.set_state", state, self.get_state(), position=("next_batch",))
        self._iterator = self._from_the_start()
        self._iterator.set_state({"next_index": state["next_batch"]})

    def _dataset(self, seed: int | None) -> Any:
        """Make one pass as a `grain.MapDataset`, which is shuffled in each repetition if seeded."""
        grain, examples, buckets = self._grain, self._examples, []
        for number, members in self._members.items():
            bucket = grain.MapDataset.source(members)
            if seed is not None:
                bucket = bucket.shuffle(seed=_seed(seed, number + 1))
            time, target_time = map(int, self._sides[members].max(axis=0))
            collate = functools.partial(
                pad, time=time, rows=self._batch_size, target_time=target_time
            )
            bucket = bucket.map(lambda member: examples[int(member)])
            buckets.append(bucket.batch(self._batch_size, batch_fn=collate))
        batches = grain.MapDataset.concatenate(buckets)
        return batches if seed is None else batches.shuffle(seed=_seed(seed, 0))

    def _from_the_start(self) -> Any:
        workers = self._workers
        options = self._grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
        return iter(self._batches.repeat().to_iter_dataset(options))


def least_padding(lengths: np.ndarray, buckets: int) -> tuple[int, ...]:
    """Return the boundaries with the least padding: min Σ_b (examples of bucket b) · boundary_b.

    Dynamic programming over the lengths that occur, or over 512 quantiles if there are more.

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


def _arrays(tree: Any) -> Any:
    """Convert lists of numbers and arrays to the dtypes of a batch."""

    def narrowed(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        if np.issubdtype(array.dtype, np.integer) or (isinstance(leaf, list) and not array.size):
            return array.astype(np.int32)  # an empty list is one of ids
        return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array

    return jax.tree.map(narrowed, tree, is_leaf=lambda node: isinstance(node, list))


def _length(side: Any) -> int | None:
    """Return the common steps of the arrays of a side; None if there are numbers alone."""
    times = {leaf.shape[0] for leaf in jax.tree.leaves(side) if leaf.ndim}
    if len(times) > 1:
        raise ValueError(f"pad: expected arrays of one length, got {sorted(times)} steps")
    return times.pop() if times else None


def _measured(examples: Sequence[Example]) -> tuple[np.ndarray, int]:
    """Return the steps [examples, 2] of inputs and of targets, 0 for numbers, and a checksum of all."""
    steps, total = [], 0
    for index, example in enumerate(examples):
        if not isinstance(example, Example):
            kind = type(example).__name__
            raise ValueError(f"Buckets: examples[{index}] is a {kind}; expected an Example")
        try:
            sides = [_arrays(side) for side in example]
            steps.append([_length(side) or 0 for side in sides])
        except ValueError as error:
            raise ValueError(f"Buckets: examples[{index}]: {error}") from None
        checksum = 0
        for leaf in jax.tree.leaves(sides):
            checksum = zlib.crc32(f"{leaf.dtype}{leaf.shape}".encode(), checksum)
            checksum = zlib.crc32(leaf.tobytes(), checksum)
        total = zlib.crc32(checksum.to_bytes(4, "little"), total)
    return np.array(steps), total


def _stacked(leaves: Sequence[np.ndarray], time: int, rows: int, multiple: int) -> np.ndarray:
    """Stack arrays as [time, rows, ...], or numbers as [rows]."""
    ranks = {leaf.ndim for leaf in leaves}
    if len(ranks) > 1:
        raise ValueError(f"pad: expected arrays with as many axes each, got {sorted(ranks)}")
    dtype = np.result_type(*leaves)
    if ranks == {0}:
        return np.pad(np.array(leaves, dtype), (0, rows - len(leaves)))
    rest = np.max([leaf.shape[1:] for leaf in leaves], axis=0).astype(int)
    if len({leaf.shape[1:] for leaf in leaves}) > 1:
        rest = -(-rest // multiple) * multiple
    stacked = np.zeros((time, rows, *rest), dtype)
    for row, leaf in enumerate(leaves):
        stacked[(slice(leaf.shape[0]), row, *map(slice, leaf.shape[1:]))] = leaf
    return stacked


def _seed(seed: int, number: int) -> int:
    """Derive a seed of 32 bits for each part."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
