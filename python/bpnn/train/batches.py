"""What a batch is: tensors in a tuple, a dictionary or alone; and how predictions of many batches become one."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import bpnn


def split_batch(batch: Any, target_key: str) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional inputs, keyword inputs and target (or None) of a batch.

    `(x, y)` and `(x1, x2, …, y)`: the last is the target. A dictionary: `target_key` is the target, the rest are the
    model's keyword arguments. Anything else, or a tuple of one: an input without target.
    """
    if isinstance(batch, (tuple, list)):  # first: it is the usual case, and a look at Mapping takes a microsecond
        if len(batch) < 2:
            return tuple(batch), {}, None
        return tuple(batch[:-1]), {}, batch[-1]
    if isinstance(batch, Mapping):
        inputs = dict(batch)
        return (), inputs, inputs.pop(target_key, None)
    return (batch,), {}, None


def batch_size(batch: Any) -> int:
    """The number of samples: the length of the first thing in the batch that has dimensions."""
    if not isinstance(batch, (tuple, list)):
        batch = tuple(batch.values()) if isinstance(batch, Mapping) else (batch,)
    for item in batch:
        if getattr(item, "ndim", 0):
            return len(item)
    return 1


def groups(batches: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """`size` batches at a time, fewer at the end."""
    source = iter(batches)
    while group := tuple(islice(source, size)):
        yield group


def loss_of(output: Any) -> Any:
    """The loss that a model computed itself: a scalar tensor, or the `loss` of what it returned."""
    if isinstance(output, Mapping) and "loss" in output:
        return output["loss"]
    if hasattr(output, "loss"):
        return output.loss
    if isinstance(output, bpnn.Tensor) and output.numel() == 1:
        return output
    raise TypeError(
        f"the trainer has no loss, so the model must return a scalar or something with a loss, got {type(output).__name__}"
    )


def prediction_of(output: Any) -> Any:
    """What metrics look at in a model's output: `logits` where it has them, else the output."""
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output)


def join(outputs: Sequence[Any]) -> Any:
    """Outputs of successive batches as one: tensors concatenated over dimension 0, dictionaries and tuples field by field."""
    first = outputs[0]
    if isinstance(first, Mapping):
        return {key: join([output[key] for output in outputs]) for key in first}
    if isinstance(first, (tuple, list)):
        return tuple(join(fields) for fields in zip(*outputs, strict=True))
    return bpnn.cat(list(outputs))
