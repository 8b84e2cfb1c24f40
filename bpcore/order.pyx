"""Sorting, ranks and running sums along an axis."""
cimport numpy as np
from numpy cimport ndarray

from bpcore.gather cimport along_lines
from bpcore.operand cimport axis_of, shape_of
from bpcore.reduce cimport nonempty, summable
from bpcore.shape cimport reshaped
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap

from collections import namedtuple

import numpy

from bpcore.shape import clone

np.import_array()

Sorted = namedtuple("sort", ("values", "indices"))
Top = namedtuple("topk", ("values", "indices"))
Median = namedtuple("median", ("values", "indices"))
Kth = namedtuple("kthvalue", ("values", "indices"))
Running = namedtuple("cummax", ("values", "indices"))


# --- sorting --------------------------------------------------------------------------------------------------------------

cdef Tensor at_indices(Tensor x, object indices, int axis):
    """The elements of `x` at `indices` along an axis."""
    return along_lines(x, indices, axis) if np.PyArray_NDIM(x.array) else clone(x)


cdef object order(ndarray a, int axis, bint descending):
    """Where the elements of the sorted array are; equal ones stay in their order."""
    if np.PyArray_NDIM(a) == 0:
        return numpy.zeros((), numpy.int64)
    if not descending:
        return numpy.argsort(a, axis, kind="stable")
    backwards = numpy.argsort(numpy.flip(a, axis), axis, kind="stable")
    return np.PyArray_DIM(a, axis) - 1 - numpy.flip(backwards, axis)


def sort(input, dim=-1, descending=False, stable=False):
    """The elements in order along `dim`, and where they were: `(values, indices)`. Equal elements keep their order."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    indices = order(x.array, axis, descending)
    return Sorted(at_indices(x, indices, axis), wrap(indices))


def argsort(input, dim=-1, descending=False, stable=False):
    """Where the elements of the sorted tensor are."""
    cdef Tensor x = as_tensor(input, "input")
    return wrap(order(x.array, axis_of(dim, np.PyArray_NDIM(x.array)), descending))


def msort(input):
    """The elements in order along the first axis."""
    return sort(input, 0).values


def topk(input, k, dim=-1, largest=True, sorted=True):
    """The `k` largest (or smallest) elements along `dim`, in order, and where they are: `(values, indices)`."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef Py_ssize_t n = np.PyArray_DIM(x.array, axis) if np.PyArray_NDIM(x.array) else 1, count = k
    if not 0 <= count <= n:
        raise RuntimeError(f"k: expected 0 to {n}, got {k}")
    if np.PyArray_NDIM(x.array) == 0:
        return Top(at_indices(x, order(x.array, 0, largest), 0), wrap(numpy.zeros((), numpy.int64)))
    lead = (slice(None),) * axis
    if 0 < count < n // 8:            # find them first, then order those few
        near = numpy.argpartition(x.array, n - count if largest else count - 1, axis)
        near = near[lead + (slice(n - count, None) if largest else slice(0, count),)]
        near.sort(axis)
        few = numpy.take_along_axis(x.array, near, axis)
        indices = numpy.take_along_axis(near, order(few, axis, largest), axis)
    else:
        indices = order(x.array, axis, largest)[lead + (slice(0, count),)]
    return Top(at_indices(x, indices, axis), wrap(numpy.ascontiguousarray(indices)))


cdef object pick(Tensor x, object indices, int axis, bint keepdim):
    """Values and indices where each line along the axis gives one element; `indices` keeps the axis."""
    cdef Tensor out
    if not np.PyArray_NDIM(x.array):
        indices = numpy.zeros((), numpy.int64)
    out = at_indices(x, indices, axis)
    if not keepdim and np.PyArray_NDIM(x.array):
        indices = numpy.squeeze(indices, axis)
        out = reshaped(out, indices.shape)
    return out, wrap(numpy.asarray(indices))


