"""What the architectures share: a convolution with its normalization in one go, starting values, files of weights."""
from __future__ import annotations

import os
from typing import Any

from bpnn import nn
from bpnn.nn import init
from bpnn.nn.utils.fusion import FoldedNorm

Weights = str | os.PathLike[str] | None


def conv_norm(conv: Any, norm: Any, x: Any, activation: str | None = None, residual: Any = None) -> Any:
    """`activation(norm(conv(x)) + residual)`; what follows the convolution is one node, or a part of it where `norm` is folded."""
    if activation == "relu" and residual is None and type(norm) is FoldedNorm:
        return conv(x, activation="relu")
    return norm(conv(x), activation=activation, residual=residual)


def he_normal(model: Any) -> None:
    """Convolutions normal of deviation sqrt(2 / fan_out), their biases 0 (He et al. 2015), as torchvision starts them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)


def small_normal(module: Any) -> None:
    """A linear layer normal of deviation 0.01, its bias 0."""
    init.normal_(module.weight, 0.0, 0.01)
    init.zeros_(module.bias)


def loaded(model: Any, weights: Weights) -> Any:
    """`model` with the weights of a safetensors file, every name and shape of which must fit; None: as it is."""
    if weights is not None:
        import bpnn

        model.load_state_dict(bpnn.load(weights))
    return model
