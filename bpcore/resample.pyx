"""Sparse linear maps along one axis after the other: what interpolation and adaptive averages have in common.

Along an axis each element of the output is a weighted sum of a few elements of the input. A *table* lists them for a whole axis:
`(start, index, weight)`, where element o sums `weight[t] x[index[t]]` over `start[o] <= t < start[o + 1]`. Backward applies the
transposed tables.
"""
cimport cython
cimport numpy as np
from numpy cimport NPY_FLOAT, ndarray, npy_intp

from bpcore.memory cimport contiguous, empty
from bpcore.operand cimport shape_of
from bpcore.simd cimport kernels as core
from bpcore.tensor cimport Node, Tensor, attach, records, wrap
from bpcore.threads cimport parallel_for_checked

import numpy

np.import_array()

cdef extern from "kernels/resample_table.h":
    ctypedef struct bp_resample_f32:
        void (*resample_rows)(float *y, const float *x, const Py_ssize_t *start, const Py_ssize_t *index, const float *weight,
                              Py_ssize_t size, Py_ssize_t out, Py_ssize_t inner, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*resample_lines)(float *y, const float *x, const Py_ssize_t *start, const Py_ssize_t *index, const float *weight,
                               Py_ssize_t size, Py_ssize_t out, Py_ssize_t inner, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

    ctypedef struct bp_resample_f64:
        void (*resample_rows)(double *y, const double *x, const Py_ssize_t *start, const Py_ssize_t *index, const double *weight,
                              Py_ssize_t size, Py_ssize_t out, Py_ssize_t inner, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*resample_lines)(double *y, const double *x, const Py_ssize_t *start, const Py_ssize_t *index, const double *weight,
                               Py_ssize_t size, Py_ssize_t out, Py_ssize_t inner, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

    ctypedef struct bp_resample:
        bp_resample_f32 f32
        bp_resample_f64 f64
    const bp_resample *bp_choose(const char *wanted)

cdef const bp_resample *kernels = bp_choose(core().name)


# --- tables ---------------------------------------------------------------------------------------------------------------

cdef tuple sparse(object rows, object index, object weight, Py_ssize_t out, object dtype):
    """A table from the places (row, index) of weights, which are in the order of their rows."""
    start = numpy.zeros(out + 1, numpy.intp)
    numpy.cumsum(numpy.bincount(rows, minlength=out), out=start[1:])
    return start, numpy.ascontiguousarray(index, numpy.intp), numpy.ascontiguousarray(weight, dtype)


cdef tuple transposed(tuple table, Py_ssize_t size):
    start, index, weight = table
    order = numpy.argsort(index, kind="stable")
    rows = numpy.repeat(numpy.arange(len(start) - 1), numpy.diff(start))
    return sparse(index[order], rows[order], weight[order], size, weight.dtype)


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Job:
    void *y
    const void *x
    const Py_ssize_t *start
    const Py_ssize_t *index
    const void *weight
    Py_ssize_t size, out, inner
    bint single


cdef void run(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        (kernels.f32.resample_lines if j.inner == 1 else kernels.f32.resample_rows)(
            <float *> j.y, <const float *> j.x, j.start, j.index, <const float *> j.weight, j.size, j.out, j.inner, begin, end)
    else:
        (kernels.f64.resample_lines if j.inner == 1 else kernels.f64.resample_rows)(
            <double *> j.y, <const double *> j.x, j.start, j.index, <const double *> j.weight, j.size, j.out, j.inner, begin, end)


cdef ndarray along(ndarray x, int axis, tuple table):
    """One table applied along one axis of a contiguous array."""
    cdef npy_intp[5] dims
    cdef int d, ndim = np.PyArray_NDIM(x)
    cdef ndarray start = table[0], index = table[1], weight = table[2], y
    cdef Job job
    cdef Py_ssize_t rows = 1
    cdef double cost
    job.size = np.PyArray_DIM(x, axis)
    job.out = np.PyArray_SIZE(start) - 1
    job.inner = 1
    for d in range(ndim):
        dims[d] = np.PyArray_DIM(x, d)
        if d < axis:
            rows *= dims[d]
        elif d > axis:
            job.inner *= dims[d]
    dims[axis] = job.out
    y = empty(ndim, dims, np.PyArray_TYPE(x))
    job.y = np.PyArray_DATA(y)
    job.x = np.PyArray_DATA(x)
    job.start = <const Py_ssize_t *> np.PyArray_DATA(start)
    job.index = <const Py_ssize_t *> np.PyArray_DATA(index)
    job.weight = np.PyArray_DATA(weight)
    job.single = np.PyArray_TYPE(x) == NPY_FLOAT
    if job.inner == 1:
        parallel_for_checked(run, &job, rows, 10 + 1.2 * np.PyArray_SIZE(index))
    else:
        cost = (0.2 if job.single else 0.4) * job.inner * (1 + np.PyArray_SIZE(index) / <double> max(job.out, 1))
        parallel_for_checked(run, &job, rows * job.out, 5 + cost)
    return y


cdef ndarray through(ndarray x, list tables):
    """Tables applied along the last axes; those that shrink the most come first, so that the least is left to do."""
    cdef int first = np.PyArray_NDIM(x) - len(tables)
    cdef list order = [(len(table[0]) - 1) / np.PyArray_DIM(x, first + i) for i, table in enumerate(tables)]
    for i in sorted(range(len(tables)), key=order.__getitem__):
        x = along(x, first + i, tables[i])
    return x


@cython.final
cdef class ResampleNode(Node):
    """y = (A, B, ...) x along the last axes: dx = (A^T, B^T, ...) dy"""
    cdef tuple sizes

    cdef object backward(self, object dy):
        tables, = self.saved
        return through(contiguous(dy), [transposed(table, size) for table, size in zip(tables, self.sizes)])


cdef Tensor resampled(Tensor x, int axes, list tables):
    """float32 or float64 `x` through a table, of the type of `x`, for each of its last axes."""
    cdef Tensor out = wrap(through(contiguous(x.array), tables))
    cdef ResampleNode node
    if records(x):
        node = ResampleNode.__new__(ResampleNode)
        node.sizes = shape_of(x.array)[np.PyArray_NDIM(x.array) - axes:]
        attach(out, node, (x,), (tables,))
    return out
