"""Sums, means, products and extremes over axes."""
cimport numpy as np
from numpy cimport NPY_BOOL, ndarray, npy_intp

from bpcore.arith cimport DIV, arith_number
from bpcore.gather cimport along_lines
from bpcore.operand cimport (
    MAX_DIMS, axes_of, axis_of, cast, cast_tensor, is_real, kept, mask_of, new, quiet_begin, quiet_end, shape_of, strided,
)
from bpcore.shape cimport reshaped
from bpcore.sums cimport axes_in, axes_mask, sum_over
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap

from collections import namedtuple

import numpy

from bpcore.combine import maximum, minimum
from bpcore.dtypes import to_dtype
from bpcore.shape import clone

np.import_array()

Extreme = namedtuple("Extreme", ("values", "indices"))


# --- what reductions share ------------------------------------------------------------------------------------------------

cdef class ReduceNode(Node):
    """A reduction of `shape` over `axes`."""

    cdef ndarray spread(self, ndarray reduced):
        """A result, or its gradient, repeated over the reduced axes: a read-only view."""
        cdef npy_intp dims[MAX_DIMS]
        cdef npy_intp strides[MAX_DIMS]
        cdef int i, j = 0, ndim = len(self.shape)
        cdef bint keepdim = np.PyArray_NDIM(reduced) == ndim
        for i in range(ndim):
            dims[i] = self.shape[i]
            if self.mask >> i & 1:
                strides[i] = 0
                j += keepdim
            else:
                strides[i] = np.PyArray_STRIDE(reduced, j)
                j += 1
        cdef ndarray view = strided(reduced, ndim, dims, strides, 0)
        np.PyArray_CLEARFLAGS(view, np.NPY_ARRAY_WRITEABLE)
        return view


cdef int attach_reduction(Tensor out, ReduceNode node, Tensor x, tuple axes, tuple saved) except -1:
    node.shape = shape_of(x.array)
    node.axes = axes
    node.mask = 0
    for axis in axes:
        node.mask |= <axes_mask> 1 << <int> axis
    attach(out, node, (x,), saved)
    return 0


cdef Tensor reduced(Tensor x, object ufunc, tuple axes, bint keepdim, int typenum):
    """`ufunc.reduce` over `axes` into type `typenum`, off the tape."""
    cdef tuple shape = shape_of(x.array)
    cdef tuple rest = kept(shape, axes) if keepdim else tuple([n for i, n in enumerate(shape) if i not in axes])
    cdef ndarray y = new(rest, typenum)
    token = quiet_begin()
    try:
        ufunc.reduce(x.array, axes, None if typenum == NPY_BOOL else y.dtype, y, keepdim)
    finally:
        quiet_end(token)
    return wrap(y)


cdef int nonempty(Tensor x, tuple axes, str name) except -1:
    """Refuse a reduction that has no value for no elements."""
    for axis in axes:
        if np.PyArray_DIM(x.array, axis) == 0:
            raise IndexError(f"{name}: expected axis {axis} to have at least one element, got shape {shape_of(x.array)}")
    return 0


cdef Tensor summable(object input, object dtype):
    """The input as `dtype`; without one, bools and integers as int64."""
    cdef Tensor x = as_tensor(input, "input")
    if dtype is not None:
        return cast_tensor(x, to_dtype(dtype).num)
    if is_real(np.PyArray_TYPE(x.array)):
        return x
    return cast_tensor(x, np.NPY_INT64) if x.array.dtype.kind in "biu" else x


# --- sum and mean ---------------------------------------------------------------------------------------------------------

cdef class SumNode(ReduceNode):
    cdef object backward(self, object dy):
        return self.spread(dy)


cdef class MeanNode(ReduceNode):
    cdef Py_ssize_t count

    cdef object backward(self, object dy):
        return self.spread(arith_number(DIV, dy, self.count))


def sum(input, dim=None, keepdim=False, *, dtype=None):
    """The sum over `dim` (an axis, several, or all); integers and bools sum up as int64."""
    cdef Tensor x = summable(input, dtype)
    cdef axes_mask mask = mask_of(dim, np.PyArray_NDIM(x.array))
    cdef Tensor out = wrap(sum_over(x.array, mask, keepdim))
    cdef SumNode node
    if records(x):
        node = SumNode.__new__(SumNode)
        node.shape, node.mask = shape_of(x.array), mask
        attach(out, node, (x,), None)
    return out


def mean(input, dim=None, keepdim=False, *, dtype=None):
    """The mean over `dim` (an axis, several, or all) of floats."""
    cdef Tensor x = as_tensor(input, "input") if dtype is None else summable(input, dtype)
    if not is_real(np.PyArray_TYPE(x.array)) and x.array.dtype.kind in "biu":
        raise RuntimeError(f"mean: expected floats, got {x.array.dtype}; give a dtype to compute in")
    cdef axes_mask mask = mask_of(dim, np.PyArray_NDIM(x.array))
    cdef ndarray y
    cdef Py_ssize_t count = 1
    cdef int i
    cdef MeanNode node
    for i in range(np.PyArray_NDIM(x.array)):
        if mask >> i & 1:
            count *= np.PyArray_DIM(x.array, i)
    if is_real(np.PyArray_TYPE(x.array)):
        y = sum_over(x.array, mask, keepdim)
        arith_number(DIV, y, count, y)
    else:
        y = numpy.asarray(numpy.mean(x.array, axes_in(mask), keepdims=keepdim))     # halves add up as float32 in there
    cdef Tensor out = wrap(y)
    if records(x):
        node = MeanNode.__new__(MeanNode)
        node.shape, node.mask, node.count = shape_of(x.array), mask, count
        attach(out, node, (x,), None)
    return out


