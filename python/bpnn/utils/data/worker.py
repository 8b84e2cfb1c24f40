"""What a loader's worker process does.

The process is a new interpreter (spawn, or a child of the fork server), not a copy of the training process: it must not
inherit threads that no longer run. Messages between the processes are pickled, as everything that `multiprocessing` sends;
bpnn's rule that nothing is pickled is about files, whose authors one may not trust. Arrays travel beside the message as raw
bytes.
"""
import io
import os
import pickle
import queue
import random
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
from bpcore.random import default_generator
from bpcore.tensor import Tensor, from_array
from bpcore.threads import set_num_threads

from .dataset import IterableDataset, WorkerInfo, set_worker_info
from .fetch import END, indexed_fetch, stream_fetch
from .sampler import BATCH, WORKER, derived_seed


# --- messages -------------------------------------------------------------------------------------------------------------

def _rebuild(cls: type, array: np.ndarray, requires_grad: bool) -> Tensor:
    tensor = from_array(array)
    if type(tensor) is not cls:
        tensor = cls(tensor, requires_grad)
    tensor.requires_grad = requires_grad
    return tensor


def _reduce_tensor(tensor: Tensor) -> tuple[Any, ...]:
    if not tensor.is_leaf:
        raise pickle.PicklingError("a tensor with history cannot be sent to another process; use tensor.detach()")
    return _rebuild, (type(tensor), tensor._array, tensor.requires_grad)


class _Pickler(ForkingPickler):
    def reducer_override(self, value: Any) -> Any:
        return _reduce_tensor(value) if isinstance(value, Tensor) else NotImplemented


def dumps(value: Any, buffer_callback: Any = None) -> bytes:
    """`value` pickled, its arrays given to `buffer_callback` instead where there is one."""
    file = io.BytesIO()
    _Pickler(file, 5, True, buffer_callback).dump(value)  # ForkingPickler takes no keywords
    return file.getvalue()


def send_message(connection: Connection, message: Any) -> None:
    """Send `message`, the memory of its arrays as raw bytes behind it."""
    buffers: list[pickle.PickleBuffer] = []
    content = dumps(message, buffers.append)
    views = [buffer.raw() for buffer in buffers]
    connection.send_bytes(np.array([view.nbytes for view in views], np.int64).tobytes())
    connection.send_bytes(content)
    for view in views:
        if view.nbytes:
            connection.send_bytes(view)


def receive_message(connection: Connection) -> Any:
    """The next message; its arrays own their memory. Raises `EOFError` or `OSError` where the other side is gone."""
    buffers = []
    sizes = np.frombuffer(connection.recv_bytes(), np.int64)
    content = connection.recv_bytes()
    for size in sizes:
        buffer = np.empty(size, np.uint8)
        if size:
            connection.recv_bytes_into(buffer)  # type: ignore[arg-type]
        buffers.append(buffer)
    return pickle.loads(content, buffers=buffers)


# --- the process ----------------------------------------------------------------------------------------------------------

class Job:
    """What all workers of a loader have in common. On its way it is bytes, and `open` in the worker makes objects of them, so
    that a class which the new process cannot find is an error that can be reported."""

    def __init__(self, dataset: Any, collate_fn: Any, worker_init_fn: Any, batch_size: int | None, drop_last: bool):
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.worker_init_fn = worker_init_fn
        self.batch_size = batch_size  # None: single samples
        self.drop_last = drop_last

    def __getstate__(self) -> dict[str, Any]:
        return {"content": dumps(self.__dict__)}

    def open(self) -> None:
        """Restore the attributes."""
        self.__dict__ = pickle.loads(self.__dict__["content"])


def _seed_everything(seed: int) -> None:
    default_generator().manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def worker_main(connection: Connection, job: Job, number: int, num_workers: int, seed: int, epoch: int) -> None:
    """Send `(None, "ready", None)`, then answer each task `(pass, seed, epoch, batch number, indices)` by `(pass, kind, value)`."""
    # Ctrl-C reaches the whole group of processes; the training process decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    try:
        try:
            set_num_threads(1)
            job.open()
            info = WorkerInfo(number, num_workers, derived_seed(seed, epoch, WORKER, number), job.dataset)
            set_worker_info(info)
            _seed_everything(info.seed)
            if job.worker_init_fn is not None:
                job.worker_init_fn(number)
        except Exception as error:
            send_message(connection, (None, "error", _described(error)))
            return
        send_message(connection, (None, "ready", None))
        threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
        _work(connection, tasks, job, number)
    except (EOFError, OSError):
        pass  # the training process has closed the pipe or is gone
    finally:
        connection.close()


def _listen(connection: Connection, tasks: queue.SimpleQueue) -> None:
    """Take tasks from the pipe as they come, so that the training process never waits to send one."""
    try:
        task = connection.recv()
        while task is not None:
            tasks.put(task)
            task = connection.recv()
    except (EOFError, OSError):
        os._exit(1)  # the training process is gone without a word: whatever this one does is for nobody
    tasks.put(None)


def _work(connection: Connection, tasks: queue.SimpleQueue, job: Job, worker: int) -> None:
    streams = isinstance(job.dataset, IterableDataset)
    current: Any = None
    fetch: Any = None
    while (task := tasks.get()) is not None:
        this_pass, seed, epoch, number, rows = task
        try:
            if this_pass != current:
                current = this_pass
                if streams:
                    _seed_everything(derived_seed(seed, epoch, WORKER, worker))
                    fetch = stream_fetch(job.dataset, job.collate_fn, job.batch_size, job.drop_last)
                else:
                    fetch = indexed_fetch(job.dataset, job.collate_fn, job.batch_size is not None)
            if streams:
                value = fetch()
            else:
                # so that what a data set draws belongs to the batch, whichever worker makes it, and a pass can be resumed
                _seed_everything(derived_seed(seed, epoch, BATCH, number))
                value = fetch(rows)
            answer = (current, "end", None) if value is END else (current, "batch", value)
        except Exception as error:
            answer = (current, "error", _described(error))
        try:
            send_message(connection, answer)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            send_message(connection, (current, "error", _described(error)))


def _described(error: Exception) -> tuple[type[Exception], str]:
    """The type of `error`, if the training process can be told, and its traceback."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.dumps(type(error))
    except Exception:
        return RuntimeError, text
    return type(error), text
