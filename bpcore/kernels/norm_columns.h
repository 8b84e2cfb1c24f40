/* The same where planes are too small for loops over them: over the columns of the matrix (N, C S), a tile of columns and
 * BP_NORM_ROWS rows at a time. The columns of a channel are merged like its pieces. part: (pieces, 2, C S). */

BP_INLINE bp_size BP_NAME(tiles_of)(const bp_norm *j) { return (j->C * j->S + BP_NORM_TILE - 1) / BP_NORM_TILE; }

/* An item's first column, how many columns, its first element, how many rows. */
#define BP_NORM_ITEM                                                                                                   \
    const bp_size cols = j->C * j->S, tiles = BP_NAME(tiles_of)(j), piece = i / tiles, c0 = i % tiles * BP_NORM_TILE;  \
    const bp_size width = cols - c0 < BP_NORM_TILE ? cols - c0 : BP_NORM_TILE;                                         \
    const bp_size row = piece * BP_NORM_ROWS, rows = j->N - row < BP_NORM_ROWS ? j->N - row : BP_NORM_ROWS;            \
    const bp_size at = row * cols + c0;

static void BP_NAME(column_moments)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) {
        BP_NORM_ITEM
        const BP_REAL *BP_RESTRICT shift = (const BP_REAL *)j->x + at;
        BP_REAL s[BP_NORM_TILE] = {0}, q[BP_NORM_TILE] = {0};
        double *mean = j->part + 2 * piece * cols + c0, *squares = mean + cols;
        for (bp_size r = 1; r < rows; r++) {
            const BP_REAL *BP_RESTRICT x = shift + r * cols;
            BP_SIMD for (bp_size c = 0; c < width; c++) {
                const BP_REAL d = x[c] - shift[c];
                s[c] += d;
                q[c] += d * d;
            }
        }
        for (bp_size c = 0; c < width; c++) {
            mean[c] = shift[c] + (double)s[c] / rows;
            squares[c] = q[c] - (double)s[c] * s[c] / rows;
        }
    }
}

/* The constants of the columns of channels begin..end. */
static void BP_NAME(column_constants)(void *job, bp_size begin, bp_size end) {
    const bp_norm *j = job;
    for (bp_size c = begin; c < end; c++) {
        BP_REAL *k = (BP_REAL *)j->lines + c * j->S;
        for (bp_size i = 0; i < j->S; i++) BP_NAME(constants)(k + i, j->C * j->S, j, c, j->mean[c], j->rstd[c]);
    }
}

/* The statistics of channels (where they are those of x), and the constants of their columns. */
static void BP_NAME(column_merge)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    const bp_size cols = j->C * j->S;
    for (bp_size c = begin; c < end; c++) {
        double all[2] = {0, 0}, count = 0;
        for (bp_size p = 0; j->train && p < j->pieces; p++) {
            const bp_size row = p * BP_NORM_ROWS, rows = j->N - row < BP_NORM_ROWS ? j->N - row : BP_NORM_ROWS;
            const double *mean = j->part + 2 * p * cols + c * j->S;
            for (bp_size i = 0; i < j->S; i++) BP_NAME(join)(all, &count, mean[i], mean[cols + i], (double)rows);
        }
        if (j->train) BP_NAME(keep)(j, c, all, count);
        BP_NAME(column_constants)(j, c, c + 1);
    }
}

static void BP_NAME(column_affine)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) {
        BP_NORM_ITEM
        const BP_REAL *k = (const BP_REAL *)j->lines + c0;
        for (bp_size r = 0; r < rows; r++) BP_NAME(any_affine)(j, at + r * cols, width, k, cols, 1);
    }
}

