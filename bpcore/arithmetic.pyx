"""Sums, differences, products, quotients and remainders, with broadcasting and type promotion as in PyTorch."""
cimport cython
cimport numpy as np
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from numpy cimport ndarray

from bpcore.memory cimport empty, empty_like
from bpcore.operand cimport (
    alike, broadcast, cast_tensor, float_type, is_number, is_real, map2, matched, promoted, same_shape, shape_of,
)
from bpcore.simd cimport kernels
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, records2, wrap
from bpcore.threads cimport parallel_for

import numpy

np.import_array()


# --- arrays ---------------------------------------------------------------------------------------------------------------

DEF COST = 0.25         # nanoseconds an element: large arrays are bound by memory, so two threads win from 64k elements on

ctypedef struct Job:
    int op
    void *y
    const void *a
    const void *b
    double s


cdef void run_f32(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef float *y = <float *> job.y + begin
    cdef const float *a = <const float *> job.a + begin
    if job.b is not NULL:
        kernels().f32.arith(job.op, y, a, <const float *> job.b + begin, end - begin)
    else:
        kernels().f32.arith_number(job.op, y, a, <float> job.s, end - begin)


cdef void run_f64(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef double *y = <double *> job.y + begin
    cdef const double *a = <const double *> job.a + begin
    if job.b is not NULL:
        kernels().f64.arith(job.op, y, a, <const double *> job.b + begin, end - begin)
    else:
        kernels().f64.arith_number(job.op, y, a, job.s, end - begin)


cdef void run(Job *job, int typenum, Py_ssize_t n) noexcept nogil:
    parallel_for(run_f32 if typenum == np.NPY_FLOAT else run_f64, job, n, COST)


cdef enum Pattern:
    OTHER, SAME, ROWS, EACH, ONE        # how an operand lies: as the other, one row again and again, one number a row, one number


ctypedef struct Rows:
    int op
    bint single
    Pattern pattern
    Py_ssize_t width, period
    char *y
    const char *a
    const char *b


cdef Pattern pattern_of(ndarray b, Py_ssize_t *width, Py_ssize_t *period) noexcept:
    """How a broadcast array repeats itself: `width` elements are one row; numbers for rows come again after `period`."""
    cdef int i = np.PyArray_NDIM(b) - 1
    cdef Py_ssize_t item = np.PyArray_ITEMSIZE(b), expected = item, n = 1
    while i >= 0 and (np.PyArray_DIM(b, i) == 1 or np.PyArray_STRIDE(b, i) == expected):
        expected *= np.PyArray_DIM(b, i)
        n *= np.PyArray_DIM(b, i)
        i -= 1
    if i < 0:
        return SAME
    if n > 1:                                       # a row, then nothing but repetition
        width[0] = n
        while i >= 0 and (np.PyArray_DIM(b, i) == 1 or np.PyArray_STRIDE(b, i) == 0):
            i -= 1
        return ROWS if i < 0 else OTHER
    n = 1                                           # a repeated number, then one after the other
    while i >= 0 and (np.PyArray_DIM(b, i) == 1 or np.PyArray_STRIDE(b, i) == 0):
        n *= np.PyArray_DIM(b, i)
        i -= 1
    width[0] = n
    period[0] = 1
    if i < 0:
        return ONE
    expected = item
    while i >= 0 and (np.PyArray_DIM(b, i) == 1 or np.PyArray_STRIDE(b, i) == expected):
        expected *= np.PyArray_DIM(b, i)
        i -= 1
    period[0] = expected // item
    while i >= 0 and (np.PyArray_DIM(b, i) == 1 or np.PyArray_STRIDE(b, i) == 0):
        i -= 1
    return EACH if i < 0 else OTHER


cdef void run_rows(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Rows *rows = <Rows *> ctx
    cdef Py_ssize_t i, w = rows.width
    cdef int op = rows.op
    for i in range(begin, end):
        if rows.single and rows.pattern == ROWS:
            kernels().f32.arith(op, <float *> rows.y + i * w, <const float *> rows.a + i * w, <const float *> rows.b, w)
        elif rows.single:
            kernels().f32.arith_number(op, <float *> rows.y + i * w, <const float *> rows.a + i * w,
                                       (<const float *> rows.b)[i % rows.period], w)
        elif rows.pattern == ROWS:
            kernels().f64.arith(op, <double *> rows.y + i * w, <const double *> rows.a + i * w, <const double *> rows.b, w)
        else:
            kernels().f64.arith_number(op, <double *> rows.y + i * w, <const double *> rows.a + i * w,
                                       (<const double *> rows.b)[i % rows.period], w)


cdef bint arith_rows(int op, ndarray y, ndarray a, ndarray b):
    """`y = a (op) b` where `a` is contiguous and `b` repeats itself; False where no kernel fits."""
    cdef Rows rows
    cdef Pattern pattern = pattern_of(b, &rows.width, &rows.period)
    if pattern == OTHER or pattern == SAME:
        return False
    rows.op, rows.pattern = op, pattern
    rows.single = np.PyArray_TYPE(a) == np.NPY_FLOAT
    rows.y = <char *> np.PyArray_DATA(y)
    rows.a = <const char *> np.PyArray_DATA(a)
    rows.b = <const char *> np.PyArray_DATA(b)
    with nogil:
        parallel_for(run_rows, &rows, np.PyArray_SIZE(a) // rows.width, 4 + rows.width * COST)
    return True


cdef tuple UFUNCS = (numpy.add, numpy.subtract, numpy.multiply, numpy.divide)


cdef ndarray arith(int op, ndarray a, ndarray b, ndarray out=None):
    """`a (op) b` for arrays alike in type and shape, into `out` where it is given; that may be `a` or `b`."""
    cdef Job job
    cdef ndarray y
    if ((out is None or np.PyArray_ISCARRAY(out)) and is_real(np.PyArray_TYPE(a)) and np.PyArray_ISCARRAY_RO(a) and np.PyArray_ISCARRAY_RO(b)
            and np.PyArray_TYPE(b) == np.PyArray_TYPE(a) and np.PyArray_SIZE(b) == np.PyArray_SIZE(a)):
        y = empty_like(a) if out is None else out
        job.op = op
        job.y = np.PyArray_DATA(y)
        job.a = np.PyArray_DATA(a)
        job.b = np.PyArray_DATA(b)
        run(&job, np.PyArray_TYPE(a), np.PyArray_SIZE(a))
        return y
    if (is_real(np.PyArray_TYPE(a)) and np.PyArray_TYPE(b) == np.PyArray_TYPE(a) and np.PyArray_SIZE(a)
            and (out is None or np.PyArray_ISCARRAY(out))):
        y = empty_like(a) if out is None else out
        if np.PyArray_ISCARRAY_RO(a):
            if arith_rows(op, y, a, b):
                return y
        elif np.PyArray_ISCARRAY_RO(b) and arith_rows(op + 4 if op == SUB or op == DIV else op, y, b, a):
            return y
    return map2(UFUNCS[op], a, b, out)


cdef ndarray arith_number(int op, ndarray a, object number, ndarray out=None):
    """`a (op) number`, into `out` where it is given; the reversed codes give `number (op) a`."""
    cdef Job job
    cdef ndarray y, b
    if (out is None or np.PyArray_ISCARRAY(out)) and is_real(np.PyArray_TYPE(a)) and np.PyArray_ISCARRAY_RO(a):
        y = empty_like(a) if out is None else out
        job.op = op
        job.y = np.PyArray_DATA(y)
        job.a = np.PyArray_DATA(a)
        job.b = NULL
        job.s = number
        run(&job, np.PyArray_TYPE(a), np.PyArray_SIZE(a))
        return y
    b = numpy.asarray(number).astype(a.dtype)
    b = broadcast(b, shape_of(a))
    return map2(UFUNCS[op - 4], b, a, out) if op > DIV else map2(UFUNCS[op], a, b, out)


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
