# The one door to result buffers.
from numpy cimport dtype, ndarray, npy_intp

cdef class Buffer:
    cdef void *data
    cdef size_t bytes
    cdef int cls

cdef ndarray empty(int ndim, const npy_intp *shape, int typenum)
cdef ndarray empty_like(ndarray a)
cdef ndarray zeros(int ndim, const npy_intp *shape, int typenum)
cdef ndarray contiguous(ndarray a)
