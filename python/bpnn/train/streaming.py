"""Metrics that see a data set one batch at a time; `Trainer` resets, updates and computes them.

    metric = Accuracy()
    for x, y in loader:
        metric.update(model(x), y)
    metric.compute()

`compute()` gives what the function of the same name in `bpnn.train.metrics` gives on all batches together. A metric's
own state (counts and sums, in float64) goes into checkpoints, so a run may be resumed within an epoch.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from . import metrics as M

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "F1",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "Precision",
    "R2",
    "ROCAUC",
    "Recall",
    "TopKAccuracy",
]


class Metric(ABC):
    """Base: set `name` (its column in the history) and write `reset`, `update` and `compute`.

    `state` names the attributes that `reset` sets up and `update` changes.
    """

    name = "metric"
    state: tuple[str, ...] = ()

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            self.name = name
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget everything seen."""

    @abstractmethod
    def update(self, input: Any, target: Any) -> None:
        """Take in one batch: the model's output and the target."""

    @abstractmethod
    def compute(self) -> Any:
        """The score of everything since `reset`."""

    def state_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key in self.state:
            setattr(self, key, state[key])


class _Share(Metric):
    """hits / count."""

    state = ("hits", "count")

    def reset(self) -> None:
        self.hits = self.count = 0

    def compute(self) -> float:
        return self.hits / self.count if self.count else float("nan")


class Accuracy(_Share):
    """Share of correctly classified samples; see `metrics.accuracy`."""

    name = "accuracy"

    def __init__(self, *, threshold: float = 0.5, ignore_index: int | None = None, name: str | None = None) -> None:
        self.threshold, self.ignore_index = threshold, ignore_index
        super().__init__(name)

    def update(self, input: Any, target: Any) -> None:
        predicted, truth = M.labels(input, target, self.threshold, self.ignore_index)
        self.hits += int(np.count_nonzero(predicted == truth))
        self.count += truth.size


class TopKAccuracy(_Share):
    """Share of samples whose class is among the k highest scores; see `metrics.top_k_accuracy`."""

    def __init__(self, k: int = 5, *, name: str | None = None) -> None:
        self.k = k
        super().__init__(name or f"top{k}_accuracy")

    def update(self, input: Any, target: Any) -> None:
        hits, count = M.top_k_hits(input, target, self.k)
        self.hits += hits
        self.count += count


class ConfusionMatrix(Metric):
    """Counts (C, C), rows true, columns predicted; grows with the classes seen unless `num_classes` is given."""

    name = "confusion_matrix"
    state = ("matrix",)

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        threshold: float = 0.5,
        ignore_index: int | None = None,
        name: str | None = None,
    ) -> None:
        self.num_classes, self.threshold, self.ignore_index = num_classes, threshold, ignore_index
        super().__init__(name)

    def reset(self) -> None:
        size = self.num_classes or 0
        self.matrix = np.zeros((size, size), np.int64)

    def update(self, input: Any, target: Any) -> None:
        counts = M.confusion_matrix(
            input, target, self.num_classes, threshold=self.threshold, ignore_index=self.ignore_index
        )
        grown = max(len(counts), len(self.matrix))
        if grown > len(self.matrix):
            self.matrix = np.pad(self.matrix, (0, grown - len(self.matrix)))
        self.matrix[: len(counts), : len(counts)] += counts

    def compute(self) -> Any:
        return self.matrix.copy()


class _FromConfusion(ConfusionMatrix):
    """A score of the confusion matrix; `average` and `zero_division` as in `metrics.scores_from_confusion`."""

    def __init__(self, average: str | None = "binary", zero_division: float = 0.0, **options: Any) -> None:
        if average not in M.AVERAGES:
            raise ValueError(f"average: expected one of {M.AVERAGES}, got {average!r}")
        self.average, self.zero_division = average, zero_division
        super().__init__(**options)

    def _score(self, which: str) -> Any:
        return M.scores_from_confusion(self.matrix, self.average, self.zero_division)[which]


class Precision(_FromConfusion):
    """TP / (TP + FP); see `metrics.precision`."""

    name = "precision"

    def compute(self) -> Any:
        return self._score("precision")


class Recall(_FromConfusion):
    """TP / (TP + FN); see `metrics.recall`."""

    name = "recall"

    def compute(self) -> Any:
        return self._score("recall")


class F1(_FromConfusion):
    """2 TP / (2 TP + FP + FN); see `metrics.f1`."""

    name = "f1"

    def compute(self) -> Any:
        return self._score("f1")


class ROCAUC(Metric):
    """Area under the ROC curve; keeps all scores until `compute`. See `metrics.roc_auc`."""

    name = "roc_auc"

    def __init__(self, average: str | None = "macro", *, name: str | None = None) -> None:
        self.average = average
        super().__init__(name)

    def reset(self) -> None:
        self.scores: list[Any] = []
        self.targets: list[Any] = []

    def update(self, input: Any, target: Any) -> None:
        self.scores.append(M.to_array(input).copy())
        self.targets.append(M.to_array(target).copy())

    def compute(self) -> Any:
        if not self.scores:
            return float("nan")
        return M.roc_auc(np.concatenate(self.scores), np.concatenate(self.targets), self.average)

    def state_dict(self) -> dict[str, Any]:
        if not self.scores:
            return {}
        return {"scores": np.concatenate(self.scores), "targets": np.concatenate(self.targets)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores, self.targets = ([state[key]] if key in state else [] for key in ("scores", "targets"))


class MeanSquaredError(Metric):
    """mean((input - target)²) over all elements."""

    name = "mse"
    state = ("total", "count")

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, input: Any, target: Any) -> None:
        output, truth = M._pair(input, target)
        self.total += float(((output - truth) ** 2).sum())
        self.count += truth.size

    def compute(self) -> float:
        return self.total / self.count if self.count else float("nan")


class MeanAbsoluteError(MeanSquaredError):
    """mean(|input - target|) over all elements."""

    name = "mae"

    def update(self, input: Any, target: Any) -> None:
        output, truth = M._pair(input, target)
        self.total += float(np.abs(output - truth).sum())
        self.count += truth.size


class R2(Metric):
    """Coefficient of determination for (N,) or (N, D); see `metrics.r2`.

    The spread of the targets is merged batch by batch around the running mean (Chan, Golub and LeVeque, 1983), which
    stays accurate where the sum of squares less the square of the sum would not.
    """

    name = "r2"
    state = ("count", "mean", "spread", "residual")

    def reset(self) -> None:
        self.count = 0
        self.mean = self.spread = self.residual = np.zeros(())

    def update(self, input: Any, target: Any) -> None:
        output, truth = M._pair(input, target)
        if not truth.ndim or not len(truth):
            return
        count, mean = len(truth), truth.mean(0)
        shift, whole = mean - self.mean, self.count + count
        self.spread = self.spread + ((truth - mean) ** 2).sum(0) + shift**2 * (self.count * count / whole)
        self.mean = self.mean + shift * (count / whole)
        self.residual = self.residual + ((truth - output) ** 2).sum(0)
        self.count = whole

    def compute(self) -> float:
        return M.r2_from_sums(self.residual, self.spread, self.count)
