"""Sequences of different lengths: padded to one length, or packed without padding.

Packed data holds, for each time step, the rows of all sequences that are that long, the longest sequence first. Packing and
padding are one step each: rows picked by their places, or put there.
"""
from collections import namedtuple

import numpy as np

import bpnn
from bpcore.tensor import Tensor


class PackedSequence(namedtuple("PackedSequence", ["data", "batch_sizes", "sorted_indices", "unsorted_indices"])):
    """Sequences without padding, as `pack_padded_sequence` and `pack_sequence` make them.

    data: (rows, *); batch_sizes: (T,), how many sequences each step has; sorted_indices: where each sequence, the longest first,
    stands in the batch, and unsorted_indices, the inverse; both None where the batch came sorted. The indices are int64.
    """

    __slots__ = ()

    def __new__(cls, data, batch_sizes=None, sorted_indices=None, unsorted_indices=None):
        if batch_sizes is None:
            if not isinstance(data, (tuple, list)) or len(data) != 2:
                raise ValueError("data: expected (data, batch_sizes) where batch_sizes is not given")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args, **keywords):
        """With `data.to(…)`; itself where that changes nothing."""
        data = self.data.to(*args, **keywords)
        return self if data is self.data else self._replace(data=data)

    def cpu(self):
        """Itself."""
        return self

    def double(self):
        """With data of float64."""
        return self.to(bpnn.float64)

    def float(self):
        """With data of float32."""
        return self.to(bpnn.float32)

    def half(self):
        """With data of float16."""
        return self.to(bpnn.float16)

    def long(self):
        """With data of int64."""
        return self.to(bpnn.int64)

    def int(self):
        """With data of int32."""
        return self.to(bpnn.int32)

    @property
    def is_cuda(self):
        """False."""
        return False


def invert_permutation(permutation):
    """The permutation that takes back `permutation`, a vector of int64; None for None."""
    if permutation is None:
        return None
    order = permutation.numpy()
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return bpnn.from_numpy(inverse)


def _lengths(lengths, name="lengths"):
    array = np.asarray(lengths.numpy() if isinstance(lengths, Tensor) else lengths)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected a vector of integers, got shape {array.shape} of {array.dtype}")
    return array.astype(np.int64)


def _check_batch(input, name):
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(input).__name__}")
    if input.ndim < 2:
        raise ValueError(f"{name}: expected two axes or more, got shape {input.shape}")


def _places(lengths, order, steps, batch_first):
    """The rows of a padded batch that packed data holds, in its order; `lengths` do not grow, `order` holds their sequences."""
    sizes = (lengths[:, None] > np.arange(lengths[0])).sum(0)
    step = np.repeat(np.arange(len(sizes)), sizes)
    sequence = order[np.arange(len(step)) - np.repeat(sizes.cumsum() - sizes, sizes)]
    return sizes, sequence * steps + step if batch_first else step * len(lengths) + sequence


def _spread(rows, places, outer, value):
    """A Tensor of shape (*outer, …) full of `value` but for the rows at `places`."""
    full = bpnn.full((outer[0] * outer[1], *rows.shape[1:]), value, dtype=rows.dtype)
    return full.index_copy(0, bpnn.from_numpy(places), rows).reshape(*outer, *rows.shape[1:])


def pack_padded_sequence(input, lengths, batch_first=False, enforce_sorted=True):
    """The first `lengths` rows of each sequence as a `PackedSequence`.

    input: (T, B, *), or (B, T, *) with `batch_first`; lengths: B numbers between 1 and T, which must not grow where
    `enforce_sorted`. Raises `ValueError` for other lengths, `RuntimeError` where they grow.
    """
    _check_batch(input, "input")
    steps, batch = input.shape[:2][::-1] if batch_first else input.shape[:2]
    lengths = _lengths(lengths)
    if len(lengths) != batch or batch == 0:
        raise ValueError(f"lengths: expected {max(batch, 1)}, one for each sequence of input, got {len(lengths)}")
    if lengths.min() < 1 or lengths.max() > steps:
        raise ValueError(f"lengths: expected numbers between 1 and {steps}, got {lengths.min()} to {lengths.max()}")
    order, indices = np.arange(batch), None
    if not enforce_sorted:
        order = np.argsort(-lengths, kind="stable")
        lengths, indices = lengths[order], bpnn.from_numpy(order)
    elif (lengths[1:] > lengths[:-1]).any():
        raise RuntimeError("lengths: expected numbers that do not grow; pass enforce_sorted=False to have the batch sorted")
    sizes, places = _places(lengths, order, steps, batch_first)
    data = input.reshape(steps * batch, *input.shape[2:]).index_select(0, bpnn.from_numpy(places))
    return PackedSequence(data, bpnn.from_numpy(sizes.astype(np.int64)), indices, None)


