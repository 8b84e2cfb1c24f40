"""Operators made of others: grids, bins, parts written into copies, reductions to places."""
import math

import numpy as np

from bpcore.arithmetic import mul, sub
from bpcore.combine import where
from bpcore.elementwise import sin
from bpcore.gather import gather, scatter, scatter_add
from bpcore.join import cat, stack
from bpcore.operand import to_type
from bpcore.promotion import promote_types
from bpcore.repeat import diag, flip
from bpcore.shape import broadcast_to, clone, narrow, reshape, select, transpose
from bpcore.statistics import norm
from bpcore.tensor import Tensor, from_array

__all__ = [
    "bincount", "block_diag", "broadcast_shapes", "broadcast_tensors", "bucketize", "cartesian_prod", "cross", "diagflat", "diff",
    "dist", "histc", "kron", "meshgrid", "rot90", "scatter_reduce", "searchsorted", "select_scatter", "sinc", "slice_scatter",
]


def _axis(dim, ndim, name="dim"):
    """An axis counted from the front."""
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise IndexError(f"{name}: expected an axis in [{-max(ndim, 1)}, {max(ndim, 1) - 1}], got {dim}")
    return dim % max(ndim, 1)


def _several(tensors):
    """`*tensors` that may be given as one list."""
    return tuple(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors


# --- shapes together ------------------------------------------------------------------------------------------------------

def broadcast_shapes(*shapes):
    """The shape that arrays of these shapes (tuples or sizes) have together. Raises `RuntimeError` where they do not fit."""
    sizes = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    try:
        return np.broadcast_shapes(*sizes)
    except ValueError:
        raise RuntimeError(f"shapes: expected sizes that are equal or 1, got {sizes}") from None


def broadcast_tensors(*tensors):
    """The tensors as views of the shape that they have together."""
    tensors = _several(tensors)
    shape = broadcast_shapes(*(t.shape for t in tensors))
    return tuple(broadcast_to(t, shape) for t in tensors)


def meshgrid(*tensors, indexing=None):
    """Coordinates of a grid: for N vectors (or numbers) N views of shape (len 0, len 1, …), the i-th varying along axis i alone.

    `indexing`: "ij" (None too), or "xy", where the first two axes change places."""
    tensors = _several(tensors)
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f"indexing: expected 'ij' or 'xy', got {indexing!r}")
    if not tensors or any(t.ndim > 1 for t in tensors):
        raise RuntimeError(f"tensors: expected one vector or more, got shapes {[t.shape for t in tensors]}")
    swap = indexing == "xy" and len(tensors) > 1
    order = [1, 0, *range(2, len(tensors))] if swap else list(range(len(tensors)))
    shape = [tensors[i].numel() for i in order]
    views = []
    for i, t in enumerate(tensors):
        form = [1] * len(tensors)
        form[order.index(i)] = t.numel()
        views.append(broadcast_to(reshape(t, tuple(form)), tuple(shape)))
    return tuple(views)


