"""Which modules of a model get adapters: PEFT's defaults for each architecture, and its rules for `target_modules`.

A name matches where it is one of `target_modules` or ends with ".<one of them>"; a single string is a regular expression for the
whole name. `transformers` 5 calls ViT's maps otherwise than ViT's files do: both names match, and adapters' files have the newer.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpnn import nn
from bpnn.nn.modules.stored import SCORES, StoredLinear

ALL_LINEAR = "all-linear"
_BERT, _LLAMA = ("query", "value"), ("q_proj", "v_proj")
LORA_TARGETS: Mapping[str, Sequence[str]] = {
    "bert": _BERT, "roberta": _BERT, "xlm-roberta": _BERT, "camembert": _BERT, "vit": _BERT, "distilbert": ("q_lin", "v_lin"),
    "gpt2": ("c_attn",), "llama": _LLAMA, "mistral": _LLAMA, "qwen2": _LLAMA,
}
_BERT_IA3 = ("key", "value", "output.dense"), ("output.dense",)
_LLAMA_IA3 = ("k_proj", "v_proj", "down_proj"), ("down_proj",)
# The maps whose outputs, and among them those whose inputs, IA3 scales
IA3_TARGETS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "bert": _BERT_IA3, "roberta": _BERT_IA3, "xlm-roberta": _BERT_IA3, "camembert": _BERT_IA3, "vit": _BERT_IA3,
    "distilbert": (("k_lin", "v_lin", "lin2"), ("lin2",)), "gpt2": (("c_attn", "mlp.c_proj"), ("mlp.c_proj",)),
    "llama": _LLAMA_IA3, "mistral": _LLAMA_IA3, "qwen2": (("q_proj", "v_proj", "down_proj"), ("down_proj",)),
}
# What is trained whole beside the adapters, and saved with them, for each `task_type`; PEFT has no task for images
HEADS: Mapping[str | None, Sequence[str]] = {
    "SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",),
    "CAUSAL_LM": (), "FEATURE_EXTRACTION": (), None: (),
}
ALL_HEADS = tuple(dict.fromkeys(name for names in HEADS.values() for name in names))
# Parts of names that transformers 5 changed, in this order: (in files of models, in files of adapters)
RENAMED: Mapping[str, Sequence[tuple[str, str]]] = {
    "vit": (
        ("encoder.layer.", "layers."), ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"), ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
    ),
}


def model_type(model: Any) -> str:
    """The architecture's name in `config.json`, of the model or of the first inside it; "" where none has a configuration."""
    found = (part.config.model_type for part in model.modules() if hasattr(getattr(part, "config", None), "model_type"))
    return str(next(found, ""))


def file_name(name: str, kind: str) -> str:
    """The name that a module or tensor of an architecture has in the files of adapters."""
    for old, new in RENAMED.get(kind, ()):
        name = name.replace(old, new)
    return name


def linear_sizes(module: Any) -> tuple[int, int, bool] | None:
    """(inputs, outputs, whether the weight lies as (inputs, outputs)) of a linear map; None for any other module."""
    if isinstance(module, (nn.Linear, StoredLinear)):
        return module.in_features, module.out_features, False
    return (*module.weight.shape, True) if getattr(module, "transposed", False) else None  # GPT-2's Conv1D


def matches(wanted: str | Iterable[str] | None, names: Iterable[str]) -> bool:
    """Whether one of a module's names is wanted; see the head of this file."""
    if not wanted:
        return False
    if isinstance(wanted, str):
        return any(re.fullmatch(wanted, name) for name in names)
    return any(name == one or name.endswith("." + one) for name in names for one in wanted)


def pattern_value(patterns: Mapping[str, Any], names: Sequence[str], default: Any) -> Any:
    """The value of the first of `rank_pattern` or `alpha_pattern` that fits the end of one of a module's names."""
    return next((patterns[key] for key in patterns for name in names if re.match(rf"(.*\.)?({key})$", name)), default)


def saved_modules(model: nn.Module, names: Sequence[str] | None) -> list[str]:
    """The names of the modules that are trained whole: those that end with one of `names`; none inside another."""
    found: list[str] = []
    for path, _ in model.named_modules():
        if path and path.endswith(tuple(names or ())) and not any(path.startswith(one + ".") for one in found):
            found.append(path)
    return found


def chosen(model: nn.Module, config: Any, saved: Sequence[str]) -> list[str]:
    """The names of the modules that a configuration asks for, `target_modules` and what goes with it.

    saved: modules that are trained whole, which get no adapters. Raises `ValueError` naming what matches nothing, or what is no
    linear map.
    """
    kind, wanted = model_type(model), config.target_modules
    everything = isinstance(wanted, str) and wanted.lower() == ALL_LINEAR
    found, skip = [], (*saved, *_inside(model))
    for path, module in model.named_modules():
        names = path, file_name(path, kind)
        if not path or path in saved or path.startswith(tuple(one + "." for one in skip)):
            continue
        linear = linear_sizes(getattr(module, "base_layer", module)) is not None
        if not (linear and not _is_output(path, config, model) if everything else matches(wanted, names)):
            continue
        if matches(config.exclude_modules, names) or not _in_layers(config, names):
            continue
        if not linear:
            raise ValueError(f"target_modules: expected linear maps, {path} is a {type(module).__name__}")
        found.append(path)
    if not found:
        there = dict.fromkeys(path.rpartition(".")[2] for path, module in model.named_modules() if linear_sizes(module))
        raise ValueError(f"target_modules: no module of {type(model).__name__} matches {wanted!r}; linear maps are called "
                         f"{', '.join(there)}")
    return found


def _inside(model: nn.Module) -> list[str]:
    """The names of modules that have adapters already: what is inside them is theirs."""
    return [path for path, module in model.named_modules() if hasattr(module, "base_layer")]


def _is_output(path: str, config: Any, model: nn.Module) -> bool:
    """Whether "all-linear" leaves a module out: the map to scores of tokens, and the head of a classifier of texts."""
    if path.rpartition(".")[2] in SCORES:
        return True
    return config.task_type == "SEQ_CLS" and path in HEADS["SEQ_CLS"]


def _in_layers(config: Any, names: Sequence[str]) -> bool:
    """Whether `layers_to_transform` has the number behind `layers_pattern`, or behind the first name that a number follows."""
    layers = getattr(config, "layers_to_transform", None)
    if layers is None or layers == [] or isinstance(config.target_modules, str):
        return True
    if any(name in config.target_modules for name in names):
        return True
    patterns = config.layers_pattern or ()
    patterns = [patterns] if isinstance(patterns, str) else patterns
    forms = [rf"(?:^|.*?\.){one}\.(\d+)\." for one in patterns] or [r".*?\.[^.]*\.(\d+)\."]
    found = next((hit for form in forms for name in names if (hit := re.match(form, name))), None)
    return found is not None and int(found[1]) in ([layers] if isinstance(layers, int) else layers)
