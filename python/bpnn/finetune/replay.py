"""Replay: samples of old tasks among the new ones, so that they are not forgotten.

    replay = Replay(share=0.25, capacity=1000); replay.fill(old_loader)
    Trainer(model, optimizer, nn.CrossEntropyLoss(), callbacks=[replay]).fit(new_loader, epochs=3)
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import bpnn
from bpnn.train import Callback

from ._inputs import array_of

__all__ = ["Replay"]


class Replay(Callback):
    """Puts stored samples into every batch, in the place of new ones drawn at random.

    A batch of B keeps `B - round(share B)` of its own, the others have their turn in other passes; the rest are drawn from the
    store, without repetition where it has enough. The store holds `capacity` samples; of all that were shown to it each is there
    with the same probability (reservoir sampling, Vitter 1985, algorithm R). After Rebuffi et al. 2017 and Chaudhry et al. 2019.

    share: 0 to 1. learn: also show every batch's own samples to the store, before it is changed, as where tasks come one after
    the other. Batches are tuples or dictionaries of tensors or arrays (B, …), like the stored ones; sequences that are shorter than
    others are filled up at the end with 0, labels with -100. What else a dictionary holds stays.

    The store is part of the run's checkpoints; draws come from bpnn's generator.
    """

    def __init__(self, share: float = 0.25, capacity: int = 1000, learn: bool = False) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected 0 to 1, got {share}")
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.share, self.capacity, self.learn = float(share), int(capacity), bool(learn)
        self.samples: list[dict[str, np.ndarray]] = []  # a sample: its arrays by name, or by place as "0", "1" …
        self.seen = 0

    def __len__(self) -> int:
        """How many samples are stored."""
        return len(self.samples)

    def fill(self, loader: Iterable[Any]) -> Replay:
        """Show the batches of a loader to the store; returns self."""
        for batch in loader:
            self.add(batch)
        return self

    def add(self, batch: Any) -> None:
        """Show the samples of a batch to the store."""
        arrays = _arrays(batch)
        count = _count(arrays)
        for i in range(count):
            self.seen += 1
            place = len(self.samples)
            if place == self.capacity:
                place = _below(self.seen)
                if place >= self.capacity:
                    continue
                self.samples[place] = _one(arrays, i)
            else:
                self.samples.append(_one(arrays, i))

    def on_batch(self, trainer: Any, batch: Any) -> Any:
        stored = list(self.samples) if self.learn else self.samples
        arrays = _arrays(batch)
        count = _count(arrays)
        if self.learn:
            self.add(batch)
        old = round(self.share * count)
        if not stored or not old:
            return batch
        if stored[0].keys() != arrays.keys():
            raise ValueError(f"batch: expected {', '.join(stored[0])} as the stored samples have, got {', '.join(arrays)}")
        kept = np.sort(bpnn.randperm(count).numpy()[: count - old])
        drawn = bpnn.randperm(len(stored)).numpy()[:old] if len(stored) >= old else [_below(len(stored)) for _ in range(old)]
        mixed = {
            name: _stacked([*array[kept], *(stored[i][name] for i in drawn)], name, array.dtype) for name, array in arrays.items()
        }
        return _as(mixed, batch)

    def state_dict(self) -> dict[str, Any]:
        return {"samples": [dict(sample) for sample in self.samples], "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.samples = [{name: np.array(array) for name, array in sample.items()} for sample in state["samples"]]
        self.seen = state["seen"]


def _below(limit: int) -> int:
    return int(bpnn.randint(limit, (1,)).item())


def _arrays(batch: Any) -> dict[str, np.ndarray]:
    """The arrays of a batch by name, or by place."""
    if isinstance(batch, Mapping):
        named = {name: value for name, value in batch.items() if getattr(value, "ndim", 0)}
    else:
        named = {str(i): value for i, value in enumerate(batch if isinstance(batch, (tuple, list)) else (batch,))}
    return {name: array_of(value) for name, value in named.items()}


def _count(arrays: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(array) if array.ndim else 1 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"batch: expected arrays of as many samples each, got {lengths or 'none'}")
    return next(iter(lengths.values()))


def _one(arrays: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: np.array(array[i]) for name, array in arrays.items()}


def _stacked(rows: list[np.ndarray], name: str, dtype: Any) -> np.ndarray:
    """(B, …): rows (T, …) of several lengths T filled up at the end."""
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        if len({shape[1:] for shape in shapes}) > 1 or () in shapes:
            raise ValueError(f"batch: {name}: expected samples of one shape but for their length, got {sorted(shapes)}")
        longest = max(shape[0] for shape in shapes)
        fill = -100 if name == "labels" else 0
        rows = [np.pad(row, [(0, longest - len(row))] + [(0, 0)] * (row.ndim - 1), constant_values=fill) for row in rows]
    return np.stack(rows).astype(dtype, copy=False)


def _as(arrays: dict[str, np.ndarray], batch: Any) -> Any:
    """Arrays in the form of a batch."""
    def form(name: str, like: Any) -> Any:
        return bpnn.from_numpy(arrays[name]) if isinstance(like, bpnn.Tensor) else arrays[name]

    if isinstance(batch, Mapping):
        return {name: form(name, value) if name in arrays else value for name, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)([form(str(i), value) for i, value in enumerate(batch)])
    return form("0", batch)
