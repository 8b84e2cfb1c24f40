"""A tag for every word: names of people and places, parts of speech."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpnn.data import DataError
from bpnn.data.examples import TokenExample, token_examples
from bpnn.models.auto import AutoModelForTokenClassification
from bpnn.pretrained import resolve
from bpnn.train import metrics as M
from bpnn.train.streaming import Metric

from ._entities import entity_scores, marks_entities
from ._task import Array, Batch, TaskDataset, new_heads_expected, worst_of
from ._texts import TextTask, fill
from .classify import known_labels, label_order, losses_of

IGNORED = -100
WORDS = re.compile(r"[㐀-䶿一-鿿豈-﫿]|\w+(?:[-'’]\w+)*|[^\w\s]")  # of plain text: words, signs, Chinese characters


def align(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """The number of the word that each token of `" ".join(words)` begins in; None for special tokens and mere space.

    offsets: (first character, the one behind the last) of each token.

    >>> align(["ab", "c"], [(0, 0), (0, 1), (1, 2), (2, 4), (0, 0)])
    [None, 0, 0, 1, None]
    """
    starts = np.cumsum([0, *[len(word) + 1 for word in words]])
    found: list[int | None] = []
    for begin, end in offsets:
        word = int(np.searchsorted(starts, begin, "right")) - 1
        if begin < end and 0 <= word < len(words) and begin == starts[word] + len(words[word]):
            begin, word = begin + 1, word + 1  # the token has the space before its word
        found.append(word if begin < end and word < len(words) else None)
    return found


def first_tokens(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> Array:
    """The place of each word's first token, (words,); -1 for a word that has none."""
    places = np.full(len(words), -1)
    for place, word in reversed(list(enumerate(align(words, offsets)))):
        if word is not None:
            places[word] = place
    return places


class TagScores(Metric):
    """Share of words with the right tag ("accuracy"), or F1 of the names in them ("f1"); outputs (B, T, C), targets (B, T)."""

    state = ("said", "true")

    def __init__(self, labels: Sequence[str], score: str = "accuracy") -> None:
        self.labels = list(labels)
        super().__init__(score)

    def reset(self) -> None:
        self.said: list[list[int]] = []
        self.true: list[list[int]] = []

    def update(self, input: Any, target: Any) -> None:
        scores, truth = M.to_array(input), M.to_array(target)
        for said, true in zip(scores.argmax(-1), truth, strict=True):
            counted = true != IGNORED
            self.said.append(said[counted].tolist())
            self.true.append(true[counted].tolist())

    def compute(self) -> float:
        if self.name == "accuracy":
            right = sum(a == b for said, true in zip(self.said, self.true) for a, b in zip(said, true))
            count = sum(map(len, self.true))
            return right / count if count else float("nan")
        said, true = ([[self.labels[i] for i in row] for row in rows] for rows in (self.said, self.true))
        return float(entity_scores(said, true)["f1"])


