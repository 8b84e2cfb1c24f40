"""Elementwise functions of two and three tensors: choices, bounds, mixtures, and a few classics of two arguments."""
cimport numpy as np
from numpy cimport NPY_BOOL, ndarray

from bpcore.arith cimport ADD, DIV, MUL, RSUB, SUB, arith, arith_number
from bpcore.operand cimport cast_tensor, common_shape, map2, map_to, matched, stretch, typed
from bpcore.promotion cimport float_type, is_number, promoted
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records2, recordsn, wrap

import numpy

from bpcore.gather import nonzero

np.import_array()


cdef tuple alike(tuple values, str names):
    """The values as floats, or in their common type where that is complex, of one shape."""
    cdef tuple tensors = matched(values, names)
    return tuple([cast_tensor(t, float_type(np.PyArray_TYPE((<Tensor> t).array))) for t in tensors])


cdef Tensor recorded(ndarray y, Node node, tuple inputs, int first=0):
    """A result whose node saves its inputs, from the `first` on."""
    cdef Tensor out = wrap(y)
    if recordsn(inputs):
        for t in inputs[first:]:
            node.guard(t)
        attach(out, node, inputs, tuple([(<Tensor> t).array for t in inputs[first:]]))
    return out


# --- the larger, the smaller ----------------------------------------------------------------------------------------------

cdef class MaximumNode(Node):
    """The gradient goes to the larger operand, half of it to each of two equal ones."""

    cdef object backward(self, object dy):
        a, b = self.saved
        da = dy * ((a > b) + (a == b) * dy.dtype.type(0.5))
        return da, dy - da


cdef class MinimumNode(Node):
    """The gradient goes to the smaller operand, half of it to each of two equal ones."""

    cdef object backward(self, object dy):
        a, b = self.saved
        da = dy * ((a < b) + (a == b) * dy.dtype.type(0.5))
        return da, dy - da


cdef class FmaxNode(Node):
    """The gradient goes to the chosen operand, the first of two equal ones."""

    cdef object backward(self, object dy):
        a, b = self.saved
        first = (a >= b) | numpy.isnan(b)
        return dy * first, dy * ~first


cdef class FminNode(Node):
    """The gradient goes to the chosen operand, the first of two equal ones."""

    cdef object backward(self, object dy):
        a, b = self.saved
        first = (a <= b) | numpy.isnan(b)
        return dy * first, dy * ~first


def maximum(input, other):
    """The larger of two elements; NaN where one is."""
    cdef tuple inputs = matched((input, other), "input other")
    return recorded(map2(numpy.maximum, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), MaximumNode(), inputs)


def minimum(input, other):
    """The smaller of two elements; NaN where one is."""
    cdef tuple inputs = matched((input, other), "input other")
    return recorded(map2(numpy.minimum, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), MinimumNode(), inputs)


def fmax(input, other):
    """The larger of two elements; the other one where one is NaN."""
    cdef tuple inputs = matched((input, other), "input other")
    return recorded(map2(numpy.fmax, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), FmaxNode(), inputs)


def fmin(input, other):
    """The smaller of two elements; the other one where one is NaN."""
    cdef tuple inputs = matched((input, other), "input other")
    return recorded(map2(numpy.fmin, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), FminNode(), inputs)


# --- where ----------------------------------------------------------------------------------------------------------------

cdef class WhereNode(Node):
    cdef object backward(self, object dy):
        condition, = self.saved
        return (numpy.where(condition, dy, dy.dtype.type(0)) if self.needs(0) else None,
                numpy.where(condition, dy.dtype.type(0), dy) if self.needs(1) else None)


def where(condition, input=None, other=None):
    """`input` where `condition`, else `other`; with the condition alone, the indices of its nonzero elements."""
    cdef Tensor c = as_tensor(condition, "condition"), a, b, out
    cdef tuple shape
    cdef ndarray y
    if input is None and other is None:
        return nonzero(c, as_tuple=True)
    if np.PyArray_TYPE(c.array) != NPY_BOOL:
        raise RuntimeError(f"condition: expected bools, got {c.array.dtype}")
    a, b = matched((input, other), "input other")
    shape = common_shape((c, a, b))
    a, b = stretch(a, shape), stretch(b, shape)
    y = numpy.where(c.array, a.array, b.array)
    out = wrap(numpy.asarray(y))
    if records2(a, b):
        attach(out, WhereNode.__new__(WhereNode), (a, b), (numpy.broadcast_to(c.array, shape),))
    return out


def where_self(input, condition, other):
    """The method: `where(condition, input, other)`."""
    return where(condition, input, other)


# --- bounds ---------------------------------------------------------------------------------------------------------------

