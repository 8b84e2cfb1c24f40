"""What the tasks of `bpnn train` share: options of training, and the way from a config to a finished run folder."""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import bpnn
from bpnn.train import Accuracy, BestModel, CheckpointWriter, EarlyStopping, HistoryFile, Progress, StopOnInterrupt, Trainer

from . import build
from .arguments import ranged
from .errors import INTERRUPTED, CliError
from .errors import describe as describe_error
from .run import Run, refuse_taken

# Options --------------------------------------------------------------------------------------------------------------


def add_training_options(training: Any, *, optimizer: str, weight_decay: str, schedule: str, epochs: str, batch_size: str) -> None:
    """The options of the group "training"; the texts say what the defaults are, `schedule` is one."""
    training.add_argument("--optimizer", choices=build.OPTIMIZERS, help=f"default {optimizer}")
    training.add_argument(
        "--lr", type=ranged(float, 0, above=True), help="learning rate, the peak of a schedule (default: suits the optimizer)"
    )
    training.add_argument("--momentum", type=ranged(float, 0, 0.9999), default=0.9, help="of sgd and nesterov (default 0.9)")
    training.add_argument("--weight-decay", type=ranged(float, 0), metavar="W", help=f"default {weight_decay}")
    training.add_argument(
        "--schedule", choices=build.SCHEDULES, default=schedule, help=f"how the learning rate goes (default {schedule})"
    )
    training.add_argument(
        "--warmup", type=ranged(float, 0), default=0.0, metavar="EPOCHS", help="let the learning rate rise over the first epochs"
    )
    training.add_argument(
        "--gamma",
        type=ranged(float, 0, 1, above=True),
        help="factor of the schedules step (default 0.1), exponential (0.9) and plateau (0.5)",
    )
    training.add_argument(
        "--step-size",
        type=ranged(int, 1),
        metavar="EPOCHS",
        help="epochs between the falls of step (default a third of all), or without gain before one of plateau (default 2)",
    )
    training.add_argument("--epochs", type=ranged(int, 1), help=f"default {epochs}")
    training.add_argument("--batch-size", type=ranged(int, 1), metavar="N", help=f"default {batch_size}")
    training.add_argument(
        "--patience", type=ranged(int, 1), metavar="EPOCHS", help="stop after so many epochs without a lower validation loss"
    )
    training.add_argument(
        "--seed", type=ranged(int, 0, 2**63 - 1), default=0, help="of the weights, the order and the split (default 0)"
    )
    training.add_argument("--threads", type=ranged(int, 1, 1024), help="default: all processors")


def add_out(parser: argparse.ArgumentParser, task: str) -> None:
    parser.add_argument("--out", metavar="DIR", help=f"the run folder, new or empty (default: the next free runs/{task}, …)")


