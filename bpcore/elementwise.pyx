"""Functions of one tensor, element by element, with the derivative beside each. Integers are computed as the default float."""
cimport numpy as np
from numpy cimport ndarray

from bpcore.activation cimport ERF, EXP, LOG, LOG1P, Map, map_forward
from bpcore.arith cimport DIV, MUL, RDIV, arith, arith_number
from bpcore.memory cimport contiguous
from bpcore.operand cimport cast_tensor, is_real, map1, quiet_begin, quiet_end
from bpcore.promotion cimport float_type
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap

import math

import numpy

np.import_array()


cdef Tensor floats(object input):
    """The input as a tensor of floats."""
    cdef Tensor x = as_tensor(input, "input")
    return cast_tensor(x, float_type(np.PyArray_TYPE(x.array)))


cdef Tensor function(Tensor x, ndarray y, type node_type, bint from_output=False):
    """`y` as a tensor whose node saves the input x, or y itself."""
    cdef Tensor out = wrap(y), saved
    cdef Node node
    if records(x):
        node = <Node> node_type.__new__(node_type)
        saved = out if from_output else x
        node.guard(saved)
        attach(out, node, (x,), (saved.array,))
    return out


# --- exponentials and logarithms ------------------------------------------------------------------------------------------

cdef ndarray mapped(const Map *f, object ufunc, ndarray x):
    """Own kernels for float32 and float64, NumPy for the rest."""
    return map_forward(f, contiguous(x), NULL) if is_real(np.PyArray_TYPE(x)) else map1(ufunc, x)


