"""Comparisons, logic, bits and tests of values: results without gradients."""
cimport numpy as np
from numpy cimport NPY_BOOL, ndarray

from bpcore.memory cimport empty
from bpcore.operand cimport cast, map1, map_to, quiet_begin, quiet_end, same_shape, typed
from bpcore.promotion cimport float_type, is_number, promoted
from bpcore.tensor cimport Tensor, as_tensor, wrap

import numpy

np.import_array()


cdef Tensor compared(object ufunc, object input, object other):
    """`ufunc` of both in their common type, as bools."""
    cdef object a = input if isinstance(input, Tensor) or is_number(input) else as_tensor(input, "input")
    cdef object b = other if isinstance(other, Tensor) or is_number(other) else as_tensor(other, "other")
    cdef ndarray x, y
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        x, y = (<Tensor> a).array, (<Tensor> b).array
        if np.PyArray_TYPE(x) == np.PyArray_TYPE(y) and same_shape(x, y):
            out = empty(np.PyArray_NDIM(x), np.PyArray_DIMS(x), NPY_BOOL)
            ufunc(x, y, out)
            return wrap(out)
    cdef int typenum = promoted((a, b))
    return wrap(map_to(ufunc, (array_of(a, typenum), array_of(b, typenum)), NPY_BOOL))


cdef ndarray array_of(object value, int typenum):
    """A tensor or number as an array of type `typenum`, off the tape."""
    if isinstance(value, Tensor):
        return cast((<Tensor> value).array, typenum)
    return typed(value, typenum, "other").array


def eq(input, other):
    """`input == other`, elementwise."""
    return compared(numpy.equal, input, other)


def ne(input, other):
    """`input != other`, elementwise."""
    return compared(numpy.not_equal, input, other)


def lt(input, other):
    """`input < other`, elementwise."""
    return compared(numpy.less, input, other)


def le(input, other):
    """`input <= other`, elementwise."""
    return compared(numpy.less_equal, input, other)


def gt(input, other):
    """`input > other`, elementwise."""
    return compared(numpy.greater, input, other)


def ge(input, other):
    """`input >= other`, elementwise."""
    return compared(numpy.greater_equal, input, other)


def eq_or_other(input, other):
    """The operator `==`: what is neither tensor, array nor number is not compared but left to Python."""
    if is_number(other) or isinstance(other, (Tensor, ndarray)):
        return compared(numpy.equal, input, other)
    return NotImplemented


def ne_or_other(input, other):
    """The operator `!=`; see `eq_or_other`."""
    if is_number(other) or isinstance(other, (Tensor, ndarray)):
        return compared(numpy.not_equal, input, other)
    return NotImplemented


def equal(input, other):
    """Whether both have the same shape and equal elements."""
    cdef ndarray a = as_tensor(input, "input").array, b = as_tensor(other, "other").array
    return bool(numpy.array_equal(a, b))


def isclose(input, other, rtol=1e-05, atol=1e-08, equal_nan=False):
    """`|input - other| <= atol + rtol * |other|`, elementwise; infinities are close to themselves."""
    cdef Tensor a = as_tensor(input, "input"), b = as_tensor(other, "other")
    if a.array.dtype != b.array.dtype:
        raise RuntimeError(f"isclose: expected tensors of one dtype, got {a.array.dtype} and {b.array.dtype}")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose: expected rtol and atol of 0 or more, got {rtol} and {atol}")
    token = quiet_begin()
    try:
        return wrap(numpy.asarray(numpy.isclose(a.array, b.array, rtol, atol, equal_nan)))
    finally:
        quiet_end(token)


def allclose(input, other, rtol=1e-05, atol=1e-08, equal_nan=False):
    """Whether `isclose` holds for every element."""
    cdef Tensor close = isclose(input, other, rtol, atol, equal_nan)
    return bool(close.array.all())


# --- logic and bits -------------------------------------------------------------------------------------------------------

