/* Attention: what its kernels work on. attention.h says how. */
#ifndef BP_ATTENTION_ARGS_H
#define BP_ATTENTION_ARGS_H

#include <stddef.h>
#include <stdint.h>

#include "gemm_args.h"
#include "macros.h"

enum { BP_NO_MASK, BP_BOOL_MASK, BP_ADDED_MASK };

#define BP_QUERIES 48  /* rows of a tile: as many as a product takes without packing its other operand */
#define BP_KEYS 128    /* columns of a tile; random words come in groups of as many */

/* One sequence and one key-value head: first elements of its first query head. NULL where there is none. `type *` is float or
 * double; the masks' bytes are char or `type`. */
typedef struct {
    const void *q, *k, *v, *mask, *dout; /* type * */
    void *o, *dq, *dk, *dv, *dmask;      /* type * */
    bp_size tq, tk, keys;                /* queries; keys that may be seen; keys that there are */
    bp_size row;                         /* of the statistics, for its first query; those of each head follow one another */
} bp_attention_unit;

typedef struct {
    const bp_attention_unit *units;
    bp_size d, dv, group;                /* sizes of a query and a value; query heads of a unit */
    /* Distances in elements between queries, keys … and between the heads of a unit. The last axis is contiguous. */
    bp_size q_row, k_row, v_row, o_row, dout_row, dq_row, dk_row, dv_row, mask_row, mask_column, dmask_row;
    bp_size q_head, o_head, dout_head, dq_head, mask_head, dmask_head;
    void *peak, *rsum, *delta;           /* type *: a row's largest score, 1 / its sum of e^(score - peak), sum(dout o) */
    double scale, kept;                  /* kept: 1 / (1 - p), or 0 without dropout */
    bp_size offset, window;              /* of queries against keys; keys seen to each side, itself included, or 0: all */
    uint64_t seed;
    uint32_t threshold;
    int causal, mask_kind;
    bp_size chunks;                      /* forward: items of one head */
    /* Products, of either type. */
    void (*gemm)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1);
    void (*pack_f32)(float *out, const float *b, bp_size rsb, bp_size csb, bp_size n, bp_size k, bp_size j0, bp_size j1);
    void (*pack_f64)(double *out, const double *b, bp_size rsb, bp_size csb, bp_size n, bp_size k, bp_size j0, bp_size j1);
    bp_size nr;                          /* columns of a product's tile */
    int failed;                          /* there was no memory */
} bp_attention;

/* Items: query heads times chunks in forward, units in backward. */
#define BP_ATTENTION_KERNELS(X, T)                              \
    X(void, forward, (void *job, bp_size begin, bp_size end))   \
    X(void, backward, (void *job, bp_size begin, bp_size end))

/* The two types' kernels have the same signatures, so they can stand in one struct. */
typedef struct { BP_ATTENTION_KERNELS(BP_FIELD, void) } bp_attention_kernels;
typedef struct {
    const char *name;
    bp_attention_kernels f32, f64;
} bp_attention_table;

#endif
