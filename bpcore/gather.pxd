from numpy cimport ndarray

from bpcore.tensor cimport Tensor

cdef Tensor along_lines(Tensor x, ndarray index, int axis)
cdef Tensor picked(Tensor x, tuple where)
