"""One label a text, or a pair of texts: sentiment, topic, entailment."""
from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpnn.data import DataError
from bpnn.data.examples import TextExample, text_examples
from bpnn.data.tables import Table
from bpnn.models.auto import AutoConfig
from bpnn.pretrained import resolve
from bpnn.train import metrics as M
from bpnn.train.streaming import F1, Accuracy, Metric

from ._pooling import PooledTextTask, read_pooling
from ._task import Array, TaskDataset, new_heads_expected, softmax, worst_of
from ._texts import TextTask, columns_of, told


def label_order(labels: Any) -> list[str]:
    """The different labels as text: numbers by size, else by the alphabet.

    >>> label_order(["10", "9", 9, "-1"]), label_order(["b", "a", "10"])
    (['-1', '9', '10'], ['10', 'a', 'b'])
    """
    names = {str(label) for label in labels}
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return sorted(names)
    return sorted(names) if any(map(math.isnan, numbers.values())) else sorted(names, key=lambda name: (numbers[name], name))


def known_labels(path: str) -> list[str]:
    """The names of the labels that a model's configuration has, in their order; nothing for those without names."""
    names = AutoConfig.from_pretrained(path).id2label or {}
    ordered = [str(names[i]) for i in sorted(names)]
    return [] if ordered == [f"LABEL_{i}" for i in range(len(ordered))] else ordered


class Classify(PooledTextTask):
    """Settings: text, text_pair, label (columns), labels (those allowed, in this order), max_length, pooling (cls, mean, max).

    The labels are those of the training part, in the order of `label_order`; where the model was trained on the same labels
    before, in its order, so that its head goes on.
    """

    name = "classify"
    monitor = ("val_accuracy", "max")
    augments = True
    problem_type = "single_label_classification"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.labels: list[str] = [str(label) for label in self.option("labels", [])]

    # --- data --------------------------------------------------------------------------------------------------------------

    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        label = self.option("label") if labeled is not False else None
        examples = text_examples(table, *self.text_columns(table), label, labels=self.labels or None, labeled=labeled)
        self.columns = self.columns or columns_of(table, text=[e.text for e in examples], text_pair=[e.pair for e in examples])
        return list(examples)

    def learn(self, examples: Sequence[Any], path: str) -> None:
        found = label_order(example.label for example in examples if example.label is not None)
        if len(found) < 2:
            raise DataError(f"{path}: expected at least two different labels, got {', '.join(map(repr, found)) or 'none'}")
        if not self.labels:
            self.labels = found

    def example(self, value: Any) -> Any:
        return plain_text_example(value, self)

    def target(self, example: Any) -> Any:
        return None if example.label is None else self.number(example.label, example)

    def number(self, label: Any, example: Any = None) -> int:
        """The number of a label. Raises `DataError` with its place for one that is not among `labels`."""
        if str(label) not in self.labels:
            where = f"{example.where}: " if getattr(example, "where", None) else ""
            raise DataError(f"{where}label: expected one of {', '.join(self.labels)}, got {label!r}")
        return self.labels.index(str(label))

    def join(self, targets: Sequence[Any]) -> Array:
        return np.asarray(targets, np.int64)

    # --- the model ---------------------------------------------------------------------------------------------------------

    def changes(self) -> dict[str, Any]:
        """What the model's configuration says of the labels."""
        return {
            "id2label": dict(enumerate(self.labels)), "label2id": {label: i for i, label in enumerate(self.labels)},
            "problem_type": self.problem_type,
        }

    def load_model(self, path: str | os.PathLike[str]) -> Any:
        folder = resolve(path)
        before = known_labels(folder)
        if sorted(before) == sorted(self.labels) and not self.option("labels"):
            self.labels = before
        self.pooling = read_pooling(folder, self.pooling)
        with new_heads_expected():
            return self.settle(self._load(folder, ignore_mismatched_sizes=True, **self.changes()), folder)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "labels": self.labels, "pooling": self.pooling, "columns": self.columns}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.labels, self.pooling, self.columns = list(state["labels"]), state["pooling"], dict(state.get("columns", {}))

    # --- judging -----------------------------------------------------------------------------------------------------------

    def metrics(self) -> list[Metric]:
        return [Accuracy(), F1("macro")]

    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> Array:
        """Logits (n, labels)."""
        return self.logits(model, dataset, batch_size, len(self.labels))

    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        return label_predictions(outputs, self.labels)

    def truth(self, examples: Sequence[Any]) -> Array:
        """The numbers of the examples' labels."""
        return np.array([self.number(example.label, example) for example in examples], np.int64)

    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        return label_scores(outputs, self.truth(examples), self.samples)

    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        return worst_labels(outputs, self.truth(examples), self.labels, examples, n, told)


def plain_text_example(value: Any, task: TextTask) -> Any:
    """A text, a pair of texts, or a dictionary with the columns that the task knows as an example without label."""
    if isinstance(value, str):
        return TextExample(value, None, None)
    if isinstance(value, Mapping):
        table = Table.from_rows([dict(value)])
        return text_examples(table, *task.text_columns(table), labeled=False)[0]
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return TextExample(value[0], value[1], None)
    raise TypeError(f"inputs: expected a text, a pair of texts or a dictionary, got {type(value).__name__}")


def label_predictions(logits: Array, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The likeliest label of each row and its probability."""
    shares = softmax(logits)
    best = shares.argmax(-1) if len(shares) else []
    return [{"label": labels[i], "probability": float(row[i])} for i, row in zip(best, shares)]


def losses_of(logits: Array, truth: Array) -> Array:
    """-log softmax(logits)[truth], (n,), in float64."""
    logits = np.asarray(logits, np.float64)
    high = logits.max(-1, keepdims=True)
    own = np.take_along_axis(logits - high, truth[:, None], -1)[:, 0]
    return np.asarray(np.log(np.exp(logits - high).sum(-1)) - own)


def label_scores(logits: Array, truth: Array, samples: str) -> dict[str, Any]:
    """Loss, accuracy, macro precision, recall and F1, ROC-AUC of each label against the rest, and the confusion matrix."""
    if not len(truth):
        raise ValueError(f"examples: expected at least one of the {samples}, got none")
    counts = M.confusion_matrix(logits, truth, logits.shape[1])
    each = M.scores_from_confusion(counts, None)
    return {
        samples: len(truth),
        "loss": float(losses_of(logits, truth).mean()),
        "accuracy": float(np.trace(counts) / counts.sum()),
        **{f"{name}_macro": value for name, value in M.scores_from_confusion(counts, "macro").items()},
        "roc_auc": float(M.roc_auc(softmax(logits), truth)),
        "per_class": {name: values.tolist() for name, values in each.items()},
        "confusion_matrix": counts.tolist(),
    }


def worst_labels(
    logits: Array, truth: Array, labels: Sequence[str], examples: Sequence[Any], n: int, tell: Any
) -> list[dict[str, Any]]:
    """The examples with the highest loss; `probability` is that of the prediction, `label_probability` of the true label."""
    losses, shares = losses_of(logits, truth), softmax(logits)
    found = []
    for i in worst_of(losses, n):
        said = int(shares[i].argmax())
        found.append({
            **tell(examples[i]), "label": labels[truth[i]], "prediction": labels[said], "probability": float(shares[i, said]),
            "label_probability": float(shares[i, truth[i]]), "loss": float(losses[i]),
        })
    return found
