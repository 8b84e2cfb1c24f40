"""What all tasks of fine-tuning share: from checked examples to batches, and from a model's outputs to predictions and scores.

    task = TASKS["classify"](settings)
    examples = task.read(splits)                                   # {"train": […], "validation": […], "test": […]}
    model = task.load_model("folder, hub name or .gguf")           # and the tokenizer, kept in the task
    train, validation = (task.dataset(examples[part], train=part == "train") for part in ("train", "validation"))
    trainer = Trainer(model, optimizer, metrics=task.metrics())    # loss=None: models compute their own
    trainer.fit(task.loader(train, 32, shuffle=True), task.loader(validation, 64), epochs=3)
    outputs = task.outputs(model, validation, 64)
    task.scores(outputs, examples["validation"]), task.worst(outputs, examples["validation"]), task.predictions(outputs, …)
    task.save(model, folder)                                       # Hugging Face's layout, with task.state() beside it
"""
from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np

import bpnn
from bpnn.data import BucketBatchSampler, DataError
from bpnn.train.streaming import Metric
from bpnn.utils.data import DataLoader

Array = np.ndarray[Any, np.dtype[Any]]
Batch = dict[str, Any]
PARTS = ("train", "validation", "test")


class TaskDataset(Sequence[Batch]):
    """Examples as the model reads them, dictionaries with their "length"; `cut`: how many were longer than the limit."""

    def __init__(self, items: Sequence[Batch], cut: int = 0, train: bool = False) -> None:
        self.items, self.cut, self.train = list(items), cut, train
        self.lengths = np.array([item["length"] for item in self.items], np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


class Task(ABC):
    """One kind of work: what its data looks like, which model and batches it takes, how its results are told and judged.

    settings: anything with attributes; those that a task reads are in its docstring, and may be missing or None. All read
    `max_length`.
    """

    name: ClassVar[str] = ""
    samples: ClassVar[str] = "examples"  # what they are called in reports
    monitor: tuple[str, str] = ("val_loss", "min")  # the history's column that chooses the best epoch
    given: ClassVar[tuple[str, ...]] = ("labels",)  # what of a batch is not told to a model that is to predict

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings
        self.tokenizer: Any = None
        self.max_length: int | None = self.option("max_length")

    def option(self, name: str, default: Any = None) -> Any:
        """A setting, or `default` where it is missing or None."""
        value = getattr(self.settings, name, None)
        return default if value is None else value

    # --- data --------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        """The checked examples of one table; `DataError` with file and line for what is wrong.

        labeled: True: there must be labels; False: they are not looked for; None: they are read where they are.
        """

    def read(self, splits: Any) -> dict[str, list[Any]]:
        """Checked examples of the parts that there are. Learns from the training part: its labels. Raises `DataError`."""
        examples = {}
        for part in PARTS:
            table = getattr(splits, part, None)
            if table is not None:
                examples[part] = self.read_table(table)
                if part == "train":
                    self.learn(examples[part], str(getattr(table, "path", "train")))
        if not examples.get("train"):
            raise DataError("train: expected at least one example, got none")
        return examples

    def learn(self, examples: Sequence[Any], path: str) -> None:  # noqa: B027 - most tasks take nothing
        """What is taken from the training part: labels, scales."""

    @abstractmethod
    def example(self, value: Any) -> Any:
        """An example without label, to be predicted: of a text, or of a dictionary with the columns of the data."""

    @abstractmethod
    def dataset(self, examples: Sequence[Any], train: bool = False) -> TaskDataset:
        """Examples ready for `collate`. train: with what is random in training (augmentation), anew at each reading."""

    @abstractmethod
    def collate(self, items: Sequence[Batch]) -> Batch:
        """A batch for the model: arrays by the names of its arguments."""

    def loader(self, dataset: TaskDataset, batch_size: int, shuffle: bool = False, generator: Any = None) -> DataLoader[Any]:
        """Batches of examples of like lengths; the order of a pass is a function of the loader's seed and the pass's number."""
        sampler = BucketBatchSampler(dataset.lengths, batch_size, shuffle)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=self.collate, generator=generator)

    # --- the model ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def load_model(self, path: str | os.PathLike[str]) -> Any:
        """The pretrained model with a head for this task; the tokenizer or processor is kept in the task."""

    @abstractmethod
    def load_saved(self, folder: str | os.PathLike[str]) -> Any:
        """The model that `save` wrote, ready to use."""

    def save(self, model: Any, folder: str | os.PathLike[str]) -> None:
        """Write weights and tokenizer in Hugging Face's layout."""
        model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, ready for JSON."""
        return {"task": self.name, "max_length": self.max_length}

    @classmethod
    def restore(cls, state: Mapping[str, Any], settings: Any = None) -> Self:
        """The task of a saved `state()`."""
        if state.get("task") != cls.name:
            raise ValueError(f"state: expected that of the task {cls.name!r}, got {state.get('task')!r}")
        task = cls(settings)
        task.load_state(state)
        return task

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` said."""
        self.max_length = state["max_length"]

    # --- training and judging ----------------------------------------------------------------------------------------------

    def metrics(self) -> list[Metric]:
        """New streaming metrics for validation."""
        return []

    @abstractmethod
    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> Any:
        """What the model says of the examples, in their order; nothing is dropped out, nothing recorded."""

    @abstractmethod
    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        """One flat dictionary an example, ready for CSV and JSON."""

    @abstractmethod
    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        """Numbers by name, ready for JSON; the number of examples is among them under `samples`."""

    @abstractmethod
    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        """The n examples with the highest loss: where they are, what they say, what was expected and predicted."""

    def run(self, model: Any, dataset: TaskDataset, batch_size: int, *, labeled: bool = False) -> Iterator[tuple[Array, Any]]:
        """(numbers of the examples, output of the model) of batches of like lengths, the longest first.

        What does not fit into memory so fails at once. labeled: the model is told the labels too and computes its loss.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
        order = np.argsort(-dataset.lengths, kind="stable")
        with predicting(model):
            for begin in range(0, len(order), batch_size):
                chosen = order[begin : begin + batch_size]
                batch = self.collate([dataset[int(i)] for i in chosen])
                yield chosen, model(**{key: value for key, value in batch.items() if labeled or key not in self.given})

    def logits(self, model: Any, dataset: TaskDataset, batch_size: int, width: int) -> Array:
        """The model's `logits` of the examples, (n, width), in their order."""
        found = np.zeros((len(dataset), width), np.float32)
        for chosen, output in self.run(model, dataset, batch_size):
            found[chosen] = output.logits.numpy()
        return found


@contextmanager
def predicting(model: Any) -> Iterator[None]:
    """`model.eval()` and `no_grad` within the block."""
    training = model.training
    model.eval()
    try:
        with bpnn.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def new_heads_expected() -> Iterator[None]:
    """No warning that a head is new: that is why the model is trained."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*new numbers were drawn.*")
        yield


def softmax(logits: Array) -> Array:
    """exp(x) / Σ exp(x) over the last axis, in float64."""
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def worst_of(losses: Any, n: int) -> list[int]:
    """The numbers of the n highest losses, the highest first, the first of equals first; nan counts as highest."""
    values = np.where(np.isnan(losses), np.inf, np.asarray(losses, np.float64))
    return [int(i) for i in np.argsort(-values, kind="stable")[:n]]
