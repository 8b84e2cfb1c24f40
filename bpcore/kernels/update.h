/* Optimizer updates: one pass over a run of a parameter p, its gradient g and its state.
 *
 * Every update first forms d = scale * g + l2 * p (scale holds the clipping factor and the sign of `maximize`), then does
 * what its comment says. All have one signature, so that one loop over a table can run any of them; states that an update
 * does not have are NULL. u holds what does not depend on the element, worked out in double by the caller.
 */

BP_INLINE BP_REAL BP_NAME(update_root)(BP_REAL x) {
#if BP_F32
    return sqrtf(x);
#else
    return sqrt(x);
#endif
}

/* b = beta1 * b + gain * d;  p -= lr * (direct * d + look * b)
 * Plain: direct 1, look 0 (no b). Momentum: 0, 1. Nesterov: 1, momentum. First step: beta1 0, gain 1. */
static void BP_NAME(sgd)(BP_REAL *BP_RESTRICT p, BP_REAL *BP_RESTRICT b, BP_REAL *s1, BP_REAL *s2,
                         const BP_REAL *BP_RESTRICT g, const bp_update *u, bp_size n) {
    const BP_REAL scale = (BP_REAL)u->scale, l2 = (BP_REAL)u->l2, lr = (BP_REAL)u->lr, beta = (BP_REAL)u->beta1,
                  gain = (BP_REAL)u->gain, direct = (BP_REAL)u->direct, look = (BP_REAL)u->look;
    (void)s1, (void)s2;
    if (!b) {
        BP_SIMD
        for (bp_size i = 0; i < n; i++) p[i] -= lr * (scale * g[i] + l2 * p[i]);
        return;
    }
    BP_SIMD
    for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = scale * g[i] + l2 * p[i];
        b[i] = beta * b[i] + gain * d;
        p[i] -= lr * (direct * d + look * b[i]);
    }
}

/* s += d^2;  p -= lr * d / (sqrt(s) + eps) */
static void BP_NAME(adagrad)(BP_REAL *BP_RESTRICT p, BP_REAL *BP_RESTRICT s, BP_REAL *s1, BP_REAL *s2,
                             const BP_REAL *BP_RESTRICT g, const bp_update *u, bp_size n) {
    const BP_REAL scale = (BP_REAL)u->scale, l2 = (BP_REAL)u->l2, lr = (BP_REAL)u->lr, eps = (BP_REAL)u->eps;
    (void)s1, (void)s2;
    BP_SIMD
    for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = scale * g[i] + l2 * p[i];
        s[i] += d * d;
        p[i] -= lr * d / (BP_NAME(update_root)(s[i]) + eps);
    }
}

/* v = beta2 * v + (1 - beta2) * d^2;  centered: m = beta2 * m + (1 - beta2) * d, w = v - m^2, else w = v;
 * r = d / (sqrt(w) + eps);  momentum: b = beta1 * b + r, p -= lr * b, else p -= lr * r */
BP_INLINE void BP_NAME(rmsprop_any)(BP_REAL *BP_RESTRICT p, BP_REAL *BP_RESTRICT v, BP_REAL *BP_RESTRICT m,
                                    BP_REAL *BP_RESTRICT b, const BP_REAL *BP_RESTRICT g, const bp_update *u, bp_size n,
                                    const int centered, const int momentum) {
    const BP_REAL scale = (BP_REAL)u->scale, l2 = (BP_REAL)u->l2, lr = (BP_REAL)u->lr, eps = (BP_REAL)u->eps,
                  keep = (BP_REAL)u->beta2, gain = (BP_REAL)(1 - u->beta2), beta = (BP_REAL)u->beta1;
    BP_SIMD
    for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = scale * g[i] + l2 * p[i];
        BP_REAL w = v[i] = keep * v[i] + gain * d * d;
        if (centered) {
            m[i] = keep * m[i] + gain * d;
            w -= m[i] * m[i];
        }
        BP_REAL r = d / (BP_NAME(update_root)(w) + eps);
        if (momentum) r = b[i] = beta * b[i] + r;
        p[i] -= lr * r;
    }
}

