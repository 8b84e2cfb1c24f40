"""Average and power-mean pooling over windows that slide over planes; sizes and errors as in `bpcore.pooling`."""
cimport cython
cimport numpy as np
from numpy cimport NPY_FLOAT, ndarray

from bpcore.arith cimport MUL
from bpcore.arithmetic cimport binary
from bpcore.memory cimport contiguous
from bpcore.operand cimport cast_tensor, is_real
from bpcore.simd cimport kernels as core
from bpcore.tensor cimport Node, Tensor, attach, records, wrap
from bpcore.threads cimport parallel_for_checked
from bpcore.windows cimport bp_window, new_planes, numbers, planes_of, slide, volume

from bpcore.activation import relu
from bpcore.power import pow as power
from bpcore.rounding import abs as magnitude
from bpcore.rounding import sign

np.import_array()

cdef extern from "kernels/averaging_table.h":
    ctypedef struct bp_averaging_f32:
        void (*avg_rows)(float *y, const float *x, const bp_window *w, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*avg_backward)(float *dx, const float *dy, const bp_window *w, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*plane_means)(float *y, const float *x, Py_ssize_t n, float divisor, Py_ssize_t begin,
                            Py_ssize_t end) noexcept nogil
        void (*plane_spread)(float *dx, const float *dy, Py_ssize_t n, float divisor, Py_ssize_t begin,
                             Py_ssize_t end) noexcept nogil

    ctypedef struct bp_averaging_f64:
        void (*avg_rows)(double *y, const double *x, const bp_window *w, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*avg_backward)(double *dx, const double *dy, const bp_window *w, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*plane_means)(double *y, const double *x, Py_ssize_t n, double divisor, Py_ssize_t begin,
                            Py_ssize_t end) noexcept nogil
        void (*plane_spread)(double *dx, const double *dy, Py_ssize_t n, double divisor, Py_ssize_t begin,
                             Py_ssize_t end) noexcept nogil

    ctypedef struct bp_averaging:
        bp_averaging_f32 f32
        bp_averaging_f64 f64
    const bp_averaging *bp_choose(const char *wanted)

cdef const bp_averaging *kernels = bp_choose(core().name)


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Job:
    const bp_window *w
    void *out
    const void *source             # x, or dy
    Py_ssize_t total               # elements of one plane
    double divisor
    bint single


