# Arithmetic on tensors.
from bpcore.tensor cimport Node, Tensor

cdef Tensor binary(int op, object input, object other)


cdef class ZeroNode(Node):
    pass