static void BP_NAME(rmsprop)(BP_REAL *p, BP_REAL *v, BP_REAL *m, BP_REAL *b, const BP_REAL *g, const bp_update *u,
                             bp_size n) {
    if (m && b) BP_NAME(rmsprop_any)(p, v, m, b, g, u, n, 1, 1);
    else if (m) BP_NAME(rmsprop_any)(p, v, m, b, g, u, n, 1, 0);
    else if (b) BP_NAME(rmsprop_any)(p, v, m, b, g, u, n, 0, 1);
    else BP_NAME(rmsprop_any)(p, v, m, b, g, u, n, 0, 0);
}

/* v = beta2 * v + (1 - beta2) * d^2;  x = d * sqrt(a + eps) / sqrt(v + eps);  a = beta2 * a + (1 - beta2) * x^2;  p -= lr * x */
static void BP_NAME(adadelta)(BP_REAL *BP_RESTRICT p, BP_REAL *BP_RESTRICT v, BP_REAL *BP_RESTRICT a, BP_REAL *s2,
                              const BP_REAL *BP_RESTRICT g, const bp_update *u, bp_size n) {
    const BP_REAL scale = (BP_REAL)u->scale, l2 = (BP_REAL)u->l2, lr = (BP_REAL)u->lr, eps = (BP_REAL)u->eps,
                  keep = (BP_REAL)u->beta2, gain = (BP_REAL)(1 - u->beta2);
    (void)s2;
    BP_SIMD
    for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = scale * g[i] + l2 * p[i];
        v[i] = keep * v[i] + gain * d * d;
        const BP_REAL x = BP_NAME(update_root)(a[i] + eps) / BP_NAME(update_root)(v[i] + eps) * d;
        a[i] = keep * a[i] + gain * x * x;
        p[i] -= lr * x;
    }
}

/* m = beta1 * m + (1 - beta1) * d;  v = beta2 * v + (1 - beta2) * d^2;  amsgrad: w = top = max(top, v), else w = v;
 * p = keep * p - (direct * d + lr * m) / (sqrt(w) * root + eps)
 * Adam: lr holds 1 / (1 - beta1^t), root is 1 / sqrt(1 - beta2^t). direct is 0 but for NAdam. */
BP_INLINE void BP_NAME(adam_any)(BP_REAL *BP_RESTRICT p, BP_REAL *BP_RESTRICT m, BP_REAL *BP_RESTRICT v,
                                 BP_REAL *BP_RESTRICT top, const BP_REAL *BP_RESTRICT g, const bp_update *u, bp_size n,
                                 const int amsgrad, const int nesterov) {
    const BP_REAL scale = (BP_REAL)u->scale, l2 = (BP_REAL)u->l2, keep = (BP_REAL)u->keep, lr = (BP_REAL)u->lr,
                  eps = (BP_REAL)u->eps, beta1 = (BP_REAL)u->beta1, gain1 = (BP_REAL)(1 - u->beta1),
                  beta2 = (BP_REAL)u->beta2, gain2 = (BP_REAL)(1 - u->beta2), root = (BP_REAL)u->root,
                  direct = (BP_REAL)u->direct;
    BP_SIMD
    for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = scale * g[i] + l2 * p[i];
        m[i] = beta1 * m[i] + gain1 * d;
        BP_REAL w = v[i] = beta2 * v[i] + gain2 * d * d;
        if (amsgrad) w = top[i] = w <= top[i] ? top[i] : w; /* a NaN in v gets through */
        const BP_REAL step = nesterov ? direct * d + lr * m[i] : lr * m[i];
        p[i] = keep * p[i] - step / (BP_NAME(update_root)(w) * root + eps);
    }
}

static void BP_NAME(adam)(BP_REAL *p, BP_REAL *m, BP_REAL *v, BP_REAL *top, const BP_REAL *g, const bp_update *u, bp_size n) {
    if (top) BP_NAME(adam_any)(p, m, v, top, g, u, n, 1, 0);
    else BP_NAME(adam_any)(p, m, v, top, g, u, n, 0, 0);
}

