"""The one door to OpenMP: the size of the team, and when work is large enough to share.

Work is split statically into equal ranges, so the same input on the same number of threads takes the same path. After a
`fork` the child has no OpenMP workers; it computes on one thread. Each Python thread that calls in gets a team of its own.
"""
import os

from cython.parallel cimport parallel, threadid


cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define BP_OPENMP 1
    #else
    #define BP_OPENMP 0
    #endif
    """
    const int BP_OPENMP

# What a thread must have to do before another one is worth waking, in nanoseconds. Waking and joining a team of two costs
# 1-2 microseconds while it spins and tens where it sleeps; see docs/decisions.md.
cdef double GRAIN = 8000.0
cdef int n_threads = 1


cdef int team_size(double nanoseconds) noexcept nogil:
    """The number of threads that `nanoseconds` of single-threaded work deserves."""
    if n_threads == 1 or nanoseconds < 2 * GRAIN:
        return 1
    return <int> min(<double> n_threads, nanoseconds / GRAIN)


cdef void parallel_for(range_fn fn, void *ctx, Py_ssize_t n, double cost) noexcept nogil:
    """Call `fn(ctx, begin, end)` over static ranges of `0..n`; `cost` is the work in one item, in nanoseconds."""
    cdef int team = <int> min(<Py_ssize_t> team_size(n * cost), n)
    if n <= 0:
        return
    if team <= 1:
        fn(ctx, 0, n)
    else:
        split(fn, ctx, n, team)


cdef void split(range_fn fn, void *ctx, Py_ssize_t n, int team) noexcept nogil:
    cdef int i = 0
    with parallel(num_threads=team):
        i = threadid()
        fn(ctx, n * i // team, n * (i + 1) // team)


def get_num_threads():
    """The number of threads that a large operation runs on."""
    return n_threads


def set_num_threads(int num_threads):
    """Use `num_threads` threads from now on. Raises `ValueError` where that is not positive."""
    global n_threads
    if num_threads < 1:
        raise ValueError(f"num_threads: expected a positive integer, got {num_threads}")
    n_threads = num_threads if BP_OPENMP else 1


def has_openmp():
    """Whether this build has OpenMP; without it everything runs on the caller's thread."""
    return bool(BP_OPENMP)


def _default():
    for name in ("BPNN_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0]
        if value:
            if not value.isdigit() or int(value) < 1:
                raise RuntimeError(f"{name}={value!r}: expected a positive integer")
            return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _after_fork():
    global n_threads
    n_threads = 1


set_num_threads(_default())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
