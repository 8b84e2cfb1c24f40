"""What encoder and decoder are made of: packed attention, layers, stacks of them with embeddings. See transformer.py.

Sizes: N rows of the source, M of the target, E features in H heads of D; R newest tokens, K beams a text; text b is the rows from
`starts[b]` to `starts[b + 1]`.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.utils.checkpoint import checkpoint

from ._cache import KeyValueCache
from ._layers import activation_name, add_and_norm, joint_projection


def sinusoids(count: int, size: int) -> np.ndarray:
    """Positions (count, size): the sines of `position / 10000^(2 i / size)`, then the cosines."""
    angles = np.arange(count)[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    return np.concatenate([np.sin(angles), np.cos(angles)[:, : size // 2]], 1)


class TransformerAttention(nn.Module):
    """Four maps and what is between them, of packed rows or of one row for each text (`step…`)."""

    def __init__(self, size: int, heads: int, dropout: float, key: str):
        super().__init__()
        if size % heads:
            raise ValueError(f"config: {key}: expected a divisor of d_model, {size}, got {heads}")
        self.heads, self.dropout_p = heads, dropout
        self.k_proj, self.v_proj = nn.Linear(size, size), nn.Linear(size, size)
        self.q_proj, self.out_proj = nn.Linear(size, size), nn.Linear(size, size)

    def _split(self, x: Any) -> Any:
        """(…, E) → (…, H, D)."""
        return x.unflatten(-1, (self.heads, x.shape[-1] // self.heads))

    def forward(self, x: Any, starts: np.ndarray, causal: bool) -> Any:
        """Of rows (N, E) to the rows of the same text; with `causal` to those before."""
        p, maps = self.dropout_p if self.training else 0.0, (self.q_proj, self.k_proj, self.v_proj)
        if len(x) >= x.shape[1]:  # then one product is faster, although the weights are put side by side for it
            y: Any = F.qkv_attention(joint_projection(x, maps, self.heads), starts, is_causal=causal, dropout_p=p)
        else:
            q, k, v = (self._split(map(x)) for map in maps)
            y = F.varlen_attention(q, k, v, starts, is_causal=causal, dropout_p=p)
        return self.out_proj(y.flatten(1))

    def across(self, x: Any, memory: Any, starts: np.ndarray, memory_starts: np.ndarray) -> Any:
        """Of rows (M, E) to the rows of `memory` (N, E) that belong to the same text."""
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(memory)), self._split(self.v_proj(memory))
        p = self.dropout_p if self.training else 0.0
        y: Any = F.varlen_attention(q, k, v, starts, memory_starts, dropout_p=p)
        return self.out_proj(y.flatten(1))

    def remember(self, memory: Any) -> tuple[Any, Any]:
        """Keys and values (B, H, S, D) of padded memory (B, S, E)."""
        k, v = (self._split(map(memory)).transpose(1, 2) for map in (self.k_proj, self.v_proj))
        return k.contiguous(), v.contiguous()

    def step(self, x: Any, cache: KeyValueCache, layer: int) -> Any:
        """Of the newest tokens (R, E) to themselves and what the cache holds."""
        q, k, v = (self._split(map(x)).unsqueeze(2) for map in (self.q_proj, self.k_proj, self.v_proj))
        k, v = cache.update(layer, k, v)
        y: Any = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(y.flatten(1))

    def step_across(self, x: Any, known: tuple[Any, Any], lengths: np.ndarray) -> Any:
        """Of the newest tokens (B K, E), K beams a text, to what `remember` made of its text, the first `lengths` rows."""
        q = self._split(self.q_proj(x)).unflatten(0, (len(lengths), -1)).transpose(1, 2)
        y: Any = F.scaled_dot_product_attention(q, *known, key_lengths=lengths)
        return self.out_proj(y.transpose(1, 2).reshape(x.shape))


class _Layer(nn.Module):
    """What layers of both kinds have: attention to themselves and two maps with an activation between."""

    def __init__(self, config: Any, side: str):
        super().__init__()
        E, wide, key = config.d_model, getattr(config, f"{side}_ffn_dim"), f"{side}_attention_heads"
        self.before, self.activation = config.normalize_before, activation_name(config.activation_function, "activation_function")
        self.self_attn = TransformerAttention(E, getattr(config, key), config.attention_dropout, key)
        self.self_attn_layer_norm = nn.LayerNorm(E, eps=config.layer_norm_eps)
        self.fc1, self.fc2 = nn.Linear(E, wide), nn.Linear(wide, E)
        self.final_layer_norm = nn.LayerNorm(E, eps=config.layer_norm_eps)
        self.dropout, self.inner_dropout = nn.Dropout(config.dropout), nn.Dropout(config.activation_dropout)

    def part(self, norm: Any, x: Any, late: Any, function: Callable[[Any], Any]) -> tuple[Any, Any]:
        """`norm(x + function(x))`, or `x + function(norm(x))`, whose last sum is left `late` for the next norm to make."""
        if self.before:
            y, x = add_and_norm(norm, x, late)
            return x, self.dropout(function(y))
        return norm(self.dropout(function(x)), residual=x)[0], None

    def feed_forward(self, x: Any) -> Any:
        """(N, E) → (N, E)."""
        return self.fc2(self.inner_dropout(self.fc1(x, activation=self.activation)))


class TransformerEncoderLayer(_Layer):
    """Attention of all tokens of a text to all."""

    def __init__(self, config: Any):
        super().__init__(config, "encoder")

    def forward(self, x: Any, late: Any, starts: np.ndarray) -> tuple[Any, Any]:
        """x (N, E), to which `late` is still to be added, → the same two."""
        x, late = self.part(self.self_attn_layer_norm, x, late, lambda y: self.self_attn(y, starts, False))
        return self.part(self.final_layer_norm, x, late, self.feed_forward)


class TransformerDecoderLayer(_Layer):
    """Attention to the tokens before, then to the source."""

    def __init__(self, config: Any):
        super().__init__(config, "decoder")
        heads = config.decoder_attention_heads
        self.encoder_attn = TransformerAttention(config.d_model, heads, config.attention_dropout, "decoder_attention_heads")
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)

    def forward(
        self, x: Any, late: Any, memory: Any, starts: np.ndarray, memory_starts: np.ndarray
    ) -> tuple[Any, Any]:
        """x (M, E), to which `late` is still to be added, and memory (N, E) → the first two."""
        x, late = self.part(self.self_attn_layer_norm, x, late, lambda y: self.self_attn(y, starts, True))
        x, late = self.part(
            self.encoder_attn_layer_norm, x, late, lambda y: self.encoder_attn.across(y, memory, starts, memory_starts)
        )
        return self.part(self.final_layer_norm, x, late, self.feed_forward)

    def step(self, x: Any, late: Any, layer: int, cache: KeyValueCache, known: Any, lengths: np.ndarray) -> tuple[Any, Any]:
        """As `forward`, of the newest tokens alone."""
        x, late = self.part(self.self_attn_layer_norm, x, late, lambda y: self.self_attn.step(y, cache, layer))
        x, late = self.part(
            self.encoder_attn_layer_norm, x, late, lambda y: self.encoder_attn.step_across(y, known, lengths)
        )
        return self.part(self.final_layer_norm, x, late, self.feed_forward)


class TransformerStack(nn.Module):
    """Embeddings, layers, perhaps a norm: what encoder and decoder share."""

    recompute = False

    def __init__(self, config: Any, layers: list[Any], table: Any):
        super().__init__()
        E, kind = config.d_model, config.position_embedding_type
        if kind not in ("sinusoidal", "learned"):
            raise ValueError(f"config: position_embedding_type: expected 'sinusoidal' or 'learned', got {kind!r}")
        self.embed_tokens = table
        self.embed_positions = nn.Embedding(config.max_position_embeddings, E) if kind == "learned" else None
        self.layers = nn.ModuleList(layers)
        final = config.normalize_before if config.final_norm is None else config.final_norm
        self.layer_norm = nn.LayerNorm(E, eps=config.layer_norm_eps) if final else None
        self.dropout = nn.Dropout(config.dropout)
        self.scale = math.sqrt(E) if config.scale_embedding else 1.0
        self._sinusoids = sinusoids(config.max_position_embeddings if kind == "sinusoidal" else 0, E)

    def embed(self, tokens: np.ndarray, positions: np.ndarray) -> Any:
        """Tokens (N,) at positions (N,) → (N, E)."""
        x = self.embed_tokens(bpnn.from_numpy(tokens)) * self.scale
        if self.embed_positions is not None:
            places = self.embed_positions(bpnn.from_numpy(positions))
        else:
            if self._sinusoids.dtype != x.dtype:
                self._sinusoids = sinusoids(*self._sinusoids.shape).astype(x.dtype)
            places = bpnn.from_numpy(self._sinusoids[positions])
        return self.dropout(x + places)

    def finish(self, x: Any, late: Any) -> Any:
        """What the layers left, summed and normalized."""
        if self.layer_norm is None:
            return x if late is None else x + late
        return add_and_norm(self.layer_norm, x, late)[0]

    def run(self, x: Any, *given: Any) -> Any:
        """All layers and the norm, of rows."""
        late = None
        for layer in self.layers:
            x, late = checkpoint(layer, x, late, *given) if self.recompute and self.training else layer(x, late, *given)
        return self.finish(x, late)
