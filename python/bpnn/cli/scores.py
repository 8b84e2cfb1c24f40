"""From a trained model to the rest of its run folder, and scores as text."""
from __future__ import annotations

import os
from typing import Any

import numpy as np

import bpnn
from bpnn.train import BestModel, ConfusionMatrix, Trainer, draw_curves
from bpnn.train.metrics import roc_auc, scores_from_confusion
from bpnn.utils._files import replacing

from .run import Run


def score(outputs: Any, target: Any, classes: int, samples: str) -> dict[str, Any]:
    """Scores of outputs (N, classes) on the test set, ready for JSON; `samples` says what was looked at."""
    matrix = ConfusionMatrix(classes)
    matrix.update(outputs, target)
    counts = matrix.compute()
    macro = scores_from_confusion(counts, "macro")
    each = scores_from_confusion(counts, None)
    return {
        samples: len(target),
        "loss": bpnn.nn.functional.cross_entropy(outputs, target).item(),
        "accuracy": float(np.trace(counts) / counts.sum()),
        **{f"{name}_macro": value for name, value in macro.items()},
        "roc_auc": roc_auc(bpnn.nn.functional.softmax(outputs, 1), target),
        "per_class": {name: values.tolist() for name, values in each.items()},
        "confusion_matrix": counts.tolist(),
    }


def finish(run: Run, trainer: Trainer, test: dict[str, Any], title: str, samples: str, classes: list[str] | None = None) -> None:
    """Writes the model, the picture and the scores, and says so. `title` names data and model; `classes`: in the picture."""
    best = next((callback for callback in trainer.callbacks if isinstance(callback, BestModel)), None)
    bpnn.save(trainer.model.state_dict(), run.weights)
    history = trainer.history
    values: dict[str, Any] = {"test": test, "epochs": len(history), "steps": trainer.state.step}
    if best is not None:
        row = history.rows[best.best_epoch - 1]
        values["best_epoch"] = best.best_epoch
        values["validation"] = {"accuracy": row["val_accuracy"], "loss": row["val_loss"]}
    values["seconds"] = sum(history["seconds"])
    values["samples_per_second"] = float(np.mean(history["samples_per_second"]))
    try:
        with replacing(run.folder / "curves.png") as path:
            heading = f"{title} · test accuracy {100 * test['accuracy']:.2f} %"
            draw_curves(path, history, test["confusion_matrix"], heading, best.best_epoch if best else None, classes=classes)
    except ImportError:
        print("no curves.png: matplotlib is not installed (pip install 'bpnn[demo]')")
    run.write_json("metrics.json", values)
    chosen = f", weights of epoch {best.best_epoch} of {len(history)}" if best else ""
    print(f"test accuracy {100 * test['accuracy']:.2f} % on {test[samples]:,} {samples}{chosen}")
    names = ("config.json", "vocabulary.json", "model.safetensors", "history.csv", "metrics.json", "curves.png", "checkpoints")
    print(f"wrote {run.folder}{os.sep}: " + " ".join(name for name in names if (run.folder / name).exists()), flush=True)


def table(test: dict[str, Any], samples: str, kind: str, names: list[str]) -> str:
    """Scores for a person; `kind` and `names` are of the classes."""
    wide = max(len(kind), *map(len, names))
    lines = [
        f"accuracy  {100 * test['accuracy']:.2f} % on {test[samples]:,} test {samples}, loss {test['loss']:.4f}",
        f"macro     precision {test['precision_macro']:.4f}, recall {test['recall_macro']:.4f}, F1 {test['f1_macro']:.4f}",
        f"ROC-AUC   {test['roc_auc']:.5f}, one {kind} against the rest, mean",
        "",
        f"{kind:>{wide}}  precision  recall      F1",
    ]
    each = test["per_class"]
    for name, precision, recall, f1 in zip(names, each["precision"], each["recall"], each["f1"], strict=True):
        lines.append(f"{name:>{wide}}  {precision:>9.4f}  {recall:.4f}  {f1:.4f}")
    lines += ["", "confusion: rows true, columns predicted"]
    matrix = test["confusion_matrix"]
    width = max(len(text) for text in (*names, *(str(count) for row in matrix for count in row))) + 1
    side = max(map(len, names)) + 2
    lines.append(" " * side + "".join(f"{name:>{width}}" for name in names))
    for name, row in zip(names, matrix, strict=True):
        lines.append(f"{name:>{side}}" + "".join(f"{count or '·':>{width}}" for count in row))
    return "\n".join(lines)
