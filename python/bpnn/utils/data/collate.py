"""From a list of samples to a batch."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bpcore.tensor import Tensor, from_array


def default_convert(data: Any) -> Any:
    """Turn the NumPy arrays in `data` (a sample, however nested) into tensors of the same memory; leave the rest as it is.

    The loader's `collate_fn` where it does not batch (`batch_size=None`).
    """
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray):
        return from_array(data) if data.dtype.kind in "biufc" else data
    if isinstance(data, np.generic):
        return from_array(np.asarray(data)) if data.dtype.kind in "biufc" else data
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple):
        return _like(data, [default_convert(item) for item in data])
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _like(data, [default_convert(item) for item in data])
    return data


def default_collate(batch: Sequence[Any]) -> Any:
    """Join a list of samples of one structure into a batch of that structure, with a new first axis.

    tensors and arrays of one shape -> a tensor `(B, *shape)` of their dtype; Python floats -> float64, integers -> int64,
    bools -> bool; strings and bytes -> as they come (a list, or a tuple within tuples); mappings -> a mapping of batches;
    named tuples -> a named tuple of batches; tuples and lists -> a list of batches.

    >>> default_collate([{"x": 1.0, "name": "a"}, {"x": 2.0, "name": "b"}])["name"]
    ['a', 'b']

    Raises `TypeError` for anything else and `RuntimeError` where samples differ in shape or length.
    """
    if len(batch) == 0:
        raise ValueError("default_collate: expected at least one sample, got an empty batch")
    first = batch[0]
    if isinstance(first, Tensor):
        return _stack_tensors(batch)
    if isinstance(first, (np.ndarray, np.generic)):
        return _stack_arrays([np.asarray(item) for item in batch])
    if isinstance(first, bool):
        return from_array(np.array(batch, np.bool_))
    if isinstance(first, int):
        return from_array(np.array(batch, np.int64))
    if isinstance(first, float):
        return from_array(np.array(batch, np.float64))
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        lengths = {len(sample) for sample in batch}
        if len(lengths) > 1:
            raise RuntimeError(f"default_collate: expected samples of one length, got lengths {sorted(lengths)}")
        fields = [default_collate(field) for field in zip(*batch)]
        return _like(first, fields) if not isinstance(first, tuple) or hasattr(first, "_fields") else fields
    raise TypeError(
        "default_collate: expected samples of tensors, arrays, numbers, strings, mappings or sequences, "
        f"got {type(first).__name__}; pass a collate_fn of your own"
    )


def _stack_tensors(batch: Sequence[Tensor]) -> Tensor:
    if any(isinstance(item, Tensor) and item.requires_grad for item in batch):
        from bpnn import stack  # the tape must know: only bpnn's own operator records

        return stack(list(batch))
    return _stack_arrays([item._array if isinstance(item, Tensor) else np.asarray(item) for item in batch])


def _stack_arrays(arrays: list[np.ndarray]) -> Tensor:
    first = arrays[0]
    if first.dtype.kind not in "biufc" and first.dtype.name != "bfloat16":
        raise TypeError(f"default_collate: expected arrays of numbers or bools, got dtype {first.dtype}")
    for array in arrays:
        if array.shape != first.shape:
            raise RuntimeError(
                f"default_collate: expected samples of one shape, got {first.shape} and {array.shape}; "
                "pass a collate_fn that pads them"
            )
    return from_array(np.stack(arrays))


def _like(sample: Any, fields: Any) -> Any:
    """`fields` as an object of the type of `sample`, or as a plain dict or list where that type has another constructor."""
    try:
        if hasattr(sample, "_fields"):
            return type(sample)(*fields)
        return type(sample)(fields)
    except TypeError:
        return fields
