/* Products with few rows: dot products along k where both operands are contiguous in it, multiply-adds of whole rows of b
 * where its rows are. The large operand is read once, as it lies.
 *
 * As in a tile, the order of the additions in an element depends on nothing but k.
 */

#ifdef BP_VECTORS
#define half BP_NAME(half)
/* Sum of the lanes, by halves. */
BP_INLINE BP_REAL BP_NAME(lanes)(const vec x) {
    BP_REAL s[BP_WIDTH / sizeof(BP_REAL)];
    *(vecu *)s = x;
    BP_UNROLL for (int h = BP_WIDTH / sizeof(BP_REAL) / 2; h > 0; h /= 2)
        BP_UNROLL for (int i = 0; i < h; i++) s[i] += s[i + h];
    return s[0];
}

/* out[i * n + j] = sum_p a[i][p] b[j][p] for m rows of a and n of b. */
BP_INLINE void BP_NAME(dots)(const int m, const int n, bp_size k, const BP_REAL *a, bp_size rsa, const BP_REAL *b, bp_size csb,
                             BP_REAL *out) {
    vec acc[4][8];
    BP_UNROLL for (int i = 0; i < m; i++)
        BP_UNROLL for (int j = 0; j < n; j++) acc[i][j] = (vec){0};
    bp_size p = 0;
    for (; p + BP_VL <= k; p += BP_VL) {
        vec x[4];
        BP_UNROLL for (int i = 0; i < m; i++) x[i] = *(const vecu *)(a + i * rsa + p);
        BP_UNROLL for (int j = 0; j < n; j++) {
            const vec y = *(const vecu *)(b + j * csb + p);
            BP_UNROLL for (int i = 0; i < m; i++) acc[i][j] += x[i] * y;
        }
    }
    if (p < k) { /* the tail, padded with zeros */
        vec x[4];
        BP_UNROLL for (int i = 0; i < m; i++) {
            x[i] = (vec){0};
            memcpy(&x[i], a + i * rsa + p, (k - p) * sizeof(BP_REAL));
        }
        BP_UNROLL for (int j = 0; j < n; j++) {
            vec y = (vec){0};
            memcpy(&y, b + j * csb + p, (k - p) * sizeof(BP_REAL));
            BP_UNROLL for (int i = 0; i < m; i++) acc[i][j] += x[i] * y;
        }
    }
    BP_UNROLL for (int i = 0; i < m; i++)
        BP_UNROLL for (int j = 0; j < n; j++) out[i * n + j] = BP_NAME(lanes)(acc[i][j]);
}
#else
BP_INLINE void BP_NAME(dots)(const int m, const int n, bp_size k, const BP_REAL *a, bp_size rsa, const BP_REAL *b, bp_size csb,
                             BP_REAL *out) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            BP_REAL s = 0;
            for (bp_size p = 0; p < k; p++) s += a[i * rsa + p] * b[j * csb + p];
            out[i * n + j] = s;
        }
}
#endif

/* How many rows of b meet 1..4 rows of a: the accumulators fit the registers. */
#if BP_MR == 12
#define BP_DOT_N {0, 8, 8, 6, 6}
#define BP_DOTS(m, ...) (m == 1 ? BP_NAME(dots)(1, 8, __VA_ARGS__) : m == 2 ? BP_NAME(dots)(2, 8, __VA_ARGS__) : m == 3 ? BP_NAME(dots)(3, 6, __VA_ARGS__) : BP_NAME(dots)(4, 6, __VA_ARGS__))
#else
#define BP_DOT_N {0, 8, 4, 4, 3}
#define BP_DOTS(m, ...) (m == 1 ? BP_NAME(dots)(1, 8, __VA_ARGS__) : m == 2 ? BP_NAME(dots)(2, 4, __VA_ARGS__) : m == 3 ? BP_NAME(dots)(3, 4, __VA_ARGS__) : BP_NAME(dots)(4, 3, __VA_ARGS__))
#endif

