/* Windows that slide over planes: averages. */
#define BP_LANES ((bp_size)(BP_WIDTH / sizeof(BP_REAL)))

/* What to divide the windows at `ow` to `ow + n` by; `others` is what the other axes count. */
static void BP_NAME(divisors)(BP_REAL *out, const bp_window *w, bp_size ow, bp_size n, bp_size others) {
    const bp_size lo = bp_window_lo(w, 2, 0), hi = bp_window_hi(w, 2, w->kernel[2] - 1); /* wholly within the plane */
    const BP_REAL whole = (BP_REAL)(w->divisor ? w->divisor : others * w->kernel[2]);
    bp_size from, to;
    for (bp_size j = 0; j < n; j++) out[j] = whole;
    if (w->divisor) return;
    for (bp_size j = 0; j < n && j < lo - ow; j++) out[j] = (BP_REAL)(others * bp_window_count(w, 2, ow + j, &from, &to));
    for (bp_size j = hi > ow ? hi - ow : 0; j < n; j++) out[j] = (BP_REAL)(others * bp_window_count(w, 2, ow + j, &from, &to));
}

BP_INLINE void BP_NAME(add_strided)(BP_REAL *BP_RESTRICT sum, const BP_REAL *BP_RESTRICT x, bp_size stride, bp_size n) {
    BP_SIMD for (bp_size j = 0; j < n; j++) sum[j] += x[j * stride];
}

BP_INLINE BP_REAL BP_NAME(run_sum)(const BP_REAL *x, bp_size n) {
    BP_REAL sum = 0;
    BP_SIMD_SUM(sum) for (bp_size i = 0; i < n; i++) sum += x[i];
    return sum;
}

/* sum[j] += the windows at `ow` + j of one row of x. Few wide windows are summed one by one. */
static void BP_NAME(avg_row)(BP_REAL *sum, const BP_REAL *row, const bp_window *w, bp_size ow, bp_size n) {
    const bp_size s = w->stride[2];
    bp_size from, to;
    if (n < BP_LANES && w->kernel[2] >= 4) {
        for (bp_size j = 0; j < n; j++) {
            bp_window_count(w, 2, ow + j, &from, &to);
            sum[j] += BP_NAME(run_sum)(row + from, to - from);
        }
        return;
    }
    for (bp_size k = 0; k < w->kernel[2]; k++) {
        bp_size lo = bp_window_lo(w, 2, k), hi = bp_window_hi(w, 2, k);
        lo = lo > ow ? lo : ow;
        hi = hi < ow + n ? hi : ow + n;
        if (lo >= hi) continue;
        if (s == 1)
            BP_NAME(add_strided)(sum + (lo - ow), row + lo - w->pad[2] + k, 1, hi - lo);
        else if (s == 2)
            BP_NAME(add_strided)(sum + (lo - ow), row + 2 * lo - w->pad[2] + k, 2, hi - lo);
        else
            BP_NAME(add_strided)(sum + (lo - ow), row + s * lo - w->pad[2] + k, s, hi - lo);
    }
}

static void BP_NAME(avg_rows)(BP_REAL *y, const BP_REAL *x, const bp_window *w, bp_size begin, bp_size end) {
    const bp_size rows = w->out[0] * w->out[1], cols = w->out[2], width = w->size[2];
    const bp_size plane = w->size[0] * w->size[1] * width;
    BP_REAL sum[BP_TILE_COLS], divisor[BP_TILE_COLS];
    bp_size d0, d1, h0, h1;
    for (bp_size r = begin; r < end; r++) {
        const BP_REAL *from = x + r / rows * plane;
        const bp_size deep = bp_window_count(w, 0, r % rows / w->out[1], &d0, &d1);
        const bp_size high = bp_window_count(w, 1, r % w->out[1], &h0, &h1);
        for (bp_size ow = 0; ow < cols; ow += BP_TILE_COLS) {
            const bp_size n = cols - ow < BP_TILE_COLS ? cols - ow : BP_TILE_COLS;
            for (bp_size j = 0; j < n; j++) sum[j] = 0;
            for (bp_size d = d0; d < d1; d++)
                for (bp_size h = h0; h < h1; h++) BP_NAME(avg_row)(sum, from + (d * w->size[1] + h) * width, w, ow, n);
            BP_NAME(divisors)(divisor, w, ow, n, deep * high);
            BP_REAL *to = y + r * cols + ow;
            BP_SIMD for (bp_size j = 0; j < n; j++) to[j] = sum[j] / divisor[j];
        }
    }
}

