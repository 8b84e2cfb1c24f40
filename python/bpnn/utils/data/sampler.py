"""Samplers: in which order the samples of a data set are read.

The random ones are counter-based: the order of a pass is a function of a seed and the number of the pass (the epoch), through
the Philox generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), keyed by both. Nothing else needs
to be kept to come back to the same order, on any machine.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np
from bpcore.random import generator as numpy_generator

T_co = TypeVar("T_co", covariant=True)

# What a stream of random bits is for: streams of one seed and epoch with different purposes never meet.
ORDER, BATCH, WORKER = 0, 1, 2


def draw_seed(generator: Any = None) -> int:
    """63 random bits from `generator`, or from the global one (`bpnn.manual_seed` decides it) where None."""
    return int(numpy_generator(generator).bit_generator.random_raw()) >> 1


def bits(seed: int, epoch: int, purpose: int = ORDER, number: int = 0) -> np.random.Philox:
    """The stream of random bits of `(seed, epoch, purpose, number)`."""
    return np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, number, purpose], np.uint64))


def derived_seed(seed: int, epoch: int, purpose: int, number: int) -> int:
    """A 63-bit seed for worker or batch `number` of a pass."""
    return int(bits(seed, epoch, purpose, number).random_raw()) >> 1


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The integers 0 to n - 1 in the order that `(seed, epoch)` stands for; int64 (n,)."""
    return shuffled(bits(seed, epoch), n)


def shuffled(stream: np.random.Philox, n: int) -> np.ndarray:
    """The integers 0 to n - 1 in the order that a stream of random bits gives them; int64 (n,)."""
    # Each index is put below random bits in one word and the words are sorted. They differ, so every sort gives the same
    # result; NumPy promises the same raw bits for ever, but not the same Generator.permutation.
    width = np.uint64(max(n - 1, 0).bit_length())
    words = np.asarray(stream.random_raw(n), np.uint64)
    words >>= width
    words <<= width
    words |= np.arange(n, dtype=np.uint64)
    words.sort()
    words &= (np.uint64(1) << width) - np.uint64(1)
    return words.view(np.int64)


def _uniform(stream: np.random.Philox, n: int) -> np.ndarray:
    """n doubles in [0, 1)."""
    return (np.asarray(stream.random_raw(n), np.uint64) >> np.uint64(11)) * 2.0**-53


class Sampler(Generic[T_co]):
    """Gives the indices of a pass: subclasses define `__iter__()`, and `__len__()` where they know it.

    A loader resumes a pass of a sampler of your own by iterating again and dropping what was used, so the sampler must repeat
    itself; one that has `set_epoch(epoch)` is told the number of the pass first.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise TypeError(f"{type(self).__name__} does not define __iter__()")


class OrderedSampler(Sampler[int]):
    """A sampler whose pass is one array: `order(seed, epoch)`.

    Iterated by itself it draws its seed from `generator` (the global one where None) once, and counts its passes.
    """

    generator: Any = None
    _seed: int | None = None
    _epoch: int = 0

    def order(self, seed: int, epoch: int) -> Sequence[int] | np.ndarray:
        """The indices of pass `epoch`: a range, or int64 `(len(self),)`."""
        raise TypeError(f"{type(self).__name__} does not define order(seed, epoch)")

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass number `epoch`."""
        self._epoch = int(epoch)

    def __iter__(self) -> Iterator[int]:
        if self._seed is None:
            self._seed = draw_seed(self.generator)
        order = self.order(self._seed, self._epoch)
        self._epoch += 1
        return iter(order.tolist() if isinstance(order, np.ndarray) else order)


