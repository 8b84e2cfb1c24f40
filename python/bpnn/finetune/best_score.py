"""The weights of the best epoch, where scores of few examples are often the same."""
from __future__ import annotations

from typing import Any

from bpnn.train.callbacks import BestModel

__all__ = ["BestScore"]


class BestScore(BestModel):
    """`BestModel`; of epochs with the same score the one with the lowest `val_loss`.

    An accuracy on 24 examples has 25 values: the first epoch to reach the best of them is seldom the one that is surest.
    """

    def __init__(self, monitor: str, mode: str = "max") -> None:
        super().__init__(monitor, mode)
        self.loss: float | None = None

    def improved(self, trainer: Any) -> bool:
        """As in `BestModel`; also where the score is that of the best epoch and the loss is lower."""
        row = trainer.history.rows[-1]
        better, loss = super().improved(trainer), row.get("val_loss")
        tied = not better and self.best is not None and row[self.monitor] == self.best
        if tied and loss is not None and self.loss is not None and loss < self.loss:
            self.best_epoch, better = trainer.state.epoch, True
        if better:
            self.loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.loss = state["loss"]
