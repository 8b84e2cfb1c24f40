"""What every transform shares: images in any form as one batch, and random numbers of each image's own.

Images are arrays or tensors (…, C, H, W), or (H, W) for one of a single channel; everything before the last three axes counts
images. Bytes are 0 to 255, floating-point values 0 to 1. A Tensor gives a Tensor, an array an array, of the same type. Transforms
prepare data: nothing is recorded on the tape.

**Randomness.** A transform takes one 64-bit word for each image from bpnn's generator (`bpnn.manual_seed`); every number it needs
for that image is a function of that word and of how many numbers were drawn for it before. So the images that follow a
seed are the same whether they come one by one or in batches of any size, and on any number of threads.
"""
from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, SupportsFloat, cast

import numpy as np
from bpcore.random import generator as numpy_generator
from bpcore.tensor import Tensor, from_array

Array = np.ndarray[Any, np.dtype[Any]]
U64 = np.uint64


class InterpolationMode(StrEnum):
    """How values between pixels are found; plain strings do as well."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


def interpolation_name(mode: Any, allowed: Sequence[str]) -> str:
    """The value of `mode` as a string, or `ValueError`."""
    name = mode.value if isinstance(mode, InterpolationMode) else mode
    if name not in allowed:
        raise ValueError(f"interpolation: expected one of {', '.join(allowed)}, got {mode!r}")
    return str(name)


# Images ---------------------------------------------------------------------------------------------------------------


def to_array(img: Any, name: str = "img") -> Array:
    """The array of an image or a batch, checked: bytes or floating-point, at least (H, W)."""
    array = img._array if isinstance(img, Tensor) else img
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an array or a Tensor (a picture of Pillow through ToTensor), got {type(img).__name__}")
    if array.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(f"{name}: expected uint8, float32 or float64, got {array.dtype}")
    if array.ndim < 2:
        raise ValueError(f"{name}: expected (…, C, H, W) or (H, W), got shape {array.shape}")
    return array


def as_batch(img: Any) -> tuple[Array, Callable[[Array], Any]]:
    """(images (N, C, H, W), a function that gives a batch (N, C', H', W') the form of `img`)."""
    array = to_array(img)
    lead, flat = array.shape[:-3], array.ndim == 2
    batch = array[None, None] if flat else array.reshape(int(np.prod(lead, dtype=np.int64)), *array.shape[-3:])

    def restore(result: Array) -> Any:
        if flat:
            result = result[0, 0] if result.shape[1] == 1 else result[0]
        else:
            result = result.reshape(*lead, *result.shape[1:])
        return from_array(result) if isinstance(img, Tensor) else result

    return batch, restore


def white(dtype: Any) -> float:
    """The value of full intensity: 255 for bytes, 1 for floating point."""
    return 255.0 if dtype == np.uint8 else 1.0


def to_float(images: Array) -> Array:
    """Bytes as float32, everything else as it is."""
    return images.astype(np.float32) if images.dtype == np.uint8 else images


def to_dtype(values: Array, dtype: Any) -> Array:
    """Floating-point values as `dtype`: rounded and kept within 0 and 255 for bytes."""
    if dtype == np.uint8:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return values.astype(dtype, copy=False)


# Randomness -----------------------------------------------------------------------------------------------------------


def _mixed(z: Array) -> Array:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the result depends on every bit of `z`."""
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    return z ^ (z >> U64(31))


class Draws:
    """Random numbers for N images, each image's from its own word of `keys` (N,), uint64."""

    def __init__(self, keys: Array) -> None:
        self.keys, self.count = keys, 0

    @classmethod
    def make(cls, n: int, generator: Any = None) -> Draws:
        """Fresh words for `n` images, in order, from `generator` or from bpnn's own."""
        bits: Any = numpy_generator(generator).bit_generator
        return cls(np.asarray(bits.random_raw(n), U64).reshape(n))

    def words(self, k: int = 1) -> Array:
        """(N, k) random 64-bit words."""
        steps = np.arange(self.count + 1, self.count + k + 1, dtype=U64) * U64(0x9E3779B97F4A7C15)
        self.count += k
        return _mixed(_mixed(self.keys)[:, None] + steps)

    def random(self, k: int = 1) -> Array:
        """(N, k) doubles uniform in [0, 1)."""
        return cast(Array, (self.words(k) >> U64(11)) * 2.0**-53)

    def uniform(self, low: float, high: float) -> Array:
        """(N,) uniform in [low, high)."""
        return low + (high - low) * self.random()[:, 0]

    def integers(self, high: Any) -> Array:
        """(N,) whole numbers of 0 to `high` - 1; `high` may be an array (N,)."""
        return np.floor(self.random()[:, 0] * high).astype(np.int64)

    def happens(self, p: float) -> Array:
        """(N,) True with probability `p`."""
        return cast(Array, self.random()[:, 0] < p)

    def child(self) -> Draws:
        """Draws of the same images that leave these alone, however many numbers are taken from them."""
        return Draws(self.words()[:, 0])

    def of(self, which: Array) -> Draws:
        """The draws of some of the images."""
        part = Draws(self.keys[which])
        part.count = self.count
        return part


# Transforms -----------------------------------------------------------------------------------------------------------


class Seeded:
    """What transforms of images, texts and recordings share: whose random numbers they take, and how they are shown."""

    generator: Any = None

    def seeded(self, generator: Any) -> Any:
        """Take randomness from `generator` (a `bpnn.Generator`) instead of from bpnn's own; returns self."""
        numpy_generator(generator)
        self.generator = generator
        return self

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in vars(self).items() if name != "generator" and not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(shown)})"