def cartesian_prod(*tensors):
    """All combinations of elements of the vectors, (N, number of vectors); one vector alone is returned as it is."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, (-1,)) for g in meshgrid(*tensors)], -1)


def block_diag(*tensors):
    """Matrices (vectors are rows, numbers 1×1) along the diagonal of a matrix that is 0 elsewhere."""
    blocks = [reshape(t, (1, -1)) if t.ndim < 2 else t for t in _several(tensors)]
    if any(b.ndim > 2 for b in blocks):
        raise RuntimeError(f"tensors: expected at most 2 axes, got shapes {[b.shape for b in blocks]}")
    dtype, width, rows, left = _common(blocks), 0, [], 0
    width = sum(b.shape[1] for b in blocks)
    for b in blocks:
        right = width - left - b.shape[1]
        parts = [from_array(np.zeros((b.shape[0], n), dtype)) for n in (left, right)]
        rows.append(cat([parts[0], to_type(b, dtype), parts[1]], 1))
        left += b.shape[1]
    return cat(rows, 0)


def _common(tensors):
    """The dtype that all of them are promoted to."""
    dtype = tensors[0].dtype
    for t in tensors[1:]:
        dtype = promote_types(dtype, t.dtype)
    return dtype


def kron(input, other):
    """The Kronecker product: every element of `input` times the whole of `other`; axes that one lacks count as 1."""
    ndim = max(input.ndim, other.ndim)
    a, b = ((1,) * (ndim - t.ndim) + t.shape for t in (input, other))
    left = reshape(input, tuple(n for size in a for n in (size, 1)))
    right = reshape(other, tuple(n for size in b for n in (1, size)))
    return reshape(mul(left, right), tuple(m * n for m, n in zip(a, b, strict=True)))


def rot90(input, k=1, dims=(0, 1)):
    """`k` quarter turns from the first of the two axes towards the second."""
    if len(dims) != 2 or input.ndim < 2:
        raise RuntimeError(f"dims: expected 2 axes of at least 2, got {dims} for shape {input.shape}")
    i, j = (_axis(d, input.ndim, "dims") for d in dims)
    if i == j:
        raise RuntimeError(f"dims: expected two different axes, got {dims}")
    k %= 4
    if k == 0:
        return clone(input)
    if k == 2:
        return flip(input, (i, j))
    return transpose(flip(input, (j,)), i, j) if k == 1 else flip(transpose(input, i, j), (j,))


def diagflat(input, offset=0):
    """The elements, in row-major order, as the diagonal of a matrix."""
    return diag(reshape(input, (-1,)), offset)


# --- parts written into a copy --------------------------------------------------------------------------------------------

def _written(input, src, index, shape):
    """A copy of `input` with `src` in place of `input[index]`."""
    if src.shape != shape:
        raise RuntimeError(f"src: expected shape {shape}, got {src.shape}")
    places = np.arange(input.numel()).reshape(input.shape)[index].reshape(-1)
    flat = scatter(reshape(input, (-1,)), 0, from_array(places), reshape(to_type(src, input.dtype), (-1,)))
    return reshape(flat, input.shape)


def select_scatter(input, src, dim, index):
    """A copy of `input` with `src` in place of `input.select(dim, index)`."""
    dim = _axis(dim, input.ndim)
    size = input.shape[dim]
    if not -size <= index < size:
        raise IndexError(f"index: expected a place in [{-size}, {size - 1}], got {index}")
    at = (slice(None),) * dim + (index,)
    return _written(input, src, at, input.shape[:dim] + input.shape[dim + 1:])


def slice_scatter(input, src, dim=0, start=None, end=None, step=1):
    """A copy of `input` with `src` in place of `input[..., start:end:step]` along `dim`."""
    dim = _axis(dim, input.ndim)
    if step < 1:
        raise RuntimeError(f"step: expected 1 or more, got {step}")
    at = slice(start, end, step)
    length = len(range(*at.indices(input.shape[dim])))
    return _written(input, src, (slice(None),) * dim + (at,), input.shape[:dim] + (length,) + input.shape[dim + 1:])


def scatter_reduce(input, dim, index, src, reduce, *, include_self=True):
    """A copy of `input` in which place `index` along `dim` is reduced with the elements of `src` that name it.

    `reduce`: "sum", "mean", "prod", "amax" or "amin". `include_self`: whether the element of `input` takes part; places that
    nothing names stay. Equal extremes share the gradient. `index`: int64, of as many axes as both and nowhere longer."""
    if reduce not in ("sum", "mean", "prod", "amax", "amin"):
        raise RuntimeError(f"reduce: expected 'sum', 'mean', 'prod', 'amax' or 'amin', got {reduce!r}")
    if input.dtype != src.dtype:
        raise RuntimeError(f"src: expected the dtype of input, {input.dtype}, got {src.dtype}")
    if input.ndim == 0:
        index, src = reshape(index, (-1,)), reshape(src, (-1,))
        return reshape(scatter_reduce(reshape(input, (1,)), dim, index, src, reduce, include_self=include_self), ())
    dim = _axis(dim, input.ndim)
    if index.numel() == 0:
        return clone(input)
    ones = from_array(np.ones(index.shape, np.int64))
    counts = scatter_add(from_array(np.zeros(input.shape, np.int64)), dim, index, ones)
    named = from_array(np.asarray(counts._array > 0))
    src = src[tuple(slice(0, n) for n in index.shape)]
    if reduce in ("sum", "mean"):
        start = input if include_self else where(named, from_array(np.zeros((), input.dtype)), input)
        summed = scatter_add(start, dim, index, src)
        if reduce == "sum":
            return summed
        share = np.maximum(counts._array + bool(include_self), 1)
        share = np.where(named._array, share, 1).astype(input.dtype)
        return summed / from_array(share) if input.dtype.kind == "f" else from_array(summed._array // share)
    return _extreme(input, dim, index, src, reduce, include_self, named)


def _extreme(input, dim, index, src, reduce, include_self, named):
    """amax, amin or prod: the values by NumPy; the gradient as a function of sources and values alone."""
    ufunc = {"amax": np.maximum, "amin": np.minimum, "prod": np.multiply}[reduce]
    kind = input.dtype
    low, high = _range(kind)
    start = {"amax": low, "amin": high, "prod": 1}[reduce]
    values = np.array(input._array if include_self else np.where(named._array, start, input._array), dtype=kind)
    at = list(np.indices(index.shape, sparse=True))
    at[dim] = index._array
    ufunc.at(values, tuple(at), src._array)
    if not (input.requires_grad or src.requires_grad):
        return from_array(values)
    if reduce == "prod":
        return _product(input, dim, index, src, include_self, named)
    # The winners' mean has the value of each of them, and shares the gradient equally.
    best = gather(from_array(values), dim, index)
    wins = from_array(np.asarray(src._array == best._array).astype(kind))
    own = (input._array == values) if include_self else ~named._array
    own = from_array((own | ~named._array).astype(kind))
    winners = scatter_add(own, dim, index, wins)
    picked = scatter_add(where(own > 0, input, from_array(np.zeros((), kind))), dim, index,
                         where(wins > 0, src, from_array(np.zeros((), kind))))
    return picked / winners


def _range(kind):
    """The smallest and the largest number of a dtype."""
    if kind.kind == "f":
        return -np.inf, np.inf
    return (False, True) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)


def _product(input, dim, index, src, include_self, named):
    """Products with gradients: the sources sorted into slots of their own, one slot after the other multiplied on."""
    moved = np.moveaxis(index._array, dim, -1)
    order = np.zeros(moved.shape, np.int64)           # how many earlier sources name the same place
    for j in range(1, moved.shape[-1]):
        order[..., j] = (moved[..., :j] == moved[..., j:j + 1]).sum(-1)
    order = np.moveaxis(order, -1, dim)
    one = from_array(np.ones((), input.dtype))
    result = input if include_self else where(named, one, input)
    for round in range(int(order.max()) + 1):
        factor = where(from_array(order == round), src, one)
        # Of the sources of a round no two name the same place; the others are sent to a place that is cut off.
        places = np.where(order == round, index._array, input.shape[dim])
        longer = list(input.shape)
        longer[dim] += 1
        ones = from_array(np.ones(tuple(longer), input.dtype))
        result = result * narrow(scatter(ones, dim, from_array(places), factor), dim, 0, input.shape[dim])
    return result


# --- counting and searching -----------------------------------------------------------------------------------------------

def searchsorted(sorted_sequence, input, *, out_int32=False, right=False, side=None, sorter=None):
    """Where each element of `input` would go into a sorted sequence so that it stays sorted: int64, of the shape of `input`.

    sorted_sequence: (N), or (*, N) for an input (*, M), row by row. `right` (or `side="right"`): behind equal elements instead of
    before them. `sorter`: int64, of the shape of the sequence: the order that sorts it."""
    if side not in (None, "left", "right") or (side == "left" and right):
        raise RuntimeError(f"side: expected 'left' or 'right', and to agree with right={right}, got {side!r}")
    rows = sorted_sequence._array
    if rows.ndim == 0:
        raise RuntimeError("sorted_sequence: expected at least 1 axis, got a number")
    values = input._array if isinstance(input, Tensor) else np.asarray(input)
    if sorter is not None:
        if sorter.shape != sorted_sequence.shape:
            raise RuntimeError(f"sorter: expected the shape of sorted_sequence, {sorted_sequence.shape}, got {sorter.shape}")
        rows = np.take_along_axis(rows, sorter._array, -1)
    where_to = "right" if right or side == "right" else "left"
    if rows.ndim == 1:
        found = np.searchsorted(rows, values, where_to)
    else:
        if values.shape[:-1] != rows.shape[:-1]:
            raise RuntimeError(f"input: expected shape {(*rows.shape[:-1], 'M')}, got {values.shape}")
        found = np.empty(values.shape, np.int64)
        for i in np.ndindex(rows.shape[:-1]):
            found[i] = np.searchsorted(rows[i], values[i], where_to)
    return from_array(np.asarray(found, np.int32 if out_int32 else np.int64))


def bucketize(input, boundaries, *, out_int32=False, right=False):
    """The bin of each element: bin i is `boundaries[i - 1] < x <= boundaries[i]`, with `right` `… <= x < …`."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"boundaries: expected 1 axis, got shape {boundaries.shape}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def bincount(input, weights=None, minlength=0):
    """How often each of 0, 1, … occurs in a vector of integers, or the sum of its weights (float32 stays float32, else float64)."""
    if input.ndim != 1 or input.dtype.kind not in "iu" or (input.numel() and input._array.min() < 0):
        raise RuntimeError(f"input: expected a vector of integers, 0 or more, got {input.dtype} of shape {input.shape}")
    if minlength < 0:
        raise RuntimeError(f"minlength: expected 0 or more, got {minlength}")
    if weights is None:
        return from_array(np.bincount(input._array, minlength=minlength).astype(np.int64))
    if weights.shape != input.shape:
        raise RuntimeError(f"weights: expected the shape of input, {input.shape}, got {weights.shape}")
    counts = np.bincount(input._array, weights._array.astype(np.float64), minlength)
    return from_array(counts.astype(np.float32 if weights.dtype == np.float32 else np.float64))


