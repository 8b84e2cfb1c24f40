"""Residual networks. He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2015.

For pictures of 224: resnet18, resnet34, resnet50. For small ones, as the paper has it for CIFAR-10: resnet20.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpnn
from bpnn import nn
from bpnn.nn import init

from ._parts import Weights, conv_norm, he_normal, loaded

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "SmallResNet", "resnet18", "resnet20", "resnet34", "resnet50"]


def _conv3(inputs: int, outputs: int, stride: int = 1) -> Any:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _projection(inputs: int, outputs: int, stride: int) -> Any:
    """The shortcut where shapes differ: a 1 × 1 convolution (the paper's option B)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class Subsample(nn.Module):
    """The shortcut without parameters: every second place, zeros for the new channels (the paper's option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = outputs - inputs, stride

    def forward(self, x: Any) -> Any:
        """(N, C, H, W) to (N, C + more, H / stride, W / stride), the channels in the middle."""
        x = x[:, :, :: self.stride, :: self.stride]
        n, _, h, w = x.shape
        before = bpnn.zeros(n, self.more // 2, h, w, dtype=x.dtype)
        after = bpnn.zeros(n, self.more - self.more // 2, h, w, dtype=x.dtype)
        return bpnn.cat([before, x, after], 1)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and the shortcut: `relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(inplanes, planes, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv3(planes, planes), nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        """(N, inplanes, H, W) to (N, planes, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_norm(self.conv1, self.bn1, x, "relu")
        return conv_norm(self.conv2, self.bn2, y, "relu", shortcut)


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 (which strides, as in torchvision) and 1 × 1 to four times the channels, and the shortcut."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv3(planes, planes, stride), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        """(N, inplanes, H, W) to (N, 4 planes, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_norm(self.conv1, self.bn1, x, "relu")
        y = conv_norm(self.conv2, self.bn2, y, "relu")
        return conv_norm(self.conv3, self.bn3, y, "relu", shortcut)


def _layer(block: Any, inputs: int, planes: int, count: int, stride: int, shortcut: Any) -> Any:
    """`count` blocks, the first of which strides."""
    outputs = planes * block.expansion
    change = shortcut(inputs, outputs, stride) if stride != 1 or inputs != outputs else None
    return nn.Sequential(block(inputs, planes, stride, change), *(block(outputs, planes) for _ in range(count - 1)))


def _start(model: Any, zero_init_residual: bool) -> None:
    he_normal(model)
    if zero_init_residual:  # every block is its shortcut at first: Goyal et al. 2017
        for module in model.modules():
            if isinstance(module, (BasicBlock, Bottleneck)):
                init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)


class ResNet(nn.Module):
    """(N, in_channels, H, W), trained at 224, to (N, num_classes). `layers`: blocks in each of the four stages."""

    def __init__(
        self, block: Any, layers: Sequence[int], num_classes: int = 1000, zero_init_residual: bool = False, *, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        e = block.expansion
        self.layer1 = _layer(block, 64, 64, layers[0], 1, _projection)
        self.layer2 = _layer(block, 64 * e, 128, layers[1], 2, _projection)
        self.layer3 = _layer(block, 128 * e, 256, layers[2], 2, _projection)
        self.layer4 = _layer(block, 256 * e, 512, layers[3], 2, _projection)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * e, num_classes)
        _start(self, zero_init_residual)

    def forward(self, x: Any) -> Any:
        """The logits."""
        x = self.maxpool(conv_norm(self.conv1, self.bn1, x, "relu"))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class SmallResNet(nn.Module):
    """The paper's networks for 32 × 32: stages of 16, 32 and 64 channels of `n` blocks each, 6 n + 2 layers.

    (N, in_channels, H, W), H and W at least 4, to (N, num_classes). shortcut: "A" (no parameters, the paper's choice for CIFAR-10)
    or "B" (1 × 1 convolutions), where a stage begins.
    """

    def __init__(
        self, n: int, num_classes: int = 10, shortcut: str = "A", zero_init_residual: bool = False, *, in_channels: int = 3
    ) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut: expected 'A' or 'B', got {shortcut!r}")
        change = Subsample if shortcut == "A" else _projection
        self.conv1, self.bn1 = _conv3(in_channels, 16), nn.BatchNorm2d(16)
        self.layer1 = _layer(BasicBlock, 16, 16, n, 1, change)
        self.layer2 = _layer(BasicBlock, 16, 32, n, 2, change)
        self.layer3 = _layer(BasicBlock, 32, 64, n, 2, change)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, num_classes)
        _start(self, zero_init_residual)

    def forward(self, x: Any) -> Any:
        """The logits."""
        x = conv_norm(self.conv1, self.bn1, x, "relu")
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(*, weights: Weights = None, **options: Any) -> ResNet:
    """ResNet of 18 layers, 11,689,512 parameters for 1000 classes. `weights`: a safetensors file; `options` go to `ResNet`."""
    return loaded(ResNet(BasicBlock, (2, 2, 2, 2), **options), weights)  # type: ignore[no-any-return]


def resnet34(*, weights: Weights = None, **options: Any) -> ResNet:
    """ResNet of 34 layers, 21,797,672 parameters for 1000 classes. `weights`: a safetensors file; `options` go to `ResNet`."""
    return loaded(ResNet(BasicBlock, (3, 4, 6, 3), **options), weights)  # type: ignore[no-any-return]


def resnet50(*, weights: Weights = None, **options: Any) -> ResNet:
    """ResNet of 50 layers, 25,557,032 parameters for 1000 classes. `weights`: a safetensors file; `options` go to `ResNet`."""
    return loaded(ResNet(Bottleneck, (3, 4, 6, 3), **options), weights)  # type: ignore[no-any-return]


def resnet20(*, weights: Weights = None, **options: Any) -> SmallResNet:
    """ResNet of 20 layers for small pictures, 269,722 parameters. `weights`: a safetensors file; `options` go to `SmallResNet`."""
    return loaded(SmallResNet(3, **options), weights)  # type: ignore[no-any-return]
