/* A sparse matrix along one axis: interpolation and its gradient. The first product is stored, the others are added to it in
 * their order; it is not added to 0, which would lose the sign of -0. */
static void BP_NAME(resample_rows)(BP_REAL *y, const BP_REAL *x, const bp_size *start, const bp_size *index,
                                   const BP_REAL *weight, bp_size size, bp_size out, bp_size inner, bp_size begin, bp_size end) {
    for (bp_size r = begin; r < end; r++) {
        const bp_size o = r % out, first = start[o], last = start[o + 1];
        const BP_REAL *plane = x + r / out * size * inner;
        BP_REAL *BP_RESTRICT to = y + r * inner;
        if (first == last) {
            memset(to, 0, inner * sizeof *to);
            continue;
        }
        const BP_REAL *BP_RESTRICT a = plane + index[first] * inner;
        const BP_REAL u = weight[first];
        if (last - first == 1) {
            BP_SIMD for (bp_size i = 0; i < inner; i++) to[i] = u * a[i];
            continue;
        }
        const BP_REAL *BP_RESTRICT b = plane + index[first + 1] * inner;
        const BP_REAL v = weight[first + 1];
        BP_SIMD for (bp_size i = 0; i < inner; i++) to[i] = u * a[i] + v * b[i];
        for (bp_size t = first + 2; t < last; t++) {
            const BP_REAL *BP_RESTRICT c = plane + index[t] * inner;
            const BP_REAL w = weight[t];
            BP_SIMD for (bp_size i = 0; i < inner; i++) to[i] += w * c[i];
        }
    }
}

static void BP_NAME(resample_lines)(BP_REAL *y, const BP_REAL *x, const bp_size *start, const bp_size *index,
                                    const BP_REAL *weight, bp_size size, bp_size out, bp_size inner, bp_size begin, bp_size end) {
    (void)inner;
    for (bp_size r = begin; r < end; r++) {
        const BP_REAL *line = x + r * size;
        for (bp_size o = 0; o < out; o++) {
            BP_REAL sum = start[o] < start[o + 1] ? weight[start[o]] * line[index[start[o]]] : 0;
            for (bp_size t = start[o] + 1; t < start[o + 1]; t++) sum += weight[t] * line[index[t]];
            y[r * out + o] = sum;
        }
    }
}
