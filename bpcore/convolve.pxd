# Convolution on arrays: three sums over the same places, which the operators of conv.pyx put together.
from numpy cimport ndarray

from bpcore.activation cimport Map

cdef enum:
    AXES = 3

cdef struct Axis:
    Py_ssize_t size, out, kernel, stride, pad, dilation     # pad: before the first element

cdef struct Shape:
    Py_ssize_t images, groups, channels, outputs            # channels and outputs of one group
    Axis axis[AXES]                                         # depth, height, width

# y = w * x + b, then z = f(y) where f is given (z may be y); dx from dy; dw and, where it is an array, db from dy.
# Arrays are contiguous, of one real type and of the shapes that `Shape` says: x (N, G C, *size), w (G O, C, *kernel),
# y (N, G O, *out), b (G O).
cdef int correlate(const Shape *s, ndarray y, ndarray x, ndarray w, ndarray b, const Map *f, ndarray z) except -1
cdef int correlate_input(const Shape *s, ndarray dx, ndarray dy, ndarray w, ndarray b) except -1
cdef int correlate_weight(const Shape *s, ndarray dw, ndarray db, ndarray x, ndarray dy) except -1
