"""Turning, moving, scaling and shearing: every pixel of the result looks up a place of its own in its image.

A batch is one gather, whatever matrix each image has. Places beyond the image hold `fill`, and interpolation goes on into it.
"""
from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import (
    Array, Draws, InterpolationMode, Transform, as_batch, channel_values, interpolation_name, interval, symmetric, to_dtype,
)

__all__ = ["RandomAffine", "RandomRotation", "affine", "rotate"]
MODES = ("nearest", "bilinear")
CHUNK = 1 << 16  # pixels of the result at a time: what lies between fits the second-level cache


def inverse_matrices(center: Any, angle: Any, translate: Any, scale: Any, shear: Any) -> Array:
    """(N, 2, 3): from a place in the result to the place in the image, both (x, y) from the image's middle.

    The image is sheared by `shear` (x, y), turned clockwise by `angle` and scaled around `center`, then moved by `translate`:
    R(angle) S(shear) scale. Degrees and pixels; each argument an array (N,) or a tuple of two of them, or numbers.
    """
    turn, (sx, sy) = np.radians(angle), (np.radians(s) for s in shear)
    (cx, cy), (tx, ty) = center, translate
    a, b = np.cos(turn - sy) / np.cos(sy), -np.cos(turn - sy) * np.tan(sx) / np.cos(sy) - np.sin(turn)
    c, d = np.sin(turn - sy) / np.cos(sy), -np.sin(turn - sy) * np.tan(sx) / np.cos(sy) + np.cos(turn)
    m = [d / scale, -b / scale, -c / scale, a / scale]  # the determinant of R S is 1
    x, y = -np.asarray(cx + tx, np.float64), -np.asarray(cy + ty, np.float64)
    parts = np.broadcast_arrays(m[0], m[1], m[0] * x + m[1] * y + cx, m[2], m[3], m[2] * x + m[3] * y + cy)
    return np.stack([np.atleast_1d(part) for part in parts], -1).reshape(-1, 2, 3)


