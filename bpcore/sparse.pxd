# Gradients of which only some rows are there, and sums over rows that are named several times.
from libc.stdint cimport int64_t
from numpy cimport ndarray


cdef class Groups:
    """Where each row is named in an array of positions."""
    cdef ndarray rows                  # int64 (U,), ascending: the rows that are named
    cdef ndarray starts                # int64 (U + 1,): row k is named by order[starts[k]:starts[k + 1]]
    cdef ndarray order                 # int64 (N,): places in the array of positions, ascending for each row


cdef class SparseTensor:
    cdef ndarray rows                  # int64 (U,), ascending, each once
    cdef ndarray array                 # (U, ...): their elements
    cdef tuple sizes                   # of the whole
    cdef bint loose                    # a dense gradient on its way: the engine adds it up or makes it dense, nobody else sees it


cdef Groups group(ndarray index, Py_ssize_t height, int64_t skip)
cdef ndarray summed(Groups groups, ndarray source, ndarray scale, ndarray x, Py_ssize_t height)

cdef SparseTensor sparse_rows(ndarray rows, ndarray values, tuple shape)
cdef SparseTensor add_sparse(SparseTensor a, SparseTensor b)
cdef int add_to_dense(ndarray dense, SparseTensor sparse) except -1
cdef ndarray dense_of(SparseTensor sparse)

# The kernels of kernels/embedding.h over float32 or float64 (itemsize 4 or 8) memory.
cdef void rows_sum(char *y, const char *x, const int64_t *index, const char *scale, Py_ssize_t n, Py_ssize_t width,
                   int itemsize) noexcept nogil
cdef void rows_max(char *y, int64_t *origin, const char *x, const int64_t *index, Py_ssize_t n, Py_ssize_t width,
                   int itemsize) noexcept nogil
cdef double rows_dot(const char *a, const char *b, Py_ssize_t width, int itemsize) noexcept nogil
