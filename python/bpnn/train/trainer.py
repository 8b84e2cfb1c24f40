"""The training loop: batches in, a trained model and its history out."""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import bpnn
from bpnn.nn.utils import clip_grad_norm_, clip_grad_value_
from bpnn.optim.lr_scheduler import ReduceLROnPlateau

from .batches import batch_size, groups, join, loss_of, prediction_of, split_batch
from .callbacks import Callback, CheckpointWriter
from .checkpoint import get_rng_states, set_rng_states
from .history import History
from .streaming import Metric

__all__ = ["NonFiniteLoss", "State", "Trainer"]


class NonFiniteLoss(ArithmeticError):
    """The loss or the gradient became infinite or nan; training stopped before the weights were updated with it."""


@dataclass
class State:
    """Where a training run stands. `epoch` and `step` count what is done, in all; `batch` and what follows it, this epoch."""

    epochs: int = 0  # asked for
    epoch: int = 0
    step: int = 0  # optimizer steps
    batch: int = 0
    drained: bool = False  # no batch of this epoch is left
    samples: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0  # of the samples' losses
    loss: float = math.nan  # of the latest step
    lr: float = math.nan  # used in the latest step
    stopped: str = ""  # why training stopped before `epochs`
    interrupted: bool = False  # stopped by request, to be resumed

    @property
    def mean_loss(self) -> float:
        """The mean training loss of the epoch so far."""
        return self.loss_sum / self.samples if self.samples else math.nan


