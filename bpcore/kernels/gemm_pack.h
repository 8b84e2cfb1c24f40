/* Panels of a matrix in the order in which a tile reads them: for each step of k, `width` neighbours side by side. */

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
    if (si == 1)
        for (; i + BP_Q <= count; i += BP_Q)
            for (bp_size p = 0; p < k; p++) *(quadu *)(out + p * width + i) = *(const quadu *)(in + p * sp + i);
    else if (sp == 1) { /* a cache line of each row at a time: what is written stays in the first cache */
        const bp_size quads = count / BP_Q * BP_Q, line = 64 / sizeof(BP_REAL);
        for (bp_size p0 = 0; p0 < k; p0 += line) {
            const bp_size p1 = k - p0 < line ? k : p0 + line;
            for (i = 0; i < quads; i += BP_Q) {
                bp_size p = p0;
                for (; p + BP_Q <= p1; p += BP_Q) BP_NAME(transpose_block)(out + p * width + i, width, in + i * si + p, si);
                for (; p < p1; p++)
                    for (bp_size q = i; q < i + BP_Q; q++) out[p * width + q] = in[q * si + p];
            }
        }
    }
#endif
    for (bp_size p = 0; p < k; p++) {
        for (bp_size q = i; q < count; q++) out[p * width + q] = in[q * si + p * sp];
        for (bp_size q = count; q < width; q++) out[p * width + q] = 0;
    }
}

/* The width of the panel that holds the last n columns: one vector where that is enough. */
#define BP_PANEL(n) ((n) <= BP_VL ? BP_VL : BP_NR)

/* All of the columns 0..n of b in panels of BP_NR, the last one padded; panel j starts at out + j * k. */
static void BP_NAME(pack_columns)(BP_REAL *out, const BP_REAL *b, bp_size rsb, bp_size csb, bp_size n, bp_size k) {
    const bp_size group = 8; /* contiguous rows are read in long pieces, for several panels at once */
    bp_size j = 0;
    if (csb == 1)
        for (; j + group * BP_NR <= n; j += group * BP_NR)
            for (bp_size p = 0; p < k; p++)
                for (bp_size q = j; q < j + group * BP_NR; q += BP_NR)
                    for (bp_size i = 0; i < BP_NR; i++) out[q * k + p * BP_NR + i] = b[p * rsb + q + i];
    for (; j < n; j += BP_NR) {
        const bp_size count = n - j < BP_NR ? n - j : BP_NR;
        if (count <= BP_VL)
            BP_NAME(pack_panel)(out + j * k, BP_VL, b + j * csb, csb, rsb, count, k);
        else
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
