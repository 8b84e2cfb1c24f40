"""Batches without padding: only real tokens become rows, and attention is told where each text begins.

Sizes: B texts of up to T tokens, N rows, H numbers a row in `heads` heads of D.
"""
from __future__ import annotations

import copy
from typing import Any

import numpy as np

import bpnn
from bpnn.nn import functional as F

from ._layers import array_of, weigh


class Layout:
    """Where the tokens of a batch (B, T) lie among the N rows that the layers of an encoder see.

    packed: the rows are the real tokens, one text after the other; text b is rows `cu_seqlens[b]` to `cu_seqlens[b + 1]`, and row i
    stands at place `places[i]` of the flat batch (`places` None: at place i, nothing is padding). Not packed: every place has its
    row, N = B T, and attention does not see those of padding.
    """

    def __init__(self, shape: tuple[int, int], real: np.ndarray | None = None, packed: bool = True):
        self.batch, self.length = shape
        if real is not None and real.all():
            real = None
        self.real = real
        self.packed = packed or real is None
        self.places = np.flatnonzero(real) if real is not None and packed else None
        lengths = np.full(self.batch, self.length) if self.places is None or real is None else real.sum(1)
        self.cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        self.prefix: tuple[Any, Any] | None = None

    def behind(self, prefix: tuple[Any, Any]) -> Layout:
        """The same layout for a layer that has keys and values, (P, heads, D) each, in front of those of every text."""
        made = copy.copy(self)
        made.prefix = prefix
        return made

    def __len__(self) -> int:
        """N."""
        return int(self.cu_seqlens[-1])

    def take(self, array: np.ndarray) -> np.ndarray:
        """Of numbers (B, T) those of the rows, (N,)."""
        flat = np.ascontiguousarray(array).reshape(-1)
        return flat if self.places is None else flat[self.places]

    def take_rows(self, x: Any) -> Any:
        """Of a Tensor (B, T, H) the rows, (N, H)."""
        flat = x.reshape(-1, x.shape[-1])
        return flat if self.places is None else F.embedding(bpnn.from_numpy(self.places), flat)

    def pad(self, rows: Any, fill: float = 0.0) -> Any:
        """Rows (N, …) as (B, T, …), `fill` where there is no row."""
        if self.places is not None:
            source = np.full(self.batch * self.length, len(self))
            source[self.places] = np.arange(len(self))
            rows = bpnn.cat([rows, bpnn.full((1, *rows.shape[1:]), fill, dtype=rows.dtype)])[bpnn.from_numpy(source)]
        return rows.reshape(self.batch, self.length, *rows.shape[1:])

    def first(self, rows: Any) -> Any:
        """The rows of the texts' first tokens, (B, H)."""
        return F.embedding(bpnn.from_numpy(self.cu_seqlens[:-1]), rows)

    def pool(self, rows: Any, mode: str) -> Any:
        """The "mean" or "max" over the tokens of each text, (B, H); zeros for a text without tokens."""
        places, starts = np.arange(len(self)), self.cu_seqlens
        if self.real is not None and self.places is None:  # the rows of padding do not count
            places, starts = np.flatnonzero(self.real), np.concatenate([[0], self.real.sum(1).cumsum()])
        return F.embedding_bag(bpnn.from_numpy(places), rows, bpnn.from_numpy(starts), mode=mode, include_last_offset=True)

    def attend(
        self, query: Any, key: Any, value: Any, heads: int, dropout: float = 0.0, weights: list[Any] | None = None,
        first: bool = False,
    ) -> Any:
        """Attention of every text to itself; query, key, value and result: (N, H).

        first: query has the rows of the first tokens alone, (B, H), and so has the result. weights: gets the weights
        (B, heads, T, T), which takes a layout that is not packed, or without padding.
        """
        rows, width = query.shape
        query, key, value = (x.reshape(x.shape[0], heads, x.shape[1] // heads) for x in (query, key, value))
        if weights is None and self.packed:
            asking = np.arange(self.batch + 1, dtype=np.int32) if first else self.cu_seqlens
            seen_by, key, value = self._joined(key, value)
            values: Any = F.varlen_attention(query, key, value, asking, seen_by, dropout_p=dropout)
            return values.reshape(rows, width)
        if self.places is not None:
            raise ValueError("attentions: expected a layout that is not packed")
        query, key, value = (x.reshape(self.batch, -1, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
        seen = None if self.real is None else self.real[:, None, None, :]
        if self.prefix is not None:
            before = (part.transpose(0, 1).expand(self.batch, -1, -1, -1) for part in self.prefix)
            key, value = (bpnn.cat([part, x], 2) for part, x in zip(before, (key, value)))
            if seen is not None:
                seen = np.concatenate([np.ones((*seen.shape[:3], len(self.prefix[0])), bool), seen], -1)
        if weights is not None:
            values, found = weigh(query, key, value, seen, dropout=dropout)
            weights.append(found)
        else:
            values = F.scaled_dot_product_attention(
                query, key, value, None if seen is None else bpnn.from_numpy(seen), dropout_p=dropout
            )
        return values.transpose(1, 2).reshape(rows, width)


    def _joined(self, key: Any, value: Any) -> tuple[np.ndarray, Any, Any]:
        """Where each text's keys begin, and keys and values, (rows, heads, D), with the prefix in front of every text's."""
        if self.prefix is None:
            return self.cu_seqlens, key, value
        count, starts = len(self.prefix[0]), self.cu_seqlens
        begins = starts + count * np.arange(len(starts), dtype=np.int32)
        source = np.arange(len(self) + count * self.batch) - np.repeat(count * np.arange(1, self.batch + 1), np.diff(begins))
        source[begins[:-1, None] + np.arange(count)] = len(self) + np.arange(count)
        index = bpnn.from_numpy(source)
        key, value = (bpnn.cat([x, part])[index] for x, part in zip((key, value), self.prefix))
        return begins, key, value


def real_places(attention_mask: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask (B, T) of a call as bool, True for a token; None where it hides nothing. Raises `ValueError` for another shape."""
    if attention_mask is None:
        return None
    array = array_of(attention_mask, "attention_mask")
    if array.shape != tuple(shape):
        raise ValueError(f"attention_mask: expected shape {tuple(shape)}, as input_ids, got {array.shape}")
    real = array != 0
    return None if real.all() else real
