"""One number a text, or several: ratings, prices, similarities of pairs."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpnn.data import DataError
from bpnn.data.examples import regression_examples
from bpnn.pretrained import resolve
from bpnn.train import metrics as M
from bpnn.train.streaming import R2, MeanAbsoluteError, MeanSquaredError, Metric

from ._pooling import PooledTextTask, read_pooling
from ._task import Array, TaskDataset, new_heads_expected, worst_of
from ._texts import columns_of, told
from .classify import plain_text_example

USUAL = (0.1, 1.0)  # deviations of labels that a model learns well as they are, and the largest mean


def ranks(values: Any) -> Array:
    """The rank of each value from 1 on, in float64; equal values share the mean of theirs."""
    _, group, counts = np.unique(np.asarray(values).reshape(-1), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group.reshape(-1)])


def pearson(x: Any, y: Any) -> float:
    """Σ (x - x̄)(y - ȳ) / √(Σ (x - x̄)² Σ (y - ȳ)²); nan where one of both is constant, or of fewer than two values."""
    x, y = (np.asarray(values, np.float64).reshape(-1) for values in (x, y))
    if x.shape != y.shape:
        raise ValueError(f"expected as many values in both, got {x.size} and {y.size}")
    if x.size < 2:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / spread, -1.0, 1.0)) if spread > 0 else float("nan")


def spearman(x: Any, y: Any) -> float:
    """Pearson's correlation of the ranks (Spearman 1904)."""
    return pearson(ranks(x), ranks(y))


class Pearson(Metric):
    """Pearson's correlation of outputs and targets, (N,) or (N, D): of each of D columns, then their mean."""

    name = "pearson"

    def reset(self) -> None:
        self.pairs: list[tuple[Array, Array]] = []

    def update(self, input: Any, target: Any) -> None:
        self.pairs.append((M.to_array(input).copy(), M.to_array(target).copy()))

    def compute(self) -> float:
        if not self.pairs:
            return float("nan")
        outputs, truth = (np.concatenate(parts) for parts in zip(*self.pairs, strict=True))
        return mean_over_columns(pearson, outputs, truth)

    def state_dict(self) -> dict[str, Any]:
        return {"pairs": [list(pair) for pair in self.pairs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pairs = [(pair[0], pair[1]) for pair in state["pairs"]]


def mean_over_columns(correlation: Any, outputs: Array, truth: Array) -> float:
    """The mean of a correlation over the columns of (N, D)."""
    outputs, truth = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (outputs, truth))
    return float(np.mean([correlation(x, y) for x, y in zip(outputs.T, truth.T, strict=True)]))


class Regress(PooledTextTask):
    """Settings: text, text_pair, label (columns), max_length, pooling ("cls", "mean", "max"), standardize.

    The loss is the mean squared error. standardize: learn (label - mean) / deviation of the training part, and turn outputs back;
    by default where the deviation or the mean is not that of numbers from 0 to 1 or -1 to 1, such as of one to five stars: the
    usual learning rates would take long to get there. Losses and
    metrics of the history are then of the standardized numbers, scores and predictions of the real ones.
    """

    name = "regress"
    monitor = ("val_mse", "min")
    augments = True

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.names: list[str] = []
        self.mean, self.deviation = np.zeros(1), np.ones(1)

    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        columns = *self.text_columns(table), self.option("label") if labeled is not False else None
        examples = regression_examples(table, *columns, labeled=None if labeled else labeled)
        if labeled and any(example.label is None for example in examples):
            return list(regression_examples(table, *columns, labeled=True))  # which says what is missing
        self.columns = self.columns or columns_of(table, text=[e.text for e in examples], text_pair=[e.pair for e in examples])
        return list(examples)  # a small part may have one number alone

    def learn(self, examples: Sequence[Any], path: str) -> None:
        labels = self.truth(examples)
        if (labels == labels[0]).all():
            raise DataError(f"{path}: expected labels that differ, got {labels[0].tolist()} for all of {len(labels)} examples")
        count = labels.shape[1]
        self.names = ["value"] if count == 1 else [f"value_{i}" for i in range(count)]
        mean, deviation = labels.mean(0), labels.std(0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        far = (deviation < USUAL[0]) | (deviation > USUAL[1]) | (np.abs(mean) > USUAL[1])
        if self.option("standardize", bool(far.any())):
            self.mean, self.deviation = mean, deviation
        else:
            self.mean, self.deviation = np.zeros(count), np.ones(count)

    def example(self, value: Any) -> Any:
        return plain_text_example(value, self)

    def target(self, example: Any) -> Any:
        if example.label is None:
            return None
        return (np.atleast_1d(np.asarray(example.label, np.float64)) - self.mean) / self.deviation

    def join(self, targets: Sequence[Any]) -> Array:
        return np.asarray(targets, np.float32)

    def truth(self, examples: Sequence[Any]) -> Array:
        """The labels, (n, D)."""
        rows = [np.atleast_1d(np.asarray(example.label, np.float64)) for example in examples]
        for example, row in zip(examples, rows):
            if row.shape != rows[0].shape:
                raise DataError(f"{example.where}: label: expected {rows[0].size} numbers as in the first example, got {row.size}")
        return np.array(rows)

    def load_model(self, path: str | os.PathLike[str]) -> Any:
        folder = resolve(path)
        self.pooling = read_pooling(folder, self.pooling)
        changes = {
            "id2label": dict(enumerate(self.names)), "label2id": {name: i for i, name in enumerate(self.names)},
            "problem_type": "regression",
        }
        with new_heads_expected():
            return self.settle(self._load(folder, ignore_mismatched_sizes=True, **changes), folder)

    def state(self) -> dict[str, Any]:
        return {
            **super().state(), "pooling": self.pooling, "names": self.names, "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(), "columns": self.columns,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.pooling, self.names, self.columns = state["pooling"], list(state["names"]), dict(state.get("columns", {}))
        self.mean, self.deviation = np.array(state["mean"]), np.array(state["deviation"])

    def metrics(self) -> list[Metric]:
        return [MeanSquaredError(), MeanAbsoluteError(), R2(), Pearson()]

    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> Array:
        """The numbers (n, D), in the scale of the labels."""
        return self.logits(model, dataset, batch_size, len(self.mean)) * self.deviation + self.mean

    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        return [dict(zip(self.names, map(float, row), strict=True)) for row in outputs]

    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        """mse, rmse, mae, R², and Pearson's and Spearman's correlation (of several numbers: the mean over them)."""
        truth = self.truth(examples)
        squared = M.mean_squared_error(outputs, truth)
        return {
            self.samples: len(truth), "loss": float(np.mean(((outputs - truth) / self.deviation) ** 2)), "mse": squared,
            "rmse": float(np.sqrt(squared)), "mae": M.mean_absolute_error(outputs, truth), "r2": M.r2(outputs, truth),
            "pearson": mean_over_columns(pearson, outputs, truth), "spearman": mean_over_columns(spearman, outputs, truth),
        }

    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        truth = self.truth(examples)
        losses = (((outputs - truth) / self.deviation) ** 2).mean(1)
        plain = (lambda row: float(row[0])) if len(self.names) == 1 else (lambda row: row.tolist())
        return [
            {**told(examples[i]), "label": plain(truth[i]), "prediction": plain(outputs[i]), "loss": float(losses[i])}
            for i in worst_of(losses, n)
        ]
