/* Rows of a table x, each `width` long, that index[n] names. */

/* y = the sum of scale[i] x[index[i]], in the order of i; scale NULL: of the rows themselves. n = 0 gives zeros. */
static void BP_NAME(rows_sum)(BP_REAL *BP_RESTRICT y, const BP_REAL *BP_RESTRICT x, const int64_t *index, const BP_REAL *scale,
                              bp_size n, bp_size width) {
    if (n == 0) {
        memset(y, 0, width * sizeof(BP_REAL));
        return;
    }
    const BP_REAL *row = x + index[0] * width;
    if (!scale) memcpy(y, row, width * sizeof(BP_REAL));
    else {
        BP_SIMD
        for (bp_size j = 0; j < width; j++) y[j] = scale[0] * row[j];
    }
    for (bp_size i = 1; i < n; i++) {
        row = x + index[i] * width;
        if (!scale) {
            BP_SIMD
            for (bp_size j = 0; j < width; j++) y[j] += row[j];
        } else {
            const BP_REAL s = scale[i];
            BP_SIMD
            for (bp_size j = 0; j < width; j++) y[j] += s * row[j];
        }
    }
}

/* y = the largest of x[index[i]], element by element, and `from` the row it came from: the first of equals. n = 0 gives 0, -1.
 * NaN is larger than everything, as in the reductions. */
static void BP_NAME(rows_max)(BP_REAL *BP_RESTRICT y, int64_t *BP_RESTRICT from, const BP_REAL *BP_RESTRICT x,
                              const int64_t *index, bp_size n, bp_size width) {
    for (bp_size j = 0; j < width; j++) {
        y[j] = n ? x[index[0] * width + j] : 0;
        from[j] = n ? index[0] : -1;
    }
    for (bp_size i = 1; i < n; i++) {
        const BP_REAL *row = x + index[i] * width;
        for (bp_size j = 0; j < width; j++) {
            if (row[j] > y[j] || (row[j] != row[j] && y[j] == y[j])) {
                y[j] = row[j];
                from[j] = index[i];
            }
        }
    }
}

static BP_REAL BP_NAME(rows_dot)(const BP_REAL *BP_RESTRICT a, const BP_REAL *BP_RESTRICT b, bp_size width) {
    BP_REAL total = 0;
    BP_SIMD_SUM(total)
    for (bp_size j = 0; j < width; j++) total += a[j] * b[j];
    return total;
}
