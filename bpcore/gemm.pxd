# The one door to matrix multiplication.
#
# All matrices are row-major, in elements: op(A) is m by k, op(B) is k by n, C is m by n. `lda` is the distance between rows of
# A as it is stored (k columns, or m where trans_a). beta = 0 does not read C. `bias` (n numbers, or NULL) is added to every
# row. `epilogue(ctx, row0, row1, col0, col1)` (or NULL) is called once for each element's block of C when that is finished
# and still in the cache, from the thread that computed it. C must not overlap A or B.
#
# The functions without the interpreter never fail. The `_checked` ones are called with the GIL, give it up while they
# compute, and look for Ctrl-C about every 100 ms: use them at the top of an operator. All share the work over the team; inside
# a range of `parallel_for` they stay on its thread where nested teams are off (the default).
from cython cimport floating
from numpy cimport ndarray

from bpcore.simd cimport bp_epilogue

cdef void gemm(
    floating *c, Py_ssize_t ldc, const floating *a, Py_ssize_t lda, bint trans_a, const floating *b, Py_ssize_t ldb,
    bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, floating alpha, floating beta, const floating *bias,
    bp_epilogue epilogue, void *ctx) noexcept nogil

cdef int gemm_checked(
    floating *c, Py_ssize_t ldc, const floating *a, Py_ssize_t lda, bint trans_a, const floating *b, Py_ssize_t ldb,
    bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, floating alpha, floating beta, const floating *bias,
    bp_epilogue epilogue, void *ctx) except -1

# `batch` products of one shape; `step_a` elements lie between the first elements of one A and of the next (0: the same A).
cdef void gemm_batched(
    floating *c, Py_ssize_t ldc, Py_ssize_t step_c, const floating *a, Py_ssize_t lda, Py_ssize_t step_a, bint trans_a,
    const floating *b, Py_ssize_t ldb, Py_ssize_t step_b, bint trans_b, Py_ssize_t batch, Py_ssize_t m, Py_ssize_t n,
    Py_ssize_t k, floating alpha, floating beta) noexcept nogil

cdef int gemm_batched_checked(
    floating *c, Py_ssize_t ldc, Py_ssize_t step_c, const floating *a, Py_ssize_t lda, Py_ssize_t step_a, bint trans_a,
    const floating *b, Py_ssize_t ldb, Py_ssize_t step_b, bint trans_b, Py_ssize_t batch, Py_ssize_t m, Py_ssize_t n,
    Py_ssize_t k, floating alpha, floating beta) except -1

# B packed once for many products: gemm_packed_size elements of the caller's memory, 64-byte aligned for speed.
cdef Py_ssize_t gemm_packed_size(Py_ssize_t n, Py_ssize_t k, size_t itemsize) noexcept nogil
cdef void gemm_pack_b(floating *packed, const floating *b, Py_ssize_t ldb, bint trans_b, Py_ssize_t n,
                      Py_ssize_t k) noexcept nogil
cdef int gemm_packed_checked(
    floating *c, Py_ssize_t ldc, const floating *a, Py_ssize_t lda, bint trans_a, const floating *packed, Py_ssize_t m,
    Py_ssize_t n, Py_ssize_t k, floating alpha, floating beta, const floating *bias, bp_epilogue epilogue,
    void *ctx) except -1

# c = alpha a b + beta c + bias over 2-D arrays of one real type; shapes and types are the caller's care, strides are not:
# any array whose strides are whole elements is used where it lies (a transposed view costs nothing), others are copied.
cdef int product(ndarray c, ndarray a, ndarray b, double alpha=*, double beta=*, ndarray bias=*, bp_epilogue epilogue=*,
                 void *ctx=*) except -1
