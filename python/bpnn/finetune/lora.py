"""LoRA: a frozen linear map with a trained change of low rank beside it (Hu et al. 2021); rsLoRA, DoRA.

    y = x W^T + b + s u A^T B^T            u = dropout(x), A: (r, in), B: (out, r), s = alpha / r
    s = alpha / sqrt(r)                    rsLoRA (Kalajdzievski 2023)
    y = m / n (x W^T + s x A^T B^T) + b    DoRA (Liu et al. 2024), n = the lengths of the rows of W + s B A, a constant in backward

A is drawn as the weight of a linear map, B is 0 at first: the model begins as it was.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

import bpnn
from bpcore.stored import StoredMatrix
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.nn import init

from ._adapter_config import TargetConfig, without_default
from ._layers import AdapterLayer
from ._targets import LORA_TARGETS, file_name, model_type, pattern_value

__all__ = ["LoraConfig", "LoraLinear"]


@dataclass(kw_only=True)
class LoraConfig(TargetConfig):
    """PEFT's `LoraConfig`.

    r: rank. lora_alpha: of the scale alpha / r, or alpha / sqrt(r) with `use_rslora`. lora_dropout: of what A sees. bias: biases
    that are trained too: "none", "all", or "lora_only", those of the adapted maps. use_dora: see the head of `lora.py`.
    init_lora_weights: True; "gaussian": A normal of deviation 1 / r; False: A and B both as weights of linear maps, for tests.
    layers_to_transform: numbers of the layers that get adapters, counted where `layers_pattern` says ("layers", "h"); None: all.
    rank_pattern, alpha_pattern: {end of a name, or regular expression: value} where a module has another than `r`, `lora_alpha`.
    The rest: see `TargetConfig` and `PeftConfig`. Raises `ValueError` naming what does not fit.
    """

    peft_type = "LORA"

    r: int = 8
    lora_alpha: int | float = 8
    lora_dropout: float = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, Any] = field(default_factory=dict)
    alpha_pattern: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, r in {"r": self.r, **{f"rank_pattern: {key}": r for key, r in self.rank_pattern.items()}}.items():
            if isinstance(r, bool) or not isinstance(r, int) or r < 1:
                raise ValueError(f"{name}: expected a whole number above 0, got {r!r}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout: expected a probability from 0 to below 1, got {self.lora_dropout}")
        if self.bias not in ("none", "all", "lora_only"):
            raise ValueError(f"bias: expected 'none', 'all' or 'lora_only', got {self.bias!r}")
        if not isinstance(self.init_lora_weights, bool) and self.init_lora_weights != "gaussian":
            raise ValueError(f"init_lora_weights: expected True, False or 'gaussian', got {self.init_lora_weights!r}")
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ValueError("layers_to_transform: expected None where target_modules is a string, which says which layers itself")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("layers_pattern: expected None without layers_to_transform")

    def layer(self, module: Any, path: str) -> LoraLinear:
        """See `TargetConfig.layer`."""
        return LoraLinear(module, path)

    def default_targets(self, kind: str) -> list[str]:
        """See `TargetConfig.default_targets`."""
        if kind not in LORA_TARGETS:
            raise without_default(kind, LORA_TARGETS)
        return list(LORA_TARGETS[kind])

    def sizes(self, path: str, kind: str) -> tuple[int, float]:
        """Rank and alpha of a module of an architecture."""
        names = path, file_name(path, kind)
        return pattern_value(self.rank_pattern, names, self.r), pattern_value(self.alpha_pattern, names, self.lora_alpha)


class Magnitude(nn.Module):
    """DoRA's lengths of the rows of the weight, (out,)."""

    def __init__(self, lengths: Any):
        super().__init__()
        self.weight = nn.Parameter(lengths)


