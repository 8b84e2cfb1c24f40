"""Interpolation: images of other sizes. Where elements lie is worked out in the precision of the input, as in PyTorch."""
cimport numpy as np
from numpy cimport NPY_FLOAT

from bpcore.operand cimport cast_tensor, is_real, shape_of
from bpcore.resample cimport resampled, sparse
from bpcore.tensor cimport Tensor, as_tensor

import functools
import math
import warnings

import numpy

from bpcore.adaptive import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

np.import_array()


# --- tables ---------------------------------------------------------------------------------------------------------------

def spacing(size, out, scale, align_corners, dtype):
    """How many elements of the input lie between two of the output."""
    if align_corners:
        return dtype.type((size - 1) / dtype.type(out - 1)) if out > 1 else dtype.type(0)
    return dtype.type(1 / scale if scale is not None and scale > 0 else dtype.type(size) / dtype.type(out))


def cubic(x, a):
    """The kernel of cubic convolution (Keys 1981) with slope `a` at 1."""
    x = numpy.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return numpy.where(x < 1, near, numpy.where(x < 2, far, 0)).astype(x.dtype)


@functools.lru_cache(maxsize=256)
def table_of(mode, size, out, scale, align_corners, antialias, dtype):
    """The table of an axis of `size` elements interpolated to `out`; `dtype`: of the input."""
    o = numpy.arange(out).astype(dtype)
    step, half = spacing(size, out, scale, align_corners, dtype), dtype.type(0.5)
    if mode == "nearest":
        index = numpy.minimum(numpy.floor(o * step).astype(numpy.intp), size - 1)
        return sparse(numpy.arange(out), index, numpy.ones(out), out, dtype)
    if mode == "nearest-exact":
        index = numpy.minimum(numpy.floor((o + half) * step).astype(numpy.intp), size - 1)
        return sparse(numpy.arange(out), index, numpy.ones(out), out, dtype)
    if size == out and (mode == "linear" or antialias):                    # whatever the scale
        return sparse(numpy.arange(out), numpy.arange(out), numpy.ones(out), out, dtype)
    if antialias:
        return smooth_table(mode, size, out, step, dtype)
    at = o * step if align_corners else (o + half) * step - half
    if mode == "linear":
        at = numpy.maximum(at, 0)
        near = numpy.minimum(numpy.floor(at).astype(numpy.intp), size - 1)
        share = numpy.clip(at - near.astype(dtype), 0, 1)
        index = numpy.stack([near, numpy.minimum(near + 1, size - 1)], axis=1)
        weight = numpy.stack([1 - share, share], axis=1)
    else:
        near = numpy.minimum(numpy.floor(at).astype(numpy.intp), size - 1)
        share = numpy.clip(at - near.astype(dtype), 0, 1)
        taps = numpy.arange(-1, 3)
        index = numpy.clip(near[:, None] + taps, 0, size - 1)
        weight = cubic(share[:, None] - taps.astype(dtype), dtype.type(-0.75))
    return sparse(numpy.repeat(numpy.arange(out), index.shape[1]), index.ravel(), weight.ravel(), out, dtype)


def smooth_table(mode, size, out, step, dtype):
    """With antialiasing: a triangle, or the cubic of slope -1/2, as wide as the elements of the output lie apart."""
    wide = max(float(step), 1.0)
    support = wide * (1 if mode == "linear" else 2)
    center = step * (numpy.arange(out).astype(dtype) + dtype.type(0.5))
    first = numpy.maximum((center - support + 0.5).astype(numpy.intp), 0)
    last = numpy.minimum((center + support + 0.5).astype(numpy.intp), size)
    count = numpy.maximum(last - first, 1)
    rows = numpy.repeat(numpy.arange(out), count)
    index = numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(count) - count, count) + first[rows]
    x = ((index - center[rows].astype(float) + 0.5) / wide).astype(dtype)
    weight = numpy.maximum(1 - numpy.abs(x), 0) if mode == "linear" else cubic(x, dtype.type(-0.5))
    total = numpy.bincount(rows, weight, out)[rows]
    weight = numpy.where(total != 0, weight / numpy.where(total != 0, total, 1), weight)
    return sparse(rows, numpy.minimum(index, size - 1), weight, out, dtype)


