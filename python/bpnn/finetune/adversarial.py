"""Adversarial inputs: the worst of all inputs near the given one, to test a model with, or to train it on.

    x_bad = fgsm(lambda x: F.cross_entropy(model(x), y), x, eps=8 / 255, clip=(0, 1))
    Trainer(model, optimizer, loss, callbacks=[PGD(eps=8 / 255, clip=(0, 1))])       # trains on what PGD makes of each batch

For images and other continuous inputs x, with the gradient g of the loss with respect to x. The norm is taken per example, over all
but the first dimension: infinity (the largest change of a number) or 2. For texts see `embedding_attacks`.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import bpnn
from bpnn.train.callbacks import Callback

from ._inputs import array_of, continuous_input, drawn_generator, replaced

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["FGSM", "PGD", "fgsm", "pgd"]

Loss = Callable[[Any], Any]


# --- the inputs ----------------------------------------------------------------------------------------------------------------


def fgsm(loss: Loss, x: Any, eps: float, *, clip: tuple[Any, Any] | None = None, norm: float = math.inf) -> Any:
    """`clip(x + eps d)`: one step that makes the loss larger; d = sign(g), or for norm 2 `g / |g|_2` of each example.

    loss: a function of x alone that returns a scalar. x: a floating-point Tensor or array, (B, …). clip: the lowest and the highest
    value, numbers or what broadcasts to x. Returns a Tensor; the gradients of parameters stay as they are. The fast gradient sign
    method, Goodfellow et al. 2015. Raises `ValueError` naming what is wrong.
    """
    start = _checked(x, eps, norm)
    return bpnn.from_numpy(_clipped(start + eps * _direction(_gradient(loss, start), norm), clip, start.dtype))


def pgd(
    loss: Loss, x: Any, eps: float, *, step_size: float | None = None, steps: int = 10, clip: tuple[Any, Any] | None = None,
    norm: float = math.inf, random_start: bool = True,
) -> Any:
    """`steps` times `x' = clip(project(x' + step_size d))`; the projection is onto the ball of radius eps around x.

    d as in `fgsm`, of the gradient at x'. step_size: 2.5 eps / steps by default. random_start: x' begins at a point of the ball,
    uniform in each number for norm infinity; for norm 2 uniform over the ball. Drawn from bpnn's generator. Projected gradient
    descent, Madry et al. 2018.
    """
    start = _checked(x, eps, norm)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    size = 2.5 * eps / steps if step_size is None else step_size
    if not size > 0:
        raise ValueError(f"step_size: expected a number above 0, got {step_size}")
    moved = start
    if random_start:
        moved = _clipped(start + _in_ball(start.shape, eps, norm).astype(start.dtype), clip, start.dtype)
    for _ in range(steps):
        moved = moved + size * _direction(_gradient(loss, moved), norm)
        moved = _clipped(start + _projected(moved - start, eps, norm), clip, start.dtype)
    return bpnn.from_numpy(moved)


def _checked(x: Any, eps: float, norm: float) -> np.ndarray:
    array = array_of(x)
    if array.dtype.kind != "f" or not array.ndim:
        raise ValueError(f"x: expected floating-point numbers (B, …), got {array.dtype} of shape {array.shape}")
    _check(eps, norm)
    return array


def _check(eps: float, norm: float) -> None:
    if not eps >= 0:
        raise ValueError(f"eps: expected 0 or more, got {eps}")
    if norm not in (2, math.inf):
        raise ValueError(f"norm: expected 2 or math.inf, got {norm}")


def _gradient(loss: Loss, x: np.ndarray) -> np.ndarray:
    leaf = bpnn.from_numpy(np.ascontiguousarray(x)).requires_grad_()
    with bpnn.enable_grad():
        (gradient,) = bpnn.autograd.grad(loss(leaf), [leaf])
    return np.asarray(gradient.numpy())


def _lengths(x: np.ndarray) -> np.ndarray:
    """The Euclidean norm of each example, broadcasting to x."""
    flat = np.sqrt(np.square(x.reshape(len(x), -1), dtype=np.float64).sum(1))
    return flat.reshape(-1, *[1] * (x.ndim - 1))


def _direction(gradient: np.ndarray, norm: float) -> np.ndarray:
    if norm == math.inf:
        return np.sign(gradient)
    lengths = _lengths(gradient)
    unit: np.ndarray = gradient / np.where(lengths > 0, lengths, 1)
    return unit.astype(gradient.dtype)


def _projected(change: np.ndarray, eps: float, norm: float) -> np.ndarray:
    if norm == math.inf:
        return change.clip(-eps, eps)
    shrunk: np.ndarray = change * np.minimum(1, eps / np.maximum(_lengths(change), np.finfo(float).tiny))
    return shrunk.astype(change.dtype)


def _in_ball(shape: tuple[int, ...], eps: float, norm: float) -> np.ndarray:
    rng = drawn_generator()
    if norm == math.inf:
        return rng.uniform(-eps, eps, shape)
    directions = rng.normal(size=shape)
    radii = eps * rng.uniform(size=shape[0]) ** (1 / max(1, math.prod(shape[1:])))
    point: np.ndarray = directions / _lengths(directions) * radii.reshape(-1, *[1] * (len(shape) - 1))
    return point


def _clipped(x: np.ndarray, clip: tuple[Any, Any] | None, dtype: Any) -> np.ndarray:
    return (x if clip is None else np.clip(x, clip[0], clip[1])).astype(dtype, copy=False)


# --- training on them ----------------------------------------------------------------------------------------------------------


class FGSM(Callback):
    """Trains on `fgsm` of each batch instead of the batch itself.

    eps, clip, norm: see `fgsm`. clean: the share of each batch that stays as it is, its first samples (0.5 is common: Goodfellow et
    al. 2015 mean both losses). key: of dictionary batches, which entry is moved; by default the only one of floating-point numbers.

    The attack sees the model as in evaluation: no dropout, batch normalization with its running statistics, which do not change.
    Place it behind callbacks that change the batch in other ways.
    """

    def __init__(
        self, eps: float, *, clip: tuple[Any, Any] | None = None, norm: float = math.inf, clean: float = 0.0, key: str | None = None
    ) -> None:
        _check(eps, norm)
        if not 0 <= clean < 1:
            raise ValueError(f"clean: expected a share in [0, 1), got {clean}")
        self.eps, self.clip, self.norm, self.clean, self.key = eps, clip, norm, clean, key

    def attack(self, loss: Loss, x: np.ndarray) -> Any:
        """The moved input of the whole batch."""
        return fgsm(loss, x, self.eps, clip=self.clip, norm=self.norm)

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        where, x = continuous_input(batch, trainer.target_key, self.key)
        active = [module for module in trainer.model.modules() if module.training]
        trainer.model.eval()
        try:
            moved = self.attack(lambda z: trainer.compute_loss(replaced(batch, where, z))[0], x)
        finally:
            for module in active:
                module.__dict__["training"] = True
        kept = round(self.clean * len(x))
        if kept:
            moved = bpnn.from_numpy(np.concatenate([x[:kept], moved.numpy()[kept:]]))
        return replaced(batch, where, moved)


class PGD(FGSM):
    """Trains on `pgd` of each batch instead of the batch itself; Madry et al. 2018.

    eps, step_size, steps, clip, norm, random_start: see `pgd`. clean, key: see `FGSM`.
    """

    def __init__(
        self, eps: float, *, step_size: float | None = None, steps: int = 7, clip: tuple[Any, Any] | None = None,
        norm: float = math.inf, random_start: bool = True, clean: float = 0.0, key: str | None = None,
    ) -> None:
        super().__init__(eps, clip=clip, norm=norm, clean=clean, key=key)
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, got {steps}")
        self.step_size, self.steps, self.random_start = step_size, steps, random_start

    def attack(self, loss: Loss, x: np.ndarray) -> Any:
        """The moved input of the whole batch."""
        return pgd(
            loss, x, self.eps, step_size=self.step_size, steps=self.steps, clip=self.clip, norm=self.norm,
            random_start=self.random_start,
        )