class Trainer:
    """Trains `model` to make `loss(output, target)` small.

        trainer = Trainer(model, bpnn.optim.Adam(model.parameters()), nn.CrossEntropyLoss(), metrics=[Accuracy()])
        history = trainer.fit(train_loader, validation_loader, epochs=10)
        trainer.evaluate(test_loader)                       # {"loss": 0.06, "accuracy": 0.98}
        trainer.predict(x)                                  # a Tensor

    Arguments:
        loss: any callable of (output, target) that returns a scalar tensor, the mean over the samples; called with the
            output alone where a batch has no target. None: the model gets the whole batch and returns the loss (a scalar,
            or something with a `loss` and perhaps `logits`).
        metrics: streaming metrics computed by `evaluate`; in the history their names begin with `val_`.
        train_metrics: streaming metrics of the training batches, as the model was when it saw them.
        scheduler: stepped after every "epoch" or "step", as `schedule_every` says; a `ReduceLROnPlateau` is stepped every
            epoch with the history's column `monitor` ("val_loss" where there is validation data, else "loss").
        callbacks: see `bpnn.train.Callback`; called in this order, checkpoints last.
        accumulate: batches a step. Their gradients are weighted by samples: as if they were one large batch.
        clip_norm, clip_value: limits on the gradient, its norm over all that the optimizer updates or each component.
        target_key: which entry of a dictionary batch is the target.
        log_every: steps between the entries of `history.steps`.
        save_frozen: False: checkpoints and `BestModel` hold of the model only what the optimizer owns, and the buffers. The rest
            must be there already when a run is resumed: frozen weights of a pretrained model.

    For anything else override `compute_loss`.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Callable[..., Any] | None = None,
        *,
        metrics: Sequence[Metric] = (),
        train_metrics: Sequence[Metric] = (),
        scheduler: Any = None,
        schedule_every: str = "epoch",
        monitor: str | None = None,
        callbacks: Sequence[Callback] = (),
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        target_key: str = "labels",
        log_every: int = 50,
        save_frozen: bool = True,
    ) -> None:
        if schedule_every not in ("epoch", "step"):
            raise ValueError(f"schedule_every: expected 'epoch' or 'step', got {schedule_every!r}")
        for name, value in (("accumulate", accumulate), ("log_every", log_every)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{name}: expected a positive number, got {limit}")
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.metrics, self.train_metrics = list(metrics), list(train_metrics)
        self.scheduler, self.schedule_every, self.monitor = scheduler, schedule_every, monitor
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, CheckpointWriter))
        self.accumulate, self.clip_norm, self.clip_value = accumulate, clip_norm, clip_value
        self.target_key, self.log_every, self.save_frozen = target_key, log_every, save_frozen
        self.state, self.history = State(), History()
        self.loader: Any = None
        self.validation: Any = None
        self._pending: dict[str, Any] = {}
        self._logged = (0.0, 0)  # loss_sum and samples at the last entry of history.steps

    # One batch --------------------------------------------------------------------------------------------------------

    def compute_loss(self, batch: Any) -> tuple[Any, Any, Any]:
        """(loss, output, target) of a batch; the metrics see the target and the output, or its `logits` where it has them."""
        args, inputs, target = split_batch(batch, self.target_key)
        if self.loss is not None:
            output = self.model(*args, **inputs)
            return (self.loss(output) if target is None else self.loss(output, target)), output, target
        if isinstance(batch, Mapping):
            output = self.model(**batch)
        else:
            output = self.model(*(batch if isinstance(batch, (tuple, list)) else (batch,)))
        return loss_of(output), output, target

    def training_loss(self, batch: Any) -> tuple[Any, Any, Any]:
        """`compute_loss`, and what the callbacks make of the loss: what is minimized. Raises `NonFiniteLoss`."""
        loss, output, target = self.compute_loss(batch)
        for callback in self._with("on_loss"):
            loss = callback.on_loss(self, batch, loss, output, target)
        value = loss.item()
        if not math.isfinite(value):
            self.state.loss = value
            self.fail("the loss is not finite at")
        return loss, output, target

    def owned_parameters(self) -> list[Any]:
        """What the optimizer updates: the model's parameters, some of them, or others too."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _with(self, hook: str) -> list[Callback]:
        """The callbacks that have a hook of their own."""
        return [callback for callback in self.callbacks if getattr(type(callback), hook) is not getattr(Callback, hook)]

    def _step(self, group: tuple[Any, ...]) -> None:
        """One update of the weights from one or more batches."""
        state, optimizer = self.state, self.optimizer
        optimizer.zero_grad()
        sizes = [batch_size(batch) for batch in group]
        total = sum(sizes)
        state.lr = optimizer.param_groups[0]["lr"]
        mean = 0.0
        before, after = self._with("on_batch"), self._with("on_backward_end")
        for batch, size in zip(group, sizes, strict=True):
            for callback in before:
                batch = callback.on_batch(self, batch)
            loss, output, target = self.training_loss(batch)
            mean += loss.item() * (size / total)
            (loss if size == total else loss * (size / total)).backward()
            for callback in after:
                callback.on_backward_end(self, batch, size / total)
            for metric in self.train_metrics:
                metric.update(prediction_of(output), target)
        if self.clip_norm is not None:
            norm = float(clip_grad_norm_(self.owned_parameters(), self.clip_norm))
            if not math.isfinite(norm):
                state.loss = mean
                self.fail(f"the norm of the gradient is {norm} at")
        if self.clip_value is not None:
            clip_grad_value_(self.owned_parameters(), self.clip_value)
        optimizer.step()
        if self.scheduler is not None and self.schedule_every == "step" and not self._plateau:
            self.scheduler.step()
        state.step += 1
        state.batch += len(group)
        state.samples += total
        state.loss_sum += mean * total
        state.loss = mean

    def fail(self, trouble: str, done: int = 0) -> NoReturn:
        """Raises `NonFiniteLoss` saying where the run stands and which checkpoint is the last."""
        state = self.state
        message = (
            f"{trouble} step {state.step + 1 - done} (epoch {state.epoch + 1}, batch {state.batch + 1 - done}, "
            f"loss {state.loss:g}, learning rate {state.lr:g}); try a lower learning rate or clipped gradients, "
            "and look for nan or inf in the data"
        )
        kept = [callback.latest for callback in self.callbacks if isinstance(callback, CheckpointWriter) and callback.latest]
        raise NonFiniteLoss(message + "".join(f"; the last good checkpoint is {path}" for path in kept))

    # Many batches -----------------------------------------------------------------------------------------------------

    @property
    def _plateau(self) -> bool:
        return isinstance(self.scheduler, ReduceLROnPlateau)

    def fit(self, loader: Iterable[Any], validation: Iterable[Any] | None = None, epochs: int = 1) -> History:
        """Train until `epochs` epochs are done in all, counting those done before; returns the history.

        After `load_state_dict` it goes on where the saved run stood, within an epoch too, and with the same bits.
        """
        if epochs < 0:
            raise ValueError(f"epochs: expected 0 or more, got {epochs}")
        self.loader, self.validation = loader, validation
        self._restore_loaders()
        state = self.state
        state.epochs = epochs
        if state.interrupted:
            state.interrupted, state.stopped = False, ""
        try:
            self._call("on_fit_start")
            while state.epoch < epochs and not state.stopped:
                self._epoch(loader, validation)
            self._call("on_fit_end")
        finally:
            self._call("on_fit_exit")
        return self.history

    def _epoch(self, loader: Iterable[Any], validation: Iterable[Any] | None) -> None:
        state = self.state
        self._call("on_epoch_start")
        self.model.train()
        on_step_end = [callback.on_step_end for callback in self._with("on_step_end")]
        before = time.perf_counter()
        for group in groups(self._remaining(loader), self.accumulate):
            self._step(group)
            state.drained = len(group) < self.accumulate
            if state.step % self.log_every == 0:
                self._log_step()
            now = time.perf_counter()
            state.seconds, before = state.seconds + now - before, now
            for call in on_step_end:
                call(self)
            if state.stopped:
                return
        if not state.samples:
            raise ValueError("loader: expected at least one batch, got none")
        row = {"epoch": state.epoch + 1, "step": state.step, "loss": state.mean_loss}
        row |= {metric.name: metric.compute() for metric in self.train_metrics}
        if validation is not None:
            row |= {f"val_{name}": value for name, value in self.evaluate(validation).items()}
        row |= {"lr": state.lr, "seconds": state.seconds, "samples_per_second": state.samples / max(state.seconds, 1e-9)}
        self.history.rows.append({name: value for name, value in row.items() if isinstance(value, (int, float))})
        self._schedule_epoch()
        state.epoch += 1
        state.batch = state.samples = 0
        state.loss_sum = state.seconds = 0.0
        state.drained = False
        self._logged = (0.0, 0)
        for metric in self.train_metrics:
            metric.reset()
        self._call("on_epoch_end")

    def _remaining(self, loader: Iterable[Any]) -> Iterable[Any]:
        """The batches of this epoch that are still to come."""
        done = self.state.batch
        if self.state.drained:
            return ()
        if not done:
            return loader
        if hasattr(loader, "load_state_dict") and hasattr(loader, "state_dict"):
            loader.load_state_dict(loader.state_dict())  # the next pass is the rest of this one
            return loader
        rng = get_rng_states()
        batches = iter(loader)
        for _ in range(done):
            next(batches, None)
        set_rng_states(rng)
        return batches

    def _schedule_epoch(self) -> None:
        if self.scheduler is None or (self.schedule_every == "step" and not self._plateau):
            return
        if not self._plateau:
            self.scheduler.step()
            return
        row = self.history.rows[-1]
        column = self.monitor or ("val_loss" if "val_loss" in row else "loss")
        if column not in row:
            raise KeyError(f"monitor: the history has no column {column!r}; it has {', '.join(row)}")
        self.scheduler.step(row[column])

    def _log_step(self) -> None:
        state = self.state
        loss_sum, samples = self._logged
        if state.samples > samples:
            mean = (state.loss_sum - loss_sum) / (state.samples - samples)
            self.history.steps.append([state.step, mean, state.lr])
        self._logged = (state.loss_sum, state.samples)

    def evaluate(self, loader: Iterable[Any], metrics: Sequence[Metric] | None = None) -> dict[str, Any]:
        """The mean loss over the samples of `loader` and the metrics (the trainer's, unless given); nothing is trained."""
        metrics = self.metrics if metrics is None else metrics
        for metric in metrics:
            metric.reset()
        self._call("on_evaluate_start")
        training = self.model.training
        self.model.eval()
        loss_sum = samples = 0
        try:
            with bpnn.no_grad():
                for batch in loader:
                    loss, output, target = self.compute_loss(batch)
                    size = batch_size(batch)
                    loss_sum += loss.item() * size
                    samples += size
                    for metric in metrics:
                        metric.update(prediction_of(output), target)
        finally:
            self.model.train(training)
        self._call("on_evaluate_end")
        return {"loss": loss_sum / samples if samples else math.nan} | {m.name: m.compute() for m in metrics}

    def predict(self, inputs: Any, batch_size: int = 256) -> Any:
        """The model's outputs for a loader (targets in its batches are left aside), or for a tensor or array of inputs.

        A tensor is fed in pieces of `batch_size` samples. Returns one Tensor, or what the model returns field by field.
        """
        if hasattr(inputs, "ndim"):
            whole = inputs if isinstance(inputs, bpnn.Tensor) else bpnn.from_numpy(inputs)
            inputs = [whole[i : i + batch_size] for i in range(0, len(whole), batch_size)]
        training = self.model.training
        self.model.eval()
        outputs = []
        try:
            with bpnn.no_grad():
                for batch in inputs:
                    args, named, _ = split_batch(batch, self.target_key)
                    outputs.append(self.model(*args, **named))
        finally:
            self.model.train(training)
        if not outputs:
            raise ValueError("inputs: expected at least one sample, got none")
        return join(outputs)

    # Stopping and going on --------------------------------------------------------------------------------------------

    def stop(self, reason: str, interrupted: bool = False) -> None:
        """Ask `fit` to end, after the present step or, from `on_epoch_end`, before the next epoch.

        An interrupted run is not at its end: a checkpoint of it resumes, and the best weights are not restored.
        """
        self.state.stopped, self.state.interrupted = reason, interrupted

    def _call(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how the run goes on, as nested dictionaries and lists of tensors, arrays, numbers and strings."""
        state: dict[str, Any] = {
            "state": asdict(self.state) | {"logged": list(self._logged)},
            "model": self.model_state(),
            "optimizer": self.optimizer.state_dict(),
            "rng": get_rng_states(),
            "history": self.history.state_dict(),
            "train_metrics": [metric.state_dict() for metric in self.train_metrics],
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }
        for name in ("scheduler", "loader", "validation"):
            part = getattr(self, name)
            if hasattr(part, "state_dict"):
                state[name] = part.state_dict()
        return state

    def model_state(self) -> dict[str, Any]:
        """The model's state dictionary; without frozen parameters where `save_frozen` says so."""
        state = self.model.state_dict(keep_vars=True)
        if not self.save_frozen:
            owned = {id(parameter) for parameter in self.owned_parameters()}
            state = {name: t for name, t in state.items() if id(t) in owned or not isinstance(t, bpnn.nn.Parameter)}
        return {name: tensor.detach() for name, tensor in state.items()}

    def load_model_state(self, state: dict[str, Any]) -> None:
        """Puts back what `model_state` gave. Raises `RuntimeError` naming what is missing or unexpected."""
        if not self.save_frozen:
            state = self.model.state_dict() | state
        self.model.load_state_dict(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the run where it was saved. The trainer must be built as it was then; give `fit` the same data."""
        for name, ours in (("callbacks", self.callbacks), ("train_metrics", self.train_metrics)):
            if len(state[name]) != len(ours):
                raise ValueError(f"{name}: the saved run has {len(state[name])}, this trainer {len(ours)}")
        if ("scheduler" in state) != (self.scheduler is not None):
            has = ("has", "this trainer has none") if "scheduler" in state else ("has no", "this trainer has one")
            raise ValueError(f"scheduler: the saved run {has[0]} scheduler, {has[1]}")
        self.load_model_state(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.history.load_state_dict(state["history"])
        parts: list[Any] = [*self.train_metrics, *self.callbacks]
        for part, saved in zip(parts, state["train_metrics"] + state["callbacks"], strict=True):
            part.load_state_dict(saved)
        values = dict(state["state"])
        self._logged = tuple(values.pop("logged"))
        self.state = State(**values)
        set_rng_states(state["rng"])
        self._pending = {name: state[name] for name in ("loader", "validation", "rng") if name in state}

    def _restore_loaders(self) -> None:
        """The rest of `load_state_dict`, for which `fit` must have told the loaders."""
        for name in ("loader", "validation"):
            part = getattr(self, name)
            if name in self._pending and hasattr(part, "load_state_dict"):
                part.load_state_dict(self._pending[name])
        if "rng" in self._pending:  # again: making loaders and models may have drawn from it
            set_rng_states(self._pending["rng"])
        self._pending = {}
