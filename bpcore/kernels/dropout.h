/* Random masks from a counter: the word for an element depends on (seed, position) alone, so neither threads nor vector width
 * change it, and backward makes the mask again instead of keeping it.
 *
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Elements come in groups of 256: 64
 * counters of four words; word k of counter j belongs to element 64 k + j of the group. */

#include "philox.h"

#if BP_F32
BP_INLINE void BP_CAT(philox_group, BP_ISA)(uint32_t *words, uint64_t seed, uint64_t group) {
    const uint32_t low = (uint32_t)(group * 64), high = (uint32_t)(group >> 26); /* the counter is 64 group + j */
    BP_SIMD for (uint32_t j = 0; j < 64; j++) {
        uint32_t c0 = low + j, c1 = high, c2 = 0, c3 = 0, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        BP_PHILOX
        words[j] = c0;
        words[64 + j] = c1;
        words[128 + j] = c2;
        words[192 + j] = c3;
    }
}
#endif

/* y[i] = x[i] kept + shift where the word of element i is at least threshold, else x[i] 0 + floor. x and y start at
 * element 256 group; y may be x. Dropped NaN stay NaN, as in PyTorch. */
static void BP_NAME(dropout)(BP_REAL *y, const BP_REAL *x, bp_size n, uint64_t seed, uint64_t group, uint32_t threshold,
                             BP_REAL kept, BP_REAL shift, BP_REAL floor) {
    uint32_t words[BP_DROPOUT_GROUP];
    for (bp_size start = 0; start < n; start += BP_DROPOUT_GROUP, group++) {
        const bp_size end = n - start < BP_DROPOUT_GROUP ? n : start + BP_DROPOUT_GROUP;
        BP_CAT(philox_group, BP_ISA)(words, seed, group);
        BP_SIMD for (bp_size i = start; i < end; i++) {
            const uint32_t word = words[i - start];
            y[i] = x[i] * (word >= threshold ? kept : 0) + (word >= threshold ? shift : floor);
        }
    }
}

/* The words themselves. */
static void BP_NAME(random_words)(uint32_t *words, bp_size n, uint64_t seed) {
    uint32_t group[BP_DROPOUT_GROUP];
    for (bp_size start = 0; start < n; start += BP_DROPOUT_GROUP) {
        const bp_size count = n - start < BP_DROPOUT_GROUP ? n - start : BP_DROPOUT_GROUP;
        BP_CAT(philox_group, BP_ISA)(group, seed, (uint64_t)(start / BP_DROPOUT_GROUP));
        memcpy(words + start, group, count * sizeof *words);
    }
}
