"""LLaMA: a decoder with rotary positions, grouped keys and values, and a gated map (Touvron et al. 2023); LLaMA 1 to 3, SmolLM.

Sizes: B texts of T tokens, H numbers a token, Q query heads and G key-value heads of D numbers, V tokens in the vocabulary; packed
texts are N rows without B. `mistral.py` and `qwen2.py` are this with other settings.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import functional as F

from ._decoder import Reading
from ._decoder_heads import LastTokenHead, NextTokenHead
from ._decoder_model import BareDecoder
from ._layers import activation_name, add_and_norm, weigh_reading
from ._pretrained import ModelConfig, PreTrainedModel

ROPE_TYPES = ("default", "linear", "dynamic", "llama3")


@dataclass(kw_only=True)
class LlamaConfig(ModelConfig):
    """The keys of LLaMA's `config.json`. `rope_parameters`, as newer files have it, stands for `rope_theta` and `rope_scaling`."""

    model_type = "llama"

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None  # num_attention_heads where the file does not say
    head_dim: int | None = None  # hidden_size / num_attention_heads
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_dropout: float | None = 0.0
    mlp_bias: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self) -> None:
        self.rope_theta, self.rope_scaling = _theta_and_scaling(self.rope_scaling or self.rope_parameters, self.rope_theta)
        self.rope_parameters = None
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"config: num_key_value_heads: expected a number that divides num_attention_heads {self.num_attention_heads}, "
                f"got {self.num_key_value_heads}"
            )
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"config: hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.rope_type not in ROPE_TYPES:
            raise ValueError(f"config: rope_scaling: expected the rope_type {', '.join(ROPE_TYPES)}, got {self.rope_type!r}")
        if self.rope_type == "llama3":
            self.rope_scaling = {"original_max_position_embeddings": self.max_position_embeddings, **(self.rope_scaling or {})}

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, source: str = "config", **changes: Any) -> Self:
        """As `ModelConfig.from_dict`; `rope_theta` and `rope_scaling` in `changes` go before the file's `rope_parameters`."""
        content = dict(config)
        parameters = content.pop("rope_parameters", None)
        settings = content.pop("rope_scaling", None) or parameters
        if settings is not None and not isinstance(settings, Mapping):
            raise TypeError(f"{source}: rope_scaling: expected dict or null, got {settings!r}")
        theta, scaling = _theta_and_scaling(settings, content.pop("rope_theta", cls.rope_theta))
        return super().from_dict({**content, "rope_theta": theta, "rope_scaling": scaling}, source=source, **changes)

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds, with the keys for positions that all versions of `transformers` read."""
        return {key: value for key, value in super().to_dict().items() if key != "rope_parameters"}

    @property
    def rope_type(self) -> str:
        """How positions are stretched beyond what the model was trained on first."""
        scaling = self.rope_scaling or {}
        return str(scaling.get("rope_type", scaling.get("type", "default")))

    @property
    def context(self) -> int:
        """The most positions that there are: linear and dynamic scaling stretch `max_position_embeddings`."""
        factor = (self.rope_scaling or {}).get("factor", 1) if self.rope_type in ("linear", "dynamic") else 1
        return int(self.max_position_embeddings * max(1, factor))

    @property
    def biases(self) -> tuple[bool, bool]:
        """Whether queries, keys and values have biases, and whether the map behind attention has one."""
        return self.attention_bias, self.attention_bias

    def window(self, layer: int) -> int | None:
        """How many keys a token of a layer sees, itself included; None: all before it."""
        return None


def _theta_and_scaling(settings: Mapping[str, Any] | None, theta: float) -> tuple[float, dict[str, Any] | None]:
    """`rope_theta`, which `settings` may have, and what else they say; None where positions are not scaled."""
    settings = settings or {}
    if any(isinstance(value, Mapping) for value in settings.values()):
        raise ValueError(f"config: rope_parameters: expected one set for all layers, got {dict(settings)}")
    scaling = {key: value for key, value in settings.items() if key != "rope_theta"}
    plain = scaling.get("rope_type", scaling.get("type", "default")) == "default"
    return settings.get("rope_theta", theta), None if plain else scaling


@dataclass
class Rotation:
    """The angles of a call's tokens, for all layers: cos and sin, a row for each token, or for each position with `positions`."""

    cos: Any
    sin: Any
    positions: Any = None

    def __call__(self, x: Any) -> Any:
        """x: (B, T, heads, D); each head rotated by its token's angles."""
        return F.rotary_embedding(x, self.cos, self.sin, self.positions, seq_dim=-3)

    @classmethod
    def of(cls, rotary: Any, positions: np.ndarray, dtype: Any) -> Rotation:
        """Of positions (T,) or (B, T)."""
        cos, sin = rotary.tables(int(positions.max(initial=0)) + 1, dtype)
        if positions.ndim == 2:
            return cls(cos, sin, bpnn.from_numpy(positions))
        return cls(*(bpnn.from_numpy(table.numpy()[positions]) for table in (cos, sin)))


