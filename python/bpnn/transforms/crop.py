"""Which part of an image, and which way round: crops, padding, flips."""
from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .base import Array, Draws, Transform, as_batch, channel_values, pair, probability, to_array

__all__ = [
    "CenterCrop", "Pad", "RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip", "center_crop", "crop", "hflip", "pad", "vflip",
]
MODES = {"constant": "constant", "edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}


def _margins(padding: Any) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) from one number, (left and right, top and bottom), or all four."""
    values = [padding] if isinstance(padding, numbers.Integral) else list(padding)
    if len(values) not in (1, 2, 4) or any(not isinstance(v, numbers.Integral) or v < 0 for v in values):
        raise ValueError(f"padding: expected one, two or four whole numbers of 0 or more, got {padding!r}")
    values = values * 4 if len(values) == 1 else values * 2 if len(values) == 2 else values
    left, top, right, bottom = map(int, values)
    return left, top, right, bottom


def _pad(images: Array, margins: tuple[int, int, int, int], fill: Any, mode: str) -> Array:
    left, top, right, bottom = margins
    if not any(margins):
        return images
    if mode not in MODES:
        raise ValueError(f"padding_mode: expected one of {', '.join(MODES)}, got {mode!r}")
    if mode != "constant":
        return np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), mode)  # type: ignore[call-overload,no-any-return]
    n, c, h, w = images.shape
    result = np.empty((n, c, h + top + bottom, w + left + right), images.dtype)
    result[...] = channel_values(fill, c).astype(images.dtype)[:, None, None]
    result[:, :, top : top + h, left : left + w] = images
    return result


def pad(img: Any, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Any:
    """More room around an image: `padding` is one number, (left and right, top and bottom) or (left, top, right, bottom).

    padding_mode: "constant" (`fill`, a number or one a channel), "edge", "reflect" or "symmetric".
    """
    images, restore = as_batch(img)
    return restore(_pad(images, _margins(padding), fill, padding_mode))


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """The box of `height` × `width` at (top, left); what lies outside the image is 0."""
    images, restore = as_batch(img)
    return restore(_crop(images, top, left, height, width))


def _crop(images: Array, top: int, left: int, height: int, width: int) -> Array:
    h, w = images.shape[-2:]
    margins = (max(-left, 0), max(-top, 0), max(left + width - w, 0), max(top + height - h, 0))
    images = _pad(images, margins, 0, "constant")
    top, left = max(top, 0), max(left, 0)
    return np.ascontiguousarray(images[..., top : top + height, left : left + width])


def center_crop(img: Any, output_size: Any) -> Any:
    """The middle of an image, `output_size` (height, width); a smaller image gets 0 around it."""
    images, restore = as_batch(img)
    height, width = pair(output_size, "output_size")
    h, w = images.shape[-2:]
    margins = (max(width - w, 0) // 2, max(height - h, 0) // 2, (max(width - w, 0) + 1) // 2, (max(height - h, 0) + 1) // 2)
    images = _pad(images, margins, 0, "constant")
    h, w = images.shape[-2:]
    return restore(_crop(images, round((h - height) / 2), round((w - width) / 2), height, width))


def hflip(img: Any) -> Any:
    """Left and right exchanged."""
    images, restore = as_batch(img)
    return restore(np.ascontiguousarray(images[..., ::-1]))


def vflip(img: Any) -> Any:
    """Top and bottom exchanged."""
    images, restore = as_batch(img)
    return restore(np.ascontiguousarray(images[..., ::-1, :]))


class CenterCrop(Transform):
    """The middle of an image, `size` (height, width); a smaller image gets 0 around it."""

    def __init__(self, size: Any) -> None:
        self.size = pair(size)

    def apply(self, images: Array, draws: Draws) -> Array:
        return to_array(center_crop(images, self.size))


class Pad(Transform):
    """More room around an image: `padding` is one number, (left and right, top and bottom) or (left, top, right, bottom)."""

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> None:
        _margins(padding)
        if padding_mode not in MODES:
            raise ValueError(f"padding_mode: expected one of {', '.join(MODES)}, got {padding_mode!r}")
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def apply(self, images: Array, draws: Draws) -> Array:
        return _pad(images, _margins(self.padding), self.fill, self.padding_mode)


class RandomCrop(Transform):
    """A box of `size` (height, width) from anywhere in the image, after `padding` around it.

    pad_if_needed: smaller images get so much padding on both sides that the box fits. Otherwise they raise `ValueError`.
    """

    random = True

    def __init__(
        self, size: Any, padding: Any = None, pad_if_needed: bool = False, fill: Any = 0, padding_mode: str = "constant"
    ) -> None:
        self.size, self.padding, self.pad_if_needed = pair(size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode
        if padding is not None:
            _margins(padding)

    def apply(self, images: Array, draws: Draws) -> Array:
        (height, width), (h, w) = self.size, images.shape[-2:]
        if self.padding is not None:
            images = _pad(images, _margins(self.padding), self.fill, self.padding_mode)
            h, w = images.shape[-2:]
        if self.pad_if_needed and (h < height or w < width):
            across, down = max(width - w, 0), max(height - h, 0)
            images = _pad(images, (across, down, across, down), self.fill, self.padding_mode)
            h, w = images.shape[-2:]
        if h < height or w < width:
            raise ValueError(f"size: expected at most the image's {h} × {w}, padding included, got {height} × {width}")
        top, left = draws.integers(h - height + 1), draws.integers(w - width + 1)
        windows = sliding_window_view(images, (height, width), axis=(2, 3))  # type: ignore[call-overload]
        return np.ascontiguousarray(windows[np.arange(len(images)), :, top, left])


class _RandomFlip(Transform):
    random = True

    def __init__(self, p: float = 0.5) -> None:
        self.p = probability(p)

    def _flipped(self, images: Array, draws: Draws, mirror: Any) -> Array:
        chosen = draws.happens(self.p)
        result = images.copy()
        result[chosen] = images[chosen][mirror]
        return result


class RandomHorizontalFlip(_RandomFlip):
    """Left and right exchanged with probability `p`."""

    def apply(self, images: Array, draws: Draws) -> Array:
        return self._flipped(images, draws, (..., slice(None, None, -1)))


class RandomVerticalFlip(_RandomFlip):
    """Top and bottom exchanged with probability `p`."""

    def apply(self, images: Array, draws: Draws) -> Array:
        return self._flipped(images, draws, (..., slice(None, None, -1), slice(None)))
