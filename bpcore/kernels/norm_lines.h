/* Loops over one line of a normalization: n elements of a plane, all with the same constants (each = 0), or of a row, with
 * constants of their own (each = 1). k holds BP_NORM_LINES constants `gap` apart: m, scale, offset, a, c, d (see norm.h). */

BP_INLINE void BP_NAME(line_moments)(double *s, double *q, const BP_REAL *x, bp_size n, BP_REAL shift) {
    const bp_size half = n / 2;
    BP_REAL s0 = 0, s1 = 0, q0 = 0, q1 = 0; /* two chains of additions, to keep the adders busy */
    BP_SIMD_SUM(s0, s1, q0, q1) for (bp_size i = 0; i < half; i++) {
        const BP_REAL u = x[i] - shift, v = x[half + i] - shift;
        s0 += u;
        s1 += v;
        q0 += u * u;
        q1 += v * v;
    }
    if (n & 1) {
        const BP_REAL u = x[n - 1] - shift;
        s0 += u;
        q0 += u * u;
    }
    *s += s0 + s1;
    *q += q0 + q1;
}

/* all = mean and sum of squares about it of `count` elements; add those of n more. */
BP_INLINE void BP_NAME(join)(double *all, double *count, double mean, double squares, double n) {
    const double total = *count + n, delta = mean - all[0];
    all[0] += delta * (n / total);
    all[1] += squares + delta * delta * (*count * n / total);
    *count = total;
}

/* Rounding may leave a sum of squares just below zero. */
BP_INLINE void BP_NAME(keep)(const bp_norm *j, bp_size i, const double *all, double count) {
    j->mean[i] = all[0];
    j->var[i] = (all[1] < 0 ? 0 : all[1]) / count;
    j->rstd[i] = 1 / sqrt(j->var[i] + j->eps);
}

BP_INLINE void BP_NAME(constants)(BP_REAL *k, bp_size gap, const bp_norm *j, bp_size c, double mean, double rstd) {
    const BP_REAL m = (BP_REAL)mean;
    const BP_REAL scale = (BP_REAL)(rstd * (j->weight ? ((const BP_REAL *)j->weight)[c] : 1));
    const double bias = j->bias ? ((const BP_REAL *)j->bias)[c] : 0;
    k[0] = m;
    k[gap] = scale;
    k[2 * gap] = (BP_REAL)(bias - (mean - m) * scale);
}

/* From s = s1, s2 over M elements. */
BP_INLINE void BP_NAME(slope_constants)(BP_REAL *k, bp_size gap, const bp_norm *j, bp_size c, double mean, double rstd,
                                        const double *s, double M) {
    const double a = rstd * (j->weight ? ((const BP_REAL *)j->weight)[c] : 1), slope = -a * rstd * rstd * s[1] / M;
    k[3 * gap] = (BP_REAL)a;
    k[4 * gap] = (BP_REAL)slope;
    k[5 * gap] = (BP_REAL)(-a * s[0] / M - slope * (mean - (BP_REAL)mean));
}

/* In what follows clip, mask and each are constants once inlined, so that every combination is a loop of its own. */

BP_INLINE BP_REAL BP_NAME(cut)(BP_REAL z, int clip) {
    return clip == 0 ? z : z < 0 ? 0 : clip == 2 && z > 6 ? 6 : z;
}

/* dy where the activation of z let it through; NaN as in activation.h */
BP_INLINE BP_REAL BP_NAME(passed)(BP_REAL dy, BP_REAL z, int clip) {
    return clip == 0 ? dy : clip == 1 ? (z <= 0 ? 0 : dy) : ((z > 0) & (z < 6) ? dy : 0);
}

BP_INLINE void BP_NAME(line_affine)(BP_REAL *BP_RESTRICT y, const BP_REAL *BP_RESTRICT x, const BP_REAL *BP_RESTRICT r,
                                    bp_size n, const BP_REAL *BP_RESTRICT k, bp_size gap, int each, int clip) {
    if (r) {
        BP_SIMD for (bp_size i = 0; i < n; i++) {
            const bp_size at = each ? i : 0;
            y[i] = BP_NAME(cut)((x[i] - k[at]) * k[gap + at] + k[2 * gap + at] + r[i], clip);
        }
    } else {
        BP_SIMD for (bp_size i = 0; i < n; i++) {
            const bp_size at = each ? i : 0;
            y[i] = BP_NAME(cut)((x[i] - k[at]) * k[gap + at] + k[2 * gap + at], clip);
        }
    }
}

BP_INLINE void BP_NAME(any_affine)(const bp_norm *j, bp_size at, bp_size n, const BP_REAL *k, bp_size gap, int each) {
    BP_REAL *y = (BP_REAL *)j->out + at;
    const BP_REAL *x = (const BP_REAL *)j->x + at, *r = j->r ? (const BP_REAL *)j->r + at : NULL;
    if (j->clip == 0)
        BP_NAME(line_affine)(y, x, r, n, k, gap, each, 0);
    else if (j->clip == 1)
        BP_NAME(line_affine)(y, x, r, n, k, gap, each, 1);
    else
        BP_NAME(line_affine)(y, x, r, n, k, gap, each, 2);
}

/* z, whose sign and size say what the activation did: y itself, or the same expression again. */
#define BP_NORM_Z(y, d, at) ((y) ? (y)[i] : (d) * k[gap + (at)] + k[2 * gap + (at)])

