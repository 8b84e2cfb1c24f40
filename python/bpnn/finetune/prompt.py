"""Prompt tuning: trained rows in front of the embedded tokens of every text; the model is frozen (Lester et al. 2021).

    x = [prompt; table of tokens[text]]            prompt: (P, H)

`PromptModel` is what prompts and prefixes have in common: something in front of the text, kept beside the model, not in it.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

import bpnn
from bpnn import nn
from bpnn.models._layers import IGNORED, array_of, numbers
from bpnn.models._outputs import Later, ModelOutput
from bpnn.models._pretrained import PreTrainedModel
from bpnn.models.generation import GenerationConfig, GenerationMixin
from bpnn.pretrained import AutoTokenizer

from ._adapter_config import PeftConfig
from ._targets import saved_modules
from .adapters import PeftModel

__all__ = ["PromptEmbedding", "PromptModel", "PromptTuningConfig"]

STARTS = ("RANDOM", "SAMPLE_VOCAB", "TEXT")


@dataclass(kw_only=True)
class PromptLearningConfig(PeftConfig):
    """What prompts and prefixes share.

    num_virtual_tokens: P, how many places there are in front of a text. token_dim, num_attention_heads, num_layers: sizes of the
    model, by default what its configuration says. num_transformer_submodules: 1, there are no models with two here.
    """

    num_virtual_tokens: int | None = None
    token_dim: int | None = None
    num_attention_heads: int | None = None
    num_layers: int | None = None
    num_transformer_submodules: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        count = self.num_virtual_tokens
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"num_virtual_tokens: expected a whole number above 0, got {count!r}")
        if self.num_transformer_submodules not in (None, 1):
            raise ValueError(f"num_transformer_submodules: expected 1, got {self.num_transformer_submodules}")

    def prepared(self, model: Any) -> Self:
        """See `PeftConfig.prepared`; also the sizes. Raises `ValueError` for what is no pretrained model that reads tokens."""
        done = super().prepared(model)
        if not isinstance(model, PreTrainedModel) or not hasattr(model.config, "vocab_size"):
            raise ValueError(f"peft_config: {self.peft_type} is for pretrained models of tokens, {type(model).__name__} is none")
        config: Any = model.config
        done.num_transformer_submodules = 1
        done.num_layers = done.num_layers or config.num_hidden_layers
        done.token_dim = done.token_dim or config.hidden_size
        done.num_attention_heads = done.num_attention_heads or config.num_attention_heads
        return done

    def encoder(self, model: Any) -> Any:
        """The module with the trained numbers; it has a `table()` of them, (P, numbers of a place)."""
        raise TypeError(f"{type(self).__name__} has no encoder")


@dataclass(kw_only=True)
class PromptTuningConfig(PromptLearningConfig):
    """PEFT's `PromptTuningConfig`.

    prompt_tuning_init: "RANDOM", from N(0, 1); "SAMPLE_VOCAB", rows of the table of tokens; "TEXT", the rows of the tokens of
    `prompt_tuning_init_text`, over and over, as the tokenizer `tokenizer_name_or_path` reads it. The rest: `PromptLearningConfig`.
    """

    peft_type = "PROMPT_TUNING"

    prompt_tuning_init: str = "RANDOM"
    prompt_tuning_init_text: str | None = None
    tokenizer_name_or_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prompt_tuning_init = str(getattr(self.prompt_tuning_init, "value", self.prompt_tuning_init))
        if self.prompt_tuning_init not in STARTS:
            raise ValueError(f"prompt_tuning_init: expected {', '.join(STARTS)}, got {self.prompt_tuning_init!r}")
        if self.prompt_tuning_init == "TEXT":
            for name in ("tokenizer_name_or_path", "prompt_tuning_init_text"):
                if not getattr(self, name):
                    raise ValueError(f"{name}: expected, for prompt_tuning_init 'TEXT'; got {getattr(self, name)!r}")

    def model_class(self) -> Any:
        """The class of models with prompts."""
        return PromptTunedModel

    def encoder(self, model: Any) -> PromptEmbedding:
        """See `PromptLearningConfig.encoder`."""
        return PromptEmbedding(self, model)


class PromptEmbedding(nn.Module):
    """The rows in front of a text: `embedding.weight`, (P, H)."""

    def __init__(self, config: PromptTuningConfig, model: Any):
        super().__init__()
        count = config.num_virtual_tokens or 0
        self.embedding = nn.Embedding(count, config.token_dim, dtype=model.dtype)
        if config.prompt_tuning_init != "RANDOM" and not config.from_file:
            if config.prompt_tuning_init == "TEXT":
                tokenizer = AutoTokenizer.from_pretrained(config.tokenizer_name_or_path or "")
                tokens = tokenizer(config.prompt_tuning_init_text or "")["input_ids"]
                chosen = bpnn.from_numpy(np.resize(np.array(tokens, np.int64), count))
            else:
                chosen = bpnn.randint(0, model.config.vocab_size, (count,))
            with bpnn.no_grad():
                self.embedding.weight.copy_(model.get_input_embeddings()(chosen))

    def table(self) -> Any:
        """(P, H)."""
        return self.embedding.weight


# --- models with something in front of the text --------------------------------------------------------------------------------


class PromptModel(PeftModel, GenerationMixin):  # type: ignore[misc]
    """A frozen model with trained places in front of every text; see `PeftModel`. Outputs are those of the text alone.

    Several may be there, one is active. Texts packed with `cu_seqlens` cannot be read.
    """

    prefix = "base_model."
    prompt_encoder: Any

    def _hold(self, model: nn.Module) -> nn.Module:
        self.prompt_encoder = nn.ModuleDict()
        self.enabled = True
        return model

    def get_base_model(self) -> Any:
        """The model inside."""
        return self.base_model

    @property
    def generation_config(self) -> GenerationConfig:  # type: ignore[override]
        """The model's own settings."""
        return self.base_model.generation_config  # type: ignore[no-any-return]

    @property
    def context(self) -> int | None:
        """The most tokens of a text that the model reads; None: no limit."""
        limit = super().context
        return None if limit is None else limit - self.ahead

    @property
    def ahead(self) -> int:
        """P of the active adapter; 0 while there is none."""
        return int(self.encoder.table().shape[0]) if self.enabled else 0

    @property
    def encoder(self) -> Any:
        """The active adapter."""
        return self.prompt_encoder[self.active_adapter]

    # --- adapters ----------------------------------------------------------------------------------------------------------

    def _inject(self, adapter: str, config: PeftConfig) -> None:
        assert isinstance(config, PromptLearningConfig)
        model = self.get_base_model()
        self.prompt_encoder[adapter] = config.encoder(model)
        paths = [path.removesuffix(".original_module") for path in saved_modules(model, config.modules_to_save)]
        self._save_whole(model, adapter, paths)

    def _set_trainable(self) -> None:
        super()._set_trainable()
        for name, encoder in self.prompt_encoder.items():
            encoder.requires_grad_(name in self.active_adapters and not self.peft_config[name].inference_mode)

    def set_adapter(self, adapter_name: str | Sequence[str], inference_mode: bool = False) -> None:
        """Make one adapter the one that is in front of texts, and is trained unless `inference_mode`."""
        if not isinstance(adapter_name, str) and len(adapter_name) != 1:
            raise ValueError(f"adapter_name: expected one name, got {list(adapter_name)}")
        super().set_adapter(adapter_name, inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; if it was the active one, the first of the others becomes active."""
        if adapter_name in self.prompt_encoder and len(self.peft_config) > 1:
            del self.prompt_encoder[adapter_name]
        super().delete_adapter(adapter_name)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside, the model computes as if there were nothing in front of texts."""
        before = self.enabled
        with super().disable_adapter():
            self.enabled = False
            try:
                yield
            finally:
                self.enabled = before

    def merge_adapter(self, adapter_names: Sequence[str] | None = None) -> None:
        """Raises `ValueError`: what is in front of a text cannot be merged into weights."""
        raise ValueError(f"merge_adapter: {self.peft_config[self.active_adapter].peft_type} cannot be merged into weights")

    def file_tensors(self, adapter_name: str) -> dict[str, Any]:
        """See `PeftModel.file_tensors`."""
        return {"prompt_embeddings": self.prompt_encoder[adapter_name].table()} | super().file_tensors(adapter_name)

    # --- forward -----------------------------------------------------------------------------------------------------------

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **given: Any) -> Any:
        """What the model computes behind the prompt; arguments and results are the model's, for the text alone."""
        if not self.enabled:
            return self.base_model(input_ids, attention_mask, **given)
        if given.get("cu_seqlens") is not None:
            raise ValueError("cu_seqlens: expected None with prompts and prefixes, each text is a row of a batch there")
        return self.run(input_ids, attention_mask, given)

    def run(self, input_ids: Any, attention_mask: Any, given: dict[str, Any]) -> Any:
        """`forward` with the adapter."""
        raise TypeError(f"{type(self).__name__} has no run")

    def generate(self, input_ids: Any = None, attention_mask: Any = None, **given: Any) -> Any:
        """See `GenerationMixin.generate`. Raises `TypeError` for a model that does not write."""
        self._writes()
        return super().generate(input_ids, attention_mask, **given)

    def stream(self, input_ids: Any = None, attention_mask: Any = None, **given: Any) -> Iterator[np.ndarray]:
        """See `GenerationMixin.stream`. Raises `TypeError` for a model that does not write."""
        self._writes()
        return super().stream(input_ids, attention_mask, **given)

    def _writes(self) -> None:
        if not isinstance(self.base_model, GenerationMixin):
            raise TypeError(f"generate: expected a model that writes, {type(self.base_model).__name__} does not")


