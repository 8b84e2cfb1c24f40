/* Normalization of the rows of x (rows, cols):
 *     h = (x - mean) rstd,   y = h w + b,   rstd = 1 / sqrt(var + eps);       root mean square: mean = 0, var = mean(x^2)
 *     g = dy w,   dx = rstd (g - mean(g) - h mean(g h)),   dw = sum(dy h), db = sum(dy) over rows;     there without mean(g)
 *
 * A row is read from memory once and then again from the first cache. Its mean is summed relative to its first element, and used as
 * m = (T)mean; what that rounds away goes into the offset o of h = (x - m) rstd + o. For dw and db each row adds to the sums of its
 * piece of rows as it passes.
 *
 * With a residual r the normalized rows are s = x + r: forward writes them too, and backward reads s as its x and adds ds to dx. */

#define BP_ROWS_CHUNK 2048 /* elements summed in the type of x before the sum goes into a double */
#define BP_ROWS_BLOCK 64   /* rows whose dw and db are summed before they go into the piece's */

/* sum(x - m), or sum((x - m)^2): two chains of additions, to keep the adders busy. */
BP_INLINE double BP_NAME(row_total)(const BP_REAL *x, bp_size n, BP_REAL m, int square) {
    double total = 0;
    for (bp_size begin = 0; begin < n; begin += BP_ROWS_CHUNK) {
        const bp_size half = (n - begin < BP_ROWS_CHUNK ? n - begin : BP_ROWS_CHUNK) / 2;
        const BP_REAL *u = x + begin, *v = u + half;
        BP_REAL s = 0, t = 0;
        BP_SIMD_SUM(s, t) for (bp_size i = 0; i < half; i++) {
            s += square ? (u[i] - m) * (u[i] - m) : u[i] - m;
            t += square ? (v[i] - m) * (v[i] - m) : v[i] - m;
        }
        total += s + t;
    }
    if (n & 1) total += square ? (double)(x[n - 1] - m) * (x[n - 1] - m) : x[n - 1] - m;
    return total;
}

BP_INLINE void BP_NAME(row_affine)(BP_REAL *BP_RESTRICT y, const BP_REAL *BP_RESTRICT x, const BP_REAL *BP_RESTRICT w,
                                   const BP_REAL *BP_RESTRICT b, bp_size n, BP_REAL m, BP_REAL r, BP_REAL o) {
    if (w && b) {
        BP_SIMD for (bp_size i = 0; i < n; i++) y[i] = ((x[i] - m) * r + o) * w[i] + b[i];
    } else if (w) {
        BP_SIMD for (bp_size i = 0; i < n; i++) y[i] = ((x[i] - m) * r + o) * w[i];
    } else if (b) {
        BP_SIMD for (bp_size i = 0; i < n; i++) y[i] = ((x[i] - m) * r + o) + b[i];
    } else {
        BP_SIMD for (bp_size i = 0; i < n; i++) y[i] = (x[i] - m) * r + o;
    }
}

BP_INLINE void BP_NAME(row_add)(BP_REAL *BP_RESTRICT s, const BP_REAL *x, const BP_REAL *r, bp_size n) {
    BP_SIMD for (bp_size i = 0; i < n; i++) s[i] = x[i] + r[i];
}

static void BP_NAME(forward)(void *job, bp_size begin, bp_size end) {
    const bp_layer_norm *j = job;
    const bp_size n = j->cols;
    for (bp_size row = begin; row < end; row++) {
        const BP_REAL *x = (const BP_REAL *)j->x + row * n;
        if (j->sum) {
            BP_REAL *s = (BP_REAL *)j->sum + row * n;
            BP_NAME(row_add)(s, x, (const BP_REAL *)j->residual + row * n, n);
            x = s;
        }
        const double mean = j->mean ? x[0] + BP_NAME(row_total)(x, n, x[0], 0) / n : 0;
        const BP_REAL m = (BP_REAL)mean;
        const double low = mean - m, var = BP_NAME(row_total)(x, n, m, 1) / n - low * low;
        const double rstd = 1 / sqrt((var < 0 ? 0 : var) + j->eps);
        if (j->mean) j->mean[row] = mean;
        j->rstd[row] = rstd;
        BP_NAME(row_affine)((BP_REAL *)j->out + row * n, x, j->weight, j->bias, n, m, (BP_REAL)rstd, (BP_REAL)(-low * rstd));
    }
}

