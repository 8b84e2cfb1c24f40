"""Brightness, contrast, saturation and hue. Images of one or three channels (red, green, blue)."""
from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from .base import Array, Draws, Transform, as_batch, interval, to_dtype, to_float, white
from .convert import luma

__all__ = ["ColorJitter", "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation"]


def _blend(images: Array, ground: Any, factors: Array) -> Array:
    """`ground + factor (images - ground)`, kept between black and white; bytes are cut off to whole numbers, as Pillow does."""
    values = to_float(images)
    weight = factors.astype(values.dtype)[:, None, None, None]
    result = weight * values
    result += (1 - weight) * ground
    return np.clip(result, 0, white(images.dtype), out=result).astype(images.dtype, copy=False)


def _brightness(images: Array, factors: Array) -> Array:
    return _blend(images, 0, factors)


def _contrast(images: Array, factors: Array) -> Array:
    gray = luma(images)
    mean = gray.mean((1, 2, 3), dtype=np.float64, keepdims=True)
    return _blend(images, mean.astype(to_float(gray[:0]).dtype), factors)


def _saturation(images: Array, factors: Array) -> Array:
    return images if images.shape[1] == 1 else _blend(images, to_float(luma(images)), factors)


def _hue(images: Array, shifts: Array) -> Array:
    """Hue turned by `shifts` (1 is the full circle), saturation and value as they are (HSV, Smith 1978)."""
    if images.shape[1] == 1:
        return images
    top = white(images.dtype)
    values = to_float(images) if top == 1.0 else to_float(images) / np.float32(top)
    if values.shape[1] != 3:
        raise ValueError(f"img: expected 1 or 3 channels, got {values.shape[1]}")
    red, green, blue = values[:, 0], values[:, 1], values[:, 2]
    value, low = values.max(1), values.min(1)
    span = value - low
    safe = np.where(span == 0, 1, span)
    hue = np.where(
        red == value, (green - blue) / safe, np.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    hue = np.where(span == 0, 0, hue) + 6 * shifts.astype(values.dtype)[:, None, None]
    # A channel n of 5, 3, 1: value less a trapezoid of (n + hue) mod 6 of the height of the span.
    result = np.empty_like(values)
    for channel, n in enumerate((5, 3, 1)):
        k = np.mod(n + hue, 6)
        result[:, channel] = value - span * np.clip(np.minimum(k, 4 - k), 0, 1)
    return to_dtype(result * top if top != 1.0 else result, images.dtype)


def _one(operation: Any, img: Any, factor: float) -> Any:
    images, restore = as_batch(img)
    return restore(operation(images, np.full(len(images), factor)))


def _factor(name: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"{name}: expected a number of 0 or more, got {value}")
    return value


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """`factor · img`: 0 is black, 1 the image."""
    return _one(_brightness, img, _factor("brightness_factor", brightness_factor))


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """Away from the mean of the gray image: 0 is one shade of gray, 1 the image."""
    return _one(_contrast, img, _factor("contrast_factor", contrast_factor))


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """Away from the gray image: 0 is gray, 1 the image."""
    return _one(_saturation, img, _factor("saturation_factor", saturation_factor))


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Hue turned by `hue_factor` in [-0.5, 0.5], 0.5 being half the circle."""
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"hue_factor: expected a number between -0.5 and 0.5, got {hue_factor}")
    return _one(_hue, img, hue_factor)


class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue changed at random, in random order.

    brightness, contrast, saturation: a factor from (low, high), or from (max(0, 1 - x), 1 + x) for a number x;
    hue: a shift from (low, high) within ±0.5, or from (-x, x) for a number x.
    """

    random = True

    def __init__(self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0) -> None:
        self.brightness, self.contrast = _range(brightness, "brightness"), _range(contrast, "contrast")
        self.saturation = _range(saturation, "saturation")
        self.hue = (-float(hue), float(hue)) if isinstance(hue, numbers.Real) else interval(hue, "hue")
        if not -0.5 <= self.hue[0] <= self.hue[1] <= 0.5:
            raise ValueError(f"hue: expected a number between 0 and 0.5, or two in order between -0.5 and 0.5, got {hue!r}")

    def apply(self, images: Array, draws: Draws) -> Array:
        order = np.argsort(draws.random(4), axis=1)  # which of the four comes first, second …
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        factors = [draws.uniform(*values) for values in ranges]
        operations = (_brightness, _contrast, _saturation, _hue)
        neutral = [values == (1.0, 1.0) for values in ranges[:3]] + [self.hue == (0.0, 0.0)]
        result = images
        for position in range(4):
            for which, operation in enumerate(operations):
                chosen = order[:, position] == which
                if neutral[which] or not chosen.any():
                    continue
                if result is images:
                    result = images.copy()
                result[chosen] = operation(result[chosen], factors[which][chosen])
        return result


def _range(value: Any, name: str) -> tuple[float, float]:
    if not isinstance(value, numbers.Real):
        return interval(value, name, 0.0)
    if value < 0:
        raise ValueError(f"{name}: expected a number of 0 or more, or two in order, got {value!r}")
    return max(0.0, 1.0 - float(value)), 1.0 + float(value)
