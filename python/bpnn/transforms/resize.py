"""Images of another size: each axis is a product with a sparse matrix of weights, one for a batch or one for each image."""
from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from .base import (
    Array, Draws, InterpolationMode, Transform, as_batch, interpolation_name, interval, pair, to_array, to_float,
)

__all__ = ["RandomResizedCrop", "Resize", "resize", "resized_crop"]
MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")
CHUNK = 1 << 18  # pixels at a time: what lies between the two axes fits the second-level cache


# Weights --------------------------------------------------------------------------------------------------------------


def _triangle(x: Array) -> Array:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(a: float) -> Callable[[Array], Array]:
    """Keys' convolution kernel, 1981."""

    def kernel(x: Array) -> Array:
        x = np.abs(x)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    return kernel


def _filtered(target: int, extent: Array, kernel: Callable[[Array], Array], radius: int) -> tuple[Array, Array]:
    """The kernel as wide as the reduction, cut off at the ends of the extent and scaled to a sum of 1, as Pillow does it."""
    scale = (extent / target)[:, None, None]
    width = np.maximum(scale, 1.0)
    center = (np.arange(target) + 0.5)[:, None] * scale
    taps = math.ceil(2 * radius * float(width.max(initial=1.0))) + 1
    place = np.floor(center - radius * width + 0.5) + np.arange(taps)
    weights = kernel((place + 0.5 - center) / width)
    weights *= (place >= 0) & (place < extent[:, None, None])
    weights /= weights.sum(2, keepdims=True)
    return place, weights


def _between(target: int, extent: Array, kernel: Callable[[Array], Array], radius: int) -> tuple[Array, Array]:
    """The kernel over the neighboring pixels only; places beyond the ends take the pixel at the end."""
    center = ((np.arange(target) + 0.5) * (extent / target)[:, None] - 0.5)[..., None]
    place = np.floor(center) + np.arange(1 - radius, 1 + radius)
    return place, kernel(center - place)


def axis_weights(target: int, start: Any, extent: Any, mode: str, antialias: bool) -> tuple[Array, Array]:
    """(K, target, T) twice: the T pixels from which each of `target` is made, and their weights.

    start, extent: (K,), where the axis of each image begins and how many pixels it has.
    """
    start, extent = np.asarray(start, np.int64), np.asarray(extent, np.int64)
    radius = 1 if mode == "bilinear" else 2
    kernel = _triangle if mode == "bilinear" else _cubic(-0.5 if antialias else -0.75)
    place, weights = (_filtered if antialias else _between)(target, extent, kernel, radius)
    index = np.clip(place, 0, extent[:, None, None] - 1).astype(np.int64) + start[:, None, None]
    return index, weights


def axis_indices(target: int, start: Any, extent: Any, mode: str) -> Array:
    """(K, target): the pixel that each of `target` pixels takes."""
    start, extent = np.asarray(start, np.int64)[:, None], np.asarray(extent, np.int64)[:, None]
    steps = np.arange(target)
    if mode == "nearest":
        return start + steps * extent // target
    return start + (2 * steps + 1) * extent // (2 * target)


# Products -------------------------------------------------------------------------------------------------------------


def _product(index: Array, weights: Array, planes: Array) -> Array:
    """(P, target, M) from planes (P, source, M): rows weighted and added, by SciPy's sparse product of all planes at once.

    index, weights: (P or 1, target, T).
    """
    count, source, m = planes.shape
    shape = (count, *index.shape[1:])
    columns = np.broadcast_to(index, shape) + np.arange(count)[:, None, None] * source
    ends = np.arange(0, columns.size + 1, max(shape[2], 1))
    data = np.broadcast_to(weights, shape).ravel()
    matrix = csr_array((data, columns.ravel(), ends), shape=(count * shape[1], count * source))
    return (matrix @ planes.reshape(count * source, m)).reshape(count, shape[1], m)  # type: ignore[no-any-return]


def _turned(planes: Array) -> Array:
    return np.ascontiguousarray(planes.transpose(0, 2, 1))


def _rounded(values: Array, dtype: Any) -> Array:
    """Within what bytes can hold, to the nearest, if the images are bytes: Pillow rounds after each axis."""
    return np.clip(np.floor(values + 0.5), 0, 255) if dtype == np.uint8 else values


