"""Random erasing. Zhong et al. 2017."""
from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from .base import Array, Draws, Transform, as_batch, channel_values, interval, probability
from .resize import random_boxes

__all__ = ["RandomErasing", "erase"]


def erase(img: Any, i: int, j: int, h: int, w: int, v: Any) -> Any:
    """The image with the box of `h` × `w` at row `i`, column `j` filled with `v` (anything that broadcasts to (C, h, w))."""
    images, restore = as_batch(img)
    result = images.copy()
    result[..., i : i + h, j : j + w] = v._array if hasattr(v, "_array") else v
    return restore(result)


class RandomErasing(Transform):
    """With probability `p`, a box of a random share `scale` of the area and a random `ratio` of its sides is filled.

    value: a number, one a channel, or "random" for normal noise in every pixel.
    """

    random = True

    def __init__(
        self, p: float = 0.5, scale: tuple[float, float] = (0.02, 0.33), ratio: tuple[float, float] = (0.3, 3.3), value: Any = 0
    ) -> None:
        self.p, self.value = probability(p), value
        self.scale, self.ratio = interval(scale, "scale", 0.0), interval(ratio, "ratio", 1e-9)
        if self.scale[1] > 1:
            raise ValueError(f"scale: expected shares of at most 1, got {scale!r}")
        if isinstance(value, str) and value != "random":
            raise ValueError(f"value: expected a number, one a channel, or 'random', got {value!r}")

    def apply(self, images: Array, draws: Draws) -> Array:
        c, h, w = images.shape[1:]
        chosen = draws.happens(self.p)
        boxes, found = random_boxes((h, w), self.scale, self.ratio, draws, strict=True)
        noise = draws.child()
        top, left, tall, wide = (side[:, None] for side in boxes.T)
        rows, columns = np.arange(h), np.arange(w)
        down, across = (rows >= top) & (rows < top + tall), (columns >= left) & (columns < left + wide)
        inside = (down[:, :, None] & across[:, None, :])[:, None] & (chosen & found)[:, None, None, None]
        if not isinstance(self.value, str):
            values = channel_values(self.value, c, "value").astype(images.dtype)[:, None, None]
            return np.where(inside, values, images)
        result = images.copy()
        for k in np.flatnonzero(chosen & found):
            box = (k, slice(None), slice(top[k, 0], top[k, 0] + tall[k, 0]), slice(left[k, 0], left[k, 0] + wide[k, 0]))
            uniform = noise.of(np.array([k])).random(c * int(tall[k, 0]) * int(wide[k, 0]))
            result[box] = ndtri(uniform + 2.0**-54).reshape(result[box].shape).astype(images.dtype)
        return result
