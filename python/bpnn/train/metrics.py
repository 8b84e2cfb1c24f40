"""Scores of predictions against targets: plain functions on arrays or tensors.

Arguments come in PyTorch's order, `(input, target)`: what the model said, then what is true (scikit-learn has
them the other way round). Sizes: N samples, C classes, D outputs. Classes are the integers 0 … C-1.

A classification function takes as `input` one of

* class indices (integer or bool) of the target's shape;
* scores with the classes in dimension 1, `(N, C, …)` for a target `(N, …)`: the highest score wins, the first of equals;
* floating-point scores of the target's shape, for two classes: class 1 where the score is at least `threshold`
  (0.5 suits probabilities; give 0.0 for logits).

The streaming forms, which see one batch at a time, are in `bpnn.train.streaming`.
"""
from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

__all__ = [
    "accuracy",
    "confusion_matrix",
    "f1",
    "mean_absolute_error",
    "mean_squared_error",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "scores_from_confusion",
    "top_k_accuracy",
]

AVERAGES = ("binary", "micro", "macro", "weighted", None)


def to_array(value: Any) -> Array:
    """`value` as an ndarray; a tensor is detached from the tape first."""
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    return np.asarray(value)


def labels(input: Any, target: Any, threshold: float = 0.5, ignore_index: int | None = None) -> tuple[Array, Array]:
    """Predicted and true classes as two flat integer arrays of one length; ignored targets are left out."""
    scores, truth = to_array(input), to_array(target)
    if truth.dtype.kind not in "iub":
        raise TypeError(f"target: expected class indices (integers), got dtype {truth.dtype}")
    if scores.ndim == truth.ndim + 1 and scores.shape[:1] + scores.shape[2:] == truth.shape:
        classes = scores.shape[1]
        predicted = scores.argmax(1) if scores.size else np.zeros(truth.shape, np.int64)
        if truth.size and truth.max() >= classes:
            raise ValueError(f"target: class {truth.max()} is out of range, input has {classes} columns of scores")
    elif scores.shape != truth.shape:
        raise ValueError(
            f"input: expected shape {truth.shape} (classes) or {truth.shape[:1] + ('C',) + truth.shape[1:]} (scores), "
            f"got {scores.shape}"
        )
    else:
        predicted = scores >= threshold if scores.dtype.kind == "f" else scores
    predicted, truth = predicted.reshape(-1), truth.reshape(-1)
    if ignore_index is not None:
        kept = truth != ignore_index
        predicted, truth = predicted[kept], truth[kept]
    return predicted.astype(np.int64, copy=False), truth.astype(np.int64, copy=False)


def accuracy(input: Any, target: Any, *, threshold: float = 0.5, ignore_index: int | None = None) -> float:
    """Share of samples whose predicted class is the true one; nan without samples."""
    predicted, truth = labels(input, target, threshold, ignore_index)
    return float(np.count_nonzero(predicted == truth) / truth.size) if truth.size else float("nan")


def top_k_hits(input: Any, target: Any, k: int) -> tuple[int, int]:
    """(samples whose true class is among the k highest scores, samples)."""
    scores, truth = to_array(input), to_array(target)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"expected input (N, C) and target (N,), got {scores.shape} and {truth.shape}")
    if not 1 <= k:
        raise ValueError(f"k: expected at least 1, got {k}")
    if not truth.size:
        return 0, 0
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise ValueError(f"target: expected classes 0 … {scores.shape[1] - 1}, got {truth.min()} … {truth.max()}")
    own = scores[np.arange(truth.size), truth][:, None]
    later = np.arange(scores.shape[1]) > truth[:, None]
    ahead = ((scores > own) | ((scores == own) & later)).sum(1)
    return int(np.count_nonzero((ahead < k) & (own[:, 0] == own[:, 0]))), truth.size


