/* The two tiles of a convolution, held in registers over all of k: multiply-adds in the order of k, whatever the tile.
 *
 *     pixels_tile   y[i][j]   = sum_p w[p][i] x[off[p] + j]          neighboring places lie along a vector
 *     rows_tile     a[i][j]  += sum_p x[off[p] + i rs] b[p][j]       outputs lie along a vector; = where it starts `fresh`
 */
#define BP_PIXELS_OUT BP_NAME(pixels_out)

/* Where a tile of places goes: vector v to y[v], of which n[v] elements exist, `spread` apart; outputs are ld apart. */
typedef struct {
    BP_REAL *y[2];
    bp_size n[2], ld, spread;
    const BP_REAL *bias; /* at the tile's first output, or NULL */
} BP_PIXELS_OUT;

/* n elements of a vector: where they are neighbors, two pieces that overlap. */
BP_INLINE void BP_NAME(pixels_edge)(BP_REAL *y, const BP_REAL *acc, bp_size n, bp_size spread) {
    enum { half = BP_WIDTH / 2 / sizeof(BP_REAL), quarter = half / 2 };
    if (spread == 1 && n >= half) {
        memcpy(y, acc, half * sizeof(BP_REAL));
        memcpy(y + n - half, acc + n - half, half * sizeof(BP_REAL));
    } else if (spread == 1 && quarter && n >= quarter) {
        memcpy(y, acc, quarter * sizeof(BP_REAL));
        memcpy(y + n - quarter, acc + n - quarter, quarter * sizeof(BP_REAL));
    } else {
        for (bp_size j = 0; j < n; j++) y[j * spread] = acc[j];
    }
}

#ifdef BP_VECTORS
BP_INLINE void BP_NAME(pixels_tile)(const int m, const int nv, bp_size k, const BP_REAL *w, const BP_REAL *x0, const BP_REAL *x1,
                                    const bp_size *off, const BP_PIXELS_OUT *out) {
    vec acc[BP_MR][2];
    BP_UNROLL for (int i = 0; i < m; i++)
        BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = (vec){0};
    for (bp_size p = 0; p < k; p++, w += m) {
        vec row[2];
        row[0] = *(const vecu *)(x0 + off[p]);
        if (nv == 2) row[1] = *(const vecu *)(x1 + off[p]);
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] += w[i] * row[v];
    }
    if (out->bias)
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] += out->bias[i];
    BP_UNROLL for (int v = 0; v < nv; v++) {
        BP_REAL *y = out->y[v];
        if (out->n[v] == BP_VL && out->spread == 1) {
            BP_UNROLL for (int i = 0; i < m; i++) *(vecu *)(y + i * out->ld) = acc[i][v];
        } else {
            vec tmp[BP_MR];
            BP_UNROLL for (int i = 0; i < m; i++) tmp[i] = acc[i][v];
            for (int i = 0; i < m; i++) BP_NAME(pixels_edge)(y + i * out->ld, (const BP_REAL *)(tmp + i), out->n[v], out->spread);
        }
    }
}

BP_INLINE void BP_NAME(rows_tile)(const int m, const int nv, bp_size k, const BP_REAL *x, const bp_size *off, const bp_size rs,
                                  const BP_REAL *b, BP_REAL *a, bp_size lda, int fresh) {
    vec acc[BP_MR][2];
    if (fresh) {
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = (vec){0};
    } else {
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = *(const vecu *)(a + i * lda + v * BP_VL);
    }
    for (bp_size p = 0; p < k; p++, b += nv * BP_VL) {
        const BP_REAL *at = x + off[p];
        vec row[2];
        BP_UNROLL for (int v = 0; v < nv; v++) row[v] = *(const vecu *)(b + v * BP_VL);
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] += at[i * rs] * row[v];
    }
    BP_UNROLL for (int i = 0; i < m; i++)
        BP_UNROLL for (int v = 0; v < nv; v++) *(vecu *)(a + i * lda + v * BP_VL) = acc[i][v];
}
#else
BP_INLINE void BP_NAME(pixels_tile)(const int m, const int nv, bp_size k, const BP_REAL *w, const BP_REAL *x0, const BP_REAL *x1,
                                    const bp_size *off, const BP_PIXELS_OUT *out) {
    for (int v = 0; v < nv; v++) {
        const BP_REAL *x = v ? x1 : x0;
        BP_REAL acc[BP_MR][BP_WIDTH / sizeof(BP_REAL)] = {{0}};
        for (bp_size p = 0; p < k; p++)
            for (int i = 0; i < m; i++)
                for (int j = 0; j < BP_VL; j++) acc[i][j] += w[p * m + i] * x[off[p] + j];
        for (int i = 0; i < m; i++) {
            for (int j = 0; j < BP_VL && out->bias; j++) acc[i][j] += out->bias[i];
            BP_NAME(pixels_edge)(out->y[v] + i * out->ld, acc[i], out->n[v], out->spread);
        }
    }
}