static void BP_NAME(again)(void *job, bp_size begin, bp_size end) {
    const bp_layer_norm *j = job;
    const bp_size n = j->cols;
    for (bp_size row = begin; row < end; row++) {
        const double mean = j->mean ? j->mean[row] : 0, rstd = j->rstd[row];
        const BP_REAL m = (BP_REAL)mean;
        BP_NAME(row_affine)((BP_REAL *)j->out + row * n, (const BP_REAL *)j->x + row * n, j->weight, j->bias, n, m, (BP_REAL)rstd,
                            (BP_REAL)(-(mean - m) * rstd));
    }
}

/* What backward knows of a row. */
typedef struct {
    const BP_REAL *dy, *x, *ds;
    BP_REAL *dx;
    BP_REAL m, r, o;
    double s1, s2; /* sum(g), sum(g h) */
} BP_NAME(row);

BP_INLINE void BP_NAME(row_start)(BP_NAME(row) *a, const bp_layer_norm *j, bp_size row) {
    const double mean = j->mean ? j->mean[row] : 0, rstd = j->rstd[row];
    a->dy = (const BP_REAL *)j->dy + row * j->cols;
    a->x = (const BP_REAL *)j->x + row * j->cols;
    a->ds = j->ds ? (const BP_REAL *)j->ds + row * j->cols : NULL;
    a->dx = j->out ? (BP_REAL *)j->out + row * j->cols : NULL;
    a->m = (BP_REAL)mean;
    a->r = (BP_REAL)rstd;
    a->o = (BP_REAL)(-(mean - a->m) * rstd);
    a->s1 = a->s2 = 0;
}

/* s1 and s2 of two rows, and dw += dy h, db += dy of both (where keep). `other`: there is a second row. */
BP_INLINE void BP_NAME(row_sums)(BP_NAME(row) *a, BP_NAME(row) *b, BP_REAL *BP_RESTRICT dw, BP_REAL *BP_RESTRICT db,
                                 const BP_REAL *BP_RESTRICT w, bp_size n, int other, int keep) {
    const BP_REAL *BP_RESTRICT x0 = a->x, *BP_RESTRICT x1 = b->x, *BP_RESTRICT dy0 = a->dy, *BP_RESTRICT dy1 = b->dy;
    const BP_REAL m0 = a->m, m1 = b->m, r0 = a->r, r1 = b->r, o0 = a->o, o1 = b->o;
    for (bp_size begin = 0; begin < n; begin += BP_ROWS_CHUNK) {
        const bp_size end = n - begin < BP_ROWS_CHUNK ? n : begin + BP_ROWS_CHUNK;
        BP_REAL s = 0, t = 0, u = 0, v = 0;
        BP_SIMD_SUM(s, t, u, v) for (bp_size i = begin; i < end; i++) {
            const BP_REAL h0 = (x0[i] - m0) * r0 + o0, g0 = w ? dy0[i] * w[i] : dy0[i];
            s += g0;
            t += g0 * h0;
            if (other) {
                const BP_REAL h1 = (x1[i] - m1) * r1 + o1, g1 = w ? dy1[i] * w[i] : dy1[i];
                u += g1;
                v += g1 * h1;
                if (keep) {
                    dw[i] += dy0[i] * h0 + dy1[i] * h1;
                    db[i] += dy0[i] + dy1[i];
                }
            } else if (keep) {
                dw[i] += dy0[i] * h0;
                db[i] += dy0[i];
            }
        }
        a->s1 += s;
        a->s2 += t;
        b->s1 += u;
        b->s2 += v;
    }
}

BP_INLINE void BP_NAME(row_slopes)(const BP_NAME(row) *a, const BP_REAL *BP_RESTRICT w, bp_size n, int center) {
    const BP_REAL *BP_RESTRICT x = a->x, *BP_RESTRICT dy = a->dy, *BP_RESTRICT ds = a->ds;
    BP_REAL *BP_RESTRICT dx = a->dx;
    const BP_REAL m = a->m, r = a->r, o = a->o, c = (BP_REAL)(a->s2 / n), d = center ? (BP_REAL)(a->s1 / n) : 0;
    if (w && ds) {
        BP_SIMD for (bp_size i = 0; i < n; i++) dx[i] = (dy[i] * w[i] - d - ((x[i] - m) * r + o) * c) * r + ds[i];
    } else if (ds) {
        BP_SIMD for (bp_size i = 0; i < n; i++) dx[i] = (dy[i] - d - ((x[i] - m) * r + o) * c) * r + ds[i];
    } else if (w) {
        BP_SIMD for (bp_size i = 0; i < n; i++) dx[i] = (dy[i] * w[i] - d - ((x[i] - m) * r + o) * c) * r;
    } else {
        BP_SIMD for (bp_size i = 0; i < n; i++) dx[i] = (dy[i] - d - ((x[i] - m) * r + o) * c) * r;
    }
}

