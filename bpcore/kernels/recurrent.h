/* One time step of a recurrent layer after its product: biases, activations, the new state; and backward to the gradients
 * before the activations. bp_cell (recurrent_table.h) says what the arrays are. Rows are computed one by one, so that a row's
 * bits do not depend on how many others there are. */
#include "vmath.h"

#undef BP_ROW
#define BP_ROW(type, name, at, ld) type *name = (type *)s->at + row * (ld)

/* Ask for n numbers that will be written soon. The rows of dz were read by every core for the products of the last part, and to
 * write them one by one takes long. */
BP_INLINE void BP_NAME(claim)(const BP_REAL *x, bp_size n) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    /* no instruction set of its own: processors that lack it skip it */
    for (bp_size i = 0; i < n; i += 64 / sizeof(BP_REAL)) __asm__ __volatile__("prefetchw %0" : : "m"(x[i]));
#elif defined(__GNUC__) || defined(__clang__)
    for (bp_size i = 0; i < n; i += 64 / sizeof(BP_REAL)) __builtin_prefetch(x + i, 1);
#else
    (void)x, (void)n;
#endif
}

/* The same for row `row` of dz. */
BP_INLINE void BP_NAME(claim_row)(const bp_cell *s, bp_size row, bp_size columns) {
    if (row < s->rows) BP_NAME(claim)((const BP_REAL *)s->dz + row * s->ld_dz, columns);
}

/* h = f(z) */
#define BP_RNN(name, f, slope)                                                              \
    static void BP_NAME(name)(const bp_cell *s) {                                           \
        const BP_REAL *bias = (const BP_REAL *)s->bias;                                     \
        for (bp_size row = 0; row < s->rows; row++) {                                       \
            BP_ROW(BP_REAL, y, gates, s->ld_gates);                                         \
            BP_ROW(BP_REAL, h, h, s->units);                                                \
            BP_SIMD for (bp_size j = 0; j < s->units; j++) {                                \
                const BP_REAL z = y[j] + bias[j];                                           \
                y[j] = h[j] = (f);                                                          \
            }                                                                               \
        }                                                                                   \
    }                                                                                       \
    static void BP_NAME(name##_backward)(const bp_cell *s) {                                \
        for (bp_size row = 0; row < s->rows; row++) {                                       \
            BP_ROW(const BP_REAL, h, gates, s->ld_gates);                                   \
            BP_ROW(const BP_REAL, dout, dout, s->ld_dout);                                  \
            BP_ROW(const BP_REAL, dh, dh, s->units);                                        \
            BP_ROW(BP_REAL, dz, dz, s->ld_dz);                                              \
            BP_SIMD for (bp_size j = 0; j < s->units; j++) {                                \
                const BP_REAL y = h[j], dy = dh[j] + dout[j];                               \
                dz[j] = (slope);                                                            \
            }                                                                               \
        }                                                                                   \
    }
BP_RNN(rnn_tanh, BP_NAME(v_tanh)(z), dy * (1 - y * y))
BP_RNN(rnn_relu, z < 0 ? 0 : z, y <= 0 ? 0 : dy)
#undef BP_RNN

/* c' = f c + i g,  h = o tanh c' */
static void BP_NAME(lstm)(const bp_cell *s) {
    const bp_size n = s->units;
    const BP_REAL *bias = (const BP_REAL *)s->bias;
    for (bp_size row = 0; row < s->rows; row++) {
        BP_ROW(BP_REAL, z, gates, s->ld_gates);
        BP_ROW(BP_REAL, h, h, n);
        BP_ROW(BP_REAL, c, c, n);
        BP_ROW(BP_REAL, before, before, s->ld_before);
        BP_ROW(BP_REAL, out, out, s->ld_out);
        BP_SIMD for (bp_size j = 0; j < n; j++) {
            const BP_REAL i = BP_NAME(v_sigmoid)(z[j] + bias[j]), f = BP_NAME(v_sigmoid)(z[n + j] + bias[n + j]);
            const BP_REAL g = BP_NAME(v_tanh)(z[2 * n + j] + bias[2 * n + j]);
            const BP_REAL o = BP_NAME(v_sigmoid)(z[3 * n + j] + bias[3 * n + j]);
            const BP_REAL old = c[j], new = f * old + i * g;
            z[j] = i;
            z[n + j] = f;
            z[2 * n + j] = g;
            z[3 * n + j] = o;
            before[j] = old;
            c[j] = new;
            out[j] = h[j] = o * BP_NAME(v_tanh)(new);
        }
    }
}

