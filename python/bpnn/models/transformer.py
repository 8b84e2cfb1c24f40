"""An encoder and a decoder for translation and other texts from texts: Vaswani et al. 2017, "Attention is all you need".

    config = TransformerConfig(vocab_size=8000, d_model=256, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = TransformerForConditionalGeneration(config)
    model(input_ids, attention_mask, labels=labels).loss.backward()
    translations = model.generate(input_ids, attention_mask, num_beams=4)

Parameters are named as in Marian's and BART's files. Both halves compute real tokens only: N rows (of the source) or M rows (of the
target) with E features, H heads of D; text b is the rows from `starts[b]` to `starts[b + 1]`.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.utils.checkpoint import checkpoint

from ._beam_search import beam_search
from ._cache import KeyValueCache
from ._layers import IGNORED, activation_name, in_range, numbers, target_of
from ._outputs import Later, ModelOutput
from ._packing import Layout, real_places
from ._pretrained import ModelConfig, PreTrainedModel

__all__ = ["TransformerConfig", "TransformerForConditionalGeneration", "TransformerModel"]


@dataclass(kw_only=True)
class TransformerConfig(ModelConfig):
    """Sizes under the keys that Marian and BART have for them.

    decoder_vocab_size: of the target; None: as the source. share_encoder_decoder_embeddings: one table for both, where there is
    one vocabulary. tie_word_embeddings: the target's table is the last map too. position_embedding_type: "sinusoidal" or "learned".
    normalize_before: norms before each part ("pre-norm") instead of behind. final_norm: one more norm behind each stack; None:
    where `normalize_before`. label_smoothing: of the loss in training. decoder_start_token_id: before the first token; None: bos.
    """

    model_type = "transformer"

    vocab_size: int = 32000
    decoder_vocab_size: int | None = None
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    max_position_embeddings: int = 512
    position_embedding_type: str = "sinusoidal"
    scale_embedding: bool = True
    normalize_before: bool = False
    final_norm: bool | None = None
    layer_norm_eps: float = 1e-5
    init_std: float = 0.02
    label_smoothing: float = 0.0
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = None

    @property
    def target_size(self) -> int:
        """The number of tokens of the target."""
        return self.vocab_size if self.decoder_vocab_size is None else self.decoder_vocab_size

    @property
    def start_token(self) -> int:
        """What stands before the first token of the target."""
        start = self.bos_token_id if self.decoder_start_token_id is None else self.decoder_start_token_id
        if start is None:
            raise ValueError("config: decoder_start_token_id: expected a token, or a bos_token_id; both are None")
        return start


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
            joint: Any = F.linear(x, bpnn.cat([map.weight for map in maps]), bpnn.cat([map.bias for map in maps]))
            joint = joint.unflatten(-1, (3, self.heads, x.shape[1] // self.heads))
            y: Any = F.qkv_attention(joint, starts, is_causal=causal, dropout_p=p)
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

    def __init__(self, config: TransformerConfig, side: str):
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
            y, x = (norm(x), x) if late is None else norm(late, residual=x)
            return x, self.dropout(function(y))
        return norm(self.dropout(function(x)), residual=x)[0], None

    def feed_forward(self, x: Any) -> Any:
        """(N, E) → (N, E)."""
        return self.fc2(self.inner_dropout(self.fc1(x, activation=self.activation)))


class TransformerEncoderLayer(_Layer):
    """Attention of all tokens of a text to all."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config, "encoder")

    def forward(self, x: Any, late: Any, starts: np.ndarray) -> tuple[Any, Any]:
        """x (N, E), to which `late` is still to be added, → the same two."""
        x, late = self.part(self.self_attn_layer_norm, x, late, lambda y: self.self_attn(y, starts, False))
        return self.part(self.final_layer_norm, x, late, self.feed_forward)


class TransformerDecoderLayer(_Layer):
    """Attention to the tokens before, then to the source."""

    def __init__(self, config: TransformerConfig):
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


class _Stack(nn.Module):
    """Embeddings, layers, perhaps a norm: what encoder and decoder share."""

    recompute = False

    def __init__(self, config: TransformerConfig, layers: list[Any], table: Any):
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
        return self.layer_norm(x) if late is None else self.layer_norm(late, residual=x)[0]

    def run(self, x: Any, *given: Any) -> Any:
        """All layers and the norm, of rows."""
        late = None
        for layer in self.layers:
            x, late = checkpoint(layer, x, late, *given) if self.recompute and self.training else layer(x, late, *given)
        return self.finish(x, late)


class TransformerPreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = TransformerConfig
    base_model_prefix = "model"
    heads = ("lm_head.*",)
    ignored = ("*embed_positions.weight",)  # files may have the sines, too

    config: TransformerConfig

    def start(self, module: nn.Module) -> None:
        """Matrices uniform as Glorot has them, embeddings normal of deviation `init_std`, or 1 / sqrt(d_model) where scaled."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, 0.0, self.config.d_model**-0.5 if self.config.scale_embedding else self.config.init_std)
        else:
            super().start(module)

    def gradient_checkpointing_enable(self, enable: bool = True) -> None:
        """Compute the activations of each layer again in backward instead of storing them: less memory, a third more time."""
        for module in self.modules():
            if isinstance(module, (_Stack, PreTrainedModel)):
                module.recompute = enable


class TransformerModel(TransformerPreTrainedModel):
    """Encoder and decoder without the map to the vocabulary."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        if config.share_encoder_decoder_embeddings and config.target_size != config.vocab_size:
            raise ValueError("config: share_encoder_decoder_embeddings: expected False where decoder_vocab_size, "
                             f"{config.target_size}, is not vocab_size, {config.vocab_size}")
        source = nn.Embedding(config.vocab_size, config.d_model)
        target = source if config.share_encoder_decoder_embeddings else nn.Embedding(config.target_size, config.d_model)
        self.encoder = _Stack(config, [TransformerEncoderLayer(config) for _ in range(config.encoder_layers)], source)
        self.decoder = _Stack(config, [TransformerDecoderLayer(config) for _ in range(config.decoder_layers)], target)
        self.post_init()

    def encode(self, input_ids: Any, attention_mask: Any = None) -> tuple[Any, Layout]:
        """The rows (N, E) that the encoder makes of the real tokens of input_ids (B, S), and where they lie."""
        tokens, positions, layout = _rows(input_ids, attention_mask, self.config, self.config.vocab_size, "input_ids")
        return self.encoder.run(self.encoder.embed(tokens, positions), layout.cu_seqlens), layout

    def decode(self, tokens: Any, mask: Any, memory: Any, source: Layout) -> tuple[Any, Layout]:
        """The rows (M, E) that the decoder makes of tokens (B, T), and where they lie."""
        tokens, positions, layout = _rows(tokens, mask, self.config, self.config.target_size, "decoder_input_ids")
        if layout.batch != source.batch:
            raise ValueError(f"decoder_input_ids: expected {source.batch} texts, as in input_ids, got {layout.batch}")
        x = self.decoder.embed(tokens, positions)
        return self.decoder.run(x, memory, layout.cu_seqlens, source.cu_seqlens), layout

    def forward(
        self, input_ids: Any, attention_mask: Any = None, decoder_input_ids: Any = None, decoder_attention_mask: Any = None,
    ) -> ModelOutput:
        """`last_hidden_state` (B, T, E) of decoder_input_ids (B, T) and `encoder_last_hidden_state` (B, S, E); 0 at padding."""
        memory, source = self.encode(input_ids, attention_mask)
        rows, target = self.decode(decoder_input_ids, decoder_attention_mask, memory, source)
        return ModelOutput(last_hidden_state=target.pad(rows), encoder_last_hidden_state=Later(lambda: source.pad(memory)))


def _rows(given: Any, mask: Any, config: TransformerConfig, vocabulary: int, name: str) -> tuple[Any, Any, Layout]:
    """Tokens and positions (N,) of the real places of (B, T), and their layout; errors name the argument."""
    if given is None:
        raise ValueError(f"{name}: expected token numbers, got None")
    tokens = numbers(given, name)
    if tokens.ndim != 2:
        raise ValueError(f"{name}: expected shape (B, T), got {tokens.shape}")
    if tokens.shape[1] > config.max_position_embeddings:
        raise ValueError(f"{name}: expected at most {config.max_position_embeddings} tokens (max_position_embeddings), "
                         f"got {tokens.shape[1]}")
    in_range(tokens, vocabulary, name, "tokens")
    layout = Layout(tokens.shape, mask if isinstance(mask, np.ndarray) and mask.dtype == bool else real_places(mask, tokens.shape))
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return layout.take(tokens), layout.take(positions), layout


