# Convolution on arrays: two of the three sums over the same places (conv_weight.pxd has the third).
from numpy cimport ndarray

from bpcore.activation cimport Map
from bpcore.conv_plan cimport Shape

# y = w * x + b, then z = f(y) where f is given (z may be y); and dx from dy, plus b in every place where it is an array.
# Arrays are contiguous, of one real type and of the shapes that `Shape` says: x (N, G C, *size), w (G O, C, *kernel),
# y (N, G O, *out), b (G O), or (G C) for dx.
cdef int correlate(const Shape *s, ndarray y, ndarray x, ndarray w, ndarray b, const Map *f, ndarray z) except -1
cdef int correlate_input(const Shape *s, ndarray dx, ndarray dy, ndarray w, ndarray b) except -1