static void BP_NAME(lstm_backward)(const bp_cell *s) {
    const bp_size n = s->units;
    BP_NAME(claim_row)(s, 0, 4 * n);
    BP_NAME(claim_row)(s, 1, 4 * n);
    for (bp_size row = 0; row < s->rows; row++) {
        BP_NAME(claim_row)(s, row + 2, 4 * n);
        BP_ROW(const BP_REAL, gates, gates, s->ld_gates);
        BP_ROW(const BP_REAL, before, before, s->ld_before);
        BP_ROW(const BP_REAL, dout, dout, s->ld_dout);
        BP_ROW(const BP_REAL, dh, dh, n);
        BP_ROW(BP_REAL, dc, dc, n);
        BP_ROW(BP_REAL, dz, dz, s->ld_dz);
        BP_SIMD for (bp_size j = 0; j < n; j++) {
            const BP_REAL i = gates[j], f = gates[n + j], g = gates[2 * n + j], o = gates[3 * n + j], old = before[j];
            const BP_REAL t = BP_NAME(v_tanh)(f * old + i * g), dy = dh[j] + dout[j];
            const BP_REAL d = dc[j] + dy * o * (1 - t * t);
            dz[j] = d * g * i * (1 - i);
            dz[n + j] = d * old * f * (1 - f);
            dz[2 * n + j] = d * i * (1 - g * g);
            dz[3 * n + j] = dy * t * o * (1 - o);
            dc[j] = d * f;
        }
    }
}

/* h' = (1 - z) n + z h,  n = tanh(W_n x + b_in + r m) */
static void BP_NAME(gru)(const bp_cell *s) {
    const bp_size n = s->units;
    const BP_REAL *bias = (const BP_REAL *)s->bias;
    for (bp_size row = 0; row < s->rows; row++) {
        BP_ROW(BP_REAL, y, gates, s->ld_gates);
        BP_ROW(BP_REAL, h, h, n);
        BP_ROW(BP_REAL, out, out, s->ld_out);
        BP_SIMD for (bp_size j = 0; j < n; j++) {
            const BP_REAL r = BP_NAME(v_sigmoid)(y[j] + bias[j]), z = BP_NAME(v_sigmoid)(y[n + j] + bias[n + j]);
            const BP_REAL m = y[3 * n + j] + bias[3 * n + j];
            const BP_REAL new = BP_NAME(v_tanh)(y[2 * n + j] + bias[2 * n + j] + r * m);
            y[j] = r;
            y[n + j] = z;
            y[2 * n + j] = new;
            y[3 * n + j] = m;
            out[j] = h[j] = new + z * (h[j] - new);
        }
    }
}

static void BP_NAME(gru_backward)(const bp_cell *s) {
    const bp_size n = s->units;
    BP_NAME(claim_row)(s, 0, 4 * n);
    BP_NAME(claim_row)(s, 1, 4 * n);
    for (bp_size row = 0; row < s->rows; row++) {
        BP_NAME(claim_row)(s, row + 2, 4 * n);
        BP_ROW(const BP_REAL, gates, gates, s->ld_gates);
        BP_ROW(const BP_REAL, before, before, s->ld_before);
        BP_ROW(const BP_REAL, dout, dout, s->ld_dout);
        BP_ROW(BP_REAL, dh, dh, n);
        BP_ROW(BP_REAL, dz, dz, s->ld_dz);
        BP_SIMD for (bp_size j = 0; j < n; j++) {
            const BP_REAL r = gates[j], z = gates[n + j], new = gates[2 * n + j], m = gates[3 * n + j];
            const BP_REAL dy = dh[j] + dout[j], dn = dy * (1 - z) * (1 - new * new);
            dz[j] = dn * m * r * (1 - r);
            dz[n + j] = dy * (before[j] - new) * z * (1 - z);
            dz[2 * n + j] = dn;
            dz[3 * n + j] = dn * r;
            dh[j] = dy * z;
        }
    }
}
#undef BP_ROW
