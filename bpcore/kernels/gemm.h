/* Matrix products on one thread: c = alpha a b + beta c over one panel of c.
 *
 * The loops are those of Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): columns by
 * BP_NC, k by at most BP_KC, rows by BP_MC; packed pieces of b and a stay in the caches while tiles pass over them.
 * k is cut by its length alone, so that a panel computes the same bits as the whole.
 */
#include "gemm_scratch.h"
#include "vectors.h"
#include "gemm_tile.h"
#include "pack_panel.h"
#include "gemm_pack.h"
#include "gemm_skinny.h"

#define BP_KC (BP_F32 ? 512 : 384)
#ifndef BP_PACK_A
#define BP_PACK_A (8 * BP_NR) /* pack a for more columns than this */
#define BP_PACK_B (8 * BP_MR) /* pack a contiguous b for more rows than this */
#endif
#define BP_MC (20 * BP_MR)
#define BP_NC ((bp_size)(BP_SCRATCH_BYTES / sizeof(BP_REAL) / BP_KC - BP_MC - 1) / BP_NR * BP_NR)
#define BP_STACK ((bp_size)(16384 / sizeof(BP_REAL)))

/* Steps of k in one pass: equal parts of at most BP_KC. */
static bp_size BP_NAME(gemm_kc)(bp_size k) {
    const bp_size parts = (k + BP_KC - 1) / BP_KC;
    return parts < 2 ? k : ((k + parts - 1) / parts + 3) / 4 * 4;
}

static void BP_NAME(gemm_tiles)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1);

/* c[i0..i1][j0..j1] of the product g; j0 is a multiple of the width of a tile. */
static void BP_NAME(gemm)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1) {
    if (i0 >= i1 || j0 >= j1) return;
    if (g->k <= 0 || g->alpha == 0) {
        const BP_REAL zero[1] = {0}, *bias = (const BP_REAL *)g->bias;
        for (bp_size i = i0; i < i1; i++)
            for (bp_size j = j0; j < j1; j++) {
                BP_TILE_OUT to = {(BP_REAL *)g->c + i * g->rsc + j * g->csc, 1, 1, 1, 0, (BP_REAL)g->beta, NULL, 0};
                if (bias) to.bias = bias + (g->transposed ? i : j);
                BP_NAME(tile_edge)(zero, 1, 1, &to);
            }
    } else if (g->path == BP_DOT) {
        BP_NAME(gemm_dot)(g, i0, i1, j0, j1);
    } else if (g->path == BP_AXPY) {
        BP_NAME(gemm_axpy)(g, i0, i1, j0, j1);
    } else {
        BP_NAME(gemm_tiles)(g, i0, i1, j0, j1);
        return; /* has called the epilogue, block by block */
    }
    if (g->epilogue) {
        if (g->transposed)
            g->epilogue(g->ctx, j0, j1, i0, i1);
        else
            g->epilogue(g->ctx, i0, i1, j0, j1);
    }
}

/* One block of c against one part of k: every tile of it. */
static void BP_NAME(gemm_block)(const BP_TILE_OUT *block, bp_size m, bp_size tiles, bp_size n, bp_size k, const BP_REAL *a,
                                bp_size rsa, bp_size csa, int a_packed, const BP_REAL *b, bp_size panel, bp_size rsb) {
    BP_TILE_OUT to = *block;
    for (bp_size j = 0; j < n; j += BP_NR) {
        to.n = n - j < BP_NR ? n - j : BP_NR;
        const int two = to.n > BP_VL;
        const bp_size ldb = rsb ? rsb : BP_PANEL(to.n); /* 0: packed */
        for (bp_size t = 0; t < tiles; t++) {
            const bp_size i = m * t / tiles, rows = m * (t + 1) / tiles - i;
            to.c = block->c + i * to.rsc + j * to.csc;
            if (block->bias) to.bias = block->bias + (to.bias_rows ? i : j);
            BP_NAME(tiles)[rows][(a_packed ? 0 : 2) + two](k, a_packed ? a + i * k : a + i * rsa, rsa, csa, b + j * panel, ldb,
                                                           &to);
        }
    }
}

