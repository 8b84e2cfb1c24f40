"""The one door to threads: the size of the team, and when work is large enough to share.

Work is split statically into ranges, and what a range computes does not depend on who computes it, so the same input gives the
same bits on every run. On POSIX the team is `pool.h`, elsewhere it is OpenMP's. Calls from inside a range, and from a second
Python thread while the team is at work, compute on their own thread. After a `fork` the child makes a team of its own (under
OpenMP it computes on one thread).
"""
import os

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange


cdef extern from *:
    """
    #ifdef _OPENMP
    #define BP_OPENMP 1
    #else
    #define BP_OPENMP 0
    #endif
    /* Without OpenMP a build is serial, by the same rule on every system. */
    #if BP_OPENMP && !defined(_WIN32)
    #include "pool.h"
    #define BP_POOL 1
    #else
    #define BP_POOL 0
    #define bp_share(fn, ctx, n, team, parts) 0
    #endif
    """
    const int BP_OPENMP
    const int BP_POOL
    int bp_share(range_fn fn, void *ctx, Py_ssize_t n, int team, int parts) noexcept nogil

cdef enum:
    MAX_TEAM = 1024
    PIECES = 4              # ranges for each thread: one that is late leaves the rest of its share to the others

# What a thread must have to do before another one is worth waking, in nanoseconds. Waking and joining a team of two costs
# 1-2 microseconds while it spins and tens where it sleeps; see docs/decisions.md.
cdef double GRAIN = 8000.0
CHUNK = 1e8
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
    if team > 1:
        if BP_POOL:
            if bp_share(fn, ctx, n, team, <int> min(n, PIECES * team)):
                return
        else:
            split(fn, ctx, n, team)
            return
    fn(ctx, 0, n)


cdef void split(range_fn fn, void *ctx, Py_ssize_t n, int team) noexcept nogil:
    cdef int i
    for i in prange(team, num_threads=team, schedule="static"):     # also where the runtime gives fewer threads
        fn(ctx, n * i // team, n * (i + 1) // team)


cdef Py_ssize_t unhurried(Py_ssize_t n, double ns) noexcept nogil:
    return min(n, max(1, <Py_ssize_t> min(CHUNK * team_size(n * ns) / max(ns, 1e-3), 4e18)))


ctypedef struct Turn:
    range_fn fn
    void *ctx
    Py_ssize_t first


cdef void take_turn(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Turn *turn = <Turn *> ctx
    turn.fn(turn.ctx, turn.first + begin, turn.first + end)


cdef int parallel_for_checked(range_fn fn, void *ctx, Py_ssize_t n, double cost) except -1:
    cdef Turn turn = Turn(fn=fn, ctx=ctx, first=0)
    cdef Py_ssize_t step = unhurried(n, cost), count
    while turn.first < n:
        count = min(step, n - turn.first)
        with nogil:
            parallel_for(take_turn, &turn, count, cost)
        turn.first += count
        if turn.first < n:
            PyErr_CheckSignals()
    return 0


def get_num_threads():
    """The number of threads that a large operation runs on."""
    return n_threads


def set_num_threads(int num_threads):
    """Use `num_threads` threads from now on. Raises `ValueError` where that is not between 1 and 1024."""
    global n_threads
    if not 1 <= num_threads <= MAX_TEAM:
        raise ValueError(f"num_threads: expected a number from 1 to {MAX_TEAM}, got {num_threads}")
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
            return min(int(value), MAX_TEAM)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_TEAM)
    return min(os.cpu_count() or 1, MAX_TEAM)


def _after_fork():
    global n_threads
    if not BP_POOL:
        n_threads = 1


set_num_threads(_default())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
