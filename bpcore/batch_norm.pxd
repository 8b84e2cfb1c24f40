# What batch and group normalization share: the kernels, and the checks of their arguments.
from numpy cimport ndarray

from bpcore.tensor cimport Tensor
from bpcore.threads cimport range_fn

cdef extern from "kernels/norm_table.h":
    const Py_ssize_t BP_NORM_PIECE
    const Py_ssize_t BP_NORM_ROWS
    const Py_ssize_t BP_NORM_TILE
    const Py_ssize_t BP_NORM_LINES

    ctypedef struct bp_norm:
        void *out
        void *dr
        const void *x
        const void *r
        const void *dy
        const void *y
        const void *weight
        const void *bias
        void *dw
        void *db
        double *mean
        double *var
        double *rstd
        double *part
        void *lines
        Py_ssize_t N, C, S, width, step, pieces
        double eps
        int clip, train

    ctypedef struct bp_norm_kernels:
        range_fn moments, merge, affine, forward, sums, merge_sums, slopes, backward
        range_fn column_constants, column_moments, column_merge, column_affine, column_sums
        range_fn column_merge_sums, column_slopes
        range_fn group_forward, group_backward, group_merge

    ctypedef struct bp_norm_table:
        bp_norm_kernels f32
        bp_norm_kernels f64

cdef const bp_norm_kernels *kernels_of(int typenum) noexcept nogil
cdef void *data(ndarray a) noexcept
cdef Tensor parameter(object value, str name, Py_ssize_t n, Tensor x)
cdef Tensor widened(object value, str name)
cdef int known(double *out, object value, str name, Py_ssize_t n) except -1
cdef void point(bp_norm *j, ndarray statistics) noexcept
cdef int blend(Tensor running, const double *values, double scale, double momentum) except -1
