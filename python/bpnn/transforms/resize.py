"""Images of another size: each axis is a product with a matrix of weights, the same for a batch or one for each image."""
from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from bpcore.matmul import matmul
from bpcore.tensor import from_array

from .base import (
    Array, Draws, InterpolationMode, Transform, as_batch, interpolation_name, interval, pair, to_array, to_float,
)

__all__ = ["RandomResizedCrop", "Resize", "resize", "resized_crop"]
MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")


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


def _filtered(source: int, target: int, start: Array, extent: Array, kernel: Callable[[Array], Array]) -> Array:
    """The kernel as wide as the reduction, cut off at the ends of the extent and scaled to a sum of 1, as Pillow does it."""
    scale = (extent / target)[:, None, None]
    center = (np.arange(target) + 0.5)[:, None] * scale
    position = np.arange(source) - start[:, None, None]  # of the source's pixels within the extent
    weights = kernel((position + 0.5 - center) / np.maximum(scale, 1.0))
    weights *= (position >= 0) & (position < extent[:, None, None])
    weights /= weights.sum(2, keepdims=True)
    return weights


def _between(source: int, target: int, start: Array, extent: Array, taps: Array, kernel: Callable[[Array], Array]) -> Array:
    """The kernel over the neighboring pixels only; places beyond the ends take the pixel at the end."""
    weights = np.zeros((len(start), target, source))
    place = (np.arange(target) + 0.5) * (extent / target)[:, None] - 0.5
    first = np.floor(place)
    images, rows = np.arange(len(start))[:, None], np.arange(target)
    for tap in taps:
        index = np.clip(first + tap, 0, extent[:, None] - 1) + start[:, None]
        np.add.at(weights, (images, rows, index.astype(np.int64)), kernel(place - first - tap))
    return weights


def axis_weights(source: int, target: int, start: Any, extent: Any, mode: str, antialias: bool) -> Array:
    """(K, target, source): what each of `target` pixels takes of the `extent` pixels from `start` on; those are arrays (K,)."""
    start, extent = np.asarray(start, np.int64), np.asarray(extent, np.int64)
    if mode == "bilinear":
        if antialias:
            return _filtered(source, target, start, extent, _triangle)
        return _between(source, target, start, extent, np.arange(2), _triangle)
    if antialias:
        return _filtered(source, target, start, extent, _cubic(-0.5))
    return _between(source, target, start, extent, np.arange(-1, 3), _cubic(-0.75))


def axis_indices(target: int, start: Any, extent: Any, mode: str) -> Array:
    """(K, target): the pixel that each of `target` pixels takes."""
    start, extent = np.asarray(start, np.int64)[:, None], np.asarray(extent, np.int64)[:, None]
    steps = np.arange(target)
    if mode == "nearest":
        return start + steps * extent // target
    return start + (2 * steps + 1) * extent // (2 * target)


# Products -------------------------------------------------------------------------------------------------------------


def _product(a: Array, b: Array) -> Array:
    return matmul(from_array(np.ascontiguousarray(a)), from_array(np.ascontiguousarray(b))).numpy()


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
    values = to_float(images)
    across = axis_weights(w, width, left, wide, mode, antialias).astype(values.dtype).transpose(0, 2, 1)
    down = axis_weights(h, height, top, tall, mode, antialias).astype(values.dtype)
    if len(boxes) == 1:
        values = _product(values.reshape(n * c * h, w), across[0]).reshape(n * c, h, width)
        values = _product(down, _rounded(values, images.dtype))
    else:
        values = _product(values.reshape(n, c * h, w), across).reshape(n, c, h, width)
        values = _product(down[:, None], _rounded(values, images.dtype))
    return _rounded(values, images.dtype).astype(images.dtype, copy=False).reshape(n, c, height, width)


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
