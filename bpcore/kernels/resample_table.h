#ifndef BP_RESAMPLE_TABLE_H
#define BP_RESAMPLE_TABLE_H
#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

/* x is (outer, size, inner), y is (outer, out, inner). Element o along the axis of y is the sum of weight[t] x[index[t]] over
 * start[o] <= t < start[o + 1]. `begin` and `end` count rows of y: (outer, out), or outer where inner is 1. */
#define BP_RESAMPLE_KERNELS(X, T)                                                                                              \
    X(void, resample_rows, (T * y, const T *x, const bp_size *start, const bp_size *index, const T *weight, bp_size size,      \
                            bp_size out, bp_size inner, bp_size begin, bp_size end))                                           \
    X(void, resample_lines, (T * y, const T *x, const bp_size *start, const bp_size *index, const T *weight, bp_size size,     \
                             bp_size out, bp_size inner, bp_size begin, bp_size end))
BP_DECLARE_TABLE(bp_resample, BP_RESAMPLE_KERNELS)

#define BP_FAMILY bp_resample
#define BP_KERNELS BP_RESAMPLE_KERNELS
#define BP_BODIES "resample.h"
#include "dispatch.h"
#endif
