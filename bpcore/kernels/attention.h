/* Attention of one head:
 *     s = scale q k' + mask,   p = e^(s - peak) / sum,   o = p v;
 *     dv = p' do,   dp = do v',   ds = p (dp - delta) with delta = sum(do o),   dq = scale ds k,   dk = scale ds' q.
 *
 * Scores exist a tile at a time: BP_KEYS keys meet BP_QUERIES queries. Forward keeps a running maximum and sum of each row and
 * rescales what it has of o where the maximum grows (Milakov and Gimelshein 2018; Dao et al., "FlashAttention", 2022); backward
 * computes the tiles again. The keys are the outer loop, so that a block of them is packed once and its dk and dv stay in the
 * cache. Columns that no row of a tile sees are left out. Which columns a row sees is a range [a, b) of keys; what a mask hides
 * within it has the score -inf. A row that sees nothing gives zeros. */
#include "philox.h"
#include "vmath.h"

#define BP_INF ((BP_REAL)INFINITY)
#define BP_MIN(x, y) ((x) < (y) ? (x) : (y))
#define BP_MAX(x, y) ((x) > (y) ? (x) : (y))

#if BP_F32
/* The random words of BP_KEYS neighboring keys: Philox4x32-10 (Salmon et al. 2011) of the block of keys, the query, the head. */
BP_INLINE void BP_CAT(attention_words, BP_ISA)(uint32_t *words, uint64_t seed, bp_size block, bp_size query, bp_size head) {
    BP_SIMD for (uint32_t j = 0; j < BP_KEYS / 4; j++) {
        uint32_t c0 = (uint32_t)block * (BP_KEYS / 4) + j, c1 = (uint32_t)query, c2 = (uint32_t)head;
        uint32_t c3 = (uint32_t)((uint64_t)head >> 32), k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        BP_PHILOX
        words[j] = c0;
        words[BP_KEYS / 4 + j] = c1;
        words[BP_KEYS / 2 + j] = c2;
        words[3 * BP_KEYS / 4 + j] = c3;
    }
}
#endif

/* --- which keys a query sees ------------------------------------------------------------------------------------------------ */

BP_INLINE bp_size BP_NAME(first_key)(const bp_attention *s, const bp_attention_unit *u, bp_size query) {
    const bp_size a = s->window ? query + s->offset - s->window + 1 : 0;
    return a < 0 ? 0 : BP_MIN(a, u->tk);
}

BP_INLINE bp_size BP_NAME(end_key)(const bp_attention *s, const bp_attention_unit *u, bp_size query) {
    const bp_size at = query + s->offset, b = s->causal ? at + 1 : s->window ? at + s->window : u->tk;
    return b < 0 ? 0 : BP_MIN(b, u->tk);
}

/* The queries of r0..r1 that see any of the keys j0..j1. */
BP_INLINE void BP_NAME(seeing)(const bp_attention *s, bp_size j0, bp_size j1, bp_size *r0, bp_size *r1) {
    if (s->causal)
        *r0 = BP_MAX(*r0, j0 - s->offset);
    else if (s->window)
        *r0 = BP_MAX(*r0, j0 - s->offset - s->window + 1);
    if (s->window) *r1 = BP_MIN(*r1, j1 - s->offset + s->window - 1);
}

/* Whether every query sees a key of the first block, or none sees any. */
BP_INLINE int BP_NAME(starts_at_once)(const bp_attention *s, const bp_attention_unit *u) {
    return u->tk > 0 && !s->window && (!s->causal || s->offset >= 0);
}

/* --- tiles ------------------------------------------------------------------------------------------------------------------ */

/* A tile: queries i..i+m of one head against the keys j0+c0..j0+c1 of the block from j0 on; products compute up to column `wide`. */
typedef struct {
    bp_size i, m, j0, block, c0, c1, wide, head;
} BP_NAME(tile_at);
#define tile_at BP_NAME(tile_at)

BP_INLINE void BP_NAME(place)(const bp_attention *s, const bp_attention_unit *u, tile_at *t) {
    const bp_size a = BP_NAME(first_key)(s, u, t->i) - t->j0, b = BP_NAME(end_key)(s, u, t->i + t->m - 1) - t->j0, vl = s->nr / 2;
    t->c0 = a <= 0 ? 0 : BP_MIN(a, t->block) / s->nr * s->nr;
    t->c1 = BP_MIN(b, t->block);
    t->wide = BP_MIN((t->c1 + s->nr - 1) / s->nr * s->nr, (t->block + vl - 1) / vl * vl);
}