def resample(images: Array, boxes: Array, size: tuple[int, int], mode: str, antialias: bool) -> Array:
    """The `boxes` of the images in another size.

    images (N, C, H, W); boxes (N, 4) or (1, 4), whole numbers: top, left, height, width; (N, C, *size).
    """
    (n, c, h, w), (height, width) = images.shape, size
    top, left, tall, wide = boxes.T
    if mode.startswith("nearest"):
        rows, columns = axis_indices(height, top, tall, mode), axis_indices(width, left, wide, mode)
        if len(boxes) == 1:
            return images[:, :, rows[0]][..., columns[0]]
        picked = images[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return np.ascontiguousarray(picked.transpose(0, 3, 1, 2))
    result = np.empty((n, c, height, width), images.dtype)
    kind = np.float64 if images.dtype == np.float64 else np.float32
    step = max(1, CHUNK // max(c * h * w, 1))
    single = len(boxes) == 1
    across, down = (
        (index, weights.astype(kind))
        for index, weights in (axis_weights(width, left, wide, mode, antialias), axis_weights(height, top, tall, mode, antialias))
    )
    for first in range(0, n, step):
        part = slice(first, first + step)
        planes = to_float(images[part]).reshape(-1, h, w)
        # a weight for each plane: the channels of an image share theirs
        each = [array if single else np.repeat(array[part], c, 0) for array in (*across, *down)]
        values = _turned(_rounded(_product(each[0], each[1], _turned(planes)), images.dtype))
        values = _rounded(_product(each[2], each[3], values), images.dtype)
        result[part] = values.reshape(-1, c, height, width)
    return result


# Functions and transforms ---------------------------------------------------------------------------------------------


def _target(size: Any, max_size: int | None, h: int, w: int) -> tuple[int, int]:
    """(height, width) that `size` means for an image of (h, w): one number is the shorter side."""
    if not isinstance(size, numbers.Integral) and len(size) == 2:
        if max_size is not None:
            raise ValueError("max_size: expected None where size gives both sides")
        return pair(size)
    shorter = pair(size)[0]
    longer = int(shorter * max(h, w) / min(h, w))
    if max_size is not None:
        if max_size <= shorter:
            raise ValueError(f"max_size: expected more than the shorter side {shorter}, got {max_size}")
        if longer > max_size:
            shorter, longer = int(max_size * shorter / longer), max_size
    return (shorter, longer) if h <= w else (longer, shorter)


def resize(
    img: Any, size: Any, interpolation: Any = InterpolationMode.BILINEAR, max_size: int | None = None, antialias: bool = True
) -> Any:
    """An image in another size; see `Resize`."""
    mode = interpolation_name(interpolation, MODES)
    images, restore = as_batch(img)
    h, w = images.shape[-2:]
    if not h or not w:
        raise ValueError(f"img: expected at least one pixel, got shape {images.shape}")
    return restore(resample(images, np.array([[0, 0, h, w]]), _target(size, max_size, h, w), mode, antialias))


def resized_crop(
    img: Any, top: int, left: int, height: int, width: int, size: Any, interpolation: Any = InterpolationMode.BILINEAR,
    antialias: bool = True,
) -> Any:  # fmt: skip
    """The box of `height` × `width` at (top, left), which must lie within the image, in another size."""
    mode = interpolation_name(interpolation, MODES)
    images, restore = as_batch(img)
    h, w = images.shape[-2:]
    if not (0 <= top and 0 <= left and 0 < height <= h - top and 0 < width <= w - left):
        raise ValueError(f"top, left, height, width: expected a box within {h} × {w}, got {(top, left, height, width)}")
    return restore(resample(images, np.array([[top, left, height, width]]), pair(size), mode, antialias))


class Resize(Transform):
    """Images in another size.

    size: (height, width), or one number for the shorter side, the other following, but no longer than `max_size`.
    interpolation: "bilinear", "bicubic", "nearest" (the pixel at the upper left of the place) or "nearest-exact" (the pixel
        nearest to it, as Pillow has it).
    antialias: make the kernel as wide as the reduction, as Pillow does; else only the 2 × 2 or 4 × 4 pixels around a place count.
    """

    def __init__(
        self, size: Any, interpolation: Any = InterpolationMode.BILINEAR, max_size: int | None = None, antialias: bool = True
    ) -> None:
        pair(size)
        self.size, self.max_size, self.antialias = size, max_size, antialias
        self.interpolation = interpolation_name(interpolation, MODES)

    def apply(self, images: Array, draws: Draws) -> Array:
        return to_array(resize(images, self.size, self.interpolation, self.max_size, self.antialias))


class RandomResizedCrop(Transform):
    """A box of a random share `scale` of the image's area and a random `ratio` of its sides, resized to `size`.

    Szegedy et al. 2014.
    """

    random = True

    def __init__(
        self, size: Any, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Any = InterpolationMode.BILINEAR, antialias: bool = True,
    ) -> None:  # fmt: skip
        self.size, self.antialias = pair(size), antialias
        self.scale, self.ratio = interval(scale, "scale", 0.0), interval(ratio, "ratio", 1e-9)
        self.interpolation = interpolation_name(interpolation, MODES)

    def apply(self, images: Array, draws: Draws) -> Array:
        boxes, _ = random_boxes(images.shape[-2:], self.scale, self.ratio, draws)
        if not len(images):
            return np.empty((0, images.shape[1], *self.size), images.dtype)
        return resample(images, boxes, self.size, self.interpolation, self.antialias)


def random_boxes(
    shape: tuple[int, ...], scale: tuple[float, float], ratio: tuple[float, float], draws: Draws, strict: bool = False
) -> tuple[Array, Array]:
    """((N, 4) top, left, height, width; (N,) whether one was found): the first of ten boxes of random area and ratio that fits.

    Where none does it is the largest box of an allowed ratio in the middle. `strict`: less than the whole of either side.
    """
    h, w = shape
    areas = h * w * (scale[0] + (scale[1] - scale[0]) * draws.random(10))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    sides = np.exp(low + (high - low) * draws.random(10))  # width / height
    wide, tall = np.rint(np.sqrt(areas * sides)).astype(np.int64), np.rint(np.sqrt(areas / sides)).astype(np.int64)
    limit = 1 if strict else 0
    fits = (0 < wide) & (wide <= w - limit) & (0 < tall) & (tall <= h - limit)
    which, found = fits.argmax(1), np.asarray(fits.any(1))
    each = np.arange(len(which))
    wide, tall = wide[each, which], tall[each, which]
    top, left = draws.integers(np.where(found, h - tall + 1, 1)), draws.integers(np.where(found, w - wide + 1, 1))
    if not found.all():
        whole = (h, w)
        if w / h < ratio[0]:
            whole = (round(w / ratio[0]), w)
        elif w / h > ratio[1]:
            whole = (h, round(h * ratio[1]))
        tall, wide = np.where(found, tall, whole[0]), np.where(found, wide, whole[1])
        top, left = np.where(found, top, (h - whole[0]) // 2), np.where(found, left, (w - whole[1]) // 2)
    return np.stack([top, left, tall, wide], 1), found
