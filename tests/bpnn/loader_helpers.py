"""Data sets and functions for worker processes, which must be able to import them."""
import os
import random
import signal
import time

import numpy as np

import bpnn
from bpnn.utils.data import Dataset, IterableDataset, get_worker_info


class Noisy(Dataset):
    """Row i: i and three random numbers, one of each global generator."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return index, bpnn.rand(1).item(), random.random(), np.random.random()


class Who(Dataset):
    """Row i: i, the worker's number, how many there are, its seed, its compute threads, its process."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        info = get_worker_info()
        return index, info.id, info.num_workers, info.seed, bpnn.get_num_threads(), os.getpid()


class Share(IterableDataset):
    """Counts to n, each worker its share: the first workers have more."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.n) if info is None else range(info.id, self.n, info.num_workers))


class Whole(IterableDataset):
    """Random numbers; each worker gives all of it."""

    def __iter__(self):
        return ((i, bpnn.rand(1).item()) for i in range(5))


class Custom(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)


class Trouble(Dataset):
    """Something goes wrong at row 5."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 5:
            if self.how == "value":
                raise ValueError("row 5 is bad")
            if self.how == "key":
                raise KeyError("five")
            if self.how == "custom":
                raise Custom(1, 2)
            if self.how == "local":
                class Local(Exception):
                    pass

                raise Local("made here")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exit":
                os._exit(3)
            if self.how == "sleep":
                time.sleep(60)
            if self.how == "unsendable":
                return lambda: None
        return index


class Big(Dataset):
    """Samples larger than a pipe holds."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return np.full(200_000, index, np.float32), np.empty(0), {"name": str(index)}


class Slow(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        time.sleep(0.05)
        return index


def as_is(samples):
    return samples


def to_tensor_and_text(samples):
    return {"x": bpnn.from_numpy(np.array(samples)), "text": ("a", None), "n": len(samples)}


def fail_to_start(worker):
    raise OSError(f"worker {worker} has no disk")


def seed_by_worker(worker):
    bpnn.worker_was_started = worker


class Started(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return bpnn.worker_was_started
