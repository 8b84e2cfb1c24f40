"""Powers of tensors and numbers."""
cimport numpy as np
from cpython.long cimport PyLong_CheckExact
from numpy cimport ndarray

from bpcore.operand cimport broadcast, cast_tensor, is_real, map2, matched, shape_of, typed
from bpcore.promotion cimport is_number, promoted
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, records2, wrap

import numpy

from bpcore.elementwise import reciprocal, sqrt, square

np.import_array()


cdef class PowNumberNode(Node):
    """y = xˢ: dx = dy s xˢ⁻¹, 0 for s = 0"""
    cdef object exponent

    cdef object backward(self, object dy):
        x, = self.saved
        if self.exponent == 0:
            return numpy.zeros_like(dy)
        return dy * (self.exponent * numpy.power(x, self.exponent - 1, dtype=dy.dtype))

    def name(self):
        return "PowBackward"


cdef class PowNode(Node):
    """y = aᵇ: da = dy b aᵇ⁻¹ (0 where b = 0), db = dy y log a (0 where a = 0 and b >= 0)"""

    cdef object backward(self, object dy):
        a, b, y = self.saved
        zero = dy.dtype.type(0)
        da = db = None
        if self.needs(0):
            da = numpy.where(b == 0, zero, dy * (b * numpy.power(a, b - 1)))
        if self.needs(1):
            db = numpy.where((a == 0) & (b >= 0), zero, dy * (y * numpy.log(a)))
        return da, db


cdef Tensor power_of_number(Tensor x, object exponent):
    """`x ** exponent` for a number and floats."""
    cdef ndarray s = typed(exponent, np.PyArray_TYPE(x.array), "exponent").array
    cdef Tensor out = wrap(map2(numpy.power, x.array, broadcast(s, shape_of(x.array))))
    cdef PowNumberNode node
    if records(x):
        node = PowNumberNode.__new__(PowNumberNode)
        node.exponent = float(exponent)
        node.guard(x)
        attach(out, node, (x,), (x.array,))
    return out


def pow(input, exponent):
    """`input ** exponent`, of tensors and numbers."""
    cdef Tensor a, b, out
    if PyLong_CheckExact(exponent) and isinstance(input, Tensor) and is_real(np.PyArray_TYPE((<Tensor> input).array)):
        if exponent == 2:
            return square(input)
        return power_of_number(<Tensor> input, exponent)
    if is_number(exponent) and not isinstance(exponent, complex):
        a = as_tensor(input, "input")
        if a.array.dtype.kind in "biu" and promoted((a, exponent)) == np.PyArray_TYPE(a.array):
            if exponent < 0:
                raise RuntimeError("exponent: integers to negative integer powers are not integers; use floats")
        else:
            a = cast_tensor(a, promoted((a, exponent)))
            if exponent == 2:
                return square(a)
            if exponent == 0.5:
                return sqrt(a)
            if exponent == -1:
                return reciprocal(a)
            return power_of_number(a, exponent)
    a, b = matched((input, exponent), "input exponent")
    if a.array.dtype.kind in "iu" and (<object> b.array < 0).any():
        raise RuntimeError("exponent: integers to negative integer powers are not integers; use floats")
    out = wrap(map2(numpy.power, a.array, b.array))
    if records2(a, b):
        node = PowNode.__new__(PowNode)
        (<Node> node).guard(a)
        (<Node> node).guard(b)
        attach(out, node, (a, b), (a.array, b.array, out.array))
    return out


def rpow(input, other):
    """`other ** input`."""
    return pow(other, input)


def float_power(input, exponent):
    """`input ** exponent` in float64."""
    return pow(
        input if is_number(input) else cast_tensor(as_tensor(input, "input"), np.NPY_DOUBLE),
        float(exponent) if is_number(exponent) else cast_tensor(as_tensor(exponent, "exponent"), np.NPY_DOUBLE),
    )
