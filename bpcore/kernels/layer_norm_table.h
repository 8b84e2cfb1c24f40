/* The kernels of layer_norm.pyx: what they work on, and their table. */
#ifndef BP_LAYER_NORM_TABLE_H
#define BP_LAYER_NORM_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

#define BP_ROWS_TILE 128 /* columns whose partial sums are merged together */

/* x (rows, cols). `type *` stands for float or double. */
typedef struct {
    void *out;                      /* type *: y, or dx or NULL */
    void *sum;                      /* type *: forward writes x + residual here and normalizes that; NULL: no residual */
    const void *x, *residual, *dy;  /* type *: residual is NULL where sum is */
    const void *ds;                 /* type *: backward adds it to dx; NULL: 0 */
    const void *weight, *bias;      /* type *: (cols), or NULL for 1 and 0 */
    void *dw, *db;                  /* type *: (cols), or NULL */
    double *mean, *rstd;            /* (rows); mean is NULL for the root mean square */
    void *part;                     /* type *: (pieces, 4, cols): sums for dw and db, and of the rows at work; NULL: not asked for */
    bp_size rows, cols, piece;      /* rows that are summed together */
    double eps;
} bp_layer_norm;

/* Each works on the items begin..end of the bp_layer_norm `job`: rows, rows, pieces of rows, tiles of columns. `again` writes the out
 * of forward from the mean and rstd that forward found. */
#define BP_LAYER_NORM_KERNELS(X, T)                                 \
    X(void, forward, (void *job, bp_size begin, bp_size end))       \
    X(void, again, (void *job, bp_size begin, bp_size end))         \
    X(void, backward, (void *job, bp_size begin, bp_size end))      \
    X(void, merge, (void *job, bp_size begin, bp_size end))

/* The two types' kernels have the same signatures, so they can stand in one struct. */
typedef struct { BP_LAYER_NORM_KERNELS(BP_FIELD, void) } bp_layer_norm_kernels;
typedef struct {
    const char *name;
    bp_layer_norm_kernels f32, f64;
} bp_layer_norm_table;

#define BP_FAMILY bp_layer_norm_table
#define BP_KERNELS BP_LAYER_NORM_KERNELS
#define BP_BODIES "layer_norm.h"
#include "dispatch.h"

#endif
