/* Elementwise functions and their derivatives.
 *
 * BP_MAP(name, f, df) makes name: out[i] = f(x), and name_backward: dx[i] = df(dy, saved), where saved holds what the
 * operator kept: the input x or the output y, whichever the formula reads. `a, b, c` are the function's parameters
 * (p[0..2]; p may be NULL where it has none). Results may be written over the inputs. */

#undef BP_PARAMETERS
#undef BP_MAP
#undef BP_MAP_FORWARD
#define BP_PARAMETERS const BP_REAL a = p ? p[0] : 0, b = p ? p[1] : 0, c = p ? p[2] : 0; (void)a; (void)b; (void)c;
#define BP_MAP_FORWARD(name, f)                                                                                 \
    static void BP_NAME(name)(BP_REAL *out, const BP_REAL *in, bp_size n, const BP_REAL *p) {                   \
        BP_PARAMETERS                                                                                           \
        BP_SIMD for (bp_size i = 0; i < n; i++) {                                                               \
            const BP_REAL x = in[i];                                                                            \
            out[i] = (f);                                                                                       \
        }                                                                                                       \
    }
#define BP_MAP(name, f, df)                                                                                     \
    BP_MAP_FORWARD(name, f)                                                                                     \
    static void BP_NAME(name##_backward)(BP_REAL *dx, const BP_REAL *grad, const BP_REAL *saved, bp_size n,     \
                                         const BP_REAL *p) {                                                    \
        BP_PARAMETERS                                                                                           \
        BP_SIMD for (bp_size i = 0; i < n; i++) {                                                               \
            const BP_REAL dy = grad[i], x = saved[i], y = x;                                                    \
            (void)x;                                                                                            \
            (void)y;                                                                                            \
            dx[i] = (df);                                                                                       \
        }                                                                                                       \
    }

/* Plain functions. */
BP_MAP_FORWARD(exp, BP_NAME(v_exp)(x))
BP_MAP_FORWARD(log, BP_NAME(v_log)(x))
BP_MAP_FORWARD(log1p, BP_NAME(v_log1p)(x))
BP_MAP_FORWARD(erf, BP_NAME(v_erf)(x))

/* Piecewise linear. A NaN fails every comparison and so comes out as it went in. */
BP_MAP(relu, x < 0 ? 0 : x, y <= 0 ? 0 : dy)
BP_MAP(leaky_relu, x > 0 ? x : x * a, x > 0 ? dy : dy * a) /* saved: x, or y where the slope a >= 0 */
BP_MAP(hardtanh, x < a ? a : (x > b ? b : x), (x > a) & (x < b) ? dy : 0) /* saved: x */
BP_MAP(hardsigmoid, (x + 3 < 0 ? 0 : (x + 3 > 6 ? 6 : x + 3)) / 6, (x > -3) & (x < 3) ? dy / 6 : 0)
BP_MAP(threshold, x <= a ? b : x, x <= a ? 0 : dy)
BP_MAP(hardshrink, (x >= -a) & (x <= a) ? 0 : x, (x >= -a) & (x <= a) ? 0 : dy)
BP_MAP(softshrink, x > a ? x - a : (x < -a ? x + a : x * 0), (x >= -a) & (x <= a) ? 0 : dy)

/* From the output y. */
BP_MAP(sigmoid, BP_NAME(v_sigmoid)(x), dy * y * (1 - y))
BP_MAP(tanh, BP_NAME(v_tanh)(x), dy * (1 - y * y))
/* a (e^(cx) - 1) for x <= 0, bx beyond: elu, selu and celu. With a >= 0: c (y + a) is the derivative below 0. */
BP_MAP(elu, x <= 0 ? a * BP_NAME(v_expm1_neg)(x * c < 0 ? x * c : 0) : b * x, y <= 0 ? dy * c * (y + a) : dy * b)

/* From the input x. */
/* elu where a or c is negative and the output does not tell the slope */
BP_MAP(elu_input,
       x <= 0 ? a * (x * c < 0 ? BP_NAME(v_expm1_neg)(x * c) : BP_NAME(v_exp)(x * c) - 1) : b * x,
       x <= 0 ? dy * a * c * BP_NAME(v_exp)(x * c) : dy * b)