cdef class ClampNode(Node):
    """Numbers as bounds: elements outside get no gradient."""

    cdef object backward(self, object dy):
        inside, = self.saved
        return dy * inside


cdef class ClampTensorNode(Node):
    """Tensors as bounds: the gradient goes to the bound that was taken; a lower bound above the upper one gives way."""

    cdef object backward(self, object dy):
        x, low, high = self.saved
        below = numpy.zeros(dy.shape, bool) if low is None else x < low
        above = numpy.zeros(dy.shape, bool) if high is None else x > high
        if low is not None and high is not None:
            crossed = low > high
            below &= ~crossed
            above |= crossed
        return dy * ~(below | above), dy * below, dy * above


cdef Tensor clamp_numbers(Tensor x, object low, object high):
    cdef int typenum = promoted(tuple([v for v in (x, low, high) if v is not None]))
    cdef ndarray a, y
    x = cast_tensor(x, typenum)
    a = y = x.array
    if low is not None:
        y = map_to(numpy.maximum, (y, typed(low, typenum, "min").array), typenum)
    if high is not None:
        y = map_to(numpy.minimum, (y, typed(high, typenum, "max").array), typenum)
    cdef Tensor out = wrap(y)
    if recordsn((x,)):
        inside = numpy.ones((<object> a).shape, bool)
        if low is not None:
            inside &= (<object> a) >= low
        if high is not None:
            inside &= (<object> a) <= high
        attach(out, ClampNode.__new__(ClampNode), (x,), (inside,))
    return out


def clamp(input, min=None, max=None):
    """`input` limited to `[min, max]`: numbers or tensors, of which one may be None. Where `min > max` it is `max`."""
    cdef Tensor x = as_tensor(input, "input"), a, low = None, high = None, out
    cdef tuple tensors
    cdef ndarray y
    if min is None and max is None:
        raise RuntimeError("clamp: expected min, max or both")
    if (min is None or is_number(min)) and (max is None or is_number(max)):
        return clamp_numbers(x, min, max)
    tensors = matched(tuple([v for v in (x, min, max) if v is not None]), "input min max")
    a = tensors[0]
    if min is not None:
        low = tensors[1]
    if max is not None:
        high = tensors[len(tensors) - 1]
    y = a.array
    if low is not None:
        y = map2(numpy.maximum, y, low.array)
    if high is not None:
        y = map2(numpy.minimum, y, high.array)
    out = wrap(y)
    if recordsn(tensors):
        node = ClampTensorNode.__new__(ClampTensorNode)
        for t in tensors:
            (<Node> node).guard(t)
        attach(out, node, (a, low, high), (
            a.array, None if low is None else low.array, None if high is None else high.array
        ))
    return out


def clamp_min(input, min):
    """`clamp(input, min=min)`."""
    return clamp(input, min, None)


def clamp_max(input, max):
    """`clamp(input, max=max)`."""
    return clamp(input, None, max)


# --- mixtures -------------------------------------------------------------------------------------------------------------

cdef class LerpNode(Node):
    """y = a + w (b - a)"""

    cdef object backward(self, object dy):
        a, b, w = self.saved
        return dy * (1 - w), dy * w, dy * (b - a) if self.needs(2) else None


cdef class AddcmulNode(Node):
    """y = x + value a b"""
    cdef object value

    cdef object backward(self, object dy):
        a, b = self.saved
        return dy, dy * b * self.value, dy * a * self.value


cdef class AddcdivNode(Node):
    """y = x + value a / b"""
    cdef object value

    cdef object backward(self, object dy):
        a, b = self.saved
        da = dy * self.value / b
        return dy, da, -da * a / b


def lerp(input, end, weight):
    """`input + weight * (end - input)`, exact at both ends."""
    cdef Tensor a, b, w
    a, b, w = matched((input, end, weight), "input end weight")
    near = arith(ADD, a.array, arith(MUL, w.array, arith(SUB, b.array, a.array)))
    far = arith(SUB, b.array, arith(MUL, arith(SUB, b.array, a.array), arith_number(RSUB, w.array, 1)))
    return recorded(numpy.asarray(numpy.where(numpy.abs(w.array) < 0.5, near, far)), LerpNode(), (a, b, w))


def addcmul(input, tensor1, tensor2, *, value=1):
    """`input + value * tensor1 * tensor2`."""
    cdef Tensor x, a, b
    cdef AddcmulNode node = AddcmulNode()
    x, a, b = matched((input, tensor1, tensor2), "input tensor1 tensor2")
    node.value = value
    product = arith(MUL, a.array, b.array)
    if value != 1:
        product = arith_number(MUL, product, value)
    return recorded(arith(ADD, x.array, product), node, (x, a, b), 1)


