/* The operands of a matrix product as panels (pack_panel.h). */
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