class PromptTunedModel(PromptModel):
    """A model with rows in front of the embedded tokens."""

    @property
    def virtual_tokens(self) -> int:  # type: ignore[override]
        """The places of a cache that hold no tokens of a text."""
        return self.ahead

    def run(self, input_ids: Any, attention_mask: Any, given: dict[str, Any]) -> Any:
        """See `forward`. `position_ids` are counted anew, from the prompt on."""
        count, model, cache = self.ahead, self.base_model, given.get("past_key_values")
        given.pop("position_ids", None)
        if attention_mask is not None:
            attention_mask = before(array_of(attention_mask, "attention_mask"), count, 1)
        if cache is not None and cache.length:  # the prompt has been read
            return model(input_ids, attention_mask, **given)
        words = given.pop("inputs_embeds", None)
        if words is None:
            words = model.get_input_embeddings()(bpnn.from_numpy(model_tokens(input_ids, model.config.vocab_size)))
        batch = words.shape[0]
        embedded = bpnn.cat([self.encoder.table().unsqueeze(0).expand(batch, -1, -1), words], 1)
        for name, fill in (("token_type_ids", 0), ("labels", IGNORED)):
            value = given.get(name)
            if value is not None and np.ndim(array_of(value, name)) == 2 and array_of(value, name).shape == tuple(words.shape[:2]):
                given[name] = before(numbers(value, name), count, fill)
        for name in ("start_positions", "end_positions"):
            if given.get(name) is not None:
                given[name] = numbers(given[name], name).clip(0) + count  # the models take a negative place for the first
        output = model(None, attention_mask, inputs_embeds=embedded, **given)
        return without(output, count, embedded.shape[1])


