"""From adapters beside the weights to adapters in them, and back to the plain model."""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bpnn import nn
from bpnn.models._pretrained import PreTrainedModel

from ._layers import AdapterLayer, ModulesToSave


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of that with a dotted name."""
    holder, _, name = path.rpartition(".")
    setattr(model.get_submodule(holder), name, module)


class Merging:
    """Methods of `PeftModel`."""

    active_adapters: list[str]
    peft_config: dict[str, Any]
    adapter_layers: Any
    get_base_model: Any

    def merge_adapter(self, adapter_names: Sequence[str] | None = None) -> None:
        """Add the changes of adapters (the active ones) to the weights; the model computes the same, faster, and is not trained.

        Raises `ValueError` for a weight that is also used elsewhere, as the table of tokens where `tie_word_embeddings` is True.
        """
        names = self.active_adapters if adapter_names is None else list(adapter_names)
        unknown = [name for name in names if name not in self.peft_config]
        if unknown:
            raise ValueError(f"adapter_names: expected of {', '.join(self.peft_config)}, got {', '.join(unknown)}")
        uses = Counter(id(parameter) for _, parameter in self.get_base_model().named_parameters(remove_duplicate=False))
        for layer in self.adapter_layers:
            if uses[id(layer.weight)] > 1 and {*names} & {*layer.names()}:
                raise ValueError(f"adapter_names: {layer.path} shares its weight with another module (tie_word_embeddings), "
                                 "which would change too; it cannot be merged")
        for layer in self.adapter_layers:
            layer.merge(names)

    def unmerge_adapter(self) -> None:
        """Take back what `merge_adapter` did; the weights are what they were but for rounding."""
        for layer in self.adapter_layers:
            layer.unmerge()

    def merge_and_unload(self, adapter_names: Sequence[str] | None = None) -> Any:
        """The plain model, its weights changed by the adapters, with the modules that were trained whole; for use or training."""
        self.merge_adapter(adapter_names)
        return self._plain(True)

    def unload(self) -> Any:
        """The plain model as it was before: without adapters, and with the modules that were there first."""
        self.unmerge_adapter()
        return self._plain(False)

    def _plain(self, trained: bool) -> Any:
        model = self.get_base_model()
        for path, module in list(model.named_modules()):
            if isinstance(module, AdapterLayer):
                replace(model, path, module.base_layer)
            elif isinstance(module, ModulesToSave):
                replace(model, path, module.current() if trained else module.original_module)
        model.requires_grad_(True)
        output = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
        if output is not None and output.weight is not model.get_input_embeddings().weight:  # one of them was trained whole
            model.config.tie_word_embeddings = False
        return model
