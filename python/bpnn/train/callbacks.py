"""What a trainer does beside training: stop early, keep the best weights, write checkpoints, stop on Ctrl-C."""
from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import bpnn

from .checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["BestModel", "Callback", "CheckpointWriter", "EarlyStopping", "StopOnInterrupt"]


class Callback:
    """Base: override what you need. `trainer.state` says where the run stands, `trainer.history` what happened so far.

    A callback that remembers something between epochs returns it from `state_dict` (dictionaries and lists of arrays,
    numbers and strings), so that a resumed run goes on like an uninterrupted one.
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first epoch of this call of `fit`."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch, or the first after a resume within it."""

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        """Before a batch is trained on; returns the batch that is, of as many samples."""
        return batch

    def on_loss(self, trainer: Trainer, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        """Between forward and backward; returns the scalar that is minimized. Not called in `evaluate`."""
        return loss

    def on_backward_end(self, trainer: Trainer, batch: Any, weight: float) -> None:
        """After the backward pass of a batch, `weight` of the step's samples, before gradients are clipped: more may be added.

        `trainer.training_loss(batch)` gives the loss once more.
        """

    def on_step_end(self, trainer: Trainer) -> None:
        """After every update of the weights."""

    def on_evaluate_start(self, trainer: Trainer) -> None:
        """Before every `evaluate`."""

    def on_evaluate_end(self, trainer: Trainer) -> None:
        """After every `evaluate`, the one of each epoch included."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After an epoch: its row is in the history, the scheduler is stepped, `state.epoch` counts it."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, or when training was stopped; not after an error."""

    def on_fit_exit(self, trainer: Trainer) -> None:
        """When `fit` ends, after an error too: give back what you hold."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _Monitor(Callback):
    """Follows a column of the history and remembers its best value."""

    def __init__(self, monitor: str = "val_loss", mode: str = "min", min_delta: float = 0.0) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode: expected 'min' or 'max', got {mode!r}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta: expected 0 or more, got {min_delta}")
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta
        self.best: float | None = None
        self.best_epoch = 0

    def improved(self, trainer: Trainer) -> bool:
        """Whether the last epoch is the best so far; remembers it if so. nan is never better."""
        row = trainer.history.rows[-1]
        if self.monitor not in row:
            raise KeyError(f"monitor: the history has no column {self.monitor!r}; it has {', '.join(row)}")
        value = row[self.monitor]
        gain = 0.0 if self.best is None else (self.best - value if self.mode == "min" else value - self.best)
        if math.isnan(value) or (self.best is not None and not gain > self.min_delta):
            return False
        self.best, self.best_epoch = value, trainer.state.epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]


class EarlyStopping(_Monitor):
    """Stops when `monitor` has not improved by more than `min_delta` for `patience` epochs."""

    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, mode: str = "min", min_delta: float = 0.0
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if patience < 1:
            raise ValueError(f"patience: expected at least 1, got {patience}")
        self.patience = patience

    def on_epoch_end(self, trainer: Trainer) -> None:
        if not self.improved(trainer) and trainer.state.epoch - self.best_epoch >= self.patience:
            trainer.stop(f"{self.monitor} has not improved for {self.patience} epochs")


class BestModel(_Monitor):
    """Keeps a copy of the weights of the best epoch; puts them back at the end unless `restore=False`.

    `weights` is that copy, a state dictionary of arrays, and `best_epoch` counts from 1.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "min", restore: bool = True) -> None:
        super().__init__(monitor, mode)
        self.restore = restore
        self.weights: dict[str, Any] | None = None

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self.improved(trainer):
            self.weights = {name: np.array(value.detach().numpy()) for name, value in trainer.model_state().items()}

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.restore and self.weights is not None and not trainer.state.interrupted:
            trainer.load_model_state({name: bpnn.from_numpy(value) for name, value in self.weights.items()})

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.weights = state["weights"]


class CheckpointWriter(Callback):
    """Writes a checkpoint of the whole run into `folder` after every epoch, every `every_steps` steps, and when interrupted.

    The last `keep` are kept. `resume(trainer)` puts a trainer where the last good one stands. Weights that are not finite
    are never written: training stops, and the last good checkpoint stays.
    """

    def __init__(self, folder: str | os.PathLike[str], every_steps: int | None = None, keep: int = 2) -> None:
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"every_steps: expected at least 1, got {every_steps}")
        self.folder, self.every_steps, self.keep = Path(folder), every_steps, keep
        self._saved: tuple[int, int] | None = None  # (step, epoch) of the last one

    @property
    def latest(self) -> Path | None:
        """The path of the last checkpoint, or None."""
        return latest_checkpoint(self.folder)

    def save(self, trainer: Trainer) -> Path | None:
        """Writes a checkpoint unless this very state was the last one written."""
        state = trainer.state
        if self._saved == (state.step, state.epoch):
            return self.latest
        for name, value in trainer.model_state().items():
            array = value.detach().numpy()
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                trainer.fail(f"{name} has values that are not finite after", done=1)
        saved = trainer.state_dict()
        components = {name: saved.pop(name) for name in ("model", "optimizer")} | {"run": saved}
        info = {"epoch": state.epoch, "step": state.step}
        path = save_checkpoint(self.folder, state.step, components, info, keep=self.keep)
        self._saved = (state.step, state.epoch)
        return path

    def resume(self, trainer: Trainer) -> Path:
        """Loads the last good checkpoint into `trainer` and returns its path; `CheckpointError` where there is none."""
        checkpoint = load_checkpoint(self.folder)
        trainer.load_state_dict({name: checkpoint[name] for name in ("model", "optimizer")} | checkpoint["run"])
        return checkpoint.path

    def on_fit_start(self, trainer: Trainer) -> None:
        if not trainer.state.step and self.latest is not None:
            raise ValueError(
                f"folder: {self.folder} holds checkpoints of a run already; go on with it by resume(trainer), or choose another"
            )

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every_steps is not None and trainer.state.step % self.every_steps == 0:
            self.save(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.save(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        if trainer.state.interrupted:
            self.save(trainer)


class StopOnInterrupt(Callback):
    """Ctrl-C once ends training after the present step, in good order; twice ends the process at once.

    What is to be resumed must be saved by a `CheckpointWriter` beside it. Does nothing outside the main thread, where Python
    delivers no signals.
    """

    def __init__(self, message: str = "stopping after this step; Ctrl-C again stops at once") -> None:
        self.message = message
        self.asked = False
        self._before: Any = None

    def _on_signal(self, number: int, frame: Any) -> None:
        self.asked = True
        # The system's own handler: it ends the process even if Python is busy in a long kernel.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.write(2, f"\n{self.message}\n".encode())

    def on_fit_start(self, trainer: Trainer) -> None:
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)

    def on_step_end(self, trainer: Trainer) -> None:
        if self.asked and not trainer.state.stopped:
            trainer.stop("interrupted", interrupted=True)

    on_epoch_end = on_step_end

    def on_fit_exit(self, trainer: Trainer) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
