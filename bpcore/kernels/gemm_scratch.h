/* Scratch memory for the packed panels of matrix products: a few large buffers, taken and given back by exchanging a
 * pointer, so that any number of threads may ask at once and nothing is locked or lost. */
#ifndef BP_GEMM_SCRATCH_H
#define BP_GEMM_SCRATCH_H

#include <stddef.h>
#include <stdlib.h>
#ifdef _MSC_VER
#include <intrin.h>
#include <malloc.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

#define BP_SCRATCH_BYTES ((size_t)4 << 20)
#define BP_SCRATCH_SLOTS 32

static void *volatile bp_scratch_slots[BP_SCRATCH_SLOTS];

static void *bp_exchange(void *volatile *slot, void *p) {
#ifdef _MSC_VER
    return _InterlockedExchangePointer(slot, p);
#else
    return __atomic_exchange_n(slot, p, __ATOMIC_ACQ_REL);
#endif
}

static void *bp_scratch_take(void) {
    for (int i = 0; i < BP_SCRATCH_SLOTS; i++) {
        if (!bp_scratch_slots[i]) continue;
        void *p = bp_exchange(&bp_scratch_slots[i], NULL);
        if (p) return p;
    }
#ifdef _MSC_VER
    return _aligned_malloc(BP_SCRATCH_BYTES, 64);
#else
    void *p = NULL;
    if (posix_memalign(&p, (size_t)2 << 20, BP_SCRATCH_BYTES)) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(p, BP_SCRATCH_BYTES, MADV_HUGEPAGE);
#endif
    return p;
#endif
}

static void bp_scratch_give(void *p) {
    for (int i = 0; i < BP_SCRATCH_SLOTS && p; i++)
        if (!bp_scratch_slots[i]) p = bp_exchange(&bp_scratch_slots[i], p); /* what somebody else put there moves on */
#ifdef _MSC_VER
    if (p) _aligned_free(p);
#else
    if (p) free(p);
#endif
}

#endif
