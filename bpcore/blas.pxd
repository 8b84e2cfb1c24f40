# SciPy's BLAS, borrowed by gemm; nobody else calls it.
from cython cimport floating

from bpcore.simd cimport bp_gemm

cdef void hold() noexcept nogil         # one BLAS thread from here ...
cdef void release() noexcept nogil      # ... to here; calls nest and may come from several threads

# Whether the BLAS can take the product; turns it round where its C is column-major.
cdef bint fits(bp_gemm *g) noexcept nogil

# Rows i0..i1 and columns j0..j1 of a product that fits; `kind` only says the type.
cdef void panel(const bp_gemm *g, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1,
                const floating *kind) noexcept nogil


cdef inline void turn(bp_gemm *g) noexcept nogil:
    """C' = B' A' in place of C = A B."""
    cdef const void *p = g.a
    g.a = g.b
    g.b = p
    g.m, g.n = g.n, g.m
    g.rsc, g.csc = g.csc, g.rsc
    g.rsa, g.csa, g.rsb, g.csb = g.csb, g.rsb, g.csa, g.rsa
    g.transposed = not g.transposed
