# Sparse linear maps along the last axes.
from bpcore.tensor cimport Tensor

cdef tuple sparse(object rows, object index, object weight, Py_ssize_t out, object dtype)
cdef Tensor resampled(Tensor x, int axes, list tables)