cdef object middle(Tensor x, int axis, bint ignore_nan):
    """Where the lower median is along an axis, which stays with size 1; NaN, unless ignored, comes first."""
    if np.PyArray_NDIM(x.array) == 0:
        return None
    ranks = order(x.array, axis, False)
    n = np.PyArray_DIM(x.array, axis)
    missing = numpy.isnan(x.array) if x.array.dtype.kind == "f" else numpy.zeros(shape_of(x.array), bool)
    valid = n - numpy.count_nonzero(missing, axis, keepdims=True)
    if ignore_nan:
        place = numpy.maximum(valid - 1, 0) // 2
    else:
        place = numpy.where(valid < n, numpy.minimum(valid, n - 1), (n - 1) // 2)
    return numpy.take_along_axis(ranks, place, axis)


cdef object median_of(object input, object dim, bint keepdim, bint ignore_nan):
    cdef Tensor x = as_tensor(input, "input"), flat
    if dim is None:
        flat = reshaped(x, (np.PyArray_SIZE(x.array),))
        if np.PyArray_SIZE(x.array) == 0:
            return wrap(numpy.asarray(numpy.nan, x.array.dtype))
        return pick(flat, middle(flat, 0, ignore_nan), 0, False)[0]
    axis = axis_of(dim, np.PyArray_NDIM(x.array))
    if np.PyArray_NDIM(x.array):
        nonempty(x, (axis,), "median")
    return Median(*pick(x, middle(x, axis, ignore_nan), axis, keepdim))


def median(input, dim=None, keepdim=False):
    """The middle element, the lower of two; with `dim`, `(values, indices)` along it. NaN where there is one."""
    return median_of(input, dim, keepdim, False)


def nanmedian(input, dim=None, keepdim=False):
    """`median` of the elements that are not NaN."""
    return median_of(input, dim, keepdim, True)


def kthvalue(input, k, dim=-1, keepdim=False):
    """The `k`-th smallest element along `dim`, counted from 1, and where it is: `(values, indices)`."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    n = np.PyArray_DIM(x.array, axis) if np.PyArray_NDIM(x.array) else 1
    if not 1 <= k <= n:
        raise RuntimeError(f"k: expected 1 to {n}, got {k}")
    indices = None
    if np.PyArray_NDIM(x.array):
        indices = order(x.array, axis, False)[(slice(None),) * axis + (slice(k - 1, k),)]
    return Kth(*pick(x, indices, axis, keepdim))


def unique(input, sorted=True, return_inverse=False, return_counts=False, dim=None):
    """The different elements in order (with `dim`, the different slices), and on demand where each element is among them and how
    often each occurs."""
    cdef ndarray a = as_tensor(input, "input").array
    if dim is not None:
        dim = axis_of(dim, np.PyArray_NDIM(a))
    found = numpy.unique(a, return_inverse=True, return_counts=True, axis=dim)
    results = [wrap(found[0])]
    if return_inverse:
        inverse = found[1].reshape(shape_of(a)) if dim is None else found[1].reshape(-1)
        results.append(wrap(inverse.astype(numpy.int64, copy=False)))
    if return_counts:
        results.append(wrap(found[2].astype(numpy.int64, copy=False)))
    return results[0] if len(results) == 1 else tuple(results)


# --- running sums ---------------------------------------------------------------------------------------------------------

cdef class CumsumNode(Node):
    """yₖ = Σ_{i≤k} xᵢ: dxᵢ = Σ_{k≥i} dyₖ"""
    cdef int axis

    cdef object backward(self, object dy):
        if dy.ndim == 0:
            return dy
        return numpy.flip(numpy.cumsum(numpy.flip(dy, self.axis), self.axis), self.axis)


cdef class CumprodNode(Node):
    """yₖ = Π_{i≤k} xᵢ: dxᵢ = yᵢ₋₁ sᵢ with sᵢ = dyᵢ + xᵢ₊₁ sᵢ₊₁; no division, so zeros are fine"""
    cdef int axis

    cdef object backward(self, object dy):
        x, y = self.saved
        if dy.ndim == 0:
            return dy
        cdef Py_ssize_t i, n = x.shape[self.axis]
        cdef object lines = numpy.moveaxis(x, self.axis, 0), tail
        tail = numpy.moveaxis(dy, self.axis, 0).copy()
        for i in range(n - 2, -1, -1):
            tail[i] += lines[i + 1] * tail[i + 1]
        tail[1:] *= numpy.moveaxis(y, self.axis, 0)[:n - 1]
        return numpy.moveaxis(tail, 0, self.axis)


def cumsum(input, dim, *, dtype=None):
    """The running sums along `dim`; bools and integers sum up as int64."""
    cdef Tensor x = summable(input, dtype)
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef CumsumNode node
    cdef Tensor out = wrap(numpy.cumsum(x.array, axis) if np.PyArray_NDIM(x.array) else x.array.copy())
    if records(x):
        node = CumsumNode.__new__(CumsumNode)
        node.axis = axis
        attach(out, node, (x,), None)
    return out


def cumprod(input, dim, *, dtype=None):
    """The running products along `dim`; bools and integers multiply as int64."""
    cdef Tensor x = summable(input, dtype)
    cdef int axis = axis_of(dim, np.PyArray_NDIM(x.array))
    cdef CumprodNode node
    cdef Tensor out = wrap(numpy.cumprod(x.array, axis) if np.PyArray_NDIM(x.array) else x.array.copy())
    if records(x):
        node = CumprodNode.__new__(CumprodNode)
        node.axis = axis
        node.guard(x)
        node.guard(out)
        attach(out, node, (x,), (x.array, out.array))
    return out


cdef object running(object input, object dim, object ufunc):
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array), axis = axis_of(dim, ndim)
    if not ndim:
        return Running(at_indices(x, None, 0), wrap(numpy.zeros((), numpy.int64)))
    best = ufunc.accumulate(x.array, axis)
    places = numpy.arange(np.PyArray_DIM(x.array, axis)).reshape((-1,) + (1,) * (ndim - 1 - axis))
    hit = (x.array == best) | (numpy.isnan(x.array) if x.array.dtype.kind == "f" else False)
    indices = numpy.maximum.accumulate(numpy.where(hit, places, 0), axis)
    return Running(at_indices(x, indices, axis), wrap(indices))


def cummax(input, dim):
    """The running maxima along `dim` and where they are, the last of equal ones: `(values, indices)`."""
    return running(input, dim, numpy.maximum)


def cummin(input, dim):
    """The running minima along `dim` and where they are, the last of equal ones: `(values, indices)`."""
    return running(input, dim, numpy.minimum)