static void BP_NAME(nadam)(BP_REAL *p, BP_REAL *m, BP_REAL *v, BP_REAL *s2, const BP_REAL *g, const bp_update *u, bp_size n) {
    BP_NAME(adam_any)(p, m, v, s2, g, u, n, 0, 1);
}

/* m and v as in Adam;  p = keep * p - m * (adaptive ? lr / (sqrt(v) + eps) : direct)
 * RAdam: adaptive (look != 0) once the variance of the adaptive rate is known well enough. */
static void BP_NAME(radam)(BP_REAL *BP_RESTRICT p, BP_REAL *BP_RESTRICT m, BP_REAL *BP_RESTRICT v, BP_REAL *s2,
                           const BP_REAL *BP_RESTRICT g, const bp_update *u, bp_size n) {
    const BP_REAL scale = (BP_REAL)u->scale, l2 = (BP_REAL)u->l2, keep = (BP_REAL)u->keep, lr = (BP_REAL)u->lr,
                  eps = (BP_REAL)u->eps, beta1 = (BP_REAL)u->beta1, gain1 = (BP_REAL)(1 - u->beta1),
                  beta2 = (BP_REAL)u->beta2, gain2 = (BP_REAL)(1 - u->beta2), direct = (BP_REAL)u->direct;
    const int adaptive = u->look != 0;
    (void)s2;
    BP_SIMD
    for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = scale * g[i] + l2 * p[i];
        m[i] = beta1 * m[i] + gain1 * d;
        v[i] = beta2 * v[i] + gain2 * d * d;
        const BP_REAL rate = adaptive ? lr / (BP_NAME(update_root)(v[i]) + eps) : direct;
        p[i] = keep * p[i] - rate * m[i];
    }
}

/* m as in Adam;  top = max(beta2 * top, |d| + eps);  p -= lr * m / top */
static void BP_NAME(adamax)(BP_REAL *BP_RESTRICT p, BP_REAL *BP_RESTRICT m, BP_REAL *BP_RESTRICT top, BP_REAL *s2,
                            const BP_REAL *BP_RESTRICT g, const bp_update *u, bp_size n) {
    const BP_REAL scale = (BP_REAL)u->scale, l2 = (BP_REAL)u->l2, lr = (BP_REAL)u->lr, eps = (BP_REAL)u->eps,
                  beta1 = (BP_REAL)u->beta1, gain1 = (BP_REAL)(1 - u->beta1), beta2 = (BP_REAL)u->beta2;
    (void)s2;
    BP_SIMD
    for (bp_size i = 0; i < n; i++) {
        const BP_REAL d = scale * g[i] + l2 * p[i], size = (d < 0 ? -d : d) + eps, old = beta2 * top[i];
        m[i] = beta1 * m[i] + gain1 * d;
        top[i] = size <= old ? old : size; /* a NaN in d gets through */
        p[i] -= lr * m[i] / top[i];
    }
}

/* x *= factor */
static void BP_NAME(rescale)(BP_REAL *BP_RESTRICT x, double factor, bp_size n) {
    const BP_REAL f = (BP_REAL)factor;
    BP_SIMD
    for (bp_size i = 0; i < n; i++) x[i] *= f;
}

/* The sum of x^2 in double: exact to a few ulp for float, and no overflow there. Four streams hide the latency of the sums. */
static double BP_NAME(sum_squares)(const BP_REAL *BP_RESTRICT x, bp_size n) {
    const bp_size q = n / 4;
    const BP_REAL *BP_RESTRICT x1 = x + q, *BP_RESTRICT x2 = x + 2 * q, *BP_RESTRICT x3 = x + 3 * q;
    double a = 0, b = 0, c = 0, d = 0;
    BP_SIMD_SUM(a, b, c, d)
    for (bp_size i = 0; i < q; i++) {
        a += (double)x[i] * (double)x[i];
        b += (double)x1[i] * (double)x1[i];
        c += (double)x2[i] * (double)x2[i];
        d += (double)x3[i] * (double)x3[i];
    }
    for (bp_size i = 4 * q; i < n; i++) a += (double)x[i] * (double)x[i];
    return (a + b) + (c + d);
}
