"""VGG: blocks of 3 × 3 convolutions and a large classifier. Simonyan and Zisserman 2014."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bpnn import nn

from ._parts import Weights, he_normal, loaded, small_normal

__all__ = ["VGG", "vgg11", "vgg16"]

# Channels of the convolutions, block by block; every block ends with a 2 × 2 max-pooling.
VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """(N, in_channels, H, W), H and W at least 32, trained at 224, to (N, num_classes). `blocks`: as `VGG11` and `VGG16`."""

    def __init__(
        self, blocks: Sequence[Sequence[int]], num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5,
        *, in_channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[Any] = []
        channels = in_channels
        for block in blocks:
            for out in block:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
                channels = out
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(channels * 7 * 7, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )  # fmt: skip
        if init_weights:
            he_normal(self)
            for layer in (self.classifier[0], self.classifier[3], self.classifier[6]):
                small_normal(layer)

    def forward(self, x: Any) -> Any:
        """The logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg11(*, weights: Weights = None, **options: Any) -> VGG:
    """VGG of 11 layers, 132,863,336 parameters for 1000 classes. `weights`: a safetensors file; `options` go to `VGG`."""
    return loaded(VGG(VGG11, **options), weights)  # type: ignore[no-any-return]


def vgg16(*, weights: Weights = None, **options: Any) -> VGG:
    """VGG of 16 layers, 138,357,544 parameters for 1000 classes. `weights`: a safetensors file; `options` go to `VGG`."""
    return loaded(VGG(VGG16, **options), weights)  # type: ignore[no-any-return]
