"""Pictures of digits from files, made to look like the training images."""
from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CliError

Array = np.ndarray[Any, np.dtype[Any]]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".npy"}
LARGEST = 50_000_000  # pixels: more is no picture of a digit, or a trap


def read(path: Path) -> list[Array]:
    """The pictures in a file: gray values (H, W) in float32, 0 black to 1 white."""
    if not path.is_file():
        raise CliError(f"{path}: no such file")
    return _read_npy(path) if path.suffix.lower() == ".npy" else [_read_image(path)]


def _read_npy(path: Path) -> list[Array]:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CliError(f"{path}: not a .npy file of numbers ({error})") from error
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "uifb":
        raise CliError(f"{path}: expected gray images (H, W) or (N, H, W), got {values.shape} of {values.dtype}")
    images = values.reshape(-1, *values.shape[-2:]).astype(np.float32)
    if not np.isfinite(images).all():
        raise CliError(f"{path}: has values that are not finite")
    if images.max() > 1:
        images /= 255 if images.max() <= 255 else images.max()
    return list(images)


def _read_image(path: Path) -> Array:
    try:
        from PIL import Image
    except ImportError as error:
        raise CliError(f"{path}: reading images needs Pillow (pip install 'bpnn[demo]'); .npy files work without") from error
    try:
        with Image.open(path) as file:
            if file.width * file.height > LARGEST:
                raise CliError(f"{path}: {file.width} × {file.height} pixels are too many for a digit")
            if file.has_transparency_data:
                rgba = np.asarray(file.convert("RGBA"), np.float32) / 255
                gray, alpha = rgba[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32), rgba[..., 3]
                # Transparent ground takes the shade that the ink stands out from.
                ground = 1.0 if (gray * alpha).sum() < 0.5 * alpha.sum() else 0.0
                return gray * alpha + ground * (1 - alpha)
            if file.mode.startswith("I"):  # 16 bits a pixel
                return np.asarray(file, np.float32) / 65535
            return np.asarray(file.convert("L"), np.float32) / 255
    except CliError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise CliError(f"{path}: not an image that can be read ({' '.join(str(error).split())})") from error


def prepare(image: Array, size: tuple[int, int], ink: float, title: str) -> tuple[Array, str]:
    """(image of `size`, ink 1 on ground 0; what was done to it). `ink` is the share of the side that a digit fills."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = float(np.median(edge))
    notes = []
    if ground > 0.5:
        image, ground = 1 - image, 1 - ground
        notes.append("light ground, inverted")
    strength = float(image.max()) - ground
    if strength < 0.05:
        raise CliError(f"{title}: no digit to be seen, the image is of one shade")
    image = np.clip((image - ground) / strength, 0, 1)
    if image.shape != size:
        notes.append(f"{image.shape[0]} × {image.shape[1]}, fitted to {size[0]} × {size[1]}")
        image = _fit(image, size, ink)
    return image.astype(np.float32), "; ".join(notes)


def _fit(image: Array, size: tuple[int, int], ink: float) -> Array:
    """Crops to the ink, scales it to a box of `ink` of the side and puts its center of mass into the middle, as MNIST was made."""
    rows, columns = np.nonzero(image.max(1) > 0.2)[0], np.nonzero(image.max(0) > 0.2)[0]
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = ink * min(size) / max(image.shape)
    height, width = (max(1, round(side * scale)) for side in image.shape)
    small = _resize(image, height, width)
    small /= small.max()
    weight = small.sum()
    center = (small.sum(1) @ np.arange(height) / weight, small.sum(0) @ np.arange(width) / weight)
    out = np.zeros(size, np.float32)
    top, left = (
        int(np.clip(round((whole - 1) / 2 - middle), 0, whole - side))
        for whole, middle, side in zip(size, center, (height, width), strict=True)
    )
    out[top : top + height, left : left + width] = small
    return out


def _resize(image: Array, height: int, width: int) -> Array:
    return _weights(image.shape[0], height) @ image @ _weights(image.shape[1], width).T


def _weights(source: int, target: int) -> Array:
    """(target, source): a triangle filter, as wide as the reduction, each row summing to 1."""
    ratio = source / target
    center = (np.arange(target)[:, None] + 0.5) * ratio
    distance = np.abs(np.arange(source) + 0.5 - center) / max(ratio, 1.0)
    weights = np.maximum(1 - distance, 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def expand(names: list[str]) -> list[Path]:
    """Files for names of files, folders and patterns, in order."""
    paths: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
            if not found:
                raise CliError(f"{path}: the folder holds no images ({', '.join(sorted(SUFFIXES))})")
        elif path.exists() or not glob.has_magic(name):
            found = [path]
        else:
            found = sorted(map(Path, glob.glob(name, recursive=True)))
            if not found:
                raise CliError(f"{name}: no file matches")
        paths += found
    return paths
