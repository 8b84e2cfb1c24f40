# Picking and putting along one axis, by arrays of positions.
from numpy cimport ndarray

cdef ndarray positions_of(object index, Py_ssize_t n)
cdef ndarray take_lines(ndarray x, ndarray index, int axis)
cdef int put_lines(ndarray x, ndarray index, ndarray values, int axis, bint accumulate) except -1
cdef ndarray take_rows(ndarray x, ndarray index)
cdef int add_rows(ndarray x, ndarray index, ndarray rows) except -1
