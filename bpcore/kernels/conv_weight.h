/* The gradient of a convolution's weight: sum[c t][o] += sum_s x[c, s step + tap[t]] dy[o, s] over the places s of a box.
 *
 * dy is transposed once, outputs lie along vectors, and the rows of a tile are channels, or neighboring taps where the input has
 * too few channels. Few outputs would leave the vectors empty: then places lie along them.
 */

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
static void BP_NAME(conv_weight_dots)(const bp_conv *g, const bp_box *box, const BP_REAL *dy, BP_REAL *sum, bp_size c0,
                                      bp_size c1, BP_REAL *scratch) {
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
    if (BP_NAME(weight_by_dots)(g, box))
        return table + BP_VL + all / box->count[2] * (box->count[2] + BP_VL) * g->outputs + planes;
    return table + all * BP_NAME(conv_weight_width)(g->outputs) + (g->in_place ? 0 : planes);
}

static void BP_NAME(conv_weight_tiles)(const bp_conv *g, const bp_box *box, const BP_REAL *dy, BP_REAL *sum, bp_size c0,
                                       bp_size c1, BP_REAL *scratch) {
    const bp_size width = box->count[2], rows = (box->image1 - box->image0) * box->count[0] * box->count[1], all = rows * width;
    const bp_size ld = g->whole[0] * g->whole[1] * g->whole[2], wide = BP_NAME(conv_weight_width)(g->outputs);
    const bp_size taps = g->taps[0] * g->taps[1] * g->taps[2];
    bp_size *place = (bp_size *)scratch;
    BP_REAL *turned = scratch + (all * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + BP_VL - 1) / BP_VL * BP_VL;
    const BP_REAL *x = BP_NAME(conv_input)(g, box, c0, c1, turned + all * wide);
    /* Rows that follow each other in dy are turned in one go. */
    const bp_size planes = box->count[1] == g->whole[1] ? box->count[0] * box->count[1] : box->count[1];
    const bp_size together = width == g->whole[2] ? planes : 1;
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

static void BP_NAME(conv_weight_box)(const bp_conv *g, const bp_box *box, const BP_REAL *dy, BP_REAL *sum, bp_size c0, bp_size c1,
                                     BP_REAL *scratch) {
    dy += (box->image0 * g->groups + box->group) * g->outputs * g->whole[0] * g->whole[1] * g->whole[2];
    if (BP_NAME(weight_by_dots)(g, box))
        BP_NAME(conv_weight_dots)(g, box, dy, sum, c0, c1, scratch);
    else
        BP_NAME(conv_weight_tiles)(g, box, dy, sum, c0, c1, scratch);
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

#undef BP_DOTS
#undef BP_DOTS_O
