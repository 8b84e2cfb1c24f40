/* The kernel table that the core shares: one instance for each instruction set, chosen once at import (see simd.pyx).
 *
 * A kernel is a single-threaded loop over contiguous memory: outputs first, then inputs, then sizes. Every kernel
 * exists for float and for double; BP_CORE_KERNELS is the only list of them in C. To add a kernel: one line here, its body in the
 * header of its family, and its line in simd.pxd.
 */
#ifndef BP_TABLE_H
#define BP_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "macros.h"

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

#define BP_MAP_1(X, name, T) X(void, name, (T *out, const T *x, bp_size n, const T *p))
#define BP_MAP_2(X, name, T) \
    BP_MAP_1(X, name, T)     \
    X(void, name##_backward, (T *dx, const T *dy, const T *saved, bp_size n, const T *p))
#define BP_PAIR_LOSS(X, name, T)                                                   \
    X(void, name, (T *out, const T *x, const T *t, bp_size n, const T *p))         \
    X(double, name##_sum, (const T *x, const T *t, bp_size n, const T *p))         \
    X(void, name##_dx, (T *dx, const T *x, const T *t, bp_size n, T scale, const T *p))

#define BP_CORE_KERNELS(X, T)                                                                                                  \
    /* activation.h: out[n] = f(x[n]), dx[n] = dy[n] f'(saved[n]); p: three parameters, NULL where it has none */              \
    BP_MAP_1(X, exp, T)                                                                                                        \
    BP_MAP_1(X, log, T)                                                                                                        \
    BP_MAP_1(X, log1p, T)                                                                                                      \
    BP_MAP_1(X, erf, T)                                                                                                        \
    BP_MAP_2(X, relu, T)                                                                                                       \
    BP_MAP_2(X, leaky_relu, T)                                                                                                 \
    BP_MAP_2(X, hardtanh, T)                                                                                                   \
    BP_MAP_2(X, hardsigmoid, T)                                                                                                \
    BP_MAP_2(X, threshold, T)                                                                                                  \
    BP_MAP_2(X, hardshrink, T)                                                                                                 \
    BP_MAP_2(X, softshrink, T)                                                                                                 \
    BP_MAP_2(X, sigmoid, T)                                                                                                    \
    BP_MAP_2(X, tanh, T)                                                                                                       \
    BP_MAP_2(X, elu, T)                                                                                                        \
    BP_MAP_2(X, elu_input, T)                                                                                                  \
    BP_MAP_2(X, softplus, T)                                                                                                   \
    BP_MAP_2(X, logsigmoid, T)                                                                                                 \
    BP_MAP_2(X, softsign, T)                                                                                                   \
    BP_MAP_2(X, hardswish, T)                                                                                                  \
    BP_MAP_2(X, silu, T)                                                                                                       \
    BP_MAP_2(X, gelu, T)                                                                                                       \
    BP_MAP_2(X, gelu_tanh, T)                                                                                                  \
    BP_MAP_2(X, mish, T)                                                                                                       \
    /* reduce.h: the sum, in chunks of fixed length */                                                                         \
    X(double, sum, (const T *x, bp_size n))                                                                                    \
    /* reduce.h: out[cols] = the sum of rows that lie ld apart */                                                              \
    X(void, sum_rows, (T *out, const T *x, bp_size rows, bp_size cols, bp_size ld))                                            \
    /* rows.h: over the rows of a contiguous (rows, cols) */                                                                   \
    X(void, softmax, (T *y, const T *x, bp_size rows, bp_size cols))                                                           \
    X(void, softmax_backward, (T *dx, const T *dy, const T *y, bp_size rows, bp_size cols))                                    \
    X(void, log_softmax, (T *y, const T *x, bp_size rows, bp_size cols))                                                       \
    X(void, log_softmax_backward, (T *dx, const T *dy, const T *y, bp_size rows, bp_size cols))                                \
    X(void, cross_entropy, (T *loss, T *dx, const T *x, const int64_t *t, const T *weight, bp_size rows, bp_size cols,         \
                          int64_t ignore, T smoothing, T scale))                                                               \
    X(void, cross_entropy_soft, (T *loss, T *dx, const T *x, const T *target, const T *weight, bp_size rows, bp_size cols,     \
                               T smoothing, T scale))                                                                          \
    /* axis.h: the same over `width` columns of a (cols, inner) matrix */                                                      \
    X(void, softmax_tile, (T *y, const T *x, bp_size cols, bp_size inner, bp_size width))                                      \
    X(void, log_softmax_tile, (T *y, const T *x, bp_size cols, bp_size inner, bp_size width))                                  \
    X(void, softmax_tile_backward, (T *dx, const T *dy, const T *y, bp_size cols, bp_size inner, bp_size width))               \
    X(void, log_softmax_tile_backward, (T *dx, const T *dy, const T *y, bp_size cols, bp_size inner, bp_size width))           \
    /* losses.h: f(x[n], t[n]), its sum, and its derivatives times scale */                                                    \
    BP_PAIR_LOSS(X, mse, T)                                                                                                    \
    BP_PAIR_LOSS(X, l1, T)                                                                                                     \
    BP_PAIR_LOSS(X, smooth_l1, T)                                                                                              \
    BP_PAIR_LOSS(X, huber, T)                                                                                                  \
    BP_PAIR_LOSS(X, bce, T)                                                                                                    \
    BP_PAIR_LOSS(X, bce_logits, T)                                                                                             \
    BP_PAIR_LOSS(X, kl_div, T)                                                                                                 \
    BP_PAIR_LOSS(X, kl_div_log, T)                                                                                             \
    X(void, bce_dt, (T *dt, const T *x, const T *t, bp_size n, T scale, const T *p))                                           \
    X(void, bce_logits_dt, (T *dt, const T *x, const T *t, bp_size n, T scale, const T *p))                                    \
    X(void, kl_div_dt, (T *dt, const T *x, const T *t, bp_size n, T scale, const T *p))                                        \
    X(void, kl_div_log_dt, (T *dt, const T *x, const T *t, bp_size n, T scale, const T *p))                                    \
    /* dropout.h: y[n] = x[n] kept + shift, or x[n] 0 + floor where the element is dropped; starts at element 256 group */     \
    X(void, dropout, (T *y, const T *x, bp_size n, uint64_t seed, uint64_t group, uint32_t threshold, T kept, T shift, T floor)) \
    X(void, random_words, (uint32_t *words, bp_size n, uint64_t seed))                                                         \
    /* arith.h: y[n] = a[n] (op) b[n], and with a number in place of b */                                                      \
    X(void, arith, (int op, T *y, const T *a, const T *b, bp_size n))                                                          \
    X(void, arith_number, (int op, T *y, const T *a, T s, bp_size n))                                                          \
    /* update.h: one step of an optimizer over p[n] and its state s0, s1, s2 (NULL where it has none) from g[n] */             \
    X(void, sgd, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                       \
    X(void, adagrad, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                   \
    X(void, rmsprop, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                   \
    X(void, adadelta, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                  \
    X(void, adam, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                      \
    X(void, nadam, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                     \
    X(void, radam, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                     \
    X(void, adamax, (T *p, T *s0, T *s1, T *s2, const T *g, const bp_update *u, bp_size n))                                    \
    X(void, rescale, (T *x, double factor, bp_size n))                                                                         \
    X(double, sum_squares, (const T *x, bp_size n))                                                                            \
    /* gemm.h: rows i0..i1 and columns j0..j1 of a matrix product; b packed once; the height and width of a tile */            \
    X(void, gemm, (const bp_gemm *g, bp_size i0, bp_size i1, bp_size j0, bp_size j1))                                          \
    X(void, gemm_pack, (T *out, const T *b, bp_size rsb, bp_size csb, bp_size n, bp_size k, bp_size j0, bp_size j1))           \
    X(int, gemm_mr, (void)) X(int, gemm_nr, (void))

BP_DECLARE_TABLE(bp_table, BP_CORE_KERNELS)

#endif