BP_INLINE void BP_NAME(rows_tile)(const int m, const int nv, bp_size k, const BP_REAL *x, const bp_size *off, const bp_size rs,
                                  const BP_REAL *b, BP_REAL *a, bp_size lda, int fresh) {
    for (int i = 0; i < m && fresh; i++)
        for (int j = 0; j < nv * BP_VL; j++) a[i * lda + j] = 0;
    for (bp_size p = 0; p < k; p++)
        for (int i = 0; i < m; i++)
            for (int j = 0; j < nv * BP_VL; j++) a[i * lda + j] += x[off[p] + i * rs] * b[p * nv * BP_VL + j];
}
#endif

typedef void (*BP_NAME(pixels_fn))(bp_size k, const BP_REAL *w, const BP_REAL *x0, const BP_REAL *x1, const bp_size *off,
                                   const BP_PIXELS_OUT *out);
typedef void (*BP_NAME(rows_fn))(bp_size k, const BP_REAL *x, const bp_size *off, bp_size rs, const BP_REAL *b, BP_REAL *a,
                                 bp_size lda, int fresh);

/* One copy of each body for each number of rows and vectors; rows that are neighbors (rs = 1) have copies of their own. */
#define BP_CONV_TILE(m, nv)                                                                                                   \
    static void BP_NAME(pixels_##m##_##nv)(bp_size k, const BP_REAL *w, const BP_REAL *x0, const BP_REAL *x1,                 \
                                           const bp_size *off, const BP_PIXELS_OUT *out) {                                    \
        BP_NAME(pixels_tile)(m, nv, k, w, x0, x1, off, out);                                                                  \
    }                                                                                                                         \
    static void BP_NAME(rows_##m##_##nv)(bp_size k, const BP_REAL *x, const bp_size *off, bp_size rs, const BP_REAL *b,       \
                                         BP_REAL *a, bp_size lda, int fresh) {                                                \
        BP_NAME(rows_tile)(m, nv, k, x, off, rs, b, a, lda, fresh);                                                           \
    }                                                                                                                         \
    static void BP_NAME(unit_##m##_##nv)(bp_size k, const BP_REAL *x, const bp_size *off, bp_size rs, const BP_REAL *b,       \
                                         BP_REAL *a, bp_size lda, int fresh) {                                                \
        (void)rs;                                                                                                             \
        BP_NAME(rows_tile)(m, nv, k, x, off, 1, b, a, lda, fresh);                                                            \
    }
#define BP_CONV_TILES(m) BP_CONV_TILE(m, 1) BP_CONV_TILE(m, 2)
BP_CONV_TILES(1) BP_CONV_TILES(2) BP_CONV_TILES(3) BP_CONV_TILES(4) BP_CONV_TILES(5) BP_CONV_TILES(6)
#if BP_MR == 12
BP_CONV_TILES(7) BP_CONV_TILES(8) BP_CONV_TILES(9) BP_CONV_TILES(10) BP_CONV_TILES(11) BP_CONV_TILES(12)
#endif

#if BP_MR == 12
#define BP_CONV_TABLE(form)                                                                                                   \
    {                                                                                                                         \
        {NULL}, BP_CONV_PAIR(form, 1), BP_CONV_PAIR(form, 2), BP_CONV_PAIR(form, 3), BP_CONV_PAIR(form, 4),                   \
            BP_CONV_PAIR(form, 5), BP_CONV_PAIR(form, 6), BP_CONV_PAIR(form, 7), BP_CONV_PAIR(form, 8),                       \
            BP_CONV_PAIR(form, 9), BP_CONV_PAIR(form, 10), BP_CONV_PAIR(form, 11), BP_CONV_PAIR(form, 12)                     \
    }
#else
#define BP_CONV_TABLE(form)                                                                                                   \
    {                                                                                                                         \
        {NULL}, BP_CONV_PAIR(form, 1), BP_CONV_PAIR(form, 2), BP_CONV_PAIR(form, 3), BP_CONV_PAIR(form, 4),                   \
            BP_CONV_PAIR(form, 5), BP_CONV_PAIR(form, 6)                                                                      \
    }
#endif
#define BP_CONV_PAIR(form, m) {NULL, BP_NAME(form##_##m##_1), BP_NAME(form##_##m##_2)}
static const BP_NAME(pixels_fn) BP_NAME(pixels)[BP_MR + 1][3] = BP_CONV_TABLE(pixels);
static const BP_NAME(rows_fn) BP_NAME(rows)[BP_MR + 1][3] = BP_CONV_TABLE(rows);
static const BP_NAME(rows_fn) BP_NAME(unit_rows)[BP_MR + 1][3] = BP_CONV_TABLE(unit);
