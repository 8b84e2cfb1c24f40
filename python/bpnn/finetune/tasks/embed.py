"""Texts to vectors: near where texts belong together. The losses are in `_embedding.py`."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpnn.data import DataError
from bpnn.data.examples import PairExample, pair_examples
from bpnn.data.tables import Table
from bpnn.models.sentence import SentenceEncoder
from bpnn.pretrained import resolve
from bpnn.train.streaming import Accuracy, Metric

from ._embedding import LOSSES, SCALE, EmbeddingModel
from ._task import Array, Batch, TaskDataset, worst_of
from ._texts import TextTask, columns_of
from .regress import Pearson, pearson, spearman


class Correlation(Pearson):
    """Spearman's correlation of outputs and targets (N,)."""

    name = "spearman"

    def compute(self) -> float:
        return spearman(*map(np.concatenate, zip(*self.pairs, strict=True))) if self.pairs else float("nan")


class Embed(TextTask):
    """Settings: text, text_pair, label (columns), max_length, pooling ("mean", "cls", "max"), loss.

    loss: "cosine" for pairs with scores, else "multiple_negatives", which takes the other examples of the batch, and the column
    negative, as what is far; or "triplet". Scores that do not lie between -1 and 1 are divided by the largest.
    """

    name = "embed"
    samples = "pairs"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.pooling: str | None = self.option("pooling")
        self.loss: str = self.option("loss", "")
        self.divisor, self.lower = 1.0, False
        self._choose()

    def _choose(self) -> None:
        if self.loss and self.loss not in LOSSES:
            raise ValueError(f"loss: expected {', '.join(LOSSES)}, got {self.loss!r}")
        self.monitor = ("val_spearman" if self.loss == "cosine" else "val_accuracy_at_1", "max")

    # --- data --------------------------------------------------------------------------------------------------------------

    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        examples = pair_examples(table, *self.text_columns(table), self.option("label") if labeled is not False else None)
        self.columns = self.columns or columns_of(table, text=[e.first for e in examples], text_pair=[e.second for e in examples])
        return list(examples)

    def learn(self, examples: Sequence[Any], path: str) -> None:
        scores = [example.score for example in examples if example.score is not None]
        if not self.loss:
            self.loss = "cosine" if scores else "multiple_negatives"
            self._choose()
        if self.loss == "cosine":
            if len(scores) != len(examples):
                raise DataError(f"{path}: expected a score for each pair, got {len(scores)} of {len(examples)}")
            largest = max(map(abs, scores))
            self.divisor = largest if largest > 1 else 1.0
        if self.loss == "triplet" and any(example.negative is None for example in examples):
            raise DataError(f"{path}: expected a column negative for the triplet loss")

    def example(self, value: Any) -> Any:
        """A text alone, to be embedded, or a pair, to be compared."""
        if isinstance(value, str):
            return PairExample(value, "")
        if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(part, str) for part in value):
            return PairExample(*value)
        if isinstance(value, Mapping):
            texts = [part for part in value.values() if isinstance(part, str)]
            return PairExample(texts[0], "") if len(texts) == 1 else self.read_table(Table.from_rows([dict(value)]), False)[0]
        raise TypeError(f"inputs: expected a text, a pair of texts or a dictionary, got {type(value).__name__}")

    def dataset(self, examples: Sequence[Any], train: bool = False) -> TaskDataset:
        """Items with the tokens of an example's texts under "parts"."""
        groups = [[part for part in (e.first, e.second, e.negative) if part] for e in examples]
        texts = [part.strip().lower() if self.lower else part.strip() for group in groups for part in group]
        tokens, cut = self.tokenize(texts, [None] * len(texts))
        items, at = [], 0
        for example, group in zip(examples, groups):
            parts = tokens[at : at + len(group)]
            at += len(group)
            item: Batch = {"parts": parts, "length": max(part["length"] for part in parts)}
            if self.loss == "cosine" and example.score is not None:
                item["labels"] = example.score / self.divisor
            items.append(item)
        return TaskDataset(items, cut, train)

    def collate(self, items: Sequence[Batch]) -> Batch:
        count = min(len(item["parts"]) for item in items)
        if self.loss == "cosine":
            count = min(count, 2)
        batch = super().collate([item["parts"][i] for i in range(count) for item in items])
        if count == 1:
            return batch
        if self.loss == "multiple_negatives":
            same = self._same([[tuple(part["input_ids"]) for part in item["parts"][:count]] for item in items])
            if same.any():
                batch["same"] = same
        if self.loss != "cosine":
            labels: Array = np.arange(len(items))
        elif all("labels" in item for item in items):
            labels = np.array([item["labels"] for item in items], np.float32)
        else:
            return batch
        return {"labels": labels, **batch}  # first: their number is that of the samples

    def _same(self, groups: list[list[Any]]) -> Array:
        """Which texts (n, n or 2n) are no negatives of an anchor: its partner's words again, or a partner of the same anchor."""
        anchors, own = ([group[i] for group in groups] for i in (0, 1))
        found = np.array([[b == c for c in own] for b in own]) | np.array([[a == c for c in anchors] for a in anchors])
        if len(groups[0]) == 3:
            found = np.concatenate([found, np.array([[b == group[2] for group in groups] for b in own])], 1)
        np.fill_diagonal(found, False)
        return found

    # --- the model ---------------------------------------------------------------------------------------------------------

    def load_model(self, path: str | os.PathLike[str]) -> Any:
        encoder = SentenceEncoder.from_pretrained(resolve(path), pooling=self.pooling)
        self.tokenizer, self.pooling, self.lower = encoder.tokenizer, encoder.pooling, encoder.lower
        model = EmbeddingModel.of(encoder, self.loss or "multiple_negatives").eval()
        self.settle(model, path)
        model.max_seq_length, model.lower = self.max_length, self.lower
        return model

    def load_saved(self, folder: str | os.PathLike[str]) -> Any:
        return self.load_model(folder)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "pooling": self.pooling, "loss": self.loss, "divisor": self.divisor, "columns": self.columns}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.pooling, self.loss, self.divisor = state["pooling"], state["loss"], state["divisor"]
        self.columns = dict(state.get("columns", {}))
        self._choose()

    # --- judging -----------------------------------------------------------------------------------------------------------

    def metrics(self) -> list[Metric]:
        return [Correlation()] if self.loss == "cosine" else [Accuracy(name="accuracy_at_1")]

    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> list[Array]:
        """Of each example the vectors of its texts, (texts, H), of length 1."""
        parts = [part for item in dataset for part in item["parts"]]
        flat: list[Any] = [None] * len(parts)
        for chosen, output in self.run(model, _Parts(parts), batch_size):
            vectors = output.embeddings.numpy()
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            for i, vector in zip(chosen, vectors, strict=True):
                flat[i] = vector
        found, at = [], 0
        for item in dataset:
            found.append(np.stack(flat[at : at + len(item["parts"])]))
            at += len(item["parts"])
        return found

    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        """The similarity of a pair; of a text alone its vector."""
        return [
            {"embedding": one[0].tolist()} if len(one) == 1 else {"similarity": float(one[0] @ one[1])} for one in outputs
        ]

    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        """Of scored pairs Pearson's and Spearman's correlation with the cosines, and the mean squared difference ("loss").

        Else accuracy@1 and the mean reciprocal rank: how far up an anchor's own partner is among the partners of all examples, each
        text once, and without the other partners of the same anchor; of equal cosines those of others count as higher. With
        negatives also the share that is further than the partner.
        """
        anchors, partners = (np.array([one[i] for one in outputs], np.float64) for i in (0, 1))
        own = (anchors * partners).sum(1)
        if self.loss == "cosine":
            truth = np.array([example.score for example in examples], np.float64)
            return {
                self.samples: len(own), "loss": float(np.mean((own - truth / self.divisor) ** 2)), "pearson": pearson(own, truth),
                "spearman": spearman(own, truth),
            }
        rank, losses = own_ranks(anchors, partners, *_names(examples))
        found = {
            self.samples: len(own), "loss": float(losses.mean()), "accuracy_at_1": float((rank == 1).mean()),
            "accuracy_at_5": float((rank <= 5).mean()), "mrr": float((1 / rank).mean()),
        }
        if all(len(one) == 3 for one in outputs):
            found["triplet_accuracy"] = float(np.mean([one[0] @ one[1] > one[0] @ one[2] for one in outputs]))
        return found

    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        cosines = np.array([one[0] @ one[1] for one in outputs], np.float64)
        scored = self.loss == "cosine"
        if scored:
            losses = (cosines - np.array([example.score for example in examples]) / self.divisor) ** 2
        else:
            anchors, partners = (np.array([one[i] for one in outputs], np.float64) for i in (0, 1))
            losses = own_ranks(anchors, partners, *_names(examples))[1]
        return [
            {
                "where": examples[i].where, "text": examples[i].first, "text_pair": examples[i].second,
                **({"label": examples[i].score / self.divisor} if scored else {}), "prediction": float(cosines[i]),
                "loss": float(losses[i]),
            }
            for i in worst_of(losses, n)
        ]