def addcdiv(input, tensor1, tensor2, *, value=1):
    """`input + value * tensor1 / tensor2`, for floats."""
    cdef Tensor x, a, b
    cdef AddcdivNode node = AddcdivNode()
    x, a, b = matched((input, tensor1, tensor2), "input tensor1 tensor2")
    if x.array.dtype.kind in "biu":
        raise RuntimeError(f"addcdiv: expected floats, got {x.array.dtype}")
    node.value = value
    quotient = arith(DIV, a.array, b.array)
    if value != 1:
        quotient = arith_number(MUL, quotient, value)
    return recorded(arith(ADD, x.array, quotient), node, (x, a, b), 1)


# --- classics -------------------------------------------------------------------------------------------------------------

cdef class Atan2Node(Node):
    """y = arg(b + i a): da = dy b / (a² + b²), db = -dy a / (a² + b²), 0 at the origin"""

    cdef object backward(self, object dy):
        a, b = self.saved
        norm = a * a + b * b
        part = numpy.where(norm == 0, dy.dtype.type(0), dy / norm)
        return part * b, -part * a


cdef class HypotNode(Node):
    """y = √(a² + b²): da = dy a / y, db = dy b / y"""

    cdef object backward(self, object dy):
        a, b = self.saved
        part = dy / numpy.hypot(a, b)
        return part * a, part * b


cdef class LogaddexpNode(Node):
    """y = log(eᵃ + eᵇ): da = dy / (1 + eᵇ⁻ᵃ)"""

    cdef object backward(self, object dy):
        a, b = self.saved
        difference = numpy.where(a == b, dy.dtype.type(0), a - b)
        return dy / (1 + numpy.exp(-difference)), dy / (1 + numpy.exp(difference))


cdef class Logaddexp2Node(Node):
    """y = log₂(2ᵃ + 2ᵇ): da = dy / (1 + 2ᵇ⁻ᵃ)"""

    cdef object backward(self, object dy):
        a, b = self.saved
        difference = numpy.where(a == b, dy.dtype.type(0), a - b)
        return dy / (1 + numpy.exp2(-difference)), dy / (1 + numpy.exp2(difference))


cdef class CopysignNode(Node):
    """y = |a| with the sign of b: da = dy where the sign stayed, -dy where it turned, 0 at 0"""

    cdef object backward(self, object dy):
        a, b = self.saved
        return dy * numpy.sign(a) * numpy.copysign(dy.dtype.type(1), b), numpy.zeros_like(dy) if self.needs(1) else None


cdef class XlogyNode(Node):
    """y = a log b: da = dy log b (0 where a = 0 and b <= 0), db = dy a / b"""

    cdef object backward(self, object dy):
        a, b = self.saved
        da = numpy.where((a == 0) & (b <= 0), dy.dtype.type(0), dy * numpy.log(b))
        return da, dy * a / b


def atan2(input, other):
    """The angle of the point (`other`, `input`), in [-π, π]."""
    cdef tuple inputs = alike((input, other), "input other")
    return recorded(map2(numpy.arctan2, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), Atan2Node(), inputs)


def hypot(input, other):
    """`sqrt(input² + other²)` without overflow on the way."""
    cdef tuple inputs = alike((input, other), "input other")
    return recorded(map2(numpy.hypot, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), HypotNode(), inputs)


def logaddexp(input, other):
    """`log(exp(input) + exp(other))` without overflow on the way."""
    cdef tuple inputs = alike((input, other), "input other")
    return recorded(map2(numpy.logaddexp, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), LogaddexpNode(), inputs)


def logaddexp2(input, other):
    """`log2(2**input + 2**other)` without overflow on the way."""
    cdef tuple inputs = alike((input, other), "input other")
    return recorded(map2(numpy.logaddexp2, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), Logaddexp2Node(), inputs)


def copysign(input, other):
    """`|input|` with the sign of `other`."""
    cdef tuple inputs = alike((input, other), "input other")
    return recorded(map2(numpy.copysign, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), CopysignNode(), inputs)


def _x_log_y(a, b, out):
    numpy.log(b, out=out)
    numpy.multiply(a, out, out=out)
    out[(a == 0) & ~numpy.isnan(b)] = 0
    return out


def xlogy(input, other):
    """`input * log(other)`, 0 where `input` is 0."""
    cdef tuple inputs = alike((input, other), "input other")
    return recorded(map2(_x_log_y, (<Tensor> inputs[0]).array, (<Tensor> inputs[1]).array), XlogyNode(), inputs)