class TransformerForConditionalGeneration(TransformerPreTrainedModel):
    """Encoder, decoder and the map to the target's tokens."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.model = TransformerModel(config)
        self.lm_head = nn.Linear(config.d_model, config.target_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.decoder.embed_tokens.weight
        else:
            self.start(self.lm_head)

    def forward(
        self, input_ids: Any, attention_mask: Any = None, decoder_input_ids: Any = None, decoder_attention_mask: Any = None, *,
        labels: Any = None,
    ) -> ModelOutput:
        """`logits` (B, T, V) of what follows each of decoder_input_ids (B, T), and with labels the `loss`.

        input_ids (B, S) with attention_mask (B, S), 0 for padding, which is not computed. labels (B, T), -100 where nothing counts:
        the mean cross-entropy, smoothed in training as `config.label_smoothing` says; without decoder_input_ids these are the
        labels, moved one place to the right behind the start token. The logits beside a loss are computed when asked for. Also
        `encoder_last_hidden_state` (B, S, E). Raises `IndexError` and `ValueError` naming the argument.
        """
        config, mask, target = self.config, decoder_attention_mask, None
        if labels is not None:
            given = numbers(labels, "labels")
            if decoder_input_ids is None:
                if given.ndim != 2:
                    raise ValueError(f"labels: expected shape (B, T), got {given.shape}")
                decoder_input_ids = _moved(given, config)
                mask = _until_last(given) if mask is None else mask
            else:
                decoder_input_ids = numbers(decoder_input_ids, "decoder_input_ids")
            target = target_of(given, decoder_input_ids.shape, config.target_size)
        memory, source = self.model.encode(input_ids, attention_mask)
        rows, layout = self.model.decode(decoder_input_ids, mask, memory, source)
        loss, hidden = None, Later(lambda: source.pad(memory))
        if target is not None:
            loss = F.linear_cross_entropy(
                rows, self.lm_head.weight, bpnn.from_numpy(layout.take(target)),
                label_smoothing=config.label_smoothing if self.training else 0.0,
            )
        logits = layout.pad(self.lm_head(rows)) if loss is None else Later(lambda: layout.pad(self.lm_head(rows)))
        return ModelOutput(loss=loss, logits=logits, encoder_last_hidden_state=hidden)

    def generate(
        self, input_ids: Any, attention_mask: Any = None, *, num_beams: int = 1, max_new_tokens: int = 64,
        length_penalty: float = 1.0,
    ) -> Any:
        """The most probable texts that beam search finds for input_ids (B, S), int64 (B, T).

        Each begins with the start token and ends with eos, or after max_new_tokens, and is filled up with pad. Scores are the sums
        of log-probabilities divided by length ** length_penalty. num_beams=1 takes the most probable token each time.
        """
        config = self.config
        limit = min(max_new_tokens, config.max_position_embeddings)
        was, _ = self.training, self.eval()
        try:
            with bpnn.no_grad():
                decoding = _Decoding(self, input_ids, attention_mask, num_beams, limit)
                found = beam_search(
                    decoding.step, decoding.cache.reorder, len(decoding.lengths), num_beams, limit, start=config.start_token,
                    ends=config.eos_token_id, banned=config.pad_token_id, length_penalty=length_penalty,
                )
        finally:
            self.train(was)
        width = max(map(len, found), default=0)
        rows = np.full((len(found), width), config.pad_token_id or 0, np.int64)
        for row, tokens in zip(rows, found):
            row[: len(tokens)] = tokens
        return bpnn.from_numpy(rows)


class _Decoding:
    """A batch whose sources are read: what a step needs for the token after the newest."""

    def __init__(self, model: Any, input_ids: Any, attention_mask: Any, beams: int, limit: int):
        memory, source = model.model.encode(input_ids, attention_mask)
        self.model, self.decoder, self.beams = model, model.model.decoder, beams
        self.lengths = np.diff(source.cu_seqlens)
        # Real tokens first, whatever side the padding was on.
        width = int(self.lengths.max(initial=1))
        memory = Layout((source.batch, width), np.arange(width) < self.lengths[:, None]).pad(memory)
        self.known = [layer.encoder_attn.remember(memory) for layer in self.decoder.layers]
        self.cache = KeyValueCache(capacity=max(limit, 1))

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """The log-probabilities (B K, V) of what follows the newest tokens (B K,)."""
        x, late = self.decoder.embed(tokens, np.full(len(tokens), self.cache.length)), None
        for i, layer in enumerate(self.decoder.layers):
            x, late = layer.step(x, late, i, self.cache, self.known[i], self.lengths)
        self.cache.advance(1)
        return F.log_softmax(self.model.lm_head(self.decoder.finish(x, late)), -1).numpy()


def _moved(labels: np.ndarray, config: TransformerConfig) -> np.ndarray:
    """Labels (B, T) one place to the right, the start token first, pad where they do not count."""
    tokens = np.empty_like(labels)
    tokens[:, :1], tokens[:, 1:] = config.start_token, labels[:, :-1]
    tokens[tokens == IGNORED] = config.pad_token_id or 0
    return tokens


def _until_last(labels: np.ndarray) -> np.ndarray:
    """True up to the last label of each row that counts."""
    counts = labels != IGNORED
    return np.flip(np.logical_or.accumulate(np.flip(counts, 1), 1), 1)