class TagTokens(TextTask):
    """Settings: text, label (columns of words and tags), labels, max_length.

    The first token of a word has the word's tag, the others do not count (-100). Words behind the limit are not seen: their
    tag is foretold as "O" (or the first), and scores count that.
    """

    name = "tokens"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._set([str(label) for label in self.option("labels", [])])

    def _set(self, labels: list[str]) -> None:
        self.labels, self.named = labels, marks_entities(labels)
        self.monitor = ("val_f1", "max") if self.named else ("val_accuracy", "max")
        self.nothing = labels.index("O") if "O" in labels else 0

    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        column = self.option("label") if labeled is not False else None
        return list(token_examples(table, self.option("text"), column, labels=self.labels or None, labeled=labeled))

    def learn(self, examples: Sequence[Any], path: str) -> None:
        found = label_order(tag for example in examples for tag in example.tags or ())
        if len(found) < 2:
            raise DataError(f"{path}: expected at least two different tags, got {', '.join(map(repr, found)) or 'none'}")
        if not self.labels:
            self._set(["O", *[tag for tag in found if tag != "O"]] if "O" in found else found)

    def example(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            column = self.option("text") or next((name for name in ("tokens", "words", "text") if name in value), None)
            if column is None:
                raise ValueError(f"inputs: expected a column tokens, words or text, got {', '.join(map(str, value))}")
            value = value[column]
        if isinstance(value, str):
            value = WORDS.findall(value)
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(word, str) and word for word in value):
            raise ValueError(f"inputs: expected a text or a list of words, got {value!r}")
        return TokenExample(list(value), None)

    def dataset(self, examples: Sequence[Any], train: bool = False) -> TaskDataset:
        if not examples:
            return TaskDataset([], 0, train)
        numbers = {label: i for i, label in enumerate(self.labels)}
        encoded = self.tokenizer(
            [" ".join(example.tokens) for example in examples], truncation=True, max_length=self.max_length,
            return_attention_mask=False,
        )
        items, cut = [], 0
        for i, (example, one) in enumerate(zip(examples, encoded.encodings, strict=True)):
            item: Batch = {key: value[i] for key, value in encoded.items()}
            places = first_tokens(example.tokens, one.offsets)
            item |= {"length": len(one.ids), "places": places}
            if example.tags is not None:
                wrong = [tag for tag in example.tags if tag not in numbers]
                if wrong:
                    raise DataError(f"{example.where}: tags: expected some of {', '.join(self.labels)}, got {wrong[0]!r}")
                labels = np.full(len(one.ids), IGNORED)
                seen = places >= 0
                labels[places[seen]] = np.array([numbers[tag] for tag in example.tags])[seen]
                item["labels"] = labels
            cut += bool(one.overflowing)
            items.append(item)
        return TaskDataset(items, cut, train)

    def join(self, targets: Sequence[Any]) -> Array:
        return fill(targets, IGNORED)

    def load_model(self, path: str | os.PathLike[str]) -> Any:
        folder = resolve(path)
        before = known_labels(folder)
        if sorted(before) == sorted(self.labels) and not self.option("labels"):
            self._set(before)
        names = dict(enumerate(self.labels))
        with new_heads_expected():
            model = AutoModelForTokenClassification.from_pretrained(
                folder, ignore_mismatched_sizes=True, id2label=names, label2id={label: i for i, label in names.items()}
            )
        return self.settle(model, folder)

    def load_saved(self, folder: str | os.PathLike[str]) -> Any:
        return self.settle(AutoModelForTokenClassification.from_pretrained(folder), folder)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "labels": self.labels}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._set(list(state["labels"]))

    def metrics(self) -> list[Metric]:
        return [TagScores(self.labels, name) for name in (("accuracy", "f1") if self.named else ("accuracy",))]

    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> list[Array]:
        """Logits (words, labels) of each text; nan for words that the model did not see."""
        found: list[Array] = [np.zeros(0)] * len(dataset)
        for chosen, output in self.run(model, dataset, batch_size):
            for i, logits in zip(chosen, output.logits.numpy(), strict=True):
                places = dataset[int(i)]["places"]
                found[i] = np.where((places >= 0)[:, None], logits[places], np.nan)
        return found

    def tags(self, outputs: Sequence[Array]) -> list[list[str]]:
        """The likeliest tag of each word."""
        blind = np.where(np.arange(len(self.labels)) == self.nothing, 0.0, -1.0)
        return [[self.labels[i] for i in np.where(np.isnan(x), blind, x).argmax(-1)] for x in outputs]

    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {"tokens": " ".join(example.tokens), "tags": " ".join(tags)} for example, tags in zip(examples, self.tags(outputs))
        ]

    def losses(self, outputs: Sequence[Array], examples: Sequence[Any]) -> list[Array]:
        """Cross-entropy of each word that the model saw."""
        found = []
        for logits, example in zip(outputs, examples, strict=True):
            seen = ~np.isnan(logits).any(-1)
            truth = np.array([self.labels.index(tag) for tag in example.tags], int)
            found.append(losses_of(logits[seen], truth[seen]) if seen.any() else np.zeros(0))
        return found

    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        """Loss and share of right tags over words; of names precision, recall and F1, else macro scores of the tags."""
        said, true = self.tags(outputs), [list(example.tags) for example in examples]
        numbers = [[self.labels.index(tag) for row in rows for tag in row] for rows in (said, true)]
        counts = M.confusion_matrix(np.array(numbers[0], int), np.array(numbers[1], int), len(self.labels))
        found = {
            self.samples: len(examples), "words": int(counts.sum()),
            "loss": float(np.mean(np.concatenate(self.losses(outputs, examples)))),
            "accuracy": float(np.trace(counts) / counts.sum()),
        }
        if self.named:
            return found | entity_scores(said, true)
        return found | {f"{name}_macro": value for name, value in M.scores_from_confusion(counts, "macro").items()} | {
            "confusion_matrix": counts.tolist()
        }

    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        losses = [float(one.mean()) if one.size else 0.0 for one in self.losses(outputs, examples)]
        said = self.tags(outputs)
        return [
            {
                "where": getattr(examples[i], "where", None), "text": " ".join(examples[i].tokens),
                "label": " ".join(examples[i].tags), "prediction": " ".join(said[i]), "loss": losses[i],
            }
            for i in worst_of(losses, n)
        ]
