"""Images with labels."""
from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .._table import Table
from ..idx import DataError
from ._values import a_text, labels_of


@dataclass(frozen=True, slots=True)
class ImageExample:
    """The path of an image and its label, None where there is none."""

    path: str
    label: str | None = None
    where: str = ""


def image_examples(
    table: Table, *, labels: Collection[Any] | None = None, labeled: bool | None = None, decode: bool = True,
) -> list[ImageExample]:
    """Examples from the columns image and label of `read_images`.

    labels, labeled: as of `text_examples`. decode: read each image once, to find those that are damaged (needs Pillow). Raises
    `DataError` naming the image, or the row where its path stands.
    """
    paths = [a_text(value, table, i, "image") for i, value in enumerate(table.column("image"))]
    found: list[Any] = [None] * len(table)
    if labeled or (labeled is None and "label" in table.columns):
        found = list(labels_of(table, "label", labels))
    for i, path in enumerate(paths):
        if decode:
            _decode(path, table, i)
        elif not os.path.isfile(path):
            raise DataError(f"{table.where(i)}: {path}: no such image")
    return [ImageExample(path, label, table.where(i)) for i, (path, label) in enumerate(zip(paths, found))]


def _decode(path: str, table: Table, i: int) -> None:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('images need the package Pillow: pip install "bpnn[demo]"') from None
    where = path if table.where(i) == path else f"{table.where(i)}: {path}"
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        raise DataError(f"{where}: no such image") from None
    except Exception as error:  # decoders raise many classes
        raise DataError(f"{where}: cannot be decoded as an image ({error or type(error).__name__})") from None
