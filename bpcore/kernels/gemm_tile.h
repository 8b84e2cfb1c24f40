/* The inner tile of a matrix product: c[m][n] += a[m][k] b[k][n], held in registers over the whole of k.
 *
 * Every element is one chain of multiply-adds in the order of k, whatever the shape of the tile: so results do not depend on
 * how a product is cut into tiles or panels. A tile has 1..BP_MR rows and one or two vectors of columns.
 */
#define BP_TILE_OUT BP_NAME(tile_out)

/* Where a finished tile goes: c = alpha acc + beta c + bias, of which n columns exist. */
typedef struct {
    BP_REAL *c;
    bp_size rsc, csc, n;
    BP_REAL alpha, beta;
    const BP_REAL *bias; /* at this tile's first column, or first row */
    int bias_rows;
} BP_TILE_OUT;

BP_INLINE BP_REAL BP_NAME(finish)(BP_REAL acc, const BP_REAL *c, BP_REAL alpha, BP_REAL beta) {
    BP_REAL x = alpha * acc;
    return beta == 0 ? x : x + beta * *c;
}

#ifdef BP_VECTORS
#if BP_MR == 12
/* A tile of a product that was turned round: its columns are rows of c. Four (two) of each at a time; returns the number of
 * columns done, for all of the rows up to a multiple of BP_Q. */
static bp_size BP_NAME(tile_turned)(const BP_REAL *acc, bp_size ld, bp_size m, const BP_TILE_OUT *out) {
    const BP_REAL alpha = out->alpha, beta = out->beta;
    const bp_size m4 = m / BP_Q * BP_Q, n4 = out->n / BP_Q * BP_Q;
    for (bp_size j = 0; j < n4; j += BP_Q)
        for (bp_size i = 0; i < m4; i += BP_Q) {
            BP_REAL block[4 * 4] __attribute__((aligned(16)));
            BP_NAME(transpose_block)(block, BP_Q, acc + i * ld + j, ld);
            for (int q = 0; q < BP_Q; q++) {
                quadu *c = (quadu *)(out->c + i + (j + q) * out->csc);
                quad x = alpha * *(quad *)(block + q * BP_Q);
                if (beta != 0) x += beta * *c;
                if (out->bias && out->bias_rows) x += *(const quadu *)(out->bias + i);
                if (out->bias && !out->bias_rows) x += out->bias[j + q];
                *c = x;
            }
        }
    return n4;
}
#endif
#endif

/* The general way out, for edges and for a c that is not contiguous along its rows. */
static void BP_NAME(tile_edge)(const BP_REAL *acc, bp_size ld, bp_size m, const BP_TILE_OUT *out) {
    const bp_size rsc = out->rsc, csc = out->csc, n = out->n;
    const BP_REAL alpha = out->alpha, beta = out->beta;
    if (csc == 1 || m == 1) {
        for (bp_size i = 0; i < m; i++) {
            BP_REAL *c = out->c + i * rsc;
            for (bp_size j = 0; j < n; j++) c[j * csc] = BP_NAME(finish)(acc[i * ld + j], c + j * csc, alpha, beta);
            if (out->bias)
                for (bp_size j = 0; j < n; j++) c[j * csc] += out->bias[out->bias_rows ? i : j];
        }
    } else {
        bp_size turned = 0, whole = 0;
#if defined(BP_VECTORS) && BP_MR == 12 /* shorter tiles gain nothing */
        if (rsc == 1) turned = BP_NAME(tile_turned)(acc, ld, m, out), whole = m / BP_Q * BP_Q;
#endif
        for (bp_size j = 0; j < n; j++) {
            BP_REAL *c = out->c + j * csc;
            const bp_size i0 = j < turned ? whole : 0;
            for (bp_size i = i0; i < m; i++) c[i * rsc] = BP_NAME(finish)(acc[i * ld + j], c + i * rsc, alpha, beta);
            if (out->bias)
                for (bp_size i = i0; i < m; i++) c[i * rsc] += out->bias[out->bias_rows ? i : j];
        }
    }
}