def model_tokens(input_ids: Any, vocabulary: int) -> np.ndarray:
    """`input_ids` (B, T), checked. Raises `IndexError` for what is no token, `ValueError` for another shape."""
    from bpnn.models._decoder import token_numbers

    tokens = token_numbers(input_ids, vocabulary)
    if tokens.ndim != 2:
        raise ValueError(f"input_ids: expected shape (B, T), got {tokens.shape}")
    return tokens


def before(array: np.ndarray, count: int, fill: int) -> np.ndarray:
    """(B, T) with `count` columns of `fill` in front."""
    return np.concatenate([np.full((len(array), count), fill, array.dtype), array], 1)


def without(output: Any, count: int, length: int) -> Any:
    """An output whose values for each of `length` places lack those of the first `count`."""
    def cut(name: str, value: Any) -> Any:
        if isinstance(value, Later):
            return Later(lambda: cut(name, value.compute()))
        placed = name in ("logits", "last_hidden_state", "start_logits", "end_logits")
        return value[:, count:] if placed and value.ndim > 1 and value.shape[1] == length and by_place(name, value) else value

    if not isinstance(output, ModelOutput):
        return output
    values = {name: cut(name, value) for name, value in output._values.items()}
    return ModelOutput(**{name: values.get(name) for name in output._names})


def by_place(name: str, value: Any) -> bool:
    """Whether a value has an axis of places: (B, T, …), or (B, T) for the bounds of an answer."""
    return value.ndim == 3 or name in ("start_logits", "end_logits")
