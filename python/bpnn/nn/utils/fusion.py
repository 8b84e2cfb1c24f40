"""Batch-norm folded into the convolution before it, for inference."""
from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np

from bpnn.nn.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from bpnn.nn.modules.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from bpnn.nn.modules.linear import Identity
from bpnn.nn.parameter import Parameter

from bpcore.tensor import from_array

__all__ = ["FoldedNorm", "fuse_conv_bn", "fuse_conv_bn_eval", "fuse_conv_bn_weights"]

CONVOLUTIONS = (Conv1d, Conv2d, Conv3d)
TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


class FoldedNorm(Identity):
    """In the place of a batch-norm that was folded: `activation(input + residual)`, what the batch-norm's node does after it."""

    def forward(self, input: Any, *, activation: str | None = None, residual: Any = None) -> Any:
        """The input with the residual added and the activation ("relu", "relu6" or None) applied."""
        if residual is not None:
            input = input + residual
        if activation is None:
            return input
        from bpnn.nn import functional as F

        if activation not in ("relu", "relu6"):
            raise ValueError(f"activation: expected None, 'relu' or 'relu6', got {activation!r}")
        return F.relu(input) if activation == "relu" else F.relu6(input)


def fuse_conv_bn_weights(
    conv_w: Any, conv_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any, transpose: bool = False
) -> tuple[Parameter, Parameter]:
    """The weight and bias of the convolution that is `conv` and then batch-norm.

    With scale = bn_w / sqrt(bn_rv + eps): weight = conv_w · scale, bias = (conv_b - bn_rm) · scale + bn_b, computed in float64 and
    rounded once. bn_w, bn_b and conv_b may be None. transpose: the outputs are along axis 1 of conv_w (one group).
    """
    kind = conv_w.dtype
    weight, mean, variance = (t.detach().numpy().astype(np.float64) for t in (conv_w, bn_rm, bn_rv))
    zero = np.zeros_like(mean)
    bias, shift = (zero if t is None else t.detach().numpy().astype(np.float64) for t in (conv_b, bn_b))
    scale = 1 / np.sqrt(variance + bn_eps)
    if bn_w is not None:
        scale = scale * bn_w.detach().numpy()
    axes = (1, -1) if transpose else (-1, 1)
    weight = weight * scale.reshape(*axes, *(1,) * (weight.ndim - 2))
    return tuple(  # type: ignore[return-value]
        Parameter(from_array(np.ascontiguousarray(array.astype(kind))), requires_grad=old is None or old.requires_grad)
        for array, old in ((weight, conv_w), ((bias - mean) * scale + shift, conv_b))
    )


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of `conv` that does what `conv` and then `bn`, both in evaluation mode, do."""
    for name, module in (("conv", conv), ("bn", bn)):
        if module.training:
            raise ValueError(f"{name}: expected a module in evaluation mode; call eval() first")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("bn: expected running statistics (track_running_stats=True)")
    if transpose and conv.groups != 1:
        raise ValueError(f"conv: expected one group where it is transposed, got {conv.groups}")
    fused = copy.deepcopy(conv)
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose
    )
    fused.weight, fused.bias = weight, bias
    return fused


def fuse_conv_bn(model: Any) -> Any:
    """A copy of `model` for inference in which every batch-norm that follows a convolution is folded into it.

    A pair is a convolution and the batch-norm registered right after it in the same module (`conv1`, `bn1`; neighbors in a
    `Sequential`), of as many features as the convolution has outputs. Forward must use them one after the other; modules that
    stand in several places are left alone. In the place of a folded batch-norm stands a `FoldedNorm`, so the forward of the model
    stays as it is and the names of the convolutions too. The model must be in evaluation mode.

    >>> import bpnn
    >>> from bpnn import nn
    >>> from bpnn.nn.utils import fuse_conv_bn
    >>> fuse_conv_bn(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval())[1]
    FoldedNorm()
    """
    if model.training:
        raise ValueError("model: expected a model in evaluation mode; call eval() first")
    model = copy.deepcopy(model)
    places: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        places[id(module)] = places.get(id(module), 0) + 1
    for module in list(model.modules()):
        children = list(module._modules.items())
        for (name, conv), (next_name, norm) in itertools.pairwise(children):
            if not _fits(conv, norm) or places[id(conv)] > 1 or places[id(norm)] > 1:
                continue
            module._modules[name] = fuse_conv_bn_eval(conv, norm, isinstance(conv, TRANSPOSED))
            module._modules[next_name] = FoldedNorm().eval()
    return model


def _fits(conv: Any, norm: Any) -> bool:
    if not isinstance(norm, NORMS) or not isinstance(conv, CONVOLUTIONS + TRANSPOSED):
        return False
    if isinstance(conv, TRANSPOSED) and conv.groups != 1:
        return False
    return bool(conv.out_channels == norm.num_features and norm.running_mean is not None)
