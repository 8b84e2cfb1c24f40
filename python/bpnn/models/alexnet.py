"""AlexNet, the form of Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014."""
from __future__ import annotations

from typing import Any

from bpnn import nn

from ._parts import Weights, loaded

__all__ = ["AlexNet", "alexnet"]


class AlexNet(nn.Module):
    """(N, in_channels, H, W), H and W at least 63, trained at 224, to (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        """The logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet(*, weights: Weights = None, **options: Any) -> AlexNet:
    """AlexNet, 61,100,840 parameters for 1000 classes. `weights`: a safetensors file; `options` go to `AlexNet`."""
    return loaded(AlexNet(**options), weights)  # type: ignore[no-any-return]
