from numpy cimport ndarray

from bpcore.tensor cimport Tensor

# `y` as a tensor whose node saves the input x, or y itself
cdef Tensor function(Tensor x, ndarray y, type node_type, bint from_output=*)
