"""L2-SP: weights are pulled to where they started, not to 0 (Li, Grandvalet and Davoine 2018).

    Trainer(model, AdamW(model.parameters(), 5e-5, weight_decay=0), callbacks=[L2SP(alpha=0.1, beta=0.01)])
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import bpnn
from bpnn.train.callbacks import Callback

from ._structure import layer_groups

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["L2SP"]


class L2SP(Callback):
    """Adds `alpha / 2 |w - w0|^2 + beta / 2 |v|^2` to what is minimized: w, all but the head, starts at w0; v is the head.

    The gradients `alpha (w - w0)` and `beta v` of the parameters that are trained are added once a batch, weighted by its samples,
    before they are clipped; the loss in the history is without the penalty. What the head is: see `layer_groups`. w0 is what the
    weights are when the first `fit` that trains them begins, and part of the state.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 0.01) -> None:
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not value >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {value}")
        self.alpha, self.beta = alpha, beta
        self.start: dict[str, np.ndarray] = {}
        self._head: list[Any] = []
        self._below: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        *below, head = layer_groups(trainer.model)
        owned = {id(p) for p in trainer.owned_parameters()}
        self._head = [p for _, p in head.parameters if id(p) in owned]
        self._below = {name: p for group in below for name, p in group.parameters if id(p) in owned}
        for name, p in self._below.items():
            if name not in self.start:
                self.start[name] = p.detach().numpy().copy()

    def on_backward_end(self, trainer: Trainer, batch: Any, weight: float) -> None:
        with bpnn.no_grad():
            for name, p in self._below.items():
                if p.grad is not None:
                    p.grad.add_(p - bpnn.from_numpy(self.start[name]), alpha=self.alpha * weight)
            for p in self._head:
                if p.grad is not None:
                    p.grad.add_(p, alpha=self.beta * weight)

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = {name: np.asarray(value) for name, value in state["start"].items()}
