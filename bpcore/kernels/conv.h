/* Convolution as a product that never sees its matrix: y[o][s] = sum_p w[o][p] x[off[p] + s], where p runs over channels and
 * taps and s over places ("implicit GEMM"). Input is read from planes (conv_planes.h). Three forms, chosen by shape:
 *
 *     BP_ALONG_PIXELS    vectors of neighboring places, outputs in rows: few outputs, wide images
 *     BP_ALONG_OUTPUTS   vectors of outputs, neighboring places in rows; written back transposed: narrow images
 *     BP_GATHERED        the same with places from several rows and images gathered first: images of a few pixels
 *
 * All of them add up in the order of p, so that an element has the same bits in each.
 */
#include "vectors.h"
#include "pack_panel.h"
#include "conv_tile.h"
#include "conv_planes.h"

/* --- weights, packed once a call -------------------------------------------------------------------------------------------- */

static bp_size BP_NAME(conv_tiles)(bp_size outputs, int form) {
    const bp_size unit = form == BP_ALONG_PIXELS ? BP_MR : BP_NR;
    return (outputs + unit - 1) / unit;
}

static bp_size BP_NAME(conv_packed_size)(bp_size k, bp_size outputs, int form) {
    return k * (form == BP_ALONG_PIXELS ? outputs : (outputs + BP_VL - 1) / BP_VL * BP_VL);
}

/* Outputs o to o1 of tile t. */
BP_INLINE bp_size BP_NAME(conv_tile_at)(bp_size outputs, bp_size t, bp_size tiles, int form) {
    if (form == BP_ALONG_PIXELS) return outputs * t / tiles;
    return t * BP_NR < outputs ? t * BP_NR : outputs;
}

/* For each tile its k steps, at each of them the weights of its outputs; along outputs rounded up to whole vectors by zeros. */
static void BP_NAME(conv_pack)(BP_REAL *out, const BP_REAL *w, bp_size so, bp_size sc, const bp_size *tap, bp_size taps,
                               bp_size channels, bp_size outputs, int form) {
    const bp_size tiles = BP_NAME(conv_tiles)(outputs, form);
    for (bp_size t = 0; t < tiles; t++) {
        const bp_size o = BP_NAME(conv_tile_at)(outputs, t, tiles, form);
        const bp_size m = BP_NAME(conv_tile_at)(outputs, t + 1, tiles, form) - o;
        const bp_size width = form == BP_ALONG_PIXELS ? m : BP_PANEL(m);
        for (bp_size c = 0; c < channels; c++)
            for (bp_size q = 0; q < taps; q++, out += width) {
                const BP_REAL *in = w + o * so + c * sc + tap[q];
                for (bp_size i = 0; i < m; i++) out[i] = in[i * so];
                for (bp_size i = m; i < width; i++) out[i] = 0;
            }
    }
}

/* --- forward ---------------------------------------------------------------------------------------------------------------- */

static void BP_NAME(along_pixels)(const bp_conv *g, const bp_box *box, const BP_REAL *x, BP_REAL *y, const BP_REAL *w,
                                  const BP_REAL *bias) {
    const bp_size rows = (box->image1 - box->image0) * box->count[0] * box->count[1], width = box->count[2];
    const bp_size vectors = (width + BP_VL - 1) / BP_VL, all = rows * vectors;
    const bp_size tiles = BP_NAME(conv_tiles)(g->outputs, g->form);
    const bp_size ld = g->whole[0] * g->whole[1] * g->whole[2];
    for (bp_size i = 0; i < all; i += 2) {
        const int nv = i + 1 < all ? 2 : 1;
        const BP_REAL *at[2] = {x, x};
        bp_size to[2] = {0, 0};
        BP_PIXELS_OUT out = {{NULL, NULL}, {0, 0}, ld, g->spread[2], NULL};
        for (int v = 0; v < nv; v++) {
            const bp_size r = (i + v) / vectors, j = (i + v) % vectors * BP_VL;
            at[v] = x + BP_NAME(row_in)(g, box, r) + j;
            to[v] = BP_NAME(row_out)(g, box, r) + j * g->spread[2];
            out.n[v] = width - j < BP_VL ? width - j : BP_VL;
        }
        for (bp_size t = box->tile0; t < box->tile1; t++) {
            const bp_size o = g->outputs * t / tiles, m = g->outputs * (t + 1) / tiles - o;
            for (int v = 0; v < nv; v++) out.y[v] = y + to[v] + o * ld;
            if (bias) out.bias = bias + o;
            BP_NAME(pixels)[m][nv](g->k, w + o * g->k, at[0], at[1], g->offset, &out);
        }
    }
}

