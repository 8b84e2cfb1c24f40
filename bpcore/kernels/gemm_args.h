/* What a matrix product is, for every engine. */
#ifndef BP_GEMM_ARGS_H
#define BP_GEMM_ARGS_H

#include <stddef.h>

typedef ptrdiff_t bp_size;
typedef void (*bp_epilogue)(void *ctx, bp_size row0, bp_size row1, bp_size col0, bp_size col1);

enum { BP_TILE, BP_DOT, BP_AXPY };

/* c = alpha a b + beta c + bias, elements c[i * rsc + j * csc] and so on; pointers are to float or double.
 * beta = 0 does not read c; alpha = 0 reads neither a nor b. `transposed` marks a product that was turned round
 * (c' = b' a'): its bias runs over rows, and the epilogue still gets rows and columns of the caller's c. */
typedef struct {
    void *c;
    const void *a, *b, *bias;
    bp_size m, n, k;
    bp_size rsc, csc, rsa, csa, rsb, csb;
    double alpha, beta;
    const void *packed; /* b from gemm_pack, or NULL */
    bp_epilogue epilogue;
    void *ctx;
    int path, transposed;
} bp_gemm;

#endif