def complete(options: argparse.Namespace, defaults: dict[str, Any], samples: str) -> None:
    """Fills in `defaults` and what depends on other options, and refuses what does not go together."""
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.lr is None:
        options.lr = build.LEARNING_RATES[options.optimizer]
    if options.gamma is None:
        options.gamma = build.GAMMAS.get(options.schedule, 1.0)
    if options.step_size is None:
        options.step_size = 2 if options.schedule == "plateau" else max(options.epochs // 3, 1)
    if options.optimizer == "nesterov" and not options.momentum:
        raise CliError("--momentum: nesterov needs one above 0")
    if options.warmup and options.warmup >= options.epochs:
        raise CliError(f"--warmup: expected fewer than the {options.epochs} epochs, got {options.warmup:g}")
    if not options.validation and options.patience:
        raise CliError(f"--patience: needs validation {samples}; give --validation a share above 0")
    if not options.validation and options.schedule == "plateau":
        raise CliError(f"--schedule plateau: needs validation {samples}; give --validation a share above 0")
    if options.threads is None:
        options.threads = bpnn.get_num_threads()
    refuse_taken(options.out)


# Runs -----------------------------------------------------------------------------------------------------------------

UNKEPT = ("run", "task", "resume", "out", "data", "download")


def create_run(task: str, options: argparse.Namespace, data: dict[str, Any]) -> Run:
    """A new run folder whose config has the options and what is to be remembered of the data."""
    kept = {name: value for name, value in sorted(vars(options).items()) if name not in UNKEPT}
    return Run.create(options.out, task, {"created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "data": data, "options": kept})


def prepare(options: argparse.Namespace) -> None:
    """Threads and seed, before anything of a run is made."""
    bpnn.set_num_threads(options.threads)
    bpnn.manual_seed(options.seed)


def make_trainer(run: Run, model: Any, loader: Any, held_out: int, **more: Any) -> Trainer:
    """The trainer of a run for batches of `loader`; `held_out` validation samples choose the epoch. `more`: for `Trainer`."""
    options = argparse.Namespace(**run.config["options"])
    optimizer = build.OPTIMIZERS[options.optimizer](model.parameters(), options)
    callbacks: list[Any] = [StopOnInterrupt(), HistoryFile(run.folder / "history.csv")]
    if held_out:
        callbacks.append(BestModel("val_loss"))
        if options.patience:
            callbacks.append(EarlyStopping("val_loss", options.patience))
    return Trainer(
        model,
        optimizer,
        bpnn.nn.CrossEntropyLoss(),
        metrics=[Accuracy()],
        train_metrics=[Accuracy()],
        scheduler=build.make_schedule(optimizer, options, len(loader)),
        schedule_every="step",
        callbacks=[*callbacks, Progress(), CheckpointWriter(run.checkpoints)],
        log_every=max(1, len(loader) // 20),
        **more,
    )


def may_resume(run: Run) -> bool:
    """Whether there is something left to do; says so where there is not."""
    if run.finished:
        print(f"{run.folder} is finished; nothing to resume")
        return False
    if run.config["bpnn"] != bpnn.__version__:
        print(f"note: {run.folder} was begun with bpnn {run.config['bpnn']}; its last bits may differ with {bpnn.__version__}")
    return True


def fit(run: Run, trainer: Trainer, loader: Any, validation: Any, resumed: bool) -> bool:
    """Trains to the end (True) or until it is interrupted, and says where the run stands."""
    options = run.config["options"]
    writer = next(callback for callback in trainer.callbacks if isinstance(callback, CheckpointWriter))
    print(
        f"train  {options['optimizer']}, learning rate {options['lr']:g} ({options['schedule']}), "
        f"batches of {options['batch_size']}, {options['epochs']} epochs, seed {options['seed']}, threads {options['threads']}"
    )
    if resumed and writer.latest is not None:
        print(f"resume {writer.resume(trainer)}: epoch {trainer.state.epoch + 1}, step {trainer.state.step}", flush=True)
    else:
        print(f"folder {run.folder}", flush=True)
    trainer.fit(loader, validation, options["epochs"])
    if trainer.state.interrupted:
        print(
            f"stopped in epoch {min(trainer.state.epoch + 1, options['epochs'])} after step {trainer.state.step}; "
            f"go on with: bpnn train --resume {run.folder}",
            flush=True,
        )
        return False
    if trainer.state.stopped:
        print(f"stopped early: {trainer.state.stopped}")
    return True


def carry_on(run: Run, work: Callable[[], bool]) -> int:
    """The exit code of `work`, which trains the run and finishes its folder, or returns False where it was interrupted."""
    try:
        return 0 if work() else INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:  # no room, most likely
        raise CliError(f"{describe_error(error)}; what was saved is kept, go on with: bpnn train --resume {run.folder}") from error


# Data that is read again ----------------------------------------------------------------------------------------------


def refuse_other_data(run: Run, found: dict[str, Any], samples: str) -> None:
    """`CliError` unless the data described by `found` is what the run was trained on."""
    wanted = run.config["data"]
    if found["crc32"] != wanted["crc32"]:
        raise CliError(
            f"{run.folder}: was trained on other data ({wanted['name']} from {wanted['source']}, "
            f"{wanted['train']:,} + {wanted['test']:,} {samples}) than found in {found['source']}"
        )


def gone(run: Run) -> CliError:
    """The error where a run's data is not where it was, and nowhere else."""
    return CliError(f"{run.folder}: its data is no longer in {run.config['data']['source']}; set BPNN_DATA to where it is")
