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

/* Few outputs would leave most of a vector empty: then places lie along it, and every product is summed up at the end. Vectors
 * reach beyond rows, so all of the planes must be laid out: a whole image, and no step that leaves rows out. */
static int BP_NAME(weight_by_dots)(const bp_conv *g, const bp_box *box) {
    const bp_size w = box->count[2], vectors = (w + BP_VL - 1) / BP_VL;
    for (int a = 0; a < 3; a++)
        if (g->step[a] != 1 || box->count[a] != g->out[a]) return 0;
    return 2 * g->outputs <= BP_VL && vectors * BP_VL * g->outputs <= w * BP_VL;
}

#if BP_MR == 12
#define BP_DOTS_O 3
#else
#define BP_DOTS_O 2
#endif

/* sum[i][j] += sum over rows of dy[i] x[j] for m outputs, dy_step apart, and n taps, x_step apart. */
BP_INLINE void BP_NAME(weight_dots)(const int m, const int n, BP_REAL *sum, bp_size so, bp_size st, const BP_REAL *dy,
                                    bp_size dy_step, const BP_REAL *x, bp_size x_step, const bp_size *place, bp_size rows,
                                    bp_size width) {
#ifdef BP_VECTORS
    vec acc[BP_DOTS_O][5];
    BP_UNROLL for (int i = 0; i < m; i++)
        BP_UNROLL for (int j = 0; j < n; j++) acc[i][j] = (vec){0};
    for (bp_size r = 0; r < rows; r++)
        for (bp_size q = 0; q < width; q += BP_VL) {
            vec d[BP_DOTS_O];
            BP_UNROLL for (int i = 0; i < m; i++) d[i] = *(const vecu *)(dy + i * dy_step + r * width + q);
            BP_UNROLL for (int j = 0; j < n; j++) {
                vec at = *(const vecu *)(x + place[r] + q + j * x_step);
                BP_IN_REGISTER(at);
                BP_UNROLL for (int i = 0; i < m; i++) acc[i][j] += d[i] * at;
            }
        }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            BP_REAL lanes[BP_WIDTH / sizeof(BP_REAL)] __attribute__((aligned(BP_WIDTH))), total = 0;
            *(vec *)lanes = acc[i][j];
            BP_SIMD_SUM(total) for (int l = 0; l < BP_VL; l++) total += lanes[l];
            sum[i * so + j * st] += total;
        }
#else
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            for (bp_size r = 0; r < rows; r++)
                for (bp_size q = 0; q < width; q++)
                    sum[i * so + j * st] += dy[i * dy_step + r * width + q] * x[place[r] + q + j * x_step];
#endif
}

#define BP_DOTS(m, n) \
    case 8 * m + n: BP_NAME(weight_dots)(m, n, sum, so, st, dy, dy_step, x, x_step, place, rows, width); break;
static void BP_NAME(weight_dots_of)(int m, int n, BP_REAL *sum, bp_size so, bp_size st, const BP_REAL *dy, bp_size dy_step,
                                    const BP_REAL *x, bp_size x_step, const bp_size *place, bp_size rows, bp_size width) {
    switch (8 * m + n) {
        BP_DOTS(1, 1) BP_DOTS(1, 2) BP_DOTS(1, 3) BP_DOTS(1, 4) BP_DOTS(1, 5)
        BP_DOTS(2, 1) BP_DOTS(2, 2) BP_DOTS(2, 3) BP_DOTS(2, 4) BP_DOTS(2, 5)
#if BP_DOTS_O == 3
        BP_DOTS(3, 1) BP_DOTS(3, 2) BP_DOTS(3, 3) BP_DOTS(3, 4) BP_DOTS(3, 5)
#endif
    }
}

