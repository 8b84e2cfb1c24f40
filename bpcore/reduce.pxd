# Reductions: what their forward and backward passes share.
from numpy cimport ndarray

from bpcore.sums cimport axes_mask
from bpcore.tensor cimport Node, Tensor

cdef class ReduceNode(Node):
    cdef tuple shape           # of the input
    cdef tuple axes            # reduced
    cdef axes_mask mask        # the same as bits
    cdef ndarray spread(self, ndarray reduced)

cdef Tensor reduced(Tensor x, object ufunc, tuple axes, bint keepdim, int typenum)
cdef int attach_reduction(Tensor out, ReduceNode node, Tensor x, tuple axes, tuple saved) except -1
cdef int nonempty(Tensor x, tuple axes, str name) except -1
cdef Tensor summable(object input, object dtype)
