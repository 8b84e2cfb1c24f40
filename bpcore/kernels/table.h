/* The kernel table: one instance for each instruction set, chosen once at import (see simd.pyx).
 *
 * A kernel is a single-threaded loop over contiguous memory: outputs first, then inputs, then sizes. Every kernel
 * exists for float and for double; KERNELS(T) below is the only list of their signatures. To add a kernel: one line here,
 * its body in the header of its family, and one line in isa.h.
 */
#ifndef BP_TABLE_H
#define BP_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t bp_size;

/* What an optimizer's update needs besides its arrays; update.h says which kernel reads what. */
typedef struct {
    double scale, l2, keep, lr, eps, beta1, beta2, root, gain, direct, look;
} bp_update;

#define BP_MAP_1(name, T) void (*name)(T *out, const T *x, bp_size n, const T *p);
#define BP_MAP_2(name, T) \
    BP_MAP_1(name, T)     \
    void (*name##_backward)(T *dx, const T *dy, const T *saved, bp_size n, const T *p);
#define BP_PAIR_LOSS(name, T)                                                      \
    void (*name)(T *out, const T *x, const T *t, bp_size n, const T *p);           \
    double (*name##_sum)(const T *x, const T *t, bp_size n, const T *p);           \
    void (*name##_dx)(T *dx, const T *x, const T *t, bp_size n, T scale, const T *p);

#define KERNELS(T)                                                                                        \
    /* activation.h: out[n] = f(x[n]), dx[n] = dy[n] f'(saved[n]); p: three parameters, NULL where it has none */\
    BP_MAP_1(exp, T)                                                                                      \
    BP_MAP_1(log, T)                                                                                      \
    BP_MAP_1(log1p, T)                                                                                    \
    BP_MAP_1(erf, T)                                                                                      \
    BP_MAP_1(elu_slope, T)                                                                                \
    BP_MAP_2(relu, T)                                                                                     \
    BP_MAP_2(leaky_relu, T)                                                                               \
    BP_MAP_2(hardtanh, T)                                                                                 \
    BP_MAP_2(hardsigmoid, T)                                                                              \
    BP_MAP_2(threshold, T)                                                                                \
    BP_MAP_2(sigmoid, T)                                                                                  \
    BP_MAP_2(tanh, T)                                                                                     \
    BP_MAP_2(elu, T)                                                                                      \
    BP_MAP_2(softplus, T)                                                                                 \
    BP_MAP_2(logsigmoid, T)                                                                               \
    BP_MAP_2(softsign, T)                                                                                 \
    BP_MAP_2(hardswish, T)                                                                                \
    BP_MAP_2(silu, T)                                                                                     \
    BP_MAP_2(gelu, T)                                                                                     \
    BP_MAP_2(gelu_tanh, T)                                                                                \
    BP_MAP_2(mish, T)                                                                                     \
    /* reduce.h: the sum, in chunks of fixed length */                                                    \
    double (*sum)(const T *x, bp_size n);                                                                 \
    /* rows.h: over the rows of a contiguous (rows, cols) */                                              \
    void (*softmax)(T *y, const T *x, bp_size rows, bp_size cols);                                        \
    void (*softmax_backward)(T *dx, const T *dy, const T *y, bp_size rows, bp_size cols);                 \
    void (*log_softmax)(T *y, const T *x, bp_size rows, bp_size cols);                                    \
    void (*log_softmax_backward)(T *dx, const T *dy, const T *y, bp_size rows, bp_size cols);             \
    void (*cross_entropy)(T *loss, T *dx, const T *x, const int64_t *t, const T *weight, bp_size rows, bp_size cols,\
                          int64_t ignore, T smoothing, T scale);                                          \
    void (*cross_entropy_soft)(T *loss, T *dx, const T *x, const T *target, const T *weight, bp_size rows, bp_size cols,\
                               T smoothing, T scale);                                                     \
    /* losses.h: f(x[n], t[n]), its sum, and its derivatives times scale */                               \
    BP_PAIR_LOSS(mse, T)                                                                                  \
    BP_PAIR_LOSS(l1, T)                                                                                   \
    BP_PAIR_LOSS(smooth_l1, T)                                                                            \
    BP_PAIR_LOSS(huber, T)                                                                                \
    BP_PAIR_LOSS(bce, T)                                                                                  \
    BP_PAIR_LOSS(bce_logits, T)                                                                           \
    BP_PAIR_LOSS(kl_div, T)                                                                               \
    BP_PAIR_LOSS(kl_div_log, T)                                                                           \
    void (*bce_dt)(T *dt, const T *x, const T *t, bp_size n, T scale, const T *p);                        \
    void (*bce_logits_dt)(T *dt, const T *x, const T *t, bp_size n, T scale, const T *p);                 \
    void (*kl_div_dt)(T *dt, const T *x, const T *t, bp_size n, T scale, const T *p);                     \
    void (*kl_div_log_dt)(T *dt, const T *x, const T *t, bp_size n, T scale, const T *p);                 \
    /* dropout.h: y[n] = x[n] kept + shift, or x[n] 0 + floor where the element is dropped; starts at element 256 group */\
    void (*dropout)(T *y, const T *x, bp_size n, uint64_t seed, uint64_t group, uint32_t threshold, T kept, T shift, T floor);\
    void (*random_words)(uint32_t *words, bp_size n, uint64_t seed);                                      \
    /* arith.h: y[n] = a[n] (op) b[n], and with a number in place of b */                                 \
    void (*arith)(int op, T *y, const T *a, const T *b, bp_size n);                                       \
    void (*arith_number)(int op, T *y, const T *a, T s, bp_size n);                                       \
    /* update.h: one step of an optimizer over p[n] and its state s0, s1, s2 (NULL where it has none) from g[n] */ \
    void (*sgd)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);                    \
    void (*adagrad)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);                \
    void (*rmsprop)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);                \
    void (*adadelta)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);               \
    void (*adam)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);                   \
    void (*nadam)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);                  \
    void (*radam)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);                  \
    void (*adamax)(T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n);                 \
    void (*rescale)(T *x, double factor, bp_size n);                                                      \
    double (*sum_squares)(const T *x, bp_size n);                                                         \

typedef struct { KERNELS(float) } bp_kernels_f32;
typedef struct { KERNELS(double) } bp_kernels_f64;

typedef struct {
    const char *name; /* "baseline", "avx2", "avx512", "neon" */
    bp_kernels_f32 f32;
    bp_kernels_f64 f64;
} bp_table;

#endif
