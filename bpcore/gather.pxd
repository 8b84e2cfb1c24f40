from bpcore.tensor cimport Tensor

cdef Tensor picked(Tensor x, tuple where)