/* acc[m places][width outputs] + bias to y[outputs][places], n outputs ld apart. */
static void BP_NAME(turn_out)(BP_REAL *y, bp_size ld, bp_size spread, const BP_REAL *acc, bp_size width, bp_size m, bp_size n,
                              const BP_REAL *bias) {
    bp_size i0 = 0;
#ifdef BP_VECTORS
    if (spread == 1) { /* four outputs at a time: more of them may lie a multiple of 4096 bytes apart and evict each other */
        const bp_size n4 = n / BP_Q * BP_Q;
        i0 = m / BP_Q * BP_Q;
        for (bp_size j = 0; j < n4; j += BP_Q)
            for (bp_size i = 0; i < i0; i += BP_Q) {
                BP_REAL block[4 * 4] __attribute__((aligned(16)));
                BP_NAME(transpose_block)(block, BP_Q, acc + i * width + j, width);
                for (bp_size q = 0; q < BP_Q; q++)
                    *(quadu *)(y + (j + q) * ld + i) = *(const quad *)(block + q * BP_Q) + (bias ? bias[j + q] : 0);
            }
        for (bp_size j = n4; j < n; j++)
            for (bp_size i = 0; i < i0; i++) y[j * ld + i] = acc[i * width + j] + (bias ? bias[j] : 0);
    }
#endif
    for (bp_size j = 0; j < n; j++)
        for (bp_size i = i0; i < m; i++) y[j * ld + i * spread] = acc[i * width + j] + (bias ? bias[j] : 0);
}

static void BP_NAME(along_outputs)(const bp_conv *g, const bp_box *box, const BP_REAL *x, BP_REAL *y, const BP_REAL *w,
                                   const BP_REAL *bias) {
    const bp_size rows = (box->image1 - box->image0) * box->count[0] * box->count[1], width = box->count[2];
    const bp_size parts = (width + BP_MR - 1) / BP_MR, ld = g->whole[0] * g->whole[1] * g->whole[2];
    BP_REAL acc[BP_MR * BP_WIDTH / sizeof(BP_REAL) * 2];
    for (bp_size t = box->tile0; t < box->tile1; t++) {
        const bp_size o = t * BP_NR, n = g->outputs - o < BP_NR ? g->outputs - o : BP_NR, wide = BP_PANEL(n);
        for (bp_size r = 0; r < rows; r++) {
            const BP_REAL *at = x + BP_NAME(row_in)(g, box, r);
            BP_REAL *to = y + BP_NAME(row_out)(g, box, r) + o * ld;
            for (bp_size q = 0; q < parts; q++) {
                const bp_size j = width * q / parts, m = width * (q + 1) / parts - j;
                BP_NAME(unit_rows)[m][wide / BP_VL](g->k, at + j, g->offset, 1, w + o * g->k, acc, wide, 1);
                BP_NAME(turn_out)(to + j * g->spread[2], ld, g->spread[2], acc, wide, m, n, bias ? bias + o : NULL);
            }
        }
    }
}

static void BP_NAME(gathered)(const bp_conv *g, const bp_box *box, const BP_REAL *x, BP_REAL *y, const BP_REAL *w,
                              const BP_REAL *bias, BP_REAL *scratch) {
    const bp_size width = box->count[2], all = (box->image1 - box->image0) * box->count[0] * box->count[1] * width;
    const bp_size parts = (all + BP_MR - 1) / BP_MR, ld = g->whole[0] * g->whole[1] * g->whole[2], k = g->k;
    BP_REAL acc[BP_MR * BP_WIDTH / sizeof(BP_REAL) * 2];
    bp_size *step = (bp_size *)scratch; /* off[p] of gathered rows */
    BP_REAL *rows = scratch + k * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL));
    for (bp_size p = 0; p < k; p++) step[p] = p * BP_MR;
    for (bp_size q = 0; q < parts; q++)
        for (bp_size i = all * q / parts, j = 0; i < all * (q + 1) / parts; i++, j++) {
            const BP_REAL *at = x + BP_NAME(row_in)(g, box, i / width) + i % width;
            for (bp_size p = 0; p < k; p++) rows[(q * k + p) * BP_MR + j] = at[g->offset[p]];
        }
    for (bp_size t = box->tile0; t < box->tile1; t++) {
        const bp_size o = t * BP_NR, n = g->outputs - o < BP_NR ? g->outputs - o : BP_NR, wide = BP_PANEL(n);
        for (bp_size q = 0; q < parts; q++) {
            const bp_size i0 = all * q / parts, m = all * (q + 1) / parts - i0;
            BP_NAME(unit_rows)[m][wide / BP_VL](k, rows + q * k * BP_MR, step, 1, w + o * k, acc, wide, 1);
            for (bp_size i = i0, j; i < i0 + m; i += j) { /* the places of one row at a time */
                j = width - i % width < i0 + m - i ? width - i % width : i0 + m - i;
                BP_NAME(turn_out)(y + BP_NAME(row_out)(g, box, i / width) + i % width * g->spread[2] + o * ld, ld, g->spread[2],
                                  acc + (i - i0) * wide, wide, j, n, bias ? bias + o : NULL);
            }
        }
    }
}