/* x[m][c0..wide] = rows (m by k) times the packed block. */
static void BP_NAME(against_packed)(const bp_attention *s, const tile_at *t, BP_REAL *x, const BP_REAL *rows, bp_size row,
                                    const BP_REAL *packed, bp_size k) {
    bp_gemm g = {x, rows, NULL, NULL, t->m, t->block, k, BP_KEYS, 1, row, 1, 0, 0, 1, 0, packed, NULL, NULL, BP_TILE, 0};
    s->gemm(&g, 0, t->m, t->c0, t->wide);
}

/* The same with the block as it lies, for few rows. */
static void BP_NAME(against_rows)(const bp_attention *s, const tile_at *t, BP_REAL *x, const BP_REAL *rows, bp_size row,
                                  const BP_REAL *b, bp_size b_row, bp_size k) {
    bp_gemm g = {x, rows, b, NULL, t->m, t->block, k, BP_KEYS, 1, row, 1, 1, b_row, 1, 0, NULL, NULL, NULL, BP_DOT, 0};
    s->gemm(&g, 0, t->m, t->c0, t->c1);
}

/* out (m by n) = x[m][c0..c1] times rows c0..c1 of the block, plus beta out. */
static void BP_NAME(times_block)(const bp_attention *s, const tile_at *t, BP_REAL *out, bp_size out_row, const BP_REAL *x,
                                 const BP_REAL *block, bp_size block_row, bp_size n, double beta, int path) {
    bp_gemm g = {out, x + t->c0, block + t->c0 * block_row, NULL, t->m, n, t->c1 - t->c0, out_row, 1, BP_KEYS, 1, block_row, 1,
                 1, beta, NULL, NULL, NULL, path, 0};
    s->gemm(&g, 0, t->m, 0, n);
}

/* Rows c0..c1 of out (block by n) = x[m][c0..c1]' times rows (m by n), plus beta out. */
static void BP_NAME(turned_times)(const bp_attention *s, const tile_at *t, BP_REAL *out, bp_size out_row, const BP_REAL *x,
                                  const BP_REAL *rows, bp_size row, bp_size n, double beta) {
    bp_gemm g = {out + t->c0 * out_row, x + t->c0, rows, NULL, t->c1 - t->c0, n, t->m, out_row, 1, 1, BP_KEYS, row, 1,
                 1, beta, NULL, NULL, NULL, BP_TILE, 0};
    s->gemm(&g, 0, t->c1 - t->c0, 0, n);
}

static void BP_NAME(pack_keys)(const bp_attention *s, BP_REAL *packed, const BP_REAL *rows, bp_size row, bp_size n, bp_size k) {
#if BP_F32
    s->pack_f32(packed, rows, 1, row, n, k, 0, n);
#else
    s->pack_f64(packed, rows, 1, row, n, k, 0, n);
#endif
}

#include "attention_rows.h"

/* --- heads ------------------------------------------------------------------------------------------------------------------ */

static void BP_NAME(clear)(BP_REAL *x, bp_size row, bp_size r0, bp_size r1, bp_size n) {
    for (bp_size r = r0; r < r1; r++) memset(x + r * row, 0, n * sizeof *x);
}