class LlamaAttention(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        self.layer, self.window = layer, config.window(layer)
        self.head_dim, self.dropout = cast(int, config.head_dim), config.attention_dropout or 0.0
        queries, keys = config.num_attention_heads * self.head_dim, cast(int, config.num_key_value_heads) * self.head_dim
        bias, output_bias = config.biases
        self.q_proj = nn.Linear(config.hidden_size, queries, bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, output_bias)

    def forward(self, x: Any, reading: Reading, rotation: Rotation, weights: list[Any] | None = None) -> Any:
        """x, y: (B, T, H). `weights` gets the attention weights (B, Q, T, S)."""
        q, k, v = (
            y.reshape(*x.shape[:-1], y.shape[-1] // self.head_dim, self.head_dim)
            for y in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        q, k = rotation(q), rotation(k)
        dropout = self.dropout if self.training else 0.0
        if weights is None:
            y = reading.attend(q, k, v, layer=self.layer, dropout=dropout, window=self.window)
        else:
            y, found = weigh_reading(q, k, v, reading, self.layer, dropout=dropout, window=self.window)
            weights.append(found)
        return self.o_proj(y.flatten(-2))


class LlamaMLP(nn.Module):
    """`down(activation(gate(x)) * up(x))`; with SiLU that is SwiGLU (Shazeer 2020)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.activation = activation_name(config.hidden_act, "hidden_act")
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, config.mlp_bias)

    def forward(self, x: Any) -> Any:
        """x, y: (…, H)."""
        if self.activation == "silu":
            return self.down_proj(F.swiglu(self.gate_proj(x), self.up_proj(x)))
        return self.down_proj(self.gate_proj(x, activation=self.activation) * self.up_proj(x))


class LlamaDecoderLayer(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        self.self_attn = LlamaAttention(config, layer)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Any, change: Any, reading: Reading, rotation: Rotation, weights: list[Any] | None = None,
    ) -> tuple[Any, Any]:
        """The stream is `x + change`, both (B, T, H), or x where `change` is None; so is the result: the next norm adds the two."""
        y, x = add_and_norm(self.input_layernorm, x, change)
        y, x = add_and_norm(self.post_attention_layernorm, x, self.self_attn(y, reading, rotation, weights))
        return x, self.mlp(y)


class LlamaPreTrainedModel(PreTrainedModel):
    config_class = LlamaConfig
    base_model_prefix = "model"
    heads = ("lm_head.*", "score.*")
    ignored = ("*rotary_emb.inv_freq",)

    config: LlamaConfig


class LlamaModel(LlamaPreTrainedModel, BareDecoder):
    """LLaMA without a head: tokens to hidden states. `embed_tokens.weight` (V, H), then num_hidden_layers `layers` and `norm`."""

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList([LlamaDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = nn.RotaryEmbedding(
            config.head_dim, config.rope_theta, config.max_position_embeddings, config.rope_scaling
        )
        self.post_init()

    def stack(self) -> tuple[nn.ModuleList, nn.RMSNorm, int]:
        """See `BareDecoder`."""
        return self.layers, self.norm, self.config.context

    def table(self) -> Any:
        """See `BareDecoder`."""
        return self.embed_tokens

    def embed(self, words: Any, types: np.ndarray | None, reading: Reading) -> tuple[Any, ...]:
        """Tokens, and the angles of their places."""
        if types is not None:
            raise ValueError("token_type_ids: expected None, the model has no segments")
        return words, Rotation.of(self.rotary_emb, reading.positions, words.dtype)


class LlamaForCausalLM(NextTokenHead, LlamaPreTrainedModel):
    """LLaMA that predicts the next token. `lm_head.weight` is `model.embed_tokens.weight` where `tie_word_embeddings` says so."""

    body: ClassVar[type[LlamaModel]] = LlamaModel

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.model = self.body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        else:
            self.start(self.lm_head)


class LlamaForSequenceClassification(LastTokenHead, LlamaPreTrainedModel):
    """LLaMA with a linear map of the last token that is no padding (`pad_token_id`) to `num_labels` scores."""

    body: ClassVar[type[LlamaModel]] = LlamaModel

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.model = self.body(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.start(self.score)