def top_k_accuracy(input: Any, target: Any, k: int = 5) -> float:
    """Share of samples whose true class is among the k highest of the scores (N, C).

    Of equal scores the higher class index counts as ranked higher, as in scikit-learn's `top_k_accuracy_score`.
    """
    hits, count = top_k_hits(input, target, k)
    return hits / count if count else float("nan")


def confusion_matrix(
    input: Any,
    target: Any,
    num_classes: int | None = None,
    *,
    threshold: float = 0.5,
    ignore_index: int | None = None,
) -> Array:
    """Counts (C, C), int64: row = true class, column = predicted class.

    C is `num_classes`, else the number of score columns, else the highest class that occurs plus one.
    """
    scores = to_array(input)
    predicted, truth = labels(scores, target, threshold, ignore_index)
    if num_classes is None and scores.ndim == to_array(target).ndim + 1:
        num_classes = scores.shape[1]
    return count_pairs(predicted, truth, num_classes)


def count_pairs(predicted: Array, truth: Array, num_classes: int | None = None) -> Array:
    """The confusion matrix of two flat arrays of classes."""
    low = min(predicted.min(), truth.min()) if truth.size else 0
    high = max(predicted.max(), truth.max()) if truth.size else -1
    size = int(high) + 1 if num_classes is None else num_classes
    if low < 0 or high >= size:
        raise ValueError(f"expected classes 0 … {size - 1}, got {low} … {high}")
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def _ratio(part: Array, whole: Array, zero_division: float) -> Array:
    result = np.full(np.shape(whole), zero_division, np.float64)
    np.divide(part, whole, out=result, where=whole != 0)
    return result


def scores_from_confusion(matrix: Array, average: str | None = "binary", zero_division: float = 0.0) -> dict[str, Any]:
    """Precision, recall and F1 from a confusion matrix (C, C), rows true, columns predicted.

    With TP, FP, FN of a class: precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN).
    `average`: "binary" (class 1 of two), "micro" (counts of all classes together), "macro" (mean over the classes that
    occur in targets or predictions), "weighted" (by the class's share of the targets), or None (an array over all C).
    Where the denominator is zero the score is `zero_division` (0.0, 1.0 or nan; a nan class is left out of a mean).
    """
    if average not in AVERAGES:
        raise ValueError(f"average: expected one of {AVERAGES}, got {average!r}")
    hit = np.diagonal(matrix).astype(np.float64)
    said, true = matrix.sum(0).astype(np.float64), matrix.sum(1).astype(np.float64)
    present = (said + true) > 0
    if average == "micro":
        hit, said, true = (x.sum(keepdims=True) for x in (hit, said, true))
    if average == "binary":
        if present[2:].any():
            raise ValueError(
                f"average: 'binary' needs classes 0 and 1, but class {int(np.nonzero(present)[0][-1])} occurs; "
                "choose 'micro', 'macro', 'weighted' or None"
            )
        hit, said, true = (np.append(x, [0.0, 0.0])[1:2] for x in (hit, said, true))
    each = {
        "precision": _ratio(hit, said, zero_division),
        "recall": _ratio(hit, true, zero_division),
        "f1": _ratio(2 * hit, said + true, zero_division),
    }
    if average is None:
        return each
    if average in ("binary", "micro"):
        return {name: float(value[0]) for name, value in each.items()}
    weights = true if average == "weighted" else np.ones_like(true)
    return {name: _mean(value[present], weights[present]) for name, value in each.items()}


def _mean(values: Array, weights: Array) -> float:
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    if not weights[known].sum():  # weighted, and no target has any of these classes
        return float(values[known].mean())
    return float(np.average(values[known], weights=weights[known]))


def precision(input: Any, target: Any, average: str | None = "binary", zero_division: float = 0.0) -> Any:
    """TP / (TP + FP): how many of those called a class belong to it. See `scores_from_confusion`."""
    return scores_from_confusion(confusion_matrix(input, target), average, zero_division)["precision"]


