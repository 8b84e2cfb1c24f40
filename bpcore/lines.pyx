"""Picking and putting along one axis by arrays of positions: what `max(dim)`, `sort`, `gather` and row indexing come down to.

Arrays are seen as (outer, n, inner); an index array is (outer, m, inner), or for rows a plain list of m positions.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int64_t
from libc.string cimport memcpy
from numpy cimport ndarray, npy_intp

from bpcore.arith cimport ADD
from bpcore.memory cimport contiguous, empty
from bpcore.simd cimport kernels
from bpcore.threads cimport parallel_for

import numpy

np.import_array()

DEF COST = 0.1            # nanoseconds a byte copied


cdef ndarray positions_of(object index, Py_ssize_t n):
    """An index array as contiguous int64 in [0, n); negative positions count from the end. Raises `IndexError` outside."""
    cdef ndarray a = contiguous(numpy.asarray(index, numpy.int64))
    cdef int64_t *p = <int64_t *> np.PyArray_DATA(a)
    cdef Py_ssize_t i, size = np.PyArray_SIZE(a), bad = -1
    cdef bint negative = False
    with nogil:
        for i in range(size):
            if p[i] < 0:
                negative = True
            if p[i] < -n or p[i] >= n:
                bad = i
                break
    if bad >= 0:
        raise IndexError(f"index {p[bad]} is out of bounds for an axis of size {n}")
    return numpy.where(a < 0, a + n, a) if negative else a


cdef Py_ssize_t sizes(ndarray x, int axis, Py_ssize_t *outer, Py_ssize_t *inner) noexcept:
    cdef int i
    outer[0] = inner[0] = 1
    for i in range(np.PyArray_NDIM(x)):
        if i < axis:
            outer[0] *= np.PyArray_DIM(x, i)
        elif i > axis:
            inner[0] *= np.PyArray_DIM(x, i)
    return np.PyArray_DIM(x, axis)


# --- along an axis --------------------------------------------------------------------------------------------------------

cdef void take_items(char *y, const char *x, const int64_t *index, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t m,
                     Py_ssize_t inner, Py_ssize_t item) noexcept nogil:
    """y[o][k][j] = x[o][index[o][k][j]][j]"""
    cdef Py_ssize_t o, _, j, at = 0
    for o in range(outer):
        for _ in range(m):
            for j in range(inner):
                memcpy(y + at * item, x + ((o * n + index[at]) * inner + j) * item, item)
                at += 1


cdef void put_items(char *x, const char *y, const int64_t *index, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t m,
                    Py_ssize_t inner, Py_ssize_t item) noexcept nogil:
    """x[o][index[o][k][j]][j] = y[o][k][j]"""
    cdef Py_ssize_t o, _, j, at = 0
    for o in range(outer):
        for _ in range(m):
            for j in range(inner):
                memcpy(x + ((o * n + index[at]) * inner + j) * item, y + at * item, item)
                at += 1


cdef void add_items(cython.floating *x, const cython.floating *y, const int64_t *index, Py_ssize_t outer, Py_ssize_t n,
                    Py_ssize_t m, Py_ssize_t inner) noexcept nogil:
    """x[o][index[o][k][j]][j] += y[o][k][j]"""
    cdef Py_ssize_t o, _, j, at = 0
    for o in range(outer):
        for _ in range(m):
            for j in range(inner):
                x[(o * n + index[at]) * inner + j] += y[at]
                at += 1


cdef ndarray take_lines(ndarray x, ndarray index, int axis):
    """`numpy.take_along_axis`; the other sizes agree."""
    cdef Py_ssize_t outer, inner, n = sizes(x, axis, &outer, &inner)
    cdef ndarray y = empty(np.PyArray_NDIM(index), np.PyArray_DIMS(index), np.PyArray_TYPE(x))
    x = contiguous(x)
    index = positions_of(index, n)
    with nogil:
        take_items(<char *> np.PyArray_DATA(y), <const char *> np.PyArray_DATA(x),
                   <const int64_t *> np.PyArray_DATA(index), outer, n, np.PyArray_DIM(index, axis), inner,
                   np.PyArray_ITEMSIZE(x))
    return y


cdef int put_lines(ndarray x, ndarray index, ndarray values, int axis, bint accumulate) except -1:
    """Values put (or, for float32 and float64, added) at `index` along an axis of the contiguous `x`."""
    cdef Py_ssize_t outer, inner, n = sizes(x, axis, &outer, &inner), m = np.PyArray_DIM(index, axis)
    values = contiguous(values)
    index = positions_of(index, n)
    cdef const int64_t *p = <const int64_t *> np.PyArray_DATA(index)
    cdef char *to = <char *> np.PyArray_DATA(x)
    cdef const char *what = <const char *> np.PyArray_DATA(values)
    cdef Py_ssize_t item = np.PyArray_ITEMSIZE(x)
    cdef bint single = np.PyArray_TYPE(x) == np.NPY_FLOAT
    with nogil:
        if not accumulate:
            put_items(to, what, p, outer, n, m, inner, item)
        elif single:
            add_items(<float *> to, <const float *> what, p, outer, n, m, inner)
        else:
            add_items(<double *> to, <const double *> what, p, outer, n, m, inner)
    return 0


# --- whole rows -----------------------------------------------------------------------------------------------------------

ctypedef struct Rows:
    char *y
    const char *x
    const int64_t *index
    Py_ssize_t bytes


cdef void copy_rows(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Rows *rows = <Rows *> ctx
    cdef Py_ssize_t i
    for i in range(begin, end):
        memcpy(rows.y + i * rows.bytes, rows.x + rows.index[i] * rows.bytes, rows.bytes)


cdef ndarray take_rows(ndarray x, ndarray index):
    """`x[index]` for a contiguous `x`."""
    cdef npy_intp dims[64]
    cdef int i, lead = np.PyArray_NDIM(index), ndim = lead + np.PyArray_NDIM(x) - 1
    cdef Rows rows
    cdef ndarray y
    index = positions_of(index, np.PyArray_DIM(x, 0))
    for i in range(lead):
        dims[i] = np.PyArray_DIM(index, i)
    for i in range(1, np.PyArray_NDIM(x)):
        dims[lead + i - 1] = np.PyArray_DIM(x, i)
    y = empty(ndim, dims, np.PyArray_TYPE(x))
    if np.PyArray_SIZE(y) == 0:
        return y
    rows.y = <char *> np.PyArray_DATA(y)
    rows.x = <const char *> np.PyArray_DATA(x)
    rows.index = <const int64_t *> np.PyArray_DATA(index)
    rows.bytes = np.PyArray_NBYTES(x) // np.PyArray_DIM(x, 0)
    with nogil:
        parallel_for(copy_rows, &rows, np.PyArray_SIZE(index), 5 + rows.bytes * COST)
    return y


cdef int add_rows(ndarray x, ndarray index, ndarray rows) except -1:
    """`x[index] += rows`, adding up where a position occurs again; `x` is contiguous float32 or float64."""
    cdef Py_ssize_t i, count, width, at
    cdef int64_t *p
    cdef char *to = <char *> np.PyArray_DATA(x)
    cdef char *row
    cdef bint single = np.PyArray_TYPE(x) == np.NPY_FLOAT
    index = positions_of(index, np.PyArray_DIM(x, 0))
    rows = contiguous(rows)
    if np.PyArray_SIZE(rows) == 0:
        return 0
    count, width = np.PyArray_SIZE(index), np.PyArray_SIZE(x) // np.PyArray_DIM(x, 0)
    p = <int64_t *> np.PyArray_DATA(index)
    row = <char *> np.PyArray_DATA(rows)
    with nogil:
        for i in range(count):
            at = p[i] * width
            if single:
                kernels().f32.arith(ADD, <float *> to + at, <float *> to + at, <float *> row + i * width, width)
            else:
                kernels().f64.arith(ADD, <double *> to + at, <double *> to + at, <double *> row + i * width, width)
    return 0
