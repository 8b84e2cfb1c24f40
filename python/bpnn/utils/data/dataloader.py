"""DataLoader: batches of a data set, in an order that can be resumed."""
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from .collate import default_collate, default_convert
from .dataset import Dataset, IterableDataset
from .fetch import END, indexed_fetch, stream_fetch
from .sampler import BatchSampler, OrderedBatchSampler, OrderedSampler, RandomSampler, Sampler, SequentialSampler, draw_seed

T_co = TypeVar("T_co", covariant=True)


class DataLoader(Generic[T_co]):
    """Iterates over the batches of a data set.

    dataset: with `__getitem__` and `__len__`, or an `IterableDataset`.
    batch_size: samples a batch; None gives the samples one by one.
    shuffle: a new random order each pass.
    sampler: gives indices; batch_sampler: gives lists of indices. Either instead of `shuffle`. An
        `OrderedBatchSampler`, whose pass is a function of seed and number, is asked with the loader's seed.
    num_workers: processes that make batches; 0 makes them here. They are started by the fork server, or as new processes
        (`multiprocessing_context`: "forkserver" or "spawn"), so data set and functions must be picklable, and a script needs
        `if __name__ == "__main__":`. Each computes on one thread. Data sets of tensors are quickest without.
    collate_fn: from a list of samples to a batch (`default_collate`; `default_convert` for single samples).
    drop_last: drop a last batch that is not full.
    timeout: seconds to wait for a worker's batch; 0 waits for ever.
    worker_init_fn: called in each worker with its number.
    prefetch_factor: batches that each worker makes ahead (2).
    persistent_workers: keep the workers from one pass to the next.
    generator: decides the seed; the global one where None.
    pin_memory, pin_memory_device: accepted for programs written for PyTorch; there is no device to pin for.

    A data set of tensors (`TensorDataset`, and `Subset` and `ConcatDataset` of it) under `default_collate` is batched by one
    gather for each tensor.

    **Order and resuming.** The order of a pass is a function of the loader's seed and the number of the pass. The seed is drawn
    once, when the loader is first iterated: from `generator`, else from the global generator, which `bpnn.manual_seed` sets.
    `state_dict()` holds the seed, the pass and the batches given so far; a loader with the same arguments that loads it
    goes on with the next batch of the same pass, with any number of workers. In workers, `bpnn`'s, Python's and NumPy's global
    generators are seeded for each batch from the seed, the pass and the batch's number, so random changes of samples are
    resumed too. A stream (`IterableDataset`) is read again from its beginning, with as many workers as before.
    A pass that was left in the middle is over when the next begins; `set_epoch` begins a pass of one's choice.

    Messages between the processes are pickled by `multiprocessing`, arrays as raw memory beside them; nothing is pickled to files.

    >>> import numpy as np
    >>> import bpnn
    >>> from bpnn.utils.data import DataLoader, TensorDataset
    >>> loader = DataLoader(TensorDataset(bpnn.from_numpy(np.arange(10))), batch_size=4)
    >>> [x.tolist() for x, in loader]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> first, = next(iter(loader))
    >>> state = loader.state_dict()
    >>> again = DataLoader(TensorDataset(bpnn.from_numpy(np.arange(10))), batch_size=4)
    >>> again.load_state_dict(state)
    >>> [x.tolist() for x, in again]
    [[4, 5, 6, 7], [8, 9]]
    """

    def __init__(
        self,
        dataset: Dataset[T_co] | Sequence[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[int] | Iterable[int] | None = None,
        batch_sampler: Sampler[list[int]] | Iterable[Sequence[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
    ):
        if not isinstance(num_workers, int) or num_workers < 0:
            raise ValueError(f"num_workers: expected an integer of 0 or more, got {num_workers!r}")
        if timeout < 0:
            raise ValueError(f"timeout: expected 0 or more seconds, got {timeout!r}")
        if num_workers == 0:
            for name, value in (("prefetch_factor", prefetch_factor), ("persistent_workers", persistent_workers),
                                ("multiprocessing_context", multiprocessing_context), ("timeout", timeout)):
                if value:
                    raise ValueError(f"{name}: expected num_workers > 0 with it, got {name}={value!r}")
        if prefetch_factor is not None and prefetch_factor < 1:
            raise ValueError(f"prefetch_factor: expected an integer above zero, got {prefetch_factor!r}")
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = prefetch_factor if prefetch_factor is not None or not num_workers else 2
        self.persistent_workers = persistent_workers
        self._context = None
        if num_workers:
            from .pool import worker_context

            self._context = worker_context(multiprocessing_context)
        self._choose_order(batch_size, shuffle, sampler, batch_sampler, drop_last)
        self.collate_fn = collate_fn or (default_convert if self._batch is None else default_collate)

        self._seed: int | None = None
        self._epoch = 0  # the pass that was begun last, or that comes next
        self._position = 0  # how many of its batches have been given
        self._begun = False  # whether it was begun and has not come to its end
        self._token: object = None  # belongs to the newest iterator: older ones no longer count
        self._pool: Any = None

    def _choose_order(self, batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: bool) -> None:
        streams = isinstance(self.dataset, IterableDataset)
        if streams:
            for name, value in (("shuffle", shuffle), ("sampler", sampler), ("batch_sampler", batch_sampler)):
                if value is not None and value is not False:
                    raise ValueError(f"{name}: expected nothing for an IterableDataset, which has its own order, got {value!r}")
        if sampler is not None and shuffle:
            raise ValueError("sampler: expected either it or shuffle, got both")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("batch_sampler: expected no batch_size, shuffle, sampler or drop_last beside it")
            batch_size = getattr(batch_sampler, "batch_size", None) or 0
        elif batch_size is None:
            if drop_last:
                raise ValueError("drop_last: expected a batch_size with it, got batch_size=None")
        elif not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size: expected an integer above zero or None, got {batch_size!r}")
        if sampler is None and batch_sampler is None and not streams:
            sampler = RandomSampler(self.dataset) if shuffle else SequentialSampler(self.dataset)  # type: ignore[arg-type]
        if type(batch_sampler) is BatchSampler:
            sampler, drop_last = batch_sampler.sampler, batch_sampler.drop_last
        self._own_batches = batch_sampler if type(batch_sampler) is not BatchSampler else None
        self._batch = batch_size  # None: single samples; 0: unknown, the batch sampler of the user decides
        self.batch_size = None if batch_sampler is not None else batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        if batch_sampler is None and batch_size is not None and not streams:
            self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)

    def __len__(self) -> int:
        """How many batches a pass has (samples where `batch_size=None`)."""
        if self._own_batches is not None:
            return len(self._own_batches)  # type: ignore[arg-type]
        n = len(self.dataset if isinstance(self.dataset, IterableDataset) else self.sampler)  # type: ignore[arg-type]
        if not self._batch:
            return n
        return n // self._batch if self.drop_last else -(-n // self._batch)

    def __iter__(self) -> Iterator[Any]:
        if self._begun:
            self._epoch, self._position = self._epoch + 1, 0
        source = self.sampler if self._own_batches is None else self._own_batches
        if self._seed is None and (self.num_workers or _is_ordered(source) or isinstance(source, OrderedBatchSampler)):
            own = self.generator if self.generator is not None else getattr(source, "generator", None)
            self._seed = draw_seed(own)
        self._begun = True
        self._token = token = object()
        return self._pass(token, self._seed or 0, self._epoch, self._position)

    def _pass(self, token: object, seed: int, epoch: int, start: int) -> Iterator[Any]:
        batches = self._in_workers(seed, epoch, start) if self.num_workers else self._here(seed, epoch, start)
        try:
            for position, batch in enumerate(batches, start + 1):
                if self._token is token:
                    self._position = position
                yield batch
        finally:
            batches.close()  # type: ignore[attr-defined]
        if self._token is token:
            self._epoch, self._position, self._begun = epoch + 1, 0, False

    # --- the order ----------------------------------------------------------------------------------------------------------

    def _tasks(self, seed: int, epoch: int, start: int) -> Iterator[Any]:
        """The indices of each batch of the pass, from batch `start` on."""
        source = self.sampler if self._own_batches is None else self._own_batches
        if type(source) is SequentialSampler:
            return self._slices(range(len(source.data_source)), start)
        if _is_ordered(source):
            return self._slices(source.order(seed, epoch), start)
        if isinstance(source, OrderedBatchSampler):
            return itertools.islice(source.batches(seed, epoch), start, None)
        if hasattr(source, "set_epoch"):
            source.set_epoch(epoch)
        tasks = iter(source)  # type: ignore[arg-type]
        if self._own_batches is None and self._batch is not None:
            tasks = iter(BatchSampler(tasks, self._batch, self.drop_last))
        return itertools.islice(tasks, start, None)

    def _slices(self, order: Any, start: int) -> Iterator[Any]:
        if self._batch is None:
            return iter(order[start:] if isinstance(order, range) else order[start:].tolist())
        size = self._batch
        end = len(order) - len(order) % size if self.drop_last else len(order)
        return (order[i:min(i + size, end)] for i in range(start * size, end, size))

    # --- the batches --------------------------------------------------------------------------------------------------------

    def _here(self, seed: int, epoch: int, start: int) -> Iterator[Any]:
        if isinstance(self.dataset, IterableDataset):
            following = stream_fetch(self.dataset, self.collate_fn, self._batch, self.drop_last)
            position = 0
            while (batch := following()) is not END:
                position += 1
                if position > start:
                    yield batch
            return
        fetch = indexed_fetch(self.dataset, self.collate_fn, self._batch is not None)
        for rows in self._tasks(seed, epoch, start):
            yield fetch(rows)

    def _in_workers(self, seed: int, epoch: int, start: int) -> Iterator[Any]:
        streams = isinstance(self.dataset, IterableDataset)
        pool = self._pool or self._new_pool(seed, epoch)
        if self.persistent_workers and self._pool is None:
            self._pool = pool
            weakref.finalize(self, pool.close)
        try:
            tasks = None if streams else self._tasks(seed, epoch, start)
            batches = pool.run(tasks, seed, epoch, start)
            yield from itertools.islice(batches, start if streams else 0, None)
        finally:
            if not self.persistent_workers or pool.broken:
                pool.close()
                if self._pool is pool:
                    self._pool = None

    def _new_pool(self, seed: int, epoch: int) -> Any:
        from .pool import WorkerPool
        from .worker import Job

        job = Job(self.dataset, self.collate_fn, self.worker_init_fn, self._batch, self.drop_last)
        return WorkerPool(job, self.num_workers, self._context, self.prefetch_factor or 2, self.timeout, seed, epoch)

    # --- resuming -----------------------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass number `epoch`, from its first batch. Passes count from 0."""
        if not isinstance(epoch, (int, np.integer)) or epoch < 0:
            raise ValueError(f"epoch: expected an integer of 0 or more, got {epoch!r}")
        self._epoch, self._position, self._begun, self._token = int(epoch), 0, False, None

    def state_dict(self) -> dict[str, int | None]:
        """Where the loader is: `seed` (None before it is drawn), `epoch`, `position` (batches of this pass given so far)."""
        data: Any = self.dataset
        sized = not isinstance(data, IterableDataset) and hasattr(data, "__len__")
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
            "batch_size": self._batch,
            "samples": len(data) if sized else None,
        }

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Go on where the loader that gave `state` was: the next pass is the rest of its pass.

        Raises `ValueError` where batches or data set have another size in the middle of a pass."""
        if state["position"]:
            for name, ours in (("batch_size", self._batch), ("samples", self.state_dict()["samples"])):
                if state[name] != ours:
                    raise ValueError(f"{name}: the state, in the middle of a pass, is of a loader with {state[name]}, not {ours}")
        self.set_epoch(state["epoch"])  # type: ignore[arg-type]
        self._seed = state["seed"]
        self._position = state["position"] or 0


def _is_ordered(sampler: Any) -> bool:
    """Whether `sampler.order` tells the whole pass: it is one of ours and no subclass has changed how it iterates."""
    return isinstance(sampler, OrderedSampler) and type(sampler).__iter__ is OrderedSampler.__iter__
