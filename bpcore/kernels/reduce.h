/* Sums of contiguous memory: vector partial sums over chunks of fixed length, the chunks added in double. The order depends on
 * the instruction set, never on the number of threads. */

#define BP_CHUNK 1024

BP_INLINE double BP_NAME(chunk_sum)(const BP_REAL *x, bp_size n) {
    BP_REAL total = 0;
    BP_SIMD_SUM(total) for (bp_size i = 0; i < n; i++) total += x[i];
    return total;
}

static double BP_NAME(sum)(const BP_REAL *x, bp_size n) {
    double total = 0;
    for (bp_size i = 0; i < n; i += BP_CHUNK) total += BP_NAME(chunk_sum)(x + i, n - i < BP_CHUNK ? n - i : BP_CHUNK);
    return total;
}

/* out[cols] = the sum of the rows of x (ld apart), by blocks of rows whose partial sums stay in the first cache. */
static void BP_NAME(sum_rows)(BP_REAL *out, const BP_REAL *x, bp_size rows, bp_size cols, bp_size ld) {
    BP_REAL part[256];
    for (bp_size j0 = 0; j0 < cols; j0 += 256) {
        const bp_size width = cols - j0 < 256 ? cols - j0 : 256;
        BP_REAL *BP_RESTRICT total = out + j0;
        for (bp_size j = 0; j < width; j++) total[j] = 0;
        for (bp_size i0 = 0; i0 < rows; i0 += 128) {
            const bp_size end = rows - i0 < 128 ? rows : i0 + 128;
            for (bp_size j = 0; j < width; j++) part[j] = 0;
            for (bp_size i = i0; i < end; i++) {
                const BP_REAL *BP_RESTRICT row = x + i * ld + j0;
                BP_SIMD for (bp_size j = 0; j < width; j++) part[j] += row[j];
            }
            BP_SIMD for (bp_size j = 0; j < width; j++) total[j] += part[j];
        }
    }
}
