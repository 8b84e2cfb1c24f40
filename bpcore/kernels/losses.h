/* Losses of pairs: x[n] the input, t[n] the target, a = p[0] a parameter (p may be NULL where there is none).
 *
 * BP_LOSS(name, f, df) makes name: out[i] = f; name_sum: the sum of f over all i, in chunks of fixed length; name_dx:
 * dx[i] = scale df, the derivative by x. BP_LOSS_TARGET(name, df) makes name_dt, the derivative by t, where it is not
 * simply -name_dx. */

#undef BP_LOSS
#undef BP_LOSS_TARGET
#undef BP_LOSS_SLOPE
#define BP_PAIR const BP_REAL x = input[i], t = target[i], d = x - t; (void)x; (void)t; (void)d;
#define BP_LOSS_SLOPE(name, df)                                                                                 \
    static void BP_NAME(name)(BP_REAL *out, const BP_REAL *input, const BP_REAL *target, bp_size n,             \
                              BP_REAL scale, const BP_REAL *p) {                                                \
        const BP_REAL a = p ? p[0] : 0;                                                                         \
        (void)a;                                                                                                \
        BP_SIMD for (bp_size i = 0; i < n; i++) {                                                               \
            BP_PAIR                                                                                             \
            out[i] = scale * (df);                                                                              \
        }                                                                                                       \
    }
#define BP_LOSS_TARGET(name, df) BP_LOSS_SLOPE(name##_dt, df)
#define BP_LOSS(name, f, df)                                                                                    \
    static void BP_NAME(name)(BP_REAL *out, const BP_REAL *input, const BP_REAL *target, bp_size n,             \
                              const BP_REAL *p) {                                                               \
        const BP_REAL a = p ? p[0] : 0;                                                                         \
        (void)a;                                                                                                \
        BP_SIMD for (bp_size i = 0; i < n; i++) {                                                               \
            BP_PAIR                                                                                             \
            out[i] = (f);                                                                                       \
        }                                                                                                       \
    }                                                                                                           \
    static double BP_NAME(name##_sum)(const BP_REAL *input, const BP_REAL *target, bp_size n, const BP_REAL *p) { \
        const BP_REAL a = p ? p[0] : 0;                                                                         \
        double total = 0;                                                                                       \
        (void)a;                                                                                                \
        for (bp_size start = 0; start < n; start += BP_CHUNK) {                                                 \
            const bp_size end = n - start < BP_CHUNK ? n : start + BP_CHUNK;                                    \
            BP_REAL part = 0;                                                                                   \
            BP_SIMD_SUM(part) for (bp_size i = start; i < end; i++) {                                           \
                BP_PAIR                                                                                         \
                part += (f);                                                                                    \
            }                                                                                                   \
            total += part;                                                                                      \
        }                                                                                                       \
        return total;                                                                                           \
    }                                                                                                           \
    BP_LOSS_SLOPE(name##_dx, df)

#undef BP_SIGN
#define BP_SIGN(v) ((BP_REAL)((v) > 0) - (BP_REAL)((v) < 0))

BP_LOSS(mse, d * d, 2 * d)
BP_LOSS(l1, BP_ABS(d), BP_SIGN(d))
/* a: beta > 0 */
BP_LOSS(smooth_l1, BP_ABS(d) < a ? (BP_REAL)0.5 * d * d / a : BP_ABS(d) - (BP_REAL)0.5 * a, BP_ABS(d) < a ? d / a : BP_SIGN(d))
/* a: delta > 0 */
BP_LOSS(huber, BP_ABS(d) < a ? (BP_REAL)0.5 * d * d : a * (BP_ABS(d) - (BP_REAL)0.5 * a), BP_ABS(d) < a ? d : a * BP_SIGN(d))

/* Logarithms are cut off at -100, and the slope's denominator at 1e-12, as in PyTorch. */
BP_INLINE BP_REAL BP_NAME(bce_at)(BP_REAL x, BP_REAL t) {
    const BP_REAL yes = BP_NAME(v_log)(x), no = BP_NAME(v_log1p)(-x);
    return (t - 1) * (no < -100 ? -100 : no) - t * (yes < -100 ? -100 : yes);
}
BP_INLINE BP_REAL BP_NAME(bce_slope)(BP_REAL x, BP_REAL t) {
    const BP_REAL v = (1 - x) * x, least = (BP_REAL)1e-12;
    return (x - t) / (v < least ? least : v);
}
BP_LOSS(bce, BP_NAME(bce_at)(x, t), BP_NAME(bce_slope)(x, t))
BP_LOSS_TARGET(bce, BP_NAME(v_log1p)(-x) - BP_NAME(v_log)(x))

/* -(t log s + (1 - t) log(1 - s)) with s = sigmoid(x), which is log(1 + e^-x) + (1 - t) x */
BP_LOSS(bce_logits, BP_NAME(v_softplus)(-x) + (1 - t) * x, BP_NAME(v_sigmoid)(x) - t)
BP_LOSS_TARGET(bce_logits, -x)

/* t (log t - x), which is 0 for t = 0 */
BP_LOSS(kl_div, (t == 0 ? 0 : t * BP_NAME(v_log)(t)) - t * x, -t)
BP_LOSS_TARGET(kl_div, BP_NAME(v_log)(t) + 1 - x)

/* The same with t given as its logarithm. */
BP_LOSS(kl_div_log, BP_NAME(v_exp)(t) * (t - x), -BP_NAME(v_exp)(t))
BP_LOSS_TARGET(kl_div_log, BP_NAME(v_exp)(t) * (t - x + 1))
#undef BP_PAIR