cdef Tensor logical(object ufunc, object input, object other):
    cdef ndarray a = as_tensor(input, "input").array, b = as_tensor(other, "other").array
    return wrap(map_to(ufunc, (a, b), NPY_BOOL))


def logical_and(input, other):
    """Whether both are nonzero, elementwise."""
    return logical(numpy.logical_and, input, other)


def logical_or(input, other):
    """Whether one or both are nonzero, elementwise."""
    return logical(numpy.logical_or, input, other)


def logical_xor(input, other):
    """Whether exactly one is nonzero, elementwise."""
    return logical(numpy.logical_xor, input, other)


def logical_not(input):
    """Whether an element is zero."""
    return wrap(map_to(numpy.logical_not, (as_tensor(input, "input").array,), NPY_BOOL))


cdef Tensor bitwise(object ufunc, object input, object other):
    """`ufunc` of integers or bools in their common type."""
    cdef object a = input if is_number(input) else as_tensor(input, "input")
    cdef object b = other if is_number(other) else as_tensor(other, "other")
    cdef int typenum = promoted((a, b))
    if float_type(typenum) == typenum:
        raise RuntimeError(f"{ufunc.__name__}: expected integers or bools, got {np.PyArray_DescrFromType(typenum)}")
    return wrap(map_to(ufunc, (array_of(a, typenum), array_of(b, typenum)), typenum))


def bitwise_and(input, other):
    """`input & other`, elementwise, for integers and bools."""
    return bitwise(numpy.bitwise_and, input, other)


def bitwise_or(input, other):
    """`input | other`, elementwise, for integers and bools."""
    return bitwise(numpy.bitwise_or, input, other)


def bitwise_xor(input, other):
    """`input ^ other`, elementwise, for integers and bools."""
    return bitwise(numpy.bitwise_xor, input, other)


def bitwise_left_shift(input, other):
    """`input << other`, elementwise, for integers."""
    return bitwise(numpy.left_shift, input, other)


def bitwise_right_shift(input, other):
    """`input >> other`, elementwise, for integers."""
    return bitwise(numpy.right_shift, input, other)


def bitwise_not(input):
    """`~input`, elementwise, for integers and bools."""
    cdef ndarray a = as_tensor(input, "input").array
    if a.dtype.kind not in "biu":
        raise RuntimeError(f"bitwise_not: expected integers or bools, got {a.dtype}")
    return wrap(map1(numpy.invert, a))


# --- tests of values ------------------------------------------------------------------------------------------------------

cdef Tensor tested(object ufunc, object input):
    return wrap(map_to(ufunc, (as_tensor(input, "input").array,), NPY_BOOL))


def isnan(input):
    """Whether an element is not a number."""
    return tested(numpy.isnan, input)


def isinf(input):
    """Whether an element is infinite."""
    return tested(numpy.isinf, input)


def isfinite(input):
    """Whether an element is neither infinite nor NaN."""
    return tested(numpy.isfinite, input)


def isposinf(input):
    """Whether an element is +infinity."""
    return compared(numpy.equal, input, numpy.inf)


def isneginf(input):
    """Whether an element is -infinity."""
    return compared(numpy.equal, input, -numpy.inf)


def isreal(input):
    """Whether an element has no imaginary part."""
    return wrap(numpy.asarray(numpy.isreal(as_tensor(input, "input").array)))


def signbit(input):
    """Whether an element's sign bit is set; that of -0.0 is."""
    cdef ndarray a = as_tensor(input, "input").array
    if a.dtype.kind in "biu":
        return compared(numpy.less, input, 0)
    return tested(numpy.signbit, input)


def isin(elements, test_elements, *, assume_unique=False, invert=False):
    """Whether each of `elements` is among `test_elements`."""
    cdef ndarray a = as_tensor(elements, "elements").array, b = as_tensor(test_elements, "test_elements").array
    return wrap(numpy.asarray(numpy.isin(a, b, assume_unique=assume_unique, invert=invert)))
