/* Depthwise convolution: a channel to itself. Planes are laid out one at a time and stay in the first cache. */

/* Scratch of both: the plane, a vector beyond it, and the rows of dy rounded up to whole vectors. */

/* y[r][0..n) over `rows` rows, for places that lie `row_step` apart; n places at a time, n at most two vectors. */
BP_INLINE void BP_NAME(depthwise_tile)(const int rows, BP_REAL *acc, const BP_REAL *x, bp_size row_step, const BP_REAL *w,
                                       const bp_size *off, bp_size taps, BP_REAL bias) {
#ifdef BP_VECTORS
    vec s[4][2];
    BP_UNROLL for (int r = 0; r < rows; r++)
        BP_UNROLL for (int v = 0; v < 2; v++) s[r][v] = (vec){0};
    for (bp_size t = 0; t < taps; t++) {
        const BP_REAL *at = x + off[t];
        BP_UNROLL for (int r = 0; r < rows; r++)
            BP_UNROLL for (int v = 0; v < 2; v++) s[r][v] += w[t] * *(const vecu *)(at + r * row_step + v * BP_VL);
    }
    BP_UNROLL for (int r = 0; r < rows; r++)
        BP_UNROLL for (int v = 0; v < 2; v++) *(vecu *)(acc + r * BP_NR + v * BP_VL) = s[r][v] + bias;
#else
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < BP_NR; j++) {
            BP_REAL s = 0;
            for (bp_size t = 0; t < taps; t++) s += w[t] * x[off[t] + r * row_step + j];
            acc[r * BP_NR + j] = s + bias;
        }
#endif
}

static void BP_NAME(conv_depthwise)(const bp_conv *g, bp_size first, bp_size last, BP_REAL *scratch) {
    const bp_size size = g->whole[0] * g->whole[1] * g->whole[2], row_step = g->step[1] * g->row;
    for (bp_size item = first; item < last; item++) {
        const bp_size c = item % g->groups, n = item / g->groups;
        const bp_box box = {n, n + 1, {0, 0, 0}, {g->out[0], g->out[1], g->out[2]}, c, 0, 1};
        const BP_REAL *w = (const BP_REAL *)g->weight + c * g->weight_step, bias = g->bias ? ((const BP_REAL *)g->bias)[c] : 0;
        BP_REAL *y = (BP_REAL *)g->y + item * size;
        BP_NAME(conv_planes)(g, &box, 0, 1, scratch);
        for (bp_size d = 0; d < g->out[0]; d++)
            for (bp_size h = 0, rows; h < g->out[1]; h += rows) {
                const bp_size r0 = d * g->out[1] + h;
                const BP_REAL *x = scratch + BP_NAME(row_in)(g, &box, r0);
                rows = g->out[1] - h >= 4 ? 4 : 1;
                for (bp_size j = 0; j < g->out[2]; j += BP_NR) {
                    const bp_size m = g->out[2] - j < BP_NR ? g->out[2] - j : BP_NR;
                    BP_REAL acc[4 * 2 * BP_WIDTH / sizeof(BP_REAL)];
                    if (rows == 4)
                        BP_NAME(depthwise_tile)(4, acc, x + j, row_step, w, g->offset, g->k, bias);
                    else
                        BP_NAME(depthwise_tile)(1, acc, x + j, row_step, w, g->offset, g->k, bias);
                    for (bp_size r = 0; r < rows; r++) {
                        BP_REAL *to = y + BP_NAME(row_out)(g, &box, r0 + r) + j * g->spread[2];
                        if (m > BP_VL && g->spread[2] == 1)
                            memcpy(to, acc + r * BP_NR, BP_VL * sizeof(BP_REAL));
                        else
                            BP_NAME(pixels_edge)(to, acc + r * BP_NR, m < BP_VL ? m : BP_VL, g->spread[2]);
                        if (m > BP_VL)
                            BP_NAME(pixels_edge)(to + BP_VL * g->spread[2], acc + r * BP_NR + BP_VL, m - BP_VL, g->spread[2]);
                    }
                }
            }
    }
}

