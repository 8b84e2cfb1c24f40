"""What the decoders share: checked tokens, which keys a token sees, the loss of the next token."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import bpnn
from bpnn.nn import functional as F

from ._cache import KeyValueCache
from ._layers import IGNORED, array_of, in_range, numbers, target_of


def token_numbers(value: Any, vocabulary: int, name: str = "input_ids") -> np.ndarray:
    """`input_ids` as an array of int64 (…, T), T at least 1. Raises `IndexError` for a number that is not in the vocabulary."""
    if value is None:
        raise ValueError(f"{name}: expected tokens, got None")
    array = numbers(value, name)
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ValueError(f"{name}: expected shape (B, T) with at least one token, got {array.shape}")
    return in_range(array, vocabulary, name, "tokens")


@dataclass
class Reading:
    """How the tokens of a call are laid out: where they stand, what each of them sees, and the cache behind them.

    positions: (T,) or (B, T). A query sees keys up to itself; fewer with `mask` ((B, 1, T, S), bool), `key_lengths` (B) or
    `cu_seqlens` (several texts one after the other, without padding; places are counted through all rows). prefix: keys and values
    (P, G, D) of every layer that stand in front of all; `past` counts them, and mask and key_lengths know them.
    """

    positions: np.ndarray
    past: int = 0
    mask: np.ndarray | None = None
    key_lengths: np.ndarray | None = None
    cu_seqlens: np.ndarray | None = None
    cache: KeyValueCache | None = None
    prefix: Any = None

    def all_keys(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """Keys and values (B, G, T, D) of a call with those that the cache holds and the prefix in front of them, (B, G, S, D)."""
        if self.cache is not None:
            key, value = self.cache.update(layer, key, value)
        if self.prefix is not None:
            before = (part.transpose(0, 1).expand(len(key), -1, -1, -1) for part in self.prefix[layer])
            key, value = (bpnn.cat([part, x], -2) for part, x in zip(before, (key, value)))
        return key, value

    def attend(self, query: Any, key: Any, value: Any, *, layer: int, dropout: float = 0.0, scale: float | None = None,
               window: int | None = None) -> Any:
        """Causal attention of query (B, T, H, D) to key and value (B, T, G, D) and what the cache holds; (B, T, H, D).

        With `cu_seqlens` there may be no axis B.
        """
        if self.cu_seqlens is not None:
            q, k, v = (x.flatten(0, -3) if x.ndim > 3 else x for x in (query, key, value))
            y: Any = F.varlen_attention(q, k, v, self.cu_seqlens, is_causal=True, scale=scale, dropout_p=dropout, window=window)
            return y.reshape(query.shape) if query.ndim > 3 else y
        query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
        key, value = self.all_keys(layer, key, value)
        # One new token sees everything: without the comparison of positions.
        causal = query.shape[-2] > 1 or window is not None
        y = F.scaled_dot_product_attention(
            query, key, value, None if self.mask is None else bpnn.from_numpy(self.mask), dropout_p=dropout, is_causal=causal,
            scale=scale, enable_gqa=True, key_lengths=self.key_lengths, window=window, query_offset=self.past,
        )
        return y.transpose(-3, -2)


def read(
    tokens: np.ndarray, attention_mask: Any = None, position_ids: Any = None, cache: KeyValueCache | None = None,
    cu_seqlens: Any = None, context: int | None = None, prefix: int = 0,
) -> Reading:
    """The layout of tokens (B, T), or (N,) or (1, N) with `cu_seqlens`; behind a prefix of some places.

    attention_mask: (B, S), 0 for padding, S the length of the cache and of the tokens together. position_ids that do not go up one
    by one, without mask and cache, begin another text there, as in `transformers`. context: the most positions that there are
    (None: no limit). Raises `ValueError` naming the argument that does not fit.
    """
    length, past = tokens.shape[-1], 0 if cache is None else cache.length
    if cu_seqlens is not None:
        if prefix:
            raise ValueError("prefix_key_values: expected None with cu_seqlens")
        return _packed(tokens, attention_mask, position_ids, cache, numbers(cu_seqlens, "cu_seqlens"), context)
    if tokens.ndim != 2:
        raise ValueError(f"input_ids: expected shape (B, T), got {tokens.shape}; (N,) goes with cu_seqlens")
    if context is not None and prefix + past + length > context and position_ids is None:
        raise ValueError(f"input_ids: expected at most {context - prefix} tokens (max_position_embeddings), got {past + length}")
    first = prefix + past
    positions = np.arange(first, first + length) if position_ids is None else _positions(position_ids, tokens.shape, context)
    reading = Reading(positions, first, cache=cache)
    if position_ids is not None and attention_mask is None and cache is None:
        reading.cu_seqlens = _restarts(positions, tokens.shape)
        if prefix and reading.cu_seqlens is not None:
            raise ValueError("prefix_key_values: expected None with position_ids that begin several texts")
    if attention_mask is not None:
        _hide(reading, attention_mask, tokens.shape, past)
        if prefix and reading.mask is not None:
            reading.mask = np.concatenate([np.ones((*reading.mask.shape[:-1], prefix), bool), reading.mask], -1)
        if prefix and reading.key_lengths is not None:
            reading.key_lengths = reading.key_lengths + prefix
    return reading


def _positions(position_ids: Any, shape: tuple[int, ...], context: int | None) -> np.ndarray:
    positions = numbers(position_ids, "position_ids")
    if positions.shape not in (shape, (1, *shape[1:]), shape[-1:]):
        raise ValueError(f"position_ids: expected shape {shape}, got {positions.shape}")
    if positions.size and (positions.min() < 0 or (context is not None and positions.max() >= context)):
        raise ValueError(f"position_ids: expected 0 to {(context or 0) - 1} (max_position_embeddings), got "
                         f"{positions.min()} to {positions.max()}")
    return positions[0] if positions.ndim == 2 and len(positions) == 1 else positions


def _restarts(positions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Where texts begin in the rows of (B, T), one after the other, and their end; None where each row is one text."""
    begins = np.ones(shape, bool)
    begins[:, 1:] = np.diff(positions) != 1
    return np.append(np.flatnonzero(begins), begins.size) if begins[:, 1:].any() else None


