/* Convolution as a product that never sees its matrix: y[o][s] = sum_p w[o][p] x[off[p] + s], where p runs over channels and
 * taps and s over places ("implicit GEMM"). Input is read from planes (conv_planes.h). Three forms, chosen by shape:
 *
 *     BP_ALONG_PIXELS    vectors of neighboring places, outputs in rows: few outputs, wide images
 *     BP_ALONG_OUTPUTS   vectors of outputs, neighboring places in rows; written back transposed: narrow images
 *     BP_GATHERED        the same with places from several rows and images gathered first: images of a few pixels
 *     BP_UNPACKED        vectors of gathered places, outputs in rows whose weights are read where they lie: too few places in
 *                        all to be worth packing the weights
 *
 * All of them add up in the order of p, so that an element has the same bits in each.
 */
#include "vectors.h"
#include "pack_panel.h"
#include "conv_tile.h"
#include "conv_planes.h"

/* --- weights, packed once a call -------------------------------------------------------------------------------------------- */

static bp_size BP_NAME(conv_tiles)(bp_size outputs, int form) {
    const bp_size unit = form == BP_ALONG_PIXELS || form == BP_UNPACKED ? BP_MR : BP_NR;
    return (outputs + unit - 1) / unit;
}

static bp_size BP_NAME(conv_packed_size)(bp_size k, bp_size outputs, int form) {
    if (form == BP_UNPACKED) return 0;
    return k * (form == BP_ALONG_PIXELS ? outputs : (outputs + BP_VL - 1) / BP_VL * BP_VL);
}

/* Outputs o to o1 of tile t. */
BP_INLINE bp_size BP_NAME(conv_tile_at)(bp_size outputs, bp_size t, bp_size tiles, int form) {
    if (form == BP_ALONG_PIXELS) return outputs * t / tiles;
    return t * BP_NR < outputs ? t * BP_NR : outputs;
}

/* Tiles t0 to t1: for each its k steps (rows of taps, channels, taps of a row), at each of them the weights of its outputs; along
 * outputs rounded up to whole vectors by zeros. Four outputs of a few channels at a time: distances between outputs may be
 * multiples of 4096 bytes, and what is written stays in the first cache. */
static void BP_NAME(conv_pack)(BP_REAL *out, const BP_REAL *w, bp_size so, bp_size sc, const bp_size *tap, const bp_conv *g,
                               bp_size t0, bp_size t1) {
    const bp_size tiles = BP_NAME(conv_tiles)(g->outputs, g->form), row = g->taps[2], taps = g->taps[0] * g->taps[1] * row;
    for (bp_size t = t0; t < t1; t++) {
        const bp_size o = BP_NAME(conv_tile_at)(g->outputs, t, tiles, g->form);
        const bp_size m = BP_NAME(conv_tile_at)(g->outputs, t + 1, tiles, g->form) - o;
        const bp_size width = g->form == BP_ALONG_PIXELS ? m : BP_PANEL(m);
        BP_REAL *to = out + o * g->k;
        for (bp_size c0 = 0; c0 < g->channels; c0 += 16) {
            const bp_size c1 = g->channels - c0 < 16 ? g->channels : c0 + 16;
            for (bp_size i = 0; i < width; i += 4) {
                const bp_size n = width - i < 4 ? width - i : 4, have = m - i < n ? m - i : n;
                for (bp_size c = c0; c < c1; c++)
                    for (bp_size q = 0; q < taps; q++) {
                        const BP_REAL *in = w + (o + i) * so + c * sc + tap[q];
                        BP_REAL *at = to + ((q / row * g->channels + c) * row + q % row) * width + i;
                        if (have == 4)
                            at[0] = in[0], at[1] = in[so], at[2] = in[2 * so], at[3] = in[3 * so];
                        else
                            for (bp_size j = 0; j < n; j++) at[j] = j < have ? in[j * so] : 0;
                    }
            }
        }
    }
}

/* --- forward ---------------------------------------------------------------------------------------------------------------- */