static void BP_NAME(gemm_tiles)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1) {
    BP_REAL stack[BP_STACK]; /* for small products; threads may have small stacks */
    BP_REAL *scratch = stack;
    const bp_size m = i1 - i0, n = j1 - j0, k = g->k;
    const BP_REAL *a = (const BP_REAL *)g->a + i0 * g->rsa, *b = (const BP_REAL *)g->b + j0 * g->csb;
    /* Packing costs a pass over the operand; it pays where the packed piece is used often enough. */
    const int aliased = g->rsb * (bp_size)sizeof(BP_REAL) % 4096 == 0 && m > 2 * BP_MR; /* rows of b evict each other */
    const int direct_b = g->csb == 1 && m <= BP_PACK_B && !aliased;
    int pack_a = n > BP_PACK_A;
    bp_size kc = BP_NAME(gemm_kc)(k), mc = pack_a && m > BP_MC ? BP_MC : m, nc = n < BP_NC ? n : BP_NC;
    bp_size room_a = pack_a ? mc * kc : 0;
    const bp_size room_b = g->packed ? 0 : direct_b ? (n % BP_VL ? BP_NR * kc : 0) : (nc + BP_NR - 1) / BP_NR * BP_NR * kc;
    if (room_a + room_b > BP_STACK && !(scratch = (BP_REAL *)bp_scratch_take())) {
        scratch = stack; /* no memory: slowly, then, and with roundings of its own */
        pack_a = room_a = 0;
        mc = m;
        nc = BP_NR;
        if (!g->packed) kc = BP_STACK / BP_NR;
    }
    BP_REAL *const packed_a = scratch, *const packed_b = scratch + room_a;
    const bp_size row_blocks = (m + mc - 1) / mc;
    for (bp_size j = 0, nj; j < n; j += nj) {
        nj = n - j < nc ? n - j : nc;
        for (bp_size p = 0, kp; p < k; p += kp) {
            kp = k - p < kc ? k - p : kc;
            const int last = p + kp == k;
            const BP_REAL *bp = b + j * g->csb + p * g->rsb, *panels = packed_b;
            bp_size whole = 0; /* columns that are read where they lie */
            if (g->packed)
                panels = (const BP_REAL *)g->packed + p * ((g->n + BP_NR - 1) / BP_NR * BP_NR) + (j0 + j) * kp;
            else if (direct_b) {
                whole = nj / BP_VL * BP_VL;
                BP_NAME(pack_columns)(packed_b, bp + whole, g->rsb, 1, nj - whole, kp);
            } else
                BP_NAME(pack_columns)(packed_b, bp, g->rsb, g->csb, nj, kp);
            for (bp_size r = 0; r < row_blocks; r++) {
                const bp_size i = m * r / row_blocks, mi = m * (r + 1) / row_blocks - i, tiles = (mi + BP_MR - 1) / BP_MR;
                const BP_REAL *ap = a + i * g->rsa + p * g->csa;
                if (pack_a) {
                    BP_NAME(pack_rows)(packed_a, ap, g->rsa, g->csa, mi, tiles, kp);
                    ap = packed_a;
                }
                BP_TILE_OUT to = {(BP_REAL *)g->c + (i0 + i) * g->rsc + (j0 + j) * g->csc, g->rsc, g->csc, 0,
                                  (BP_REAL)g->alpha, p ? 1 : (BP_REAL)g->beta, NULL, g->transposed};
                if (g->bias && last) to.bias = (const BP_REAL *)g->bias + (g->transposed ? i0 + i : j0 + j);
                if (whole) BP_NAME(gemm_block)(&to, mi, tiles, whole, kp, ap, g->rsa, g->csa, pack_a, bp, 1, g->rsb);
                if (nj > whole) {
                    to.c += whole * to.csc;
                    if (to.bias && !to.bias_rows) to.bias += whole;
                    BP_NAME(gemm_block)(&to, mi, tiles, nj - whole, kp, ap, g->rsa, g->csa, pack_a, panels, kp, 0);
                }
                if (g->epilogue && last) {
                    if (g->transposed)
                        g->epilogue(g->ctx, j0 + j, j0 + j + nj, i0 + i, i0 + i + mi);
                    else
                        g->epilogue(g->ctx, i0 + i, i0 + i + mi, j0 + j, j0 + j + nj);
                }
            }
        }
    }
    if (scratch != stack) bp_scratch_give(scratch);
}

/* Columns j0..j1 of b (k by n) into the place that the whole, packed once, has for them: k times n, rounded up to whole
 * tiles. For each part of k there are its panels of columns. */
static void BP_NAME(gemm_pack)(BP_REAL *out, const BP_REAL *b, bp_size rsb, bp_size csb, bp_size n, bp_size k, bp_size j0,
                               bp_size j1) {
    const bp_size kc = BP_NAME(gemm_kc)(k), wide = (n + BP_NR - 1) / BP_NR * BP_NR;
    for (bp_size p = 0, kp; p < k; p += kp) {
        kp = k - p < kc ? k - p : kc;
        BP_NAME(pack_columns)(out + p * wide + j0 * kp, b + p * rsb + j0 * csb, rsb, csb, j1 - j0, kp);
    }
}

static int BP_NAME(gemm_mr)(void) { return BP_MR; }
static int BP_NAME(gemm_nr)(void) { return (int)BP_NR; }

#undef half
#undef bits
#undef BP_TILE_OUT
#undef BP_TILES
#undef BP_FOUR
#undef BP_DOT_N
#undef BP_DOT_CASE
#undef BP_DOT_COLD
#undef BP_AXPY_BYTES
#undef BP_AXPY_CASE
#undef BP_KC
#undef BP_MC
#undef BP_NC
#undef BP_STACK
#undef BP_PACK_A
#undef BP_PACK_B
#include "vectors_end.h"
