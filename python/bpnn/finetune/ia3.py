"""IA3: what a frozen linear map gives, or gets, multiplied by one trained number for each feature (Liu et al. 2022).

    y = l * (x W^T + b)            keys and values of attention
    y = (l * x) W^T + b            the map behind the wide layer (`feedforward_modules`)

l is 1 at first: the model begins as it was.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

import bpnn
from bpnn import nn

from ._adapter_config import TargetConfig, without_default
from ._layers import AdapterLayer
from ._targets import IA3_TARGETS, file_name, matches, model_type

__all__ = ["IA3Config", "IA3Linear"]


@dataclass(kw_only=True)
class IA3Config(TargetConfig):
    """PEFT's `IA3Config`.

    feedforward_modules: those of `target_modules` whose inputs are scaled, not their outputs; None: none, or the default of the
    architecture where `target_modules` is None too. init_ia3_weights: True: l is 1; False: l is drawn from N(0, 1), for tests. The
    rest: see `TargetConfig` and `PeftConfig`.
    """

    peft_type = "IA3"

    feedforward_modules: list[str] | str | None = None
    init_ia3_weights: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        inputs, targets = self.feedforward_modules, self.target_modules
        if isinstance(inputs, list) and isinstance(targets, list) and (lost := sorted({*inputs} - {*targets})):
            raise ValueError(f"feedforward_modules: expected some of target_modules, got {', '.join(lost)} too")

    def layer(self, module: Any, path: str) -> IA3Linear:
        """See `TargetConfig.layer`."""
        return IA3Linear(module, path)

    def default_targets(self, kind: str) -> list[str]:
        """See `TargetConfig.default_targets`."""
        if kind not in IA3_TARGETS:
            raise without_default(kind, IA3_TARGETS)
        return list(IA3_TARGETS[kind][0])

    def prepared(self, model: Any) -> Self:
        """See `PeftConfig.prepared`."""
        done = super().prepared(model)
        if done.feedforward_modules is None:
            done.feedforward_modules = [] if self.target_modules else list(IA3_TARGETS[model_type(model)][1])
        return done


class IA3Linear(AdapterLayer):
    """A linear map with what scales its outputs or inputs: `ia3_l` by the adapters' names, (out, 1) or (1, in)."""

    ia3_l: Any

    def __init__(self, base_layer: nn.Module, path: str):
        super().__init__(base_layer, path)
        self.ia3_l = nn.Module()  # its parameters are the vectors
        self.is_feedforward = False

    def names(self) -> list[str]:
        """The names of the adapters."""
        return list(self.ia3_l._parameters)

    def own(self, adapter: str) -> list[Any]:
        """The parameters of an adapter."""
        return [self.vector(adapter)]

    def vector(self, adapter: str) -> Any:
        """What an adapter multiplies by, (out, 1) or (1, in)."""
        return self.ia3_l.get_parameter(adapter)

    def add(self, adapter: str, config: IA3Config, path: str, model: Any) -> None:
        """Add an adapter with starting values."""
        inputs = matches(config.feedforward_modules, (path, file_name(path, model_type(model))))
        if self.names() and inputs != self.is_feedforward:
            there = "inputs" if self.is_feedforward else "outputs"
            raise ValueError(f"feedforward_modules: in another adapter {path} scales its {there}; expected the same")
        self.is_feedforward = inputs
        shape = (1, self.in_features) if inputs else (self.out_features, 1)
        dtype = self.weight.dtype
        start = bpnn.ones(shape, dtype=dtype) if config.init_ia3_weights else bpnn.randn(shape, dtype=dtype)
        self.ia3_l.register_parameter(adapter, nn.Parameter(start))

    def remove(self, adapter: str) -> None:
        """Remove an adapter, if it is there."""
        self.ia3_l._parameters.pop(adapter, None)

    def adapt(self, x: Any, adapters: Sequence[str]) -> Any:
        """The map with some adapters, whose numbers are multiplied."""
        scale = self.vector(adapters[0]).flatten()
        for name in adapters[1:]:
            scale = scale * self.vector(name).flatten()
        return self.base_layer(x * scale) if self.is_feedforward else self.base_layer(x) * scale

    def merge(self, adapters: Sequence[str]) -> None:
        """See `AdapterLayer.merge`. Raises `ZeroDivisionError` where a number is 0: its work could not be undone."""
        for name in adapters:
            if name in self.names() and not self.vector(name).detach().numpy().all():
                raise ZeroDivisionError(f"adapter_names: {name} scales features of {self.path} by 0; that could not be undone")
        super().merge(adapters)

    @bpnn.no_grad()
    def change(self, adapter: str, sign: int) -> None:
        """See `AdapterLayer.change`."""
        scale = self.vector(adapter).detach().numpy().reshape(-1)
        scale = scale if sign > 0 else 1 / scale
        columns = self.is_feedforward != self.transposed  # of the weight as it lies
        self.weight.detach().mul_(bpnn.from_numpy(np.ascontiguousarray(scale if columns else scale[:, None])))
        if not self.is_feedforward and self.bias is not None:
            self.bias.detach().mul_(bpnn.from_numpy(np.ascontiguousarray(scale)))
