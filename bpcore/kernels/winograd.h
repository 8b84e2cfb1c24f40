/* 3 x 3 convolution of stride 1 in a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3), Lavin and Gray 2016.
 *
 * A tile of 4 x 4 places sees 6 x 6 elements. Both it and the weights are taken to 36 values each, whose products, summed over
 * channels, are a matrix product for each of the 36; what comes out is taken back to 4 x 4 places:
 *
 *     y = A' ((G w G') . (B' x B)) A          dw = G' ((A dy A') . (B' x B)) G
 *
 * The transforms evaluate polynomials at 0, +-2/3, +-3/2 and infinity. With these points (2/3 * 3/2 = 1 spares multiplications)
 * the rounding error is 2 to 3 times that of the plain sum; with the usual 0, +-1, +-2 it is 5 times (Barabasz et al. 2020).
 *
 * Everything lies with channels last and along vectors, so channels and outputs come in multiples of a vector.
 */
#ifdef BP_VECTORS

#define BP_A ((BP_REAL)(2. / 3))
#define BP_B ((BP_REAL)(3. / 2))
#define BP_A2 ((BP_REAL)(4. / 9))
#define BP_B2 ((BP_REAL)(9. / 4))
#define BP_A3 ((BP_REAL)(8. / 27))
#define BP_B3 ((BP_REAL)(27. / 8))
#define BP_AB ((BP_REAL)(97. / 36)) /* a^2 + b^2 */

/* t = B' d, for the elements d of a row or column. */
BP_INLINE void BP_NAME(wino_in)(vec *t, const vec d0, const vec d1, const vec d2, const vec d3, const vec d4, const vec d5) {
    const vec ea = d4 - BP_B2 * d2, oa = BP_A * d3 - BP_B * d1, eb = d4 - BP_A2 * d2, ob = BP_B * d3 - BP_A * d1;
    t[0] = (d0 + d4) - BP_AB * d2;
    t[1] = ea + oa;
    t[2] = ea - oa;
    t[3] = eb + ob;
    t[4] = eb - ob;
    t[5] = (d1 + d5) - BP_AB * d3;
}

/* y = A' m, and t = A y. */
BP_INLINE void BP_NAME(wino_out)(vec *y, const vec m0, const vec m1, const vec m2, const vec m3, const vec m4, const vec m5) {
    const vec ea = m1 + m2, oa = m1 - m2, eb = m3 + m4, ob = m3 - m4;
    y[0] = m0 + (ea + eb);
    y[1] = BP_A * oa + BP_B * ob;
    y[2] = BP_A2 * ea + BP_B2 * eb;
    y[3] = m5 + (BP_A3 * oa + BP_B3 * ob);
}

BP_INLINE void BP_NAME(wino_spread)(vec *t, const vec y0, const vec y1, const vec y2, const vec y3) {
    const vec ea = y0 + BP_A2 * y2, oa = BP_A * y1 + BP_A3 * y3, eb = y0 + BP_B2 * y2, ob = BP_B * y1 + BP_B3 * y3;
    t[0] = y0;
    t[1] = ea + oa;
    t[2] = ea - oa;
    t[3] = eb + ob;
    t[4] = eb - ob;
    t[5] = y3;
}

/* G: 1 / prod(p - q) over the other finite points q of a point p, times 1, p, p^2. */
#define BP_GA ((BP_REAL)(1 / (2 * (4. / 9) * (4. / 9 - 9. / 4))))
#define BP_GB ((BP_REAL)(1 / (2 * (9. / 4) * (9. / 4 - 4. / 9))))

/* t = G g, and g = G' t. */
BP_INLINE void BP_NAME(wino_weight)(vec *t, const vec g0, const vec g1, const vec g2) {
    const vec ea = BP_GA * (g0 + BP_A2 * g2), oa = (BP_GA * BP_A) * g1, eb = BP_GB * (g0 + BP_B2 * g2), ob = (BP_GB * BP_B) * g1;
    t[0] = g0;
    t[1] = ea + oa;
    t[2] = ea - oa;
    t[3] = eb + ob;
    t[4] = eb - ob;
    t[5] = g2;
}