def recall(input: Any, target: Any, average: str | None = "binary", zero_division: float = 0.0) -> Any:
    """TP / (TP + FN): how many of a class were found. See `scores_from_confusion`."""
    return scores_from_confusion(confusion_matrix(input, target), average, zero_division)["recall"]


def f1(input: Any, target: Any, average: str | None = "binary", zero_division: float = 0.0) -> Any:
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall. See `scores_from_confusion`."""
    return scores_from_confusion(confusion_matrix(input, target), average, zero_division)["f1"]


def _auc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve by ranks (Mann–Whitney U); equal scores share their mean rank."""
    positives = int(np.count_nonzero(positive))
    negatives = positive.size - positives
    if not positives or not negatives or np.isnan(scores).any():
        return float("nan")
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[group.reshape(-1)]
    return float((rank[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def roc_auc(input: Any, target: Any, average: str | None = "macro") -> Any:
    """Area under the ROC curve: the chance that a positive sample scores above a negative one.

    Scores `(N,)` with targets 0 and 1, or scores `(N, C)` with targets 0 … C-1, where each class stands against the
    rest and `average` is "macro", "weighted" (by the class's share of the targets) or None (an array over C).
    A class without positives or without negatives has no area: nan, and it is left out of the mean.
    """
    scores, truth = to_array(input), to_array(target)
    if average not in ("macro", "weighted", None):
        raise ValueError(f"average: expected 'macro', 'weighted' or None, got {average!r}")
    if scores.shape == truth.shape:
        if truth.size and not np.isin(truth, (0, 1)).all():
            raise ValueError("target: expected 0 and 1 for scores of the target's shape, got other values")
        return _auc(scores.reshape(-1), truth.reshape(-1) == 1)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"expected input (N,) or (N, C) and target (N,), got {scores.shape} and {truth.shape}")
    areas = np.array([_auc(scores[:, c], truth == c) for c in range(scores.shape[1])])
    if average is None:
        return areas
    counts = np.bincount(truth, minlength=scores.shape[1]).astype(np.float64) if truth.size else np.zeros(len(areas))
    return _mean(areas, counts if average == "weighted" else np.ones_like(areas))


def _pair(input: Any, target: Any) -> tuple[Array, Array]:
    """Both in float64 and of one shape; broadcasting (N, 1) against (N,) is the classic silent error."""
    output, truth = to_array(input), to_array(target)
    if output.shape != truth.shape:
        raise ValueError(f"input and target: expected one shape, got {output.shape} and {truth.shape}")
    return output.astype(np.float64), truth.astype(np.float64)


def mean_squared_error(input: Any, target: Any) -> float:
    """mean((input - target)²) over all elements."""
    output, truth = _pair(input, target)
    return float(np.mean((output - truth) ** 2)) if truth.size else float("nan")


def mean_absolute_error(input: Any, target: Any) -> float:
    """mean(|input - target|) over all elements."""
    output, truth = _pair(input, target)
    return float(np.mean(np.abs(output - truth))) if truth.size else float("nan")


def r2_from_sums(residual: Array, total: Array, count: int) -> float:
    """Mean over outputs of 1 - residual / total; a constant target gives 1 where fitted exactly, else 0."""
    if count < 2:
        return float("nan")
    exact = np.where(residual == 0, 1.0, 0.0)
    return float(np.mean(np.where(total == 0, exact, 1 - residual / np.where(total == 0, 1, total))))


def r2(input: Any, target: Any) -> float:
    """Coefficient of determination, 1 - Σ(target - input)² / Σ(target - mean(target))².

    Shapes (N,) or (N, D); several outputs are averaged uniformly. nan for fewer than two samples.
    """
    output, truth = _pair(input, target)
    if not truth.ndim or len(truth) < 2:
        return float("nan")
    return r2_from_sums(((truth - output) ** 2).sum(0), ((truth - truth.mean(0)) ** 2).sum(0), len(truth))
