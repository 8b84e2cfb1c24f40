"""The one door to result buffers: 64-byte aligned arrays, pooled by size.

A training step asks for the same sizes again and again; a buffer that comes back from the pool is mapped and often still in
the cache. Sizes are rounded up to an eighth of a power of two (waste at most 1/8). What the pool keeps is capped; past the
cap a freed buffer goes back to the system. Buffers of 4 MiB and more are aligned to, and advised as, huge pages.
"""
import os

cimport cython
cimport numpy as np
from libc.string cimport memset
from numpy cimport ndarray, npy_intp

np.import_array()


cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef _WIN32
    #include <malloc.h>
    static void *bp_alloc(size_t bytes, size_t align) { return _aligned_malloc(bytes, align); }
    static void bp_free(void *p) { _aligned_free(p); }
    #else
    #include <sys/mman.h>
    static void *bp_alloc(size_t bytes, size_t align) {
        void *p = NULL;
        if (posix_memalign(&p, align, bytes)) return NULL;
    #ifdef MADV_HUGEPAGE
        if (align > 4096) madvise(p, bytes, MADV_HUGEPAGE);
    #endif
        return p;
    }
    static void bp_free(void *p) { free(p); }
    #endif
    #ifdef __GLIBC__
    #include <malloc.h>
    static void bp_trim(void) { malloc_trim(0); } /* what others freed, too: it stays with the process otherwise */
    #else
    static void bp_trim(void) {}
    #endif
    """
    void *bp_alloc(size_t bytes, size_t align) nogil
    void bp_free(void *p) nogil
    void bp_trim() nogil


cdef enum:
    HUGE = 2 << 20         # alignment of large buffers
    LARGE = 4 << 20        # what counts as large
    CLASSES = 512          # 8 for each power of two

# A free buffer holds the link to the next one of its class in its first bytes.
cdef void *free_list[CLASSES]
cdef size_t cap = 0, pooled = 0, in_use = 0, peak = 0, hits = 0, misses = 0


cdef inline int size_class(size_t bytes, size_t *rounded) noexcept nogil:
    """The class of a request, and the size of its buffers: (8 + j) << k for j in 0..7, at least 64 bytes."""
    cdef int k = 3
    if bytes < 64:
        bytes = 64
    while (bytes - 1) >> (k + 4):
        k += 1
    cdef size_t eighths = (bytes + (<size_t> 1 << k) - 1) >> k     # 9..16
    rounded[0] = eighths << k
    return (k - 3) * 8 + <int> eighths - 8


@cython.final
@cython.freelist(256)
cdef class Buffer:
    """Owns one piece of memory; the base object of the array that lives in it."""

    def __dealloc__(self):
        global pooled, in_use
        if self.data is NULL:
            return
        in_use -= self.bytes
        if pooled + self.bytes > cap:
            bp_free(self.data)
            return
        pooled += self.bytes
        (<void **> self.data)[0] = free_list[self.cls]
        free_list[self.cls] = self.data


cdef Buffer allocate(size_t bytes):
    global pooled, in_use, peak, hits, misses
    cdef Buffer buffer = Buffer.__new__(Buffer)
    cdef size_t rounded
    cdef int cls = size_class(bytes, &rounded)
    cdef void *p = free_list[cls]
    cdef int larger
    if p is NULL and rounded >= LARGE // 4:
        for larger in range(cls + 1, min(cls + 5, CLASSES)):
            p = free_list[larger]
            if p is not NULL:
                cls = larger
                rounded = <size_t> (9 + (cls - 1) % 8) << ((cls - 1) // 8 + 3)
                break
    if p is not NULL:
        free_list[cls] = (<void **> p)[0]
        pooled -= rounded
        hits += 1
    else:
        p = bp_alloc(rounded, HUGE if rounded >= LARGE else 64)
        if p is NULL and pooled:
            empty_cache()
            p = bp_alloc(rounded, HUGE if rounded >= LARGE else 64)
        if p is NULL:
            raise MemoryError(f"cannot allocate {bytes / 2**20:.1f} MiB ({in_use / 2**20:.1f} MiB in use by bpnn)")
        misses += 1
    buffer.data = p
    buffer.bytes = rounded
    buffer.cls = cls
    in_use += rounded
    if in_use > peak:
        peak = in_use
    return buffer


cdef ndarray empty(int ndim, const npy_intp *shape, int typenum):
    """An uninitialised C-contiguous array in a pooled, 64-byte aligned buffer."""
    cdef size_t n = np.PyArray_DescrFromType(typenum).itemsize
    cdef int i
    for i in range(ndim):
        if shape[i] and n > (<size_t> -1) // 4 // <size_t> shape[i]:
            raise MemoryError(f"an array of shape {tuple([shape[j] for j in range(ndim)])} is larger than memory can be")
        n *= shape[i]
    cdef Buffer buffer = allocate(n)
    cdef ndarray a = np.PyArray_SimpleNewFromData(ndim, <npy_intp *> shape, typenum, buffer.data)
    np.set_array_base(a, buffer)
    return a


cdef ndarray empty_like(ndarray a):
    """An uninitialised C-contiguous array of the shape and type of `a`."""
    return empty(np.PyArray_NDIM(a), np.PyArray_DIMS(a), np.PyArray_TYPE(a))


cdef ndarray zeros(int ndim, const npy_intp *shape, int typenum):
    """A zero-filled array in a pooled buffer."""
    cdef ndarray a = empty(ndim, shape, typenum)
    memset(np.PyArray_DATA(a), 0, np.PyArray_NBYTES(a))
    return a


cdef ndarray contiguous(ndarray a):
    """`a` itself where it is C-contiguous and aligned, in native byte order; else a copy."""
    if np.PyArray_ISCARRAY_RO(a):
        return a
    cdef ndarray copy = empty_like(a)
    np.PyArray_CopyInto(copy, a)
    return copy


def empty_cache():
    """Give every pooled buffer back to the system, and with glibc what other libraries have freed."""
    global pooled
    cdef int cls
    cdef void *p
    for cls in range(CLASSES):
        while free_list[cls] is not NULL:
            p = free_list[cls]
            free_list[cls] = (<void **> p)[0]
            bp_free(p)
    pooled = 0
    bp_trim()


def memory_stats():
    """Bytes `in_use` by arrays, their `peak`, bytes `pooled` for reuse, the pool's `cap`, and how many requests the pool
    served (`hits`) or passed on to the system (`misses`)."""
    return {"in_use": in_use, "peak": peak, "pooled": pooled, "cap": cap, "hits": hits, "misses": misses}


def reset_peak():
    """Count `memory_stats()["peak"]` from what is in use now."""
    global peak
    peak = in_use


def set_pool_cap(size_t cap_bytes):
    """Keep at most `cap_bytes` of freed buffers for reuse."""
    global cap
    cap = cap_bytes
    if pooled > cap:
        empty_cache()


def _default_cap():
    value = os.environ.get("BPNN_POOL_MB")
    if value is not None:
        if not value.isdigit():
            raise RuntimeError(f"BPNN_POOL_MB={value!r}: expected a number of MiB, 0 or more")
        return int(value) << 20
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return 1 << 30


set_pool_cap(_default_cap())
