"""Qwen2: LLaMA with biases of queries, keys and values, and a window in the later layers where asked for (Yang et al. 2024)."""
from __future__ import annotations

from dataclasses import dataclass

from .llama import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel

KINDS = ("full_attention", "sliding_attention")


@dataclass(kw_only=True)
class Qwen2Config(LlamaConfig):
    """The keys of Qwen2's `config.json`.

    With `use_sliding_window` the layers from number `max_window_layers` on see `sliding_window` tokens; `layer_types` says it layer
    by layer instead.
    """

    model_type = "qwen2"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 32768
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list[str] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = self.layer_types
        if kinds is not None and (len(kinds) < self.num_hidden_layers or not set(kinds) <= set(KINDS)):
            raise ValueError(f"config: layer_types: expected {' or '.join(KINDS)} for {self.num_hidden_layers} layers, got {kinds}")

    @property
    def biases(self) -> tuple[bool, bool]:
        """Queries, keys and values have them."""
        return True, False

    def window(self, layer: int) -> int | None:
        """None in the layers that see all tokens before."""
        if not self.use_sliding_window:
            return None
        if self.layer_types is not None:
            return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None
        return self.sliding_window if layer >= self.max_window_layers else None


class Qwen2Model(LlamaModel):
    """Qwen2 without a head."""

    config_class = Qwen2Config


class Qwen2ForCausalLM(LlamaForCausalLM):
    """Qwen2 that predicts the next token."""

    config_class = Qwen2Config
    body = Qwen2Model


class Qwen2ForSequenceClassification(LlamaForSequenceClassification):
    """Qwen2 with a linear map of the last token that is no padding to `num_labels` scores."""

    config_class = Qwen2Config
    body = Qwen2Model
