"""Adaptive pooling: averages and maxima of windows whose number, not size, is given.

`input` is (N, C, *size) or (C, *size), `output_size` one number or one for each axis of `size` (None: as the input). Window o of
`out` along an axis covers the elements from floor(o size / out) up to ceil((o + 1) size / out). Half types are computed in
float32. Sizes that do not fit raise `RuntimeError`.
"""
cimport cython
cimport numpy as np
from cython cimport floating
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memset
from numpy cimport NPY_FLOAT, NPY_INT64, ndarray

from bpcore.memory cimport contiguous
from bpcore.operand cimport cast_tensor, is_real
from bpcore.resample cimport resampled, sparse
from bpcore.tensor cimport Node, Tensor, attach, records, wrap
from bpcore.threads cimport parallel_for_checked
from bpcore.windows cimport bp_window, new_planes, planes_of, volume

import functools

import numpy

from bpcore.averaging import avg_pool1d, avg_pool2d, avg_pool3d
from bpcore.pooling import max_pool1d, max_pool2d, max_pool3d

np.import_array()


cdef int divide(bp_window *w, ndarray x, int axes, object output_size) except -1:
    """The sizes of the planes before and after."""
    cdef int a, ndim = np.PyArray_NDIM(x)
    cdef list outs = list(output_size) if isinstance(output_size, (tuple, list)) else [output_size] * axes
    if len(outs) != axes:
        raise RuntimeError(f"output_size: expected one number or {axes}, got {output_size}")
    for a in range(3):
        w.size[a] = w.out[a] = 1
    for a in range(3 - axes, 3):
        w.size[a] = np.PyArray_DIM(x, ndim - 3 + a)
        out = outs[a - 3 + axes]
        w.out[a] = w.size[a] if out is None else out
        if w.out[a] < 0:
            raise RuntimeError(f"output_size: expected 0 or more, got {output_size}")
    return 0