cdef class ExpNode(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return arith(MUL, dy, y)


cdef class LogNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return arith(DIV, dy, x)


cdef class Exp2Node(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return dy * y * math.log(2)


cdef class Expm1Node(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return dy * (y + 1)


cdef class Log2Node(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / (x * math.log(2))


cdef class Log10Node(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / (x * math.log(10))


cdef class Log1pNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / (x + 1)


def exp(input):
    """`e**input`."""
    cdef Tensor x = floats(input)
    return function(x, mapped(&EXP, numpy.exp, x.array), ExpNode, True)


def exp2(input):
    """`2**input`."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.exp2, x.array), Exp2Node, True)


def expm1(input):
    """`exp(input) - 1`, exact near 0."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.expm1, x.array), Expm1Node, True)


def log(input):
    """The natural logarithm."""
    cdef Tensor x = floats(input)
    return function(x, mapped(&LOG, numpy.log, x.array), LogNode)


def log2(input):
    """The logarithm to base 2."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.log2, x.array), Log2Node)


def log10(input):
    """The logarithm to base 10."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.log10, x.array), Log10Node)


def log1p(input):
    """`log(1 + input)`, exact near 0."""
    cdef Tensor x = floats(input)
    return function(x, mapped(&LOG1P, numpy.log1p, x.array), Log1pNode)


cdef class LogitNode(Node):
    """y = log(x / (1 - x)): dx = dy / (x (1 - x)), 0 where x was clamped"""
    cdef double eps

    cdef object backward(self, object dy):
        x, = self.saved
        dx = numpy.asarray(dy / (x * (1 - x)))
        if self.eps < 0:
            dx[(x < 0) | (x > 1)] = numpy.nan
        else:
            dx[(x < self.eps) | (x > 1 - self.eps)] = 0
        return dx


def logit(input, eps=None):
    """`log(x / (1 - x))`, where `eps` first limits x to `[eps, 1 - eps]`."""
    cdef Tensor x = floats(input), out
    cdef LogitNode node
    token = quiet_begin()
    try:
        p = x.array if eps is None else numpy.clip(x.array, eps, 1 - eps)
        out = wrap(numpy.asarray(numpy.log(p / (1 - p))))
    finally:
        quiet_end(token)
    if records(x):
        node = LogitNode.__new__(LogitNode)
        node.eps = -1 if eps is None else eps
        node.guard(x)
        attach(out, node, (x,), (x.array,))
    return out


# --- powers ---------------------------------------------------------------------------------------------------------------

cdef class SquareNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        cdef ndarray dx = arith(MUL, dy, x)
        return arith_number(MUL, dx, 2, dx)

    def name(self):
        return "PowBackward"


cdef class SqrtNode(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return arith(DIV, dy, arith_number(MUL, y, 2))


cdef class RsqrtNode(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return dy * y * y * y * -0.5


cdef class ReciprocalNode(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return -dy * y * y


def square(input):
    """`input * input`."""
    cdef Tensor x = as_tensor(input, "input")
    return function(x, arith(MUL, x.array, x.array), SquareNode)


def sqrt(input):
    """The square root; NaN below 0."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.sqrt, x.array), SqrtNode, True)


def rsqrt(input):
    """`1 / sqrt(input)`."""
    cdef Tensor x = floats(input)
    return function(x, arith_number(RDIV, map1(numpy.sqrt, x.array), 1), RsqrtNode, True)


def reciprocal(input):
    """`1 / input`."""
    cdef Tensor x = floats(input)
    return function(x, arith_number(RDIV, x.array, 1), ReciprocalNode, True)


# --- circular and hyperbolic functions ------------------------------------------------------------------------------------

cdef class SinNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return arith(MUL, dy, map1(numpy.cos, x))


cdef class CosNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return -dy * numpy.sin(x)


cdef class TanNode(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return dy * (1 + y * y)


cdef class AsinNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / numpy.sqrt(1 - x * x)


cdef class AcosNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return -dy / numpy.sqrt(1 - x * x)


cdef class AtanNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / (1 + x * x)


cdef class SinhNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy * numpy.cosh(x)


cdef class CoshNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy * numpy.sinh(x)


cdef class AsinhNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / numpy.sqrt(x * x + 1)


cdef class AcoshNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / numpy.sqrt(x * x - 1)


cdef class AtanhNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy / (1 - x * x)


def sin(input):
    """The sine of an angle in radians."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.sin, x.array), SinNode)


def cos(input):
    """The cosine of an angle in radians."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.cos, x.array), CosNode)


def tan(input):
    """The tangent of an angle in radians."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.tan, x.array), TanNode, True)


def asin(input):
    """The angle in [-π/2, π/2] with this sine."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.arcsin, x.array), AsinNode)


def acos(input):
    """The angle in [0, π] with this cosine."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.arccos, x.array), AcosNode)


def atan(input):
    """The angle in (-π/2, π/2) with this tangent."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.arctan, x.array), AtanNode)


def sinh(input):
    """`(exp(x) - exp(-x)) / 2`."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.sinh, x.array), SinhNode)


def cosh(input):
    """`(exp(x) + exp(-x)) / 2`."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.cosh, x.array), CoshNode)


def asinh(input):
    """The inverse of `sinh`."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.arcsinh, x.array), AsinhNode)


def acosh(input):
    """The inverse of `cosh`; NaN below 1."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.arccosh, x.array), AcoshNode)


def atanh(input):
    """The inverse of `tanh`; NaN outside [-1, 1]."""
    cdef Tensor x = floats(input)
    return function(x, map1(numpy.arctanh, x.array), AtanhNode)


# --- the error function ---------------------------------------------------------------------------------------------------

cdef class ErfNode(Node):
    """y = 2/√π ∫₀ˣ exp(-t²) dt"""

    cdef object backward(self, object dy):
        x, = self.saved
        return dy * numpy.exp(-x * x) * (2 / math.sqrt(math.pi))


cdef class ErfcNode(Node):
    cdef object backward(self, object dy):
        x, = self.saved
        return dy * numpy.exp(-x * x) * (-2 / math.sqrt(math.pi))


cdef class ErfinvNode(Node):
    cdef object backward(self, object dy):
        y, = self.saved
        return dy * numpy.exp(y * y) * (math.sqrt(math.pi) / 2)


def erf(input):
    """The error function, `2/√π ∫₀ˣ exp(-t²) dt`."""
    cdef Tensor x = floats(input)
    from scipy.special import erf as ufunc
    return function(x, mapped(&ERF, ufunc, x.array), ErfNode)


def erfc(input):
    """`1 - erf(input)`, exact for large input."""
    from scipy.special import erfc as ufunc
    cdef Tensor x = floats(input)
    return function(x, map1(ufunc, x.array), ErfcNode)


def erfinv(input):
    """The inverse of `erf`."""
    from scipy.special import erfinv as ufunc
    cdef Tensor x = floats(input)
    return function(x, map1(ufunc, x.array), ErfinvNode, True)


def deg2rad(input):
    """Degrees to radians."""
    cdef Tensor x = floats(input)
    return x * (math.pi / 180)


def rad2deg(input):
    """Radians to degrees."""
    cdef Tensor x = floats(input)
    return x * (180 / math.pi)
