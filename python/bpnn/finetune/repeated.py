"""Many runs of the same settings: cross-validation, and the search of better settings, both resumable.

A folder of cross-validation holds config.json, fold-1.json … with the scores of each fold, and metrics.json. A folder of a search
holds search.log, Optuna's journal, and becomes that of the run with the best settings.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import bpnn
from bpnn.data import DataError
from bpnn.data.tables import Splits, Table

from . import api
from .crossval import CrossValidation, KFold, StratifiedKFold
from .preparation import make_trainer, prepare, refuse_too_much, tell
from .reading import absolute, describe_data, read_all, read_parts
from .run_folder import RunFolder
from .search import Pruning, best_settings
from .search import search as study_of
from .settings import Settings, SettingsError, read_yaml
from .tasks import TASKS

__all__ = ["cross_validate", "search"]

Say = Callable[[str], Any] | None
FIXED = ("task", "data", "train", "validation", "test", "model", "out", "folds", "trials", "search", "force", "threads", "log",
         "validation_share", "test_share", "text", "text_pair", "label", "labels", "seed")  # fmt: skip


# --- cross-validation ------------------------------------------------------------------------------------------------------


def cross_validate(settings: Settings, data: Any, say: Say, write: bool, folder: RunFolder | None = None) -> CrossValidation:
    """Train `settings.folds` times, each time with another part as test part; the scores of each.

    Of what is left of a fold, `validation_share` chooses its best epoch. Classes have the same share in all folds.
    """
    table, k = read_all(settings, data), int(settings.folds or 0)
    task = TASKS[settings.task](settings)
    examples = task.read(Splits(table))["train"]
    labels = [example.label for example in examples] if settings.task in ("classify", "image") else None
    try:
        folds: Any = KFold(k, shuffle=True, random_state=settings.seed) if labels is None else StratifiedKFold(
            k, shuffle=True, random_state=settings.seed
        )
        splits = list(folds.split(range(len(table)), labels))
    except ValueError as error:
        raise DataError(f"{table.path}: {len(table)} examples cannot be cut into {k} folds ({error})") from None
    told = describe_data(settings, {"train": examples})
    if folder is None and write:
        config = {"data": told, "base": {"path": settings.model}, "options": absolute(settings) | {"out": None}, "state": {}}
        folder = RunFolder.create(settings.out, f"{settings.task}-folds", config)
    elif folder is not None and folder.config["data"]["crc32"] != told["crc32"]:
        raise DataError(f"{folder.path}: was begun with other data than found in {told['source']}")
    if folder is not None and say is not None:
        say(f"folder {folder.path}")
    result = CrossValidation()
    for number, (train, test) in enumerate(splits, 1):
        path = None if folder is None else folder.path / f"fold-{number}.json"
        if path is not None and path.is_file():
            scores = json.loads(path.read_text(encoding="utf-8"))
        else:
            scores = _fold(settings, table, train, test, say if number == 1 else None, folder)
            if folder is not None and path is not None:
                folder.write_json(path.name, scores)
        result.folds.append(scores)
        result.tested.append([int(i) for i in test])
        if say is not None:
            say(f"fold {number} of {k}  " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    if say is not None:
        say("mean  " + "  ".join(f"{name} {result.mean[name]:.4f} ± {result.std[name]:.4f}" for name in result.mean))
    if folder is not None:
        folder.write_json("metrics.json", {"folds": result.folds, "mean": result.mean, "std": result.std})
    return result


def _fold(settings: Settings, table: Table, train: Any, test: Any, say: Say, folder: RunFolder | None) -> dict[str, float]:
    """The scores of one fold on its test part."""
    held = round(len(train) * settings.validation_share)
    order = np.random.Generator(np.random.Philox(settings.seed)).permutation(np.asarray(train))
    validation = table.take(np.sort(order[:held])) if held else None
    parts = Splits(table.take(np.sort(order[held:])), validation, table.take(np.asarray(test)))
    ready = prepare(replace(settings, folds=None, out=None), parts)
    refuse_too_much(ready)
    if say is not None:
        tell(ready, say)
    try:
        tuned = api.train(ready, None, {}, None)
    except api.Interrupted:
        again = "" if folder is None else f"; go on with: bpnn finetune --resume {folder.path}"
        raise api.Interrupted(None if folder is None else folder.path, f"stopped within a fold{again}") from None
    kinds = (int, float)
    return {
        name: float(value) for name, value in tuned.metrics["test"].items()
        if isinstance(value, kinds) and not isinstance(value, bool) and name != ready.task.samples
    }


# --- search ----------------------------------------------------------------------------------------------------------------


def search(settings: Settings, data: Any, say: Say, write: bool, folder: RunFolder | None = None) -> Any:
    """Try `settings.trials` settings, judged by the validation part alone, then train with the best; the `Finetuned` of that."""
    parts = read_parts(settings, data)
    if parts.validation is None:
        raise SettingsError("trials: a search needs a validation part; give validation or validation_share")
    plain = replace(settings, trials=None, search=None)
    ready = prepare(plain, parts)
    refuse_too_much(ready)
    space = space_of(settings, ready.lr)
    column, mode = ready.task.monitor
    if folder is None and write:
        config = api.config_of(ready)
        config["options"] |= {"trials": settings.trials, "search": absolute(settings)["search"]}
        folder = RunFolder.create(settings.out, settings.task, config)
    elif folder is not None:
        folder.check_same(ready.data, ready.base)
    if say is not None:
        tell(ready, say)
        say(f"search {settings.trials} trials of {', '.join(space)}" + ("" if folder is None else f"; folder {folder.path}"))
    del ready

    def objective(drawn: dict[str, Any], trial: Any) -> float:
        tried = with_settings(plain, drawn)
        attempt = prepare(tried, parts)
        trainer = make_trainer(attempt, None, None, [Pruning(trial, column)])
        trainer.fit(attempt.loader, attempt.validation, tried.epochs)
        if trainer.state.interrupted:
            again = "" if folder is None else f"; go on with: bpnn finetune --resume {folder.path}"
            raise api.Interrupted(None if folder is None else folder.path, f"stopped within trial {trial.number + 1}{again}")
        values = [value for value in trainer.history[column] if math.isfinite(value)]
        best = (max if mode == "max" else min)(values, default=math.nan)
        if say is not None:
            say(f"trial {trial.number + 1:>3}  {column} {best:.4f}  " + "  ".join(f"{k} {_short(v)}" for k, v in drawn.items()))
        return float(best)

    _quiet_optuna()
    study = study_of(
        objective, space, trials=int(settings.trials or 0), direction="maximize" if mode == "max" else "minimize",
        storage=None if folder is None else folder.path / "search.log", seed=settings.seed,
    )
    chosen = best_settings(study, space)
    final = with_settings(plain, chosen)
    if say is not None:
        say(f"best   trial {study.best_trial.number + 1}  {column} {study.best_value:.4f}  "
            + "  ".join(f"{k} {_short(v)}" for k, v in chosen.items()))
    ready = prepare(final, parts)
    config = api.config_of(ready) | {"search": {"trials": settings.trials, "chosen": chosen, column: study.best_value}}
    if folder is not None:
        folder.config |= config
        folder.write_json("config.json", folder.config)  # from here on it is a run like any other
    return api.train(ready, folder, config if folder is None else folder.config, say)


def space_of(settings: Settings, lr: float) -> dict[str, Any]:
    """What is searched: the YAML file's entries, see `bpnn.finetune.search.suggest`; else rates around the default, and batches."""
    if settings.search is None:
        return {"lr": ["log", lr / 5, lr * 5], "batch_size": [16, 32], "weight_decay": [0.0, 0.01, 0.1]}
    space = read_yaml(settings.search)
    for name, entry in space.items():
        plain = name.replace("-", "_")
        if plain in FIXED:
            raise SettingsError(f"{settings.search}: {name}: cannot be searched")
        if not isinstance(entry, list):
            with_settings(settings, {name: entry}, settings.search)
    if not any(isinstance(entry, list) for entry in space.values()):
        raise SettingsError(f"{settings.search}: expected ranges or choices, such as lr: [log, 1e-5, 1e-3]; got none")
    return space


def with_settings(settings: Settings, drawn: Mapping[str, Any], source: str = "search") -> Settings:
    """Settings with what was drawn, checked as a file's."""
    from .rules import check_together

    values = {name: value for name, value in settings.to_dict().items() if value is not None}
    made = Settings.build({**values, **{name.replace("-", "_"): value for name, value in drawn.items()}}, source=source)
    check_together(made)
    return made


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _quiet_optuna() -> None:
    """No line of Optuna's own for each trial."""
    try:
        import optuna
    except ImportError:
        raise ImportError("trials need Optuna: pip install 'bpnn[finetune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def go_on(run: RunFolder, settings: Settings, data: Any, say: Say) -> Any:
    """Resume the cross-validation or the search of a folder."""
    bpnn.manual_seed(settings.seed)
    return (cross_validate if settings.folds is not None else search)(settings, data, say, True, run)
