# Matrices of frozen weights, kept in fewer bits than they are computed with.
from numpy cimport ndarray

from bpcore.activation cimport Map


cdef struct Rows:
    void *out
    const void *numbers
    const float *scales
    Py_ssize_t cols, blocks
    Py_ssize_t first                   # the matrix's row that becomes the first row of `out`
    bint is_double


cdef class StoredMatrix:
    cdef readonly str kind             # "bfloat16" or "int8"
    cdef readonly tuple shape          # (N, K)
    cdef ndarray numbers               # uint16 or int8, (N, K)
    cdef ndarray scales                # float32, (N, blocks of K); None for bfloat16

    cdef ndarray rows(self, Py_ssize_t begin, Py_ssize_t end, int typenum)
    cdef void describe(self, Rows *r, ndarray out) noexcept


# What a linear map multiplies with: an array (N, K), or (K, N) where `across`, or a StoredMatrix.
# c = f(a W^T + bias): the activation f (or NULL) goes from c, which has the affine map's values then, to y.
cdef int times_transposed(ndarray c, ndarray a, object weight, bint across, ndarray bias, const Map *f, ndarray y) except -1
# c = alpha a W + beta c
cdef int times(ndarray c, ndarray a, object weight, bint across, double beta) except -1
