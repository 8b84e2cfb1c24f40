/* Softmax along an axis that is not the last. One call works on a tile: `width` neighbouring columns (at most BP_AXIS_TILE) of a
 * (cols, inner) matrix, so that the loops run along memory; element c of column j lies at x[c * inner + j]. */

/* m = the largest element of each column; s = the sum of e^(x - m). */
BP_INLINE void BP_NAME(tile_sums)(BP_REAL *m, BP_REAL *s, const BP_REAL *x, bp_size cols, bp_size inner, bp_size width) {
    for (bp_size j = 0; j < width; j++) {
        m[j] = -(BP_REAL)INFINITY;
        s[j] = 0;
    }
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) m[j] = x[c * inner + j] > m[j] ? x[c * inner + j] : m[j];
    }
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) s[j] += BP_NAME(v_exp_ftz)(x[c * inner + j] - m[j]);
    }
}

static void BP_NAME(softmax_tile)(BP_REAL *y, const BP_REAL *x, bp_size cols, bp_size inner, bp_size width) {
    BP_REAL m[BP_AXIS_TILE], s[BP_AXIS_TILE];
    BP_NAME(tile_sums)(m, s, x, cols, inner, width);
    for (bp_size j = 0; j < width; j++) s[j] = 1 / s[j];
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) y[c * inner + j] = BP_NAME(v_exp_ftz)(x[c * inner + j] - m[j]) * s[j];
    }
}

static void BP_NAME(log_softmax_tile)(BP_REAL *y, const BP_REAL *x, bp_size cols, bp_size inner, bp_size width) {
    BP_REAL m[BP_AXIS_TILE], s[BP_AXIS_TILE];
    BP_NAME(tile_sums)(m, s, x, cols, inner, width);
    for (bp_size j = 0; j < width; j++) s[j] = BP_NAME(v_log)(s[j]);
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) y[c * inner + j] = (x[c * inner + j] - m[j]) - s[j];
    }
}

static void BP_NAME(softmax_tile_backward)(BP_REAL *dx, const BP_REAL *dy, const BP_REAL *y, bp_size cols, bp_size inner,
                                           bp_size width) {
    BP_REAL s[BP_AXIS_TILE] = {0};
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) s[j] += dy[c * inner + j] * y[c * inner + j];
    }
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) dx[c * inner + j] = y[c * inner + j] * (dy[c * inner + j] - s[j]);
    }
}

static void BP_NAME(log_softmax_tile_backward)(BP_REAL *dx, const BP_REAL *dy, const BP_REAL *y, bp_size cols, bp_size inner,
                                               bp_size width) {
    BP_REAL s[BP_AXIS_TILE] = {0};
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) s[j] += dy[c * inner + j];
    }
    for (bp_size c = 0; c < cols; c++) {
        BP_SIMD for (bp_size j = 0; j < width; j++) {
            dx[c * inner + j] = dy[c * inner + j] - BP_NAME(v_exp_ftz)(y[c * inner + j]) * s[j];
        }
    }
}