def warp(images: Array, matrices: Array, size: tuple[int, int], mode: str, fill: Any) -> Array:
    """(N, C, *size): the values at the places that `matrices` (N or 1, 2, 3) give; images (N, C, H, W)."""
    n, c, h, w = images.shape
    result = np.empty((n, c, *size), images.dtype)
    kind = np.float64 if images.dtype == np.float64 else np.float32
    ground = channel_values(fill, c).astype(kind)[:, None, None]
    matrices = np.broadcast_to(np.nan_to_num(matrices), (n, 2, 3))  # a nan must not become an index
    step = max(1, CHUNK // max(c * size[0] * size[1], 1))
    for first in range(0, n, step):
        part = slice(first, first + step)
        images_part = images[part]
        # one pixel of ground before the image and two behind it, so that no place needs a look whether it lies within
        padded = np.empty((len(images_part), c, h + 3, w + 3), kind)
        padded[:, :, :1], padded[:, :, h + 1 :] = ground, ground
        padded[..., :1], padded[..., w + 1 :] = ground, ground
        padded[:, :, 1 : h + 1, 1 : w + 1] = images_part
        values = _gather(padded, matrices[part], size, mode, kind)
        result[part] = to_dtype(values, images.dtype)
    return result


def _gather(padded: Array, matrices: Array, size: tuple[int, int], mode: str, kind: Any) -> Array:
    n, c, rows, columns = padded.shape
    height, width = size
    x_out, y_out = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    places = []
    for row, extent in zip((0, 1), (columns, rows), strict=True):
        along = (matrices[:, row, 0, None] * x_out).astype(kind)
        middle = (extent - 4) / 2 + 1  # of the image, in pixels of the padded one
        across = (matrices[:, row, 1, None] * y_out + matrices[:, row, 2, None] + middle).astype(kind)
        place = along[:, None, :] + across[:, :, None]
        if mode == "nearest":
            place += kind(0.5)
        places.append(np.clip(place, 0, extent - 2, out=place))
    x, y = places
    left, top = x.astype(np.int32), y.astype(np.int32)
    index = top * np.int32(columns) + left
    per = rows * columns
    offsets = np.arange(n * c).reshape(n, c, 1, 1) * per
    index = offsets + index[:, None]
    flat = padded.reshape(-1)
    if mode == "nearest":
        return flat.take(index)
    x -= left
    y -= top
    x, y = x[:, None], y[:, None]
    # Pairs of neighbors in a row as one element of twice the width: half as many look-ups.
    pairs = np.empty((flat.size, 2), kind)
    pairs[:, 0], pairs[:-1, 1], pairs[-1, 1] = flat, flat[1:], 0
    whole = pairs.view(np.complex128 if kind is np.float64 else np.complex64).reshape(-1)
    upper = whole.take(index)
    index += columns
    lower = whole.take(index)
    lower -= upper
    lower *= y
    upper += lower
    result = upper.imag - upper.real
    result *= x
    result += upper.real
    return result


# Functions ------------------------------------------------------------------------------------------------------------


def _center(center: Any, w: int, h: int) -> tuple[float, float]:
    """`center` (x, y), from the upper left corner, as an offset from the middle; None is the middle."""
    if center is None:
        return 0.0, 0.0
    x, y = center
    return float(x) - w / 2, float(y) - h / 2


def affine(
    img: Any, angle: float, translate: Sequence[float], scale: float, shear: Any,
    interpolation: Any = InterpolationMode.NEAREST, fill: Any = 0, center: Any = None,
) -> Any:  # fmt: skip
    """The image sheared, turned and scaled around its middle, and moved.

    angle: degrees clockwise; translate: (across, down) in pixels; scale: above 0; shear: degrees, (x, y) or x alone;
    interpolation: "nearest" or "bilinear"; fill: what lies outside, a number or one a channel; center: (x, y) from the corner.
    """
    mode = interpolation_name(interpolation, MODES)
    if scale <= 0:
        raise ValueError(f"scale: expected a number above 0, got {scale}")
    images, restore = as_batch(img)
    h, w = images.shape[-2:]
    lean = (float(shear), 0.0) if isinstance(shear, numbers.Real) else tuple(shear)
    lean = (lean[0], 0.0) if len(lean) == 1 else lean
    matrices = inverse_matrices(_center(center, w, h), angle, tuple(translate), scale, lean)
    return restore(warp(images, matrices, (h, w), mode, fill))


def rotate(
    img: Any, angle: float, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False, center: Any = None, fill: Any = 0
) -> Any:
    """The image turned by `angle` degrees counter-clockwise. `expand`: so large that all of it is there (around its middle)."""
    mode = interpolation_name(interpolation, MODES)
    images, restore = as_batch(img)
    h, w = images.shape[-2:]
    matrices = inverse_matrices((0.0, 0.0) if expand else _center(center, w, h), -angle, (0.0, 0.0), 1.0, (0.0, 0.0))
    return restore(warp(images, matrices, _expanded(h, w, angle) if expand else (h, w), mode, fill))


def _expanded(h: int, w: int, angle: float) -> tuple[int, int]:
    """(height, width) of the box around an image that was turned."""
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return math.ceil(round(h * cos + w * sin, 6)), math.ceil(round(w * cos + h * sin, 6))


# Transforms -----------------------------------------------------------------------------------------------------------


class RandomRotation(Transform):
    """Turned counter-clockwise by an angle from `degrees`: (low, high), or a number for (-degrees, degrees).

    expand: the result is so large that all of the image is there; for single images only, as each angle asks for another size.
    """

    random = True

    def __init__(
        self, degrees: Any, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False, center: Any = None, fill: Any = 0
    ) -> None:
        self.degrees, self.expand, self.center, self.fill = symmetric(degrees, "degrees"), expand, center, fill
        self.interpolation = interpolation_name(interpolation, MODES)

    def apply(self, images: Array, draws: Draws) -> Array:
        angles = draws.uniform(*self.degrees)
        h, w = images.shape[-2:]
        if self.expand:
            if len(images) != 1:
                raise ValueError(f"expand: expected a single image, got {len(images)}, each of which asks for another size")
            return rotate(images, float(angles[0]), self.interpolation, True, None, self.fill)
        matrices = inverse_matrices(_center(self.center, w, h), -angles, (0.0, 0.0), 1.0, (0.0, 0.0))
        return warp(images, matrices, (h, w), self.interpolation, self.fill)


class RandomAffine(Transform):
    """Sheared, turned and scaled around the middle, and moved, all at random.

    degrees: (low, high), or a number for (-degrees, degrees); translate: largest shares of width and height to move by, in whole
    pixels; scale: (low, high); shear: a number or (low, high) of degrees along x, or (low, high) along x and (low, high) along y.
    """

    random = True

    def __init__(
        self, degrees: Any, translate: Any = None, scale: Any = None, shear: Any = None,
        interpolation: Any = InterpolationMode.NEAREST, fill: Any = 0, center: Any = None,
    ) -> None:  # fmt: skip
        self.degrees, self.fill, self.center = symmetric(degrees, "degrees"), fill, center
        self.translate = None if translate is None else tuple(float(t) for t in translate)
        if self.translate is not None and (len(self.translate) != 2 or not all(0 <= t <= 1 for t in self.translate)):
            raise ValueError(f"translate: expected two shares between 0 and 1, got {translate!r}")
        self.scale = None if scale is None else interval(scale, "scale", 1e-9)
        self.shear = None if shear is None else _shears(shear)
        self.interpolation = interpolation_name(interpolation, MODES)

    def apply(self, images: Array, draws: Draws) -> Array:
        h, w = images.shape[-2:]
        angles = draws.uniform(*self.degrees)
        across, down = self.translate or (0.0, 0.0)
        moves = (np.rint(draws.uniform(-across * w, across * w)), np.rint(draws.uniform(-down * h, down * h)))
        scales = draws.uniform(*(self.scale or (1.0, 1.0)))
        along_x, along_y = self.shear or ((0.0, 0.0), (0.0, 0.0))
        lean = (draws.uniform(*along_x), draws.uniform(*along_y))
        matrices = inverse_matrices(_center(self.center, w, h), angles, moves, scales, lean)
        return warp(images, matrices, (h, w), self.interpolation, self.fill)


def _shears(shear: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    if not isinstance(shear, numbers.Real) and len(shear) == 4:
        return interval(shear[:2], "shear"), interval(shear[2:], "shear")
    return symmetric(shear, "shear"), (0.0, 0.0)