cdef void avg_rows(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.avg_rows(<float *> j.out, <const float *> j.source, j.w, begin, end)
    else:
        kernels.f64.avg_rows(<double *> j.out, <const double *> j.source, j.w, begin, end)


cdef void avg_backward(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.avg_backward(<float *> j.out, <const float *> j.source, j.w, begin, end)
    else:
        kernels.f64.avg_backward(<double *> j.out, <const double *> j.source, j.w, begin, end)


cdef void plane_means(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.plane_means(<float *> j.out, <const float *> j.source, j.total, <float> j.divisor, begin, end)
    else:
        kernels.f64.plane_means(<double *> j.out, <const double *> j.source, j.total, j.divisor, begin, end)


cdef void plane_spread(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *j = <Job *> ctx
    if j.single:
        kernels.f32.plane_spread(<float *> j.out, <const float *> j.source, j.total, <float> j.divisor, begin, end)
    else:
        kernels.f64.plane_spread(<double *> j.out, <const double *> j.source, j.total, j.divisor, begin, end)


cdef bint is_whole(const bp_window *w) noexcept:
    """One window that is the whole plane."""
    cdef int a
    for a in range(3):
        if w.out[a] != 1 or w.pad[a] or w.kernel[a] < w.size[a]:
            return False
    return True


cdef ndarray average(const bp_window *w, ndarray source, ndarray out, bint backward):
    """Fill `out` with the averages of `source`, or with what its gradients are worth to each element."""
    cdef Job job
    cdef Py_ssize_t inside = volume(w.size), planes
    cdef double each = 0.3 if np.PyArray_TYPE(source) == NPY_FLOAT else 0.6
    job.w = w
    job.out = np.PyArray_DATA(out)
    job.source = np.PyArray_DATA(source)
    job.single = np.PyArray_TYPE(source) == NPY_FLOAT
    if is_whole(w):
        job.total = inside
        # What stands out at the end, which ceil_mode allows, counts as nothing.
        job.divisor = w.divisor if w.divisor else inside
        planes = np.PyArray_SIZE(source) // (1 if backward else inside)
        parallel_for_checked(plane_spread if backward else plane_means, &job, planes, 10 + 0.15 * inside)
    elif backward:
        parallel_for_checked(avg_backward, &job, np.PyArray_SIZE(out) // w.size[2],
                             40 + each * w.size[2] + 2 * each * volume(w.kernel) * volume(w.out) / (w.size[0] * w.size[1]))
    else:
        parallel_for_checked(avg_rows, &job, np.PyArray_SIZE(out) // w.out[2], 30 + each * w.out[2] * (2 + volume(w.kernel)))
    return out


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class AvgPoolNode(Node):
    """y = the sum of each window over n: dx = the sum of dy / n over the windows that cover x"""
    cdef bp_window w
    cdef int axes

    cdef object backward(self, object dy):
        cdef ndarray g = contiguous(dy)
        return average(&self.w, g, new_planes(g, self.axes, self.w.size, np.PyArray_TYPE(g)), True)


cdef Tensor apply(Tensor x, int axes, const bp_window *w):
    """Averages of float32 or float64."""
    cdef ndarray source = contiguous(x.array)
    cdef Tensor out = wrap(average(w, source, new_planes(source, axes, w.out, np.PyArray_TYPE(source)), False))
    cdef AvgPoolNode node
    if records(x):
        node = AvgPoolNode.__new__(AvgPoolNode)
        node.w = w[0]
        node.axes = axes
        attach(out, node, (x,), None)
    return out


cdef Tensor avg_pool(object input, int axes, object kernel_size, object stride, object padding, bint ceil_mode,
                     bint count_include_pad, object divisor_override, str name):
    cdef Tensor x = planes_of(input, axes, name)
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef bp_window w
    if not is_real(typenum):
        return cast_tensor(avg_pool(cast_tensor(x, NPY_FLOAT), axes, kernel_size, stride, padding, ceil_mode, count_include_pad,
                                    divisor_override, name), typenum)
    slide(&w, x.array, axes, kernel_size, stride, padding, 1, ceil_mode, True)
    w.include_pad = count_include_pad
    if divisor_override is not None:
        w.divisor = divisor_override
        if w.divisor == 0:
            raise RuntimeError("divisor_override: expected a number other than 0, got 0")
    return apply(x, axes, &w)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The average of windows over (N, C, L) or (C, L). `count_include_pad`: the zeros of the padding count as elements."""
    return avg_pool(input, 1, kernel_size, stride, padding, ceil_mode, count_include_pad, None, "avg_pool1d")


def avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The average of windows over (N, C, H, W) or (C, H, W). `count_include_pad`: the zeros of the padding count as elements;
    `divisor_override`: divide the sums by this instead of by how many elements count."""
    return avg_pool(input, 2, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, "avg_pool2d")


def avg_pool3d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The average of windows over (N, C, D, H, W) or (C, D, H, W); the arguments of `avg_pool2d`."""
    return avg_pool(input, 3, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, "avg_pool3d")


# --- power means ----------------------------------------------------------------------------------------------------------

cdef Tensor lp_pool(object input, int axes, double norm_type, object kernel_size, object stride, bint ceil_mode, str name):
    cdef Tensor x = planes_of(input, axes, name), mean
    cdef Py_ssize_t[3] kernel = [1, 1, 1]
    numbers(kernel_size, axes, "kernel_size", kernel)
    mean = avg_pool(power(x, norm_type), axes, kernel_size, stride, 0, ceil_mode, True, None, name)
    # An odd power of negative elements may have a negative sum, of which there is no root: it counts as 0 in relu's way.
    return power(binary(MUL, binary(MUL, sign(mean), relu(magnitude(mean))), volume(kernel)), 1 / norm_type)


def lp_pool1d(input, norm_type, kernel_size, stride=None, ceil_mode=False):
    """`(sum of x^p)^(1/p)` of windows over (N, C, L) or (C, L), p = `norm_type`."""
    return lp_pool(input, 1, norm_type, kernel_size, stride, ceil_mode, "lp_pool1d")


def lp_pool2d(input, norm_type, kernel_size, stride=None, ceil_mode=False):
    """`(sum of x^p)^(1/p)` of windows over (N, C, H, W) or (C, H, W), p = `norm_type`."""
    return lp_pool(input, 2, norm_type, kernel_size, stride, ceil_mode, "lp_pool2d")


def lp_pool3d(input, norm_type, kernel_size, stride=None, ceil_mode=False):
    """`(sum of x^p)^(1/p)` of windows over (N, C, D, H, W) or (C, D, H, W), p = `norm_type`."""
    return lp_pool(input, 3, norm_type, kernel_size, stride, ceil_mode, "lp_pool3d")
