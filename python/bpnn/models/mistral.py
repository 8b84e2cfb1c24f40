"""Mistral: LLaMA whose tokens see a window of the tokens before them (Jiang et al. 2023)."""
from __future__ import annotations

from dataclasses import dataclass

from .llama import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel


@dataclass(kw_only=True)
class MistralConfig(LlamaConfig):
    """The keys of Mistral's `config.json`. `sliding_window`: how many tokens one sees, itself included; None: all before it."""

    model_type = "mistral"

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 4096 * 32
    sliding_window: int | None = 4096

    @property
    def biases(self) -> tuple[bool, bool]:
        """None."""
        return False, False

    def window(self, layer: int) -> int | None:
        """The same for all layers."""
        return self.sliding_window


class MistralModel(LlamaModel):
    """Mistral without a head."""

    config_class = MistralConfig


class MistralForCausalLM(LlamaForCausalLM):
    """Mistral that predicts the next token."""

    config_class = MistralConfig
    body = MistralModel


class MistralForSequenceClassification(LlamaForSequenceClassification):
    """Mistral with a linear map of the last token that is no padding to `num_labels` scores."""

    config_class = MistralConfig
    body = MistralModel