def histc(input, bins=100, min=0, max=0):
    """How many elements fall into each of `bins` equal bins from `min` to `max` (both 0: of the input); others are left out."""
    if bins < 1 or max < min:
        raise RuntimeError(f"bins, min, max: expected at least 1 bin and min <= max, got {bins}, {min}, {max}")
    if input.dtype.kind != "f":
        raise RuntimeError(f"input: expected a floating-point tensor, got {input.dtype}")
    values = input._array.reshape(-1)
    low, high = (float(min), float(max)) if min != max or not values.size else (float(values.min()), float(values.max()))
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"input: expected a finite range, got {low} to {high}")
    inside = values[(values >= low) & (values <= high)]
    place = np.minimum(((inside - low) * (bins / (high - low))).astype(np.int64), bins - 1)
    return from_array(np.bincount(place, minlength=bins).astype(input.dtype))


# --- differences and distances --------------------------------------------------------------------------------------------

def diff(input, n=1, dim=-1, prepend=None, append=None):
    """`n` times the differences of neighbours along `dim`, after `prepend` and `append` have been joined on."""
    if input.ndim == 0:
        raise RuntimeError("input: expected at least 1 axis, got a number")
    if n < 0:
        raise RuntimeError(f"n: expected 0 or more, got {n}")
    dim = _axis(dim, input.ndim)
    if n == 0:
        return clone(input)
    parts = [t for t in (prepend, input, append) if t is not None]
    x = cat(parts, dim) if len(parts) > 1 else input
    for _ in range(min(n, x.shape[dim])):
        length = max(x.shape[dim] - 1, 0)
        later, earlier = narrow(x, dim, x.shape[dim] - length, length), narrow(x, dim, 0, length)
        x = later ^ earlier if x.dtype == bool else sub(later, earlier)
    return x


def cross(input, other, dim=None):
    """The cross product of vectors of 3 along `dim`; None: the first axis of 3."""
    a, b = broadcast_tensors(input, other)
    if dim is None:
        dim = next((i for i, size in enumerate(a.shape) if size == 3), None)
        if dim is None:
            raise RuntimeError(f"input: expected an axis of size 3, got shape {a.shape}")
    dim = _axis(dim, a.ndim)
    if a.shape[dim] != 3:
        raise RuntimeError(f"input: expected 3 elements along axis {dim}, got shape {a.shape}")
    (a0, a1, a2), (b0, b1, b2) = ([select(t, dim, i) for i in range(3)] for t in (a, b))
    return stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], dim)


def dist(input, other, p=2):
    """The p-norm of `input - other`, a number."""
    return norm(sub(input, other), p)


def sinc(input):
    """`sin(pi x) / (pi x)`, 1 at 0."""
    x = to_type(input, np.float32) if input.dtype.kind in "biu" else input
    scaled = mul(x, math.pi)
    zero = from_array(np.asarray(x._array == 0))
    one = from_array(np.ones((), x.dtype))
    return where(zero, one, sin(scaled) / where(zero, one, scaled))