/* s[i] += sum_j dy[j] x[off[i] + j] for m taps over n whole vectors of rows, which lie row_step apart in x. */
BP_INLINE void BP_NAME(depthwise_dots)(const int m, BP_REAL *s, const BP_REAL *dy, const BP_REAL *x, const bp_size *off,
                                       bp_size rows, bp_size row_step, bp_size width) {
#ifdef BP_VECTORS
    vec acc[4];
    BP_UNROLL for (int i = 0; i < m; i++) acc[i] = *(const vecu *)(s + i * BP_VL);
    for (bp_size r = 0; r < rows; r++)
        for (bp_size j = 0; j < width; j += BP_VL) {
            const vec d = *(const vecu *)(dy + r * width + j);
            BP_UNROLL for (int i = 0; i < m; i++) acc[i] += d * *(const vecu *)(x + r * row_step + off[i] + j);
        }
    BP_UNROLL for (int i = 0; i < m; i++) *(vecu *)(s + i * BP_VL) = acc[i];
#else
    for (bp_size r = 0; r < rows; r++)
        for (bp_size j = 0; j < width; j++)
            for (int i = 0; i < m; i++) s[i * BP_VL + j % BP_VL] += dy[r * width + j] * x[r * row_step + off[i] + j];
#endif
}

/* scratch: taps vectors of sums, the rows of dy, the plane; what lies beyond a plane's rows must be finite and is cleared. */
static void BP_NAME(conv_depthwise_weight)(const bp_conv *g, const BP_REAL *dy, BP_REAL *dw, BP_REAL *db, bp_size first,
                                           bp_size last, BP_REAL *scratch) {
    const bp_size width = (g->out[2] + BP_VL - 1) / BP_VL * BP_VL, rows = g->out[0] * g->out[1], size = rows * g->out[2];
    BP_REAL *sums = scratch, *padded = sums + (g->k + 4) * BP_VL, *planes = padded + rows * width;
    const bp_size beyond = g->plane + 2 * BP_VL;
    for (bp_size i = 0; i < beyond; i++) planes[i] = 0;
    for (bp_size i = 0; i < rows * width; i++) padded[i] = 0;
    for (bp_size c = first; c < last; c++) {
        double total = 0;
        for (bp_size i = 0; i < g->k * BP_VL; i++) sums[i] = 0;
        for (bp_size n = 0; n < g->images; n++) {
            const bp_box box = {n, n + 1, {0, 0, 0}, {g->out[0], g->out[1], g->out[2]}, c, 0, 1};
            const BP_REAL *in = dy + (n * g->groups + c) * size;
            BP_NAME(conv_planes)(g, &box, 0, 1, planes);
            for (bp_size r = 0; r < rows; r++) {
                BP_SIMD for (bp_size j = 0; j < g->out[2]; j++) padded[r * width + j] = in[r * g->out[2] + j];
            }
            BP_REAL part = 0;
            BP_SIMD_SUM(part) for (bp_size i = 0; i < size; i++) part += in[i];
            total += part;
            for (bp_size d = 0; d < g->out[0]; d++) {
                const BP_REAL *x = planes + d * g->step[0] * g->depth, *y = padded + d * g->out[1] * width;
                bp_size t = 0;
                for (; t + 3 <= g->k; t += 3)
                    BP_NAME(depthwise_dots)(3, sums + t * BP_VL, y, x, g->offset + t, g->out[1], g->step[1] * g->row, width);
                for (; t < g->k; t++)
                    BP_NAME(depthwise_dots)(1, sums + t * BP_VL, y, x, g->offset + t, g->out[1], g->step[1] * g->row, width);
            }
        }
        for (bp_size t = 0; t < g->k; t++) {
            BP_REAL s = 0;
            for (bp_size j = 0; j < BP_VL; j++) s += sums[t * BP_VL + j];
            dw[c * g->k + t] = s;
        }
        if (db) db[c] = (BP_REAL)total;
    }
}