# --- extremes -------------------------------------------------------------------------------------------------------------

cdef class ExtremeNode(ReduceNode):
    """amax, amin: equal extremes share the gradient."""

    cdef object backward(self, object dy):
        x, y = self.saved
        hit = numpy.equal(x, self.spread(y))
        count = numpy.add.reduce(hit, self.axes, keepdims=True, dtype=dy.dtype)
        return self.spread(dy) * hit / count


cdef Tensor extreme(object input, object dim, bint keepdim, object ufunc):
    cdef Tensor x = as_tensor(input, "input"), out
    cdef tuple axes = axes_of(dim, np.PyArray_NDIM(x.array))
    nonempty(x, axes, "amax" if ufunc is numpy.maximum else "amin")
    out = reduced(x, ufunc, axes, keepdim, np.PyArray_TYPE(x.array))
    if records(x):
        node = ExtremeNode.__new__(ExtremeNode)
        (<Node> node).guard(x)
        attach_reduction(out, node, x, axes, (x.array, out.array))
    return out


cdef ndarray position(Tensor x, object dim, bint keepdim, object find, str name):
    """Where the extreme is: along `dim`, or in the flattened tensor."""
    cdef ndarray a = x.array
    if a.dtype.kind == "b":
        a = cast(a, np.NPY_UINT8)
    if dim is None:
        if np.PyArray_SIZE(a) == 0:
            raise IndexError(f"{name}: expected at least one element")
        i = numpy.asarray(find(a), numpy.int64)
        return i.reshape((1,) * np.PyArray_NDIM(a)) if keepdim else i
    axis = axis_of(dim, np.PyArray_NDIM(a))
    if np.PyArray_NDIM(a) == 0:
        return numpy.zeros((), numpy.int64)
    nonempty(x, (axis,), name)
    return numpy.asarray(find(a, axis, keepdims=keepdim), numpy.int64)


cdef object extreme_along(object input, object dim, bint keepdim, object find, str name):
    """The extreme along one axis and where it is."""
    cdef Tensor x = as_tensor(input, "input"), out
    cdef int ndim = np.PyArray_NDIM(x.array), axis = axis_of(dim, ndim)
    cdef ndarray indices = position(x, dim, True, find, name)
    out = along_lines(x, indices, axis) if ndim else clone(x)
    if not keepdim and ndim:
        indices = (<object> indices).squeeze(axis)
        out = reshaped(out, shape_of(indices))
    return Extreme(out, wrap(indices))


def amax(input, dim=(), keepdim=False):
    """The largest elements over `dim` (an axis, several, or all); equal ones share the gradient."""
    return extreme(input, dim, keepdim, numpy.maximum)


def amin(input, dim=(), keepdim=False):
    """The smallest elements over `dim` (an axis, several, or all); equal ones share the gradient."""
    return extreme(input, dim, keepdim, numpy.minimum)


def aminmax(input, *, dim=None, keepdim=False):
    """The smallest and the largest elements: `(min, max)`."""
    return namedtuple("aminmax", ("min", "max"))(amin(input, dim, keepdim), amax(input, dim, keepdim))


def max(input, dim=None, keepdim=False, *, other=None):
    """The largest element; with `dim`, `(values, indices)` along it; with a second tensor, `maximum`."""
    if isinstance(dim, (Tensor, ndarray)):
        other = dim
    if other is not None:
        return maximum(input, other)
    if dim is None:
        return extreme(input, None, False, numpy.maximum)
    return extreme_along(input, dim, keepdim, numpy.argmax, "max")


def min(input, dim=None, keepdim=False, *, other=None):
    """The smallest element; with `dim`, `(values, indices)` along it; with a second tensor, `minimum`."""
    if isinstance(dim, (Tensor, ndarray)):
        other = dim
    if other is not None:
        return minimum(input, other)
    if dim is None:
        return extreme(input, None, False, numpy.minimum)
    return extreme_along(input, dim, keepdim, numpy.argmin, "min")


def argmax(input, dim=None, keepdim=False):
    """Where the largest element is along `dim`; without one, in the flattened tensor."""
    return wrap(position(as_tensor(input, "input"), dim, keepdim, numpy.argmax, "argmax"))


def argmin(input, dim=None, keepdim=False):
    """Where the smallest element is along `dim`; without one, in the flattened tensor."""
    return wrap(position(as_tensor(input, "input"), dim, keepdim, numpy.argmin, "argmin"))
