"""Training, validation and test parts: given, found in a folder, or drawn with a seed; and images in folders of classes."""
from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ._table import Table
from .idx import DataError
from .sources import is_url, list_folder
from .table_files import FORMATS, PACKED, read_table

PARTS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev", "eval"), "test": ("test", "testing")}
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclass(frozen=True)
class Splits:
    """The parts of a data set; None where there is none."""

    train: Table
    validation: Table | None = None
    test: Table | None = None

    def __iter__(self) -> Any:
        return iter((self.train, self.validation, self.test))

    def items(self) -> list[tuple[str, Table]]:
        """(name, table) of the parts that there are."""
        return [(name, table) for name, table in zip(PARTS, self) if table is not None]


def read_splits(
    data: Any = None, *, train: Any = None, validation: Any = None, test: Any = None, validation_share: float = 0.1,
    test_share: float = 0.1, seed: int = 0, stratify: str | None = None, **reading: Any,
) -> Splits:
    """The parts of a data set.

    data: a file or data in memory (see `read_table`); a folder, zip archive or address of a folder with files named train,
    validation (dev, valid, val) and test, also in pieces (train-00000-of-00002.parquet); or a dict of parts. train, validation,
    test: each part by itself, before those of `data`.

    What is missing is drawn from the training part by `seed`: of `validation_share` and `test_share` of its rows where it comes
    alone; else the validation part only. A share of 0 draws none (None). stratify: a column of which the parts have each value
    in the same share; every value keeps one row in the training part. Rows keep their order. One row with a whole text
    (`text="whole"`) is cut instead: its end is the test, what is before that the validation part.

    reading: arguments of `read_table`. Raises `DataError`; warns where two parts are the same.
    """
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}: expected 0 or more, below 1, got {share}")
    if validation_share + test_share >= 1:
        raise ValueError(f"validation_share, test_share: expected less than 1 together, got {validation_share} and {test_share}")
    sources = {**_found(data), **{k: v for k, v in (("train", train), ("validation", validation), ("test", test)) if v is not None}}
    if "train" not in sources:
        raise DataError(f"{_named(data)}: expected data to train on, got {', '.join(sources) or 'none'}")
    parts = {name: _read(source, reading) for name, source in sources.items()}
    _compare(parts)
    if len(parts) > 1:
        test_share = 0.0
    shares = {"validation": 0.0 if "validation" in parts else validation_share, "test": 0.0 if "test" in parts else test_share}
    parts |= _drawn(parts["train"], shares, seed, stratify)
    return Splits(parts["train"], parts.get("validation"), parts.get("test"))


def _named(data: Any) -> str:
    return str(data) if isinstance(data, (str, os.PathLike)) else "data"


def _read(source: Any, reading: dict[str, Any]) -> Table:
    if isinstance(source, list) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        return Table.join([read_table(item, **reading) for item in source])
    return read_table(source, **reading)


def _found(data: Any) -> dict[str, Any]:
    """The sources of the parts that `data` names."""
    if data is None:
        return {}
    if isinstance(data, dict) and "train" in data and set(data) <= set(PARTS):
        return {name: value for name, value in data.items() if value is not None}
    files = list_folder(data) if isinstance(data, (str, os.PathLike)) else None
    if files is None:
        return {"train": data}
    found: dict[str, list[str]] = {}
    for file in files:
        stem, ending = _stem(file)
        part = next((part for part, names in PARTS.items() for name in names if re.fullmatch(rf"{name}([-_.]\d.*)?", stem)), None)
        if ending in FORMATS and part is not None:
            found.setdefault(part, []).append(file)
    tables = [file for file in files if _stem(file)[1] in FORMATS]
    if not found and len(tables) == 1:
        return {"train": tables[0]}
    if "train" not in found:
        there = ", ".join(PurePosixPath(file).name for file in files[:20]) or "nothing"
        raise DataError(f"{data}: expected a file named train ({', '.join(FORMATS)}), got {there}")
    for part, some in found.items():
        if len({re.sub(r"\d+", "0", PurePosixPath(file).name) for file in some}) > 1:
            raise DataError(f"{data}: expected one file for {part}, got {', '.join(PurePosixPath(file).name for file in some)}")
    return {part: some[0] if len(some) == 1 else some for part, some in found.items()}


