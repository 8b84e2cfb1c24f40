"""Stochastic depth: in training, the change that a part of a layer makes is left out at random (Huang et al. 2016).

    drop_path(model, 0.1)                        # of BERT, RoBERTa, DistilBERT, GPT-2, LLaMA and kin, ViT, the Transformer
    Trainer(…, callbacks=[DropPath(0.1)])        # the same while `fit` runs
    nn.Sequential(block, StochasticDepth(0.2, "row"))

A part adds f(x) to its input x. With probability p that is left out, else it is f(x) / (1 - p), so that its mean stays. What is
left out is computed all the same.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.models._decoder import Reading
from bpnn.models._packing import Layout
from bpnn.models._transformer_layers import TransformerDecoderLayer, TransformerEncoderLayer
from bpnn.models.bert import BertLayer
from bpnn.models.distilbert import TransformerBlock
from bpnn.models.gpt2 import GPT2Block
from bpnn.models.llama import LlamaDecoderLayer
from bpnn.models.vit import ViTLayer
from bpnn.train.callbacks import Callback

from ._structure import layers_of

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["DropPath", "StochasticDepth", "drop_path", "stochastic_depth"]

MODES = ("row", "batch")


def stochastic_depth(input: Any, p: float, mode: str, training: bool = True) -> Any:
    """`input` with probability `1 - p`, divided by it, else zeros. The semantics are those of torchvision's function.

    mode: "row": each of the examples of (B, …) for itself; "batch": all together. Out of training the input itself. Raises
    `ValueError` for a p outside [0, 1] and for another mode.
    """
    _check(p, mode)
    if not training or p == 0:
        return input
    count = input.shape[0] if mode == "row" else 1
    return input * bpnn.from_numpy(_drawn(count, p, input.dtype).reshape(count, *[1] * (input.ndim - 1)))


def _check(p: float, mode: str) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability between 0 and 1, got {p}")
    if mode not in MODES:
        raise ValueError(f"mode: expected 'row' or 'batch', got {mode!r}")


def _drawn(count: int, p: float, dtype: Any) -> np.ndarray:
    """1 / (1 - p) with probability 1 - p, else 0."""
    kept: np.ndarray = bpnn.rand(count).numpy() >= p
    return (kept / (1 - p) if p < 1 else np.zeros(count)).astype(dtype)


class StochasticDepth(nn.Module):
    """See `stochastic_depth`."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        _check(p, mode)
        self.p, self.mode = p, mode

    def forward(self, input: Any) -> Any:
        """The input or zeros, by example."""
        return stochastic_depth(input, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"p={self.p}, mode={self.mode}"


# --- in models that are there ----------------------------------------------------------------------------------------------------


class Handles:
    """The hooks of `drop_path`; `remove()` takes them away."""

    def __init__(self) -> None:
        self.hooks: list[Any] = []

    def remove(self) -> None:
        """Back to layers that are never left out."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []


def drop_path(model: nn.Module, rate: float, mode: str = "row") -> Handles:
    """Leave out attention and feed-forward maps of the layers in training, the higher the more: layer l of L with p = rate l / L.

    Of each text or image for itself, or with mode "batch" of all together; packed rows of a text stay together. Each part of a
    layer draws its own numbers from bpnn's generator. Where a norm follows the sum, as in BERT, what is left out is the map before
    the sum. Returns what takes it back (`remove()`). Raises `ValueError` for a rate outside [0, 1) and for a model of other layers.
    """
    _check(rate, mode)
    if rate == 1:
        raise ValueError("rate: expected a probability below 1, got 1")
    layers = layers_of(model)
    handles = Handles()
    stacks: dict[str, list[nn.Module]] = {}
    for name, layer in layers:
        stacks.setdefault(name.rpartition(".")[0], []).append(layer)
    for stack in stacks.values():
        for number, layer in enumerate(stack, 1):
            rows = _Rows(rate * number / len(stack), mode)
            parts = _parts(layer)
            handles.hooks.append(layer.register_forward_pre_hook(rows.entered))
            handles.hooks += [part.register_forward_hook(rows.left) for part in parts]
    if not handles.hooks:
        raise ValueError(f"model: expected a pretrained model with layers, got {type(model).__name__}")
    return handles


def _parts(layer: Any) -> Sequence[nn.Module]:
    """The modules of a layer whose outputs are what is added to the stream."""
    if isinstance(layer, BertLayer):
        return layer.attention.output.dropout, layer.output.dropout
    if isinstance(layer, TransformerBlock):
        return layer.attention, layer.ffn
    if isinstance(layer, GPT2Block):
        return layer.attn, layer.mlp
    if isinstance(layer, LlamaDecoderLayer):
        return layer.self_attn, layer.mlp
    if isinstance(layer, ViTLayer):
        return layer.attention.output, layer.output
    if isinstance(layer, (TransformerEncoderLayer, TransformerDecoderLayer)):
        return (layer.dropout,)  # of all its parts
    raise ValueError(f"model: expected layers that drop_path knows, got {type(layer).__name__}")


class _Rows:
    """The hooks of one layer: whose rows it gets, and what of its parts is left out."""

    def __init__(self, p: float, mode: str) -> None:
        self.p, self.mode = p, mode
        self.starts: np.ndarray | None = None  # of texts that lie one after the other

    def entered(self, layer: Any, args: tuple[Any, ...]) -> None:
        """Before the layer."""
        self.starts = None
        for given in args:
            found = given.cu_seqlens if isinstance(given, (Layout, Reading)) else given if isinstance(given, np.ndarray) else None
            if found is not None:
                self.starts = found
                break

    def left(self, part: Any, args: tuple[Any, ...], output: Any) -> Any:
        """After one of its parts."""
        if not part.training or self.p == 0:
            return None
        if self.mode == "batch":
            return stochastic_depth(output, self.p, "batch")
        starts = self.starts
        if starts is None:
            return stochastic_depth(output, self.p, "row")
        noise = _drawn(len(starts) - 1, self.p, output.dtype)
        if np.prod(output.shape[:-1]) == starts[-1]:  # else there is one row for each text: its first token
            noise = np.repeat(noise, np.diff(starts))
        return output * bpnn.from_numpy(noise.reshape(*output.shape[:-1], 1))


class DropPath(Callback):
    """`drop_path` while `fit` runs; see there. Drawn anew in every step, so a resumed run goes on with the same bits."""

    def __init__(self, rate: float, mode: str = "row") -> None:
        _check(rate, mode)
        self.rate, self.mode = rate, mode
        self._handles = Handles()

    def on_fit_start(self, trainer: Trainer) -> None:
        self._handles = drop_path(trainer.model, self.rate, self.mode)

    def on_fit_exit(self, trainer: Trainer) -> None:
        self._handles.remove()
