"""Mixed examples: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

    Trainer(model, optimizer, nn.CrossEntropyLoss(), callbacks=[Mixup(0.2)])

Example i is mixed with example j, a permutation of the batch, with one share for the batch: inputs x, and their losses,

    loss = share loss(output, y_i) + (1 - share) loss(output, y_j)

For cross-entropy that is the loss with the soft target `share onehot(y_i) + (1 - share) onehot(y_j)`.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import bpnn
from bpnn.nn import functional as F
from bpnn.train.batches import split_batch
from bpnn.train.callbacks import Callback

from ._inputs import array_of, continuous_input, drawn_generator, replaced
from ._logits import counted_rows

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["CutMix", "Mixup"]


class Mixer(Callback):
    """Base: mixes inputs and losses. `mixed` says how.

    The batch keeps the label of the larger share, so that metrics of training batches say how often the model sees that one.
    Floating-point targets, numbers or probabilities, are mixed themselves. Not in `evaluate`.
    """

    def __init__(self, alpha: float, p: float = 1.0, key: str | None = None) -> None:
        if not alpha > 0:
            raise ValueError(f"alpha: expected a number above 0, got {alpha}")
        if not 0 < p <= 1:
            raise ValueError(f"p: expected a probability above 0, got {p}")
        self.alpha, self.p, self.key = alpha, p, key
        self._share = 1.0
        self._other: Any = None  # the labels of the smaller share

    def mixed(self, x: np.ndarray, other: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """`x` with something of `other`, and the share of x that is left, which may be less than was asked for."""
        raise TypeError(f"{type(self).__name__}: expected a method mixed(x, other, share, rng)")

    def on_fit_start(self, trainer: Trainer) -> None:
        if sum(isinstance(callback, Mixer) for callback in trainer.callbacks) > 1:
            raise ValueError("callbacks: expected one that mixes examples, got more")

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        self._other, self._share = None, 1.0
        where, x = continuous_input(batch, trainer.target_key, self.key)
        target = self._target(trainer, batch)
        rng = drawn_generator()
        if len(x) < 2 or rng.uniform() >= self.p:
            return batch
        order = rng.permutation(len(x))
        moved, share = self.mixed(x, x[order], float(rng.beta(self.alpha, self.alpha)), rng)
        batch = replaced(batch, where, bpnn.from_numpy(np.ascontiguousarray(moved, dtype=x.dtype)))
        labels = array_of(target)
        if labels.dtype.kind == "f":
            soft = (share * labels + (1 - share) * labels[order]).astype(labels.dtype)
            return self._with_target(trainer, batch, self._like(target, soft))
        first, other = (labels, labels[order]) if share >= 0.5 else (labels[order], labels)
        self._share, self._other = max(share, 1 - share), self._like(target, other)
        return self._with_target(trainer, batch, self._like(target, first))

    def on_loss(self, trainer: Trainer, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        if self._other is None:
            return loss
        other_batch = self._with_target(trainer, batch, self._other)
        other = self._loss(trainer, other_batch, output)
        for callback in trainer.callbacks:  # what happened to the first loss
            if callback is self:
                break
            other = callback.on_loss(trainer, other_batch, other, output, self._other)
        return loss * self._share + other * (1 - self._share)

    def _loss(self, trainer: Trainer, batch: Any, output: Any) -> Any:
        """The loss of the same output for the other labels."""
        if trainer.loss is not None:
            return trainer.loss(output, self._other)
        ((logits, classes),) = counted_rows(trainer, batch, output, self._other)
        if classes is None or logits.shape[1] < 2:
            raise ValueError(f"labels: expected classes, or floating-point numbers, for logits of {logits.shape[1]}")
        return F.cross_entropy(logits, bpnn.from_numpy(classes))

    def _target(self, trainer: Trainer, batch: Any) -> Any:
        target = split_batch(batch, trainer.target_key)[2]
        if target is None:
            raise ValueError(f"batch: expected a target to mix (x, y), or {trainer.target_key!r} in a dictionary")
        return target

    @staticmethod
    def _with_target(trainer: Trainer, batch: Any, target: Any) -> Any:
        return replaced(batch, trainer.target_key if isinstance(batch, Mapping) else len(batch) - 1, target)

    @staticmethod
    def _like(target: Any, values: np.ndarray) -> Any:
        return bpnn.from_numpy(np.ascontiguousarray(values)) if isinstance(target, bpnn.Tensor) else values


class Mixup(Mixer):
    """`share x_i + (1 - share) x_j`, share from Beta(alpha, alpha); for any continuous input.

    alpha: 0.1 to 0.4 in the paper; the larger, the more is mixed. p: the share of batches that are mixed. key: of dictionary
    batches, which entry; by default the only one of floating-point numbers. Drawn from bpnn's generator.
    """

    def __init__(self, alpha: float = 0.2, p: float = 1.0, key: str | None = None) -> None:
        super().__init__(alpha, p, key)

    def mixed(self, x: np.ndarray, other: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """All of both."""
        return share * x + (1 - share) * other, share


class CutMix(Mixer):
    """A box of x_j pasted into x_i, images (B, C, H, W): its sides are sqrt(1 - share) of the image's.

    The share is drawn from Beta(alpha, alpha), the center is uniform over the image, what sticks out is cut off, and the share of
    the loss is what is left of x_i. Arguments as in `Mixup`; alpha is 1 in the paper: any share alike.
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0, key: str | None = None) -> None:
        super().__init__(alpha, p, key)

    def mixed(self, x: np.ndarray, other: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """x with a box of the other."""
        if x.ndim != 4:
            raise ValueError(f"batch: expected images (B, C, H, W), got shape {x.shape}")
        (top, bottom), (left, right) = (_cut(side, math.sqrt(1 - share), rng) for side in x.shape[2:])
        moved = x.copy()
        moved[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        return moved, 1 - (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])


def _cut(side: int, ratio: float, rng: np.random.Generator) -> tuple[int, int]:
    """Begin and end of a piece of `ratio` of a side around a random place."""
    center, half = int(rng.integers(side)), int(side * ratio) // 2
    return max(0, center - half), min(side, center + half)
