/* The kernels of stored.pyx, and their table. */
#ifndef BP_STORED_TABLE_H
#define BP_STORED_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

#define BP_STORED_BLOCK 32 /* integers that share a scale */

/* n numbers of one row, from its beginning. */
#define BP_STORED_KERNELS(X, T)                                              \
    X(void, widen_bfloat16, (T *out, const uint16_t *bits, bp_size n))       \
    X(void, widen_int8, (T *out, const int8_t *q, const float *scale, bp_size n))
BP_DECLARE_TABLE(bp_stored_table, BP_STORED_KERNELS)

#define BP_FAMILY bp_stored_table
#define BP_KERNELS BP_STORED_KERNELS
#define BP_BODIES "stored.h"
#include "dispatch.h"

#endif
