/* The kernels of gated.pyx: what they work on, and their table. */
#ifndef BP_GATED_TABLE_H
#define BP_GATED_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

#define BP_GATED_PIECE 64 /* elements in an item of work: vectors start at the same places for any number of threads */

/* Contiguous arrays of n elements. `type *` stands for float or double. */
typedef struct {
    void *y;                        /* type *: forward's result */
    const void *gate, *up, *dy;     /* type *: backward without dgate does not read up */
    void *dgate, *dup;              /* type *: backward's results, or NULL */
    bp_size n;
} bp_gated;

/* Each works on the items begin..end of the bp_gated `job`. */
#define BP_GATED_PAIR(X, name)                                          \
    X(void, name, (void *job, bp_size begin, bp_size end))              \
    X(void, name##_backward, (void *job, bp_size begin, bp_size end))
#define BP_GATED_KERNELS(X, T) \
    BP_GATED_PAIR(X, silu)     \
    BP_GATED_PAIR(X, gelu)     \
    BP_GATED_PAIR(X, gelu_tanh)

/* The two types' kernels have the same signatures, so they can stand in one struct. */
typedef struct { BP_GATED_KERNELS(BP_FIELD, void) } bp_gated_kernels;
typedef struct {
    const char *name;
    bp_gated_kernels f32, f64;
} bp_gated_table;

#define BP_FAMILY bp_gated_table
#define BP_KERNELS BP_GATED_KERNELS
#define BP_BODIES "gated.h"
#include "dispatch.h"

#endif
