"""GPT-2: a decoder with learned positions and normalization before each part (Radford et al. 2019).

Sizes: B texts of T tokens, H numbers a token in n_head heads, V tokens in the vocabulary; packed texts are N rows without B.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.nn import init

from ._decoder import Reading
from ._decoder_heads import LastTokenHead, NextTokenHead
from ._decoder_model import BareDecoder
from ._layers import activation_name, add_and_norm, weighted_values
from ._pretrained import ModelConfig, PreTrainedModel


@dataclass(kw_only=True)
class GPT2Config(ModelConfig):
    """The keys of GPT-2's `config.json`; `hidden_size` and other common names are understood too."""

    model_type = "gpt2"
    aliases: ClassVar[Mapping[str, str]] = {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256


class Conv1D(nn.Module):
    """A linear map whose weight lies as in GPT-2's files, (in_features, out_features): `y = x W + b`."""

    transposed = True

    def __init__(self, out_features: int, in_features: int):
        super().__init__()
        self.weight = nn.Parameter(bpnn.empty(in_features, out_features))
        self.bias = nn.Parameter(bpnn.empty(out_features))

    def forward(self, x: Any, *, activation: str | None = None) -> Any:
        """x: (…, in_features); y: (…, out_features)."""
        return F.linear(x, self.weight, self.bias, activation, transposed=True)


class GPT2Attention(nn.Module):
    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        if config.n_embd % config.n_head:
            raise ValueError(f"config: n_embd {config.n_embd} is no multiple of n_head {config.n_head}")
        self.heads, self.layer = config.n_head, layer
        self.scale = 1 / math.sqrt(config.n_embd // config.n_head) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1
        self.dropout = config.attn_pdrop
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)

    def forward(self, x: Any, reading: Reading, weights: list[Any] | None = None) -> Any:
        """x: (B, T, H); y: the same. `weights` gets the attention weights (B, n_head, T, S)."""
        dropout = self.dropout if self.training else 0.0
        qkv = self.c_attn(x).reshape(*x.shape[:-1], 3, self.heads, x.shape[-1] // self.heads)
        if weights is not None:
            y, found = weighted_values(qkv, reading, self.layer, self.scale, dropout)
            weights.append(found)
        elif reading.cache is None and reading.prefix is None:
            y = F.qkv_attention(
                qkv if reading.cu_seqlens is None else qkv.flatten(0, -4), reading.cu_seqlens,
                attn_mask=None if reading.mask is None else bpnn.from_numpy(reading.mask), dropout_p=dropout,
                is_causal=True, scale=self.scale, key_lengths=reading.key_lengths,
            )
        else:
            q, k, v = (qkv.select(-3, i) for i in range(3))
            y = reading.attend(q, k, v, layer=self.layer, dropout=dropout, scale=self.scale)
        return self.c_proj(y.reshape(x.shape))


class GPT2MLP(nn.Module):
    def __init__(self, config: GPT2Config):
        super().__init__()
        inner = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.activation = activation_name(config.activation_function, "activation_function")
        self.c_fc = Conv1D(inner, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, inner)

    def forward(self, x: Any) -> Any:
        """x, y: (…, H)."""
        return self.c_proj(self.c_fc(x, activation=self.activation))


class GPT2Block(nn.Module):
    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = GPT2Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = GPT2MLP(config)
        self.drop = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Any, change: Any, reading: Reading, weights: list[Any] | None = None) -> tuple[Any, Any]:
        """The stream is `x + change`, both (B, T, H), or x where `change` is None; so is the result: the next norm adds the two."""
        y, x = add_and_norm(self.ln_1, x, change)
        y, x = add_and_norm(self.ln_2, x, self.drop(self.attn(y, reading, weights)))
        return x, self.drop(self.mlp(y))


class GPT2PreTrainedModel(PreTrainedModel):
    config_class = GPT2Config
    base_model_prefix = "transformer"
    heads = ("lm_head.*", "score.*", "multiple_choice_head.*", "classifier.*", "qa_outputs.*")
    ignored = ("*attn.bias", "*attn.masked_bias")

    config: GPT2Config

    def start(self, module: nn.Module) -> None:
        """Normal of deviation `initializer_range`; what adds to the residual stream divided by sqrt(2 n_layer)."""
        super().start(module)
        if isinstance(module, Conv1D):
            init.normal_(module.weight, 0.0, self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, GPT2Block):
            for part in (module.attn, module.mlp):
                part.c_proj.scaled = True
        if getattr(module, "scaled", False):
            init.normal_(module.weight, 0.0, self.config.initializer_range / math.sqrt(2 * self.config.n_layer))


class GPT2Model(GPT2PreTrainedModel, BareDecoder):
    """GPT-2 without a head: tokens to hidden states.

    `wte.weight` (V, H), `wpe.weight` (n_positions, H), then n_layer blocks and `ln_f`.
    """

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([GPT2Block(config, i) for i in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.post_init()

    def stack(self) -> tuple[nn.ModuleList, nn.LayerNorm, int]:
        """See `BareDecoder`."""
        return self.h, self.ln_f, self.config.n_positions

    def table(self) -> Any:
        """See `BareDecoder`."""
        return self.wte

    def embed(self, words: Any, types: np.ndarray | None, reading: Reading) -> tuple[Any, ...]:
        """Tokens, places and segments, which are rows of the table of tokens."""
        x = words + self.wpe(bpnn.from_numpy(reading.positions))
        return (self.drop(x if types is None else x + self.wte(bpnn.from_numpy(types))),)


class GPT2LMHeadModel(NextTokenHead, GPT2PreTrainedModel):
    """GPT-2 that predicts the next token. `lm_head.weight` is `transformer.wte.weight` where `tie_word_embeddings` says so."""

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight
        else:
            self.start(self.lm_head)


class GPT2ForSequenceClassification(LastTokenHead, GPT2PreTrainedModel):
    """GPT-2 with a linear map of the last token that is no padding (`pad_token_id`) to `num_labels` scores."""

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.score = nn.Linear(config.n_embd, config.num_labels, bias=False)
        self.start(self.score)