static bp_size BP_NAME(conv_scratch)(const bp_conv *g, const bp_box *box) {
    bp_size n = g->in_place ? 0 : BP_NAME(conv_planes_size)(g, box, g->channels);
    if (g->form == BP_GATHERED) {
        const bp_size all = (box->image1 - box->image0) * box->count[0] * box->count[1] * box->count[2];
        n += g->k * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + (all + BP_MR - 1) / BP_MR * BP_MR * g->k;
    }
    return n;
}

static void BP_NAME(conv_box)(const bp_conv *g, const bp_box *box, BP_REAL *scratch) {
    const BP_REAL *x = BP_NAME(conv_input)(g, box, 0, g->channels, scratch);
    const BP_REAL *w = (const BP_REAL *)g->weight + box->group * g->weight_step;
    const BP_REAL *bias = g->bias ? (const BP_REAL *)g->bias + box->group * g->outputs : NULL;
    BP_REAL *y = (BP_REAL *)g->y + (box->image0 * g->groups + box->group) * g->outputs * g->whole[0] * g->whole[1] * g->whole[2];
    if (g->form == BP_ALONG_PIXELS)
        BP_NAME(along_pixels)(g, box, x, y, w, bias);
    else if (g->form == BP_ALONG_OUTPUTS)
        BP_NAME(along_outputs)(g, box, x, y, w, bias);
    else
        BP_NAME(gathered)(g, box, x, y, w, bias, scratch + (g->in_place ? 0 : BP_NAME(conv_planes_size)(g, box, g->channels)));
}

/* --- the gradient of the weight --------------------------------------------------------------------------------------------- */

/* sum[c t][o] += sum_s x[c, s step + tap[t]] dy[o, s]: dy is transposed once, outputs lie along vectors, and the rows of a tile
 * are channels, or neighboring taps where the input has too few channels. */
/* sum[width] += the rows of b, four at a time to hide the latency of an addition. */
static void BP_NAME(add_columns)(BP_REAL *sum, const BP_REAL *b, bp_size rows, bp_size width) {
#ifdef BP_VECTORS
    for (bp_size j = 0; j < width; j += BP_VL) {
        vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        bp_size i = 0;
        for (; i + 4 <= rows; i += 4) {
            const BP_REAL *at = b + i * width + j;
            s0 += *(const vecu *)at;
            s1 += *(const vecu *)(at + width);
            s2 += *(const vecu *)(at + 2 * width);
            s3 += *(const vecu *)(at + 3 * width);
        }
        for (; i < rows; i++) s0 += *(const vecu *)(b + i * width + j);
        *(vecu *)(sum + j) += (s0 + s1) + (s2 + s3);
    }
#else
    for (bp_size i = 0; i < rows; i++)
        for (bp_size j = 0; j < width; j++) sum[j] += b[i * width + j];
#endif
}

static bp_size BP_NAME(conv_weight_width)(bp_size outputs) { return (outputs + BP_VL - 1) / BP_VL * BP_VL; }

static bp_size BP_NAME(conv_weight_scratch)(const bp_conv *g, const bp_box *box, bp_size channels) {
    const bp_size all = (box->image1 - box->image0) * box->count[0] * box->count[1] * box->count[2];
    const bp_size table = (all * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + BP_VL - 1) / BP_VL * BP_VL;
    return table + all * BP_NAME(conv_weight_width)(g->outputs) +
           (g->in_place ? 0 : BP_NAME(conv_planes_size)(g, box, channels));
}