/* o of queries r0..r1 of head g. */
static void BP_NAME(forward_rows)(const bp_attention *s, const bp_attention_unit *u, bp_size index, bp_size g, bp_size r0, bp_size r1,
                                  BP_REAL *scratch) {
    const BP_REAL *q = (const BP_REAL *)u->q + g * s->q_head, *k = (const BP_REAL *)u->k, *v = (const BP_REAL *)u->v;
    BP_REAL *o = (BP_REAL *)u->o + g * s->o_head, *packed = scratch + BP_QUERIES * BP_KEYS;
    BP_REAL *peak = (BP_REAL *)s->peak + u->row + g * u->tq, *rsum = (BP_REAL *)s->rsum + u->row + g * u->tq;
    const int few = u->tq <= 4, once = BP_NAME(starts_at_once)(s, u);
    const int dots = few && s->d * 2 >= s->nr;
    for (bp_size r = r0; r < r1; r++) peak[r] = -BP_INF, rsum[r] = 0;
    if (!once) BP_NAME(clear)(o, s->o_row, r0, r1, s->dv);
    for (bp_size j = 0; j < u->tk; j += BP_KEYS) {
        tile_at t = {0, 0, j, BP_MIN(BP_KEYS, u->tk - j), 0, 0, 0, index * s->group + g};
        bp_size i0 = r0, i1 = r1;
        BP_NAME(seeing)(s, j, j + t.block, &i0, &i1);
        if (i0 >= i1) continue;
        if (!dots) BP_NAME(pack_keys)(s, packed, k + j * s->k_row, s->k_row, t.block, s->d);
        for (t.i = i0; t.i < i1; t.i += BP_QUERIES) {
            t.m = BP_MIN(BP_QUERIES, i1 - t.i);
            BP_NAME(place)(s, u, &t);
            if (dots)
                BP_NAME(against_rows)(s, &t, scratch, q + t.i * s->q_row, s->q_row, k + j * s->k_row, s->k_row, s->d);
            else
                BP_NAME(against_packed)(s, &t, scratch, q + t.i * s->q_row, s->q_row, packed, s->d);
            BP_REAL *to = o + t.i * s->o_row;
            BP_NAME(exponentials)(s, u, &t, g, scratch, to, peak + t.i, rsum + t.i);
            BP_NAME(times_block)(s, &t, to, s->o_row, scratch, v + j * s->v_row, s->v_row, s->dv, once && j == 0 ? 0 : 1,
                                 few ? BP_AXPY : BP_TILE);
        }
    }
    for (bp_size r = r0; r < r1; r++) {
        BP_REAL *to = o + r * s->o_row;
        const BP_REAL share = rsum[r] == 0 ? 0 : 1 / rsum[r];
        if (peak[r] == -BP_INF) peak[r] = 0;
        rsum[r] = share;
        BP_SIMD for (bp_size c = 0; c < s->dv; c++) to[c] *= share;
    }
}

static size_t BP_NAME(forward_scratch)(const bp_attention *s) {
    return (size_t)(BP_QUERIES * BP_KEYS + (BP_KEYS + s->nr) * s->d) * sizeof(BP_REAL);
}

static void BP_NAME(forward)(void *job, bp_size begin, bp_size end) {
    bp_attention *s = (bp_attention *)job;
    const size_t bytes = BP_NAME(forward_scratch)(s);
    BP_REAL *scratch = (BP_REAL *)bp_attention_take(bytes);
    if (!scratch) {
        s->failed = 1;
        return;
    }
    for (bp_size item = begin; item < end; item++) {
        const bp_size head = item / s->chunks, chunk = item % s->chunks;
        const bp_attention_unit *u = s->units + head / s->group;
        BP_NAME(forward_rows)(s, u, head / s->group, head % s->group, u->tq * chunk / s->chunks, u->tq * (chunk + 1) / s->chunks,
                              scratch);
    }
    bp_attention_give(scratch, bytes);
}

/* delta = sum(do o) of every query of head g. */
static void BP_NAME(deltas)(const bp_attention *s, const bp_attention_unit *u, bp_size g, BP_REAL *delta) {
    const BP_REAL *o = (const BP_REAL *)u->o + g * s->o_head, *dout = (const BP_REAL *)u->dout + g * s->dout_head;
    for (bp_size r = 0; r < u->tq; r++, o += s->o_row, dout += s->dout_row) {
        BP_REAL sum = 0;
        BP_SIMD_SUM(sum) for (bp_size c = 0; c < s->dv; c++) sum += o[c] * dout[c];
        delta[r] = sum;
    }
}

