"""Sums, differences, products, quotients and remainders, with broadcasting and type promotion as in PyTorch."""
cimport cython
cimport numpy as np
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from numpy cimport ndarray

from bpcore.arith cimport ADD, DIV, MUL, RDIV, RSUB, SUB, arith, arith_number
from bpcore.operand cimport alike, cast_tensor, is_real, map2, matched, same_shape
from bpcore.promotion cimport float_type, is_number, promoted
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, records2, wrap

import numpy

np.import_array()


# --- nodes ----------------------------------------------------------------------------------------------------------------

@cython.final
cdef class AddNode(Node):
    """y = a + b"""

    cdef object backward(self, object dy):
        return dy, dy


@cython.final
cdef class SubNode(Node):
    """y = a - b"""

    cdef object backward(self, object dy):
        return dy, arith_number(MUL, dy, -1) if self.needs(1) else None


@cython.final
cdef class MulNode(Node):
    """y = a b: da = dy b, db = dy a"""

    cdef object backward(self, object dy):
        a, b = self.saved
        return arith(MUL, dy, b) if self.needs(0) else None, arith(MUL, dy, a) if self.needs(1) else None


@cython.final
cdef class DivNode(Node):
    """y = a / b: da = dy / b, db = -da a / b"""

    cdef object backward(self, object dy):
        a, b = self.saved
        cdef ndarray da = arith(DIV, dy, b), db = None
        if self.needs(1):
            db = arith_number(MUL, arith(DIV, arith(MUL, da, a), b), -1)
        return da, db


@cython.final
cdef class LinearNode(Node):
    """y = factor x + anything, or y = x / factor: one operand was a number."""
    cdef int op
    cdef double factor

    cdef object backward(self, object dy):
        return dy if self.factor == 1 else arith_number(self.op, dy, self.factor)

    def name(self):
        return "DivBackward" if self.op == DIV else "MulBackward" if self.factor != 1 else "AddBackward"


@cython.final
cdef class NumberOverNode(Node):
    """y = s / x: dx = -dy y / x"""

    cdef object backward(self, object dy):
        x, y = self.saved
        return arith_number(MUL, arith(DIV, arith(MUL, dy, y), x), -1)

    def name(self):
        return "DivBackward"


# --- tensors --------------------------------------------------------------------------------------------------------------

cdef Tensor with_number(int op, Tensor x, object number):
    """`x (op) number` for float32 and float64."""
    cdef Tensor out = wrap(arith_number(op, x.array, number))
    cdef LinearNode node
    if not records(x):
        return out
    if op == RDIV:
        over = NumberOverNode.__new__(NumberOverNode)
        (<Node> over).guard(x)
        attach(out, over, (x,), (x.array, out.array))
        return out
    node = LinearNode.__new__(LinearNode)
    node.op = MUL
    node.factor = 1
    if op == MUL:
        node.factor = number
    elif op == DIV:
        node.op = DIV
        node.factor = number
    elif op == RSUB:
        node.factor = -1
    attach(out, node, (x,), None)
    return out


cdef Tensor binary(int op, object input, object other):
    """`input (op) other` for tensors, arrays and numbers."""
    cdef Tensor a, b, out
    cdef Node node
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        a, b = <Tensor> input, <Tensor> other
        if np.PyArray_TYPE(a.array) != np.PyArray_TYPE(b.array):
            a, b = matched((a, b), "input other")
        elif not same_shape(a.array, b.array):
            a, b = alike(a, b)
    elif (isinstance(input, Tensor) and (PyFloat_CheckExact(other) or PyLong_CheckExact(other))
            and is_real(np.PyArray_TYPE((<Tensor> input).array))):
        return with_number(op, <Tensor> input, other)
    elif (isinstance(other, Tensor) and (PyFloat_CheckExact(input) or PyLong_CheckExact(input))
            and is_real(np.PyArray_TYPE((<Tensor> other).array))):
        return with_number(op + 4 if op == SUB or op == DIV else op, <Tensor> other, input)
    else:
        a, b = matched((input, other), "input other")
    if op == DIV:
        a, b = as_float(a), as_float(b)
    elif np.PyArray_TYPE(a.array) == np.NPY_BOOL:
        return of_bools(op, a, b)
    out = wrap(arith(op, a.array, b.array))
    if records2(a, b):
        if op == ADD:
            attach(out, AddNode.__new__(AddNode), (a, b), None)
        elif op == SUB:
            attach(out, SubNode.__new__(SubNode), (a, b), None)
        elif op == MUL:
            node = MulNode.__new__(MulNode)
            save2(out, node, a, b, b.wants_grad(), a.wants_grad())
        else:
            node = DivNode.__new__(DivNode)
            save2(out, node, a, b, b.wants_grad(), True)
    return out


cdef int save2(Tensor out, Node node, Tensor a, Tensor b, bint save_a, bint save_b) except -1:
    """Attach a node of two inputs that saves those of them that its backward needs."""
    if save_a:
        node.guard(a)
    if save_b:
        node.guard(b)
    attach(out, node, (a, b), (a.array if save_a else None, b.array if save_b else None))
    return 0


cdef Tensor as_float(Tensor t):
    """Integers and bools become the default float."""
    return cast_tensor(t, float_type(np.PyArray_TYPE(t.array)))


