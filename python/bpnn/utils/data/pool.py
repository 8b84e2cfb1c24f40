"""A loader's worker processes, seen from the training process."""
import collections
import contextlib
import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any

from .worker import Job, dumps, receive_message, worker_main

GRACE = 2.0  # seconds for all workers to end by themselves
STARTING = 60.0  # seconds that a worker may take to start before the loader's timeout begins

# What a child that cannot import the main program or find a class most often suffers from.
START_HINT = (
    "a worker is a new process, which imports the program again: a script that starts it needs `if __name__ == \"__main__\":` "
    "around what it runs, and classes or functions written in a notebook or a `python -c` belong into a file"
)


class WorkerPool:
    """Worker processes that make batches in turn: the order of the results is the order of the tasks."""

    def __init__(self, job: Job, num_workers: int, context: Any, prefetch: int, timeout: float, seed: int, epoch: int):
        self.prefetch = prefetch
        self.timeout = timeout
        self.broken = False  # whether a worker has failed
        self.current = 0  # the number of the pass that the workers are at
        self.processes: list[Any] = []
        self.connections: list[Any] = []
        self.inboxes: list[collections.deque] = [collections.deque() for _ in range(num_workers)]
        self.ready = [False] * num_workers
        try:
            for number in range(num_workers):
                self._start(job, number, num_workers, context, seed, epoch)
        except BaseException:
            self.close()
            raise

    def _start(self, job: Job, number: int, num_workers: int, context: Any, seed: int, epoch: int) -> None:
        ours, theirs = context.Pipe()
        self.connections.append(ours)
        process = context.Process(
            target=worker_main, args=(theirs, job, number, num_workers, seed, epoch), name=f"bpnn-worker-{number}", daemon=True
        )
        try:
            process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise _unsendable(job, error) from error
        except (BrokenPipeError, EOFError) as error:
            raise RuntimeError(f"worker {number} of the data loader ended while it was started; {START_HINT}") from error
        finally:
            theirs.close()  # ours tells when the worker is gone, once no other process has its end
        self.processes.append(process)

    def run(self, tasks: Iterable[Any] | None, seed: int, epoch: int, first: int) -> Iterator[Any]:
        """The results of `tasks` (the indices of batches, numbered from `first`), in order; of streams where None."""
        self.current += 1
        this_pass = self.current
        numbered = enumerate(tasks, first) if tasks is not None else None
        waiting = [0] * len(self.processes)  # tasks that a worker has been given and not answered

        def assign(worker: int) -> None:
            number, indices = next(numbered, (None, None)) if numbered is not None else (0, None)
            if number is not None:
                self._send(worker, (this_pass, seed, epoch, number, indices))
                waiting[worker] += 1

        for _ in range(self.prefetch):
            for worker in range(len(self.processes)):
                assign(worker)
        turns = collections.deque(range(len(self.processes)))
        while turns:
            worker = turns[0]
            if not waiting[worker]:
                turns.popleft()
                continue
            kind, value = self._receive(worker, this_pass)
            waiting[worker] -= 1
            if kind == "end":
                turns.popleft()
                continue
            assign(worker)
            turns.rotate(-1)
            yield value
            if self.current != this_pass:
                raise RuntimeError("this pass was ended by a newer one over the same persistent workers")

    def _send(self, worker: int, message: Any) -> None:
        with contextlib.suppress(OSError):  # a worker that is gone is found when its answer is missed
            self.connections[worker].send(message)

    def _receive(self, worker: int, this_pass: int) -> tuple[str, Any]:
        """The next answer of `worker`; what others have ready is taken too, so that they can go on."""
        since = time.monotonic()
        inbox = self.inboxes[worker]
        block = False
        while True:
            allowed = self.timeout if self.ready[worker] else self.timeout + STARTING
            self._collect(worker, since + allowed if self.timeout else None, block)
            while inbox:
                answer = inbox.popleft()
                if answer is None:
                    self.broken = True
                    raise RuntimeError(self._epitaph(worker))
                passed, kind, value = answer
                if kind == "ready":
                    self.ready[worker] = True
                    since = time.monotonic()
                    continue
                if passed is None or (passed == this_pass and kind == "error"):
                    self.broken = True
                    raise _reraised(worker, *value)
                if passed == this_pass:
                    return kind, value
            block = True

    def _collect(self, worker: int, deadline: float | None, block: bool) -> None:
        """Move what has come into the inboxes; where `block`, wait until there is something from anyone."""
        open_ones: dict[Any, int] = {c: i for i, c in enumerate(self.connections) if not c.closed}
        if block and not open_ones:
            raise RuntimeError("the workers of the data loader have been shut down")
        left = 0.0 if not block else None if deadline is None else max(deadline - time.monotonic(), 0.0)
        ready: list[Any] = wait(list(open_ones), left)
        if block and deadline is not None and not ready:
            self.broken = True
            raise RuntimeError(f"no batch came from worker {worker} of the data loader within {self.timeout} s (timeout)")
        for connection in ready:
            number = open_ones[connection]
            try:
                self.inboxes[number].append(receive_message(connection))
            except (EOFError, OSError):
                connection.close()
                self.inboxes[number].append(None)

    def _epitaph(self, worker: int) -> str:
        process = self.processes[worker]
        process.join(GRACE)
        code = process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = f"killed by {signal.Signals(-code).name}"
            if -code == getattr(signal, "SIGKILL", 9):
                how += ", as the system does when memory runs out"
        hint = "" if self.ready[worker] or (code is not None and code < 0) else f"; {START_HINT}"
        return f"worker {worker} of the data loader (process {process.pid}) ended unexpectedly: {how}{hint}"

    def close(self) -> None:
        """End the workers: ask them, then make them."""
        for worker, connection in enumerate(self.connections):
            if not connection.closed:
                self._send(worker, None)
                connection.close()
        deadline = time.monotonic() + GRACE
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.0))
        for process in self.processes:
            if process.is_alive():
                process.terminate()
                process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()


def worker_context(context: Any) -> Any:
    """The multiprocessing context for a loader's argument: None, the name of a start method, or a context."""
    available = multiprocessing.get_all_start_methods()
    if context is None:
        context = "forkserver" if "forkserver" in available else "spawn"
    name: Any = context
    if isinstance(context, str):
        if context in available and context != "fork":
            return multiprocessing.get_context(context)
    else:
        name = getattr(context, "get_start_method", lambda: None)()
        if name in ("spawn", "forkserver"):
            return context
    raise ValueError(
        f"multiprocessing_context: expected 'spawn', 'forkserver' or such a context, got {name!r}; "
        "a forked copy of this process would lack its threads"
    )


def _unsendable(job: Job, error: Exception) -> TypeError:
    """The error for a job that cannot be pickled: names the part to blame."""
    for name in ("collate_fn", "worker_init_fn", "dataset"):
        try:
            dumps(getattr(job, name))
        except Exception as reason:
            return TypeError(
                f"{name}: {getattr(job, name)!r} cannot be sent to a worker process ({reason}); lambdas and functions inside "
                "functions cannot: define it at the top of a module, or use num_workers=0"
            )
    return TypeError(f"the data loader's arguments cannot be sent to a worker process ({error})")


class _Text(str):
    """A message that shows its line breaks where an exception shows the `repr` of its argument, as KeyError does."""

    def __repr__(self) -> str:
        return str(self)


def _reraised(worker: int, kind: type[Exception], text: str) -> Exception:
    """The worker's exception, with its traceback as message."""
    message = _Text(f"in worker {worker} of the data loader:\n{text}")
    try:
        return kind(message)
    except Exception:  # its constructor wants something else
        return RuntimeError(message)
