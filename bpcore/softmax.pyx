"""softmax, log_softmax and softmin: distributions along one axis.

Along the last axis rows are worked on in kernels/rows.h, along another axis columns in kernels/axis.h; neither copies. The largest
element is taken away before exp, so large inputs do not overflow. Where all elements are -inf, or one is +inf or NaN, the results
are NaN, as in PyTorch.
"""
cimport cython
cimport numpy as np
from numpy cimport NPY_FLOAT, ndarray

from bpcore.arith cimport MUL
from bpcore.arithmetic cimport binary
from bpcore.memory cimport contiguous, empty_like
from bpcore.operand cimport axis_of, cast_tensor, is_real
from bpcore.simd cimport (
    BP_AXIS_TILE, BP_NARROW, BP_NARROW_ROWS, kernels, rows_backward_f32, rows_backward_f64, rows_f32, rows_f64,
    tile_backward_f32, tile_backward_f64, tile_f32, tile_f64,
)
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap
from bpcore.threads cimport parallel_for

import warnings

from bpcore.dtypes import to_dtype

np.import_array()

cdef double COST = 1.5          # nanoseconds an element of float32


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Job:
    void *out
    const void *dy                 # NULL: forward
    const void *x                  # x, or y for backward
    bint log
    Py_ssize_t cols, inner         # the axis, and what lies behind it
    Py_ssize_t rows, piece         # for the last axis: all rows, and how many are shared out together
    Py_ssize_t tiles               # for an inner axis: tiles in one (cols, inner) matrix