def pad_packed_sequence(sequence, batch_first=False, padding_value=0.0, total_length=None):
    """`(padded, lengths)`: the inverse of `pack_padded_sequence`, in the order in which the sequences came.

    padded: (T, B, *), or (B, T, *) with `batch_first`, where T is the longest length, or `total_length`. Raises `ValueError`
    where that is less.
    """
    sizes = sequence.batch_sizes.numpy()
    steps, batch = len(sizes), int(sizes[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError(f"total_length: expected at least {steps}, the longest length, got {total_length}")
        steps = total_length
    lengths = (sizes > np.arange(batch)[:, None]).sum(1)
    indices = sequence.sorted_indices
    order = np.arange(batch) if indices is None else indices.numpy()
    _, places = _places(lengths, order, steps, batch_first)
    padded = _spread(sequence.data, places, (batch, steps) if batch_first else (steps, batch), padding_value)
    given = np.empty(batch, np.int64)
    given[order] = lengths
    return padded, bpnn.from_numpy(given)


def pad_sequence(sequences, batch_first=False, padding_value=0.0, padding_side="right"):
    """Tensors of shapes (length, *) as one, (T, B, *) or (B, T, *) with `batch_first`, filled up with `padding_value`.

    `padding_side`: "right" (behind the sequences) or "left". Raises `ValueError` for anything else, or where the shapes differ
    behind the first axis.
    """
    if not hasattr(sequences, "__iter__"):
        raise RuntimeError(f"sequences: expected an iterable of Tensors, got {type(sequences).__name__}")
    sequences = list(sequences)
    if not sequences:
        raise RuntimeError("sequences: expected at least one Tensor, got none")
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side: expected 'left' or 'right', got {padding_side!r}")
    for index, one in enumerate(sequences):
        if not isinstance(one, Tensor) or one.ndim < 1:
            raise TypeError(f"sequences[{index}]: expected a Tensor with an axis of time")
        if one.shape[1:] != sequences[0].shape[1:]:
            raise ValueError(f"sequences[{index}]: expected shape (*, {sequences[0].shape[1:]}), got {one.shape}")
    lengths = np.array([len(one) for one in sequences])
    batch, steps = len(sequences), int(lengths.max())
    step = np.concatenate([np.arange(n) for n in lengths])
    sequence = np.repeat(np.arange(batch), lengths)
    if padding_side == "left":
        step = step + np.repeat(steps - lengths, lengths)
    places = sequence * steps + step if batch_first else step * batch + sequence
    return _spread(bpnn.cat(sequences), places, (batch, steps) if batch_first else (steps, batch), padding_value)


def unpad_sequence(padded_sequences, lengths, batch_first=False):
    """The list of the sequences in a padded batch: the first `lengths` steps of each."""
    _check_batch(padded_sequences, "padded_sequences")
    lengths = _lengths(lengths)
    batch = padded_sequences.shape[0 if batch_first else 1]
    if len(lengths) != batch:
        raise ValueError(f"lengths: expected {batch}, one for each sequence, got {len(lengths)}")
    return [padded_sequences[i, :n] if batch_first else padded_sequences[:n, i] for i, n in enumerate(lengths)]


def pack_sequence(sequences, enforce_sorted=True):
    """Tensors of shapes (length, *) as a `PackedSequence`; the longest must come first where `enforce_sorted`."""
    sequences = list(sequences)
    return pack_padded_sequence(pad_sequence(sequences), [len(one) for one in sequences], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences):
    """The list of the sequences in a `PackedSequence`, in the order in which they came."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
