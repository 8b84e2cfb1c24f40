from numpy cimport ndarray

from bpcore.tensor cimport Tensor

# (..., m, k) times (..., k, n) with the same leading sizes, of one type.
cdef ndarray times(ndarray a, ndarray b)
cdef Tensor times_tensor(Tensor a, Tensor b)
cdef ndarray flipped(ndarray a)
