"""Products, variances, norms and counts over axes."""
cimport numpy as np
from numpy cimport NPY_BOOL

from bpcore.operand cimport axes_of, axis_of, cast_tensor, kept, quiet_begin, quiet_end, shape_of
from bpcore.promotion cimport float_type
from bpcore.reduce cimport ReduceNode, attach_reduction, nonempty, reduced, summable
from bpcore.tensor cimport Node, Tensor, as_tensor, records, wrap

import numpy

from bpcore.reduce import mean, sum

np.import_array()


cdef Tensor real_input(object input, object dtype, str name):
    cdef Tensor x = as_tensor(input, "input") if dtype is None else summable(input, dtype)
    if x.array.dtype.kind in "biu":
        raise RuntimeError(f"{name}: expected floats, got {x.array.dtype}")
    return x


# --- products -------------------------------------------------------------------------------------------------------------

cdef class ProdNode(ReduceNode):
    """y = Π x: dxᵢ = dy Πⱼ≠ᵢ xⱼ, as the product of all before i with the product of all behind; exact with zeros"""

    cdef object backward(self, object dy):
        x, = self.saved
        if not self.shape:
            return dy
        axis = self.axes[0] if len(self.axes) == 1 else 0
        lines = x if len(self.axes) == 1 else x.reshape(-1)
        lines = numpy.moveaxis(lines, axis, 0)
        before, behind = numpy.ones_like(lines), numpy.ones_like(lines)
        numpy.cumprod(lines[:-1], 0, out=before[1:])
        numpy.cumprod(lines[:0:-1], 0, out=behind[-2::-1] if len(lines) > 1 else behind[:0])
        others = numpy.moveaxis(before * behind, 0, axis).reshape(self.shape)
        return self.spread(dy) * others


def prod(input, dim=None, keepdim=False, *, dtype=None):
    """The product over the axis `dim`, or over all; bools and integers multiply as int64."""
    cdef Tensor x = summable(input, dtype), out
    cdef tuple axes = axes_of(dim, np.PyArray_NDIM(x.array))
    out = reduced(x, numpy.multiply, axes, keepdim, np.PyArray_TYPE(x.array))
    if records(x):
        node = ProdNode.__new__(ProdNode)
        (<Node> node).guard(x)
        attach_reduction(out, node, x, axes, (x.array,))
    return out


# --- variances ------------------------------------------------------------------------------------------------------------

cdef class VarNode(ReduceNode):
    """y = Σ (x - mean)² / (n - c): dx = 2 dy (x - mean) / (n - c); of the root y: dx = dy (x - mean) / (y (n - c)), 0 at y = 0"""
    cdef double freedom
    cdef bint root

    cdef object backward(self, object dy):
        x, y = self.saved
        if self.root:
            dy = numpy.where(y == 0, dy.dtype.type(0), dy / (2 * y))
        center = x - x.mean(self.axes, keepdims=True)
        return self.spread(dy) * (center * dy.dtype.type(numpy.float64(2) / self.freedom))


cdef Tensor variance(object input, object dim, object unbiased, bint keepdim, object correction, bint root):
    cdef Tensor x = real_input(input, None, "std" if root else "var"), out
    cdef tuple axes
    cdef VarNode node
    if isinstance(dim, bool):                # var(x, unbiased)
        dim, unbiased = None, dim
    if unbiased is not None:
        correction = 1 if unbiased else 0
    axes = axes_of(dim, np.PyArray_NDIM(x.array))
    cdef double count = 1, freedom
    for axis in axes:
        count *= np.PyArray_DIM(x.array, axis)
    freedom = max(count - <double> (1 if correction is None else correction), 0)
    token = quiet_begin()
    try:
        center = x.array - numpy.mean(x.array, axes, keepdims=True) if count else x.array
        out = reduced(wrap(numpy.asarray(center * center)), numpy.add, axes, keepdim, np.PyArray_TYPE(x.array))
        numpy.divide(out.array, freedom, out.array)
        if root:
            numpy.sqrt(out.array, out.array)
    finally:
        quiet_end(token)
    if records(x):
        node = VarNode.__new__(VarNode)
        node.freedom, node.root = freedom, root
        (<Node> node).guard(x)
        (<Node> node).guard(out)
        attach_reduction(out, node, x, axes, (x.array, out.array))
    return out