/* The k steps p0 to p1 that row r of a box needs: those of taps that see rows of x. Steps come row of taps after row of taps. */
BP_INLINE void BP_NAME(steps_of_row)(const bp_conv *g, const bp_box *box, bp_size r, bp_size *p0, bp_size *p1) {
    const bp_size y = (box->first[1] + r % box->count[1]) * g->step[1], rows = g->taps[1];
    bp_size first = 0, last = rows;
    if (g->taps[0] > 1) return;
    while (first < last && (y + g->tap_row[first] < 0 || y + g->tap_row[first] >= g->in[1])) first++;
    while (last > first && (y + g->tap_row[last - 1] < 0 || y + g->tap_row[last - 1] >= g->in[1])) last--;
    if (first * (g->k / rows) < *p0) *p0 = first * (g->k / rows);
    if (last * (g->k / rows) > *p1) *p1 = last * (g->k / rows);
}

/* A few pairs of vectors at a time against all outputs: what is read stays in the first cache, and y is written in long runs. */
#define BP_PAIRS 8

static void BP_NAME(along_pixels)(const bp_conv *g, const bp_box *box, const BP_REAL *x, BP_REAL *y, const BP_REAL *w,
                                  const BP_REAL *bias) {
    const bp_size rows = (box->image1 - box->image0) * box->count[0] * box->count[1], width = box->count[2];
    const bp_size vectors = (width + BP_VL - 1) / BP_VL, all = rows * vectors;
    const bp_size tiles = BP_NAME(conv_tiles)(g->outputs, g->form);
    const bp_size ld = g->whole[0] * g->whole[1] * g->whole[2];
    const BP_REAL *at[2 * BP_PAIRS];
    bp_size to[2 * BP_PAIRS], n[2 * BP_PAIRS], p0[BP_PAIRS], p1[BP_PAIRS];
    for (bp_size first = 0; first < all; first += 2 * BP_PAIRS) {
        const bp_size count = all - first < 2 * BP_PAIRS ? all - first : 2 * BP_PAIRS;
        for (bp_size i = 0; i < count; i++) {
            const bp_size r = (first + i) / vectors, j = (first + i) % vectors * BP_VL;
            at[i] = x + BP_NAME(row_in)(g, box, r) + j;
            to[i] = BP_NAME(row_out)(g, box, r) + j * g->spread[2];
            n[i] = width - j < BP_VL ? width - j : BP_VL;
            if (i % 2 == 0) p0[i / 2] = g->taps[0] > 1 ? 0 : g->k, p1[i / 2] = g->taps[0] > 1 ? g->k : 0;
            BP_NAME(steps_of_row)(g, box, r, p0 + i / 2, p1 + i / 2);
        }
        for (bp_size t = box->tile0; t < box->tile1; t++) {
            const bp_size o = g->outputs * t / tiles, m = g->outputs * (t + 1) / tiles - o;
            for (bp_size i = 0; i < count; i += 2) {
                const int nv = i + 1 < count ? 2 : 1;
                const bp_size p = p0[i / 2], k = p1[i / 2] > p ? p1[i / 2] - p : 0;
                const BP_PIXELS_OUT out = {{y + to[i] + o * ld, nv == 2 ? y + to[i + 1] + o * ld : NULL},
                                           {n[i], nv == 2 ? n[i + 1] : 0}, ld, g->spread[2], bias ? bias + o : NULL};
                BP_NAME(pixels)[m][nv](k, w + o * g->k + p * m, at[i], nv == 2 ? at[i + 1] : NULL, g->offset + p, &out);
            }
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
            bp_size p0 = g->taps[0] > 1 ? 0 : g->k, p1 = g->taps[0] > 1 ? g->k : 0;
            BP_NAME(steps_of_row)(g, box, r, &p0, &p1);
            if (p0 > p1) p0 = p1 = 0;
            for (bp_size q = 0; q < parts; q++) {
                const bp_size j = width * q / parts, m = width * (q + 1) / parts - j;
                BP_NAME(unit_rows)[m][wide / BP_VL](p1 - p0, at + j, g->offset + p0, 1, w + o * g->k + p0 * wide, acc, wide, 1);
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

static void BP_NAME(unpacked)(const bp_conv *g, const bp_box *box, const BP_REAL *x, BP_REAL *y, const BP_REAL *w,
                              const BP_REAL *bias, BP_REAL *panels) {
    const bp_size width = box->count[2], all = (box->image1 - box->image0) * box->count[0] * box->count[1] * width, k = g->k;
    const bp_size tiles = BP_NAME(conv_tiles)(g->outputs, g->form), ld = g->whole[0] * g->whole[1] * g->whole[2];
    BP_REAL acc[BP_MR * BP_WIDTH / sizeof(BP_REAL) * 2];
    for (bp_size s = 0; s < all; s += BP_NR) {
        const bp_size n = all - s < BP_NR ? all - s : BP_NR, wide = BP_PANEL(n);
        const BP_REAL *at[BP_WIDTH / sizeof(BP_REAL) * 2];
        for (bp_size j = 0; j < wide; j++) { /* the last place again where there are no more */
            const bp_size i = s + (j < n ? j : n - 1);
            at[j] = x + BP_NAME(row_in)(g, box, i / width) + i % width;
        }
        for (bp_size p = 0; p < k; p++)
            for (bp_size j = 0; j < wide; j++) panels[s * k + p * wide + j] = at[j][g->offset[p]];
    }
    for (bp_size t = box->tile0; t < box->tile1; t++) {
        const bp_size o = g->outputs * t / tiles, m = g->outputs * (t + 1) / tiles - o;
        for (bp_size s = 0; s < all; s += BP_NR) {
            const bp_size n = all - s < BP_NR ? all - s : BP_NR, wide = BP_PANEL(n);
            BP_NAME(rows)[m][wide / BP_VL](k, w + o * g->weight_row, g->weight_offset, g->weight_row, panels + s * k, acc, wide, 1);
            for (bp_size j = 0; j < n; j++) {
                BP_REAL *to = y + BP_NAME(row_out)(g, box, (s + j) / width) + (s + j) % width * g->spread[2] + o * ld;
                for (bp_size i = 0; i < m; i++) to[i * ld] = acc[i * wide + j] + (bias ? bias[o + i] : 0);
            }
        }
    }
}

static bp_size BP_NAME(conv_scratch)(const bp_conv *g, const bp_box *box) {
    bp_size n = g->in_place ? 0 : BP_NAME(conv_planes_size)(g, box, g->channels);
    const bp_size all = (box->image1 - box->image0) * box->count[0] * box->count[1] * box->count[2];
    if (g->form == BP_UNPACKED) n += (all + BP_NR - 1) / BP_NR * BP_NR * g->k;
    if (g->form == BP_GATHERED) {
        n += g->k * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + (all + BP_MR - 1) / BP_MR * BP_MR * g->k;
    }
    return n;
}

static void BP_NAME(conv_box)(const bp_conv *g, const bp_box *box, BP_REAL *scratch) {
    const BP_REAL *x = BP_NAME(conv_input)(g, box, 0, g->channels, scratch);
    const BP_REAL *w = (const BP_REAL *)g->weight + box->group * g->weight_step;
    const BP_REAL *bias = g->bias ? (const BP_REAL *)g->bias + box->group * g->outputs : NULL;
    BP_REAL *beyond = scratch + (g->in_place ? 0 : BP_NAME(conv_planes_size)(g, box, g->channels));
    BP_REAL *y = (BP_REAL *)g->y + (box->image0 * g->groups + box->group) * g->outputs * g->whole[0] * g->whole[1] * g->whole[2];
    if (g->form == BP_ALONG_PIXELS)
        BP_NAME(along_pixels)(g, box, x, y, w, bias);
    else if (g->form == BP_ALONG_OUTPUTS)
        BP_NAME(along_outputs)(g, box, x, y, w, bias);
    else if (g->form == BP_GATHERED)
        BP_NAME(gathered)(g, box, x, y, w, bias, beyond);
    else
        BP_NAME(unpacked)(g, box, x, y, w, bias, beyond);
}

#include "conv_weight.h"
#include "conv_depthwise.h"
#include "winograd.h"

static int BP_NAME(conv_vector)(void) { return (int)BP_VL; }
static int BP_NAME(conv_rows)(void) { return BP_MR; }

#undef BP_PAIRS
#undef BP_PIXELS_OUT
#undef BP_CONV_TILE
#undef BP_CONV_TILES
#undef BP_CONV_TABLE
#undef BP_CONV_PAIR
#include "vectors_end.h"