static void BP_NAME(conv_weight_box)(const bp_conv *g, const bp_box *box, const BP_REAL *dy, BP_REAL *sum, bp_size c0, bp_size c1,
                                     BP_REAL *scratch) {
    const bp_size width = box->count[2], rows = (box->image1 - box->image0) * box->count[0] * box->count[1], all = rows * width;
    const bp_size ld = g->whole[0] * g->whole[1] * g->whole[2], wide = BP_NAME(conv_weight_width)(g->outputs);
    const bp_size taps = g->taps[0] * g->taps[1] * g->taps[2];
    bp_size *place = (bp_size *)scratch;
    BP_REAL *turned = scratch + (all * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + BP_VL - 1) / BP_VL * BP_VL;
    const BP_REAL *x = BP_NAME(conv_input)(g, box, c0, c1, turned + all * wide);
    dy += (box->image0 * g->groups + box->group) * g->outputs * ld;
    /* Rows that follow each other in dy are turned in one go. */
    const bp_size together = width == g->whole[2] ? (box->count[1] == g->whole[1] ? box->count[0] * box->count[1] : box->count[1]) : 1;
    for (bp_size r = 0; r < rows; r++)
        for (bp_size j = 0, at = BP_NAME(row_in)(g, box, r); j < width; j++) place[r * width + j] = at + j;
    for (bp_size o = 0; o < g->outputs; o += BP_NR) {
        const bp_size n = g->outputs - o < BP_NR ? g->outputs - o : BP_NR, panel = BP_PANEL(n);
        BP_REAL *b = turned + o * all;
        for (bp_size r = 0; r < rows; r += together) {
            const BP_REAL *from = dy + BP_NAME(row_out)(g, box, r) + o * ld;
            if (panel == BP_VL)
                BP_NAME(pack_panel)(b + r * width * panel, BP_VL, from, ld, 1, n, together * width);
            else
                BP_NAME(pack_panel)(b + r * width * panel, BP_NR, from, ld, 1, n, together * width);
        }
        if (c0 == 0 && g->bias) BP_NAME(add_columns)(sum + g->k * wide + o, b, all, panel);
        /* Which axis the rows of a tile run along: channels, or the taps of the last or the middle axis. */
        const bp_size channels = c1 - c0, w = g->step[2] == 1 ? g->taps[2] : 1, h = g->taps[1];
        const bp_size most = channels >= BP_MR / 2 || (channels >= w && channels >= h) ? 0 : w >= h ? 2 : 1;
        const bp_size run = most == 0 ? channels : most == 2 ? w : h, parts = (run + BP_MR - 1) / BP_MR;
        const bp_size between = most == 0 ? taps : most == 2 ? 1 : g->taps[2];                 /* rows of sum */
        const bp_size rs = most == 0 ? g->plane : run > 1 ? g->offset[between] - g->offset[0] : 0;
        for (bp_size q = 0; q < parts; q++) {
            const bp_size i = run * q / parts, m = run * (q + 1) / parts - i;
            for (bp_size c = c0; c < c1; c += most == 0 ? channels : 1)
                for (bp_size t = 0; t < taps; t++) {
                    if ((most == 2 && t % g->taps[2]) || (most == 1 && t / g->taps[2] % h)) continue;
                    BP_NAME(rows)[m][panel / BP_VL](all, x + (c - c0) * g->plane + g->offset[t] + i * rs, place, rs, b,
                                                    sum + (c * taps + t + i * between) * wide + o, between * wide, 0);
                }
        }
    }
}

/* dw[o][p] and db[o] for p0 <= p < p1 (p = k is the bias): the total of `parts` sums that lie `step` apart, in their order. */
static void BP_NAME(conv_weight_finish)(BP_REAL *dw, BP_REAL *db, const BP_REAL *sum, bp_size step, bp_size parts, bp_size k,
                                        bp_size outputs, bp_size p0, bp_size p1) {
    const bp_size wide = BP_NAME(conv_weight_width)(outputs);
    for (bp_size p = p0; p < p1; p += 16) {
        const bp_size rows = p1 - p < 16 ? p1 - p : 16;
        for (bp_size o = 0; o < outputs; o += 16) {
            const bp_size cols = outputs - o < 16 ? outputs - o : 16;
            BP_REAL block[16][16];
            for (bp_size i = 0; i < rows; i++) {
                const BP_REAL *in = sum + (p + i) * wide + o;
                for (bp_size j = 0; j < cols; j++) block[i][j] = in[j];
                for (bp_size q = 1; q < parts; q++)
                    for (bp_size j = 0; j < cols; j++) block[i][j] += in[q * step + j];
            }
            for (bp_size j = 0; j < cols; j++)
                for (bp_size i = 0; i < rows; i++)
                    if (p + i < k)
                        dw[(o + j) * k + p + i] = block[i][j];
                    else if (db)
                        db[o + j] = block[i][j];
        }
    }
}

#include "conv_depthwise.h"
#include "winograd.h"

static int BP_NAME(conv_vector)(void) { return (int)BP_VL; }
static int BP_NAME(conv_rows)(void) { return BP_MR; }

#undef BP_PIXELS_OUT
#undef BP_CONV_TILE
#undef BP_CONV_TILES
#undef BP_CONV_TABLE
#undef BP_CONV_PAIR
#include "vectors_end.h"