def var(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The variance over `dim`: `sum((x - mean)²) / (n - correction)`, where the correction is 1 unless given."""
    return variance(input, dim, unbiased, keepdim, correction, False)


def std(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The standard deviation over `dim`, the root of `var`."""
    return variance(input, dim, unbiased, keepdim, correction, True)


def var_mean(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """`(var, mean)`."""
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, None if isinstance(dim, bool) else dim, keepdim)


def std_mean(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """`(std, mean)`."""
    return std(input, dim, unbiased, keepdim, correction=correction), mean(input, None if isinstance(dim, bool) else dim, keepdim)


# --- norms ----------------------------------------------------------------------------------------------------------------

cdef class NormNode(ReduceNode):
    """y = (Σ |x|ᵖ)^(1/p): dx = dy sign x (|x| / y)ᵖ⁻¹, 0 where y is 0; for p = ±∞ the extremes share dy; for p = 0 it is 0"""
    cdef double p

    cdef object backward(self, object dy):
        x, y = self.saved
        cdef double p = self.p
        zero = dy.dtype.type(0)
        dy, y = self.spread(dy), self.spread(y)
        if p == 0:
            return numpy.zeros_like(x)
        if p == 1:
            return dy * numpy.sign(x)
        if p == 2:
            return numpy.where(y == 0, zero, x * (dy / y))
        if p in (numpy.inf, -numpy.inf):
            hit = (numpy.abs(x) == y) | numpy.isnan(x)
            return numpy.sign(x) * (dy * hit / numpy.add.reduce(hit, self.axes, keepdims=True, dtype=dy.dtype))
        slope = numpy.sign(x) * numpy.power(numpy.abs(x), p - 1)
        if p < 1:
            return numpy.where(x == 0, zero, slope) * dy * numpy.power(y, 1 - p)
        return slope * numpy.where(y == 0, zero, dy / numpy.power(y, p - 1))


cdef Tensor p_norm(Tensor x, double p, object dim, bint keepdim):
    cdef tuple axes = axes_of(dim, np.PyArray_NDIM(x.array))
    cdef Tensor out, sizes
    cdef NormNode node
    cdef int typenum = np.PyArray_TYPE(x.array)
    token = quiet_begin()
    try:
        if p == 2 and x.array.dtype.kind == "f":
            sizes = wrap(numpy.asarray(numpy.square(x.array)))
        else:
            sizes = wrap(numpy.asarray(numpy.abs(x.array)))
        typenum = np.PyArray_TYPE(sizes.array)
        if p == numpy.inf or p == -numpy.inf:
            if p < 0 or np.PyArray_SIZE(x.array) == 0:
                nonempty(x, axes, "norm")
            out = reduced(sizes, numpy.maximum if p > 0 else numpy.minimum, axes, keepdim, typenum)
        elif p == 0:
            out = reduced(wrap(numpy.asarray(sizes.array != 0).astype(sizes.array.dtype)), numpy.add, axes, keepdim, typenum)
        elif p == 1:
            out = reduced(sizes, numpy.add, axes, keepdim, typenum)
        elif p == 2:
            if x.array.dtype.kind != "f":
                numpy.square(sizes.array, sizes.array)
            out = reduced(sizes, numpy.add, axes, keepdim, typenum)
            numpy.sqrt(out.array, out.array)
        else:
            numpy.power(sizes.array, p, sizes.array)
            out = reduced(sizes, numpy.add, axes, keepdim, typenum)
            numpy.power(out.array, 1 / p, out.array)
    finally:
        quiet_end(token)
    if records(x):
        node = NormNode.__new__(NormNode)
        node.p = p
        (<Node> node).guard(x)
        (<Node> node).guard(out)
        attach_reduction(out, node, x, axes, (x.array, out.array))
    return out


def vector_norm(x, ord=2, dim=None, keepdim=False, *, dtype=None):
    """`(Σ |x|^ord)^(1/ord)` over `dim` (an axis, several, or all); the largest or smallest size for ±inf, the count of
    nonzero elements for 0."""
    return p_norm(real_input(x, dtype, "vector_norm"), ord, dim, keepdim)


cdef class NuclearNode(ReduceNode):
    """y = Σ singular values: dX = dy U Vᵀ"""

    cdef object backward(self, object dy):
        directions, = self.saved
        return directions * dy.reshape(kept(self.shape, self.axes))


cdef Tensor nuclear_norm(Tensor x, object dim, bint keepdim):
    cdef int ndim = np.PyArray_NDIM(x.array)
    cdef Tensor out
    cdef tuple axes
    if dim is None and ndim != 2:
        raise RuntimeError(f"norm: expected a matrix for p='nuc', got {ndim} axes; give dim")
    pair = (0, 1) if dim is None else tuple([axis_of(d, ndim) for d in dim])
    if len(pair) != 2 or pair[0] == pair[1]:
        raise RuntimeError(f"norm: expected two axes for p='nuc', got {dim}")
    axes = tuple(sorted(pair))
    u, s, vt = numpy.linalg.svd(numpy.moveaxis(x.array, axes, (-2, -1)), full_matrices=False)
    total = s.sum(-1)
    out = wrap(numpy.asarray(total.reshape(kept(shape_of(x.array), axes)) if keepdim else total))
    if records(x):
        attach_reduction(out, NuclearNode.__new__(NuclearNode), x, axes, (numpy.moveaxis(u @ vt, (-2, -1), axes),))
    return out


def norm(input, p="fro", dim=None, keepdim=False, *, dtype=None):
    """`vector_norm` of order `p` over `dim`; "fro" is 2, "nuc" the sum of the singular values of matrices."""
    cdef Tensor x = real_input(input, dtype, "norm")
    if p == "nuc":
        return nuclear_norm(x, dim, keepdim)
    if p is None or p == "fro":
        p = 2
    elif isinstance(p, str):
        raise RuntimeError(f"p: expected a number, 'fro' or 'nuc', got {p!r}")
    return p_norm(x, p, dim, keepdim)


# --- logarithms of sums ---------------------------------------------------------------------------------------------------

cdef class LogsumexpNode(ReduceNode):
    """y = log Σ exp x: dx = dy exp(x - y)"""

    cdef object backward(self, object dy):
        x, y = self.saved
        y = self.spread(numpy.where(numpy.isinf(y), dy.dtype.type(0), y))
        return self.spread(dy) * numpy.exp(x - y)


def logsumexp(input, dim, keepdim=False):
    """`log(sum(exp(input)))` over `dim`, without overflow on the way."""
    cdef Tensor x = as_tensor(input, "input"), out
    cdef tuple axes = axes_of(dim, np.PyArray_NDIM(x.array))
    x = cast_tensor(x, float_type(np.PyArray_TYPE(x.array)))
    token = quiet_begin()
    try:
        top = numpy.maximum.reduce(x.array, axes, keepdims=True, initial=-numpy.inf)
        top = numpy.where(numpy.isinf(top), x.array.dtype.type(0), top)
        out = reduced(wrap(numpy.asarray(numpy.exp(x.array - top))), numpy.add, axes, keepdim, np.PyArray_TYPE(x.array))
        numpy.log(out.array, out.array)
        numpy.add(out.array, top.reshape(shape_of(out.array)), out.array)
    finally:
        quiet_end(token)
    if records(x):
        node = LogsumexpNode.__new__(LogsumexpNode)
        (<Node> node).guard(x)
        (<Node> node).guard(out)
        attach_reduction(out, node, x, axes, (x.array, out.array))
    return out


# --- counts, and sums without NaN -----------------------------------------------------------------------------------------

cdef Tensor truth(object input, object dim, bint keepdim, object ufunc):
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple axes = axes_of(dim, np.PyArray_NDIM(x.array))
    cdef int typenum = np.NPY_UINT8 if np.PyArray_TYPE(x.array) == np.NPY_UINT8 else NPY_BOOL
    if typenum == np.NPY_UINT8:              # PyTorch keeps bytes
        return wrap(reduced(x, ufunc, axes, keepdim, NPY_BOOL).array.astype(numpy.uint8))
    return reduced(x, ufunc, axes, keepdim, typenum)


def all(input, dim=None, keepdim=False):
    """Whether every element over `dim` is nonzero."""
    return truth(input, dim, keepdim, numpy.logical_and)


def any(input, dim=None, keepdim=False):
    """Whether an element over `dim` is nonzero."""
    return truth(input, dim, keepdim, numpy.logical_or)


def count_nonzero(input, dim=None):
    """How many elements over `dim` are not zero."""
    cdef Tensor x = as_tensor(input, "input")
    return wrap(numpy.asarray(numpy.count_nonzero(x.array, axes_of(dim, np.PyArray_NDIM(x.array))), numpy.int64))


cdef class NansumNode(ReduceNode):
    cdef object backward(self, object dy):
        x, = self.saved
        return self.spread(dy) * ~numpy.isnan(x)


def nansum(input, dim=None, keepdim=False, *, dtype=None):
    """`sum` with NaN counted as 0."""
    cdef Tensor x = summable(input, dtype), out
    cdef tuple axes = axes_of(dim, np.PyArray_NDIM(x.array))
    filled = wrap(numpy.where(numpy.isnan(x.array), x.array.dtype.type(0), x.array))
    out = reduced(filled, numpy.add, axes, keepdim, np.PyArray_TYPE(x.array))
    if records(x):
        node = NansumNode.__new__(NansumNode)
        (<Node> node).guard(x)
        attach_reduction(out, node, x, axes, (x.array,))
    return out


def nanmean(input, dim=None, keepdim=False, *, dtype=None):
    """`mean` of the elements that are not NaN."""
    x = real_input(input, dtype, "nanmean")
    valid = wrap(numpy.asarray(~numpy.isnan((<Tensor> x).array)))
    return nansum(x, dim, keepdim) / sum(valid, dim, keepdim)
