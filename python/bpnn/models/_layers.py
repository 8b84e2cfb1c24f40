"""What the Transformer models share: names of activations, attention whose weights are asked for, the losses of the heads."""
from __future__ import annotations

from typing import Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import functional as F

IGNORED = -100  # the label of what does not count

# From the names in configurations to those of `F.linear(activation=…)`, which computes them with the product.
ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh", "gelu_accurate": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu",
    "tanh": "tanh", "sigmoid": "sigmoid", "linear": None,
}


def activation_name(name: str, key: str = "hidden_act") -> str | None:
    """What `F.linear` calls the activation that a configuration names. Raises `ValueError` naming the configuration's key."""
    if name not in ACTIVATIONS:
        raise ValueError(f"config: {key}: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def array_of(value: Any, name: str) -> np.ndarray:
    """A Tensor, an array or nested lists as an array. Raises `ValueError` naming the argument for rows of several lengths."""
    try:
        return value.detach().numpy() if isinstance(value, bpnn.Tensor) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected rows of one length, got a list of rows of several") from error


def numbers(value: Any, name: str) -> np.ndarray:
    """As `array_of`, whole numbers as int64. Raises `TypeError` for others."""
    array = array_of(value, name)
    if array.dtype.kind not in "iu":
        if array.size:
            raise TypeError(f"{name}: expected whole numbers, got {array.dtype}")
        array = array.astype(np.int64)
    return array.astype(np.int64, copy=False)


def in_range(array: np.ndarray, size: int, name: str, what: str) -> np.ndarray:
    """`array`, where all its numbers are at least 0 and below `size`; else `IndexError` naming the argument and the number."""
    if array.size and (int(array.min()) < 0 or int(array.max()) >= size):
        at = tuple(map(int, np.argwhere((array < 0) | (array >= size))[0]))
        raise IndexError(f"{name}: expected {what} from 0 to {size - 1}, got {array[at]} at {at}")
    return array


def add_and_norm(norm: Any, x: Any, change: Any) -> tuple[Any, Any]:
    """`norm(x + change)` and the sum, in one pass; change None: nothing is added."""
    return (norm(x), x) if change is None else norm(change, x)


def joint_projection(x: Any, maps: Any, heads: int) -> Any:
    """The maps of query, key and value side by side as one product, (…, 3, heads, D): what `F.qkv_attention` takes.

    Maps that are more than a weight and a bias, such as those with adapters, are computed one after the other.
    """
    if not all(type(map) is nn.Linear for map in maps):
        return bpnn.stack([map(x).unflatten(-1, (heads, -1)) for map in maps], -3)
    bias = None if maps[0].bias is None else bpnn.cat([map.bias for map in maps])
    joint: Any = F.linear(x, bpnn.cat([map.weight for map in maps]), bias)
    return joint.unflatten(-1, (3, heads, joint.shape[-1] // (3 * heads)))


# --- inputs that are no tokens -------------------------------------------------------------------------------------------------


def embedded_shape(input_ids: Any, inputs_embeds: Any) -> tuple[int, ...]:
    """The shape (B, T) of rows (B, T, H) that the caller embedded. Raises `ValueError`, `TypeError` naming the argument."""
    if input_ids is not None:
        raise ValueError("inputs_embeds: expected None beside input_ids")
    if not isinstance(inputs_embeds, bpnn.Tensor) or not inputs_embeds.is_floating_point():
        raise TypeError(f"inputs_embeds: expected a Tensor of floating-point numbers, got {type(inputs_embeds).__name__}")
    if inputs_embeds.ndim < 2:
        raise ValueError(f"inputs_embeds: expected shape (B, T, H), got {tuple(inputs_embeds.shape)}")
    return tuple(inputs_embeds.shape[:-1])


def prefix_length(prefix_key_values: Any, layers: int, recomputed: bool = False) -> int:
    """P of keys and values (P, heads, D) that stand in front of those of every text, a pair for each layer; 0: there are none."""
    if prefix_key_values is None:
        return 0
    if recomputed:
        raise ValueError("prefix_key_values: expected None where activations are computed again in backward")
    if len(prefix_key_values) != layers:
        raise ValueError(f"prefix_key_values: expected keys and values of {layers} layers, got {len(prefix_key_values)}")
    return int(prefix_key_values[0][0].shape[0])


# --- attention whose weights are asked for -------------------------------------------------------------------------------------


def weigh(query: Any, key: Any, value: Any, seen: Any = None, scale: float | None = None, dropout: float = 0.0) -> tuple[Any, Any]:
    """`softmax(scale q k^T) v` step by step, and the weights.

    query: (…, H, T, D); key, value: (…, G, S, D), G divides H; values: (…, H, T, D); weights: (…, H, T, S). seen: bool, False hides
    a key, broadcasts to (…, H, T, S). scale: 1 / sqrt(D) by default. A query that sees no key gets zeros.
    """
    heads, groups, width = query.shape[-3], key.shape[-3], query.shape[-1]
    if heads != groups:
        key, value = (bpnn.repeat_interleave(x, heads // groups, -3) for x in (key, value))
    scores = (query * (width**-0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if seen is not None:
        seen = np.asarray(seen, bool)
        low = np.finfo(scores.dtype).min  # and no infinity: a row of them would have no softmax
        scores = scores + bpnn.from_numpy(np.where(seen, 0, low).astype(scores.dtype))
    weights = F.softmax(scores, -1)
    if seen is not None and not seen.any(-1).all():
        weights = weights * bpnn.from_numpy(seen.any(-1, keepdims=True).astype(scores.dtype))
    if dropout > 0:
        weights = F.dropout(weights, dropout)
    return weights @ value, weights


def weighted_values(qkv: Any, reading: Any, layer: int, scale: float, dropout: float = 0.0) -> tuple[Any, Any]:
    """`weigh_reading` of a joint projection (B, T, 3, H, D)."""
    return weigh_reading(qkv.select(-3, 0), qkv.select(-3, 1), qkv.select(-3, 2), reading, layer, scale, dropout)


def weigh_reading(
    query: Any, key: Any, value: Any, reading: Any, layer: int, scale: float | None = None, dropout: float = 0.0,
    window: int | None = None,
) -> tuple[Any, Any]:
    """`weigh` of what a decoder's `Reading` attends to: values (B, T, H, D), weights (B, H, T, S)."""
    if reading.cu_seqlens is not None:
        raise ValueError("output_attentions: expected False with cu_seqlens")
    query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    key, value = reading.all_keys(layer, key, value)
    keys = np.arange(key.shape[-2])
    behind = reading.past + np.arange(query.shape[-2])[:, None] - keys
    seen = (behind >= 0) & (behind < (len(keys) if window is None else window))
    if reading.mask is not None:
        seen = seen & reading.mask
    if reading.key_lengths is not None:
        seen = seen & (keys < np.asarray(reading.key_lengths)[:, None, None, None])
    values, weights = weigh(query, key, value, seen, scale, dropout)
    return values.transpose(-3, -2), weights


# --- losses --------------------------------------------------------------------------------------------------------------------


def target_of(labels: Any, shape: tuple[int, ...] | None, classes: int, name: str = "labels") -> np.ndarray:
    """Labels as int64. Raises `ValueError` for another shape, `IndexError` for what is neither a class nor -100."""
    array = numbers(labels, name)
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {array.shape}")
    wrong = (array != IGNORED) & ((array < 0) | (array >= classes))
    if wrong.any():
        raise IndexError(f"{name}: expected 0 to {classes - 1}, or {IGNORED} for what does not count, got {array[wrong][0]}")
    return array


def vocabulary_loss(output: Any, x: Any, target: Any) -> Any:
    """The mean cross-entropy of rows (N, H) against tokens (N,), -100 for what does not count, behind the map to scores.

    In chunks, without all the scores at once, where the map is a plain one; with adapters it is computed as a whole.
    """
    if isinstance(output, (nn.Linear, nn.StoredLinear)):
        return F.linear_cross_entropy(x, output.weight, target, linear_bias=output.bias)
    return F.cross_entropy(output(x), target, ignore_index=IGNORED)


def classification_loss(logits: Any, labels: Any, config: Any) -> Any:
    """The loss of logits (B, C), C = `config.num_labels`, as `config.problem_type` says.

    "regression": mean squared error, labels (B, C), or (B,) for C = 1. "single_label_classification": cross-entropy, labels (B,),
    integers. "multi_label_classification": binary cross-entropy, labels (B, C). None: regression for C = 1, else single label for
    integers and multi label for others. Raises `ValueError` and `IndexError` naming `labels`.
    """
    count = config.num_labels
    given = array_of(labels, "labels")
    kind = config.problem_type
    if kind is None and count > 1:
        kind = "single_label_classification" if given.dtype.kind in "iu" else "multi_label_classification"
    elif kind is None:
        kind = "regression"
    if kind == "single_label_classification":
        target = target_of(given.reshape(-1), logits.shape[:1], count)
        return F.cross_entropy(logits, bpnn.from_numpy(target), ignore_index=IGNORED)
    if kind not in ("regression", "multi_label_classification"):
        raise ValueError(
            "config: problem_type: expected regression, single_label_classification or multi_label_classification, "
            f"got {kind!r}"
        )
    if given.shape != tuple(logits.shape) and not (count == 1 and given.size == logits.shape[0]):
        raise ValueError(f"labels: expected shape {tuple(logits.shape)}, got {given.shape}")
    wanted = bpnn.from_numpy(np.ascontiguousarray(given.reshape(logits.shape), dtype=logits.dtype))
    return F.mse_loss(logits, wanted) if kind == "regression" else F.binary_cross_entropy_with_logits(logits, wanted)


def span_loss(start_logits: Any, end_logits: Any, start_positions: Any, end_positions: Any) -> Any:
    """Question answering: the mean of the cross-entropies of first and last token; logits (B, T), positions (B,).

    Positions behind the text do not count, negative ones count as 0.
    """
    length = start_logits.shape[1]
    losses: list[Any] = []
    for name, logits, given in (("start_positions", start_logits, start_positions), ("end_positions", end_logits, end_positions)):
        places = numbers(given, name).reshape(-1)
        if places.shape != tuple(logits.shape[:1]):
            raise ValueError(f"{name}: expected shape {tuple(logits.shape[:1])}, got {numbers(given, name).shape}")
        losses.append(F.cross_entropy(logits, bpnn.from_numpy(places.clip(0, length)), ignore_index=length))
    return (losses[0] + losses[1]) / 2
