"""Size, sign and rounding, element by element. Integers stay integers."""
cimport numpy as np
from numpy cimport ndarray

from bpcore.arithmetic cimport ZeroNode
from bpcore.elementwise cimport function
from bpcore.operand cimport map1
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap

import numpy

np.import_array()


cdef Tensor step(Tensor x, ndarray y):
    """`y` as a tensor that does not change where x changes a little."""
    cdef Tensor out = wrap(y)
    if records(x):
        attach(out, ZeroNode.__new__(ZeroNode), (x,), None)
    return out


cdef class AbsNode(Node):
    """y = |x|: dx = dy sign x, 0 at 0"""

    cdef object backward(self, object dy):
        x, = self.saved
        return dy * numpy.sign(x)


cdef class PassNode(Node):
    """Slope 1 everywhere (`frac`), or where `open` (`nan_to_num`)."""

    cdef object backward(self, object dy):
        open, = self.saved
        return dy if open is None else dy * open


def abs(input):
    """The absolute value."""
    cdef Tensor x = as_tensor(input, "input")
    if x.array.dtype.kind == "c":
        return wrap(numpy.asarray(numpy.abs(x.array)))
    return function(x, map1(numpy.absolute, x.array), AbsNode)


def sign(input):
    """-1, 0 or 1."""
    cdef Tensor x = as_tensor(input, "input")
    if x.array.dtype.kind == "b":
        return wrap(x.array.copy())
    return step(x, map1(numpy.sign, x.array))


cdef Tensor rounded(object input, object ufunc):
    cdef Tensor x = as_tensor(input, "input")
    if x.array.dtype.kind in "biu":
        return wrap(x.array.copy())
    return step(x, map1(ufunc, x.array))


def floor(input):
    """The largest integer not above."""
    return rounded(input, numpy.floor)


def ceil(input):
    """The smallest integer not below."""
    return rounded(input, numpy.ceil)


def trunc(input):
    """The integer part."""
    return rounded(input, numpy.trunc)


def round(input, *, decimals=0):
    """The nearest multiple of `10**-decimals`, the even one of two."""
    if decimals == 0:
        return rounded(input, numpy.rint)
    cdef Tensor x = as_tensor(input, "input")
    if x.array.dtype.kind in "biu" and decimals > 0:
        return wrap(x.array.copy())
    return step(x, numpy.asarray(numpy.round(x.array, decimals), x.array.dtype))


def frac(input):
    """The part behind the point, with the sign of `input`."""
    cdef Tensor x = as_tensor(input, "input"), out = wrap(map1(numpy.trunc, x.array))
    numpy.subtract(x.array, out.array, out.array)
    if records(x):
        attach(out, PassNode.__new__(PassNode), (x,), (None,))
    return out


def nan_to_num(input, nan=0.0, posinf=None, neginf=None):
    """NaN, +inf and -inf replaced: by 0 and the largest finite numbers unless given."""
    cdef Tensor x = as_tensor(input, "input"), out
    if x.array.dtype.kind in "biu":
        return wrap(x.array.copy())
    out = wrap(numpy.asarray(numpy.nan_to_num(x.array, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)))
    if records(x):
        attach(out, PassNode.__new__(PassNode), (x,), (numpy.isfinite(x.array),))
    return out