BP_INLINE void BP_NAME(wino_weight_back)(vec *g, const vec *t, const bp_size ld) {
    const vec ea = t[ld] + t[2 * ld], oa = t[ld] - t[2 * ld], eb = t[3 * ld] + t[4 * ld], ob = t[3 * ld] - t[4 * ld];
    g[0] = t[0] + (BP_GA * ea + BP_GB * eb);
    g[1] = (BP_GA * BP_A) * oa + (BP_GB * BP_B) * ob;
    g[2] = t[5 * ld] + ((BP_GA * BP_A2) * ea + (BP_GB * BP_B2) * eb);
}

/* From one of the 36 matrices of weights to the next: not a multiple of 4096 bytes, or they would evict each other. */
static bp_size BP_NAME(winograd_step)(bp_size channels, bp_size outputs) { return channels * outputs + BP_VL; }

/* The 36 values of the weights of channels c0 to c1: u[36][panels of outputs][channels][panel]. */
static void BP_NAME(winograd_weights)(BP_REAL *u, const BP_REAL *w, bp_size so, bp_size sc, int turned, bp_size channels,
                                      bp_size outputs, bp_size c0, bp_size c1) {
    const bp_size step = BP_NAME(winograd_step)(channels, outputs);
    BP_REAL g[9][BP_WIDTH / sizeof(BP_REAL)] __attribute__((aligned(64)));
    vec t[18], v[6];
    for (bp_size o = 0; o < outputs; o += BP_VL) {
        const bp_size block = o / BP_NR * BP_NR, panel = BP_PANEL(outputs - block);
        for (bp_size c = c0; c < c1; c++) {
            for (bp_size i = 0; i < BP_VL; i++) {
                const BP_REAL *from = w + (o + i) * so + c * sc;
                for (int q = 0; q < 9; q++) g[q][i] = from[turned ? 8 - q : q];
            }
            for (int j = 0; j < 3; j++) {
                BP_NAME(wino_weight)(v, *(vec *)g[j], *(vec *)g[3 + j], *(vec *)g[6 + j]);
                for (int i = 0; i < 6; i++) t[i * 3 + j] = v[i];
            }
            BP_REAL *to = u + block * channels + c * panel + (o - block);
            for (int i = 0; i < 6; i++) {
                BP_NAME(wino_weight)(v, t[i * 3], t[i * 3 + 1], t[i * 3 + 2]);
                for (int j = 0; j < 6; j++) *(vecu *)(to + (i * 6 + j) * step) = v[j];
            }
        }
    }
}

/* Rows y0 to y0 + rows, columns x0 to x0 + cols of a[channels][height][width], channels last, zeros outside. */
static void BP_NAME(channels_last)(BP_REAL *out, const BP_REAL *a, bp_size channels, bp_size height, bp_size width, bp_size y0,
                                   bp_size rows, bp_size x0, bp_size cols) {
    const bp_size j0 = x0 < 0 ? (-x0 < cols ? -x0 : cols) : 0, j1 = width - x0 < cols ? width - x0 : cols;
    for (bp_size i = 0; i < rows; i++, out += cols * channels) {
        if (y0 + i < 0 || y0 + i >= height || j1 <= j0) {
            BP_NAME(zero_row)(out, cols * channels);
            continue;
        }
        if (j0) BP_NAME(zero_row)(out, j0 * channels);
        BP_NAME(pack_panel)(out + j0 * channels, channels, a + (y0 + i) * width + x0 + j0, height * width, 1, channels, j1 - j0);
        if (j1 < cols) BP_NAME(zero_row)(out + j1 * channels, (cols - j1) * channels);
    }
}

