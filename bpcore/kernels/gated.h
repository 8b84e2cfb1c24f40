/* y = f(g) u, element by element, for activations f that are x times a share s(x) in 0..1:
 *     dg = dy u f'(g),   du = dy f(g)
 * Backward computes the share again, once for both gradients; nothing is kept of forward. */
#include "vmath.h"

/* What one element needs: f(x), and f'(x) where it is asked for. */
typedef struct {
    BP_REAL value, slope;
} BP_NAME(gate);

/* s = sigmoid(x); f' = s + x s (1 - s) */
BP_INLINE BP_NAME(gate) BP_NAME(silu_gate)(BP_REAL x) {
    const BP_REAL s = BP_NAME(v_sigmoid)(x), value = x * s;
    const BP_NAME(gate) g = {value, s * (1 + x * (1 - s))};
    return g;
}

/* s = Phi(x), the normal distribution function; f' = s + x e^(-x^2/2) / sqrt(2 pi) */
BP_INLINE BP_NAME(gate) BP_NAME(gelu_gate)(BP_REAL x) {
    const BP_REAL e = BP_NAME(v_exp_ftz)((BP_REAL)-0.5 * x * x), s = BP_NAME(v_normal_cdf)(x, e);
    const BP_NAME(gate) g = {x * s, s + x * e * (BP_REAL)0.39894228040143267794};
    return g;
}

/* s = sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)); beyond |x| = 32 it is 0 or 1: the cubic is cut off there, before it can overflow. */
BP_INLINE BP_NAME(gate) BP_NAME(gelu_tanh_gate)(BP_REAL x) {
    const BP_REAL k = (BP_REAL)1.59576912160573071176, cubic = (BP_REAL)0.044715;
    const BP_REAL t = x < -32 ? -32 : (x > 32 ? 32 : x), z = t * t, s = BP_NAME(v_sigmoid)(k * t * (1 + cubic * z));
    const BP_NAME(gate) g = {x * s, s + t * s * (1 - s) * k * (1 + 3 * cubic * z)};
    return g;
}

#undef BP_GATED
#define BP_GATED(name)                                                                                              \
    static void BP_NAME(name)(void *job, bp_size begin, bp_size end) {                                              \
        const bp_gated *j = job;                                                                                    \
        const bp_size last = end * BP_GATED_PIECE < j->n ? end * BP_GATED_PIECE : j->n;                             \
        const BP_REAL *g = j->gate, *u = j->up;                                                                     \
        BP_REAL *y = j->y;                                                                                          \
        BP_SIMD for (bp_size i = begin * BP_GATED_PIECE; i < last; i++) y[i] = BP_NAME(name##_gate)(g[i]).value * u[i]; \
    }                                                                                                               \
    static void BP_NAME(name##_backward)(void *job, bp_size begin, bp_size end) {                                   \
        const bp_gated *j = job;                                                                                    \
        const bp_size first = begin * BP_GATED_PIECE, last = end * BP_GATED_PIECE < j->n ? end * BP_GATED_PIECE : j->n; \
        const BP_REAL *g = j->gate, *u = j->up, *dy = j->dy;                                                        \
        BP_REAL *dg = j->dgate, *du = j->dup;                                                                       \
        if (dg && du) {                                                                                             \
            BP_SIMD for (bp_size i = first; i < last; i++) {                                                        \
                const BP_NAME(gate) f = BP_NAME(name##_gate)(g[i]);                                                 \
                const BP_REAL d = dy[i];                                                                            \
                dg[i] = d * u[i] * f.slope;                                                                         \
                du[i] = d * f.value;                                                                                \
            }                                                                                                       \
        } else if (dg) {                                                                                            \
            BP_SIMD for (bp_size i = first; i < last; i++) dg[i] = dy[i] * u[i] * BP_NAME(name##_gate)(g[i]).slope; \
        } else {                                                                                                    \
            BP_SIMD for (bp_size i = first; i < last; i++) du[i] = dy[i] * BP_NAME(name##_gate)(g[i]).value;        \
        }                                                                                                           \
    }

BP_GATED(silu)
BP_GATED(gelu)
BP_GATED(gelu_tanh)