def _hide(reading: Reading, attention_mask: Any, shape: tuple[int, ...], past: int) -> None:
    """Take in the mask of padding: lengths where the padding is at the ends, else a mask."""
    given = array_of(attention_mask, "attention_mask")
    full = (shape[0], past + shape[1])
    if given.ndim == 4:
        if given.dtype != bool:
            raise TypeError(f"attention_mask: expected bool for a mask of four axes, got {given.dtype}")
        reading.mask = given
        return
    if given.shape != full:
        raise ValueError(f"attention_mask: expected shape {full}, got {given.shape}")
    real = given != 0
    if real.all():
        return
    lengths = real.sum(-1)
    if (real == (np.arange(full[1]) < lengths[:, None])).all():
        reading.key_lengths = lengths
    else:
        reading.mask = real[:, None, None, :]


def _packed(
    tokens: np.ndarray, attention_mask: Any, position_ids: Any, cache: KeyValueCache | None, starts: np.ndarray,
    context: int | None,
) -> Reading:
    if tokens.size != tokens.shape[-1]:
        raise ValueError(f"input_ids: expected shape (N,) or (1, N) with cu_seqlens, got {tokens.shape}")
    if attention_mask is not None or cache is not None:
        raise ValueError("attention_mask, past_key_values: expected None with cu_seqlens")
    if starts.ndim != 1 or starts.size < 1 or starts[0] != 0 or starts[-1] != tokens.size or (np.diff(starts) < 0).any():
        raise ValueError(f"cu_seqlens: expected numbers from 0 to {tokens.size} that do not fall, got {starts.tolist()}")
    lengths = np.diff(starts)
    if context is not None and position_ids is None and lengths.size and lengths.max() > context:
        raise ValueError(f"cu_seqlens: expected at most {context} tokens a text (max_position_embeddings), got {lengths.max()}")
    if position_ids is None:
        positions = np.arange(tokens.size) - np.repeat(starts[:-1], lengths)
    else:
        positions = _positions(position_ids, tokens.shape, context)
    return Reading(positions, cu_seqlens=starts)


def next_tokens(labels: Any, shape: tuple[int, ...], vocabulary: int, cu_seqlens: Any = None) -> np.ndarray:
    """Labels moved one place to the left: each place's next token; the last place of a text has none (-100).

    Raises `ValueError` for another shape, `IndexError` for a label that is neither a token nor -100.
    """
    given = target_of(labels, shape, vocabulary)
    target = np.full(given.shape, IGNORED, np.int64)
    target[..., :-1] = given[..., 1:]
    if cu_seqlens is not None:
        starts = numbers(cu_seqlens, "cu_seqlens")
        target[..., starts[1:][np.diff(starts) > 0] - 1] = IGNORED
    return target


def last_places(tokens: np.ndarray, pad_token_id: int | None) -> np.ndarray:
    """The place of the last token of each row that is no padding: what a classifier on top of a decoder looks at."""
    if pad_token_id is None:
        if len(tokens) > 1:
            raise ValueError(f"input_ids: expected one text, as the configuration has no pad_token_id, got {len(tokens)}")
        return np.full(len(tokens), tokens.shape[1] - 1)
    real = tokens != pad_token_id
    return np.where(real, np.arange(tokens.shape[1]), 0).argmax(-1)
