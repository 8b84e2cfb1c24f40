/* The kernels of batch and group normalization: what they work on, and the type of their table. */
#ifndef BP_NORM_TABLE_H
#define BP_NORM_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

#define BP_NORM_PIECE 2048  /* elements whose sums are taken in one go */
#define BP_NORM_ROWS 64     /* the same for columns: rows */
#define BP_NORM_TILE 512    /* columns that are worked on together */
#define BP_NORM_LINES 6     /* numbers a column needs for backward */

/* x (N, C, S). Statistics belong to a channel c (batch), or to an image and a group of `width` channels (group). A piece is a
 * fixed part of a channel: `step` images (columns: BP_NORM_ROWS). `type *` stands for float or double. */
typedef struct {
    void *out;                       /* type *: y, or dx */
    void *dr;                        /* type *: gradient of the residual, or NULL */
    const void *x, *r, *dy, *y;      /* type *: r the residual or NULL; y (backward) where it says which elements were cut off */
    const void *weight, *bias;       /* type *: (C), or NULL for 1 and 0 */
    void *dw, *db;                   /* type *: (C), or NULL */
    double *mean, *var, *rstd;       /* (C), or (N, C / width); rstd = 1 / sqrt(var + eps) */
    double *part;                    /* sums of the pieces, two numbers each */
    void *lines;                     /* type *: columns: (BP_NORM_LINES, C S), what affine and dx need */
    bp_size N, C, S, width, step, pieces;
    double eps;
    int clip;                        /* 0: no activation, 1: relu, 2: relu6 */
    int train;                       /* the statistics are those of x, not constants */
} bp_norm;

/* Each works on the items begin..end of the bp_norm `job`. */
#define BP_NORM_KERNELS(X, T)                                                                                          \
    /* channels: items are (piece, channel) pairs, but channels for merge and for the whole passes */                  \
    X(void, moments, (void *job, bp_size begin, bp_size end))                                                          \
    X(void, merge, (void *job, bp_size begin, bp_size end))                                                            \
    X(void, affine, (void *job, bp_size begin, bp_size end))                                                           \
    X(void, forward, (void *job, bp_size begin, bp_size end))                                                          \
    X(void, sums, (void *job, bp_size begin, bp_size end))                                                             \
    X(void, merge_sums, (void *job, bp_size begin, bp_size end))                                                       \
    X(void, slopes, (void *job, bp_size begin, bp_size end))                                                           \
    X(void, backward, (void *job, bp_size begin, bp_size end))                                                         \
    /* columns of the matrix (N, C S), for small S: items are (piece, tile) pairs, but channels for merge */           \
    X(void, column_moments, (void *job, bp_size begin, bp_size end))                                                   \
    X(void, column_constants, (void *job, bp_size begin, bp_size end))                                                 \
    X(void, column_merge, (void *job, bp_size begin, bp_size end))                                                     \
    X(void, column_affine, (void *job, bp_size begin, bp_size end))                                                    \
    X(void, column_sums, (void *job, bp_size begin, bp_size end))                                                      \
    X(void, column_merge_sums, (void *job, bp_size begin, bp_size end))                                                \
    X(void, column_slopes, (void *job, bp_size begin, bp_size end))                                                    \
    /* groups: items are (image, group) pairs, but channels for merge */                                               \
    X(void, group_forward, (void *job, bp_size begin, bp_size end))                                                    \
    X(void, group_backward, (void *job, bp_size begin, bp_size end))                                                   \
    X(void, group_merge, (void *job, bp_size begin, bp_size end))

/* The two types' kernels have the same signatures, so they can stand in one struct. */
typedef struct { BP_NORM_KERNELS(BP_FIELD, void) } bp_norm_kernels;
typedef struct {
    const char *name;
    bp_norm_kernels f32, f64;
} bp_norm_table;

#endif
