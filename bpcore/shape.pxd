# Views and copies of other shapes.
from numpy cimport ndarray

from bpcore.tensor cimport Tensor

cdef Tensor reshaped(Tensor x, tuple shape)
cdef Tensor permuted(Tensor x, tuple axes)
cdef Tensor sliced(Tensor x, object index)
cdef tuple sizes_of(tuple args, object given, str name)