/* scratch: where rows begin in the planes, dy with its rows rounded up to whole vectors by zeros, the planes. */
static void BP_NAME(conv_weight_dots)(const bp_conv *g, const bp_box *box, const BP_REAL *dy, BP_REAL *sum, bp_size c0, bp_size c1,
                                      BP_REAL *scratch) {
    const bp_size width = (box->count[2] + BP_VL - 1) / BP_VL * BP_VL, wide = BP_NAME(conv_weight_width)(g->outputs);
    const bp_size rows = (box->image1 - box->image0) * box->count[0] * box->count[1], row = g->taps[2];
    const bp_size taps = g->taps[0] * g->taps[1] * row, ld = g->whole[0] * g->whole[1] * g->whole[2];
    bp_size *place = (bp_size *)scratch;
    BP_REAL *padded = scratch + (rows * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + BP_VL - 1) / BP_VL * BP_VL;
    BP_REAL *planes = padded + g->outputs * rows * width;
    const bp_size size = (box->image1 - box->image0 - 1) * g->image + (c1 - c0) * g->plane;
    BP_NAME(conv_planes)(g, box, c0, c1, planes);
    for (bp_size i = 0; i < 2 * BP_VL; i++) planes[size + i] = 0; /* read beyond the last row, times zero */
    for (bp_size r = 0; r < rows; r++) {
        const BP_REAL *from = dy + BP_NAME(row_out)(g, box, r);
        place[r] = BP_NAME(row_in)(g, box, r);
        for (bp_size o = 0; o < g->outputs; o++) {
            BP_REAL *to = padded + (o * rows + r) * width;
            for (bp_size j = width - BP_VL; j < width; j++) to[j] = 0;
            for (bp_size j = 0; j < box->count[2]; j++) to[j] = from[o * ld + j];
        }
    }
    if (c0 == 0 && g->bias)
        for (bp_size o = 0; o < g->outputs; o++) {
            BP_REAL total = 0;
            BP_SIMD_SUM(total) for (bp_size j = 0; j < rows * width; j++) total += padded[o * rows * width + j];
            sum[g->k * wide + o] += total;
        }
    for (bp_size o = 0; o < g->outputs; o += BP_DOTS_O) {
        const int m = g->outputs - o < BP_DOTS_O ? (int)(g->outputs - o) : BP_DOTS_O;
        for (bp_size c = c0; c < c1; c++)
            for (bp_size t = 0, n; t < taps; t += n) {
                n = row - t % row < 5 ? row - t % row : 5; /* neighboring taps of a row */
                BP_NAME(weight_dots_of)(m, (int)n, sum + (c * taps + t) * wide + o, 1, wide, padded + o * rows * width,
                                        rows * width, planes + (c - c0) * g->plane + g->offset[t],
                                        row > 1 ? g->offset[1] - g->offset[0] : 0, place, rows, width);
            }
    }
}

static bp_size BP_NAME(conv_weight_scratch)(const bp_conv *g, const bp_box *box, bp_size channels) {
    const bp_size all = (box->image1 - box->image0) * box->count[0] * box->count[1] * box->count[2];
    const bp_size table = (all * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + BP_VL - 1) / BP_VL * BP_VL;
    const bp_size planes = BP_NAME(conv_planes_size)(g, box, channels) + 4 * BP_VL;
    if (BP_NAME(weight_by_dots)(g, box)) return table + BP_VL + all / box->count[2] * (box->count[2] + BP_VL) * g->outputs + planes;
    return table + all * BP_NAME(conv_weight_width)(g->outputs) + (g->in_place ? 0 : planes);
}

static void BP_NAME(conv_weight_box)(const bp_conv *g, const bp_box *box, const BP_REAL *dy, BP_REAL *sum, bp_size c0, bp_size c1,
                                     BP_REAL *scratch) {
    if (BP_NAME(weight_by_dots)(g, box)) {
        BP_NAME(conv_weight_dots)(g, box, dy + (box->image0 * g->groups + box->group) * g->outputs * g->whole[0] * g->whole[1] * g->whole[2],
                                  sum, c0, c1, scratch);
        return;
    }
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

#undef BP_DOTS
#undef BP_DOTS_O
#undef BP_PAIRS
#undef BP_PIXELS_OUT
#undef BP_CONV_TILE
#undef BP_CONV_TILES
#undef BP_CONV_TABLE
#undef BP_CONV_PAIR
#include "vectors_end.h"
