"""Learning without forgetting: the old model's answers on the new data hold on to what it knew.

    lwf = LwF(copy.deepcopy(model), temperature=2.0, weight=1.0)
    Trainer(model, optimizer, nn.CrossEntropyLoss(), callbacks=[lwf]).fit(new_loader, epochs=3)
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpnn
from bpnn.train import Callback
from bpnn.train.batches import prediction_of, split_batch

from .distill import _counted, distillation_loss

__all__ = ["LwF"]


class LwF(Callback):
    """Learning without forgetting: on the new data the model goes on saying what it said before. Li and Hoiem 2016.

        loss + weight T² KL(softmax(old / T) || softmax(new / T))

    old_model: a copy of the model before it learns the new task (`copy.deepcopy(model)`); frozen. temperature: T, 2 in the paper.
    classes: only the first so many outputs are held, those that the old model had where the new one has more; by default all
    of the old model's. head: another way from the model's output to the old task's logits, where that has a head of its own:
    called with (model, batch) it returns them. Padding and tokens with a label of -100 do not count.
    """

    def __init__(
        self, old_model: Any, temperature: float = 2.0, weight: float = 1.0, classes: int | None = None,
        head: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        if not weight >= 0:
            raise ValueError(f"weight: expected 0 or more, got {weight}")
        if classes is not None and classes < 1:
            raise ValueError(f"classes: expected at least 1, got {classes}")
        self.old_model = old_model.eval().requires_grad_(False)
        self.temperature, self.weight, self.classes, self.head = float(temperature), float(weight), classes, head

    def on_loss(self, trainer: Any, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        args, inputs, _ = split_batch(batch, trainer.target_key)
        self.old_model.eval()
        with bpnn.no_grad():
            old = self.head(self.old_model, batch) if self.head else prediction_of(self.old_model(*args, **inputs))
        new = self.head(trainer.model, batch) if self.head else prediction_of(output)
        count = old.shape[-1] if self.classes is None else self.classes
        if min(old.shape[-1], new.shape[-1]) < count:
            raise ValueError(f"classes: expected at most {min(old.shape[-1], new.shape[-1])}, as many as both give, got {count}")
        counted = _counted(batch, target, new, trainer.model)
        return loss + self.weight * distillation_loss(new[..., :count], old[..., :count], self.temperature, counted)
