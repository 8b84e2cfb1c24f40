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
