# The one door to OpenMP.
ctypedef void (*range_fn)(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef int team_size(double nanoseconds) noexcept nogil
cdef void parallel_for(range_fn fn, void *ctx, Py_ssize_t n, double cost) noexcept nogil