/* A row of a tile: dr = g, s1 += g, s2 += g (x - m). */
BP_INLINE void BP_NAME(column_line)(BP_REAL *BP_RESTRICT s1, BP_REAL *BP_RESTRICT s2, BP_REAL *BP_RESTRICT dr,
                                    const BP_REAL *BP_RESTRICT dy, const BP_REAL *BP_RESTRICT x, const BP_REAL *BP_RESTRICT y,
                                    bp_size n, const BP_REAL *BP_RESTRICT k, bp_size gap, int clip) {
    BP_SIMD for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = x[i] - k[i], g = BP_NAME(passed)(dy[i], BP_NORM_Z(y, d, i), clip);
        if (dr) dr[i] = g;
        s1[i] += g;
        s2[i] += g * d;
    }
}

static void BP_NAME(column_sums)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) {
        BP_NORM_ITEM
        const BP_REAL *k = (const BP_REAL *)j->lines + c0;
        BP_REAL s1[BP_NORM_TILE] = {0}, s2[BP_NORM_TILE] = {0};
        double *one = j->part + 2 * piece * cols + c0, *two = one + cols;
        for (bp_size r = 0; r < rows; r++) {
            const bp_size from = at + r * cols;
            const BP_REAL *dy = (const BP_REAL *)j->dy + from, *x = (const BP_REAL *)j->x + from;
            const BP_REAL *y = (const BP_REAL *)j->y + (j->y ? from : 0);
            BP_REAL *dr = (BP_REAL *)j->dr + (j->dr ? from : 0);
            if (j->clip == 0)
                BP_NAME(column_line)(s1, s2, NULL, dy, x, NULL, width, k, cols, 0);
            else if (!j->y && j->clip == 1)
                BP_NAME(column_line)(s1, s2, NULL, dy, x, NULL, width, k, cols, 1);
            else if (!j->y)
                BP_NAME(column_line)(s1, s2, NULL, dy, x, NULL, width, k, cols, 2);
            else if (j->clip == 1 && j->dr)
                BP_NAME(column_line)(s1, s2, dr, dy, x, y, width, k, cols, 1);
            else if (j->clip == 1)
                BP_NAME(column_line)(s1, s2, NULL, dy, x, y, width, k, cols, 1);
            else if (j->dr)
                BP_NAME(column_line)(s1, s2, dr, dy, x, y, width, k, cols, 2);
            else
                BP_NAME(column_line)(s1, s2, NULL, dy, x, y, width, k, cols, 2);
        }
        for (bp_size c = 0; c < width; c++) {
            one[c] = s1[c];
            two[c] = s2[c];
        }
    }
}

static void BP_NAME(column_merge_sums)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    const bp_size cols = j->C * j->S;
    for (bp_size c = begin; c < end; c++) {
        const double mean = j->mean[c];
        BP_REAL *k = (BP_REAL *)j->lines + c * j->S;
        double s[2] = {0, 0};
        for (bp_size p = 0; p < j->pieces; p++) {
            const double *one = j->part + 2 * p * cols + c * j->S;
            for (bp_size i = 0; i < j->S; i++) {
                s[0] += one[i];
                s[1] += one[cols + i];
            }
        }
        s[1] -= (mean - (BP_REAL)mean) * s[0];
        if (j->dw) ((BP_REAL *)j->dw)[c] = (BP_REAL)(s[1] * j->rstd[c]);
        if (j->db) ((BP_REAL *)j->db)[c] = (BP_REAL)s[0];
        for (bp_size i = 0; i < j->S; i++) {
            BP_NAME(slope_constants)(k + i, cols, j, c, mean, j->rstd[c], s, (double)j->N * j->S);
        }
    }
}

static void BP_NAME(column_slopes)(void *job, bp_size begin, bp_size end) {
    bp_norm *j = job;
    for (bp_size i = begin; i < end; i++) {
        BP_NORM_ITEM
        const BP_REAL *k = (const BP_REAL *)j->lines + c0;
        for (bp_size r = 0; r < rows; r++) BP_NAME(any_slopes)(j, at + r * cols, width, k, cols, 1);
    }
}
