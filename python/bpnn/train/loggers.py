"""A run's numbers as it goes: into TensorBoard, Weights & Biases, MLflow and Trackio, where they are installed.

    Trainer(model, optimizer, loss, callbacks=[TensorBoard("run/tensorboard", config={"lr": 1e-3}), CheckpointWriter("run")])

Written are `history.steps` as train/loss and train/lr, every `log_every` steps, and each epoch's row of the history under its
step: loss, val_loss, the metrics, lr, seconds, samples_per_second, epoch. `HistoryFile` writes the rows as CSV, always.
A run that is resumed from a checkpoint goes on in the same log; it writes nothing twice that the checkpoint knows of.
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["MLflow", "MetricLogger", "TensorBoard", "Trackio", "WandB"]


class MetricLogger(Callback):
    """Base: a subclass writes `open`, `write` and `close`.

    config: settings of the run, written when it begins; numbers, text, true, false, null.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config = dict(config or {})
        self.run_id: str | None = None  # what the service calls the run
        self._steps = self._rows = 0  # how much of the history is written
        self._open = False

    def open(self, step: int) -> None:
        """Begin the run, or go on with it behind `step`."""
        raise TypeError(f"{type(self).__name__} has no open")

    def write(self, values: dict[str, float], step: int) -> None:
        """Write values by name."""
        raise TypeError(f"{type(self).__name__} has no write")

    def close(self) -> None:
        """End the run; all that was written is kept."""
        raise TypeError(f"{type(self).__name__} has no close")

    def on_fit_start(self, trainer: Trainer) -> None:
        self.open(trainer.state.step)
        self._open = True

    def on_step_end(self, trainer: Trainer) -> None:
        steps = trainer.history.steps
        for step, loss, rate in steps[self._steps :]:
            self.write({"train/loss": loss, "train/lr": rate}, int(step))
        self._steps = len(steps)

    def on_epoch_end(self, trainer: Trainer) -> None:
        rows = trainer.history.rows
        for row in rows[self._rows :]:
            self.write({name: float(value) for name, value in row.items() if name != "step"}, int(row["step"]))
        self._rows = len(rows)

    def on_fit_exit(self, trainer: Trainer) -> None:
        if self._open:
            self._open = False
            self.close()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "rows": self._rows, "run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self._rows, self.run_id = state["steps"], state["rows"], state["run_id"]


class TensorBoard(MetricLogger):
    """Event files for TensorBoard in `folder`, by tensorboardX; look at them with `tensorboard --logdir FOLDER`.

    What a killed run wrote after the checkpoint that it is resumed from is not shown: the file that follows says so.
    """

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.folder = os.fspath(folder)
        self._module = _installed("tensorboardX")
        self._writer: Any = None

    def open(self, step: int) -> None:
        self._writer = self._module.SummaryWriter(
            self.folder, purge_step=step + 1 if step else None,
            filename_suffix=f".{step:09d}",  # names have whole seconds: a second run in one of them would overwrite the first
        )
        if self.config and not step:
            lines = "\n".join(f"    {name}: {value}" for name, value in self.config.items())
            self._writer.add_text("config", lines, 0)

    def write(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
        self._writer = None


class WandB(MetricLogger):
    """A run of Weights & Biases. `options` go to `wandb.init`, such as `entity`, `mode="offline"`, `dir`, `tags`."""

    def __init__(
        self, project: str | None = None, name: str | None = None, config: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(config)
        self.project, self.name, self.options = project, name, options
        self._module = _installed("wandb")
        self._run: Any = None

    def open(self, step: int) -> None:
        again = {} if self.run_id is None else {"id": self.run_id, "resume": "allow"}
        self._run = self._module.init(project=self.project, name=self.name, config=self.config, **again, **self.options)
        self.run_id = str(self._run.id)

    def write(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()
        self._run = None


class MLflow(MetricLogger):
    """A run of MLflow, in `experiment` on the server or folder `tracking_uri` (None: what MLflow's environment says)."""

    def __init__(
        self, experiment: str | None = None, name: str | None = None, config: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(config)
        self.experiment, self.name, self.tracking_uri = experiment, name, tracking_uri
        self._module = _installed("mlflow")

    def open(self, step: int) -> None:
        if self.tracking_uri is not None:
            self._module.set_tracking_uri(self.tracking_uri)
        if self.experiment is not None:
            self._module.set_experiment(self.experiment)
        fresh = self.run_id is None
        run = self._module.start_run(run_name=self.name) if fresh else self._module.start_run(run_id=self.run_id)
        self.run_id = str(run.info.run_id)
        if fresh and self.config:
            self._module.log_params(self.config)

    def write(self, values: dict[str, float], step: int) -> None:
        self._module.log_metrics(values, step=step)

    def close(self) -> None:
        self._module.end_run()


class Trackio(MetricLogger):
    """A run of Trackio, which keeps it on this computer. `options` go to `trackio.init`, such as `space_id`."""

    def __init__(self, project: str, name: str | None = None, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(config)
        self.project, self.run_id, self.options = project, name, options
        self._module = _installed("trackio")

    def open(self, step: int) -> None:
        again = {"resume": "allow"} if step else {}
        run = self._module.init(project=self.project, name=self.run_id, config=self.config, **again, **self.options)
        self.run_id = str(run.name)

    def write(self, values: dict[str, float], step: int) -> None:
        self._module.log(values, step=step)

    def close(self) -> None:
        self._module.finish()


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"this logger needs {name}: pip install {name} ({error})") from None
