# What losses share.
from numpy cimport ndarray

from bpcore.tensor cimport Tensor

cdef enum:
    NONE = 0
    MEAN = 1
    SUM = 2

# The code of a `reduction` argument, after PyTorch's older `size_average` and `reduce` have had their say.
cdef int reduction_of(object size_average, object reduce, object reduction) except -1
# A tensor of one number.
cdef Tensor scalar(double value, int typenum)
# The value of a one-element gradient.
cdef double number(ndarray dy) noexcept
