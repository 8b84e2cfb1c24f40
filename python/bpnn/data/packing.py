"""Texts of many lengths as batches for decoders: packed one after the other without padding, or padded.

A packed batch has `cu_seqlens` (k + 1,), where its k texts begin and the last ends: attention stays within a text, positions begin
at 0 in each, and the loss never predicts the first token of one text from the last of another. So the gradient is that of the
separate texts.
Krell et al., "Efficient Sequence Packing without Cross-contamination" (2021).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IGNORED = -100
Row = dict[str, Any]


def pack(rows: Sequence[Mapping[str, Any]], length: int) -> list[Row]:
    """Rows {"input_ids", "labels"} (as `encode_examples` gives) put together to rows of at most `length` tokens with `cu_seqlens`.

    First-fit decreasing: the longest first, each into the first row that has room for it. Johnson, "Near-optimal bin packing
    algorithms" (1973). The order is a function of the lengths alone. Raises `ValueError` for a text of more than `length` tokens.

    >>> rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [4, 5], "labels": [4, 5]}]
    >>> [row["cu_seqlens"].tolist() for row in pack(rows, 8)]
    [[0, 3, 5]]
    """
    lengths = [len(row["input_ids"]) for row in rows]
    for i, size in enumerate(lengths):
        if not 0 < size <= length:
            where = f" ({rows[i]['where']})" if rows[i].get("where") else ""
            raise ValueError(f"rows[{i}]: expected 1 to {length} tokens, got {size}{where}")
    return [_joined([rows[i] for i in sorted(chosen)]) for chosen in first_fit(lengths, length)]


def first_fit(lengths: Sequence[int], length: int) -> list[list[int]]:
    """Which of `lengths` share a row of `length`: first-fit decreasing. O(n log n), by a tree of the room left in the rows."""
    leaves = 1 << max(len(lengths) - 1, 0).bit_length()
    room = [length] * (2 * leaves)  # node i has the most of its children 2 i and 2 i + 1
    rows: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        node = 1
        while node < leaves:
            node = 2 * node + (room[2 * node] < lengths[i])
        if node - leaves == len(rows):
            rows.append([])
        rows[node - leaves].append(i)
        room[node] -= lengths[i]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows


def _joined(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Texts one after the other. The first label of each is -100: no place of its own text predicts it."""
    ids = np.concatenate([np.asarray(row["input_ids"], np.int64) for row in rows])
    labels = np.concatenate([np.asarray(row["labels"], np.int64) for row in rows])
    sizes = [np.diff(row["cu_seqlens"]) if "cu_seqlens" in row else [len(row["input_ids"])] for row in rows]
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int32)
    labels[starts[:-1]] = IGNORED
    return {"input_ids": ids, "labels": labels, "cu_seqlens": starts, "length": len(ids)}


class PackedCollate:
    """Joins rows, packed or not, to one batch without padding: input_ids and labels (1, N), cu_seqlens (k + 1,) of all its texts.

    Positions follow from `cu_seqlens`; `position_ids=True` gives them too, (1, N).
    """

    def __init__(self, position_ids: bool = False) -> None:
        self.position_ids = position_ids

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        joined = _joined(rows)
        starts = joined["cu_seqlens"]
        batch = {"input_ids": joined["input_ids"][None], "labels": joined["labels"][None], "cu_seqlens": starts}
        if self.position_ids:
            batch["position_ids"] = (np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts)))[None]
        return batch


class PaddedCollate:
    """Joins rows that are not packed to a batch (B, T), filled up on the right: input_ids, attention_mask, labels (-100 there)."""

    def __init__(self, pad_token_id: int | None = 0) -> None:
        self.pad_token_id = 0 if pad_token_id is None else int(pad_token_id)  # any: the mask hides it

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        width = max(len(row["input_ids"]) for row in rows)
        ids = np.full((len(rows), width), self.pad_token_id, np.int64)
        labels, mask = np.full_like(ids, IGNORED), np.zeros_like(ids)
        for i, row in enumerate(rows):
            if "cu_seqlens" in row:
                raise ValueError("rows: expected rows of one text each, got a packed one; PackedCollate joins those")
            size = len(row["input_ids"])
            ids[i, :size], labels[i, :size], mask[i, :size] = row["input_ids"], row["labels"], 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
