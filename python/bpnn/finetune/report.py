"""From a trained model to the rest of its run folder: model, scores, picture, worst mistakes, model card."""
from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bpnn.train import BestModel, draw_curves
from bpnn.utils._files import replacing, write_text

from .card import model_card
from .run_folder import RunFolder
from .settings import Settings
from .stored import make_dense
from .tuned import Finetuned, saves_adapter

__all__ = ["csv_text", "finish", "headline", "write_model"]

WORST = 50


def finish(tuned: Finetuned, ready: Any, folder: RunFolder | None, say: Callable[[str], Any] | None) -> None:
    """Scores on the test part, else on the validation part; with a folder also everything that a run leaves, metrics.json last."""
    task, trainer = tuned.task, tuned.trainer
    part = next((name for name in ("test", "validation") if ready.examples.get(name)), None)
    best = next((callback for callback in trainer.callbacks if isinstance(callback, BestModel)), None)
    metrics: dict[str, Any] = {"epochs": len(trainer.history), "steps": trainer.state.step}
    if best is not None and best.best_epoch:
        row = trainer.history.rows[best.best_epoch - 1]
        metrics |= {"best_epoch": best.best_epoch, "validation": {k[4:]: v for k, v in row.items() if k.startswith("val_")}}
    if len(trainer.history):
        metrics |= {"seconds": sum(trainer.history["seconds"]),
                    "samples_per_second": float(np.mean(trainer.history["samples_per_second"]))}  # fmt: skip
    outputs = None
    if part is not None:
        outputs = task.outputs(tuned.model, ready.datasets[part], ready.eval_batch)
        metrics[part] = {**metrics.get(part, {}), **task.scores(outputs, ready.examples[part])}
    tuned.metrics = metrics
    if folder is not None:
        write_model(folder.model, tuned.model, task, tuned.settings)
        if part is not None:
            rows = task.worst(outputs, ready.examples[part], WORST)
            write_text(folder.path / "worst.csv", csv_text(rows))
        _picture(folder, tuned, metrics.get(part or "", {}), best, say)
        write_text(folder.path / "README.md", model_card(folder.config, metrics))
        folder.write_json("metrics.json", metrics)
    if say is not None:
        chosen = f", weights of epoch {best.best_epoch} of {len(trainer.history)}" if best is not None and best.best_epoch else ""
        if part is not None:
            say(f"{part} {headline(metrics[part], task)}{chosen}")
        if folder is not None:
            names = ("config.json", "model", "history.csv", "metrics.json", "curves.png", "worst.csv", "README.md", "checkpoints")
            say(f"wrote {folder.path}{os.sep}: " + " ".join(name for name in names if (folder.path / name).exists()))


# What is told first of a task's scores
TOLD = {
    "classify": ("accuracy",), "image": ("accuracy",), "tokens": ("f1",), "qa": ("exact_match", "f1"),
    "regress": ("rmse", "pearson"), "embed": ("spearman", "loss"), "lm": ("perplexity",),
}  # fmt: skip


def headline(scores: Mapping[str, Any], task: Any) -> str:
    """The scores that matter most, and of how many examples: `accuracy 87.50 % on 1,821 texts`."""
    parts = [
        f"{name} {100 * scores[name]:.2f} %" if name == "accuracy" else f"{name} {scores[name]:.4g}"
        for name in TOLD[task.name] if isinstance(scores.get(name), (int, float)) and math.isfinite(scores[name])
    ]
    count = scores.get(task.samples)
    return ", ".join(parts) + (f" on {count:,} {task.samples}" if isinstance(count, int) else "")


def write_model(folder: Path, model: Any, task: Any, settings: Settings) -> None:
    """Write model and tokenizer, or the adapter, into a new folder that then takes the place of `folder`."""
    draft = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if saves_adapter(settings):
        model.save_pretrained(draft)
        for part in (getattr(task, "tokenizer", None), getattr(task, "processor", None)):
            if part is not None:
                part.save_pretrained(draft)
    else:
        if settings.base != "float32":  # files hold float32: the numbers that the stored weights stand for
            make_dense(model)
        task.save(merged(model), draft)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(draft, folder)


def merged(model: Any) -> Any:
    """The plain model, adapters merged in."""
    return model.merge_and_unload() if hasattr(type(model), "merge_and_unload") else model


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of like keys as comma-separated values with a header line; lists and dictionaries as JSON."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(value) for name, value in row.items()})
    return text.getvalue()


def cell(value: Any) -> Any:
    """A value as a cell of a table."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple, dict)) else value


def _picture(
    folder: RunFolder, tuned: Finetuned, scores: Mapping[str, Any], best: BestModel | None, say: Callable[[str], Any] | None
) -> None:
    column = tuned.task.monitor[0].removeprefix("val_")
    name = column if column != "loss" else next((m.name for m in tuned.trainer.metrics), "loss")
    title = f"{folder.config['data']['name']} · {tuned.settings.method}"
    if scores:
        title += f" · {headline(scores, tuned.task)}"
    labels = getattr(tuned.task, "labels", None)
    try:
        with replacing(folder.path / "curves.png") as path:
            draw_curves(
                path, tuned.history, scores.get("confusion_matrix"), title, best.best_epoch if best is not None else None, name,
                labels if scores.get("confusion_matrix") is not None else None,
            )
    except ImportError:
        if say is not None:
            say("no curves.png: matplotlib is not installed (pip install 'bpnn[demo]')")