def _stem(file: str) -> tuple[str, str]:
    name = PurePosixPath(file.replace(os.sep, "/")).name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return os.path.splitext(name)


def _compare(parts: dict[str, Table]) -> None:
    """Warn where a part that is given is the training part too."""
    for name, table in parts.items():
        train = parts["train"]
        if name == "train":
            continue
        if len(table) == len(train) and table.columns == train.columns and all(
                table.column(column) == train.column(column) for column in table.columns):
            warnings.warn(
                f"{table.path}: the {name} part is the training part ({train.path}): its scores say nothing", stacklevel=3)


# Drawing --------------------------------------------------------------------------------------------------------------


def _drawn(table: Table, shares: dict[str, float], seed: int, stratify: str | None) -> dict[str, Table]:
    """The training part without the rows of the other parts, and these."""
    shares = {part: share for part, share in shares.items() if share}
    if not shares:
        return {}
    if len(table) == 1 and table.columns == ["text"] and "\n" in str(table.column("text")[0]):
        return _cut(table, shares)
    generator = np.random.Generator(np.random.Philox(seed))
    groups = [np.arange(len(table))]
    if stratify is not None:
        values = [str(value) for value in table.column(stratify)]
        _, codes = np.unique(values, return_inverse=True)
        groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    groups = [generator.permutation(group) for group in groups]
    sizes = np.array([len(group) for group in groups])
    taken = np.zeros_like(sizes)
    chosen: dict[str, list[int]] = {}
    for part, share in shares.items():
        counts = _apportioned(sizes * share, np.maximum(sizes - taken - 1, 0), round(share * len(table)))
        chosen[part] = [int(i) for group, begin, count in zip(groups, taken, counts) for i in group[begin : begin + count]]
        taken = taken + counts
        if not chosen[part] and stratify is not None and 2 * len(groups) > len(table) >= 10:
            raise DataError(
                f"{table.path}: {stratify}: expected labels that several rows have, got {len(groups)} different ones in "
                f"{len(table)} rows; numbers are learned by task regress"
            )
        if not chosen[part]:
            raise DataError(
                f"{table.path}: expected rows enough to draw a {part} part of {share:.0%} from, got {len(table)}; "
                f"give more, a {part} part, or a {part}_share of 0"
            )
    left = np.ones(len(table), bool)
    left[[i for some in chosen.values() for i in some]] = False
    return {"train": table.take(np.flatnonzero(left)), **{part: table.take(sorted(some)) for part, some in chosen.items()}}