# --- tensors --------------------------------------------------------------------------------------------------------------

MODES = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,), "bicubic": (2,), "trilinear": (3,),
         "area": (1, 2, 3)}


cdef tuple targets(tuple sizes, object size, object scale_factor, object recompute):
    """The sizes of the output, and the factors that say where its elements lie (None: the ratio of the sizes)."""
    cdef int axes = len(sizes)
    if (size is None) == (scale_factor is None):
        raise ValueError(f"size: expected either size or scale_factor, got {size} and {scale_factor}")
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor: expected scale_factor with it, got a size")
        outs = tuple(size) if isinstance(size, (tuple, list)) else (size,) * axes
        if len(outs) != axes:
            raise ValueError(f"size: expected {axes} numbers for an input of {axes} axes behind the channels, got {size}")
        return tuple([int(n) for n in outs]), (None,) * axes
    factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * axes
    if len(factors) != axes:
        raise ValueError(f"scale_factor: expected {axes} numbers for an input of {axes} axes behind the channels, "
                         f"got {scale_factor}")
    factors = tuple([float(f) for f in factors])
    outs = tuple([math.floor(n * f) for n, f in zip(sizes, factors)])
    return outs, (None,) * axes if recompute else factors


def interpolate(input, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None,
                antialias=False):
    """Images of other sizes: `input` is (N, C, L), (N, C, H, W) or (N, C, D, H, W), the result has `size`, or `scale_factor`
    times the sizes of the input, rounded down.

    `mode`: "nearest", "nearest-exact", "area" (adaptive averages), "linear", "bilinear", "bicubic" or "trilinear" (after the
    number of axes; cubic convolution, Keys 1981). Element o lies at `(o + 1/2) / scale - 1/2` of the input, with `align_corners`
    at `o (size - 1) / (out - 1)`, and for "nearest" at `floor(o / scale)`; the scale is `scale_factor`, or out / size where
    that is not given or `recompute_scale_factor` is set. `antialias` (bilinear and bicubic) widens the filter where the image
    shrinks. Raises `ValueError` where the arguments do not fit together or the number of axes does not have the `mode`,
    `RuntimeError` for empty images.
    """
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array), axes = ndim - 2, typenum = np.PyArray_TYPE(x.array)
    cdef tuple sizes = shape_of(x.array)[2:], outs, factors
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    if axes not in MODES[mode]:
        raise ValueError(f"input: {mode} expected {' or '.join(str(n + 2) for n in MODES[mode])} axes, "
                         f"got shape {shape_of(x.array)}")
    if x.array.dtype.kind in "biuc":
        raise TypeError(f"input: expected floats, got {x.array.dtype}")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"align_corners: expected None for mode {mode!r}, got {align_corners}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias: expected mode 'bilinear' or 'bicubic' with it, got {mode!r}")
    outs, factors = targets(sizes, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[axes - 1](x, outs)
    if min(sizes) < 1 or min(outs) < 1:
        raise RuntimeError(f"size: expected images of at least one element, got {sizes} to {outs}")
    if not is_real(typenum):
        return cast_tensor(
            interpolate(cast_tensor(x, NPY_FLOAT), size, scale_factor, mode, align_corners, recompute_scale_factor, antialias),
            typenum)
    kind = "cubic" if mode == "bicubic" else "linear" if mode.endswith("linear") else mode
    return resampled(x, axes, [
        table_of(kind, n, m, f, bool(align_corners), bool(antialias), x.array.dtype) for n, m, f in zip(sizes, outs, factors)
    ])


def upsample(input, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """`interpolate` under its older name."""
    warnings.warn("upsample is deprecated; use interpolate", stacklevel=1)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input, size=None, scale_factor=None):
    """`interpolate` with mode "nearest"."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input, size=None, scale_factor=None):
    """`interpolate` with mode "bilinear" and `align_corners`."""
    return interpolate(input, size, scale_factor, "bilinear", True)
