"""How the samples of one batch are read and joined; the same in the training process and in workers."""
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .collate import default_collate
from .dataset import IterableDataset, gatherer

END = object()  # what a stream's fetch returns after its last batch


def indexed_fetch(dataset: Any, collate_fn: Callable[[Any], Any], batched: bool) -> Callable[[Any], Any]:
    """A function from the indices of a batch (a range, an array or a list; one index where not `batched`) to the batch."""
    if not batched:
        return lambda index: collate_fn(dataset[index])
    if collate_fn is default_collate:
        gather = gatherer(dataset)
        if gather is not None:
            return lambda rows: gather(rows if isinstance(rows, range) else np.asarray(rows, np.intp))
    if hasattr(dataset, "__getitems__"):
        return lambda rows: collate_fn(dataset.__getitems__(_integers(rows)))
    return lambda rows: collate_fn([dataset[index] for index in _integers(rows)])


def _integers(rows: Any) -> Any:
    return rows.tolist() if isinstance(rows, np.ndarray) else rows


def stream_fetch(
    dataset: IterableDataset, collate_fn: Callable[[Any], Any], batch_size: int | None, drop_last: bool
) -> Callable[[], Any]:
    """A function that returns the next batch of a stream, then `END`."""
    samples: Iterator[Any] = iter(dataset)
    if batch_size is None:
        def single() -> Any:
            sample = next(samples, END)
            return END if sample is END else collate_fn(sample)

        return single
    size = batch_size

    def several() -> Any:
        batch = list(itertools.islice(samples, size))
        if not batch or (drop_last and len(batch) < size):
            return END
        return collate_fn(batch)

    return several