cdef list regular(const bp_window *w, int axes):
    """The size of the windows along each axis where all are of one size and do not overlap, else None."""
    cdef int a
    for a in range(3):
        if w.out[a] == 0 or w.size[a] % w.out[a]:
            return None
    return [w.size[a] // w.out[a] for a in range(3 - axes, 3)]


# --- averages -------------------------------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=256)
def average_table(size, out, dtype):
    """Adaptive averages: element o is the mean of those from floor(o size / out) up to ceil((o + 1) size / out)."""
    o = numpy.arange(out)
    first = o * size // out
    count = -(-(o + 1) * size // out) - first
    rows = numpy.repeat(o, count)
    index = numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(count) - count, count) + first[rows]
    return sparse(rows, index, 1 / count[rows], out, dtype)


cdef Tensor adaptive_avg(object input, int axes, object output_size, str name):
    cdef Tensor x = planes_of(input, axes, name)
    cdef int typenum = np.PyArray_TYPE(x.array), a
    cdef bp_window w
    cdef list kernel
    if not is_real(typenum):
        return cast_tensor(adaptive_avg(cast_tensor(x, NPY_FLOAT), axes, output_size, name), typenum)
    divide(&w, x.array, axes, output_size)
    kernel = regular(&w, axes)
    if kernel is not None:
        return (avg_pool1d, avg_pool2d, avg_pool3d)[axes - 1](x, kernel)
    return resampled(x, axes, [average_table(w.size[a], w.out[a], x.array.dtype) for a in range(3 - axes, 3)])


def adaptive_avg_pool1d(input, output_size):
    """The averages of `output_size` windows of each row."""
    return adaptive_avg(input, 1, output_size, "adaptive_avg_pool1d")


def adaptive_avg_pool2d(input, output_size):
    """The averages of `output_size` windows of each plane; with 1 the global average."""
    return adaptive_avg(input, 2, output_size, "adaptive_avg_pool2d")


def adaptive_avg_pool3d(input, output_size):
    """The averages of `output_size` windows of each volume."""
    return adaptive_avg(input, 3, output_size, "adaptive_avg_pool3d")


# --- maxima ---------------------------------------------------------------------------------------------------------------

ctypedef struct Job:
    const bp_window *w
    void *out
    const void *source             # x, or dy
    int64_t *index                 # where in its plane each maximum lies
    bint single


cdef inline Py_ssize_t from_of(const bp_window *w, int a, Py_ssize_t o) noexcept nogil:
    return o * w.size[a] // w.out[a]


cdef inline Py_ssize_t to_of(const bp_window *w, int a, Py_ssize_t o) noexcept nogil:
    return ((o + 1) * w.size[a] + w.out[a] - 1) // w.out[a]


cdef void maxima(floating *y, int64_t *index, const floating *x, const bp_window *w) noexcept nogil:
    """One plane. The first of equal elements, or the last NaN, is the maximum."""
    cdef Py_ssize_t od, oh, ow, d, h, c, at
    cdef floating best, v
    for od in range(w.out[0]):
        for oh in range(w.out[1]):
            for ow in range(w.out[2]):
                best = -INFINITY
                index[0] = (from_of(w, 0, od) * w.size[1] + from_of(w, 1, oh)) * w.size[2] + from_of(w, 2, ow)
                for d in range(from_of(w, 0, od), to_of(w, 0, od)):
                    for h in range(from_of(w, 1, oh), to_of(w, 1, oh)):
                        at = (d * w.size[1] + h) * w.size[2]
                        for c in range(from_of(w, 2, ow), to_of(w, 2, ow)):
                            v = x[at + c]
                            if v > best or v != v:
                                best = v
                                index[0] = at + c
                y[0] = best
                y += 1
                index += 1


cdef void scatter(floating *dx, const floating *dy, const int64_t *index, Py_ssize_t outs, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    memset(dx, 0, size * sizeof(floating))
    for i in range(outs):
        dx[index[i]] += dy[i]


cdef void forward(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    cdef Py_ssize_t p, outs = volume(j.w.out), size = volume(j.w.size)
    for p in range(begin, end):
        if j.single:
            maxima(<float *> j.out + p * outs, j.index + p * outs, <const float *> j.source + p * size, j.w)
        else:
            maxima(<double *> j.out + p * outs, j.index + p * outs, <const double *> j.source + p * size, j.w)


cdef void backward(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    cdef Py_ssize_t p, outs = volume(j.w.out), size = volume(j.w.size)
    for p in range(begin, end):
        if j.single:
            scatter(<float *> j.out + p * size, <const float *> j.source + p * outs, j.index + p * outs, outs, size)
        else:
            scatter(<double *> j.out + p * size, <const double *> j.source + p * outs, j.index + p * outs, outs, size)


cdef int sweep(const bp_window *w, ndarray source, ndarray out, ndarray index, bint back) except -1:
    cdef Job job
    cdef Py_ssize_t outs = volume(w.out), size = volume(w.size)
    job.w = w
    job.out = np.PyArray_DATA(out)
    job.source = np.PyArray_DATA(source)
    job.index = <int64_t *> np.PyArray_DATA(index)
    job.single = np.PyArray_TYPE(out) == NPY_FLOAT
    return parallel_for_checked(backward if back else forward, &job, np.PyArray_SIZE(out if back else source) // size,
                    10 + 1.2 * (size + outs))


@cython.final
cdef class AdaptiveMaxPoolNode(Node):
    """y = the maximum of each window: dx = the sum of dy over the windows whose maximum x is"""
    cdef bp_window w
    cdef int axes

    cdef object backward(self, object dy):
        cdef ndarray g = contiguous(dy), dx = new_planes(g, self.axes, self.w.size, np.PyArray_TYPE(g)), index
        index, = self.saved
        sweep(&self.w, g, dx, index, True)
        return dx


cdef object adaptive_max(object input, int axes, object output_size, bint return_indices, str name):
    cdef Tensor x = planes_of(input, axes, name), out
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef AdaptiveMaxPoolNode node
    cdef ndarray source, y, index
    cdef bp_window w
    cdef list kernel
    if not is_real(typenum):
        given = adaptive_max(cast_tensor(x, NPY_FLOAT), axes, output_size, return_indices, name)
        if return_indices:
            return cast_tensor(given[0], typenum), given[1]
        return cast_tensor(given, typenum)
    divide(&w, x.array, axes, output_size)
    kernel = regular(&w, axes)
    if kernel is not None and w.out[2] >= 4:               # rows of few windows are not worth its vectors
        return (max_pool1d, max_pool2d, max_pool3d)[axes - 1](x, kernel, return_indices=return_indices)
    source = contiguous(x.array)
    y = new_planes(source, axes, w.out, typenum)
    index = new_planes(source, axes, w.out, NPY_INT64)
    sweep(&w, source, y, index, False)
    out = wrap(y)
    if records(x):
        node = AdaptiveMaxPoolNode.__new__(AdaptiveMaxPoolNode)
        node.w = w
        node.axes = axes
        attach(out, node, (x,), (index,))
    # A copy: the caller may write into it, and backward reads what is saved.
    return (out, wrap(index.copy())) if return_indices else out


def adaptive_max_pool1d(input, output_size, return_indices=False):
    """The maxima of `output_size` windows of each row; with `return_indices` also where in its row each lies."""
    return adaptive_max(input, 1, output_size, return_indices, "adaptive_max_pool1d")


def adaptive_max_pool2d(input, output_size, return_indices=False):
    """The maxima of `output_size` windows of each plane; with `return_indices` also where in its flattened plane each lies."""
    return adaptive_max(input, 2, output_size, return_indices, "adaptive_max_pool2d")


def adaptive_max_pool3d(input, output_size, return_indices=False):
    """The maxima of `output_size` windows of each volume; with `return_indices` also where in its flattened volume each lies."""
    return adaptive_max(input, 3, output_size, return_indices, "adaptive_max_pool3d")