/* Tiles of one image's rows of tiles, from x[4 ty + 2][4 tx + 2][channels] to v[36][tiles][channels], 36 parts `step` apart. */
static void BP_NAME(winograd_in)(BP_REAL *v, bp_size step, const BP_REAL *x, bp_size ty, bp_size tx, bp_size channels) {
    const bp_size row = (4 * tx + 2) * channels;
    vec t[36], line[6];
    for (bp_size q = 0; q < ty * tx; q++)
        for (bp_size c = 0; c < channels; c += BP_VL) {
            const BP_REAL *d = x + q / tx * 4 * row + q % tx * 4 * channels + c;
            for (int j = 0; j < 6; j++, d += channels) {
                BP_NAME(wino_in)(line, *(const vecu *)d, *(const vecu *)(d + row), *(const vecu *)(d + 2 * row),
                                 *(const vecu *)(d + 3 * row), *(const vecu *)(d + 4 * row), *(const vecu *)(d + 5 * row));
                BP_UNROLL for (int i = 0; i < 6; i++) t[i * 6 + j] = line[i];
            }
            BP_REAL *to = v + q * channels + c;
            for (int i = 0; i < 6; i++) {
                BP_NAME(wino_in)(line, t[i * 6], t[i * 6 + 1], t[i * 6 + 2], t[i * 6 + 3], t[i * 6 + 4], t[i * 6 + 5]);
                BP_UNROLL for (int j = 0; j < 6; j++, to += step) *(vecu *)to = line[j];
            }
        }
}

/* And back: m[36][tiles][outputs] to y[4 ty][4 tx][outputs]. */
static void BP_NAME(winograd_out)(BP_REAL *y, const BP_REAL *m, bp_size step, bp_size ty, bp_size tx, bp_size outputs) {
    const bp_size row = 4 * tx * outputs;
    vec t[24], line[4];
    for (bp_size q = 0; q < ty * tx; q++)
        for (bp_size o = 0; o < outputs; o += BP_VL) {
            const BP_REAL *from = m + q * outputs + o;
            for (int j = 0; j < 6; j++, from += step) {
                BP_NAME(wino_out)(line, *(const vecu *)from, *(const vecu *)(from + 6 * step), *(const vecu *)(from + 12 * step),
                                  *(const vecu *)(from + 18 * step), *(const vecu *)(from + 24 * step),
                                  *(const vecu *)(from + 30 * step));
                BP_UNROLL for (int i = 0; i < 4; i++) t[i * 6 + j] = line[i];
            }
            BP_REAL *to = y + q / tx * 4 * row + q % tx * 4 * outputs + o;
            for (int i = 0; i < 4; i++, to += row) {
                BP_NAME(wino_out)(line, t[i * 6], t[i * 6 + 1], t[i * 6 + 2], t[i * 6 + 3], t[i * 6 + 4], t[i * 6 + 5]);
                BP_UNROLL for (int j = 0; j < 4; j++) *(vecu *)(to + j * outputs) = line[j];
            }
        }
}

/* dy[4 ty][4 tx][outputs] to m[36][tiles][outputs]. */
static void BP_NAME(winograd_spread)(BP_REAL *m, bp_size step, const BP_REAL *dy, bp_size ty, bp_size tx, bp_size outputs) {
    const bp_size row = 4 * tx * outputs;
    vec t[24], line[6];
    for (bp_size q = 0; q < ty * tx; q++)
        for (bp_size o = 0; o < outputs; o += BP_VL) {
            const BP_REAL *d = dy + q / tx * 4 * row + q % tx * 4 * outputs + o;
            for (int j = 0; j < 4; j++, d += outputs) {
                BP_NAME(wino_spread)(line, *(const vecu *)d, *(const vecu *)(d + row), *(const vecu *)(d + 2 * row),
                                     *(const vecu *)(d + 3 * row));
                BP_UNROLL for (int i = 0; i < 6; i++) t[i * 4 + j] = line[i];
            }
            BP_REAL *to = m + q * outputs + o;
            for (int i = 0; i < 6; i++) {
                BP_NAME(wino_spread)(line, t[i * 4], t[i * 4 + 1], t[i * 4 + 2], t[i * 4 + 3]);
                BP_UNROLL for (int j = 0; j < 6; j++, to += step) *(vecu *)to = line[j];
            }
        }
}

/* What a box of w->tiles tiles needs: v, m, a table of distances, and one image's planes with channels last. */
#define BP_WINO_STEP(w, n) ((w)->tiles * (n) + BP_VL) /* not a multiple of 4096 bytes: the 36 parts would evict each other */

static bp_size BP_NAME(winograd_scratch)(const bp_winograd *w) {
    const bp_size most = w->channels > w->outputs ? w->channels : w->outputs;
    const bp_size rows = w->tiles > w->channels ? w->tiles : w->channels;
    return 36 * (BP_WINO_STEP(w, w->channels) + BP_WINO_STEP(w, w->outputs)) + (4 * w->rows + 2) * (4 * w->tx + 2) * most +
           rows * (bp_size)(sizeof(bp_size) / sizeof(BP_REAL)) + 4 * BP_VL;
}