class _Parts(TaskDataset):
    """Single texts, to be embedded one by one."""

    def __init__(self, items: Sequence[Batch]) -> None:
        super().__init__([{"parts": [item], "length": item["length"]} for item in items])


def _names(examples: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The texts of anchors and partners."""
    return [example.first for example in examples], [example.second for example in examples]


def own_ranks(
    anchors: Array, partners: Array, first: Sequence[str], second: Sequence[str], chunk: int = 1024
) -> tuple[Array, Array]:
    """(rank, loss), (n,) each: of each anchor's own partner among all partners by their products, 1 for the highest; and
    -log softmax of the scaled products.

    first, second: the texts, (n,): partners with the same text are one, and those of the same anchor's text do not count.
    """
    _, once, number = np.unique(np.asarray(second, object), return_index=True, return_inverse=True)
    partners, number = partners[once], number.reshape(-1)
    others: dict[str, list[int]] = {}
    for text, i in zip(first, number):
        others.setdefault(text, []).append(int(i))
    ranks, losses = [], []
    for begin in range(0, len(anchors), chunk):
        part = slice(begin, begin + chunk)
        products = anchors[part] @ partners.T
        rows = np.arange(len(products))
        own = products[rows, number[part]]
        for row, text in zip(products, first[part]):
            row[others[text]] = -np.inf
        products[rows, number[part]] = own
        ranks.append((products >= own[:, None]).sum(1))
        high = SCALE * products.max(1)
        losses.append(np.log(np.exp(SCALE * products - high[:, None]).sum(1)) + high - SCALE * own)
    return np.concatenate(ranks), np.concatenate(losses)
