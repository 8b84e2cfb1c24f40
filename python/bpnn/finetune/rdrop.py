"""R-Drop: two passes with different dropout must say the same (Liang et al. 2021).

    Trainer(model, optimizer, callbacks=[RDrop(alpha=1.0)])

With the logits z1, z2 of the two passes over a batch, p = softmax(z1), q = softmax(z2):

    loss = (CE(z1) + CE(z2)) / 2 + alpha (KL(p || q) + KL(q || p)) / 2,   each KL the mean over what is classified
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bpnn.nn import functional as F
from bpnn.train.callbacks import Callback

from ._logits import counted_rows

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["RDrop", "symmetric_kl"]


def symmetric_kl(first: Any, second: Any) -> Any:
    """`(KL(p || q) + KL(q || p)) / 2` of the softmax of two logits (N, C), the mean over the N rows; a scalar.

    That is `sum((p - q) (log p - log q)) / (2 N)`: never negative, 0 where p is q. Raises `ValueError` for other shapes, and for
    one class, of which nothing can be said.
    """
    if first.ndim != 2 or tuple(first.shape) != tuple(second.shape):
        raise ValueError(f"first, second: expected logits (N, C) of one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    if first.shape[1] < 2:
        raise ValueError(f"first: expected logits of at least 2 classes, got {tuple(first.shape)}")
    log_p: Any = F.log_softmax(first, -1)
    log_q: Any = F.log_softmax(second, -1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum() / (2 * max(1, len(first)))


class RDrop(Callback):
    """Adds the second pass and the divergence to the loss; see the head of this file.

    alpha: the weight of the divergence. For classifiers of texts, images, tokens (labels -100 do not count), answers and the next
    token. A step takes two passes forward; backward goes through both. Callbacks before it that change the loss change that of
    both passes. Without dropout, or anything else random, it only costs time.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if not alpha >= 0:
            raise ValueError(f"alpha: expected 0 or more, got {alpha}")
        self.alpha = alpha

    def on_loss(self, trainer: Trainer, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        again, second, target_again = trainer.compute_loss(batch)
        for callback in trainer.callbacks:
            if callback is self:
                break
            again = callback.on_loss(trainer, batch, again, second, target_again)
        pairs = zip(
            counted_rows(trainer, batch, output, target), counted_rows(trainer, batch, second, target_again), strict=True
        )
        divergences = [symmetric_kl(first, other) for (first, _), (other, _) in pairs]
        divergence = divergences[0] if len(divergences) == 1 else (divergences[0] + divergences[1]) / 2
        return (loss + again) * 0.5 + divergence * self.alpha
