"""Tasks of texts: tokenizing before training, limits, batches filled up to their longest text."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bpnn.pretrained import AutoTokenizer, resolve
from bpnn.pretrained.safetensors_file import read_json
from bpnn.transforms.text import EasyAugmentation

from ._task import Array, Batch, Task, TaskDataset

SENTENCE_SETTINGS = "sentence_bert_config.json"
LOOKED_AT = 100  # rows that tell a column
VIRTUAL = ("prompt", "prefix")  # methods that put tokens before each text


def longest_of(model: Any) -> int | None:
    """The most tokens that a model reads at once; None where it does not say."""
    embeddings = getattr(model.base_model, "embeddings", None)
    for value in (
        getattr(embeddings, "longest", None), getattr(model.config, "context", None), getattr(model.config, "n_positions", None),
        getattr(model.config, "max_position_embeddings", None),
    ):
        if value is not None:
            return int(value)
    return None


def limit_of(model: Any, tokenizer: Any, folder: str, wanted: int | None, reserved: int = 0) -> int:
    """Tokens of a text that are read: what is wanted, else the least that model, tokenizer and sentence-transformers' settings say.

    reserved: places that are taken by something else. Raises `ValueError` where more is wanted than the model can.
    """
    able = longest_of(model)
    if able is not None and reserved:
        able -= reserved
        if able < 2:
            can = able + reserved
            raise ValueError(f"virtual_tokens: expected less than the {can} tokens that the model reads, got {reserved}")
    if wanted is not None:
        if able is not None and wanted > able:
            besides = f" beside {reserved} virtual tokens" if reserved else ""
            raise ValueError(f"max_length: expected at most {able}, as many tokens as the model reads{besides}, got {wanted}")
        return int(wanted)
    path = os.path.join(folder, SENTENCE_SETTINGS)
    told = read_json(path).get("max_seq_length") if os.path.isfile(path) else None
    limits = [n for n in (able, tokenizer.model_max_length, told) if n is not None]
    if not limits:
        raise ValueError("max_length: expected a number, neither model nor tokenizer says how many tokens a text may have")
    return int(min(limits))


def settle_padding(model: Any, tokenizer: Any) -> None:
    """A tokenizer without padding token (GPT-2, LLaMA) pads with its end token, and the configuration says so."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"{tokenizer.source}: has neither a pad_token nor an eos_token to pad with")
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def fill(rows: Sequence[Sequence[int]], filler: int) -> Array:
    """Lists of numbers as one array (B, T), int64, filled up at the right."""
    out = np.full((len(rows), max(1, max(map(len, rows), default=1))), filler, np.int64)
    for row, numbers in zip(out, rows):
        row[: len(numbers)] = numbers
    return out


def columns_of(table: Any, **values: Sequence[Any]) -> dict[str, str]:
    """Which columns of a table the values were read from, by their names; what is None, or in no column, is left out.

    >>> from bpnn.data.tables import Table
    >>> columns_of(Table.from_rows({"id": [1, 2], "headline": ["a", "b"]}), text=["a", "b"], text_pair=[None, None])
    {'text': 'headline'}
    """
    found = {}
    for name, some in values.items():
        some = list(some[:LOOKED_AT])
        if some and None not in some:
            same = [column for column in table.columns if table.column(column)[: len(some)] == some]
            if same:
                found[name] = same[0]
    return found


class TextTask(Task):
    """A task whose examples are a `text` and perhaps a `pair`. Settings: max_length, augment.

    columns: where the training part has its texts. Other tables are read likewise where they have these columns: what a column is
    may be plain in a table of many rows and not in one.
    """

    samples = "texts"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.columns: dict[str, str] = {}

    def text_columns(self, table: Any) -> tuple[str | None, str | None]:
        """The columns of text and second text, where settings or the training part say them."""
        kept = {} if self.option("text") or self.option("text_pair") else self.columns
        known = kept if all(column in table.columns for column in kept.values()) else {}
        return self.option("text", known.get("text")), self.option("text_pair", known.get("text_pair"))

    augments: ClassVar[bool] = False  # whether the task's labels stay right when words of a text change

    @property
    def reserved(self) -> int:
        """Places that the method takes of those that the model has."""
        return int(self.option("virtual_tokens", 20)) if self.option("method") in VIRTUAL else 0

    def settle(self, model: Any, path: str | os.PathLike[str]) -> Any:
        """Load the tokenizer that lies beside a model, set limit and padding; returns the model."""
        folder = resolve(path)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        settle_padding(model, self.tokenizer)
        self.max_length = limit_of(model, self.tokenizer, folder, self.max_length, self.reserved)
        return model

    def tokenize(self, texts: Sequence[str], pairs: Sequence[str | None]) -> tuple[list[Batch], int]:
        """Items with `input_ids`, where the model has them `token_type_ids`, and "length"; and how many texts were cut."""
        if not texts:
            return [], 0
        paired = [pair is not None for pair in pairs]
        if any(paired) and not all(paired):
            raise ValueError("text_pair: expected a second text for all examples or for none")
        encoded = self.tokenizer(
            list(texts), list(pairs) if any(paired) else None, truncation=True, max_length=self.max_length,
            return_attention_mask=False,
        )
        items = [{key: value[i] for key, value in encoded.items()} for i in range(len(texts))]
        for item in items:
            item["length"] = len(item["input_ids"])
        return items, sum(bool(one.overflowing) for one in encoded.encodings)

    def target(self, example: Any) -> Any:
        """What an item's "labels" are; None: the example has none."""
        return None

    def dataset(self, examples: Sequence[Any], train: bool = False) -> TaskDataset:
        items, cut = self.tokenize([e.text for e in examples], [getattr(e, "pair", None) for e in examples])
        for item, example in zip(items, examples, strict=True):
            target = self.target(example)
            if target is not None:
                item["labels"] = target
            if train and self.augments and self.option("augment", False):
                item["example"] = example
        return TaskDataset(items, cut, train)

    def changed(self, items: Sequence[Batch]) -> list[Batch]:
        """The items with some words of their texts changed: swapped, left out, said again."""
        change = EasyAugmentation()
        pairs = [None if item["example"].pair is None else change(item["example"].pair) for item in items]
        found, _ = self.tokenize(change([item["example"].text for item in items]), pairs)
        for item, new in zip(items, found, strict=True):
            if "labels" in item:
                new["labels"] = item["labels"]
        return found

    def collate(self, items: Sequence[Batch]) -> Batch:
        if self.augments and items and "example" in items[0]:
            items = self.changed(items)
        rows = [item["input_ids"] for item in items]
        tokens = fill(rows, self.tokenizer.pad_token_id)
        lengths = np.array([[len(row)] for row in rows])
        batch: Batch = {"input_ids": tokens, "attention_mask": (np.arange(tokens.shape[1]) < lengths).astype(np.int64)}
        if all("token_type_ids" in item for item in items):
            batch["token_type_ids"] = fill([item["token_type_ids"] for item in items], 0)
        if all("labels" in item for item in items):
            batch["labels"] = self.join([item["labels"] for item in items])
        return batch

    def join(self, targets: Sequence[Any]) -> Array:
        """The labels of a batch."""
        return np.asarray(targets)


def told(example: Any) -> dict[str, Any]:
    """Where an example is and what it says, for reports."""
    found = {"where": getattr(example, "where", None), "text": example.text}
    if getattr(example, "pair", None) is not None:
        found["text_pair"] = example.pair
    return found
