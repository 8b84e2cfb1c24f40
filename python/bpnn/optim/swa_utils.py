"""Averages of weights: stochastic weight averaging (Izmailov et al. 2018) and exponential moving averages.

    averaged, schedule = AveragedModel(model), SWALR(optimizer, swa_lr=0.05)
    for epoch in range(epochs):
        …                                            # train `model`
        if epoch >= start:
            averaged.update_parameters(model)
            schedule.step()
    update_bn(loader, averaged)

With a `Trainer`, `bpnn.finetune.SWA` and `EMA` do the same as callbacks.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import bpnn
from bpcore.optim import Step
from bpnn import nn
from bpnn.nn.modules.batchnorm import _BatchNorm
from bpnn.optim.lr_scheduler.base import LRScheduler, for_each_group
from bpnn.optim.optimizer import Optimizer

__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn", "update_bn",
]


def _decay(decay: float) -> float:
    if not 0 <= decay <= 1:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")
    return decay


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], Any]:
    """A function (average, parameter, count) that returns `decay average + (1 - decay) parameter`."""
    _decay(decay)

    @bpnn.no_grad()
    def ema_update(ema_param: Any, current_param: Any, num_averaged: Any) -> Any:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_swa_avg_fn() -> Callable[[Any, Any, Any], Any]:
    """A function (average, parameter, count) that returns `average + (parameter - average) / (count + 1)`: the mean of all."""

    @bpnn.no_grad()
    def swa_update(averaged_param: Any, current_param: Any, num_averaged: Any) -> Any:
        return averaged_param + (current_param - averaged_param) / (int(num_averaged) + 1)

    return swa_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[list[Any], list[Any], Any], None]:
    """As `get_ema_avg_fn`, of lists, in place."""
    return _in_place(get_ema_avg_fn(decay), lambda count: 1 - decay)


def get_swa_multi_avg_fn() -> Callable[[list[Any], list[Any], Any], None]:
    """As `get_swa_avg_fn`, of lists, in place."""
    return _in_place(get_swa_avg_fn(), lambda count: 1 / (count + 1))


def approach(averages: list[Any], currents: list[Any], share: float) -> None:
    """`average += share (current - average)` of each pair of floating-point tensors, in one pass over the memory.

    That is a step of gradient descent with `current` as what is climbed and a weight decay of 1. bpnn's own.
    """
    Step().sgd(averages, currents, {}, lr=share, weight_decay=1.0, maximize=True).run()


def _in_place(
    average: Callable[[Any, Any, Any], Any], share: Callable[[int], float]
) -> Callable[[list[Any], list[Any], Any], None]:
    @bpnn.no_grad()
    def update(averages: list[Any], currents: list[Any], num_averaged: Any) -> None:
        pairs = list(zip(averages, currents, strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        approach([mean for mean, _ in real], [current for _, current in real], share(int(num_averaged)))
        for mean, current in pairs:
            if not mean.is_floating_point():
                mean.copy_(average(mean, current, num_averaged))

    return update


class AveragedModel(nn.Module):
    """A copy of a model that follows the average of its parameters; `averaged(x)` is what the copy, `module`, gives.

    Args:
        model: is copied.
        device: None or "cpu".
        avg_fn: (average, parameter, `n_averaged`) → the new average; the mean of all by default.
        multi_avg_fn: the same of lists, in place; one of the two.
        use_buffers: average buffers too (statistics of batch normalization); else they are copied from the model.
    """

    def __init__(
        self, model: nn.Module, device: Any = None, avg_fn: Callable[[Any, Any, Any], Any] | None = None,
        multi_avg_fn: Callable[[list[Any], list[Any], Any], None] | None = None, use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module.to(device=device)
        self.register_buffer("n_averaged", bpnn.tensor(0))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model gives."""
        return self.module(*args, **kwargs)

    @bpnn.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the present parameters of `model` into the average; the first time they are the average."""
        averages, currents = (
            list(chain(m.parameters(), m.buffers()) if self.use_buffers else m.parameters())
            for m in (self.module, model)
        )
        count = int(self.n_averaged)
        if not count:
            for mean, current in zip(averages, currents, strict=True):
                mean.copy_(current)
        elif self.avg_fn is not None:
            for mean, current in zip(averages, currents, strict=True):
                mean.copy_(self.avg_fn(mean.detach(), current.detach(), self.n_averaged))
        else:
            (self.multi_avg_fn or get_swa_multi_avg_fn())(averages, currents, self.n_averaged)
        if not self.use_buffers:
            for mean, current in zip(self.module.buffers(), model.buffers(), strict=True):
                mean.detach().copy_(current.detach())
        self.n_averaged.add_(1)


@bpnn.no_grad()
def update_bn(loader: Iterable[Any], model: nn.Module, device: Any = None) -> None:
    """Compute the running statistics of batch normalization anew, as means over the batches of `loader`.

    For averaged weights, whose statistics nobody has seen. Of a batch that is a tuple or a list the first item is the input; a
    dictionary is given by keywords (bpnn's own). Does nothing to a model without batch normalization.
    """
    momenta = {}
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.reset_running_stats()
            momenta[module] = module.momentum
    if not momenta:
        return
    was_training = model.training
    model.train()
    for module in momenta:
        module.momentum = None
    try:
        for batch in loader:
            if isinstance(batch, Mapping):
                model(**batch)
            else:
                model(batch[0] if isinstance(batch, (list, tuple)) else batch)
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
        model.train(was_training)


class SWALR(LRScheduler):
    """The rate goes from what it is to `swa_lr` over `anneal_epochs` steps, on a cosine or a line, and stays there.

    Args:
        optimizer: see `LRScheduler`.
        swa_lr: a number, or one for each group.
        anneal_epochs: steps until `swa_lr` is reached; 0: at once.
        anneal_strategy: "cos" or "linear".
        last_epoch: see `LRScheduler`.
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10, anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        for rate, group in zip(for_each_group("swa_lr", optimizer, swa_lr), optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self.anneal_epochs, self._anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _done(self, step: int) -> float:
        """How far the rate has gone after `step` steps, from 0 to 1."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[float]:
        """The rates of the next step. The rate before the annealing is what the present one tells."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._done(step - 1), self._done(step)
        rates = []
        for group in self.optimizer.param_groups:
            start = group["swa_lr"] if before == 1 else (group["lr"] - before * group["swa_lr"]) / (1 - before)
            rates.append(group["swa_lr"] * now + start * (1 - now))
        return rates
