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

#define BP_NARROW 32         /* rows.h: narrower rows are worked on together, */
#define BP_NARROW_ROWS 16    /* in pieces of so many: vectors then start at the same places however rows are shared out */
#define BP_AXIS_TILE 64       /* axis.h: the most columns that one call works on */
#define BP_DROPOUT_GROUP 256  /* dropout.h: elements that share their counters */

#include "gemm_args.h"

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
    BP_MAP_2(relu, T)                                                                                     \
    BP_MAP_2(leaky_relu, T)                                                                               \
    BP_MAP_2(hardtanh, T)                                                                                 \
    BP_MAP_2(hardsigmoid, T)                                                                              \
    BP_MAP_2(threshold, T)                                                                                \
    BP_MAP_2(hardshrink, T)                                                                               \
    BP_MAP_2(softshrink, T)                                                                               \
    BP_MAP_2(sigmoid, T)                                                                                  \
    BP_MAP_2(tanh, T)                                                                                     \
    BP_MAP_2(elu, T)                                                                                      \
    BP_MAP_2(elu_input, T)                                                                                \
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
    /* reduce.h: out[cols] = the sum of rows that lie ld apart */                                         \
    void (*sum_rows)(T *out, const T *x, bp_size rows, bp_size cols, bp_size ld);                         \
    /* rows.h: over the rows of a contiguous (rows, cols) */                                              \
    void (*softmax)(T *y, const T *x, bp_size rows, bp_size cols);                                        \
    void (*softmax_backward)(T *dx, const T *dy, const T *y, bp_size rows, bp_size cols);                 \
    void (*log_softmax)(T *y, const T *x, bp_size rows, bp_size cols);                                    \
    void (*log_softmax_backward)(T *dx, const T *dy, const T *y, bp_size rows, bp_size cols);             \
    void (*cross_entropy)(T *loss, T *dx, const T *x, const int64_t *t, const T *weight, bp_size rows, bp_size cols,\
                          int64_t ignore, T smoothing, T scale);                                          \
    void (*cross_entropy_soft)(T *loss, T *dx, const T *x, const T *target, const T *weight, bp_size rows, bp_size cols,\
                               T smoothing, T scale);                                                     \
    /* axis.h: the same over `width` columns of a (cols, inner) matrix */                                 \
    void (*softmax_tile)(T *y, const T *x, bp_size cols, bp_size inner, bp_size width);                   \
    void (*log_softmax_tile)(T *y, const T *x, bp_size cols, bp_size inner, bp_size width);               \
    void (*softmax_tile_backward)(T *dx, const T *dy, const T *y, bp_size cols, bp_size inner, bp_size width);\
    void (*log_softmax_tile_backward)(T *dx, const T *dy, const T *y, bp_size cols, bp_size inner, bp_size width);\
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
    /* gemm.h: rows i0..i1 and columns j0..j1 of a matrix product; b packed once; the height and width of a tile */ \
    void (*gemm)(const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1);                       \
    void (*gemm_pack)(T *out, const T *b, bp_size rsb, bp_size csb, bp_size n, bp_size k, bp_size j0, bp_size j1); \
    int gemm_mr, gemm_nr;                                                                                 \

typedef struct { KERNELS(float) } bp_kernels_f32;
typedef struct { KERNELS(double) } bp_kernels_f64;

typedef struct {
    const char *name; /* "baseline", "avx2", "avx512", "neon" */
    bp_kernels_f32 f32;
    bp_kernels_f64 f64;
} bp_table;

#endif
