/* Panels of a matrix in the order in which a tile reads them: for each step of k, `width` neighbours side by side. */

#ifdef BP_VECTORS
#define quad BP_NAME(quad)
#define quadu BP_NAME(quadu)
typedef BP_REAL quad __attribute__((vector_size(16)));
typedef BP_REAL quadu __attribute__((vector_size(16), aligned(sizeof(BP_REAL)), may_alias));
#define BP_Q ((bp_size)(16 / sizeof(BP_REAL)))

/* out[j][i] = in[i][j] for one square block of 16 bytes a side. */
BP_INLINE void BP_NAME(transpose_block)(BP_REAL *out, bp_size ldo, const BP_REAL *in, bp_size ldi) {
#if BP_F32
    const quad a = *(const quadu *)in, b = *(const quadu *)(in + ldi);
    const quad c = *(const quadu *)(in + 2 * ldi), d = *(const quadu *)(in + 3 * ldi);
    const quad ab0 = BP_SHUFFLE4(a, b, 0, 4, 1, 5), ab1 = BP_SHUFFLE4(a, b, 2, 6, 3, 7);
    const quad cd0 = BP_SHUFFLE4(c, d, 0, 4, 1, 5), cd1 = BP_SHUFFLE4(c, d, 2, 6, 3, 7);
    *(quadu *)out = BP_SHUFFLE4(ab0, cd0, 0, 1, 4, 5);
    *(quadu *)(out + ldo) = BP_SHUFFLE4(ab0, cd0, 2, 3, 6, 7);
    *(quadu *)(out + 2 * ldo) = BP_SHUFFLE4(ab1, cd1, 0, 1, 4, 5);
    *(quadu *)(out + 3 * ldo) = BP_SHUFFLE4(ab1, cd1, 2, 3, 6, 7);
#else
    const quad a = *(const quadu *)in, b = *(const quadu *)(in + ldi);
    *(quadu *)out = BP_SHUFFLE2(a, b, 0, 2);
    *(quadu *)(out + ldo) = BP_SHUFFLE2(a, b, 1, 3);
#endif
}
#undef quad
#undef quadu
#endif

/* out[p * width + i] = in[i * si + p * sp] for i < count and p < k; columns from count to width become zero. */
BP_INLINE void BP_NAME(pack_panel)(BP_REAL *BP_RESTRICT out, const bp_size width, const BP_REAL *BP_RESTRICT in, bp_size si,
                                   bp_size sp, bp_size count, bp_size k) {
    if (si == 1 && count == width) {
        for (bp_size p = 0; p < k; p++)
            for (bp_size i = 0; i < width; i++) out[p * width + i] = in[p * sp + i];
        return;
    }
    bp_size i = 0;
#ifdef BP_VECTORS
    if (sp == 1)
        for (; i + BP_Q <= count; i += BP_Q) {
            bp_size p = 0;
            for (; p + BP_Q <= k; p += BP_Q) BP_NAME(transpose_block)(out + p * width + i, width, in + i * si + p, si);
            for (; p < k; p++)
                for (bp_size q = i; q < i + BP_Q; q++) out[p * width + q] = in[q * si + p];
        }
#endif
    for (bp_size p = 0; p < k; p++) {
        for (bp_size q = i; q < count; q++) out[p * width + q] = in[q * si + p * sp];
        for (bp_size q = count; q < width; q++) out[p * width + q] = 0;
    }
}

/* All of the columns 0..n of b in panels of BP_NR, the last one padded; panel j starts at out + j * k. */
static void BP_NAME(pack_columns)(BP_REAL *out, const BP_REAL *b, bp_size rsb, bp_size csb, bp_size n, bp_size k) {
    for (bp_size j = 0; j < n; j += BP_NR) {
        const bp_size count = n - j < BP_NR ? n - j : BP_NR;
        BP_NAME(pack_panel)(out + j * k, BP_NR, b + j * csb, csb, rsb, count, k);
    }
}

/* Rows 0..m of a in tiles of rows[t + 1] - rows[t], none of them padded. */
static void BP_NAME(pack_rows)(BP_REAL *out, const BP_REAL *a, bp_size rsa, bp_size csa, bp_size m, bp_size tiles, bp_size k) {
    for (bp_size t = 0; t < tiles; t++) {
        const bp_size i = m * t / tiles, count = m * (t + 1) / tiles - i;
        if (count == BP_MR)
            BP_NAME(pack_panel)(out + i * k, BP_MR, a + i * rsa, rsa, csa, BP_MR, k);
        else
            BP_NAME(pack_panel)(out + i * k, count, a + i * rsa, rsa, csa, count, k);
    }
}
