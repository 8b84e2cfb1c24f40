"""The continuous input of a batch: images, sound, rows of numbers; and numbers drawn from bpnn's generator."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import bpnn


def array_of(value: Any) -> np.ndarray:
    """A Tensor or an array as an array."""
    return value.detach().numpy() if isinstance(value, bpnn.Tensor) else np.asarray(value)


def continuous_input(batch: Any, target_key: str, key: str | None = None) -> tuple[Any, np.ndarray]:
    """(where, x): the key or the place of the floating-point input x of a batch, whose first dimension counts the samples.

    Of a dictionary `key`, else its only entry of two or more dimensions that is no target and not of whole numbers; of a tuple the
    first item; else the batch itself (None). Raises `ValueError` where that is not one floating-point array.
    """
    if isinstance(batch, Mapping):
        if key is not None and key not in batch:
            raise ValueError(f"key: the batch has no {key!r}; it has {', '.join(batch)}")
        found = [key] if key is not None else [
            name for name, value in batch.items() if name != target_key and _floating(value) and getattr(value, "ndim", 0) > 1
        ]
        if len(found) != 1:
            told = ", ".join(found) or "none"
            raise ValueError(f"batch: expected one entry of floating-point numbers, or key=, got {told} among {', '.join(batch)}")
        where: Any = found[0]
        x = array_of(batch[where])
    elif isinstance(batch, (tuple, list)):
        where, x = 0, array_of(batch[0])
    else:
        where, x = None, array_of(batch)
    if x.dtype.kind != "f" or not x.ndim:
        raise ValueError(f"batch: expected a floating-point input, got {x.dtype} of shape {x.shape}; tokens have no values to "
                         "change, their embeddings have")
    return where, x


def _floating(value: Any) -> bool:
    return getattr(value, "dtype", None) is not None and np.dtype(value.dtype).kind == "f"


def replaced(batch: Any, where: Any, value: Any) -> Any:
    """The batch with another value in one place; the given one stays as it is."""
    if where is None:
        return value
    if isinstance(batch, Mapping):
        return {**batch, where: value}
    items = list(batch)
    items[where] = value
    return items if isinstance(batch, list) else tuple(items)


def drawn_generator() -> np.random.Generator:
    """A NumPy generator that starts from a number of bpnn's: what it draws is repeated where bpnn's state is put back."""
    return np.random.default_rng(int(bpnn.randint(0, 2**63 - 1, (1,)).item()))