class Transform(Seeded):
    """Base of the transforms: write `apply(images, draws)` from (N, C, H, W) to (N, C', H', W')."""

    random = False  # whether `apply` uses its draws

    def __call__(self, img: Any) -> Any:
        return self.run(img, None)

    def run(self, img: Any, draws: Draws | None) -> Any:
        """The transform of an image or a batch, with numbers from `draws` (None: fresh ones)."""
        images, restore = as_batch(img)
        if draws is None and self.random:
            draws = Draws.make(len(images), self.generator)
        if draws is not None and len(draws.keys) != len(images):
            raise ValueError(f"img: expected {len(draws.keys)} images as before, got {len(images)}")
        return restore(self.apply(images, cast(Draws, draws)))

    def apply(self, images: Array, draws: Draws) -> Array:
        """The images transformed; they themselves are left as they are."""
        raise TypeError(f"{type(self).__name__} has no apply")


def _steps(transforms: Any) -> list[Callable[[Any], Any]]:
    steps = list(transforms)
    for step in steps:
        if not callable(step):
            raise TypeError(f"transforms: expected callables, got {type(step).__name__}")
    return steps


def _chain(steps: Sequence[Callable[[Any], Any]], img: Any, draws: Draws | None, generator: Any) -> Any:
    for step in steps:
        if isinstance(step, Transform):
            if draws is None and step.random:
                draws = Draws.make(len(as_batch(img)[0]), generator)
            img = step.run(img, draws)
        else:
            img = step(img)
    return img


class Compose(Transform):
    """One transform after the other. Other callables may stand between; they get the image as it is then.

    >>> import bpnn
    >>> from bpnn import transforms as T
    >>> augment = T.Compose([T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.Normalize((0.5,) * 3, (0.25,) * 3)])
    >>> augment(bpnn.zeros(8, 3, 32, 32)).shape
    (8, 3, 32, 32)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = _steps(transforms)

    @property
    def random(self) -> bool:  # type: ignore[override]
        return any(isinstance(step, Transform) and step.random for step in self.transforms)

    def run(self, img: Any, draws: Draws | None) -> Any:
        return _chain(self.transforms, img, draws, self.generator)

    def __repr__(self) -> str:
        return "\n    ".join(["Compose(", *(f"{step!r}," for step in self.transforms)]) + "\n)"


class RandomApply(Transform):
    """With probability `p`, all of `transforms` in order; each image of a batch for itself, so they must keep shape and type."""

    random = True

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5) -> None:
        self.transforms, self.p = _steps(transforms), probability(p)

    def apply(self, images: Array, draws: Draws) -> Array:
        chosen, inner = draws.happens(self.p), draws.child()
        if not chosen.any():
            return images
        done = to_array(_chain(self.transforms, images[chosen], inner.of(chosen), None))
        if chosen.all():
            return done
        if done.shape[1:] != images.shape[1:] or done.dtype != images.dtype:
            raise ValueError(
                f"transforms: expected ones that keep {images.shape[1:]} of {images.dtype}, got {done.shape[1:]} of {done.dtype}"
            )
        result = images.copy()
        result[chosen] = done
        return result


# Arguments ------------------------------------------------------------------------------------------------------------


def probability(p: float) -> float:
    """`p` if it is a probability."""
    if not isinstance(p, numbers.Real) or not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability between 0 and 1, got {p!r}")
    return float(p)


def pair(size: Any, name: str = "size") -> tuple[int, int]:
    """`size` as (height, width): an integer for both, or a sequence of one or two."""
    values = [size] if isinstance(size, numbers.Integral) else list(size)
    if len(values) == 1:
        values *= 2
    if len(values) != 2 or any(not isinstance(v, numbers.Integral) or isinstance(v, bool) or v < 1 for v in values):
        raise ValueError(f"{name}: expected one or two whole numbers above 0, got {size!r}")
    return int(values[0]), int(values[1])


def interval(values: Any, name: str, low: float = -np.inf) -> tuple[float, float]:
    """`values` as (low, high), in order and nowhere under `low`."""
    first, second = (float(cast(SupportsFloat, v)) for v in _two(values, name))
    if not low <= first <= second < np.inf:
        floor = f" from {low:g}" if low > -np.inf else ""
        raise ValueError(f"{name}: expected two numbers in order{floor}, got {values!r}")
    return first, second


def _two(values: Any, name: str) -> list[Any]:
    try:
        items = list(values)
    except TypeError:
        items = []
    if len(items) != 2:
        raise ValueError(f"{name}: expected two numbers, got {values!r}")
    return items


def symmetric(value: Any, name: str) -> tuple[float, float]:
    """A number as (-number, number), a pair as it is."""
    if isinstance(value, numbers.Real):
        if value < 0:
            raise ValueError(f"{name}: expected a number of 0 or more, or two in order, got {value!r}")
        return -float(value), float(value)
    return interval(value, name)


def channel_values(fill: Any, channels: int, name: str = "fill") -> Array:
    """`fill` as (channels,), from a number or a sequence of one a channel."""
    values = np.atleast_1d(np.asarray(fill, np.float64))
    if values.ndim != 1 or len(values) not in (1, channels):
        raise ValueError(f"{name}: expected a number or one for each of {channels} channels, got {fill!r}")
    return np.broadcast_to(values, (channels,))
