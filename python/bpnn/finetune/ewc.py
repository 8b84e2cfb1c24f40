"""Elastic weight consolidation: the weights that old tasks need are held where they were.

    ewc = EWC(penalty=100.0); ewc.consolidate(model, old_loader, nn.CrossEntropyLoss())
    Trainer(model, optimizer, nn.CrossEntropyLoss(), callbacks=[ewc]).fit(new_loader, epochs=3)
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import bpnn
from bpnn.train import Callback
from bpnn.train.batches import batch_size, loss_of, prediction_of, split_batch

__all__ = ["EWC"]


class EWC(Callback):
    """Elastic weight consolidation: weights that the old task needs are held where they were. Kirkpatrick et al. 2017.

        loss + penalty / 2 sum_i F_i (w_i - w*_i)²,   F_i = mean over samples of (d log p(y | x) / d w_i)²

    F is the diagonal of the Fisher information, from `consolidate` on data of the old task. Called for several tasks in turn it
    adds to F, anchored at the newest weights: online EWC (Schwarz et al. 2018), `F = decay F + F_new`. Without `consolidate`
    the penalty is none. F and w* are part of the run's checkpoints.
    """

    def __init__(self, penalty: float = 100.0, decay: float = 1.0) -> None:
        if not penalty >= 0:
            raise ValueError(f"penalty: expected 0 or more, got {penalty}")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay: expected 0 to 1, got {decay}")
        self.penalty, self.decay = float(penalty), float(decay)
        self.fisher: dict[str, np.ndarray] = {}
        self.anchor: dict[str, np.ndarray] = {}

    def consolidate(
        self, model: Any, loader: Iterable[Any], loss: Callable[..., Any] | None = None, *, samples: int | None = None,
        target_key: str = "labels", empirical: bool = True,
    ) -> EWC:
        """Take in a task that `model` has learned: F over the samples of `loader`, w* its weights; returns self.

        loss: as `Trainer`'s, the mean of `-log p(y | x)`; None: the model computes it. samples: stop after as many. empirical: y
        are the labels; False: drawn from the model's own softmax, which is the true Fisher information, for plain classifiers.
        Dropout is off. One sample at a time, as the squares of sums are not sums of squares: a few hundred samples do.
        """
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not trained:
            raise ValueError("model: expected parameters that are trained, got none")
        sums = {name: np.zeros(parameter.shape, np.float64) for name, parameter in trained.items()}
        training, done = model.training, 0
        before = {name: parameter.grad for name, parameter in trained.items()}
        model.eval()
        try:
            for batch in loader:
                for one in _singles(batch):
                    if samples is not None and done >= samples:
                        break
                    for parameter in trained.values():
                        parameter.grad = None
                    _likelihood(model, one, loss, target_key, empirical).backward()
                    for name, parameter in trained.items():
                        if parameter.grad is not None:
                            sums[name] += np.square(parameter.grad.numpy(), dtype=np.float64)
                    done += 1
        finally:
            model.train(training)
            for name, parameter in trained.items():
                parameter.grad = before[name]
        if not done:
            raise ValueError("loader: expected at least one sample, got none")
        for name, parameter in trained.items():
            new = sums[name] / done
            if name in self.fisher:
                new += self.decay * self.fisher[name]
            self.fisher[name] = new.astype(parameter.dtype)
            self.anchor[name] = np.array(parameter.detach().numpy())
        return self

    def penalty_of(self, model: Any) -> Any:
        """`penalty / 2 sum F (w - w*)²`, a scalar; 0 before anything was consolidated. Differentiable."""
        total: Any = bpnn.zeros(())
        parameters = dict(model.named_parameters())
        if missing := self.fisher.keys() - parameters.keys():
            raise ValueError(f"model: expected the parameters of the old task, {', '.join(sorted(missing))} are missing")
        for name, fisher in self.fisher.items():
            parameter = parameters[name]
            if tuple(parameter.shape) != fisher.shape:
                raise ValueError(f"model: {name}: expected shape {fisher.shape} as in the old task, got {tuple(parameter.shape)}")
            if parameter.requires_grad:
                total = total + (bpnn.from_numpy(fisher) * (parameter - bpnn.from_numpy(self.anchor[name])) ** 2).sum()
        return total * (self.penalty / 2)

    def on_loss(self, trainer: Any, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        return loss + self.penalty_of(trainer.model) if self.fisher else loss

    def state_dict(self) -> dict[str, Any]:
        return {"fisher": dict(self.fisher), "anchor": dict(self.anchor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fisher = {name: np.array(array) for name, array in state["fisher"].items()}
        self.anchor = {name: np.array(array) for name, array in state["anchor"].items()}


def _singles(batch: Any) -> Iterable[Any]:
    """The samples of a batch as batches of one."""
    for i in range(batch_size(batch)):
        if isinstance(batch, Mapping):
            yield {name: value[i : i + 1] if getattr(value, "ndim", 0) else value for name, value in batch.items()}
        elif isinstance(batch, (tuple, list)):
            yield tuple(value[i : i + 1] for value in batch)
        else:
            yield batch[i : i + 1]


def _likelihood(model: Any, batch: Any, loss: Any, target_key: str, empirical: bool) -> Any:
    """`-log p(y | x)` of one sample."""
    args, inputs, target = split_batch(batch, target_key)
    if empirical and loss is None:
        return loss_of(model(**batch) if isinstance(batch, Mapping) else model(*(batch if isinstance(batch, tuple) else (batch,))))
    output = model(*args, **inputs)
    if empirical:
        return loss(output) if target is None else loss(output, target)
    logits = prediction_of(output)
    with bpnn.no_grad():
        chances = bpnn.nn.functional.softmax(logits.detach(), -1)
        drawn = bpnn.multinomial(chances, 1).reshape(-1)
    return bpnn.nn.functional.cross_entropy(logits, drawn)
