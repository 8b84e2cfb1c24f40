/* One round of Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) on the variables c0 to c3, the
 * counter, and k0 and k1, the key; ten of them make four random words of 32 bits. */
#ifndef BP_PHILOX_H
#define BP_PHILOX_H

#define BP_PHILOX_ROUND                                                                  \
    {                                                                                    \
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2; \
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;                                             \
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;                                             \
        c1 = (uint32_t)p1;                                                               \
        c3 = (uint32_t)p0;                                                               \
        k0 += 0x9E3779B9u;                                                               \
        k1 += 0xBB67AE85u;                                                               \
    }
#define BP_PHILOX                                                                                   \
    BP_PHILOX_ROUND BP_PHILOX_ROUND BP_PHILOX_ROUND BP_PHILOX_ROUND BP_PHILOX_ROUND BP_PHILOX_ROUND \
    BP_PHILOX_ROUND BP_PHILOX_ROUND BP_PHILOX_ROUND BP_PHILOX_ROUND

#endif
