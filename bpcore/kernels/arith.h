/* Arithmetic of two arrays, or of an array and a number: y[n] = a[n] (op) b[n]. y may be a or b.
 * `op` is one of the codes of arithmetic.pxd; the reversed codes swap the operands. */

static void BP_NAME(arith)(int op, BP_REAL *y, const BP_REAL *a, const BP_REAL *b, bp_size n) {
    switch (op) {
    case 0:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] + b[i];
        break;
    case 1:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] - b[i];
        break;
    case 2:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] * b[i];
        break;
    case 3:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] / b[i];
        break;
    case 5:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = b[i] - a[i];
        break;
    default:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = b[i] / a[i];
    }
}

static void BP_NAME(arith_number)(int op, BP_REAL *y, const BP_REAL *a, BP_REAL s, bp_size n) {
    switch (op) {
    case 0:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] + s;
        break;
    case 1:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] - s;
        break;
    case 2:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] * s;
        break;
    case 3:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = a[i] / s;
        break;
    case 5:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = s - a[i];
        break;
    default:
        BP_SIMD
        for (bp_size i = 0; i < n; i++) y[i] = s / a[i];
    }
}
