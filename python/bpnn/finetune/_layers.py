"""What takes a module's place: a linear map with adapters, or a module that is trained whole beside the one it was."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from bpnn import nn
from bpnn.nn import functional as F
from bpnn.nn.modules.stored import StoredLinear

from ._targets import linear_sizes


def activate(x: Any, activation: str | None) -> Any:
    """What `F.linear(activation=…)` does to its result."""
    if activation is None:
        return x
    if activation == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    functions: dict[str, Any] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": F.tanh, "sigmoid": F.sigmoid}
    return functions[activation](x)


class AdapterLayer(nn.Module):
    """A linear map, `base_layer`, with adapters by name.

    active: those that compute. merged: those whose change is in the weight already. enabled: False, the map alone computes.
    """

    base_layer: Any

    def __init__(self, base_layer: nn.Module, path: str):
        super().__init__()
        sizes = linear_sizes(base_layer)
        if sizes is None:
            raise ValueError(f"target_modules: expected linear maps, {path} is a {type(base_layer).__name__}")
        self.base_layer, self.path = base_layer, path
        self.in_features, self.out_features, _ = sizes
        self.active: list[str] = []
        self.merged: list[str] = []
        self.enabled = True
        # The map in fewer bits, while one of float32 that takes the changes stands in its place; in a tuple it is no child
        self._stored: tuple[Any, ...] = ()

    # --- what a subclass says ----------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The names of the adapters."""
        raise TypeError(f"{type(self).__name__} has no names")

    def add(self, adapter: str, config: Any, path: str, model: Any) -> None:
        """Add an adapter with starting values."""
        raise TypeError(f"{type(self).__name__} has no add")

    def remove(self, adapter: str) -> None:
        """Remove an adapter, if it is there."""
        raise TypeError(f"{type(self).__name__} has no remove")

    def own(self, adapter: str) -> list[Any]:
        """The parameters of an adapter."""
        raise TypeError(f"{type(self).__name__} has no own")

    def adapt(self, x: Any, adapters: Sequence[str]) -> Any:
        """The map with some adapters, without an activation."""
        raise TypeError(f"{type(self).__name__} has no adapt")

    def change(self, adapter: str, sign: int) -> None:
        """Put the change of an adapter into the weight (1), or take it out again (-1)."""
        raise TypeError(f"{type(self).__name__} has no change")

    # --- the same for all --------------------------------------------------------------------------------------------------

    def file_tensors(self, adapter: str, bias: bool) -> dict[str, Any]:
        """The parameters of an adapter by their names in files, and with `bias` that of the map."""
        found = {}
        for name, parameter in self.named_parameters():
            if name.split(".")[1:2] == [adapter] and not name.startswith("base_layer."):
                # DoRA's vector is a parameter in files, here and in PEFT a module with one
                found[name.replace(f".{adapter}", "", 1).replace("magnitude_vector.weight", "magnitude_vector")] = parameter
            elif bias and name == "base_layer.bias" and adapter in self.names():
                found[name] = parameter
        return found

    @property
    def weight(self) -> Any:
        """The weight of the map without adapters; a `StoredMatrix` where it is stored in fewer bits."""
        return self.base_layer.matrix if isinstance(self.base_layer, StoredLinear) else self.base_layer.weight

    @property
    def transposed(self) -> bool:
        """Whether the weight lies as (in_features, out_features)."""
        return bool(getattr(self.base_layer, "transposed", False))

    @property
    def bias(self) -> Any:
        """The bias of the map."""
        return self.base_layer.bias

    def forward(self, x: Any, *, activation: str | None = None) -> Any:
        """x: (…, in_features); y: (…, out_features)."""
        names = [name for name in self.active if name in self.names()] if self.enabled and not self.merged else []
        if not names:
            return self.base_layer(x, activation=activation)
        return activate(self.adapt(x, names), activation)

    def set_active(self, active: Sequence[str], trained: Sequence[str]) -> None:
        """Which adapters compute, and which of them are trained."""
        self.active = list(active)
        for name in self.names():
            for parameter in self.own(name):
                parameter.requires_grad = name in trained

    def merge(self, adapters: Sequence[str]) -> None:
        """Put the changes of adapters into the weight; those that are there already stay.

        A weight stored in fewer bits gives way to one of float32 until they are taken out again.
        """
        for name in adapters:
            if name in self.names() and name not in self.merged:
                if isinstance(self.base_layer, StoredLinear):
                    self._stored, self.base_layer = (self.base_layer,), self.base_layer.dense()
                self.change(name, 1)
                self.merged.append(name)

    def unmerge(self) -> None:
        """Take all changes out again."""
        while self.merged:
            self.change(self.merged.pop(), -1)
        if self._stored:
            (self.base_layer,), self._stored = self._stored, ()


class ModulesToSave(nn.Module):
    """A module that adapters train whole: `original_module` as it was, and a copy for each adapter in `modules_to_save`."""

    original_module: Any
    modules_to_save: Any

    def __init__(self, module: nn.Module):
        super().__init__()
        self.original_module = module
        self.modules_to_save = nn.ModuleDict()
        self.active: list[str] = []
        self.enabled = True

    def add(self, adapter: str) -> None:
        """Add a copy of the module as it was."""
        self.modules_to_save[adapter] = copy.deepcopy(self.original_module)

    def remove(self, adapter: str) -> None:
        """Remove the copy of an adapter, if it is there."""
        if adapter in self.modules_to_save:
            del self.modules_to_save[adapter]

    def set_active(self, active: Sequence[str], trained: Sequence[str]) -> None:
        """Which adapters' copies compute, and which are trained."""
        self.active = list(active)
        for name, module in self.modules_to_save.items():
            module.requires_grad_(name in trained)

    def file_tensors(self, adapter: str) -> dict[str, Any]:
        """The tensors of an adapter's copy by their names."""
        copied = adapter in self.modules_to_save
        return dict(self.modules_to_save[adapter].state_dict(keep_vars=True)) if copied else {}

    def current(self) -> Any:
        """The module that computes."""
        name = next((name for name in self.active if name in self.modules_to_save), None) if self.enabled else None
        return self.original_module if name is None else self.modules_to_save[name]

    @property
    def weight(self) -> Any:
        """The weight of the module that computes."""
        return self.current().weight

    @property
    def bias(self) -> Any:
        """The bias of the module that computes."""
        return self.current().bias

    def forward(self, *given: Any, **named: Any) -> Any:
        """What the module that is active computes."""
        return self.current()(*given, **named)
