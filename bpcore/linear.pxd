# What nodes of affine maps share.
from numpy cimport ndarray

cdef ndarray matrix(ndarray a)         # a contiguous array as a matrix of its last axis
cdef ndarray sum_rows(ndarray x)       # the sum over axis 0 of a contiguous matrix
