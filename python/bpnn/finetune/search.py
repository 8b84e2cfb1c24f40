"""Search of hyper-parameters with Optuna (Akiba et al. 2019): trials that go badly are cut off, a search that was stopped goes on.

    from bpnn.finetune.search import Pruning, search

    space = {"lr": ["log", 1e-6, 1e-3], "batch_size": [16, 32], "dropout": ["uniform", 0.0, 0.5], "epochs": 3}

    def objective(settings, trial):
        trainer = make_trainer(settings, callbacks=[Pruning(trial, "val_accuracy")])
        trainer.fit(train, validation, epochs=settings["epochs"])
        return max(trainer.history["val_accuracy"])

    study = search(objective, space, trials=30, direction="maximize", storage="search.db", seed=0)
    study.best_params, study.best_value

Optuna is no part of bpnn: `pip install optuna`.
"""
from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.pretrained.safetensors_file import read_json
from bpnn.train import Callback

from ._options import read_yaml

__all__ = ["Pruning", "best_settings", "read_space", "search", "suggest"]

RANGES = ("uniform", "log", "int", "log_int")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ImportError("searching needs Optuna: pip install optuna") from None
    return optuna


class Pruning(Callback):
    """Reports `monitor` after every epoch to Optuna's trial, and ends the run where its pruner gives the trial up.

    Raises `optuna.TrialPruned`, which the study takes for its end; `KeyError` where the history has no such column. A value
    that is not finite is given up too. A run that is resumed reports each epoch once.
    """

    def __init__(self, trial: Any, monitor: str = "val_loss") -> None:
        self.trial, self.monitor = trial, monitor
        self.reported = 0

    def on_epoch_end(self, trainer: Any) -> None:
        row, epoch = trainer.history.rows[-1], trainer.state.epoch
        if self.monitor not in row:
            raise KeyError(f"monitor: the history has no column {self.monitor!r}; it has {', '.join(row)}")
        value = float(row[self.monitor])
        if epoch > self.reported:
            self.trial.report(value, epoch)
            self.reported = epoch
        if not math.isfinite(value) or self.trial.should_prune():
            raise _optuna().TrialPruned(f"pruned after epoch {epoch} with {self.monitor} {value:.6g}")

    def state_dict(self) -> dict[str, Any]:
        return {"reported": self.reported}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reported = state["reported"]


