# Arrays that are made again in backward instead of being kept: outputs that cost about a pass over memory.
from numpy cimport ndarray

from bpcore.tensor cimport Node, Tensor, Version


cdef class Again:
    cdef object held                   # weak reference to the array, which somebody else may still have
    cdef ndarray kept                  # made again, until the last of those that saved it has asked for it
    cdef Py_ssize_t uses, left         # how many saved it, and how many of them have not asked yet
    cdef tuple shape
    cdef str label
    cdef Version v0, v1, v2, v3        # what it is made of must not have changed
    cdef Py_ssize_t n0, n1, n2, n3

    cdef ndarray make(self)
    cdef ndarray array(self)
    cdef void check(self) except *
    cdef void watch(self, Node node, ndarray array) except *


# Whether an array is large enough to be made again.
cdef bint worth(ndarray a) noexcept
# What a node saves of `x`, whose values are the contiguous array `a`: an Again where there is one, else `a`.
cdef object light(Tensor x, ndarray a)
# The array that `light` stands for.
cdef ndarray heavy(object saved)
