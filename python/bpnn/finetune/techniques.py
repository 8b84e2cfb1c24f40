"""Settings to callbacks: what changes the loss, the batch or the weights during training."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["technique_callbacks", "wrap_training_data"]


def technique_callbacks(ready: Any, optimizer: Any) -> list[Any]:
    """The callbacks that the settings ask for, in the order in which they must act."""
    s = ready.settings
    found: list[Any] = []
    if s.method == "gradual":
        from .freeze import GradualUnfreezing

        found.append(GradualUnfreezing(s.layers_per_epoch))
    return found


def wrap_training_data(settings: Any, task: Any, examples: Sequence[Any], dataset: Any) -> Any:
    """The training examples as they are read in training."""
    return dataset
