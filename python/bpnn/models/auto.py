"""The class of a model by the `model_type` that its configuration names, as `transformers` has it.

    model = AutoModelForCausalLM.from_pretrained("folder, hub name, .gguf or llama2.c's .bin")
    config = AutoConfig.from_pretrained("folder")
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

from bpnn.pretrained import Source, open_pretrained, read_config, resolve

from ._pretrained import ModelConfig, PreTrainedModel
from .roberta import RobertaConfig

__all__ = [
    "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageClassification", "AutoModelForMaskedLM",
    "AutoModelForQuestionAnswering", "AutoModelForSequenceClassification", "AutoModelForTokenClassification",
]

Place = tuple[str, str]  # a file of this folder, and the class in it

CONFIGS: dict[str, Place] = {
    "bert": ("bert", "BertConfig"),
    "distilbert": ("distilbert", "DistilBertConfig"),
    "gpt2": ("gpt2", "GPT2Config"),
    "llama": ("llama", "LlamaConfig"),
    "mistral": ("mistral", "MistralConfig"),
    "qwen2": ("qwen2", "Qwen2Config"),
    "roberta": ("roberta", "RobertaConfig"),
    "transformer": ("transformer", "TransformerConfig"),
    "vit": ("vit", "ViTConfig"),
}
SAME_AS = dict.fromkeys(RobertaConfig.also, RobertaConfig.model_type)  # another name for the same model


def _config_class(model_type: Any, path: str) -> type[ModelConfig]:
    """The configuration's class; `ValueError` naming the file for a type that is not known."""
    model_type = SAME_AS.get(model_type, model_type) if isinstance(model_type, str) else model_type
    if not isinstance(model_type, str) or model_type not in CONFIGS:
        said = "has no model_type" if model_type is None else f"model_type is {model_type!r}, of which bpnn has no model"
        raise ValueError(f"{path}: {said}; it knows {', '.join(sorted({*CONFIGS, *SAME_AS}))}")
    return _find(CONFIGS[model_type])


def _find(place: Place) -> Any:
    module, name = place
    return getattr(import_module(f"bpnn.models.{module}"), name)


def _config(content: Mapping[str, Any], path: str, changes: Mapping[str, Any]) -> ModelConfig:
    return _config_class(content.get("model_type"), path).from_dict(content, source=path, **changes)