cdef Tensor of_bools(int op, Tensor a, Tensor b):
    """Sum (or) and product (and) of bools."""
    if op == SUB:
        raise RuntimeError("subtraction of two bool tensors is not defined; use ^ or logical_xor")
    return wrap(map2(numpy.logical_or if op == ADD else numpy.logical_and, a.array, b.array))


cdef object scaled(object other, object alpha, object input):
    """`alpha * other`; an integer result does not take a fractional alpha."""
    if isinstance(alpha, float) and np.PyArray_DescrFromType(promoted((
        input if is_number(input) else as_tensor(input, "input"), other if is_number(other) else as_tensor(other, "other")
    ))).kind not in "fcV":
        raise RuntimeError(f"alpha: expected an integer for integer tensors, got {alpha}")
    if is_number(other):
        return other * alpha
    return binary(MUL, other, alpha)


def add(input, other, *, alpha=1):
    """`input + alpha * other`."""
    if alpha is not 1:
        other = scaled(other, alpha, input)
    return binary(ADD, input, other)


def sub(input, other, *, alpha=1):
    """`input - alpha * other`."""
    if alpha is not 1:
        other = scaled(other, alpha, input)
    return binary(SUB, input, other)


def rsub(input, other, *, alpha=1):
    """`other - alpha * input`."""
    if alpha is not 1:
        input = scaled(input, alpha, other)
    return binary(SUB, other, input)


def mul(input, other):
    """`input * other`."""
    return binary(MUL, input, other)


def div(input, other, *, rounding_mode=None):
    """`input / other`, as floats; rounded towards zero with `rounding_mode="trunc"`, down with `"floor"`."""
    if rounding_mode is None:
        return binary(DIV, input, other)
    return rounded_quotient(input, other, rounding_mode)


def rdiv(input, other):
    """`other / input`."""
    return binary(DIV, other, input)


def neg(input):
    """`-input`."""
    cdef Tensor x = as_tensor(input, "input")
    if np.PyArray_TYPE(x.array) == np.NPY_BOOL:
        raise RuntimeError("negation of a bool tensor is not defined; use ~ or logical_not")
    return binary(MUL, x, -1)


def positive(input):
    """`input` itself."""
    cdef Tensor x = as_tensor(input, "input")
    if np.PyArray_TYPE(x.array) == np.NPY_BOOL:
        raise RuntimeError("positive is not defined for a bool tensor")
    return x


# --- rounded quotients and remainders -------------------------------------------------------------------------------------

cdef class RemainderNode(Node):
    """y = a - b q with the rounded quotient q, constant almost everywhere: da = dy, db = -dy q"""

    cdef object backward(self, object dy):
        q, = self.saved
        return dy, arith_number(MUL, arith(MUL, dy, q), -1) if self.needs(1) else None


cdef class ZeroNode(Node):
    """A step function: the gradient is zero almost everywhere."""

    cdef object backward(self, object dy):
        zero = numpy.zeros_like(dy)
        return (zero,) * len(self.edges)


cdef ndarray quotient(ndarray a, ndarray b, str mode):
    """The quotient of arrays alike in type and shape, rounded by `mode`, in their type."""
    cdef ndarray r
    cdef bint integers = a.dtype.kind in "biu"
    if integers and not numpy.all(b):
        raise RuntimeError("division of integers by zero")
    if mode == "floor":
        return map2(numpy.floor_divide, a, b)
    if not integers:
        r = map2(numpy.divide, a, b)
        return numpy.trunc(r, out=r)
    r = map2(numpy.fmod, a, b)
    numpy.subtract(a, r, out=r)
    return numpy.floor_divide(r, b, out=r)


cdef Tensor rounded_quotient(object input, object other, object mode):
    cdef Tensor a, b, out
    if mode != "floor" and mode != "trunc":
        raise RuntimeError(f"rounding_mode: expected None, 'trunc' or 'floor', got {mode!r}")
    a, b = matched((input, other), "input other")
    out = wrap(quotient(a.array, b.array, mode))
    if records2(a, b):
        attach(out, ZeroNode.__new__(ZeroNode), (a, b), None)
    return out


def floor_divide(input, other):
    """The largest integer not above `input / other`, in the type of the operands; no gradient."""
    cdef Tensor a, b
    a, b = matched((input, other), "input other")
    return wrap(quotient(a.array, b.array, "floor"))


cdef Tensor rest(object input, object other, object ufunc, str mode):
    cdef Tensor a, b, out
    cdef ndarray q
    a, b = matched((input, other), "input other")
    if a.array.dtype.kind in "biu" and not numpy.all(b.array):
        raise RuntimeError("remainder of a division of integers by zero")
    out = wrap(map2(ufunc, a.array, b.array))
    if records2(a, b):
        q = quotient(a.array, b.array, mode) if b.wants_grad() else None
        attach(out, RemainderNode.__new__(RemainderNode), (a, b), (q,))
    return out


def remainder(input, other):
    """`input - other * floor(input / other)`: the sign is that of `other`, as Python's `%`."""
    return rest(input, other, numpy.remainder, "floor")


def fmod(input, other):
    """`input - other * trunc(input / other)`: the sign is that of `input`."""
    return rest(input, other, numpy.fmod, "trunc")


def rfloor_divide(input, other):
    """`floor_divide(other, input)`."""
    return floor_divide(other, input)


def rremainder(input, other):
    """`remainder(other, input)`."""
    return remainder(other, input)
