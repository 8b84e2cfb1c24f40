/* Products with few rows: dot products along k where both operands are contiguous in it, multiply-adds of whole rows of b
 * where its rows are. The large operand is read once, as it lies.
 *
 * As in a tile, the order of the additions in an element depends on nothing but k.
 */

#ifdef BP_VECTORS
#define bits BP_NAME(bits)
#define half BP_NAME(half)
#define quad BP_NAME(quad)
#if BP_F32
typedef int32_t BP_NAME(lane);
#else
typedef int64_t BP_NAME(lane);
#endif
typedef BP_NAME(lane) bits __attribute__((vector_size(BP_WIDTH), aligned(sizeof(BP_REAL)), may_alias));

/* Sum of the lanes, by halves. */
BP_INLINE BP_REAL BP_NAME(lanes)(vec x) {
#if BP_WIDTH == 64
    typedef BP_REAL half __attribute__((vector_size(32)));
    half h[2];
    memcpy(h, &x, sizeof x);
    h[0] += h[1];
    quad q[2];
    memcpy(q, &h[0], sizeof q);
    q[0] += q[1];
#elif BP_WIDTH == 32
    quad q[2];
    memcpy(q, &x, sizeof q);
    q[0] += q[1];
#else
    quad q[1] = {x};
#endif
    return BP_F32 ? (q[0][0] + q[0][BP_Q / 2]) + (q[0][1] + q[0][BP_Q - 1]) : q[0][0] + q[0][1];
}

/* out[i * n + j] = sum_p a[i][p] b[j][p] for m rows of a and n of b; k is at least one vector. */
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
    if (p < k) { /* the last vector again, with the lanes cleared that have been counted */
        BP_NAME(lane) keep[BP_WIDTH / sizeof(BP_REAL)];
        for (int i = 0; i < BP_VL; i++) keep[i] = i < p + BP_VL - k ? 0 : -1;
        const bits mask = *(const bits *)keep;
        vec x[4];
        BP_UNROLL for (int i = 0; i < m; i++) x[i] = (vec)(*(const bits *)(a + i * rsa + k - BP_VL) & mask);
        BP_UNROLL for (int j = 0; j < n; j++) {
            const vec y = (vec)(*(const bits *)(b + j * csb + k - BP_VL) & mask);
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

/* m rows of a meet this many rows of b: as many accumulators as the registers hold. `many`: more rows of a come after. */
#if BP_MR == 12
#define BP_DOT_N(m, many) ((m) > 2 || (many) ? 6 : 8)
#else
#define BP_DOT_N(m, many) ((m) > 3 || (many) ? 3 : (m) > 1 ? 4 : 8)
#endif
#define BP_DOT_CASE(m, n)                                         \
    case 16 * m + n:                                              \
        BP_NAME(dots)(m, n, k, a, rsa, b, csb, out);              \
        break;

static void BP_NAME(dots_of)(int m, int n, bp_size k, const BP_REAL *a, bp_size rsa, const BP_REAL *b, bp_size csb,
                             BP_REAL *out) {
    switch (16 * m + n) {
        BP_DOT_CASE(1, 1) BP_DOT_CASE(2, 1) BP_DOT_CASE(3, 1) BP_DOT_CASE(4, 1) BP_DOT_CASE(1, 8)
#if BP_MR == 12
        BP_DOT_CASE(2, 8) BP_DOT_CASE(2, 6) BP_DOT_CASE(3, 6) BP_DOT_CASE(4, 6)
#else
        BP_DOT_CASE(2, 4) BP_DOT_CASE(3, 4) BP_DOT_CASE(2, 3) BP_DOT_CASE(3, 3) BP_DOT_CASE(4, 3)
#endif
    }
}

/* n columns from j on, `apart` from one another, in rows i0..i1. */
BP_INLINE void BP_NAME(dot_columns)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j, int n, bp_size apart) {
    const bp_size rows = i1 - i0, parts = (rows + 3) / 4;
    BP_TILE_OUT to = {NULL, g->rsc, g->csc * apart, n, (BP_REAL)g->alpha, (BP_REAL)g->beta, NULL, g->transposed};
    const BP_REAL *bias = (const BP_REAL *)g->bias;
    BP_REAL out[4 * 8], own[8];
    if (bias && !g->transposed) {
        for (int q = 0; q < n; q++) own[q] = bias[j + q * apart];
        to.bias = own;
    }
    for (bp_size q = 0; q < parts; q++) {
        const bp_size i = i0 + rows * q / parts;
        const int m = (int)(i0 + rows * (q + 1) / parts - i);
        BP_NAME(dots_of)(m, n, g->k, (const BP_REAL *)g->a + i * g->rsa, g->rsa, (const BP_REAL *)g->b + j * g->csb,
                         g->csb * apart, out);
        to.c = (BP_REAL *)g->c + i * g->rsc + j * g->csc;
        if (bias && g->transposed) to.bias = bias + i;
        BP_NAME(tile_edge)(out, n, m, &to);
    }
}

#define BP_DOT_COLD (256 << 10)

/* Rows i0..i1 and columns j0..j1 of a product whose a is contiguous along its rows and b along its columns.
 *
 * A b that comes from memory is read as a few long streams, far from one another: neighbouring columns are short ones, at whose ends
 * the processor's prefetching begins anew. */
static void BP_NAME(gemm_dot)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1) {
    const bp_size rows = i1 - i0;
    const int most = BP_DOT_N((int)(rows < 4 ? rows : 4), rows > 4);
    const bp_size apart = (j1 - j0) * g->k * (bp_size)sizeof(BP_REAL) > BP_DOT_COLD ? (j1 - j0) / most : 0;
    for (bp_size j = j0; j < j0 + apart; j++) BP_NAME(dot_columns)(g, i0, i1, j, most, apart);
    for (bp_size j = j0 + apart * most; j < j1;) {
        const int n = j1 - j < most ? 1 : most;
        BP_NAME(dot_columns)(g, i0, i1, j, n, 1);
        j += n;
    }
}

