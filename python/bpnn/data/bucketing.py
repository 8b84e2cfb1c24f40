"""Sequences of many lengths in batches: filled up to the longest, and batches of almost equal lengths, so that little is filled."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import bpnn
from bpnn.utils.data import Dataset
from bpnn.utils.data.sampler import ORDER, OrderedBatchSampler, bits, permutation, shuffled

Array = np.ndarray[Any, np.dtype[Any]]


def pad(sequences: Sequence[Any], padding_value: float = 0) -> tuple[Array, Array]:
    """Vectors as the rows of one array `(N, T)` of the type of the first, filled up with `padding_value`, and their lengths, int64.

    >>> rows, lengths = pad([np.array([5, 6, 7]), np.array([8])])
    >>> rows.tolist(), lengths.tolist()
    ([[5, 6, 7], [8, 0, 0]], [3, 1])
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("sequences: expected at least one")
    for i, array in enumerate(arrays):
        if array.ndim != 1:
            raise ValueError(f"sequences[{i}]: expected a vector, got shape {array.shape}")
    lengths = np.array([len(array) for array in arrays], np.int64)
    rows = np.full((len(arrays), lengths.max()), padding_value, arrays[0].dtype)
    for row, array in zip(rows, arrays, strict=True):
        row[: len(array)] = array
    return rows, lengths


class PadCollate:
    """Joins samples `(sequence, …)` to `(rows (N, T), lengths (N,), …)`: sequences are filled up, the rest is stacked.

    For `DataLoader(…, collate_fn=PadCollate(padding_value))`.
    """

    def __init__(self, padding_value: float = 0) -> None:
        self.padding_value = padding_value

    def __call__(self, samples: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        sequences, *others = zip(*samples, strict=True)
        rows, lengths = pad(sequences, self.padding_value)
        return tuple(map(bpnn.from_numpy, (rows, lengths, *(np.asarray(other) for other in others))))


class SequenceDataset(Dataset[tuple[Any, Any]]):
    """Samples `(sequence, label)` of vectors of any lengths; `lengths` is what a `BucketBatchSampler` wants to know."""

    def __init__(self, sequences: Sequence[Array], labels: Sequence[int] | Array) -> None:
        if len(sequences) != len(labels):
            raise ValueError(f"labels: expected one for each of {len(sequences)} sequences, got {len(labels)}")
        self.sequences, self.labels = list(sequences), np.asarray(labels)
        self.lengths = np.array([len(sequence) for sequence in self.sequences], np.int64)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.sequences[index], self.labels[index]

    def __len__(self) -> int:
        return len(self.sequences)


class BucketBatchSampler(OrderedBatchSampler):
    """Batches of samples of almost equal lengths, for `DataLoader(…, batch_sampler=…)`.

    lengths: of the samples. With `shuffle`, each pass puts the samples in a new random order, takes `pool` batches at a time, sorts
    these by length, cuts them into batches, and gives all batches in random order. Without, all samples are sorted by length.
    The last batch of each pool may be shorter; `drop_last` drops those.

    The order is a function of a seed and the number of the pass. A loader draws the seed, keeps it in its `state_dict` and so
    resumes in the middle of a pass; iterated by itself the sampler draws it from `generator` (the global one where None).

    >>> sampler = BucketBatchSampler([3, 9, 4, 8, 2], batch_size=2, shuffle=False)
    >>> list(sampler)
    [[4, 0], [2, 3], [1]]
    """

    def __init__(
        self, lengths: Sequence[int] | Array, batch_size: int, shuffle: bool = True, drop_last: bool = False, pool: int = 50,
        generator: Any = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("pool", pool)):
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: expected an integer above zero, got {value!r}")
        self.lengths = np.asarray(lengths, np.int64)
        if self.lengths.ndim != 1:
            raise ValueError(f"lengths: expected one axis, got shape {self.lengths.shape}")
        self.batch_size, self.shuffle, self.drop_last, self.pool = int(batch_size), shuffle, drop_last, int(pool)
        self.generator = generator

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def batches(self, seed: int, epoch: int) -> list[list[int]]:
        """All batches of pass `epoch`."""
        n, size = len(self.lengths), self.batch_size
        order = permutation(n, seed, epoch) if self.shuffle else np.arange(n)
        step = size * self.pool if self.shuffle else max(n, 1)
        pieces = []
        for start in range(0, n, step):
            some = order[start : start + step]
            some = some[np.argsort(self.lengths[some], kind="stable")]
            pieces += [some[i : i + size].tolist() for i in range(0, len(some), size)]
        if self.drop_last:
            pieces = [piece for piece in pieces if len(piece) == size]
        if self.shuffle:
            pieces = [pieces[i] for i in shuffled(bits(seed, epoch, ORDER, 1), len(pieces))]
        return pieces