class AutoConfig:
    """The configuration of any model that bpnn knows."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None, **changes: Any,
    ) -> ModelConfig:
        """The configuration of a folder, a `config.json`, a name of the hub, a GGUF or a llama2.c file; `changes` go first.

        Raises `ValueError` naming the file, the `model_type` found and those known.
        """
        path = resolve(name_or_path, revision=revision, local_files_only=local_files_only, patterns=["config.json"])
        if os.path.isdir(path):
            path = os.path.join(path, "config.json")
        content = read_config(path) if path.endswith(".json") else open_pretrained(path).config
        return _config(content, path, changes)

    @staticmethod
    def for_model(model_type: str, **values: Any) -> ModelConfig:
        """A configuration of a type by name, such as `for_model("bert", num_hidden_layers=2)`."""
        return _config({"model_type": model_type}, "model_type", values)


class _Auto:
    """What the classes below share: `classes` says which model each `model_type` has for the task."""

    classes: ClassVar[dict[str, Place]] = {}

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, config: ModelConfig | None = None, revision: str | None = None,
        local_files_only: bool | None = None, cache_dir: str | os.PathLike[str] | None = None, **options: Any,
    ) -> PreTrainedModel:
        """The model of a folder, a hub's name, a GGUF file or llama2.c's `.bin`; options: see `PreTrainedModel.from_pretrained`.

        Raises `ValueError` naming the file and the `model_type` where bpnn has no such model, or none for this task.
        """
        path = resolve(name_or_path, revision=revision, local_files_only=local_files_only, cache_dir=cache_dir)
        source = open_pretrained(path)
        said_by = _said_by(source)
        kind = _config_class(source.config.get("model_type"), said_by).model_type if config is None else config.model_type
        return cls._class_of(kind, said_by).from_pretrained(path, config=config, **options)

    @classmethod
    def from_config(cls, config: ModelConfig | Mapping[str, Any], **changes: Any) -> PreTrainedModel:
        """A model with starting values, of a configuration or the content of a `config.json`."""
        content = config.to_dict() if isinstance(config, ModelConfig) else config
        made = config if isinstance(config, ModelConfig) and not changes else _config(content, "config", changes)
        return cls._class_of(made.model_type, "config").from_config(made)

    @classmethod
    def _class_of(cls, kind: str, path: str) -> type[PreTrainedModel]:
        kind = SAME_AS.get(kind, kind)
        if kind in cls.classes:
            return _find(cls.classes[kind])
        others = [other.__name__ for other in _TASKS if kind in other.classes]
        told = f"has no model for {cls.__name__}; it has {', '.join(others)}" if others else "is not known"
        raise ValueError(f"{path}: model_type {kind!r} {told}; {cls.__name__} knows {', '.join(cls.classes)}")


def _said_by(source: Source) -> str:
    """The file that says what kind of model it is."""
    return os.path.join(source.path, "config.json") if os.path.isdir(source.path) else source.path


class AutoModel(_Auto):
    """The bare model, without a head."""

    classes: ClassVar[dict[str, Place]] = {
        "bert": ("bert", "BertModel"),
        "distilbert": ("distilbert", "DistilBertModel"),
        "gpt2": ("gpt2", "GPT2Model"),
        "llama": ("llama", "LlamaModel"),
        "mistral": ("mistral", "MistralModel"),
        "qwen2": ("qwen2", "Qwen2Model"),
        "roberta": ("roberta", "RobertaModel"),
        "transformer": ("transformer", "TransformerModel"),
        "vit": ("vit", "ViTModel"),
    }


class AutoModelForCausalLM(_Auto):
    """The model that foretells the next token."""

    classes: ClassVar[dict[str, Place]] = {
        "gpt2": ("gpt2", "GPT2LMHeadModel"),
        "llama": ("llama", "LlamaForCausalLM"),
        "mistral": ("mistral", "MistralForCausalLM"),
        "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    }


class AutoModelForMaskedLM(_Auto):
    """The model that fills in masked tokens."""

    classes: ClassVar[dict[str, Place]] = {
        "bert": ("bert", "BertForMaskedLM"),
        "distilbert": ("distilbert", "DistilBertForMaskedLM"),
        "roberta": ("roberta", "RobertaForMaskedLM"),
    }


class AutoModelForSequenceClassification(_Auto):
    """The model that puts a label on a text, or a number."""

    classes: ClassVar[dict[str, Place]] = {
        "bert": ("bert", "BertForSequenceClassification"),
        "distilbert": ("distilbert", "DistilBertForSequenceClassification"),
        "gpt2": ("gpt2", "GPT2ForSequenceClassification"),
        "llama": ("llama", "LlamaForSequenceClassification"),
        "mistral": ("mistral", "MistralForSequenceClassification"),
        "qwen2": ("qwen2", "Qwen2ForSequenceClassification"),
        "roberta": ("roberta", "RobertaForSequenceClassification"),
    }


class AutoModelForTokenClassification(_Auto):
    """The model that puts a label on every token."""

    classes: ClassVar[dict[str, Place]] = {
        "bert": ("bert", "BertForTokenClassification"),
        "distilbert": ("distilbert", "DistilBertForTokenClassification"),
        "roberta": ("roberta", "RobertaForTokenClassification"),
    }


class AutoModelForQuestionAnswering(_Auto):
    """The model that finds where an answer begins and ends."""

    classes: ClassVar[dict[str, Place]] = {
        "bert": ("bert", "BertForQuestionAnswering"),
        "distilbert": ("distilbert", "DistilBertForQuestionAnswering"),
        "roberta": ("roberta", "RobertaForQuestionAnswering"),
    }


class AutoModelForImageClassification(_Auto):
    """The model that puts a label on an image."""

    classes: ClassVar[dict[str, Place]] = {
        "vit": ("vit", "ViTForImageClassification"),
    }


_TASKS = (
    AutoModel, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM, AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification, AutoModelForTokenClassification,
)