/* A row of dx is the sum of the shares of all windows that cover it. */
static void BP_NAME(avg_backward)(BP_REAL *dx, const BP_REAL *dy, const bp_window *w, bp_size begin, bp_size end) {
    const bp_size rows = w->size[0] * w->size[1], cols = w->out[2], width = w->size[2], s = w->stride[2];
    BP_REAL share[BP_TILE_COLS], divisor[BP_TILE_COLS];
    bp_size from, to, first[2], last[2];
    for (bp_size r = begin; r < end; r++) {
        const bp_size p = r / rows, place[2] = {r % rows / w->size[1], r % w->size[1]};
        BP_REAL *row = dx + r * width;
        memset(row, 0, width * sizeof *row);
        for (int a = 0; a < 2; a++) {
            const bp_size gap = place[a] + w->pad[a] - w->kernel[a] + 1;
            first[a] = gap > 0 ? (gap + w->stride[a] - 1) / w->stride[a] : 0;
            last[a] = (place[a] + w->pad[a]) / w->stride[a];
            last[a] = last[a] < w->out[a] - 1 ? last[a] : w->out[a] - 1;
        }
        for (bp_size od = first[0]; od <= last[0]; od++)
            for (bp_size oh = first[1]; oh <= last[1]; oh++) {
                const bp_size others = bp_window_count(w, 0, od, &from, &to) * bp_window_count(w, 1, oh, &from, &to);
                const BP_REAL *g = dy + ((p * w->out[0] + od) * w->out[1] + oh) * cols;
                for (bp_size ow = 0; ow < cols; ow += BP_TILE_COLS) {
                    const bp_size n = cols - ow < BP_TILE_COLS ? cols - ow : BP_TILE_COLS;
                    BP_NAME(divisors)(divisor, w, ow, n, others);
                    BP_SIMD for (bp_size j = 0; j < n; j++) share[j] = g[ow + j] / divisor[j];
                    if (s == 2 && w->kernel[2] == 2 && w->pad[2] == 0 && 2 * (ow + n) <= width) {
                        BP_REAL *BP_RESTRICT at = row + 2 * ow;
                        BP_SIMD for (bp_size j = 0; j < n; j++) {
                            at[2 * j] += share[j];
                            at[2 * j + 1] += share[j];
                        }
                        continue;
                    }
                    if (s >= w->kernel[2]) { /* no overlap: windows one by one */
                        for (bp_size j = 0; j < n; j++) {
                            bp_window_count(w, 2, ow + j, &from, &to);
                            for (bp_size i = from; i < to; i++) row[i] += share[j];
                        }
                        continue;
                    }
                    for (bp_size k = 0; k < w->kernel[2]; k++) {
                        bp_size lo = bp_window_lo(w, 2, k), hi = bp_window_hi(w, 2, k);
                        lo = lo > ow ? lo : ow;
                        hi = hi < ow + n ? hi : ow + n;
                        if (lo >= hi) continue;
                        BP_REAL *at = row + lo * s - w->pad[2] + k;
                        if (s == 1)
                            BP_SIMD for (bp_size j = 0; j < hi - lo; j++) at[j] += share[lo - ow + j];
                        else
                            for (bp_size j = 0; j < hi - lo; j++) at[j * s] += share[lo - ow + j];
                    }
                }
            }
    }
}

/* One window over the whole plane of n elements. */
static void BP_NAME(plane_means)(BP_REAL *y, const BP_REAL *x, bp_size n, BP_REAL divisor, bp_size begin, bp_size end) {
    for (bp_size p = begin; p < end; p++) y[p] = BP_NAME(run_sum)(x + p * n, n) / divisor;
}

static void BP_NAME(plane_spread)(BP_REAL *dx, const BP_REAL *dy, bp_size n, BP_REAL divisor, bp_size begin, bp_size end) {
    for (bp_size p = begin; p < end; p++) {
        const BP_REAL g = dy[p] / divisor;
        BP_SIMD for (bp_size i = 0; i < n; i++) dx[p * n + i] = g;
    }
}

#undef BP_LANES