def _apportioned(quotas: np.ndarray, most: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers close to `quotas`, no more than `most`, that add up to `total` where they can: by largest remainders."""
    counts = np.minimum(np.floor(quotas), most).astype(np.int64)
    for i in np.argsort(-(quotas - np.floor(quotas)), kind="stable"):
        if counts.sum() < total and counts[i] < most[i]:
            counts[i] += 1
    return counts


def _cut(table: Table, shares: dict[str, float]) -> dict[str, Table]:
    """A running text, cut at line ends: the test part is its end, the validation part what is before that."""
    text = str(table.column("text")[0])
    end, last = len(text), 1.0
    found: dict[str, tuple[int, int]] = {}
    for part in ("test", "validation"):
        if part in shares:
            last -= shares[part]
            begin = text.rfind("\n", 0, math.floor(last * len(text))) + 1
            if not text[begin:end].strip() or not begin:
                raise DataError(f"{table.path}: its lines are too few to cut a {part} part of {shares[part]:.0%} off")
            found[part] = begin, end
            end = begin
    found["train"] = 0, end
    parts = {part: table.with_columns({"text": [text[begin:end]]}) for part, (begin, end) in found.items()}
    if FORMATS.get(_stem(table.path)[1]) == "txt":  # its lines are those of the file
        for part, (begin, _) in found.items():
            parts[part] = Table({"text": parts[part].column("text")}, table.path, [1 + text.count("\n", 0, begin)])
    return parts


# Images ---------------------------------------------------------------------------------------------------------------


def read_images(data: Any, **splitting: Any) -> Splits:
    """Paths and labels of images, as tables with the columns "image" and "label".

    data: a folder with a folder of each class, or with folders train, validation (dev, valid, val) and test of such; a dict of
    such parts; or a table (file, Table, data in memory) with the columns image (path, file, file_name …; relative to the file's
    folder) and label. splitting: arguments of `read_splits`; drawn parts are stratified by class. Raises `DataError` for a class
    without images, and where there are fewer than two classes.
    """
    options = {"stratify": "label", **splitting}
    if isinstance(data, dict) and "train" in data and set(data) <= set(PARTS):
        return read_splits({part: _images(source) for part, source in data.items() if source is not None}, **options)
    if isinstance(data, (str, os.PathLike)) and not is_url(data) and Path(data).is_dir():
        root = Path(data)
        folders = {folder.name.lower(): folder for folder in sorted(root.iterdir()) if folder.is_dir()}
        parts = {part: folders[name] for part, names in PARTS.items() for name in names if name in folders}
        if "train" in parts:
            return read_splits({part: _classes(folder) for part, folder in parts.items()}, **options)
        if not _tables(root):
            return read_splits(_classes(root), **options)
    # Labels are known when the tables have been read: only then are parts drawn.
    splits = read_splits(data, validation_share=0.0, test_share=0.0)
    return read_splits({part: _images(table) for part, table in splits.items()}, **options)


def _images(source: Any) -> Table:
    """The images of one part: a folder of classes, or a table of paths."""
    if isinstance(source, ImageTable):
        return source
    if isinstance(source, (str, os.PathLike)) and not is_url(source) and Path(source).is_dir():
        return _classes(Path(source))
    return _listed(read_table(source))


def _tables(root: Path) -> bool:
    return any(_stem(file.name)[1] in FORMATS for file in root.iterdir() if file.is_file())


def _classes(root: Path) -> Table:
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(folders) < 2:
        there = ", ".join(folder.name for folder in folders) or "none"
        raise DataError(f"{root}: expected a folder for each of two classes or more, got {there}")
    images, labels = [], []
    for folder in folders:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
        if not files:
            raise DataError(f"{folder}: the folder of this class has no images ({', '.join(IMAGES)})")
        images += [str(file) for file in files]
        labels += [folder.name] * len(files)
    return ImageTable({"image": images, "label": labels}, str(root))


class ImageTable(Table):
    """Images in folders: a row is named by its file."""

    def where(self, i: int) -> str:
        return str(self.column("image")[i])

    def take(self, indices: Sequence[int] | np.ndarray) -> Table:
        data = {name: [values[i] for i in np.asarray(indices).tolist()] for name, values in self._data.items()}
        return ImageTable(data, self.path)


def _listed(table: Table) -> Table:
    """A table of images by path: columns image, with whole paths, and label."""
    from .columns import by_name, label_column

    names = ("image", "path", "file", "filename", "file_name", "image_path", "img")
    image = by_name(table, names, "image", "columns")
    if image is None:
        raise DataError(f"{table.path}: expected a column image (or {', '.join(names[1:])}), got {table.described()}")
    label = label_column(table, None, (image,))
    if label is None:
        raise DataError(f"{table.path}: expected a column label, got {table.described()}")
    folder = Path(table.path).parent
    paths = []
    for i, value in enumerate(table.column(image)):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{table.where(i)}: expected the path of an image, got {value!r}")
        path = folder / value
        if not path.is_file():
            raise DataError(f"{table.where(i)}: {path}: no such image")
        paths.append(str(path))
    return table.with_columns({"image": paths, "label": table.column(label)})
