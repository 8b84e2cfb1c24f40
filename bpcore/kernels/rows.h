/* Softmax and cross-entropy over the rows of a contiguous matrix (rows, cols).
 *
 * A row's largest element is taken away before exp, so nothing overflows. Rows of -inf, and rows with NaN or +inf, give NaN, as
 * -inf - -inf does. Narrow rows are worked on in blocks: exp then runs over a whole block, not over a few elements at a time. */

#define BP_BLOCK 2048 /* elements in a block */
#define BP_BLOCK_ROWS(cols) (BP_BLOCK / (cols) / BP_NARROW_ROWS * BP_NARROW_ROWS)

BP_INLINE BP_REAL BP_NAME(row_max)(const BP_REAL *x, bp_size n) {
    BP_REAL m = -(BP_REAL)INFINITY;
    BP_SIMD_MAX(m) for (bp_size i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* z = e^(x - m); the sum of z. */
BP_INLINE BP_REAL BP_NAME(row_exp)(BP_REAL *z, const BP_REAL *x, BP_REAL m, bp_size n) {
    double total = 0;
    for (bp_size i = 0; i < n; i += BP_CHUNK) {
        const bp_size end = n - i < BP_CHUNK ? n : i + BP_CHUNK;
        BP_REAL part = 0;
        BP_SIMD_SUM(part) for (bp_size j = i; j < end; j++) {
            const BP_REAL e = BP_NAME(v_exp_ftz)(x[j] - m);
            z[j] = e;
            part += e;
        }
        total += part;
    }
    return (BP_REAL)total;
}

/* The sum of e^(x - m) alone. */
BP_INLINE BP_REAL BP_NAME(row_sum_exp)(const BP_REAL *x, BP_REAL m, bp_size n) {
    double total = 0;
    for (bp_size i = 0; i < n; i += BP_CHUNK) {
        const bp_size end = n - i < BP_CHUNK ? n : i + BP_CHUNK;
        BP_REAL part = 0;
        BP_SIMD_SUM(part) for (bp_size j = i; j < end; j++) part += BP_NAME(v_exp_ftz)(x[j] - m);
        total += part;
    }
    return (BP_REAL)total;
}

/* A block of narrow rows: z = e^(x - m) with the maxima in m and the sums of z in s. */
BP_INLINE void BP_NAME(block_exp)(BP_REAL *z, BP_REAL *m, BP_REAL *s, const BP_REAL *x, bp_size rows, bp_size cols) {
    for (bp_size r = 0; r < rows; r++) {
        const BP_REAL *xr = x + r * cols;
        BP_REAL *zr = z + r * cols, top = -(BP_REAL)INFINITY;
        for (bp_size c = 0; c < cols; c++) top = xr[c] > top ? xr[c] : top;
        for (bp_size c = 0; c < cols; c++) zr[c] = xr[c] - top;
        m[r] = top;
    }
    BP_SIMD for (bp_size i = 0; i < rows * cols; i++) z[i] = BP_NAME(v_exp_ftz)(z[i]);
    for (bp_size r = 0; r < rows; r++) {
        BP_REAL total = 0;
        for (bp_size c = 0; c < cols; c++) total += z[r * cols + c];
        s[r] = total;
    }
}

static void BP_NAME(softmax)(BP_REAL *y, const BP_REAL *x, bp_size rows, bp_size cols) {
    if (cols < BP_NARROW && cols > 0) {
        BP_REAL m[BP_BLOCK], s[BP_BLOCK];
        const bp_size step = BP_BLOCK_ROWS(cols);
        for (bp_size r0 = 0; r0 < rows; r0 += step) {
            const bp_size block = rows - r0 < step ? rows - r0 : step;
            BP_REAL *z = y + r0 * cols;
            BP_NAME(block_exp)(z, m, s, x + r0 * cols, block, cols);
            BP_SIMD for (bp_size r = 0; r < block; r++) s[r] = 1 / s[r];
            for (bp_size r = 0; r < block; r++, z += cols) {
                for (bp_size c = 0; c < cols; c++) z[c] *= s[r];
            }
        }
        return;
    }
    for (bp_size r = 0; r < rows; r++, x += cols, y += cols) {
        const BP_REAL scale = 1 / BP_NAME(row_exp)(y, x, BP_NAME(row_max)(x, cols), cols);
        BP_SIMD for (bp_size c = 0; c < cols; c++) y[c] *= scale;
    }
}

/* dx = y (dy - sum(dy y)) */
static void BP_NAME(softmax_backward)(BP_REAL *dx, const BP_REAL *dy, const BP_REAL *y, bp_size rows, bp_size cols) {
    for (bp_size r = 0; r < rows; r++, dx += cols, dy += cols, y += cols) {
        double total = 0;
        for (bp_size i = 0; i < cols; i += BP_CHUNK) {
            const bp_size end = cols - i < BP_CHUNK ? cols : i + BP_CHUNK;
            BP_REAL part = 0;
            BP_SIMD_SUM(part) for (bp_size c = i; c < end; c++) part += dy[c] * y[c];
            total += part;
        }
        const BP_REAL mean = (BP_REAL)total;
        BP_SIMD for (bp_size c = 0; c < cols; c++) dx[c] = y[c] * (dy[c] - mean);
    }
}

/* y = x - max - log(sum(e^(x - max))) */
static void BP_NAME(log_softmax)(BP_REAL *y, const BP_REAL *x, bp_size rows, bp_size cols) {
    if (cols < BP_NARROW && cols > 0) {
        BP_REAL m[BP_BLOCK], s[BP_BLOCK];
        const bp_size step = BP_BLOCK_ROWS(cols);
        for (bp_size r0 = 0; r0 < rows; r0 += step) {
            const bp_size block = rows - r0 < step ? rows - r0 : step;
            const BP_REAL *xr = x + r0 * cols;
            BP_REAL *z = y + r0 * cols;
            BP_NAME(block_exp)(z, m, s, xr, block, cols);
            BP_SIMD for (bp_size r = 0; r < block; r++) s[r] = BP_NAME(v_log)(s[r]);
            for (bp_size r = 0; r < block; r++, z += cols, xr += cols) {
                for (bp_size c = 0; c < cols; c++) z[c] = (xr[c] - m[r]) - s[r];
            }
        }
        return;
    }
    for (bp_size r = 0; r < rows; r++, x += cols, y += cols) {
        const BP_REAL m = BP_NAME(row_max)(x, cols), lse = BP_NAME(v_log)(BP_NAME(row_sum_exp)(x, m, cols));
        BP_SIMD for (bp_size c = 0; c < cols; c++) y[c] = (x[c] - m) - lse;
    }
}

/* dx = dy - e^y sum(dy) */
static void BP_NAME(log_softmax_backward)(BP_REAL *dx, const BP_REAL *dy, const BP_REAL *y, bp_size rows, bp_size cols) {
    for (bp_size r = 0; r < rows; r++, dx += cols, dy += cols, y += cols) {
        const BP_REAL total = (BP_REAL)BP_NAME(sum)(dy, cols);
        BP_SIMD for (bp_size c = 0; c < cols; c++) dx[c] = dy[c] - total * BP_NAME(v_exp_ftz)(y[c]);
    }
}

/* What is left of a row's cross-entropy once z = e^(x - m), its sum and lse = log(sum) are known. The target distribution is
 * q[c] = keep w[t] [c = t] + smooth w[c], with w = 1 where weight is NULL and `spread` = smooth times the sum of all w:
 *     loss = -sum(q log p),   dx = scale (p sum(q) - q) */
BP_INLINE BP_REAL BP_NAME(ce_row)(BP_REAL *dx, const BP_REAL *x, BP_REAL m, BP_REAL sum, BP_REAL lse, bp_size t,
                                  const BP_REAL *weight, bp_size cols, BP_REAL keep, BP_REAL smooth, BP_REAL spread,
                                  BP_REAL scale) {
    const BP_REAL q = keep * (weight ? weight[t] : 1);
    BP_REAL loss = q * (lse - (x[t] - m));
    if (smooth != 0) {
        double total = 0;
        for (bp_size i = 0; i < cols; i += BP_CHUNK) {
            const bp_size end = cols - i < BP_CHUNK ? cols : i + BP_CHUNK;
            BP_REAL part = 0;
            if (weight) {
                BP_SIMD_SUM(part) for (bp_size c = i; c < end; c++) part += weight[c] * (lse - (x[c] - m));
            } else {
                BP_SIMD_SUM(part) for (bp_size c = i; c < end; c++) part += lse - (x[c] - m);
            }
            total += part;
        }
        loss += smooth * (BP_REAL)total;
    }
    if (dx) {
        const BP_REAL factor = scale * (q + spread) / sum, low = scale * smooth;
        if (smooth != 0 && weight) {
            BP_SIMD for (bp_size c = 0; c < cols; c++) dx[c] = dx[c] * factor - low * weight[c];
        } else {
            BP_SIMD for (bp_size c = 0; c < cols; c++) dx[c] = dx[c] * factor - low;
        }
        dx[t] -= scale * q;
    }
    return loss;
}

/* Cross-entropy of logits x against classes t: loss[rows], and the gradient of scale times their sum in dx unless that is NULL.
 * Rows whose class is `ignore` cost nothing. Every other class must lie in 0..cols. */
static void BP_NAME(cross_entropy)(BP_REAL *loss, BP_REAL *dx, const BP_REAL *x, const int64_t *t, const BP_REAL *weight,
                                   bp_size rows, bp_size cols, int64_t ignore, BP_REAL smoothing, BP_REAL scale) {
    const BP_REAL keep = 1 - smoothing, smooth = cols > 0 ? smoothing / cols : 0;
    const BP_REAL spread = smooth == 0 ? 0 : smooth * (weight ? (BP_REAL)BP_NAME(sum)(weight, cols) : cols);
    BP_REAL scratch[BP_BLOCK], m[BP_BLOCK], sum[BP_BLOCK], lse[BP_BLOCK];
    const bp_size step = cols < BP_NARROW && cols > 0 ? BP_BLOCK_ROWS(cols) : 1;
    for (bp_size r0 = 0; r0 < rows; r0 += step) {
        const bp_size block = rows - r0 < step ? rows - r0 : step;
        if (step > 1) {
            BP_NAME(block_exp)(dx ? dx + r0 * cols : scratch, m, sum, x + r0 * cols, block, cols);
            BP_SIMD for (bp_size r = 0; r < block; r++) lse[r] = BP_NAME(v_log)(sum[r]);
        }
        for (bp_size i = 0; i < block; i++) {
            const bp_size r = r0 + i;
            const BP_REAL *xr = x + r * cols;
            BP_REAL *zr = dx ? dx + r * cols : NULL;
            if (t[r] == ignore) {
                loss[r] = 0;
                if (zr) memset(zr, 0, cols * sizeof *zr);
                continue;
            }
            if (step == 1) {
                m[i] = BP_NAME(row_max)(xr, cols);
                sum[i] = zr ? BP_NAME(row_exp)(zr, xr, m[i], cols) : BP_NAME(row_sum_exp)(xr, m[i], cols);
                lse[i] = BP_NAME(v_log)(sum[i]);
            }
            loss[r] = BP_NAME(ce_row)(zr, xr, m[i], sum[i], lse[i], (bp_size)t[r], weight, cols, keep, smooth, spread, scale);
        }
    }
}

/* The same against distributions: q[c] = ((1 - smoothing) target[c] + smoothing / cols) w[c]. */
static void BP_NAME(cross_entropy_soft)(BP_REAL *loss, BP_REAL *dx, const BP_REAL *x, const BP_REAL *target,
                                        const BP_REAL *weight, bp_size rows, bp_size cols, BP_REAL smoothing, BP_REAL scale) {
    const BP_REAL keep = 1 - smoothing, smooth = cols > 0 ? smoothing / cols : 0;
    for (bp_size r = 0; r < rows; r++, x += cols, target += cols) {
        const BP_REAL m = BP_NAME(row_max)(x, cols);
        const BP_REAL sum = BP_NAME(row_sum_exp)(x, m, cols), lse = BP_NAME(v_log)(sum);
        double cost = 0, mass = 0;
        for (bp_size i = 0; i < cols; i += BP_CHUNK) {
            const bp_size end = cols - i < BP_CHUNK ? cols : i + BP_CHUNK;
            BP_REAL part = 0, share = 0;
            BP_SIMD_SUM(part, share) for (bp_size c = i; c < end; c++) {
                const BP_REAL q = (keep * target[c] + smooth) * (weight ? weight[c] : 1);
                part += q * (lse - (x[c] - m));
                share += q;
            }
            cost += part;
            mass += share;
        }
        loss[r] = (BP_REAL)cost;
        if (dx) {
            const BP_REAL factor = (BP_REAL)mass / sum;
            BP_SIMD for (bp_size c = 0; c < cols; c++) {
                const BP_REAL q = (keep * target[c] + smooth) * (weight ? weight[c] : 1);
                dx[c] = scale * (BP_NAME(v_exp_ftz)(x[c] - m) * factor - q);
            }
            dx += cols;
        }
    }
}
