"""Prefix tuning: trained keys and values in front of those of every layer; the model is frozen (Li and Liang 2021).

    attention of a layer: softmax(q [K_l; k]^T / sqrt(D)) [V_l; v]          K_l, V_l: (P, heads, D)

With `prefix_projection` all of them come from P trained rows through two linear maps with tanh between, which may be thrown away
after training: files hold keys and values, as PEFT writes them.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from bpnn import nn
from bpnn.models._layers import numbers
from bpnn.nn import init

from .prompt import PromptLearningConfig, PromptModel

__all__ = ["PrefixEncoder", "PrefixModel", "PrefixTuningConfig"]


@dataclass(kw_only=True)
class PrefixTuningConfig(PromptLearningConfig):
    """PEFT's `PrefixTuningConfig`.

    prefix_projection: keys and values are computed from rows of `token_dim` numbers by a network with `encoder_hidden_size`
    numbers between (default: `token_dim`). init_weights: None: drawn from N(0, 1); "zero": all keys and values are 0 at first. The
    rest: see `PromptLearningConfig`; of models with fewer key-value heads, `token_dim` and `num_attention_heads` are the keys'.
    """

    peft_type = "PREFIX_TUNING"

    prefix_projection: bool = False
    encoder_hidden_size: int | None = None
    init_weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init_weights not in (None, "zero"):
            raise ValueError(f"init_weights: expected None or 'zero', got {self.init_weights!r}")

    def prepared(self, model: Any) -> Self:
        """See `PromptLearningConfig.prepared`."""
        done, config = super().prepared(model), model.config
        groups = getattr(config, "num_key_value_heads", None)
        if groups is not None:
            head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            done.token_dim, done.num_attention_heads = head * groups, groups
        done.encoder_hidden_size = done.encoder_hidden_size or done.token_dim
        return done

    def model_class(self) -> Any:
        """The class of models with prefixes."""
        return PrefixModel

    def encoder(self, model: Any) -> PrefixEncoder:
        """See `PromptLearningConfig.encoder`."""
        return PrefixEncoder(self, model.dtype)


class PrefixEncoder(nn.Module):
    """Keys and values of all layers: `embedding.weight` (P, 2 L G D); with a projection (P, H) and the network `transform`."""

    transform: Any

    def __init__(self, config: PrefixTuningConfig, dtype: Any = None):
        super().__init__()
        count, width = config.num_virtual_tokens or 0, config.token_dim or 0
        wide, hidden = 2 * (config.num_layers or 0) * width, config.encoder_hidden_size or 0
        self.heads, self.layers = config.num_attention_heads or 1, config.num_layers or 0
        self.projected = config.prefix_projection and not config.from_file
        self.embedding = nn.Embedding(count, width if self.projected else wide, dtype=dtype)
        last = self.embedding
        if self.projected:
            self.transform = nn.Sequential(nn.Linear(width, hidden, dtype=dtype), nn.Tanh(), nn.Linear(hidden, wide, dtype=dtype))
            last = self.transform[2]
        if config.init_weights == "zero" and not config.from_file:
            for parameter in last.parameters():
                init.zeros_(parameter)

    def table(self) -> Any:
        """(P, 2 L G D): of each place key and value of the first layer, of the second …"""
        return self.transform(self.embedding.weight) if self.projected else self.embedding.weight

    def key_values(self) -> list[tuple[Any, Any]]:
        """A pair of keys and values for each layer, (P, G, D) each."""
        table = self.table()
        parts = table.reshape(table.shape[0], 2 * self.layers, self.heads, -1)
        return [(parts[:, 2 * i], parts[:, 2 * i + 1]) for i in range(self.layers)]


class PrefixModel(PromptModel):
    """A model with keys and values in front of those of every layer."""

    def run(self, input_ids: Any, attention_mask: Any, given: dict[str, Any]) -> Any:
        """See `forward`. The places of a text are counted from the prefix on."""
        if given.get("position_ids") is not None:
            given["position_ids"] = numbers(given["position_ids"], "position_ids") + self.ahead
        return self.base_model(input_ids, attention_mask, prefix_key_values=self.encoder.key_values(), **given)
