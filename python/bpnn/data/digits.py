"""Handwritten digits: MNIST (28 × 28, 60,000 + 10,000) and the UCI digits that scikit-learn ships (8 × 8, 1,797)."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .idx import DataError, read_idx

Array = np.ndarray[Any, np.dtype[Any]]

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
HOW_TO_GET_DATA = (
    "no MNIST files found and scikit-learn is not installed: give --data DIR, set BPNN_DATA, add --download, "
    "or pip install 'bpnn[demo]' for the small UCI digits"
)


@dataclass(frozen=True)
class Digits:
    """Images (N, H, W), dark background 0 to ink `white`, and labels (N,) of the digits 0 … 9, int64."""

    name: str
    source: str
    white: int
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.train_images.shape[1:]
        return int(height), int(width)

    def pixels(self, part: str) -> Array:
        """Images of "train" or "test" as rows (N, H W), float32 in [0, 1]."""
        images = self.train_images if part == "train" else self.test_images
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(self.white)


def data_home() -> Path:
    """Where downloads go without `--data`: the user's cache folder for bpnn."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bpnn"


def find_file(folder: Path, name: str) -> Path | None:
    """An idx file under any of its usual names."""
    for spelling in (name, name.replace("-idx", ".idx")):
        for suffix in (".gz", ""):
            path = folder / (spelling + suffix)
            if path.is_file():
                return path
    return None


def mnist_folder(folder: Path) -> Path | None:
    """`folder`, its `mnist` or its `MNIST/raw` (torchvision's layout): the one that holds MNIST's files."""
    for candidate in (folder, folder / "mnist", folder / "MNIST" / "raw"):
        if any(find_file(candidate, name) for name in MNIST_FILES):
            return candidate
    return None


def find_mnist(data: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder of the MNIST files: in `data` if that is given, else in BPNN_DATA, else in the cache of downloads.

    None where there is none; `DataError` if `data` is given and has none.
    """
    if data is not None:
        folder = Path(data)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        found = mnist_folder(folder)
        if found is None:
            raise DataError(f"{folder}: holds no MNIST files (such as {MNIST_FILES[0]}.gz), nor does its folder mnist")
        return found
    places = [Path(os.environ["BPNN_DATA"])] if os.environ.get("BPNN_DATA") else []
    for place in [*places, data_home()]:
        found = mnist_folder(place)
        if found is not None:
            return found
    return None


def load_mnist(folder: str | os.PathLike[str]) -> Digits:
    """MNIST from the four idx files in `folder`, gzip-compressed or not, checked against each other."""
    parts = []
    for prefix in ("train", "t10k"):
        paths = [find_file(Path(folder), name) for name in MNIST_FILES if name.startswith(prefix)]
        if None in paths:
            missing = [name for name in MNIST_FILES if find_file(Path(folder), name) is None]
            raise DataError(f"{folder}: {', '.join(missing)} missing (with or without .gz)")
        images, labels = (read_idx(path) for path in paths if path is not None)
        if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
            raise DataError(f"{paths[0]}: expected images (N, H, W) of bytes, got {images.shape} of {images.dtype}")
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise DataError(f"{paths[1]}: expected labels (N,), got {labels.shape} of {labels.dtype}")
        if len(images) != len(labels):
            raise DataError(f"{paths[0]} holds {len(images)} images, but {paths[1]} {len(labels)} labels")
        if labels.min() < 0 or labels.max() > 9:
            raise DataError(f"{paths[1]}: expected labels 0 … 9, got {labels.min()} … {labels.max()}")
        parts += [images, labels.astype(np.int64)]
    if parts[0].shape[1:] != parts[2].shape[1:]:
        raise DataError(f"{folder}: training images are {parts[0].shape[1:]}, test images {parts[2].shape[1:]}")
    return Digits("mnist", str(Path(folder).absolute()), 255, *parts)


def load_uci_digits(test: float = 0.2) -> Digits:
    """The UCI digits from scikit-learn, pixels 0 … 16; the last `test` share, by other writers, is the test set."""
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise DataError(HOW_TO_GET_DATA) from error
    bunch = sklearn_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    split = len(images) - round(len(images) * test)
    return Digits("uci", "scikit-learn", 16, images[:split], labels[:split], images[split:], labels[split:])


def load_digits(data: str | os.PathLike[str] | None = None) -> Digits:
    """MNIST where `find_mnist(data)` finds it, else the UCI digits."""
    folder = find_mnist(data)
    return load_uci_digits() if folder is None else load_mnist(folder)
