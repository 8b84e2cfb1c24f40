"""From what the settings say of data to its parts, and what a run remembers of them."""
from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bpnn.data.columns import label_column
from bpnn.data.sources import is_url
from bpnn.data.tables import Splits, Table, read_images, read_splits

from .run_folder import checksum_of_examples
from .settings import Settings, SettingsError

__all__ = ["describe_data", "read_parts"]


def read_parts(settings: Settings, data: Any = None) -> Splits:
    """Training, validation and test part; `data` in memory goes before what the settings say. Raises `DataError`."""
    s = settings
    given = data if data is not None else s.data
    files: dict[str, Any] = {"train": s.train, "validation": s.validation, "test": s.test}
    if given is None and s.train is None:
        raise SettingsError("data: expected a file or a folder to train on, got none")
    if isinstance(given, Splits):
        return given
    shares: dict[str, Any] = {"validation_share": s.validation_share, "test_share": s.test_share, "seed": s.seed}
    if s.task == "image":
        return read_images(given, **shares) if given is not None else read_images(
            {name: file for name, file in files.items() if file is not None}, **shares
        )
    reading = _reading(s, given if given is not None else s.train)
    if s.task != "classify":
        return read_splits(given, **files, **shares, **reading)
    # Parts with the same share of each label: the label's column is known when the file has been read.
    parts = dict(read_splits(given, **files, validation_share=0.0, test_share=0.0).items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that are the same: said when they were read
        return read_splits(parts, **shares, stratify=_stratify(parts["train"], settings))


def read_all(settings: Settings, data: Any = None) -> Table:
    """All examples of the training part, nothing held out."""
    return read_parts(replace(settings, validation_share=0.0, test_share=0.0), data).train


def _reading(settings: Settings, data: Any) -> dict[str, Any]:
    """How a file is read: plain text for a language model as one, not line by line."""
    plain = isinstance(data, (str, os.PathLike)) and os.fspath(data).removesuffix(".gz").endswith((".txt", ".text"))
    return {"text": "whole"} if settings.task == "lm" and plain else {}


def _stratify(table: Table, settings: Settings) -> str | None:
    if settings.label is not None:
        return settings.label if settings.label in table.columns else None  # a wrong name is reported when examples are made
    texts = [name for name in (settings.text, settings.text_pair) if name is not None]
    return label_column(table, None, texts)


def read_test(settings: Settings, data: Any) -> Table:
    """What is to be scored: a file or data in memory as a whole; of a folder its test part, else its validation part, else all."""
    if isinstance(data, Splits):
        parts = data
    elif settings.task == "image":
        parts = read_images(data, validation_share=0.0, test_share=0.0)
    else:
        parts = read_splits(data, validation_share=0.0, test_share=0.0, **_reading(settings, data))
    for part in (parts.test, parts.validation):
        if part is not None:
            return part
    return parts.train


def absolute(settings: Settings) -> dict[str, Any]:
    """The settings with whole paths of what they name, so that a run goes on from anywhere."""
    values = settings.to_dict()
    for name in ("data", "train", "validation", "test", "model", "teacher", "search"):
        value = values[name]
        if value is not None and not is_url(value) and os.path.exists(value):
            values[name] = os.path.abspath(value)
    return values


def describe_data(settings: Settings, examples: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What a run's config remembers of its data; the checksum tells whether it is the same at a later time."""
    source = settings.data or settings.train
    if source is not None and not is_url(source):
        source = os.path.abspath(source)
    name = os.path.basename(str(source).rstrip("/\\")) if source is not None else "data"
    counts = {part: len(examples.get(part, ())) for part in ("train", "validation", "test")}
    return {"name": name, "source": source or "memory", **counts, "crc32": checksum_of_examples(examples)}
