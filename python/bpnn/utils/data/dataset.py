"""Data sets: what a loader reads from."""
from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from bpcore.tensor import Tensor, from_array

from .sampler import draw_seed, permutation

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A data set read by index: subclasses define `__getitem__(index)` and `__len__()`.

    A subclass may define `__getitems__(indices)` too, which returns the list of those samples at once.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 5
    ...     def __getitem__(self, index):
    ...         return float(index * index)
    >>> Squares()[3]
    9.0
    """

    def __getitem__(self, index: Any) -> T_co:
        raise TypeError(f"{type(self).__name__} does not define __getitem__(index)")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """A data set read as a stream: subclasses define `__iter__()`.

    Each worker process of a loader has its own copy and reads all of it, unless `__iter__` asks `get_worker_info()` for its
    share. A pass that is resumed in the middle reads the stream again from its beginning and drops what was given before.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise TypeError(f"{type(self).__name__} does not define __iter__()")


@dataclass
class WorkerInfo:
    """Who a worker is: its number `id`, how many there are, its own `seed`, and its copy of the data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_worker: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The `WorkerInfo` of this process; None outside of a loader's workers.

    >>> get_worker_info() is None
    True
    """
    return _worker


def set_worker_info(info: WorkerInfo) -> None:
    """Tell this process which worker it is."""
    global _worker
    _worker = info


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples are the rows of tensors: `dataset[i]` is `(tensors[0][i], tensors[1][i], ...)`.

    tensors: `(N, ...)` each, with one N. Arrays are wrapped without a copy. A loader gathers a batch of it in one step.
    Raises `ValueError` where the first sizes differ.
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor):
        if not tensors:
            raise ValueError("tensors: expected at least one")
        self.tensors = tuple(from_array(t) if isinstance(t, np.ndarray) else t for t in tensors)
        for t in self.tensors:
            if not isinstance(t, Tensor):
                raise TypeError(f"tensors: expected Tensors, got {type(t).__name__}")
            if t.ndim == 0:
                raise ValueError("tensors: expected at least one axis, got a scalar")
        sizes = [t.shape[0] for t in self.tensors]
        if len(set(sizes)) > 1:
            raise ValueError(f"tensors: expected one size of the first axis, got {sizes}")

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)  # type: ignore[index]

    def __len__(self) -> int:
        return self.tensors[0].shape[0]


class ConcatDataset(Dataset[T_co]):
    """Several data sets one after the other."""

    datasets: list[Dataset[T_co]]
    cumulative_sizes: list[int]

    def __init__(self, datasets: Iterable[Dataset]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets: expected at least one")
        for part in self.datasets:
            if isinstance(part, IterableDataset):
                raise TypeError("datasets: expected data sets with an index, got an IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(part) for part in self.datasets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        part = bisect.bisect_right(self.cumulative_sizes, position)
        return self.datasets[part][position - (self.cumulative_sizes[part - 1] if part else 0)]


class Subset(Dataset[T_co]):
    """The samples of `dataset` at `indices`, in that order."""

    dataset: Dataset[T_co]
    indices: Sequence[int]

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T_co:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Dataset, lengths: Sequence[int | float], generator: Any = None) -> list[Subset]:
    """Divide `dataset` at random into disjoint subsets.

    lengths: numbers of samples that sum to `len(dataset)`; or fractions that sum to 1: each part gets the whole number below
    its share, and the samples left over go one each to the first parts. generator: decides the split; the global one where
    None, so that `bpnn.manual_seed` repeats it.

    >>> import bpnn
    >>> _ = bpnn.manual_seed(0)
    >>> [len(part) for part in random_split(range(10), [0.7, 0.3])]
    [7, 3]
    """
    n = len(dataset)  # type: ignore[arg-type]
    if any(isinstance(length, float) for length in lengths) and math.isclose(sum(lengths), 1.0):
        for fraction in lengths:
            if not 0 <= fraction <= 1:
                raise ValueError(f"lengths: expected fractions between 0 and 1, got {fraction}")
        sizes = [math.floor(n * fraction) for fraction in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(length) for length in lengths]
        if sizes != list(lengths) or min(sizes, default=0) < 0 or sum(sizes) != n:
            raise ValueError(f"lengths: expected sizes that sum to {n} or fractions that sum to 1, got {list(lengths)}")
    order = permutation(n, draw_seed(generator), 0).tolist()
    ends = list(itertools.accumulate(sizes))
    return [Subset(dataset, order[end - size:end]) for size, end in zip(sizes, ends)]


# --- batches by one gather ------------------------------------------------------------------------------------------------

Rows: TypeAlias = "range | np.ndarray"  # the indices of a batch: consecutive ones, or any


def gatherer(dataset: Any) -> Callable[[Rows], list[Tensor]] | None:
    """A function from a batch's indices to what `default_collate` would make of those samples, by one gather for each tensor.

    None where `dataset` is not made of tensor data sets, has a `__getitem__` of its own, or must go on the tape: it is then
    read sample by sample.
    """
    arrays = _columns(dataset)
    if arrays is not None:
        columns = arrays
        return lambda rows: [from_array(_take(column, rows)) for column in columns]
    if _is(dataset, Subset):
        inner = gatherer(dataset.dataset)
        if inner is None:
            return None
        indices = np.asarray(dataset.indices, np.intp)
        return lambda rows: inner(indices[rows.start:rows.stop] if isinstance(rows, range) else indices[rows])
    if _is(dataset, ConcatDataset):
        return _concat_gatherer(dataset)
    return None


def _is(dataset: Any, kind: type[Dataset]) -> bool:
    """Whether `dataset` is a `kind` whose way of reading a sample no subclass has changed."""
    cls = type(dataset)
    return isinstance(dataset, kind) and cls.__getitem__ is kind.__getitem__ and not hasattr(cls, "__getitems__")


def _columns(dataset: Any) -> list[np.ndarray] | None:
    if not _is(dataset, TensorDataset) or any(t.requires_grad for t in dataset.tensors):
        return None
    return [t._array for t in dataset.tensors]


def _take(column: np.ndarray, rows: Rows) -> np.ndarray:
    if isinstance(rows, range):
        return column[rows.start:rows.stop].copy()  # a copy: whoever changes a batch must not change the data
    # take is the quickest, but it copies the whole of an array that is not contiguous first
    return column.take(rows, axis=0) if column.flags.c_contiguous else column[rows]


def _concat_gatherer(dataset: ConcatDataset) -> Callable[[Rows], list[Tensor]] | None:
    parts = [_columns(part) for part in dataset.datasets]
    kinds = {None if part is None else tuple((c.dtype, c.shape[1:]) for c in part) for part in parts}
    if None in kinds or len(kinds) > 1:
        return None
    ends = np.asarray(dataset.cumulative_sizes)
    starts = ends - np.diff(ends, prepend=0)
    fields = list(zip(*parts))  # type: ignore[arg-type]

    def gather(rows: Rows) -> list[Tensor]:
        index = np.asarray(rows, np.intp)
        index = np.where(index < 0, index + ends[-1], index)
        if index.size and not 0 <= index.min() <= index.max() < ends[-1]:
            raise IndexError(f"an index is out of range for {ends[-1]} samples")
        owner = np.searchsorted(ends, index, side="right")
        batch = [np.empty((len(index), *column[0].shape[1:]), column[0].dtype) for column in fields]
        for part in np.unique(owner):
            here = np.flatnonzero(owner == part)
            for out, column in zip(batch, fields):
                out[here] = column[part][index[here] - starts[part]]
        return [from_array(out) for out in batch]

    return gather
