cdef extern from "kernels/table.h":
    ctypedef struct bp_kernels_f32:
        void (*exp)(float *out, const float *x, Py_ssize_t n) noexcept nogil

    ctypedef struct bp_kernels_f64:
        void (*exp)(double *out, const double *x, Py_ssize_t n) noexcept nogil

    ctypedef struct bp_table:
        const char *name
        bp_kernels_f32 f32
        bp_kernels_f64 f64

cdef const bp_table *kernels() noexcept nogil