#ifdef BP_VECTORS
/* m, nv, rsa and csa are constants where they can be: one copy of the body for each of them. */
BP_INLINE void BP_NAME(tile)(const int m, const int nv, bp_size k, const BP_REAL *a, const bp_size rsa, const bp_size csa,
                             const BP_REAL *b, bp_size ldb, const BP_TILE_OUT *out) {
    vec acc[BP_MR][2];
    BP_UNROLL for (int i = 0; i < m; i++)
        BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = (vec){0};
    BP_UNROLL for (int i = 0; i < m; i++) { /* c is needed last, and is rarely near */
        __builtin_prefetch(out->c + i * out->rsc, 1);
        __builtin_prefetch(out->c + i * out->rsc + nv * BP_VL - 1, 1);
    }
    for (bp_size p = 0; p < k; p++, a += csa, b += ldb) {
        vec row[2];
        BP_UNROLL for (int v = 0; v < nv; v++) row[v] = *(const vecu *)(b + v * BP_VL);
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) acc[i][v] += a[i * rsa] * row[v];
    }
    /* The common ways out are short; every other one goes through tile_edge. */
    const int plain = out->csc == 1 && out->n == nv * BP_VL && out->alpha == 1 && !out->bias;
    if (plain && out->beta == 0) {
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) *(vecu *)(out->c + i * out->rsc + v * BP_VL) = acc[i][v];
    } else if (plain && out->beta == 1) {
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) *(vecu *)(out->c + i * out->rsc + v * BP_VL) += acc[i][v];
    } else {
        vec tmp[BP_MR][2];
        BP_UNROLL for (int i = 0; i < m; i++)
            BP_UNROLL for (int v = 0; v < nv; v++) tmp[i][v] = acc[i][v];
        BP_NAME(tile_edge)((const BP_REAL *)tmp, BP_NR, m, out);
    }
}
#else
/* Plain C for compilers without vector types; the inner loop has a constant length and may be vectorised. */
BP_INLINE void BP_NAME(tile)(const int m, const int nv, bp_size k, const BP_REAL *a, const bp_size rsa, const bp_size csa,
                             const BP_REAL *b, bp_size ldb, const BP_TILE_OUT *out) {
    BP_REAL acc[BP_MR][BP_WIDTH / sizeof(BP_REAL) * 2] = {{0}};
    for (bp_size p = 0; p < k; p++, a += csa, b += ldb)
        for (int i = 0; i < m; i++) {
            const BP_REAL x = a[i * rsa];
            for (int j = 0; j < nv * BP_VL; j++) acc[i][j] += x * b[j];
        }
    BP_NAME(tile_edge)(acc[0], BP_NR, m, out);
}
#endif

typedef void (*BP_NAME(tile_fn))(bp_size k, const BP_REAL *a, bp_size rsa, bp_size csa, const BP_REAL *b, bp_size ldb,
                                 const BP_TILE_OUT *out);

/* For m rows: a packed (column after column of m) and a as it lies, with one and two vectors of columns. */
#define BP_TILES(m)                                                                                                           \
    static void BP_NAME(tile_packed1_##m)(bp_size k, const BP_REAL *a, bp_size rsa, bp_size csa, const BP_REAL *b,            \
                                          bp_size ldb, const BP_TILE_OUT *out) {                                              \
        (void)rsa, (void)csa;                                                                                                 \
        BP_NAME(tile)(m, 1, k, a, 1, m, b, ldb, out);                                                                         \
    }                                                                                                                         \
    static void BP_NAME(tile_packed2_##m)(bp_size k, const BP_REAL *a, bp_size rsa, bp_size csa, const BP_REAL *b,            \
                                          bp_size ldb, const BP_TILE_OUT *out) {                                              \
        (void)rsa, (void)csa;                                                                                                 \
        BP_NAME(tile)(m, 2, k, a, 1, m, b, ldb, out);                                                                         \
    }                                                                                                                         \
    static void BP_NAME(tile_direct1_##m)(bp_size k, const BP_REAL *a, bp_size rsa, bp_size csa, const BP_REAL *b,            \
                                          bp_size ldb, const BP_TILE_OUT *out) {                                              \
        BP_NAME(tile)(m, 1, k, a, rsa, csa, b, ldb, out);                                                                     \
    }                                                                                                                         \
    static void BP_NAME(tile_direct2_##m)(bp_size k, const BP_REAL *a, bp_size rsa, bp_size csa, const BP_REAL *b,            \
                                          bp_size ldb, const BP_TILE_OUT *out) {                                              \
        BP_NAME(tile)(m, 2, k, a, rsa, csa, b, ldb, out);                                                                     \
    }
BP_TILES(1) BP_TILES(2) BP_TILES(3) BP_TILES(4) BP_TILES(5) BP_TILES(6)
#if BP_MR == 12
BP_TILES(7) BP_TILES(8) BP_TILES(9) BP_TILES(10) BP_TILES(11) BP_TILES(12)
#endif

#define BP_FOUR(m) \
    {BP_NAME(tile_packed1_##m), BP_NAME(tile_packed2_##m), BP_NAME(tile_direct1_##m), BP_NAME(tile_direct2_##m)}
static const BP_NAME(tile_fn) BP_NAME(tiles)[BP_MR + 1][4] = {
    {NULL}, BP_FOUR(1), BP_FOUR(2), BP_FOUR(3), BP_FOUR(4), BP_FOUR(5), BP_FOUR(6),
#if BP_MR == 12
    BP_FOUR(7), BP_FOUR(8), BP_FOUR(9), BP_FOUR(10), BP_FOUR(11), BP_FOUR(12),
#endif
};