/* One unit: all that its keys from j on, a block of them, take part in. */
static void BP_NAME(backward_block)(const bp_attention *s, const bp_attention_unit *u, bp_size index, bp_size j, BP_REAL *scratch) {
    BP_REAL *x = scratch, *dp = x + BP_QUERIES * BP_KEYS, *packed_k = dp + BP_QUERIES * BP_KEYS;
    BP_REAL *packed_v = packed_k + (BP_KEYS + s->nr) * s->d;
    const BP_REAL *k = (const BP_REAL *)u->k + j * s->k_row, *v = (const BP_REAL *)u->v + j * s->v_row;
    BP_REAL *dk = u->dk ? (BP_REAL *)u->dk + j * s->dk_row : NULL, *dv = u->dv ? (BP_REAL *)u->dv + j * s->dv_row : NULL;
    tile_at t = {0, 0, j, BP_MIN(BP_KEYS, u->tk - j), 0, 0, 0, 0};
    const int once = BP_NAME(starts_at_once)(s, u) && j == 0;
    int written = 0; /* dk and dv hold something */
    BP_NAME(pack_keys)(s, packed_k, k, s->k_row, t.block, s->d);
    BP_NAME(pack_keys)(s, packed_v, v, s->v_row, t.block, s->dv);
    for (bp_size g = 0; g < s->group; g++) {
        const BP_REAL *q = (const BP_REAL *)u->q + g * s->q_head, *dout = (const BP_REAL *)u->dout + g * s->dout_head;
        BP_REAL *dq = u->dq ? (BP_REAL *)u->dq + g * s->dq_head : NULL;
        const bp_size row = u->row + g * u->tq;
        bp_size i0 = 0, i1 = u->tq;
        t.head = index * s->group + g;
        BP_NAME(seeing)(s, j, j + t.block, &i0, &i1);
        /* The last rows first: without a window they see the whole block. */
        for (bp_size part = (i1 - i0 + BP_QUERIES - 1) / BP_QUERIES - 1; part >= 0; part--) {
            t.i = i0 + part * BP_QUERIES;
            t.m = BP_MIN(BP_QUERIES, i1 - t.i);
            BP_NAME(place)(s, u, &t);
            const BP_REAL *qi = q + t.i * s->q_row, *douti = dout + t.i * s->dout_row;
            BP_NAME(against_packed)(s, &t, x, qi, s->q_row, packed_k, s->d);
            BP_NAME(against_packed)(s, &t, dp, douti, s->dout_row, packed_v, s->dv);
            BP_NAME(slopes)(s, u, &t, g, x, dp, (const BP_REAL *)s->peak + row + t.i, (const BP_REAL *)s->rsum + row + t.i,
                            (const BP_REAL *)s->delta + row + t.i);
            if (!written && (t.c0 > 0 || t.c1 < t.block)) {
                if (dk) BP_NAME(clear)(dk, s->dk_row, 0, t.block, s->d);
                if (dv) BP_NAME(clear)(dv, s->dv_row, 0, t.block, s->dv);
                written = 1;
            }
            if (dv) BP_NAME(turned_times)(s, &t, dv, s->dv_row, x, douti, s->dout_row, s->dv, written);
            if (dk) BP_NAME(turned_times)(s, &t, dk, s->dk_row, dp, qi, s->q_row, s->d, written);
            written = 1;
            if (dq) BP_NAME(times_block)(s, &t, dq + t.i * s->dq_row, s->dq_row, dp, k, s->k_row, s->d, !once, BP_TILE);
        }
    }
    if (!written) {
        if (dk) BP_NAME(clear)(dk, s->dk_row, 0, t.block, s->d);
        if (dv) BP_NAME(clear)(dv, s->dv_row, 0, t.block, s->dv);
    }
}

static size_t BP_NAME(backward_scratch)(const bp_attention *s) {
    return (size_t)(2 * BP_QUERIES * BP_KEYS + (BP_KEYS + s->nr) * (s->d + s->dv)) * sizeof(BP_REAL);
}

static void BP_NAME(backward)(void *job, bp_size begin, bp_size end) {
    bp_attention *s = (bp_attention *)job;
    const size_t bytes = BP_NAME(backward_scratch)(s);
    BP_REAL *scratch = (BP_REAL *)bp_attention_take(bytes);
    if (!scratch) {
        s->failed = 1;
        return;
    }
    for (bp_size index = begin; index < end; index++) {
        const bp_attention_unit *u = s->units + index;
        for (bp_size g = 0; g < s->group; g++) {
            BP_NAME(deltas)(s, u, g, (BP_REAL *)s->delta + u->row + g * u->tq);
            if (u->dq && !BP_NAME(starts_at_once)(s, u))
                BP_NAME(clear)((BP_REAL *)u->dq + g * s->dq_head, s->dq_row, 0, u->tq, s->d);
        }
        for (bp_size j = 0; j < u->tk; j += BP_KEYS) BP_NAME(backward_block)(s, u, index, j, scratch);
        if (u->dk) BP_NAME(clear)((BP_REAL *)u->dk, s->dk_row, u->tk, u->keys, s->d);
        if (u->dv) BP_NAME(clear)((BP_REAL *)u->dv, s->dv_row, u->tk, u->keys, s->dv);
    }
    bp_attention_give(scratch, bytes);
}

#undef BP_INF
#undef BP_MIN
#undef BP_MAX
#undef tile_at
#undef row_at