BP_INLINE void BP_NAME(two_rows)(const bp_layer_norm *j, bp_size row, int other, BP_REAL *dw, BP_REAL *db) {
    const bp_size n = j->cols;
    const BP_REAL *w = j->weight;
    BP_NAME(row) a, b;
    BP_NAME(row_start)(&a, j, row);
    BP_NAME(row_start)(&b, j, other ? row + 1 : row);
    /* every combination is a loop of its own */
    if (other && dw && w)
        BP_NAME(row_sums)(&a, &b, dw, db, w, n, 1, 1);
    else if (other && dw)
        BP_NAME(row_sums)(&a, &b, dw, db, NULL, n, 1, 1);
    else if (other && w)
        BP_NAME(row_sums)(&a, &b, NULL, NULL, w, n, 1, 0);
    else if (other)
        BP_NAME(row_sums)(&a, &b, NULL, NULL, NULL, n, 1, 0);
    else if (dw && w)
        BP_NAME(row_sums)(&a, &b, dw, db, w, n, 0, 1);
    else if (dw)
        BP_NAME(row_sums)(&a, &b, dw, db, NULL, n, 0, 1);
    else if (w)
        BP_NAME(row_sums)(&a, &b, NULL, NULL, w, n, 0, 0);
    else
        BP_NAME(row_sums)(&a, &b, NULL, NULL, NULL, n, 0, 0);
    if (j->out) {
        BP_NAME(row_slopes)(&a, w, n, j->mean != NULL);
        if (other) BP_NAME(row_slopes)(&b, w, n, j->mean != NULL);
    }
}

static void BP_NAME(backward)(void *job, bp_size begin, bp_size end) {
    const bp_layer_norm *j = job;
    const bp_size n = j->cols;
    for (bp_size p = begin; p < end; p++) {
        const bp_size last = (p + 1) * j->piece < j->rows ? (p + 1) * j->piece : j->rows;
        BP_REAL *total = j->part ? (BP_REAL *)j->part + 4 * p * n : NULL, *block = total ? total + 2 * n : NULL;
        if (total) memset(total, 0, 2 * n * sizeof *total);
        for (bp_size r0 = p * j->piece; r0 < last; r0 += BP_ROWS_BLOCK) {
            const bp_size r1 = last - r0 < BP_ROWS_BLOCK ? last : r0 + BP_ROWS_BLOCK;
            if (block) memset(block, 0, 2 * n * sizeof *block);
            bp_size row = r0;
            for (; row + 1 < r1; row += 2) BP_NAME(two_rows)(j, row, 1, block, block ? block + n : NULL);
            if (row < r1) BP_NAME(two_rows)(j, row, 0, block, block ? block + n : NULL);
            if (total) {
                BP_SIMD for (bp_size i = 0; i < 2 * n; i++) total[i] += block[i];
            }
        }
    }
}

static void BP_NAME(merge)(void *job, bp_size begin, bp_size end) {
    const bp_layer_norm *j = job;
    const bp_size n = j->cols, pieces = (j->rows + j->piece - 1) / j->piece;
    for (bp_size tile = begin; tile < end; tile++) {
        const bp_size c0 = tile * BP_ROWS_TILE, width = n - c0 < BP_ROWS_TILE ? n - c0 : BP_ROWS_TILE;
        double dw[BP_ROWS_TILE] = {0}, db[BP_ROWS_TILE] = {0};
        for (bp_size p = 0; p < pieces; p++) {
            const BP_REAL *one = (const BP_REAL *)j->part + 4 * p * n + c0;
            for (bp_size c = 0; c < width; c++) dw[c] += one[c];
            for (bp_size c = 0; c < width; c++) db[c] += one[n + c];
        }
        for (bp_size c = 0; j->dw && c < width; c++) ((BP_REAL *)j->dw)[c0 + c] = (BP_REAL)dw[c];
        for (bp_size c = 0; j->db && c < width; c++) ((BP_REAL *)j->db)[c0 + c] = (BP_REAL)db[c];
    }
}