/* Rows i0..i1 and columns j0..j1 of a product whose a is contiguous along its rows and b along its columns. */
static void BP_NAME(gemm_dot)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1) {
    static const int widths[5] = BP_DOT_N;
    const BP_REAL *bias = (const BP_REAL *)g->bias;
    BP_TILE_OUT to = {NULL, g->rsc, g->csc, 0, (BP_REAL)g->alpha, (BP_REAL)g->beta, NULL, g->transposed};
    const int m = i1 - i0 < 4 ? (int)(i1 - i0) : 4;
    const int n = widths[m];
    BP_REAL out[4 * 8];
    for (bp_size j = j0, nj; j < j1; j += nj) {
        nj = j1 - j < n ? 1 : n;
        for (bp_size i = i0, ni; i < i1; i += ni) {
            ni = i1 - i < m ? 1 : m;
            const BP_REAL *a = (const BP_REAL *)g->a + i * g->rsa, *b = (const BP_REAL *)g->b + j * g->csb;
            if (nj == n && ni == m)
                BP_DOTS(m, g->k, a, g->rsa, b, g->csb, out);
            else if (nj == n)
                for (bp_size q = 0; q < n; q++) BP_NAME(dots)(1, 1, g->k, a, g->rsa, b + q * g->csb, g->csb, out + q);
            else
                for (bp_size q = 0; q < ni; q++) BP_NAME(dots)(1, 1, g->k, a + q * g->rsa, g->rsa, b, g->csb, out + q);
            to.c = (BP_REAL *)g->c + i * g->rsc + j * g->csc;
            to.n = nj;
            to.bias = bias ? bias + (g->transposed ? i : j) : NULL;
            BP_NAME(tile_edge)(out, nj, ni, &to);
        }
    }
}

#define BP_AXPY_BYTES 16384

/* sum[i][j] += sum_p a[i][p] b[p][j] for m <= 4 rows, four steps of k at a time. */
BP_INLINE void BP_NAME(axpys)(const int m, BP_REAL *BP_RESTRICT sum, bp_size n, bp_size k, const BP_REAL *a, bp_size rsa,
                              bp_size csa, const BP_REAL *BP_RESTRICT b, bp_size rsb) {
    bp_size p = 0;
    for (; p + 4 <= k; p += 4) {
        const BP_REAL *b0 = b + p * rsb, *b1 = b0 + rsb, *b2 = b1 + rsb, *b3 = b2 + rsb;
        BP_REAL x[4][4];
        for (int i = 0; i < m; i++)
            for (int q = 0; q < 4; q++) x[i][q] = a[i * rsa + (p + q) * csa];
        BP_SIMD
        for (bp_size j = 0; j < n; j++) {
            const BP_REAL y0 = b0[j], y1 = b1[j], y2 = b2[j], y3 = b3[j];
            for (int i = 0; i < m; i++) {
                BP_REAL s = sum[i * n + j];
                s += x[i][0] * y0;
                s += x[i][1] * y1;
                s += x[i][2] * y2;
                s += x[i][3] * y3;
                sum[i * n + j] = s;
            }
        }
    }
    for (; p < k; p++)
        for (int i = 0; i < m; i++) {
            const BP_REAL x = a[i * rsa + p * csa];
            BP_SIMD
            for (bp_size j = 0; j < n; j++) sum[i * n + j] += x * b[p * rsb + j];
        }
}

/* Rows i0..i1 and columns j0..j1 of a product whose b is contiguous along its rows. */
static void BP_NAME(gemm_axpy)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1) {
    BP_REAL sum[BP_AXPY_BYTES / sizeof(BP_REAL)];
    const BP_REAL *bias = (const BP_REAL *)g->bias;
    BP_TILE_OUT to = {NULL, g->rsc, g->csc, 0, (BP_REAL)g->alpha, (BP_REAL)g->beta, NULL, g->transposed};
    for (bp_size i = i0, ni; i < i1; i += ni) {
        ni = i1 - i < 4 ? i1 - i : 4;
        const bp_size block = (bp_size)(BP_AXPY_BYTES / sizeof(BP_REAL)) / ni & -BP_VL;
        for (bp_size j = j0, nj; j < j1; j += nj) {
            nj = j1 - j < block ? j1 - j : block;
            const BP_REAL *a = (const BP_REAL *)g->a + i * g->rsa, *b = (const BP_REAL *)g->b + j;
            for (bp_size q = 0; q < ni * nj; q++) sum[q] = 0;
            if (ni == 1)
                BP_NAME(axpys)(1, sum, nj, g->k, a, g->rsa, g->csa, b, g->rsb);
            else if (ni == 2)
                BP_NAME(axpys)(2, sum, nj, g->k, a, g->rsa, g->csa, b, g->rsb);
            else if (ni == 3)
                BP_NAME(axpys)(3, sum, nj, g->k, a, g->rsa, g->csa, b, g->rsb);
            else
                BP_NAME(axpys)(4, sum, nj, g->k, a, g->rsa, g->csa, b, g->rsb);
            to.c = (BP_REAL *)g->c + i * g->rsc + j * g->csc;
            to.n = nj;
            to.bias = bias ? bias + (g->transposed ? i : j) : NULL;
            BP_NAME(tile_edge)(sum, nj, ni, &to);
        }
    }
}
