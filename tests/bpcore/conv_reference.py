"""Convolution and transposed convolution in float64: a loop over the taps of the kernel, and the errors of an array."""
import itertools
import math

import numpy as np

from bpcore import conv

FUNCTIONS = {1: conv.conv1d, 2: conv.conv2d, 3: conv.conv3d}
TRANSPOSED = {1: conv.conv_transpose1d, 2: conv.conv_transpose2d, 3: conv.conv_transpose3d}


def each(value, axes):
    return (value,) * axes if isinstance(value, int) else tuple(value)


def edges(padding, kernel, dilation):
    """Elements before and after each axis."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(p, p) for p in each(0 if padding == "valid" else padding, len(kernel))]


def taps(kernel, count, stride, dilation):
    """Each tap and, for every axis, the elements it reads at `count` places."""
    for tap in itertools.product(*map(range, kernel)):
        yield tap, tuple(slice(t * d, t * d + (n - 1) * s + 1, s)
                         for t, n, s, d in zip(tap, count, stride, dilation, strict=True))


def grouped(a, groups):
    """(N, C, …) as (N, G, C / G, places)."""
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, math.prod(a.shape[2:]))


def conv_reference(x, w, b=None, dy=None, stride=1, padding=0, dilation=1, groups=1):
    """y, or (y, dx, dw, db) for the gradient dy."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    kernel = w.shape[2:]
    axes = len(kernel)
    stride, dilation = each(stride, axes), each(dilation, axes)
    border = edges(padding, kernel, dilation)
    padded = np.pad(x, [(0, 0), (0, 0), *border])
    count = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[2:], kernel, stride, dilation, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *count))
    v = w.reshape(groups, -1, *w.shape[1:])
    for tap, where in taps(kernel, count, stride, dilation):
        seen = grouped(padded[(slice(None), slice(None), *where)], groups)
        y += (v[(..., *tap)] @ seen).reshape(y.shape)
    if b is not None:
        y += b.astype(np.float64).reshape(-1, *(1,) * axes)
    if dy is None:
        return y
    dy = dy.astype(np.float64)
    d_padded, dv = np.zeros(padded.shape), np.zeros(v.shape)
    for tap, where in taps(kernel, count, stride, dilation):
        here = (slice(None), slice(None), *where)
        seen, slope = grouped(padded[here], groups), grouped(dy, groups)
        dv[(..., *tap)] = (slope @ seen.swapaxes(-1, -2)).sum(0)
        d_padded[here] += (v[(..., *tap)].swapaxes(-1, -2) @ slope).reshape(padded[here].shape)
    dx = d_padded[(..., *(slice(lo, n - hi) for (lo, hi), n in zip(border, padded.shape[2:], strict=True)))]
    return y, dx, dv.reshape(w.shape), dy.sum((0, *range(2, dy.ndim)))


def transposed_reference(x, w, b=None, dy=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """y, or (y, dx, dw, db) for the gradient dy: every element of x adds its multiple of the kernel to y."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    kernel, count = w.shape[2:], x.shape[2:]
    axes = len(kernel)
    stride, padding, more, dilation = (each(v, axes) for v in (stride, padding, output_padding, dilation))
    full = [(n - 1) * s + d * (k - 1) + 1 + m for n, s, d, k, m in zip(count, stride, dilation, kernel, more, strict=True)]
    inner = (..., *(slice(p, n - p) for p, n in zip(padding, full, strict=True)))
    v = w.reshape(groups, -1, *w.shape[1:])
    whole = np.zeros((x.shape[0], w.shape[1] * groups, *full))
    for tap, where in taps(kernel, count, stride, dilation):
        here = (slice(None), slice(None), *where)
        whole[here] += (v[(..., *tap)].swapaxes(-1, -2) @ grouped(x, groups)).reshape(whole[here].shape)
    y = whole[inner]
    if b is not None:
        y = y + b.astype(np.float64).reshape(-1, *(1,) * axes)
    if dy is None:
        return y
    d_whole, dx, dv = np.zeros(whole.shape), np.zeros(x.shape), np.zeros(v.shape)
    d_whole[inner] = dy
    for tap, where in taps(kernel, count, stride, dilation):
        slope = grouped(d_whole[(slice(None), slice(None), *where)], groups)
        dx += (v[(..., *tap)] @ slope).reshape(x.shape)
        dv[(..., *tap)] = (grouped(x, groups) @ slope.swapaxes(-1, -2)).sum(0)
    return y, dx, dv.reshape(w.shape), dy.astype(np.float64).sum((0, *range(2, dy.ndim)))


def assert_near(got, expected, what=""):
    """The largest difference as a share of the largest element."""
    assert got.shape == expected.shape, f"{what}: {got.shape} is not {expected.shape}"
    if expected.size:
        error = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30)
        assert error < (2e-5 if got.dtype == np.float32 else 1e-12), f"{what}: differs by {error:.1e} of the largest element"
