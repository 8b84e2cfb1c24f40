"""MobileNetV2: inverted residuals of depthwise convolutions. Sandler et al. 2018."""
from __future__ import annotations

from typing import Any

from bpnn import nn

from ._parts import Weights, conv_norm, he_normal, loaded, small_normal

__all__ = ["MobileNetV2", "mobilenet_v2"]

# Expansion, channels, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _divisible(value: float, divisor: int = 8) -> int:
    """`value` to the nearest multiple of `divisor`, at least one and not less than nine tenths of it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class ConvNormActivation(nn.Sequential):
    """Convolution, batch-norm, relu6: children "0", "1", "2" as in torchvision, computed as two nodes."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )

    def forward(self, input: Any) -> Any:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        conv, norm, _ = self
        return conv_norm(conv, norm, input, "relu6")


class InvertedResidual(nn.Module):
    """1 × 1 to `expansion` times the channels, depthwise 3 × 3, 1 × 1 back without an activation; added to x where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [ConvNormActivation(inputs, hidden, 1)] if expansion != 1 else []
        layers.append(ConvNormActivation(hidden, hidden, 3, stride, groups=hidden))
        self.conv = nn.Sequential(*layers, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        *layers, conv, norm = self.conv
        y = x
        for layer in layers:
            y = layer(y)
        return conv_norm(conv, norm, y, None, x if self.shortcut else None)


class MobileNetV2(nn.Module):
    """(N, in_channels, H, W), trained at 224, to (N, num_classes). `width_mult` scales the channels."""

    def __init__(
        self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2, *, in_channels: int = 3
    ) -> None:
        super().__init__()
        channels = _divisible(32 * width_mult)
        layers: list[Any] = [ConvNormActivation(in_channels, channels, stride=2)]
        for expansion, width, count, stride in STAGES:
            outputs = _divisible(width * width_mult)
            for i in range(count):
                layers.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        last = _divisible(1280 * max(1.0, width_mult))
        self.features = nn.Sequential(*layers, ConvNormActivation(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        he_normal(self)
        small_normal(self.classifier[1])

    def forward(self, x: Any) -> Any:
        """The logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def mobilenet_v2(*, weights: Weights = None, **options: Any) -> MobileNetV2:
    """MobileNetV2, 3,504,872 parameters for 1000 classes. `weights`: a safetensors file; `options` go to `MobileNetV2`."""
    return loaded(MobileNetV2(**options), weights)  # type: ignore[no-any-return]
