/* Cross-entropy over rows of logits that only this loss reads: the gradient takes their place, so that a chunk of them exists once. */
#include "vmath.h"

#define BP_HEAD_CHUNK 1024 /* logits summed in their own type before the sum goes into a double */

BP_INLINE BP_REAL BP_NAME(head_max)(const BP_REAL *z, bp_size n) {
    BP_REAL m = -(BP_REAL)INFINITY;
    BP_SIMD_MAX(m) for (bp_size i = 0; i < n; i++) m = z[i] > m ? z[i] : m;
    return m;
}

/* The sum of e^(z - m), which take the place of z where they are wanted. */
BP_INLINE BP_REAL BP_NAME(head_exp)(BP_REAL *z, BP_REAL m, bp_size n, int wanted) {
    double total = 0;
    for (bp_size i = 0; i < n; i += BP_HEAD_CHUNK) {
        const bp_size end = n - i < BP_HEAD_CHUNK ? n : i + BP_HEAD_CHUNK;
        BP_REAL part = 0;
        if (wanted) {
            BP_SIMD_SUM(part) for (bp_size c = i; c < end; c++) {
                z[c] = BP_NAME(v_exp_ftz)(z[c] - m);
                part += z[c];
            }
        } else {
            BP_SIMD_SUM(part) for (bp_size c = i; c < end; c++) part += BP_NAME(v_exp_ftz)(z[c] - m);
        }
        total += part;
    }
    return (BP_REAL)total;
}

/* sum(w (z - m)), w = 1 where it is NULL */
BP_INLINE BP_REAL BP_NAME(head_mean)(const BP_REAL *z, const BP_REAL *w, BP_REAL m, bp_size n) {
    double total = 0;
    for (bp_size i = 0; i < n; i += BP_HEAD_CHUNK) {
        const bp_size end = n - i < BP_HEAD_CHUNK ? n : i + BP_HEAD_CHUNK;
        BP_REAL part = 0;
        if (w) {
            BP_SIMD_SUM(part) for (bp_size c = i; c < end; c++) part += w[c] * (z[c] - m);
        } else {
            BP_SIMD_SUM(part) for (bp_size c = i; c < end; c++) part += z[c] - m;
        }
        total += part;
    }
    return (BP_REAL)total;
}

/* With q[c] = keep w[t] [c = t] + smooth w[c]:
 *     loss = -sum(q log p),     dz = scale (p sum(q) - q) */
static void BP_NAME(head_rows)(BP_REAL *loss, BP_REAL *z, const int64_t *t, const BP_REAL *weight, const BP_REAL *each, bp_size rows,
                               bp_size cols, BP_REAL smoothing, BP_REAL spread, BP_REAL scale, int wanted) {
    const BP_REAL keep = 1 - smoothing, smooth = smoothing / cols;
    for (bp_size r = 0; r < rows; r++, z += cols) {
        const BP_REAL m = BP_NAME(head_max)(z, cols), top = z[t[r]] - m, q = keep * (weight ? weight[t[r]] : 1);
        const BP_REAL low = smoothing != 0 ? BP_NAME(head_mean)(z, weight, m, cols) : 0;
        const BP_REAL sum = BP_NAME(head_exp)(z, m, cols, wanted);
        const BP_REAL lse = BP_NAME(v_log)(sum);
        loss[r] = q * (lse - top);
        if (smoothing != 0) loss[r] += spread * lse - smooth * low;
        if (wanted) {
            const BP_REAL s = each ? scale * each[r] : scale, factor = s * (q + spread) / sum, less = s * smooth;
            if (smoothing != 0 && weight) {
                BP_SIMD for (bp_size c = 0; c < cols; c++) z[c] = z[c] * factor - less * weight[c];
            } else {
                BP_SIMD for (bp_size c = 0; c < cols; c++) z[c] = z[c] * factor - less;
            }
            z[t[r]] -= s * q;
        }
    }
}
