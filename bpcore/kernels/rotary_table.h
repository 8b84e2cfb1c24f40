/* The kernel of rotary.pyx: what it works on, and its table. */
#ifndef BP_ROTARY_TABLE_H
#define BP_ROTARY_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

/* x (n[0], n[1], n[2], d) of any strides but 1 in the last axis, y contiguous. Row (i, j, k) is at place i p[0] + j p[1] + k p[2], and at
 * that position, or at the position that `positions` gives for the place. `type *` stands for float or double. */
typedef struct {
    void *y;                     /* type * */
    const void *x, *cos, *sin;   /* type *: cos and sin (P, half) */
    const int64_t *positions;    /* or NULL */
    bp_size n[3], s[3], p[3];
    bp_size d, half;             /* the first 2 half elements are rotated */
    int interleaved, back;
} bp_rotary;

#define BP_ROTARY_KERNELS(X, T) X(void, rotate, (void *job, bp_size begin, bp_size end))

/* The two types' kernels have the same signatures, so they can stand in one struct. */
typedef struct { BP_ROTARY_KERNELS(BP_FIELD, void) } bp_rotary_kernels;
typedef struct {
    const char *name;
    bp_rotary_kernels f32, f64;
} bp_rotary_table;

#define BP_FAMILY bp_rotary_table
#define BP_KERNELS BP_ROTARY_KERNELS
#define BP_BODIES "rotary.h"
#include "dispatch.h"

#endif