cdef void rows32(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t row = begin * job.piece, n = min(end * job.piece, job.rows) - row, at = row * job.cols
    cdef float *out = <float *> job.out + at
    cdef const float *x = <const float *> job.x + at
    cdef rows_f32 forward = kernels().f32.log_softmax if job.log else kernels().f32.softmax
    cdef rows_backward_f32 back = kernels().f32.log_softmax_backward if job.log else kernels().f32.softmax_backward
    if job.dy is NULL:
        forward(out, x, n, job.cols)
    else:
        back(out, <const float *> job.dy + at, x, n, job.cols)


cdef void rows64(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t row = begin * job.piece, n = min(end * job.piece, job.rows) - row, at = row * job.cols
    cdef double *out = <double *> job.out + at
    cdef const double *x = <const double *> job.x + at
    cdef rows_f64 forward = kernels().f64.log_softmax if job.log else kernels().f64.softmax
    cdef rows_backward_f64 back = kernels().f64.log_softmax_backward if job.log else kernels().f64.softmax_backward
    if job.dy is NULL:
        forward(out, x, n, job.cols)
    else:
        back(out, <const double *> job.dy + at, x, n, job.cols)


cdef void tiles32(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t i, at, column
    cdef tile_f32 forward = kernels().f32.log_softmax_tile if job.log else kernels().f32.softmax_tile
    cdef tile_backward_f32 back = kernels().f32.log_softmax_tile_backward if job.log else kernels().f32.softmax_tile_backward
    for i in range(begin, end):
        column = i % job.tiles * BP_AXIS_TILE
        at = i // job.tiles * job.cols * job.inner + column
        if job.dy is NULL:
            forward(<float *> job.out + at, <const float *> job.x + at, job.cols, job.inner,
                    min(BP_AXIS_TILE, job.inner - column))
        else:
            back(<float *> job.out + at, <const float *> job.dy + at, <const float *> job.x + at, job.cols, job.inner,
                 min(BP_AXIS_TILE, job.inner - column))


cdef void tiles64(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t i, at, column
    cdef tile_f64 forward = kernels().f64.log_softmax_tile if job.log else kernels().f64.softmax_tile
    cdef tile_backward_f64 back = kernels().f64.log_softmax_tile_backward if job.log else kernels().f64.softmax_tile_backward
    for i in range(begin, end):
        column = i % job.tiles * BP_AXIS_TILE
        at = i // job.tiles * job.cols * job.inner + column
        if job.dy is NULL:
            forward(<double *> job.out + at, <const double *> job.x + at, job.cols, job.inner,
                    min(BP_AXIS_TILE, job.inner - column))
        else:
            back(<double *> job.out + at, <const double *> job.dy + at, <const double *> job.x + at, job.cols, job.inner,
                 min(BP_AXIS_TILE, job.inner - column))


cdef void run(Job *job, int typenum, Py_ssize_t size) noexcept nogil:
    cdef bint single = typenum == NPY_FLOAT
    cdef double cost = COST if single else 2 * COST
    if size == 0:
        return
    if job.inner == 1:
        job.rows = size // job.cols
        job.piece = BP_NARROW_ROWS if job.cols < BP_NARROW else 1
        parallel_for(rows32 if single else rows64, job, (job.rows + job.piece - 1) // job.piece, cost * job.cols * job.piece)
        return
    job.tiles = (job.inner + BP_AXIS_TILE - 1) // BP_AXIS_TILE
    parallel_for(tiles32 if single else tiles64, job, size // (job.cols * job.inner) * job.tiles,
                 cost * job.cols * min(BP_AXIS_TILE, job.inner))


cdef ndarray over_axis(ndarray dy, ndarray x, int axis, bint log):
    """Forward (`dy` None) or backward along `axis` of contiguous arrays."""
    cdef ndarray out = empty_like(x)
    cdef int i, ndim = np.PyArray_NDIM(x)
    cdef Job job
    job.out = np.PyArray_DATA(out)
    job.dy = NULL if dy is None else np.PyArray_DATA(dy)
    job.x = np.PyArray_DATA(x)
    job.log = log
    job.cols = np.PyArray_DIM(x, axis) if ndim else 1
    job.inner = 1
    for i in range(axis + 1, ndim):
        job.inner *= np.PyArray_DIM(x, i)
    with nogil:
        run(&job, np.PyArray_TYPE(x), np.PyArray_SIZE(x))
    return out


cdef ndarray softmax_forward(ndarray x, bint log):
    return over_axis(None, x, np.PyArray_NDIM(x) - 1, log)


cdef ndarray softmax_backward(ndarray dy, ndarray y, bint log):
    return over_axis(dy, y, np.PyArray_NDIM(y) - 1, log)


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class SoftmaxNode(Node):
    """y = softmax(x): dx = y (dy - sum(dy y)); of its logarithm: dx = dy - exp(y) sum(dy)"""
    cdef int axis
    cdef bint log

    cdef object backward(self, object dy):
        y, = self.saved
        return over_axis(contiguous(dy), y, self.axis, self.log)

    def name(self):
        return "LogSoftmaxBackward" if self.log else "SoftmaxBackward"


cdef Tensor apply(object input, object dim, object dtype, bint log, str name):
    cdef Tensor x = as_tensor(input, "input"), out
    cdef int ndim = np.PyArray_NDIM(x.array), axis, typenum = np.PyArray_TYPE(x.array)
    cdef SoftmaxNode node
    if dtype is not None:
        typenum = to_dtype(dtype).num
        x = cast_tensor(x, typenum)
    if not is_real(typenum):
        if x.array.dtype.kind in "biuc":
            raise TypeError(f"{name}: expected a floating-point input or dtype, got {x.array.dtype}")
        return cast_tensor(apply(cast_tensor(x, NPY_FLOAT), dim, None, log, name), typenum)
    if dim is None:
        dim = 0 if ndim in (0, 1, 3) else 1
        warnings.warn(f"{name}: dim is not given and taken as {dim}; pass it, its implicit choice is deprecated", stacklevel=1)
    axis = axis_of(dim, ndim)
    out = wrap(over_axis(None, contiguous(x.array), axis, log))
    if records(x):
        node = SoftmaxNode.__new__(SoftmaxNode)
        node.axis = axis
        node.log = log
        node.guard(out)
        attach(out, node, (x,), (out.array,))
    return out


def softmax(input, dim=None, _stacklevel=3, dtype=None):
    """`exp(x) / sum(exp(x))` along axis `dim`.

    `dtype`: the type to compute and return in; the input's without it. Raises `IndexError` where `dim` is out of range and
    `TypeError` for integers without `dtype`."""
    return apply(input, dim, dtype, False, "softmax")


def log_softmax(input, dim=None, _stacklevel=3, dtype=None):
    """`x - log(sum(exp(x)))` along axis `dim`; arguments and errors as for `softmax`."""
    return apply(input, dim, dtype, True, "log_softmax")


def softmin(input, dim=None, _stacklevel=3, dtype=None):
    """`softmax(-x)` along axis `dim`."""
    return apply(binary(MUL, as_tensor(input, "input"), -1), dim, dtype, False, "softmin")
