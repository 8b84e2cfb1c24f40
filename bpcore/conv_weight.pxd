# Convolution on arrays: the gradient of the weight.
from numpy cimport ndarray

from bpcore.conv_plan cimport Shape

# dw (G O, C, *kernel), and db (G O) where it is an array, from x (N, G C, *size) and dy (N, G O, *out); as in convolve.pxd.
cdef int correlate_weight(const Shape *s, ndarray dw, ndarray db, ndarray x, ndarray dy) except -1
