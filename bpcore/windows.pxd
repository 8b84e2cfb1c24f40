# Windows that slide over planes, and what families of images share.
from numpy cimport ndarray

from bpcore.tensor cimport Tensor

cdef extern from "kernels/window.h":
    ctypedef struct bp_window:
        Py_ssize_t size[3]
        Py_ssize_t out[3]
        Py_ssize_t kernel[3]
        Py_ssize_t stride[3]
        Py_ssize_t pad[3]
        Py_ssize_t dilation[3]
        int include_pad
        Py_ssize_t divisor

cdef int numbers(object given, int axes, str name, Py_ssize_t *out) except -1
cdef Tensor planes_of(object input, int axes, str name)
cdef ndarray new_planes(ndarray x, int axes, const Py_ssize_t *out, int typenum)
cdef int slide(bp_window *w, ndarray x, int axes, object kernel_size, object stride, object padding, object dilation,
               bint ceil_mode, bint average) except -1


cdef inline Py_ssize_t volume(const Py_ssize_t *n) noexcept nogil:
    return n[0] * n[1] * n[2]
