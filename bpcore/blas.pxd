# SciPy's BLAS, borrowed by gemm; nobody else calls it.
ctypedef void (*sgemm_fn)(char *transa, char *transb, int *m, int *n, int *k, float *alpha, const float *a, int *lda,
                          const float *b, int *ldb, float *beta, float *c, int *ldc) noexcept nogil
ctypedef void (*dgemm_fn)(char *transa, char *transb, int *m, int *n, int *k, double *alpha, const double *a, int *lda,
                          const double *b, int *ldb, double *beta, double *c, int *ldc) noexcept nogil

cdef sgemm_fn sgemm                     # NULL until load() has found them
cdef dgemm_fn dgemm

cdef void hold() noexcept nogil         # one BLAS thread from here ...
cdef void release() noexcept nogil      # ... to here; calls nest and may come from several threads
cdef int enter() noexcept nogil         # the same for a BLAS whose setting belongs to the calling thread
cdef void leave(int before) noexcept nogil