class LoraLinear(AdapterLayer):
    """A linear map with LoRA beside it: `lora_A`, `lora_B`, `lora_magnitude_vector` (DoRA) by the adapters' names."""

    lora_A: Any
    lora_B: Any
    lora_magnitude_vector: Any

    def __init__(self, base_layer: nn.Module, path: str):
        super().__init__(base_layer, path)
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.lora_magnitude_vector = nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.lora_dropout: dict[str, float] = {}
        self._squares: tuple[Any, Any] = (None, None)  # which weight it was, and the squared lengths of its rows
        self._stretch: Any = None  # what DoRA multiplied the merged weight by

    def names(self) -> list[str]:
        """The names of the adapters."""
        return list(self.scaling)

    def own(self, adapter: str) -> list[Any]:
        """The parameters of an adapter."""
        parts = self.lora_A, self.lora_B, self.lora_magnitude_vector
        return [part[adapter].weight for part in parts if adapter in part]

    def add(self, adapter: str, config: LoraConfig, path: str, model: Any) -> None:
        """Add an adapter with starting values."""
        r, alpha = config.sizes(path, model_type(model))
        dtype = self.weight.dtype
        self.lora_A[adapter] = nn.Linear(self.in_features, r, bias=False, dtype=dtype)
        with init.skip_init():
            self.lora_B[adapter] = nn.Linear(r, self.out_features, bias=False, dtype=dtype)
        if config.init_lora_weights == "gaussian":
            init.normal_(self.lora_A[adapter].weight, 0.0, 1 / r)
        if config.init_lora_weights is False:
            self.lora_B[adapter].reset_parameters()
        else:
            init.zeros_(self.lora_B[adapter].weight)
        self.scaling[adapter] = alpha / math.sqrt(r) if config.use_rslora else alpha / r
        self.lora_dropout[adapter] = config.lora_dropout
        if config.use_dora:
            lengths = np.zeros(self.out_features, dtype) if config.from_file else self._lengths(adapter)
            self.lora_magnitude_vector[adapter] = Magnitude(bpnn.from_numpy(lengths))

    def remove(self, adapter: str) -> None:
        """Remove an adapter, if it is there."""
        for part in (self.lora_A, self.lora_B, self.lora_magnitude_vector):
            if adapter in part:
                del part[adapter]
        self.scaling.pop(adapter, None)
        self.lora_dropout.pop(adapter, None)

    # --- forward -----------------------------------------------------------------------------------------------------------

    def adapt(self, x: Any, adapters: Sequence[str]) -> Any:
        """The map with some adapters; what they change adds up."""
        first, *others = adapters
        if first in self.lora_magnitude_vector:
            y = self._dora(x, first)
        else:
            u = self._dropped(x, first)
            if u is not None and getattr(self.weight, "requires_grad", False):  # a base that is trained, too
                y = self.base_layer(x) + self._low_rank(u, first)
            else:
                a, b = self.lora_A[first].weight, self.lora_B[first].weight
                y = F.lora_linear(x, self.weight, self.bias, a, b, self.scaling[first], u, transposed=self.transposed)
        for name in others:
            if name in self.lora_magnitude_vector:
                y = y + self._dora(x, name) - self.base_layer(x)
            else:
                u = self._dropped(x, name)
                y = y + self._low_rank(x if u is None else u, name)
        return y

    def _low_rank(self, u: Any, adapter: str) -> Any:
        """s u A^T B^T."""
        low: Any = F.linear(u, self.lora_A[adapter].weight)
        return F.linear(low * self.scaling[adapter], self.lora_B[adapter].weight)

    def _dropped(self, x: Any, adapter: str) -> Any:
        """What A sees: x with some of it dropped out; None: x itself."""
        p = self.lora_dropout[adapter]
        return F.dropout(x, p) if p > 0 and self.training else None

    def _dora(self, x: Any, adapter: str) -> Any:
        a, b, scale = self.lora_A[adapter].weight, self.lora_B[adapter].weight, self.scaling[adapter]
        stretch = self.lora_magnitude_vector[adapter].weight / bpnn.from_numpy(self._lengths(adapter))
        dropped = self._dropped(x, adapter)
        if dropped is None:
            y = F.lora_linear(x, self.weight, None, a, b, scale, transposed=self.transposed) * stretch
            return y if self.bias is None else y + self.bias
        # As PEFT has it: what is not stretched sees x, the rest what is left of it.
        both = F.lora_linear(dropped, self.weight, None, a, b, scale, transposed=self.transposed)
        return self.base_layer(x) + both * stretch - self._plain(dropped)

    def _plain(self, x: Any) -> Any:
        """x W^T, without the bias."""
        return F.linear(x, self.weight, transposed=self.transposed)

    @bpnn.no_grad()
    def _lengths(self, adapter: str) -> np.ndarray:
        """The lengths of the rows of W + s B A, (out,), without that sum: |w + s A^T b|^2 = |w|^2 + 2 s w A^T b + s^2 b A A^T b."""
        a, low = (part[adapter].weight.detach() for part in (self.lora_A, self.lora_B))
        crossed = self._plain(a).numpy().T  # W A^T, (out, r)
        a, low, scale = a.numpy(), low.numpy(), self.scaling[adapter]
        inner = a @ a.T
        change = 2 * scale * crossed + scale * scale * (low @ inner)
        return np.sqrt(np.maximum(self._rows() + np.einsum("nr,nr->n", change, low), 0))  # type: ignore[no-any-return]

    def _rows(self) -> np.ndarray:
        """The squared lengths of the rows of W, (out,); computed again when W has changed."""
        weight, stored = self.weight, isinstance(self.weight, StoredMatrix)
        state = (id(weight),) if stored else (id(weight), weight._version, weight.dtype)
        if self._squares[0] != state:
            array = weight.dense() if stored else weight.detach().numpy()
            self._squares = state, np.einsum("kn,kn->n" if self.transposed else "nk,nk->n", array, array)
        return self._squares[1]  # type: ignore[no-any-return]

    # --- merging -----------------------------------------------------------------------------------------------------------

    @bpnn.no_grad()
    def delta(self, adapter: str) -> np.ndarray:
        """s B A as the weight lies: (out, in), or (in, out)."""
        low, high = (part[adapter].weight.detach().numpy() for part in (self.lora_A, self.lora_B))
        change = self.scaling[adapter] * (high @ low)
        return change.T if self.transposed else change  # type: ignore[no-any-return]

    def merge(self, adapters: Sequence[str]) -> None:
        """See `AdapterLayer.merge`. Raises `ValueError` for several adapters with DoRA among them, which cannot be told apart."""
        names = [name for name in dict.fromkeys([*self.merged, *adapters]) if name in self.scaling]
        if len(names) > 1 and any(name in self.lora_magnitude_vector for name in names):
            raise ValueError(f"adapter_names: expected one adapter where DoRA is merged, got {', '.join(names)}")
        super().merge(adapters)

    @bpnn.no_grad()
    def change(self, adapter: str, sign: int) -> None:
        """See `AdapterLayer.change`."""
        weight, delta = self.weight.detach(), bpnn.from_numpy(np.ascontiguousarray(self.delta(adapter)))
        if adapter not in self.lora_magnitude_vector:
            weight.add_(delta, alpha=sign)
        elif sign > 0:
            stretch = self.lora_magnitude_vector[adapter].weight.detach().numpy() / self._lengths(adapter)
            self._stretch = bpnn.from_numpy(stretch if self.transposed else stretch[:, None])
            weight.add_(delta).mul_(self._stretch)
        else:
            weight.div_(self._stretch).sub_(delta)
