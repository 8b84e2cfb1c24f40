# 3 x 3 convolution of stride 1 in a quarter of the multiplications, where that is faster.
from numpy cimport ndarray

from bpcore.activation cimport Map
from bpcore.conv_plan cimport Shape

# Do what correlate, correlate_input (`turned`) and correlate_weight do and return True, or leave it to them and return False.
cdef bint winograd(const Shape *s, ndarray y, ndarray x, ndarray w, ndarray b, bint turned, const Map *f, ndarray z) except -1
cdef bint winograd_weight(const Shape *s, ndarray dw, ndarray db, ndarray x, ndarray dy) except -1
