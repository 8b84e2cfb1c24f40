"""Label smoothing for models that compute their own loss (Szegedy et al. 2016).

    Trainer(model, optimizer, callbacks=[LabelSmoothing(0.1)])
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpnn
from bpnn.nn import functional as F
from bpnn.train.callbacks import Callback

from ._logits import counted_rows

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["LabelSmoothing"]


class LabelSmoothing(Callback):
    """The loss becomes the cross-entropy with `(1 - epsilon) onehot(y) + epsilon / C` over the C classes instead of `onehot(y)`.

    That is `(1 - epsilon) loss + epsilon mean_c(-log p_c)`, with the loss as it was. For heads that classify texts, images, tokens,
    answers or the next token by cross-entropy, with labels of whole numbers, -100 for what does not count. `evaluate` reports the
    plain loss. Place it before callbacks that add to the loss, such as R-Drop. A trainer with a loss of its own gets
    `nn.CrossEntropyLoss(label_smoothing=epsilon)` instead.
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon: expected a number in [0, 1], got {epsilon}")
        self.epsilon = epsilon

    def on_fit_start(self, trainer: Trainer) -> None:
        if trainer.loss is not None:
            raise ValueError("loss: expected None, the model's own; others have nn.CrossEntropyLoss(label_smoothing=…)")

    def on_loss(self, trainer: Trainer, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        losses: list[Any] = []
        for logits, classes in counted_rows(trainer, batch, output, target):
            if classes is None or logits.shape[1] < 2:
                raise ValueError(f"labels: expected whole numbers, classes of {logits.shape[1]}; label smoothing is for those")
            losses.append(F.cross_entropy(logits, bpnn.from_numpy(classes), label_smoothing=1.0))  # of all classes alike
        uniform = losses[0] if len(losses) == 1 else (losses[0] + losses[1]) / 2
        return loss * (1 - self.epsilon) + uniform * self.epsilon
