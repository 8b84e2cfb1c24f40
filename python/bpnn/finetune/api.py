"""`bpnn.finetune(model, data, …)`: from a pretrained model and data to a good model, in one call; and `resume`.

    tuned = bpnn.finetune("all-MiniLM-L6-v2/", "reviews.csv", task="classify", method="lora", out="runs/mine")
    tuned = resume("runs/mine")                        # after Ctrl-C, a crash or kill -9: the same weights, bit for bit
"""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bpnn
from bpnn.train import CheckpointWriter
from bpnn.train.checkpoint import latest_checkpoint

from .preparation import Prepared, make_trainer, prepare, refuse_too_much, tell
from .reading import absolute, read_parts
from .report import finish
from .rules import check_together
from .run_folder import RunFolder, refuse_taken
from .settings import Settings, SettingsError, read_yaml
from .tuned import Finetuned

__all__ = ["Finetuned", "Interrupted", "finetune", "resume"]


class Interrupted(Exception):
    """Training was stopped by Ctrl-C; `folder` is the run to go on with, None where nothing was written."""

    def __init__(self, folder: Path | None, message: str) -> None:
        super().__init__(message)
        self.folder = folder


def finetune(
    model: str | os.PathLike[str] | None = None, data: Any = None, task: str | None = None, *,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None, verbose: bool = True, **options: Any,
) -> Any:
    """Fine-tune a pretrained model on data; returns a `Finetuned`, or with `folds` a `CrossValidation` of scores.

    model: a model folder, a name of the hub, or a `.gguf` file. data: a table's file (.csv, .tsv, .jsonl, .parquet …), a folder of
    such files named train, validation and test, a folder of images, an address of fsspec; or data in memory: a `Table`, a list of
    dictionaries, a dictionary of lists, (texts, labels), or a dictionary of parts. task: classify (the default), regress, tokens,
    qa, embed, lm or image. config: a YAML file, or a dictionary, of options; the arguments go first. options: the fields of
    `Settings`; of these `out` is the folder that the run leaves, without it nothing is written. verbose: say what is done.

    Raises `SettingsError` and `DataError`, before training wherever that is possible; `Interrupted` after Ctrl-C;
    `NonFiniteLoss`.
    """
    given = {"model": model, "task": task} | options
    source = "config"
    if isinstance(data, (str, os.PathLike)):
        given["data"], data = os.fspath(data), None
    if config is not None and not isinstance(config, Mapping):
        source, config = os.fspath(config), read_yaml(config)
    settings = Settings.build(config or {}, {name: value for name, value in given.items() if value is not None}, source)
    return run_settings(settings, data, print if verbose else None, write=settings.out is not None)


def run_settings(settings: Settings, data: Any = None, say: Callable[[str], Any] | None = print, write: bool = True) -> Any:
    """A new run of `settings`; `write`: into a folder, the next free one where `settings.out` names none."""
    check_together(settings)
    if write:
        refuse_taken(settings.out)
    if settings.folds is not None or settings.trials is not None:
        from .repeated import cross_validate, search

        return (cross_validate if settings.folds is not None else search)(settings, data, say, write)
    ready = prepare(settings, read_parts(settings, data))
    refuse_too_much(ready)
    if say is not None:
        tell(ready, say)
    config = config_of(ready)
    folder = RunFolder.create(settings.out, settings.task, config) if write else None
    if folder is not None and say is not None:
        say(f"folder {folder.path}")
    return train(ready, folder, config if folder is None else folder.config, say)


def config_of(ready: Prepared) -> dict[str, Any]:
    """What config.json holds besides the version: enough to build everything again."""
    options = absolute(ready.settings) | {"out": None, "threads": bpnn.get_num_threads(), "lr": ready.lr}
    return {"data": ready.data, "base": ready.base, "options": options, "state": ready.task.state()}


def resume(folder: str | os.PathLike[str], data: Any = None, verbose: bool = True) -> Any:
    """Go on with the run in `folder` where its last checkpoint stands; the result has the bits of a run that was never stopped.

    data: what the run was given, where that was in memory. Raises as `finetune`, and where data or base model are not the same.
    """
    say: Callable[[str], Any] | None = print if verbose else None
    run = RunFolder.open(folder)
    if run.finished:
        if say is not None:
            say(f"{run.path} is finished; nothing to resume")
        return Finetuned.load(folder)
    if run.config["bpnn"] != bpnn.__version__ and say is not None:
        say(f"note: {run.path} was begun with bpnn {run.config['bpnn']}; its last bits may differ with {bpnn.__version__}")
    if run.config["data"]["source"] == "memory" and data is None:
        raise SettingsError(f"{run.path}: its data was in memory; give it again: resume(folder, data)")
    settings = run.settings
    if settings.folds is not None or settings.trials is not None:
        from .repeated import go_on

        return go_on(run, settings, data, say)
    ready = prepare(settings, read_parts(settings, data))
    run.check_same(ready.data, ready.base)
    refuse_too_much(ready)
    if say is not None:
        tell(ready, say)
    return train(ready, run, run.config, say, resumed=True)


def train(
    ready: Prepared, folder: RunFolder | None, config: dict[str, Any], say: Callable[[str], Any] | None, resumed: bool = False
) -> Finetuned:
    """Training of what is prepared, and everything after it; `config`: what the result remembers where there is no folder."""
    trainer = make_trainer(ready, folder, say)
    if resumed and folder is not None and latest_checkpoint(folder.checkpoints) is not None:
        writer = next(callback for callback in trainer.callbacks if isinstance(callback, CheckpointWriter))
        path = writer.resume(trainer)
        if say is not None:
            say(f"resume {path}: epoch {trainer.state.epoch + 1}, step {trainer.state.step}")
    trainer.fit(ready.loader, ready.validation, ready.settings.epochs)
    bpnn.empty_cache()  # activations' room is no use to the scores
    if trainer.state.interrupted:
        where = f"epoch {min(trainer.state.epoch + 1, ready.settings.epochs)} after step {trainer.state.step}"
        raise Interrupted(
            None if folder is None else folder.path,
            f"stopped in {where}" + ("" if folder is None else f"; go on with: bpnn finetune --resume {folder.path}"),
        )
    if trainer.state.stopped and say is not None:
        say(f"stopped early: {trainer.state.stopped}")
    ready.model.eval()
    tuned = Finetuned(
        ready.model, ready.task, ready.settings, config=config, history=trainer.history, trainer=trainer,
        folder=None if folder is None else folder.path,
    )
    finish(tuned, ready, folder, say)
    return tuned