def suggest(trial: Any, space: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a trial draws from a space, a value a name:

        ["log", 1e-6, 1e-3]      a number, evenly in its logarithm          ["uniform", 0, 0.5]   evenly
        ["int", 1, 8]            a whole number, both ends possible         ["log_int", 8, 512]   evenly in its logarithm
        [16, 32, 64]             one of these, of text, numbers, true, false, null
        3                        always this

    What YAML reads as text, such as 1e-6, is a number in a range. Raises `ValueError` naming the entry that is none of these.
    """
    settings = {}
    for name, entry in space.items():
        if not isinstance(entry, (list, tuple)):
            settings[name] = entry
        elif entry and isinstance(entry[0], str) and entry[0] in RANGES:
            kind, low, high = entry[0], *_ends(name, entry)
            if kind in ("int", "log_int"):
                settings[name] = trial.suggest_int(name, int(low), int(high), log=kind == "log_int")
            else:
                settings[name] = trial.suggest_float(name, low, high, log=kind == "log")
        else:
            if not entry or any(not (value is None or isinstance(value, (str, int, float))) for value in entry):
                raise ValueError(f"space: {name}: expected a range or choices of text, numbers, true, false, null, got {entry!r}")
            settings[name] = trial.suggest_categorical(name, list(entry))
    return settings


def read_space(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The space in a YAML (PyYAML) or JSON file, checked: see `suggest`.

    Raises `ValueError` naming the file and the entry that says nothing.
    """
    space = read_json(os.fspath(path)) if Path(path).suffix == ".json" else read_yaml(path)
    try:
        suggest(_Anything(), space)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return space


class _Anything:
    """A trial that draws nothing, to check a space with."""

    def suggest_float(self, name: str, low: float, high: float, log: bool = False) -> float:
        return low

    def suggest_int(self, name: str, low: int, high: int, log: bool = False) -> int:
        return low

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return choices[0]


def _ends(name: str, entry: Sequence[Any]) -> tuple[float, float]:
    expected = f"space: {name}: expected [{entry[0]!r}, low, high] with numbers in order"
    try:
        _, low, high = entry
        low, high = (float(value) for value in (low, high))
    except (TypeError, ValueError):
        raise ValueError(f"{expected}, got {list(entry)!r}") from None
    whole = entry[0] not in ("int", "log_int") or (low.is_integer() and high.is_integer())
    if not (math.isfinite(low) and math.isfinite(high) and low <= high and whole) or ("log" in entry[0] and low <= 0):
        rule = ", whole" if not whole else ", above 0" if "log" in entry[0] else ""
        raise ValueError(f"{expected}{rule}, got {list(entry)!r}")
    return low, high


def search(
    objective: Callable[..., float], space: Mapping[str, Any] | None = None, *, trials: int = 20, direction: str = "minimize",
    storage: str | os.PathLike[str] | None = None, name: str = "search", seed: int = 0, sampler: Callable[[int], Any] | None = None,
    pruner: Any = None, timeout: float | None = None,
) -> Any:
    """Try `trials` settings, counting those of an earlier call with the same storage; returns Optuna's study.

    Arguments:
        objective: called with (settings, trial), or without a space with the trial; returns what is to be small, or large with
            direction "maximize". It draws its settings from the trial and gives it to `Pruning`. bpnn's generator is seeded before.
        space: see `suggest`.
        storage: where the study is kept: a file of a journal (".log", ".jsonl"), an SQLite file (".db", ".sqlite"), any URL that
            Optuna takes; None: in memory. One process at a time.
        sampler: from a seed to an Optuna sampler; `TPESampler` (Bergstra et al. 2011) by default. pruner: `MedianPruner()`.
        timeout: seconds after which no new trial begins.

    Each trial's sampler is seeded by `seed` and how many trials are done, so a search that was killed and goes on tries what it
    would have tried. What was under way then counts as failed and is tried again. Raises what the objective raises, and
    `ImportError` where Optuna is not installed.
    """
    optuna = _optuna()
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"direction: expected 'minimize' or 'maximize', got {direction!r}")
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
    make = sampler if sampler is not None else lambda own: optuna.samplers.TPESampler(seed=own)
    study = optuna.create_study(
        study_name=name, storage=_storage(optuna, storage), direction=direction, load_if_exists=True,
        pruner=optuna.pruners.MedianPruner() if pruner is None else pruner,
    )
    if study.direction.name.lower() != direction:
        raise ValueError(f"direction: the study in {storage} is to {study.direction.name.lower()}, got {direction!r}")
    state = optuna.trial.TrialState
    for left in study.get_trials(deepcopy=False, states=(state.RUNNING,)):
        study.tell(left.number, state=state.FAIL)

    def run(trial: Any) -> float:
        bpnn.manual_seed(_seed(seed, done, 1))
        return float(objective(trial) if space is None else objective(suggest(trial, space), trial))

    start = _clock()
    while (done := len(study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED)))) < trials:
        if timeout is not None and _clock() - start >= timeout:
            break
        study.sampler = make(_seed(seed, done, 0))
        study.optimize(run, n_trials=1)
        if study.get_trials(deepcopy=False)[-1].state == state.FAIL:  # such as a value of nan
            raise ValueError("objective: expected a finite number, see Optuna's message")
    return study


def best_settings(study: Any, space: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the best trial, with those of the space that never change."""
    fixed = {name: entry for name, entry in space.items() if not isinstance(entry, (list, tuple))}
    return {**fixed, **study.best_params}


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _clock() -> float:
    from time import monotonic

    return monotonic()


def _storage(optuna: Any, place: str | os.PathLike[str] | None) -> Any:
    if place is None or (isinstance(place, str) and re.match(r"[a-z0-9+]+://", place)):
        return place
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        return f"sqlite:///{path}"
    if path.suffix in (".log", ".jsonl", ".journal"):
        backend = optuna.storages.journal.JournalFileBackend
        lock = optuna.storages.journal.JournalFileOpenLock(str(path))  # links, the default, are not on every system
        return optuna.storages.JournalStorage(backend(str(path), lock_obj=lock))
    raise ValueError(f"storage: expected a URL or a file ending in .log, .jsonl, .journal, .db or .sqlite, got {str(place)!r}")
