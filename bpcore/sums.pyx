"""Sums over axes of arrays. Contiguous float32 and float64 over neighboring axes, which is nearly every sum, run on the kernels
of reduce.h: the array is seen as (outer, n, inner) and the middle goes. NumPy does the rest."""
cimport cython
cimport numpy as np
from numpy cimport ndarray, npy_intp

from bpcore.memory cimport empty
from bpcore.simd cimport kernels
from bpcore.threads cimport parallel_for

import numpy

np.import_array()

DEF COST = 0.12           # nanoseconds an element
DEF BLOCK = 16384         # elements of one partial sum: a multiple of reduce.h's chunks, so that threads do not matter
DEF COLUMNS = 256         # columns of one work item where rows are added up


ctypedef struct Job:
    char *out
    const char *x
    Py_ssize_t n, inner
    bint single               # float32
    double *partial


cdef void blocks(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """partial[i] = the sum of block i of x[n]"""
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t i, n
    for i in range(begin, end):
        n = min(<Py_ssize_t> BLOCK, job.n - i * BLOCK)
        if job.single:
            job.partial[i] = kernels().f32.sum(<const float *> job.x + i * BLOCK, n)
        else:
            job.partial[i] = kernels().f64.sum(<const double *> job.x + i * BLOCK, n)


cdef void lines(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """out[i] = the sum of x[i][n]"""
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t i
    for i in range(begin, end):
        if job.single:
            (<float *> job.out)[i] = <float> kernels().f32.sum(<const float *> job.x + i * job.n, job.n)
        else:
            (<double *> job.out)[i] = kernels().f64.sum(<const double *> job.x + i * job.n, job.n)


cdef void columns(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """out[o][j] = the sum of x[o][n][j]; items are groups of columns"""
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t groups = (job.inner + COLUMNS - 1) // COLUMNS, i, o, j, width
    for i in range(begin, end):
        o = i // groups
        j = (i - o * groups) * COLUMNS
        width = min(<Py_ssize_t> COLUMNS, job.inner - j)
        if job.single:
            add_columns(<float *> job.out + o * job.inner + j, <const float *> job.x + o * job.n * job.inner + j, job.n, width,
                        job.inner)
        else:
            add_columns(<double *> job.out + o * job.inner + j, <const double *> job.x + o * job.n * job.inner + j, job.n, width,
                        job.inner)


cdef void add_columns(cython.floating *out, const cython.floating *x, Py_ssize_t rows, Py_ssize_t width,
                      Py_ssize_t ld) noexcept nogil:
    """out[width] = the sum of rows, in blocks whose sums are added in double."""
    cdef double total[COLUMNS]
    cdef Py_ssize_t i, j
    for j in range(width):
        total[j] = 0
    for i in range(0, rows, BLOCK):
        if cython.floating is float:
            kernels().f32.sum_rows(out, x + i * ld, min(<Py_ssize_t> BLOCK, rows - i), width, ld)
        else:
            kernels().f64.sum_rows(out, x + i * ld, min(<Py_ssize_t> BLOCK, rows - i), width, ld)
        if rows <= BLOCK:
            return
        for j in range(width):
            total[j] += out[j]
    for j in range(width):
        out[j] = <cython.floating> total[j]


cdef double total(Job *job) except? -1:
    """The sum of x[n]."""
    cdef Py_ssize_t count = (job.n + BLOCK - 1) // BLOCK, i
    cdef npy_intp size = count
    cdef double small[8]
    cdef double result = 0
    cdef ndarray partial
    job.partial = small
    if count > 8:
        partial = empty(1, &size, np.NPY_DOUBLE)
        job.partial = <double *> np.PyArray_DATA(partial)
    with nogil:
        parallel_for(blocks, job, count, BLOCK * COST)
    for i in range(count):
        result += job.partial[i]
    return result


cdef ndarray sum_over(ndarray x, axes_mask mask, bint keepdim):
    """The sum of `x` over the axes in `mask`, in a pooled array."""
    cdef npy_intp dims[64]
    cdef int i, ndim = np.PyArray_NDIM(x), kept = 0, typenum = np.PyArray_TYPE(x), stage = 0
    cdef Py_ssize_t outer = 1
    cdef ndarray out
    cdef Job job
    cdef bint near = (typenum == np.NPY_FLOAT or typenum == np.NPY_DOUBLE) and np.PyArray_ISCARRAY_RO(x)
    job.n = job.inner = 1
    for i in range(ndim):
        if mask >> i & 1:
            if np.PyArray_DIM(x, i) != 1:
                near = near and stage < 2
                stage = 1
            job.n *= np.PyArray_DIM(x, i)
            if keepdim:
                dims[kept] = 1
                kept += 1
            continue
        if stage == 0:
            outer *= np.PyArray_DIM(x, i)
        else:
            job.inner *= np.PyArray_DIM(x, i)
            if np.PyArray_DIM(x, i) != 1:
                stage = 2
        dims[kept] = np.PyArray_DIM(x, i)
        kept += 1
    out = empty(kept, dims, typenum)
    if np.PyArray_ITEMSIZE(x) == 2 and (<object> x).dtype.kind == "f":     # halves add up as float32
        numpy.copyto(out, numpy.add.reduce(x, axes_in(mask), numpy.float32, None, keepdim), "same_kind")
        return out
    if not near:
        numpy.add.reduce(x, axes_in(mask), None, out, keepdim)
        return out
    job.out = <char *> np.PyArray_DATA(out)
    job.x = <const char *> np.PyArray_DATA(x)
    job.single = typenum == np.NPY_FLOAT
    if job.inner == 1 and outer == 1:
        if job.single:
            (<float *> job.out)[0] = <float> total(&job)
        else:
            (<double *> job.out)[0] = total(&job)
    elif job.inner == 1:
        with nogil:
            parallel_for(lines, &job, outer, job.n * COST)
    else:
        with nogil:
            parallel_for(columns, &job, outer * ((job.inner + COLUMNS - 1) // COLUMNS),
                         job.n * min(job.inner, <Py_ssize_t> COLUMNS) * COST)
    return out


cdef tuple axes_in(axes_mask mask):
    """The axes of a mask as a tuple."""
    return tuple([i for i in range(64) if mask >> i & 1])
