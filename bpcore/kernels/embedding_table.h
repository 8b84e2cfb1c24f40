/* Kernels over rows that an array of positions names: one list, compiled for each instruction set (see dispatch.h). */
#ifndef BP_EMBEDDING_TABLE_H
#define BP_EMBEDDING_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

#define BP_EMBEDDING_KERNELS(X, T)                                                                               \
    X(void, rows_sum, (T *y, const T *x, const int64_t *index, const T *scale, bp_size n, bp_size width))       \
    X(void, rows_max, (T *y, int64_t *from, const T *x, const int64_t *index, bp_size n, bp_size width))        \
    X(T, rows_dot, (const T *a, const T *b, bp_size width))

BP_DECLARE_TABLE(bp_embedding, BP_EMBEDDING_KERNELS)

#define BP_FAMILY bp_embedding
#define BP_KERNELS BP_EMBEDDING_KERNELS
#define BP_BODIES "embedding.h"
#include "dispatch.h"

#endif
