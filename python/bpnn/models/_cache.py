"""Keys and values of what a decoder has read already, kept for the tokens to come."""
from __future__ import annotations

from typing import Any

import numpy as np

import bpnn


class KeyValueCache:
    """Keys and values of every layer, `(B, G, capacity, D)` each, of which the first `length` places are taken.

    Memory is allocated once where `capacity` is given, and doubled where it is not. Nothing in it is differentiated.

        cache = KeyValueCache(capacity=prompt + new)
        model(prompt, past_key_values=cache, use_cache=True)       # fills it
        model(token, past_key_values=cache, use_cache=True)        # reads it, adds one place
    """

    def __init__(self, capacity: int | None = None):
        self.capacity = capacity
        self.length = 0
        self._layers: list[tuple[np.ndarray, np.ndarray]] = []

    def get_seq_length(self) -> int:
        """The number of places taken (the name that `transformers` has for it)."""
        return self.length

    def update(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """Put the new keys and values (B, G, T, D) of a layer behind the old; all of them, as views (B, G, length + T, D).

        Every layer does it once a pass; the last one moves `length`. Raises `ValueError` beyond a given capacity or for another
        number of texts, `RuntimeError` where gradients are recorded, which would end here.
        """
        if key.requires_grad or value.requires_grad:
            raise RuntimeError("past_key_values, use_cache: a cache has no gradients; expected a call within bpnn.no_grad()")
        end = self.length + key.shape[-2]
        if layer == len(self._layers):
            room = self.capacity if self.capacity is not None else max(64, 2 * end)
            self._layers.append(tuple(np.empty((*x.shape[:-2], room, x.shape[-1]), x.dtype) for x in (key, value)))  # type: ignore[arg-type]
        kept = self._layers[layer]
        if len(key) != len(kept[0]):
            raise ValueError(f"past_key_values: holds {len(kept[0])} texts, got {len(key)}")
        if end > kept[0].shape[-2]:
            if self.capacity is not None:
                raise ValueError(f"past_key_values: has room for {self.capacity} places, asked for {end}")
            grown = tuple(np.empty((*x.shape[:-2], 2 * end, x.shape[-1]), x.dtype) for x in kept)
            for new, old in zip(grown, kept):
                new[..., : self.length, :] = old[..., : self.length, :]
            kept = self._layers[layer] = grown  # type: ignore[assignment]
        for store, new in zip(kept, (key, value)):
            store[..., self.length : end, :] = new.detach().numpy()
        return tuple(bpnn.from_numpy(store[..., :end, :]) for store in kept)  # type: ignore[return-value]

    def advance(self, count: int) -> None:
        """Count `count` more places as taken: at the end of a pass."""
        self.length += count

    def reorder(self, rows: Any, since: int = 0) -> None:
        """Take other sequences in place of the present ones: sequence i becomes what sequence `rows[i]` was (beam search).

        since: all of them are the same up to there (the prompt of the beams).
        """
        rows = np.asarray(rows)
        moved = np.flatnonzero(rows != np.arange(len(rows)))
        if moved.size:
            for kept in self._layers:
                for store in kept:
                    store[moved, :, since : self.length] = store[rows[moved], :, since : self.length]

    def repeat(self, times: int) -> None:
        """Every sequence `times` times, side by side."""
        self._layers = [tuple(self._repeated(store, times) for store in kept) for kept in self._layers]  # type: ignore[misc]

    def _repeated(self, store: np.ndarray, times: int) -> np.ndarray:
        many = np.empty((len(store) * times, *store.shape[1:]), store.dtype)
        for i in range(times):
            many[i::times, :, : self.length] = store[:, :, : self.length]
        return many

    def crop(self, length: int) -> None:
        """Forget what is behind the first `length` places."""
        self.length = min(self.length, length)
