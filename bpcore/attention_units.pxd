# The kernels of attention (kernels/attention_args.h), and the arrays they work on.
from libc.stdint cimport uint32_t, uint64_t
from numpy cimport ndarray

from bpcore.simd cimport bp_gemm
from bpcore.threads cimport range_fn

cdef extern from "kernels/attention_args.h":
    enum:
        BP_NO_MASK, BP_BOOL_MASK, BP_ADDED_MASK, BP_QUERIES

    ctypedef struct bp_attention_unit:
        const void *q
        const void *k
        const void *v
        const void *mask
        const void *dout
        void *o
        void *dq
        void *dk
        void *dv
        void *dmask
        Py_ssize_t tq, tk, keys, row

    ctypedef struct bp_attention:
        const bp_attention_unit *units
        Py_ssize_t d, dv, group
        Py_ssize_t q_row, k_row, v_row, o_row, dout_row, dq_row, dk_row, dv_row, mask_row, mask_column, dmask_row
        Py_ssize_t q_head, o_head, dout_head, dq_head, mask_head, dmask_head
        void *peak
        void *rsum
        void *delta
        double scale, kept
        Py_ssize_t offset, window
        uint64_t seed
        uint32_t threshold
        int causal, mask_kind
        Py_ssize_t chunks
        void (*gemm)(const bp_gemm *g, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1) noexcept nogil
        void (*pack_f32)(float *out, const float *b, Py_ssize_t rsb, Py_ssize_t csb, Py_ssize_t n, Py_ssize_t k, Py_ssize_t j0,
                         Py_ssize_t j1) noexcept nogil
        void (*pack_f64)(double *out, const double *b, Py_ssize_t rsb, Py_ssize_t csb, Py_ssize_t n, Py_ssize_t k, Py_ssize_t j0,
                         Py_ssize_t j1) noexcept nogil
        Py_ssize_t nr
        int failed

    ctypedef struct bp_attention_kernels:
        range_fn forward, backward

    ctypedef struct bp_attention_table:
        bp_attention_kernels f32
        bp_attention_kernels f64


cdef ndarray placed(ndarray a)
cdef ndarray laid_like(ndarray a, tuple shape)


cdef class Work:
    cdef bp_attention s
    cdef bp_attention_unit *units
    cdef ndarray store, lengths, starts_q, starts_k
    cdef Py_ssize_t heads, count
    cdef bint packed
    cdef double pairs                  # of a query and a key that meet, over all heads

    cdef int lay_units(self, ndarray q, ndarray k, ndarray v) except -1
    cdef int point(self, ndarray q, ndarray k, ndarray v, ndarray o, ndarray mask, ndarray dout, ndarray dq, ndarray dk, ndarray dv,
                   ndarray dmask) except -1
    cdef Py_ssize_t rows(self) noexcept
    cdef int run(self, bint backward, int typenum) except -1
