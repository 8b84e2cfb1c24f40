"""One label an image."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpnn import transforms as T
from bpnn.data import DataError
from bpnn.data.examples import ImageExample, image_examples
from bpnn.models.auto import AutoModelForImageClassification
from bpnn.models.image_processing import PREPROCESSOR_NAME, RESAMPLING, AutoImageProcessor, ViTImageProcessor, _channels_first
from bpnn.pretrained import resolve
from bpnn.train.metrics import top_k_accuracy
from bpnn.train.streaming import Accuracy, Metric, TopKAccuracy

from ._convolutional import ConvolutionalClassifier, is_convolutional, usual_settings
from ._task import Array, Batch, Task, TaskDataset, new_heads_expected
from .classify import known_labels, label_order, label_predictions, label_scores, worst_labels

SCALE = (0.35, 1.0)  # share of the image's area that augmentation leaves
ROOM = 1.15  # images to be cropped are kept so much larger than the crop
KEPT = 1 << 29  # bytes of decoded images that are kept from one pass to the next


class ClassifyImages(Task):
    """Settings: labels, augment (train on random crops and mirror images), method.

    Models: a folder or hub name of a ViT; a network of `bpnn.models` by name ("resnet18"), by a safetensors file with torchvision's
    names ("resnet18-….safetensors"), or by the folder of an earlier run.
    """

    name = "image"
    samples = "images"
    monitor = ("val_accuracy", "max")
    processor: ViTImageProcessor

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.labels: list[str] = [str(label) for label in self.option("labels", [])]

    # --- data --------------------------------------------------------------------------------------------------------------

    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        return list(image_examples(table, labels=self.labels or None, labeled=labeled))

    def learn(self, examples: Sequence[Any], path: str) -> None:
        found = label_order(example.label for example in examples)
        if len(found) < 2:
            raise DataError(f"{path}: expected at least two different labels, got {', '.join(map(repr, found)) or 'none'}")
        if not self.labels:
            self.labels = found

    def example(self, value: Any) -> Any:
        """An image by its path, or a dictionary with one under "image"."""
        if isinstance(value, Mapping):
            value = value.get("image", value.get("path"))
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(f"inputs: expected the path of an image, got {type(value).__name__}")
        if not os.path.isfile(value):
            raise DataError(f"{os.fspath(value)}: no such image")
        return ImageExample(os.fspath(value), None, os.fspath(value))

    def dataset(self, examples: Sequence[Any], train: bool = False) -> TaskDataset:
        labels = [None if example.label is None else self._number(example) for example in examples]
        return ImageDataset(self, [example.path for example in examples], labels, train and bool(self.option("augment", False)))

    def _number(self, example: Any) -> int:
        if example.label not in self.labels:
            raise DataError(f"{example.where}: label: expected one of {', '.join(self.labels)}, got {example.label!r}")
        return self.labels.index(example.label)

    def pixels(self, path: str, augmented: bool) -> Array:
        """An image as bytes (C, H, W): of the model's size, or with `augmented` a little larger, to be cropped."""
        from PIL import Image, ImageOps

        with Image.open(path) as image:
            whole = _channels_first(ImageOps.exif_transpose(image), self.processor.channels)
        if whole.dtype != np.uint8:
            whole = (np.clip(whole / max(1, whole.max()), 0, 1) * 255).astype(np.uint8)
        settings = self.processor.settings
        if augmented:
            side = round(ROOM * max(self.side))
            return np.asarray(T.functional.resize(whole, side, "bilinear")) if min(whole.shape[1:]) > side else whole
        if settings["do_resize"]:
            whole = T.functional.resize(whole, self.processor.size, RESAMPLING[settings["resample"]])
        if self.processor.crop is not None:
            whole = T.functional.center_crop(whole, self.processor.crop)
        return np.asarray(whole)

    @property
    def side(self) -> tuple[int, int]:
        """(height, width) of what the model sees."""
        size = self.processor.crop if self.processor.crop is not None else self.processor.size
        return (size, size) if isinstance(size, int) else size

    def collate(self, items: Sequence[Batch]) -> Batch:
        plain = {"do_resize": False, "do_center_crop": False}
        finish = ViTImageProcessor(**{**self.processor.settings, **plain})
        change = T.Compose([T.RandomResizedCrop(self.side, scale=SCALE), T.RandomHorizontalFlip()])
        pictures = [np.asarray(change(item["pixels"])) if item["augmented"] else item["pixels"] for item in items]
        batch: Batch = {"pixel_values": np.asarray(finish(pictures, return_tensors="np").pixel_values)}
        if all(item["labels"] is not None for item in items):
            batch["labels"] = np.array([item["labels"] for item in items], np.int64)
        return batch

    # --- the model ---------------------------------------------------------------------------------------------------------

    def load_model(self, path: str | os.PathLike[str]) -> Any:
        place = os.fspath(path)
        numbers = {label: i for i, label in enumerate(self.labels)}
        names: dict[str, Any] = {"id2label": dict(enumerate(self.labels)), "label2id": numbers}
        if is_convolutional(place):
            return self._settle(ConvolutionalClassifier.from_pretrained(place, **names), place)
        folder = resolve(place)
        before = known_labels(folder)
        if sorted(before) == sorted(self.labels) and not self.option("labels"):
            self.labels = before
            names = {}
        with new_heads_expected():
            model = AutoModelForImageClassification.from_pretrained(folder, ignore_mismatched_sizes=True, **names)
        return self._settle(model, folder)

    def load_saved(self, folder: str | os.PathLike[str]) -> Any:
        place = os.fspath(folder)
        kind: Any = ConvolutionalClassifier if is_convolutional(place) else AutoModelForImageClassification
        return self._settle(kind.from_pretrained(place), place)

    def _settle(self, model: Any, folder: str) -> Any:
        """Find out how images are prepared for a model."""
        if os.path.isfile(os.path.join(folder, PREPROCESSOR_NAME)):
            self.processor = AutoImageProcessor.from_pretrained(folder)
        elif isinstance(model, ConvolutionalClassifier):
            self.processor = ViTImageProcessor(**usual_settings(model.config))
        else:
            size = model.config.image_size
            self.processor = ViTImageProcessor(size=size if isinstance(size, int) else list(size))
        return model

    def save(self, model: Any, folder: str | os.PathLike[str]) -> None:
        super().save(model, folder)
        self.processor.save_pretrained(folder)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "labels": self.labels}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.labels = list(state["labels"])

    # --- judging -----------------------------------------------------------------------------------------------------------

    def metrics(self) -> list[Metric]:
        return [Accuracy(), *([TopKAccuracy(5)] if len(self.labels) > 5 else [])]

    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> Array:
        """Logits (n, labels)."""
        return self.logits(model, dataset, batch_size, len(self.labels))

    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        return label_predictions(outputs, self.labels)

    def truth(self, examples: Sequence[Any]) -> Array:
        """The numbers of the examples' labels."""
        return np.array([self._number(example) for example in examples], np.int64)

    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        """As of texts; with more than five labels also how often the right one is among the five likeliest."""
        truth = self.truth(examples)
        found = label_scores(outputs, truth, self.samples)
        return found | ({"top5_accuracy": top_k_accuracy(outputs, truth, 5)} if len(self.labels) > 5 else {})

    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        return worst_labels(
            outputs, self.truth(examples), self.labels, examples, n, lambda e: {"where": e.where, "image": e.path}
        )


class ImageDataset(TaskDataset):
    """Images that are decoded when they are read, and kept as far as there is room."""

    def __init__(self, task: ClassifyImages, paths: Sequence[str], labels: Sequence[int | None], augmented: bool) -> None:
        super().__init__([{"length": 1}] * len(paths))
        self.task, self.paths, self.labels, self.augmented = task, list(paths), list(labels), augmented
        self._kept: dict[int, Array] = {}
        self._room = KEPT

    def __getitem__(self, index: Any) -> Any:
        i = int(index)
        pixels = self._kept.get(i)
        if pixels is None:
            pixels = self.task.pixels(self.paths[i], self.augmented)
            if pixels.nbytes <= self._room:
                self._kept[i], self._room = pixels, self._room - pixels.nbytes
        return {"pixels": pixels, "labels": self.labels[i], "augmented": self.augmented, "length": 1}
