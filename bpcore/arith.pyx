"""Sums, differences, products and quotients of arrays.

float32 and float64 run on the kernels of arith.h: arrays that lie alike, an array and a number, and an array with one that repeats
itself (a row for every row, a number for every row), which is what broadcasting mostly is. NumPy does the rest.
"""
cimport numpy as np
from numpy cimport ndarray

from bpcore.memory cimport empty_like
from bpcore.operand cimport broadcast, is_real, map2, shape_of
from bpcore.simd cimport kernels
from bpcore.threads cimport parallel_for

import numpy

np.import_array()

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


cdef void run(Job *job, int typenum, Py_ssize_t n) noexcept:
    if n < 4096:                                 # giving up the interpreter would take longer
        if typenum == np.NPY_FLOAT:
            run_f32(job, 0, n)
        else:
            run_f64(job, 0, n)
        return
    with nogil:
        parallel_for(run_f32 if typenum == np.NPY_FLOAT else run_f64, job, n, COST)


cdef enum Pattern:                      # how an operand of a broadcast lies
    OTHER, SAME                         # in no way that has a kernel; as the other one
    ROWS, EACH, ONE                     # one row again and again; one number a row; one number


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
    cdef int typenum = np.PyArray_TYPE(a)
    cdef bint whole_a = np.PyArray_ISCARRAY_RO(a), whole_b = np.PyArray_ISCARRAY_RO(b)
    if (not is_real(typenum) or np.PyArray_TYPE(b) != typenum or not (whole_a or whole_b) or np.PyArray_SIZE(a) == 0
            or not (out is None or np.PyArray_ISCARRAY(out))):
        return map2(UFUNCS[op], a, b, out)
    y = empty_like(a) if out is None else out
    if whole_a and whole_b:
        job.op = op
        job.y = np.PyArray_DATA(y)
        job.a = np.PyArray_DATA(a)
        job.b = np.PyArray_DATA(b)
        run(&job, typenum, np.PyArray_SIZE(a))
        return y
    if arith_rows(op, y, a, b) if whole_a else arith_rows(op + 4 if op == SUB or op == DIV else op, y, b, a):
        return y
    return map2(UFUNCS[op], a, b, y)


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
