"""LeNet-5. LeCun, Bottou, Bengio and Haffner 1998, with relu, max-pooling and full connections, as it is built today."""
from __future__ import annotations

from typing import Any

from bpnn import nn
from bpnn.nn import functional as F

from ._parts import Weights, loaded

__all__ = ["LeNet5", "lenet5"]


class LeNet5(nn.Module):
    """(N, in_channels, 28, 28) to (N, num_classes): 6 and 16 channels, each pooled, then 120, 84 and the classes."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Any) -> Any:
        """The logits."""
        x = F.max_pool2d(self.conv1(x, activation="relu"), 2)
        x = F.max_pool2d(self.conv2(x, activation="relu"), 2)
        x = self.fc1(x.flatten(1), activation="relu")
        return self.fc3(self.fc2(x, activation="relu"))


def lenet5(*, weights: Weights = None, **options: Any) -> LeNet5:
    """LeNet-5, 61,706 parameters. `weights`: a safetensors file; `options` go to `LeNet5`."""
    return loaded(LeNet5(**options), weights)  # type: ignore[no-any-return]