#define BP_AXPY_BYTES 16384

/* sum[i][j] += sum_p a[i][p] b[p][j] for m <= 8 rows, four steps of k at a time. */
BP_INLINE void BP_NAME(axpys)(const int m, BP_REAL *BP_RESTRICT sum, bp_size n, bp_size k, const BP_REAL *a, bp_size rsa,
                              bp_size csa, const BP_REAL *BP_RESTRICT b, bp_size rsb) {
    bp_size p = 0;
    for (; p + 4 <= k; p += 4) {
        const BP_REAL *b0 = b + p * rsb, *b1 = b0 + rsb, *b2 = b1 + rsb, *b3 = b2 + rsb;
        BP_REAL x[8][4];
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

#define BP_AXPY_CASE(m)                                                    \
    case m:                                                                \
        BP_NAME(axpys)(m, sum, nj, g->k, a, g->rsa, g->csa, b, g->rsb);    \
        break;

/* Rows i0..i1 and columns j0..j1 of a product whose b is contiguous along its rows. */
static void BP_NAME(gemm_axpy)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1) {
    BP_REAL sum[BP_AXPY_BYTES / sizeof(BP_REAL)];
    const BP_REAL *bias = (const BP_REAL *)g->bias;
    BP_TILE_OUT to = {NULL, g->rsc, g->csc, 0, (BP_REAL)g->alpha, (BP_REAL)g->beta, NULL, g->transposed};
    for (bp_size i = i0, ni; i < i1; i += ni) {
        ni = i1 - i < 8 ? i1 - i : 8;
        const bp_size block = (bp_size)(BP_AXPY_BYTES / sizeof(BP_REAL)) / ni & -BP_VL;
        for (bp_size j = j0, nj; j < j1; j += nj) {
            nj = j1 - j < block ? j1 - j : block;
            const BP_REAL *a = (const BP_REAL *)g->a + i * g->rsa, *b = (const BP_REAL *)g->b + j;
            for (bp_size q = 0; q < ni * nj; q++) sum[q] = 0;
            switch (ni) {
                BP_AXPY_CASE(1) BP_AXPY_CASE(2) BP_AXPY_CASE(3) BP_AXPY_CASE(4)
                BP_AXPY_CASE(5) BP_AXPY_CASE(6) BP_AXPY_CASE(7) BP_AXPY_CASE(8)
            }
            to.c = (BP_REAL *)g->c + i * g->rsc + j * g->csc;
            to.n = nj;
            to.bias = bias ? bias + (g->transposed ? i : j) : NULL;
            BP_NAME(tile_edge)(sum, nj, ni, &to);
        }
    }
}
