# The one door to OpenMP.
ctypedef void (*range_fn)(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef int team_size(double nanoseconds) noexcept nogil
cdef void parallel_for(range_fn fn, void *ctx, Py_ssize_t n, double cost) noexcept nogil

# The same with the GIL, which is given up meanwhile, and with a look at Ctrl-C about every 100 ms: for the top of an operator.
cdef int parallel_for_checked(range_fn fn, void *ctx, Py_ssize_t n, double cost) except -1

# How many of `n` items of `ns` nanoseconds each (on one thread) an operator should compute between two looks at Ctrl-C.
cdef double CHUNK                  # nanoseconds between them
cdef Py_ssize_t unhurried(Py_ssize_t n, double ns) noexcept nogil