class SequentialSampler(Sampler[int]):
    """0, 1, 2, … up to `len(data_source) - 1`."""

    def __init__(self, data_source: Sized):
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(OrderedSampler):
    """The indices of `data_source` in random order.

    replacement: draw each index independently instead of permuting them. num_samples: how many to draw (default: as many as
    there are samples); without replacement, more than there are come from one permutation after the other.
    """

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ):
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement: expected a bool, got {replacement!r}")
        if num_samples is not None:
            _check_count("num_samples", num_samples)
        self.data_source = data_source
        self.replacement = replacement
        self.generator = generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """How many indices a pass gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def order(self, seed: int, epoch: int) -> np.ndarray:
        n, count = len(self.data_source), self.num_samples
        stream = bits(seed, epoch)
        if count and not n:
            raise ValueError(f"num_samples: cannot draw {count} of an empty data set")
        if self.replacement:
            return (_uniform(stream, count) * n).astype(np.int64)
        rounds = math.ceil(count / n) if n else 0
        return np.concatenate([shuffled(stream, n) for _ in range(rounds)] or [np.empty(0, np.int64)])[:count]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(OrderedSampler):
    """The given indices in random order, without replacement."""

    def __init__(self, indices: Sequence[int], generator: Any = None):
        self.indices = indices
        self.generator = generator

    def order(self, seed: int, epoch: int) -> np.ndarray:
        return np.asarray(self.indices, np.int64)[permutation(len(self.indices), seed, epoch)]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(OrderedSampler):
    """Indices 0 to `len(weights) - 1` drawn with probabilities proportional to `weights`.

    replacement=False draws each at most once: one after the other, each in proportion to the weights of what is left
    (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).

    >>> import numpy as np
    >>> sampler = WeightedRandomSampler([0.0, 1.0, 3.0], num_samples=4000)
    >>> counts = np.bincount(sampler.order(seed=0, epoch=0), minlength=3)
    >>> bool(counts[0] == 0 and 2900 < counts[2] < 3100)
    True
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None):
        _check_count("num_samples", num_samples)
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement: expected a bool, got {replacement!r}")
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1:
            raise ValueError(f"weights: expected one axis, got shape {self.weights.shape}")
        if not np.isfinite(self.weights).all() or (self.weights < 0).any() or not self.weights.sum() > 0:
            raise ValueError("weights: expected finite numbers, none negative, at least one above zero")
        if not replacement and np.count_nonzero(self.weights) < num_samples:
            raise ValueError(
                f"num_samples: cannot draw {num_samples} without replacement from {np.count_nonzero(self.weights)} "
                "weights above zero"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def order(self, seed: int, epoch: int) -> np.ndarray:
        stream = bits(seed, epoch)
        if self.replacement:
            edges = np.cumsum(self.weights)
            points = _uniform(stream, self.num_samples) * edges[-1]
            # rounding can put a point on the last edge; the last index with a weight owns it
            last = np.flatnonzero(self.weights)[-1]
            return np.minimum(np.searchsorted(edges, points, side="right"), last).astype(np.int64)
        # the time to the first event of a Poisson process with rate w: the earliest ones are the sample
        with np.errstate(divide="ignore", invalid="ignore"):
            times = -np.log1p(-_uniform(stream, len(self.weights))) / self.weights
        times[self.weights == 0] = np.inf
        return np.argsort(times, kind="stable")[: self.num_samples].astype(np.int64)

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of `sampler`; the last one may be shorter, or is dropped where `drop_last`.

    >>> list(BatchSampler(SequentialSampler(range(5)), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Sampler[int] | Iterable[int], batch_size: int, drop_last: bool):
        _check_count("batch_size", batch_size)
        if not isinstance(drop_last, bool):
            raise TypeError(f"drop_last: expected a bool, got {drop_last!r}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


class OrderedBatchSampler(Sampler[list[int]]):
    """A sampler of batches whose pass is one list: `batches(seed, epoch)`. Subclasses define that and `__len__()`.

    A loader tells it its seed, keeps that in its `state_dict` and so resumes in the middle of a pass. Iterated by itself it draws
    the seed from `generator` (the global one where None) once, and counts its passes.
    """

    generator: Any = None
    _seed: int | None = None
    _epoch: int = 0

    def batches(self, seed: int, epoch: int) -> list[list[int]]:
        """The batches of pass `epoch`, lists of indices."""
        raise TypeError(f"{type(self).__name__} does not define batches(seed, epoch)")

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass number `epoch`."""
        self._epoch = int(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        if self._seed is None:
            self._seed = draw_seed(self.generator)
        batches = self.batches(self._seed, self._epoch)
        self._epoch += 1
        return iter(batches)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name}: expected an integer above zero, got {value!r}")