/* Images n0 to n1, rows of tiles t0 to t1: y = w * x + bias for outputs o0 to o1 (o0 at the beginning of a panel), or
 * sum[36][channels][outputs] += their part of the weight's, and sum[last][outputs] that of the bias. */
static void BP_NAME(winograd_box)(const bp_winograd *w, bp_size n0, bp_size n1, bp_size t0, bp_size t1, bp_size o0, bp_size o1,
                                  BP_REAL *sum, BP_REAL *scratch) {
    const bp_size channels = w->channels, outputs = w->outputs, tx = w->tx, ty = t1 - t0, tiles = (n1 - n0) * ty * tx;
    const bp_size step_v = BP_WINO_STEP(w, channels), step_m = BP_WINO_STEP(w, outputs);
    const bp_size height = w->height, width = w->width, step = BP_NAME(winograd_step)(channels, outputs);
    BP_REAL *v = scratch, *m = v + 36 * step_v, *planes = m + 36 * step_m;
    bp_size *off = (bp_size *)(planes + (4 * w->rows + 2) * (4 * tx + 2) * (channels > outputs ? channels : outputs) + BP_VL);
    for (bp_size n = n0; n < n1; n++) {
        BP_NAME(channels_last)(planes, (const BP_REAL *)w->x + n * channels * w->in_height * w->in_width, channels, w->in_height,
                               w->in_width, 4 * t0 - w->pad_y, 4 * ty + 2, -w->pad_x, 4 * tx + 2);
        BP_NAME(winograd_in)(v + (n - n0) * ty * tx * channels, step_v, planes, ty, tx, channels);
    }
    if (sum) { /* sum[f][c][o] += sum over tiles of v[f][tile][c] m[f][tile][o] */
        for (bp_size n = n0; n < n1; n++) {
            BP_NAME(channels_last)(planes, (const BP_REAL *)w->y + n * outputs * height * width, outputs, height, width, 4 * t0,
                                   4 * ty, 0, 4 * tx);
            BP_NAME(winograd_spread)(m + (n - n0) * ty * tx * outputs, step_m, planes, ty, tx, outputs);
            if (w->bias) BP_NAME(add_columns)(sum + 36 * step, planes, 16 * ty * tx, outputs);
        }
        for (bp_size q = 0; q < tiles; q++) off[q] = q * channels;
        for (bp_size o = 0, panel; o < outputs; o += panel) {
            panel = BP_PANEL(outputs - o);
            for (int f = 0; f < 36; f++) {
                /* The panel's columns of m, side by side. */
                const BP_REAL *from = m + f * step_m + o;
                BP_REAL *b = planes;
                for (bp_size q = 0; q < tiles; q++)
                    for (bp_size j = 0; j < panel; j += BP_VL)
                        *(vecu *)(b + q * panel + j) = *(const vecu *)(from + q * outputs + j);
                const bp_size parts = (channels + BP_MR - 1) / BP_MR;
                for (bp_size p = 0; p < parts; p++) {
                    const bp_size c = channels * p / parts, rows = channels * (p + 1) / parts - c;
                    BP_NAME(unit_rows)[rows][panel / BP_VL](tiles, v + f * step_v + c, off, 1, b,
                                                            sum + f * step + c * outputs + o, outputs, 0);
                }
            }
        }
        return;
    }
    for (bp_size c = 0; c < channels; c++) off[c] = c;
    const bp_size parts = (tiles + BP_MR - 1) / BP_MR;
    const bp_size some = o1 - o0;
    for (int f = 0; f < 36; f++)
        for (bp_size o = o0, panel; o < o1; o += panel) {
            panel = BP_PANEL(outputs - o);
            if (f < 35 && o == o0) /* the products are short: their operands must be near when they begin */
                for (bp_size i = 0; i < tiles * channels; i += 64 / sizeof(BP_REAL)) __builtin_prefetch(v + (f + 1) * step_v + i);
            for (bp_size p = 0; p < parts; p++) {
                const bp_size q = tiles * p / parts, rows = tiles * (p + 1) / parts - q;
                BP_NAME(rows)[rows][panel / BP_VL](channels, v + f * step_v + q * channels, off, channels,
                                                   (const BP_REAL *)w->u + f * step + o * channels,
                                                   m + f * step_m + q * some + o - o0, some, 1);
            }
        }
    for (bp_size n = n0; n < n1; n++) {
        BP_NAME(winograd_out)(planes, m + (n - n0) * ty * tx * some, step_m, ty, tx, some);
        for (bp_size i = 4 * t0; i < 4 * t1 && i < height; i++)
            BP_NAME(turn_out)((BP_REAL *)w->y + (n * outputs + o0) * height * width + i * width, height * width, 1,
                              planes + (i - 4 * t0) * 4 * tx * some, some, width, some,
                              w->bias ? (const BP_REAL *)w->bias + o0 : NULL);
    }
}

