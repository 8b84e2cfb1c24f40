"""The files of adapters, as PEFT writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.

    base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight     LoRA: (r, in)
    base_model.model.….query.lora_B.weight, .lora_magnitude_vector               (out, r), DoRA's (out,)
    base_model.model.….key.ia3_l                                                 (out, 1), or (1, in) where inputs are scaled
    base_model.model.….query.base_layer.bias, base_model.model.classifier.weight biases and modules that were trained along
    prompt_embeddings                                                            prompts and prefixes (PEFT's names of modules then
                                                                                 begin with base_model. alone)
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import bpnn
from bpnn.pretrained import resolve
from bpnn.pretrained.safetensors_file import open_safetensors, read_json
from bpnn.pretrained.saving import _write, _width
from bpnn.utils._files import write_text

from ._adapter_config import PeftConfig, TargetConfig
from ._targets import RENAMED, file_name, model_type

__all__ = ["load_adapter", "read_adapter_config", "save_adapter"]

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
# Keys of PEFT that say nothing about what is computed
NOTES = ("auto_mapping", "peft_version")
# Keys that there are not here, with values that change nothing; None, False and what is empty never does
HARMLESS: Mapping[str, Any] = {"megatron_core": "megatron.core", "qalora_group_size": 16}


# --- configuration -------------------------------------------------------------------------------------------------------------


def _kinds() -> dict[str, type[PeftConfig]]:
    from .ia3 import IA3Config
    from .lora import LoraConfig
    from .prefix import PrefixTuningConfig
    from .prompt import PromptTuningConfig

    return {kind.peft_type: kind for kind in (LoraConfig, IA3Config, PromptTuningConfig, PrefixTuningConfig)}


def read_adapter_config(name_or_folder: str | os.PathLike[str]) -> tuple[str, PeftConfig]:
    """The folder of an adapter, or of a name of the hub, and what its `adapter_config.json` says.

    Raises `FileNotFoundError` naming the file; `ValueError` or `TypeError` naming file, key and value for a kind of adapter or a
    setting that there is not here. Unknown keys that are None, False or empty are left out.
    """
    folder = resolve(name_or_folder, patterns=[CONFIG_NAME, WEIGHTS_NAME])
    path = os.path.join(folder, CONFIG_NAME)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file; the folder of an adapter has a {CONFIG_NAME}")
    content = {key: value for key, value in read_json(path).items() if key not in NOTES}
    kind, kinds = content.pop("peft_type", None), _kinds()
    if kind not in kinds:
        raise ValueError(f"{path}: peft_type: expected {', '.join(kinds)}, got {kind!r}")
    fields = kinds[kind].__dataclass_fields__
    for key, value in list(content.items()):
        if key not in fields:
            if value not in (None, False, HARMLESS.get(key)) and value not in ({}, [], ""):
                raise ValueError(f"{path}: {key}: expected nothing, for {kind} has no such setting here, got {value!r}")
            del content[key]
    config = kinds[kind].from_dict(content, path)
    config.from_file = True
    return folder, config


def _written_config(model: Any, adapter: str) -> dict[str, Any]:
    """What is written of a configuration: for PEFT, whose names of ViT's modules are other ones."""
    config = model.peft_config[adapter]
    content: dict[str, Any] = {**config.to_dict(), "inference_mode": True}
    kind = model_type(model.get_base_model())
    if kind in RENAMED and isinstance(config, TargetConfig):
        content |= _renamed(model, adapter, config, kind)
    return content


def _renamed(model: Any, adapter: str, config: Any, kind: str) -> dict[str, Any]:
    """The same modules by their whole names in the newer form, for an architecture whose names changed."""
    paths = [path for path, module in model.get_base_model().named_modules() if adapter in _names(module)]
    changed: dict[str, Any] = {"target_modules": [file_name(path, kind) for path in paths], "exclude_modules": None}
    if hasattr(config, "rank_pattern"):
        sizes = {file_name(path, kind): config.sizes(path, kind) for path in paths}
        changed |= {
            "rank_pattern": {path: r for path, (r, _) in sizes.items() if r != config.r},
            "alpha_pattern": {path: alpha for path, (_, alpha) in sizes.items() if alpha != config.lora_alpha},
            "layers_to_transform": None, "layers_pattern": None,
        }
    else:
        inputs = [file_name(path, kind) for path in paths if model.get_base_model().get_submodule(path).is_feedforward]
        changed["feedforward_modules"] = inputs
    return changed


def _names(module: Any) -> list[str]:
    """The adapters of a module."""
    return module.names() if hasattr(module, "base_layer") else []


# --- tensors -------------------------------------------------------------------------------------------------------------------


def _places(model: Any, adapter: str) -> dict[str, Any]:
    """The tensors of an adapter that a file has: name in the file to parameter."""
    kind = model_type(model.get_base_model())
    return {file_name(name, kind): parameter for name, parameter in model.file_tensors(adapter).items()}


def save_adapter(model: Any, adapter: str, folder: str | os.PathLike[str]) -> list[str]:
    """Write the two files of an adapter; see `PeftModel.save_pretrained`."""
    where = os.fspath(folder) if adapter == "default" else os.path.join(os.fspath(folder), adapter)
    os.makedirs(where, exist_ok=True)
    arrays = {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in _places(model, adapter).items()}
    chosen = {name: (array, array.dtype.name) for name, array in arrays.items()}
    order = sorted(chosen, key=lambda name: (-_width(chosen[name][1]), name))
    paths = [os.path.join(where, name) for name in (CONFIG_NAME, WEIGHTS_NAME)]
    _write(paths[1], chosen, order, {"format": "pt"})
    write_text(paths[0], json.dumps(_written_config(model, adapter), indent=2, sort_keys=True) + "\n")
    return paths


@bpnn.no_grad()
def load_adapter(model: Any, adapter: str, folder: str) -> None:
    """Copy the tensors of `adapter_model.safetensors` into an adapter; see `PeftModel.load_adapter`."""
    path = os.path.join(folder, WEIGHTS_NAME)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file; the tensors of an adapter are in {WEIGHTS_NAME}, not in a pickle")
    weights = open_safetensors(path)
    places = _places(model, adapter)
    kind = model_type(model.get_base_model())
    # With bias="all" PEFT writes the biases of modules that are trained whole twice, here under a name of its own.
    found = {file_name(name, kind): name for name in weights if ".modules_to_save." not in name}
    problems = []
    if missing := [name for name in places if name not in found]:
        problems.append("missing: " + ", ".join(missing))
    if unexpected := [found[name] for name in found if name not in places]:
        problems.append("unexpected: " + ", ".join(unexpected))
    for name, tensor in places.items():
        if name in found:
            entry = weights.entries[found[name]]
            if entry.shape != tuple(tensor.shape):
                problems.append(f"{found[name]}: expected shape {tuple(tensor.shape)}, got {entry.shape}")
            elif entry.dtype.kind != "f":
                problems.append(f"{found[name]}: expected {tensor.dtype}, got {entry.kind}")
    if problems:
        raise RuntimeError(f"{path} does not fit {type(model.get_base_model()).__name__}:\n  " + "\n  ".join(problems))
    for name, tensor in places.items():
        tensor.copy_(bpnn.from_numpy(np.ascontiguousarray(weights[found[name]]).astype(tensor.dtype, copy=False)))
