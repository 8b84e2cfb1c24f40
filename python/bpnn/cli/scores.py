"""From a trained model to the rest of its run folder, and scores as text."""
from __future__ import annotations

import os
from typing import Any

import numpy as np

import bpnn
from bpnn.data import Digits
from bpnn.train import BestModel, ConfusionMatrix, Trainer, draw_curves
from bpnn.train.metrics import roc_auc, scores_from_confusion
from bpnn.utils._files import replacing

from .run import Run


def score(model: Any, digits: Digits, shape: tuple[int, ...]) -> dict[str, Any]:
    """Scores of `model`, which takes images of `shape`, on the test set, ready for JSON."""
    trainer = Trainer(model, None, None)
    outputs = trainer.predict(bpnn.from_numpy(digits.pixels("test").reshape(-1, *shape)), batch_size=1000)
    target = bpnn.from_numpy(digits.test_labels)
    matrix = ConfusionMatrix(10)
    matrix.update(outputs, target)
    counts = matrix.compute()
    macro = scores_from_confusion(counts, "macro")
    each = scores_from_confusion(counts, None)
    return {
        "images": len(digits.test_labels),
        "loss": bpnn.nn.functional.cross_entropy(outputs, target).item(),
        "accuracy": float(np.trace(counts) / counts.sum()),
        **{f"{name}_macro": value for name, value in macro.items()},
        "roc_auc": roc_auc(bpnn.nn.functional.softmax(outputs, 1), target),
        "per_class": {name: values.tolist() for name, values in each.items()},
        "confusion_matrix": counts.tolist(),
    }


def finish(run: Run, trainer: Trainer, digits: Digits, title: str, shape: tuple[int, ...]) -> None:
    """Writes the model, the picture and the scores, and says so. `title` names the model, `shape` is its form of an image."""
    best = next((callback for callback in trainer.callbacks if isinstance(callback, BestModel)), None)
    bpnn.save(trainer.model.state_dict(), run.weights)
    test = score(trainer.model, digits, shape)
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
            heading = f"{digits.name} · {title} · test accuracy {100 * test['accuracy']:.2f} %"
            draw_curves(path, history, test["confusion_matrix"], heading, best.best_epoch if best else None)
    except ImportError:
        print("no curves.png: matplotlib is not installed (pip install 'bpnn[demo]')")
    run.write_json("metrics.json", values)
    chosen = f", weights of epoch {best.best_epoch} of {len(history)}" if best else ""
    print(f"test accuracy {100 * test['accuracy']:.2f} % on {test['images']:,} images{chosen}")
    names = ("config.json", "model.safetensors", "history.csv", "metrics.json", "curves.png", "checkpoints")
    print(f"wrote {run.folder}{os.sep}: " + " ".join(name for name in names if (run.folder / name).exists()), flush=True)


def table(test: dict[str, Any]) -> str:
    """Scores for a person."""
    lines = [
        f"accuracy  {100 * test['accuracy']:.2f} % on {test['images']:,} test images, loss {test['loss']:.4f}",
        f"macro     precision {test['precision_macro']:.4f}, recall {test['recall_macro']:.4f}, F1 {test['f1_macro']:.4f}",
        f"ROC-AUC   {test['roc_auc']:.5f}, one digit against the rest, mean",
        "",
        "digit  precision  recall      F1",
    ]
    each = test["per_class"]
    for digit in range(len(each["f1"])):
        lines.append(
            f"{digit:>5}  {each['precision'][digit]:>9.4f}  {each['recall'][digit]:.4f}  {each['f1'][digit]:.4f}"
        )
    lines += ["", "confusion: rows true, columns predicted"]
    matrix = test["confusion_matrix"]
    width = max(len(str(count)) for row in matrix for count in row) + 1
    lines.append("   " + "".join(f"{digit:>{width}}" for digit in range(len(matrix))))
    for digit, row in enumerate(matrix):
        lines.append(f"{digit:>3}" + "".join(f"{count or '·':>{width}}" for count in row))
    return "\n".join(lines)
