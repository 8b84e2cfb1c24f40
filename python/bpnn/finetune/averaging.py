"""Averages of the weights over training, which often are better than the last ones.

    Trainer(model, optimizer, callbacks=[EMA(0.999), BestModel("val_accuracy", "max"), CheckpointWriter(folder)])

EMA: the exponential moving average over the steps (Polyak and Juditsky 1992). SWA: the mean over the epochs from one on (Izmailov
et al. 2018).

The averaged weights are put into the model for every evaluation, stay until the epoch has ended, so that a `BestModel` placed
behind keeps them, and are taken out before the next batch is trained on. At the end of `fit` they remain. What the optimizer works
on is set aside meanwhile and is part of the state, so a run that is killed anywhere goes on with the same bits. Averaged are the
parameters that the optimizer owns and buffers of floating-point numbers (statistics of batch normalization).

One average a trainer. Where another callback evaluates within an epoch, place the average before attacks on inputs, which ask the
model before a batch is trained on.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import bpnn
from bpnn import nn
from bpnn.optim.swa_utils import approach, update_bn
from bpnn.train.callbacks import Callback

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["EMA", "SWA"]

Weights = dict[str, Any]


class WeightAverage(Callback):
    """Base: what is averaged, and putting it in and taking it out. `average`, by name, or None where there is none yet."""

    def __init__(self) -> None:
        self.average: Weights | None = None
        self.aside: Weights | None = None  # what training goes on with, while the average is in the model
        self.count = 0  # of what is in the average
        self._own: Weights = {}  # the model's tensors
        self._inside = False  # of fit

    def evaluated(self, trainer: Trainer, epoch: int) -> Weights | None:
        """What to put into the model for the evaluation of epoch number `epoch`, counted from 1; None: nothing."""
        return self.average

    # --- putting in and taking out -----------------------------------------------------------------------------------------

    @bpnn.no_grad()
    def put_in(self, trainer: Trainer, epoch: int) -> None:
        """The average goes into the model, unless it is there."""
        if self.aside is None:
            self.swap(trainer, self.evaluated(trainer, epoch))

    def swap(self, trainer: Trainer, weights: Weights | None) -> None:
        """Weights go into the model; what is there is set aside."""
        if weights is not None:
            self.aside = _clones(self._own)
            for name, mean in weights.items():
                self._own[name].copy_(mean)
            self.entered(trainer)

    @bpnn.no_grad()
    def take_out(self) -> None:
        """The weights that training goes on with go back, unless they are there."""
        if self.aside is not None:
            for name, value in self.aside.items():
                self._own[name].copy_(value)
            self.aside = None

    def entered(self, trainer: Trainer) -> None:
        """After the average was put in."""

    def averaged(self) -> Weights:
        """Of the model's tensors those that are averaged."""
        return {name: tensor for name, tensor in self._own.items() if tensor.is_floating_point()}

    # --- hooks -------------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer) -> None:
        averages = [type(c).__name__ for c in trainer.callbacks if isinstance(c, WeightAverage)]
        if len(averages) > 1:
            raise ValueError(f"callbacks: expected one average of the weights, got {', '.join(averages)}")
        owned = {id(p) for p in trainer.owned_parameters()}
        tensors = trainer.model.state_dict(keep_vars=True).items()
        chosen = {id(t): name for name, t in reversed(tensors) if id(t) in owned or not isinstance(t, nn.Parameter)}
        self._own = {name: t for name, t in tensors if chosen.get(id(t)) == name}  # tied ones once
        for kept in (self.average, self.aside):
            if kept is not None and not kept.keys() <= self._own.keys():
                missing = ", ".join(sorted(kept.keys() - self._own.keys()))
                raise ValueError(f"{type(self).__name__}: the saved average has {missing}, which this optimizer does not own")
        self._inside = True

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.take_out()

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        self.take_out()  # another callback may have called `evaluate` within the epoch
        return batch

    def on_evaluate_start(self, trainer: Trainer) -> None:
        if self._inside:
            self.put_in(trainer, trainer.state.epoch + 1)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.put_in(trainer, trainer.state.epoch)

    def on_fit_end(self, trainer: Trainer) -> None:
        if not trainer.state.interrupted:
            self.put_in(trainer, trainer.state.epoch)

    def on_fit_exit(self, trainer: Trainer) -> None:
        self._inside = False

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "aside": self.aside, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average, self.aside, self.count = _read(state["average"]), _read(state["aside"]), int(state["count"])


