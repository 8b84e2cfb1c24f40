from bpcore.tensor cimport Tensor

cdef int may_change(Tensor x) except -1
cdef Tensor snapshot(Tensor x)
cdef Tensor store(Tensor x, Tensor result)
