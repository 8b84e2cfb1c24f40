# Sums over axes; bit i of `mask` stands for axis i.
from numpy cimport ndarray

ctypedef unsigned long long axes_mask

cdef ndarray sum_over(ndarray x, axes_mask mask, bint keepdim)
cdef tuple axes_in(axes_mask mask)