BP_MAP(softplus, x * a > b ? x : BP_NAME(v_softplus)(x * a) / a, x * a > b ? dy : dy * BP_NAME(v_sigmoid)(x * a))
BP_MAP(logsigmoid, -BP_NAME(v_softplus)(-x), dy * BP_NAME(v_sigmoid)(-x))
BP_MAP(softsign, x / (1 + BP_ABS(x)), dy / ((1 + BP_ABS(x)) * (1 + BP_ABS(x))))
BP_MAP(hardswish, x * (x + 3 < 0 ? 0 : (x + 3 > 6 ? 6 : x + 3)) / 6, x <= -3 ? 0 : (x < 3 ? dy * (x / 3 + (BP_REAL)0.5) : dy))

/* x sigmoid(x) */
BP_INLINE BP_REAL BP_NAME(silu_slope)(BP_REAL x) {
    const BP_REAL s = BP_NAME(v_sigmoid)(x);
    return s * (1 + x * (1 - s));
}
BP_MAP(silu, x * BP_NAME(v_sigmoid)(x), dy * BP_NAME(silu_slope)(x))

/* x Phi(x), with the density e^(-x^2/2) / sqrt(2 pi) shared by Phi's tail and the derivative. */
BP_INLINE BP_REAL BP_NAME(gelu_slope)(BP_REAL x) {
    const BP_REAL e = BP_NAME(v_exp_ftz)((BP_REAL)-0.5 * x * x);
    return BP_NAME(v_normal_cdf)(x, e) + x * e * (BP_REAL)0.39894228040143267794;
}
BP_MAP(gelu, x * BP_NAME(v_normal_cdf)(x, BP_NAME(v_exp_ftz)((BP_REAL)-0.5 * x * x)), dy * BP_NAME(gelu_slope)(x))

/* x (1 + tanh(u)) / 2 = x sigmoid(2u) with u = sqrt(2/pi) (x + 0.044715 x^3). Beyond |x| = 32 the sigmoid is 0 or 1 and its slope
 * 0: the cubic is cut off there, before it can overflow. */
BP_INLINE BP_REAL BP_NAME(gelu_tanh_slope)(BP_REAL x) {
    const BP_REAL k = (BP_REAL)1.59576912160573071176, cubic = (BP_REAL)0.044715;
    const BP_REAL t = x < -32 ? -32 : (x > 32 ? 32 : x), z = t * t;
    const BP_REAL s = BP_NAME(v_sigmoid)(k * t * (1 + cubic * z));
    return s + t * s * (1 - s) * k * (1 + 3 * cubic * z);
}
BP_INLINE BP_REAL BP_NAME(gelu_tanh_gate)(BP_REAL x) {
    const BP_REAL t = x < -32 ? -32 : (x > 32 ? 32 : x);
    return BP_NAME(v_sigmoid)((BP_REAL)1.59576912160573071176 * t * (1 + (BP_REAL)0.044715 * t * t));
}
BP_MAP(gelu_tanh, x * BP_NAME(gelu_tanh_gate)(x), dy * BP_NAME(gelu_tanh_slope)(x))

/* x tanh(log(1 + e^x)) = x w / (w + 2) with w = e^x (e^x + 2); beyond 20 the fraction is 1. */
BP_INLINE BP_REAL BP_NAME(mish_weight)(BP_REAL x) {
    const BP_REAL e = BP_NAME(v_exp_ftz)(x > 20 ? 20 : x);
    return e * (e + 2);
}
BP_INLINE BP_REAL BP_NAME(mish_slope)(BP_REAL x) {
    const BP_REAL w = BP_NAME(mish_weight)(x), t = w / (w + 2);
    return x > 20 ? 1 : t + x * BP_NAME(v_sigmoid)(x) * 4 * (w + 1) / ((w + 2) * (w + 2));
}
BP_INLINE BP_REAL BP_NAME(mish_gate)(BP_REAL x) {
    const BP_REAL w = BP_NAME(mish_weight)(x);
    return w / (w + 2);
}
BP_MAP(mish, x * BP_NAME(mish_gate)(x), dy * BP_NAME(mish_slope)(x))