class EMA(WeightAverage):
    """After every step `average = d average + (1 - d) weights`; it starts as what the weights are before the first.

    decay: d, between 0 and 1; the average reaches back about 1 / (1 - d) steps. warmup: after t updates d is at most
    (1 + t) / (10 + t), so that the start is forgotten soon. every: steps between updates.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True, every: int = 1) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
        if every < 1:
            raise ValueError(f"every: expected at least 1, got {every}")
        self.decay, self.warmup, self.every = decay, warmup, every

    def on_fit_start(self, trainer: Trainer) -> None:
        super().on_fit_start(trainer)
        if self.average is None:
            self.average = _clones(self.averaged())

    @bpnn.no_grad()
    def on_step_end(self, trainer: Trainer) -> None:
        self.take_out()
        if trainer.state.step % self.every or self.average is None:
            return
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.warmup else self.decay
        approach(list(self.average.values()), [self._own[name] for name in self.average], 1 - decay)
        self.count += 1


class SWA(WeightAverage):
    """The mean of the weights at the ends of the epochs behind `start`.

    start: how many epochs are left out, a whole number, or a share of all below 1; the paper takes 0.75 and a learning rate that is
    high and constant, or cyclic, from there on (`bpnn.optim.swa_utils.SWALR`). Evaluations within an epoch see the mean as if it
    ended there; before `start` the weights are what they are.

    bn_data: batches to compute the statistics of batch normalization with each time the mean is put in (see `update_bn`). None:
    they are averaged like weights.
    """

    def __init__(self, start: float = 0.75, bn_data: Iterable[Any] | None = None) -> None:
        super().__init__()
        if not start >= 0 or (start >= 1 and start != int(start)):
            raise ValueError(f"start: expected a share below 1 or a whole number of epochs, got {start}")
        self.start, self.bn_data = start, bn_data
        self._next: Weights | None = None  # the mean with the present weights in it, until the epoch has ended

    def evaluated(self, trainer: Trainer, epoch: int) -> Weights | None:
        """The mean of what is in it and of the present weights."""
        left_out = self.start if isinstance(self.start, int) or self.start >= 1 else self.start * trainer.state.epochs
        if epoch <= left_out + 1e-9:
            return None
        self._next = _clones(self.averaged())
        if self.average is not None:
            before = [self.average[name] for name in self._next]
            approach(list(self._next.values()), before, self.count / (self.count + 1))
        return self._next

    def entered(self, trainer: Trainer) -> None:
        """Statistics of batch normalization anew, where there is data for them."""
        if self.bn_data is not None:
            update_bn(self.bn_data, trainer.model)

    def take_out(self) -> None:
        """As above; an epoch that has not ended does not count."""
        self._next = None
        super().take_out()

    def on_epoch_end(self, trainer: Trainer) -> None:
        super().on_epoch_end(trainer)
        if self._next is not None:
            self.average, self._next = self._next, None
            self.count += 1

    @bpnn.no_grad()
    def on_fit_end(self, trainer: Trainer) -> None:
        if self.aside is None and not trainer.state.interrupted:  # stopped within an epoch, which does not count
            self.swap(trainer, self.average)


def _clones(weights: Weights) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def _read(weights: Weights | None) -> Weights | None:
    """Copies of what was saved: arrays or Tensors."""
    if weights is None:
        return None
    return {name: (v if isinstance(v, bpnn.Tensor) else bpnn.from_numpy(v)).detach().clone() for name, v in weights.items()}