/* s1 += sum(g), s2 += sum(g (x - m)), dr = g */
BP_INLINE void BP_NAME(line_sums)(double *s, BP_REAL *BP_RESTRICT dr, const BP_REAL *BP_RESTRICT dy,
                                  const BP_REAL *BP_RESTRICT x, const BP_REAL *BP_RESTRICT y, bp_size n, const BP_REAL *k,
                                  int clip) {
    const bp_size gap = 1;
    const BP_REAL m = k[0];
    for (bp_size begin = 0; begin < n; begin += BP_NORM_PIECE) {
        const bp_size end = n - begin < BP_NORM_PIECE ? n : begin + BP_NORM_PIECE;
        BP_REAL s1 = 0, s2 = 0;
        if (dr) {
            BP_SIMD_SUM(s1, s2) for (bp_size i = begin; i < end; i++) {
                const BP_REAL d = x[i] - m, g = BP_NAME(passed)(dy[i], BP_NORM_Z(y, d, 0), clip);
                dr[i] = g;
                s1 += g;
                s2 += g * d;
            }
        } else {
            BP_SIMD_SUM(s1, s2) for (bp_size i = begin; i < end; i++) {
                const BP_REAL d = x[i] - m, g = BP_NAME(passed)(dy[i], BP_NORM_Z(y, d, 0), clip);
                s1 += g;
                s2 += g * d;
            }
        }
        s[0] += s1;
        s[1] += s2;
    }
}

BP_INLINE void BP_NAME(any_sums)(const bp_norm *j, double *s, bp_size at, bp_size n, const BP_REAL *k) {
    BP_REAL *dr = j->dr ? (BP_REAL *)j->dr + at : NULL;
    const BP_REAL *dy = (const BP_REAL *)j->dy + at, *x = (const BP_REAL *)j->x + at;
    const BP_REAL *y = (const BP_REAL *)j->y + (j->y ? at : 0);
    if (j->clip == 0)
        BP_NAME(line_sums)(s, NULL, dy, x, NULL, n, k, 0);
    else if (!j->y && j->clip == 1)
        BP_NAME(line_sums)(s, NULL, dy, x, NULL, n, k, 1);
    else if (!j->y)
        BP_NAME(line_sums)(s, NULL, dy, x, NULL, n, k, 2);
    else if (j->clip == 1)
        BP_NAME(line_sums)(s, dr, dy, x, y, n, k, 1);
    else
        BP_NAME(line_sums)(s, dr, dy, x, y, n, k, 2);
}

BP_INLINE void BP_NAME(line_slopes)(BP_REAL *BP_RESTRICT dx, const BP_REAL *BP_RESTRICT dy, const BP_REAL *BP_RESTRICT x,
                                    const BP_REAL *BP_RESTRICT y, bp_size n, const BP_REAL *BP_RESTRICT k, bp_size gap, int each,
                                    int clip, int train) {
    if (train) {
        BP_SIMD for (bp_size i = 0; i < n; i++) {
            const bp_size at = each ? i : 0;
            const BP_REAL d = x[i] - k[at], g = BP_NAME(passed)(dy[i], BP_NORM_Z(y, d, at), clip);
            dx[i] = g * k[3 * gap + at] + (d * k[4 * gap + at] + k[5 * gap + at]);
        }
    } else {
        BP_SIMD for (bp_size i = 0; i < n; i++) {
            const bp_size at = each ? i : 0;
            dx[i] = BP_NAME(passed)(dy[i], BP_NORM_Z(y, x[i] - k[at], at), clip) * k[3 * gap + at];
        }
    }
}

/* Where sums has left g in dr, that is read in place of dy and y. */
BP_INLINE void BP_NAME(any_slopes)(const bp_norm *j, bp_size at, bp_size n, const BP_REAL *k, bp_size gap, int each) {
    BP_REAL *dx = (BP_REAL *)j->out + at;
    const BP_REAL *dy = (const BP_REAL *)(j->dr ? j->dr : j->dy) + at, *x = (const BP_REAL *)j->x + at;
    const BP_REAL *y = (const BP_REAL *)j->y + (j->y ? at : 0);
    const int clip = j->dr ? 0 : j->clip;
    if (j->train) {
        if (clip == 0)
            BP_NAME(line_slopes)(dx, dy, x, NULL, n, k, gap, each, 0, 1);
        else if (!j->y && clip == 1)
            BP_NAME(line_slopes)(dx, dy, x, NULL, n, k, gap, each, 1, 1);
        else if (!j->y)
            BP_NAME(line_slopes)(dx, dy, x, NULL, n, k, gap, each, 2, 1);
        else if (clip == 1)
            BP_NAME(line_slopes)(dx, dy, x, y, n, k, gap, each, 1, 1);
        else
            BP_NAME(line_slopes)(dx, dy, x, y, n, k, gap, each, 2, 1);
    } else {
        if (clip == 0)
            BP_NAME(line_slopes)(dx, dy, x, NULL, n, k, gap, each, 0, 0);
        else if (!j->y && clip == 1)
            BP_NAME(line_slopes)(dx, dy, x, NULL, n, k, gap, each, 1, 0);
        else if (!j->y)
            BP_NAME(line_slopes)(dx, dy, x, NULL, n, k, gap, each, 2, 0);
        else if (clip == 1)
            BP_NAME(line_slopes)(dx, dy, x, y, n, k, gap, each, 1, 0);
        else
            BP_NAME(line_slopes)(dx, dy, x, y, n, k, gap, each, 2, 0);
    }
}
