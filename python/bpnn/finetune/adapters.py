"""Adapters in a frozen model: `get_peft_model(model, LoraConfig(r=8))`, with PEFT's names, defaults and files.

    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS"))   # everything else is frozen
    model.print_trainable_parameters()
    model.save_pretrained(folder)                                    # adapter_config.json, adapter_model.safetensors
    model = PeftModel.from_pretrained(base, folder)                  # ours or PEFT's
    merged = model.merge_and_unload()                                # the plain model with changed weights

Several adapters may be in one model; the active ones compute and are trained.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import bpnn
from bpcore.stored import StoredMatrix
from bpnn import nn

from ._adapter_config import PeftConfig, TargetConfig
from ._layers import AdapterLayer, ModulesToSave
from ._merging import Merging, replace
from ._targets import chosen, saved_modules


class AdaptedModel(nn.Module):
    """Holds the model whose modules were replaced, so that names are those of PEFT: `base_model.model.…`."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *given: Any, **named: Any) -> Any:
        """What the model computes."""
        return self.model(*given, **named)


class PeftModel(Merging, nn.Module):
    """A model with adapters. It is called, trained and asked like the model: what it does not have itself, the model answers.

    peft_config: the configuration of each adapter by name. active_adapters: the names of those that compute.
    """

    prefix = "base_model.model."  # of the names of the model's modules in files

    def __init__(self, model: nn.Module, peft_config: PeftConfig, adapter_name: str = "default"):
        super().__init__()
        if isinstance(model, PeftModel) or any(isinstance(part, (AdapterLayer, ModulesToSave)) for part in model.modules()):
            raise ValueError("model: expected a model without adapters, got one that has them; use add_adapter, or unload() first")
        self.peft_config: dict[str, PeftConfig] = {}
        self.active_adapters: list[str] = []
        self.base_model = self._hold(model)
        before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        model.requires_grad_(False)
        try:
            self.add_adapter(adapter_name, peft_config)
        except Exception:
            for parameter, trained in before:
                parameter.requires_grad = trained
            raise
        self.set_adapter(adapter_name)

    def _hold(self, model: nn.Module) -> nn.Module:
        return AdaptedModel(model)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model" or name.startswith("__"):  # not there yet, or asked for by `copy`
                raise
            return getattr(self.get_base_model(), name)

    def get_base_model(self) -> Any:
        """The model inside; its modules are those with adapters."""
        return self.base_model.model

    def forward(self, *given: Any, **named: Any) -> Any:
        """What the model with its active adapters computes; arguments are the model's."""
        return self.get_base_model()(*given, **named)

    # --- adapters ----------------------------------------------------------------------------------------------------------

    @property
    def active_adapter(self) -> str:
        """The name of the first active adapter."""
        return self.active_adapters[0]

    @property
    def adapter_layers(self) -> list[AdapterLayer]:
        """The modules that have adapters."""
        return [module for module in self.get_base_model().modules() if isinstance(module, AdapterLayer)]

    @property
    def whole_modules(self) -> list[ModulesToSave]:
        """The modules that are trained whole, beside what they were before."""
        return [module for module in self.modules() if isinstance(module, ModulesToSave)]

    def add_adapter(self, adapter_name: str, peft_config: PeftConfig) -> None:
        """Add an adapter with starting values; `set_adapter` makes it the one that computes and is trained.

        Raises `ValueError` for a name that there is already, or for another kind of adapter than those there are.
        """
        if not adapter_name or "." in adapter_name or adapter_name in self.peft_config or hasattr(nn.ModuleDict(), adapter_name):
            raise ValueError(f"adapter_name: expected a new name without dots, got {adapter_name!r}; there are "
                             f"{', '.join(self.peft_config) or 'none'}, and what modules have, such as 'train'")
        for other in self.peft_config.values():
            if other.peft_type != peft_config.peft_type:
                raise ValueError(f"peft_config: expected {other.peft_type}, which the model has, got {peft_config.peft_type}")
            if {getattr(other, "bias", "none"), getattr(peft_config, "bias", "none")} != {"none"}:
                raise ValueError("bias: expected 'none' with several adapters, for they would share the biases")
        config = peft_config.prepared(self.get_base_model())
        self._inject(adapter_name, config)
        self.peft_config[adapter_name] = config
        self._set_trainable()

    def _inject(self, adapter: str, config: PeftConfig) -> None:
        assert isinstance(config, TargetConfig)
        model = self.get_base_model()
        whole = [path.removesuffix(".original_module") for path in saved_modules(model, config.modules_to_save)]
        for path in chosen(model, config, whole):
            module = model.get_submodule(path)
            layer = module if isinstance(module, AdapterLayer) else config.layer(module, path)
            if layer is not module:
                replace(model, path, layer)
            layer.add(adapter, config, path, model)
        self._save_whole(model, adapter, whole)

    def _save_whole(self, model: nn.Module, adapter: str, paths: Sequence[str]) -> None:
        for path in paths:
            module = model.get_submodule(path)
            if not isinstance(module, ModulesToSave):
                replace(model, path, ModulesToSave(module))
            model.get_submodule(path).add(adapter)

    def set_adapter(self, adapter_name: str | Sequence[str], inference_mode: bool = False) -> None:
        """Make an adapter, or several whose changes add up, those that compute, and with them what is trained.

        inference_mode: nothing is trained. Raises `ValueError` for an unknown name.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        unknown = [name for name in names if name not in self.peft_config]
        if unknown or not names:
            raise ValueError(f"adapter_name: expected of {', '.join(self.peft_config)}, got {', '.join(unknown) or 'none'}")
        if any(layer.merged for layer in self.adapter_layers):
            raise ValueError("adapter_name: expected no merged adapter; call unmerge_adapter() first")
        for module in self.whole_modules:
            if sum(name in module.modules_to_save for name in names) > 1:
                raise ValueError(f"adapter_name: expected one adapter that trains modules whole, got {', '.join(names)}")
        self.active_adapters = names
        for name in names:
            self.peft_config[name].inference_mode = inference_mode
        self._set_trainable()

    def _set_trainable(self) -> None:
        """What of the active adapters is trained, and which biases; nothing else is."""
        active = [name for name in self.active_adapters if name in self.peft_config]
        training = [name for name in active if not self.peft_config[name].inference_mode]
        for layer in self.adapter_layers:
            layer.set_active(active, training)
        for module in self.whole_modules:
            module.set_active(active, training)
        for name in active:
            bias = getattr(self.peft_config[name], "bias", "none")
            if bias == "all":
                for path, parameter in self.get_base_model().named_parameters():
                    if path.rpartition(".")[2] == "bias" and ".modules_to_save." not in path and ".original_module." not in path:
                        parameter.requires_grad = name in training
            elif bias == "lora_only":
                for layer in self.adapter_layers:
                    if layer.bias is not None:
                        layer.bias.requires_grad = name in training

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; if it was the only active one, the first of the others becomes active."""
        if adapter_name not in self.peft_config or len(self.peft_config) == 1:
            there = ", ".join(self.peft_config)
            raise ValueError(f"adapter_name: expected one of several, got {adapter_name!r}; there are {there}")
        if any(adapter_name in layer.merged for layer in self.adapter_layers):
            raise ValueError(f"adapter_name: {adapter_name} is merged; call unmerge_adapter() first")
        del self.peft_config[adapter_name]
        for module in (*self.adapter_layers, *self.whole_modules):
            module.remove(adapter_name)
        self.active_adapters = [name for name in self.active_adapters if name != adapter_name] or [next(iter(self.peft_config))]
        self._set_trainable()

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside, the model computes as if there were no adapters; biases that were trained stay as they are."""
        merged = {id(layer): list(layer.merged) for layer in self.adapter_layers}
        parts = [(part, part.enabled) for part in (*self.adapter_layers, *self.whole_modules)]
        for layer in self.adapter_layers:
            layer.unmerge()
        for part, _ in parts:
            part.enabled = False
        try:
            yield
        finally:
            for part, before in parts:
                part.enabled = before
            for layer in self.adapter_layers:
                layer.merge(merged[id(layer)])

    # --- numbers -----------------------------------------------------------------------------------------------------------

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """How many numbers are trained, and how many there are, those of weights stored in fewer bits among them."""
        sizes = [(p.numel(), p.requires_grad) for p in self.parameters()]
        stored = {id(module.matrix): module.matrix for module in self.modules() if hasattr(module, "matrix")}  # no parameters
        sizes += [(matrix.shape[0] * matrix.shape[1], False) for matrix in stored.values() if isinstance(matrix, StoredMatrix)]
        return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)

    def print_trainable_parameters(self) -> None:
        """Print `trainable params: 2,370 || all params: 36,836 || trainable%: 6.4339`."""
        trained, everything = self.get_nb_trainable_parameters()
        print(f"trainable params: {trained:,d} || all params: {everything:,d} || trainable%: {100 * trained / everything:.4f}")

    # --- files -------------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str], selected_adapters: Sequence[str] | None = None) -> list[str]:
        """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT reads them; the names of the files written.

        The adapter "default" goes into the folder itself, others into folders of their names inside it.
        """
        from .peft_files import save_adapter

        names = list(self.peft_config if selected_adapters is None else selected_adapters)
        if unknown := [name for name in names if name not in self.peft_config]:
            raise ValueError(f"selected_adapters: expected of {', '.join(self.peft_config)}, got {', '.join(unknown)}")
        return [file for name in names for file in save_adapter(self, name, folder)]

    def file_tensors(self, adapter_name: str) -> dict[str, Any]:
        """The parameters that the file of an adapter holds, by their names there (but for `_targets.RENAMED`)."""
        config, model = self.peft_config[adapter_name], self.get_base_model()
        bias = getattr(config, "bias", "none")
        found: dict[str, Any] = {}
        for path, module in model.named_modules():
            own: dict[str, Any] = {}
            if isinstance(module, AdapterLayer):
                own = module.file_tensors(adapter_name, bias == "lora_only")
            elif isinstance(module, ModulesToSave):
                own = module.file_tensors(adapter_name)
            found |= {f"{self.prefix}{path}.{name}": tensor for name, tensor in own.items()}
        if bias == "all":
            for name, parameter in model.named_parameters():
                if name.endswith(".bias") and ".modules_to_save." not in name:
                    found.setdefault(self.prefix + name, parameter)
        return found

    def load_adapter(self, folder: str | os.PathLike[str], adapter_name: str, is_trainable: bool = False) -> None:
        """Add the adapter of a folder or a name of the hub, as PEFT or `save_pretrained` wrote it; it is not made active.

        is_trainable: to train it further, once it is active; otherwise the model is put into evaluation mode, as PEFT does.
        Raises `ValueError` naming file, key and value for a setting that there is not here, one `RuntimeError` that names the file
        and every missing, unexpected and misshapen tensor.
        """
        from .peft_files import load_adapter, read_adapter_config

        path, config = read_adapter_config(folder)
        config.inference_mode = not is_trainable
        self.add_adapter(adapter_name, config)
        try:
            load_adapter(self, adapter_name, path)
        except Exception:
            if len(self.peft_config) > 1:
                self.delete_adapter(adapter_name)
            raise
        if not is_trainable:
            self.eval()

    @classmethod
    def from_pretrained(
        cls, model: nn.Module, folder: str | os.PathLike[str], adapter_name: str = "default", is_trainable: bool = False,
    ) -> Self:
        """`model` with the adapter of a folder, or of a name of the hub; see `load_adapter`. In evaluation mode.

        is_trainable: to train it further. The model is changed: its modules are replaced.
        """
        from .peft_files import load_adapter, read_adapter_config

        path, config = read_adapter_config(folder)
        config.inference_mode = not is_trainable
        with nn.init.skip_init():
            tuned = get_peft_model(model, config, adapter_name, _trained=is_trainable)
        try:
            load_adapter(tuned, adapter_name, path)
        except Exception:
            tuned.unload()
            raise
        return tuned.eval()  # type: ignore[return-value]


@bpnn.no_grad()
def get_peft_model(model: nn.Module, peft_config: PeftConfig, adapter_name: str = "default", *, _trained: bool = True) -> PeftModel:
    """`model` with an adapter in it and all else frozen; the model itself is changed. PEFT's function, its names and defaults.

    peft_config: `LoraConfig`, `IA3Config`, `PromptTuningConfig` or `PrefixTuningConfig`. With the `task_type` "SEQ_CLS",
    "TOKEN_CLS" or "QUESTION_ANS" the head is trained along; other modules are named in `modules_to_save`.
    """
    if not isinstance(peft_config, PeftConfig):
        kinds = "LoraConfig, IA3Config, PromptTuningConfig or PrefixTuningConfig"
        raise TypeError(f"peft_config: expected {kinds}, got {peft_config!r}")
    tuned = peft_config.model_class()(model, peft_config, adapter_name)
    if not _trained:
        tuned.set_adapter(adapter_name, inference_mode=True)
    return tuned