/* dw[o][c][9] of channels c0 to c1 from `parts` sums that lie `step` apart, in their order. */
static void BP_NAME(winograd_finish)(BP_REAL *dw, const BP_REAL *sum, bp_size step, bp_size parts, bp_size channels,
                                     bp_size outputs, bp_size c0, bp_size c1) {
    const bp_size matrix = BP_NAME(winograd_step)(channels, outputs);
    vec t[36], half[18], g[3];
    BP_REAL out[9][BP_WIDTH / sizeof(BP_REAL)] __attribute__((aligned(64)));
    for (bp_size c = c0; c < c1; c++)
        for (bp_size o = 0; o < outputs; o += BP_VL) {
            for (int f = 0; f < 36; f++) {
                const BP_REAL *from = sum + f * matrix + c * outputs + o;
                t[f] = *(const vecu *)from;
                for (bp_size q = 1; q < parts; q++) t[f] += *(const vecu *)(from + q * step);
            }
            for (int j = 0; j < 6; j++) {
                BP_NAME(wino_weight_back)(g, t + j, 6);
                for (int i = 0; i < 3; i++) half[i * 6 + j] = g[i];
            }
            for (int i = 0; i < 3; i++) {
                BP_NAME(wino_weight_back)(g, half + i * 6, 1);
                for (int j = 0; j < 3; j++) *(vec *)out[i * 3 + j] = g[j];
            }
            for (bp_size i = 0; i < BP_VL; i++)
                for (int q = 0; q < 9; q++) dw[((o + i) * channels + c) * 9 + q] = out[q][i];
        }
}
static int BP_NAME(winograd_works)(void) { return 1; }

#undef BP_A
#undef BP_B
#undef BP_A2
#undef BP_B2
#undef BP_A3
#undef BP_B3
#undef BP_AB
#undef BP_GA
#undef BP_GB
#undef BP_WINO_STEP
#else
static int BP_NAME(winograd_works)(void) { return 0; }
static bp_size BP_NAME(winograd_step)(bp_size channels, bp_size outputs) { return channels * outputs; }
static void BP_NAME(winograd_weights)(BP_REAL *u, const BP_REAL *w, bp_size so, bp_size sc, int turned, bp_size channels,
                                      bp_size outputs, bp_size c0, bp_size c1) {
    (void)u, (void)w, (void)so, (void)sc, (void)turned, (void)channels, (void)outputs, (void)c0, (void)c1;
}
static bp_size BP_NAME(winograd_scratch)(const bp_winograd *w) { return (void)w, 0; }
static void BP_NAME(winograd_box)(const bp_winograd *w, bp_size n0, bp_size n1, bp_size t0, bp_size t1, bp_size o0, bp_size o1,
                                  BP_REAL *sum, BP_REAL *scratch) {
    (void)w, (void)n0, (void)n1, (void)t0, (void)t1, (void)o0, (void)o1, (void)sum, (void)scratch;
}
static void BP_NAME(winograd_finish)(BP_REAL *dw, const BP_REAL *sum, bp_size step, bp_size parts, bp_size channels,
                                     bp_size outputs, bp_size c0, bp_size c1) {
    (void)dw, (void)sum, (void)step, (void)parts, (void)channels, (void)outputs, (void)c0, (void)c1;
}
#endif
