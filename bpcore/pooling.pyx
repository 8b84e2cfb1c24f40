"""Max pooling: the largest element of windows that slide over planes.

`input` is (N, C, *size) or (C, *size) with one, two or three axes of `size`; each plane gives a plane of

    out = floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1

along each axis, with `ceil_mode` rounded up, as long as the last window starts within the plane or its left padding.
`kernel_size`, `stride` (the kernel's size without it), `padding` and `dilation` are one number or one for each axis. The first of
equal elements is the maximum and gets the gradient; NaN is larger than any number. Half types are computed in float32. Sizes that
do not fit raise `RuntimeError`.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t
from numpy cimport NPY_FLOAT, NPY_INT32, NPY_INT64, NPY_INTP, NPY_UINT8, ndarray, npy_intp

from bpcore.memory cimport contiguous, empty
from bpcore.operand cimport cast_tensor, is_real
from bpcore.simd cimport kernels as core
from bpcore.tensor cimport Node, Tensor, attach, records, wrap
from bpcore.threads cimport parallel_for_checked
from bpcore.windows cimport bp_window, new_planes, planes_of, slide, volume

np.import_array()

cdef extern from "kernels/pooling_table.h":
    ctypedef struct bp_pooling_f32:
        void (*max_rows)(float *y, void *taps, int wide, const float *x, const bp_window *w, Py_ssize_t begin,
                         Py_ssize_t end) noexcept nogil
        void (*max_scatter)(float *dx, const float *dy, const void *taps, int wide, const Py_ssize_t *offset,
                            const bp_window *w, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*max2_rows)(float *y, uint8_t *taps, const float *x, Py_ssize_t total, const bp_window *w, Py_ssize_t begin,
                          Py_ssize_t end) noexcept nogil
        void (*max2_backward)(float *dx, const float *dy, const uint8_t *taps, const bp_window *w, Py_ssize_t begin,
                              Py_ssize_t end) noexcept nogil

    ctypedef struct bp_pooling_f64:
        void (*max_rows)(double *y, void *taps, int wide, const double *x, const bp_window *w, Py_ssize_t begin,
                         Py_ssize_t end) noexcept nogil
        void (*max_scatter)(double *dx, const double *dy, const void *taps, int wide, const Py_ssize_t *offset,
                            const bp_window *w, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*max2_rows)(double *y, uint8_t *taps, const double *x, Py_ssize_t total, const bp_window *w, Py_ssize_t begin,
                          Py_ssize_t end) noexcept nogil
        void (*max2_backward)(double *dx, const double *dy, const uint8_t *taps, const bp_window *w, Py_ssize_t begin,
                              Py_ssize_t end) noexcept nogil

    ctypedef struct bp_pooling:
        bp_pooling_f32 f32
        bp_pooling_f64 f64
    const bp_pooling *bp_choose(const char *wanted)

cdef const bp_pooling *kernels = bp_choose(core().name)


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Job:
    const bp_window *w
    void *out
    const void *source             # x, or dy
    void *taps
    const Py_ssize_t *offset
    Py_ssize_t total               # elements of x
    int wide
    bint single


cdef void max_rows(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.max_rows(<float *> j.out, j.taps, j.wide, <const float *> j.source, j.w, begin, end)
    else:
        kernels.f64.max_rows(<double *> j.out, j.taps, j.wide, <const double *> j.source, j.w, begin, end)


cdef void max2_rows(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.max2_rows(<float *> j.out, <uint8_t *> j.taps, <const float *> j.source, j.total, j.w, begin, end)
    else:
        kernels.f64.max2_rows(<double *> j.out, <uint8_t *> j.taps, <const double *> j.source, j.total, j.w, begin, end)


cdef void max_scatter(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.max_scatter(<float *> j.out, <const float *> j.source, j.taps, j.wide, j.offset, j.w, begin, end)
    else:
        kernels.f64.max_scatter(<double *> j.out, <const double *> j.source, j.taps, j.wide, j.offset, j.w, begin, end)


cdef void max2_backward(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.max2_backward(<float *> j.out, <const float *> j.source, <const uint8_t *> j.taps, j.w, begin, end)
    else:
        kernels.f64.max2_backward(<double *> j.out, <const double *> j.source, <const uint8_t *> j.taps, j.w, begin, end)


cdef bint is_quarter(const bp_window *w) noexcept:
    """2 by 2 without overlap or padding, over images."""
    cdef int a
    for a in range(1, 3):
        if w.kernel[a] != 2 or w.stride[a] != 2 or w.pad[a] or w.dilation[a] != 1 or 2 * w.out[a] > w.size[a]:
            return False
    return w.size[0] == 1


cdef double cost_of(const bp_window *w, Py_ssize_t n) noexcept:
    """Nanoseconds for n windows."""
    return 20 + n * (0.5 + 0.3 * volume(w.kernel))


cdef int max_forward(const bp_window *w, ndarray x, ndarray y, ndarray taps) except -1:
    cdef Job job
    cdef Py_ssize_t rows = np.PyArray_SIZE(y) // w.out[2]
    job.w = w
    job.out = np.PyArray_DATA(y)
    job.source = np.PyArray_DATA(x)
    job.taps = np.PyArray_DATA(taps)
    job.total = np.PyArray_SIZE(x)
    job.wide = np.PyArray_TYPE(taps) == NPY_INT32
    job.single = np.PyArray_TYPE(x) == NPY_FLOAT
    if is_quarter(w):
        parallel_for_checked(max2_rows, &job, rows, 5 + w.out[2] * (0.4 if job.single else 0.8))
    else:
        parallel_for_checked(max_rows, &job, rows, cost_of(w, w.out[2]))
    return 0


cdef ndarray max_backward(const bp_window *w, ndarray dy, ndarray taps, ndarray dx):
    cdef Job job
    cdef Py_ssize_t outs = volume(w.out), kd, kh, kw
    cdef npy_intp count = volume(w.kernel)
    cdef ndarray offset
    job.w = w
    job.out = np.PyArray_DATA(dx)
    job.source = np.PyArray_DATA(dy)
    job.taps = np.PyArray_DATA(taps)
    job.wide = np.PyArray_TYPE(taps) == NPY_INT32
    job.single = np.PyArray_TYPE(dy) == NPY_FLOAT
    if is_quarter(w):
        parallel_for_checked(max2_backward, &job, np.PyArray_SIZE(dy) // w.out[2], 5 + w.out[2] * (0.6 if job.single else 1.2))
        return dx
    offset = empty(1, &count, NPY_INTP)
    cdef Py_ssize_t *at = <Py_ssize_t *> np.PyArray_DATA(offset)
    for kd in range(w.kernel[0]):
        for kh in range(w.kernel[1]):
            for kw in range(w.kernel[2]):
                at[0] = (kd * w.dilation[0] * w.size[1] + kh * w.dilation[1]) * w.size[2] + kw * w.dilation[2]
                at += 1
    job.offset = <const Py_ssize_t *> np.PyArray_DATA(offset)
    parallel_for_checked(max_scatter, &job, np.PyArray_SIZE(dy) // outs, 1.2 * outs + 0.1 * volume(w.size))
    return dx


cdef void find(int64_t *index, const void *taps, bint wide, const bp_window *w, Py_ssize_t rows) noexcept nogil:
    """Where in its plane each maximum lies, from its place in its window."""
    cdef Py_ssize_t r, o, tap, d, h, c, cols = w.out[2]
    for r in range(rows):
        for o in range(cols):
            tap = (<const int32_t *> taps)[r * cols + o] if wide else (<const uint8_t *> taps)[r * cols + o]
            d = r // w.out[1] % w.out[0] * w.stride[0] - w.pad[0] + tap // (w.kernel[1] * w.kernel[2]) * w.dilation[0]
            h = r % w.out[1] * w.stride[1] - w.pad[1] + tap // w.kernel[2] % w.kernel[1] * w.dilation[1]
            c = o * w.stride[2] - w.pad[2] + tap % w.kernel[2] * w.dilation[2]
            index[r * cols + o] = (d * w.size[1] + h) * w.size[2] + c


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class MaxPoolNode(Node):
    """y = the maximum of each window: dx = the sum of dy over the windows whose maximum x is"""
    cdef bp_window w
    cdef int axes

    cdef object backward(self, object dy):
        cdef ndarray g = contiguous(dy)
        taps, = self.saved
        return max_backward(&self.w, g, taps, new_planes(g, self.axes, self.w.size, np.PyArray_TYPE(g)))


cdef object max_pool(object input, int axes, object kernel_size, object stride, object padding, object dilation, bint ceil_mode,
                     bint return_indices, str name):
    cdef Tensor x = planes_of(input, axes, name), out
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef bp_window w
    cdef MaxPoolNode node
    cdef ndarray source, y, taps, index
    if not is_real(typenum):
        given = max_pool(cast_tensor(x, NPY_FLOAT), axes, kernel_size, stride, padding, dilation, ceil_mode, return_indices, name)
        if return_indices:
            return cast_tensor(given[0], typenum), given[1]
        return cast_tensor(given, typenum)
    slide(&w, x.array, axes, kernel_size, stride, padding, dilation, ceil_mode, False)
    source = contiguous(x.array)
    y = new_planes(source, axes, w.out, typenum)
    taps = new_planes(source, axes, w.out, NPY_UINT8 if volume(w.kernel) <= 256 else NPY_INT32)
    max_forward(&w, source, y, taps)
    out = wrap(y)
    if records(x):
        node = MaxPoolNode.__new__(MaxPoolNode)
        node.w = w
        node.axes = axes
        attach(out, node, (x,), (taps,))
    if not return_indices:
        return out
    index = new_planes(source, axes, w.out, NPY_INT64)
    cdef int64_t *to = <int64_t *> np.PyArray_DATA(index)
    cdef const void *found = np.PyArray_DATA(taps)
    cdef bint wide = np.PyArray_TYPE(taps) == NPY_INT32
    cdef Py_ssize_t rows = np.PyArray_SIZE(y) // w.out[2]
    with nogil:
        find(to, found, wide, &w, rows)
    return out, wrap(index)


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The maximum of windows over (N, C, L) or (C, L); with `return_indices` also where in its row each lies."""
    return max_pool(input, 1, kernel_size, stride, padding, dilation, ceil_mode, return_indices, "max_pool1d")


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The maximum of windows over (N, C, H, W) or (C, H, W); with `return_indices` also where in its flattened plane each
    lies."""
    return max_pool(input, 2, kernel_size, stride, padding, dilation, ceil_mode, return_indices, "max_pool2d")


def max_pool3d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The maximum of windows over (N, C, D, H, W) or (C, D, H, W); with `return_indices` also where in its flattened volume
    each lies."""
    return max_pool(input, 3, kernel_size, stride, padding, dilation, ceil_mode, return_indices, "max_pool3d")
