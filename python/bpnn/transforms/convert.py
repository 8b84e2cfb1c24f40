"""Between forms and types: pictures to tensors, bytes to floating point, values to mean 0 and deviation 1."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bpcore.dtypes import to_dtype as to_numpy_dtype
from bpcore.tensor import from_array

from .base import Array, Draws, Transform, as_batch

__all__ = ["ConvertImageDtype", "Grayscale", "Normalize", "ToTensor", "normalize", "rgb_to_grayscale", "to_tensor"]


def to_tensor(pic: Any) -> Any:
    """A picture of Pillow, or an array (H, W) or (H, W, C), as a Tensor (C, H, W); bytes become float32 of 0 to 1.

    Pictures of 16 or 32 bits a pixel (modes I;16, I and F) keep their values: int32 or float32.
    """
    if isinstance(pic, np.ndarray):
        array = pic
    elif hasattr(pic, "getbands"):
        array = np.asarray(pic.convert("L") if pic.mode == "1" else pic.convert("RGB") if pic.mode == "P" else pic)
        array = array.astype(np.int32) if array.dtype == np.uint16 else array
    else:
        raise TypeError(f"pic: expected a picture of Pillow or an array, got {type(pic).__name__}")
    if array.ndim not in (2, 3):
        raise ValueError(f"pic: expected (H, W) or (H, W, C), got shape {array.shape}")
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if array.dtype == np.uint8:
        return from_array(np.ascontiguousarray(array, np.float32) / np.float32(255))
    return from_array(np.ascontiguousarray(array))


class ToTensor:
    """A picture of Pillow, or an array (H, W) or (H, W, C), as a Tensor (C, H, W); bytes become float32 of 0 to 1."""

    def __call__(self, pic: Any) -> Any:
        return to_tensor(pic)

    def __repr__(self) -> str:
        return "ToTensor()"


class ConvertImageDtype(Transform):
    """Images of another type, with white as that type's white: bytes divided by 255, or values of 0 to 1 spread over 0 to 255."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = to_numpy_dtype(dtype)
        if self.dtype not in (np.uint8, np.float32, np.float64):
            raise ValueError(f"dtype: expected uint8, float32 or float64, got {self.dtype}")

    def apply(self, images: Array, draws: Draws) -> Array:
        if images.dtype == self.dtype:
            return images
        if images.dtype == np.uint8:
            return images.astype(self.dtype) / self.dtype.type(255)
        if self.dtype == np.uint8:  # 256 equal bins, as PyTorch has them
            return np.clip(images * (256 - 1e-3), 0, 255).astype(np.uint8)
        return images.astype(self.dtype)


def normalize(img: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """`(img - mean) / std`, channel by channel; floating-point images."""
    images, restore = as_batch(img)
    if images.dtype == np.uint8:
        raise TypeError("img: expected floating-point values, got uint8; put ToTensor or ConvertImageDtype before it")
    shifts = []
    for name, values in (("mean", mean), ("std", std)):
        array = np.asarray(values, images.dtype).reshape(-1, 1, 1)
        if len(array) not in (1, images.shape[1]):
            raise ValueError(f"{name}: expected 1 or {images.shape[1]} values, one a channel, got {len(array)}")
        shifts.append(array)
    if (shifts[1] == 0).any():
        raise ValueError(f"std: expected no zeros in {images.dtype}, got {std!r}")
    result = images - shifts[0]
    result /= shifts[1]
    return restore(result)


class Normalize(Transform):
    """`(img - mean) / std`, channel by channel; floating-point images, one value of each a channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = tuple(np.atleast_1d(mean).tolist()), tuple(np.atleast_1d(std).tolist())
        if 0 in self.std:
            raise ValueError(f"std: expected no zeros, got {std!r}")

    def apply(self, images: Array, draws: Draws) -> Array:
        return normalize(images, self.mean, self.std)


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """Luma of red, green and blue (ITU-R 601-2): 0.2989 R + 0.587 G + 0.114 B, in 1 or 3 equal channels."""
    if num_output_channels not in (1, 3):
        raise ValueError(f"num_output_channels: expected 1 or 3, got {num_output_channels!r}")
    images, restore = as_batch(img)
    gray = luma(images)
    return restore(np.repeat(gray, 3, 1) if num_output_channels == 3 else gray)


def luma(images: Array) -> Array:
    """(N, 1, H, W) from one or three channels; bytes are cut off to whole numbers."""
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        raise ValueError(f"img: expected 1 or 3 channels, got {images.shape[1]}")
    red, green, blue = (images[:, c : c + 1] for c in range(3))
    kind = np.float32 if images.dtype == np.uint8 else images.dtype.type
    gray = kind(0.2989) * red + kind(0.587) * green + kind(0.114) * blue
    return gray.astype(images.dtype)


class Grayscale(Transform):
    """Gray images of 1 or 3 equal channels."""

    def __init__(self, num_output_channels: int = 1) -> None:
        self.num_output_channels = num_output_channels

    def apply(self, images: Array, draws: Draws) -> Array:
        return rgb_to_grayscale(images, self.num_output_channels)
