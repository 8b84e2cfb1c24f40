/* All kernels for one instruction set. No include guard: simd_tables.h includes this once for each set with
 * BP_ISA (a name such as avx2) and BP_WIDTH (vector bytes) defined, under the matching target pragma. */

#define BP_REAL float
#define BP_F32 1
#define BP_TYPE f32
#define BP_NAME(name) BP_CAT(BP_CAT(name, BP_TYPE), BP_ISA)
#include "families.h"
#undef BP_REAL
#undef BP_F32
#undef BP_TYPE

#define BP_REAL double
#define BP_F32 0
#define BP_TYPE f64
#include "families.h"

#define BP_ENTRY(name, type) .name = BP_CAT(BP_CAT(name, type), BP_ISA),
#define BP_ENTRIES(type)                                                            \
    {                                                                               \
        BP_ENTRY(exp, type)                                                         \
        BP_ENTRY(log, type)                                                         \
        BP_ENTRY(log1p, type)                                                       \
        BP_ENTRY(erf, type)                                                         \
        BP_ENTRY(relu, type) BP_ENTRY(relu_backward, type)                          \
        BP_ENTRY(leaky_relu, type) BP_ENTRY(leaky_relu_backward, type)              \
        BP_ENTRY(hardtanh, type) BP_ENTRY(hardtanh_backward, type)                  \
        BP_ENTRY(hardsigmoid, type) BP_ENTRY(hardsigmoid_backward, type)            \
        BP_ENTRY(threshold, type) BP_ENTRY(threshold_backward, type)                \
        BP_ENTRY(hardshrink, type) BP_ENTRY(hardshrink_backward, type)              \
        BP_ENTRY(softshrink, type) BP_ENTRY(softshrink_backward, type)              \
        BP_ENTRY(sigmoid, type) BP_ENTRY(sigmoid_backward, type)                    \
        BP_ENTRY(tanh, type) BP_ENTRY(tanh_backward, type)                          \
        BP_ENTRY(elu, type) BP_ENTRY(elu_backward, type)                            \
        BP_ENTRY(elu_input, type) BP_ENTRY(elu_input_backward, type)                \
        BP_ENTRY(softplus, type) BP_ENTRY(softplus_backward, type)                  \
        BP_ENTRY(logsigmoid, type) BP_ENTRY(logsigmoid_backward, type)              \
        BP_ENTRY(softsign, type) BP_ENTRY(softsign_backward, type)                  \
        BP_ENTRY(hardswish, type) BP_ENTRY(hardswish_backward, type)                \
        BP_ENTRY(silu, type) BP_ENTRY(silu_backward, type)                          \
        BP_ENTRY(gelu, type) BP_ENTRY(gelu_backward, type)                          \
        BP_ENTRY(gelu_tanh, type) BP_ENTRY(gelu_tanh_backward, type)                \
        BP_ENTRY(mish, type) BP_ENTRY(mish_backward, type)                          \
        BP_ENTRY(sum, type)                                                         \
        BP_ENTRY(sum_rows, type)                                                    \
        BP_ENTRY(softmax, type)                                                     \
        BP_ENTRY(softmax_backward, type)                                            \
        BP_ENTRY(log_softmax, type)                                                 \
        BP_ENTRY(log_softmax_backward, type)                                        \
        BP_ENTRY(cross_entropy, type)                                               \
        BP_ENTRY(cross_entropy_soft, type)                                          \
        BP_ENTRY(softmax_tile, type) BP_ENTRY(softmax_tile_backward, type)          \
        BP_ENTRY(log_softmax_tile, type) BP_ENTRY(log_softmax_tile_backward, type)  \
        BP_ENTRY(mse, type) BP_ENTRY(mse_sum, type) BP_ENTRY(mse_dx, type)          \
        BP_ENTRY(l1, type) BP_ENTRY(l1_sum, type) BP_ENTRY(l1_dx, type)             \
        BP_ENTRY(smooth_l1, type) BP_ENTRY(smooth_l1_sum, type) BP_ENTRY(smooth_l1_dx, type)\
        BP_ENTRY(huber, type) BP_ENTRY(huber_sum, type) BP_ENTRY(huber_dx, type)    \
        BP_ENTRY(bce, type) BP_ENTRY(bce_sum, type) BP_ENTRY(bce_dx, type)          \
        BP_ENTRY(bce_logits, type) BP_ENTRY(bce_logits_sum, type) BP_ENTRY(bce_logits_dx, type)\
        BP_ENTRY(kl_div, type) BP_ENTRY(kl_div_sum, type) BP_ENTRY(kl_div_dx, type) \
        BP_ENTRY(kl_div_log, type) BP_ENTRY(kl_div_log_sum, type) BP_ENTRY(kl_div_log_dx, type)\
        BP_ENTRY(bce_dt, type)                                                      \
        BP_ENTRY(bce_logits_dt, type)                                               \
        BP_ENTRY(kl_div_dt, type)                                                   \
        BP_ENTRY(kl_div_log_dt, type)                                               \
        BP_ENTRY(dropout, type) BP_ENTRY(random_words, type)                        \
        .arith = BP_CAT(BP_CAT(arith, type), BP_ISA),                               \
        .arith_number = BP_CAT(BP_CAT(arith_number, type), BP_ISA),                 \
        .sgd = BP_CAT(BP_CAT(sgd, type), BP_ISA),                                   \
        .adagrad = BP_CAT(BP_CAT(adagrad, type), BP_ISA),                           \
        .rmsprop = BP_CAT(BP_CAT(rmsprop, type), BP_ISA),                           \
        .adadelta = BP_CAT(BP_CAT(adadelta, type), BP_ISA),                         \
        .adam = BP_CAT(BP_CAT(adam, type), BP_ISA),                                 \
        .nadam = BP_CAT(BP_CAT(nadam, type), BP_ISA),                               \
        .radam = BP_CAT(BP_CAT(radam, type), BP_ISA),                               \
        .adamax = BP_CAT(BP_CAT(adamax, type), BP_ISA),                             \
        .rescale = BP_CAT(BP_CAT(rescale, type), BP_ISA),                           \
        .sum_squares = BP_CAT(BP_CAT(sum_squares, type), BP_ISA),                   \
        .gemm = BP_CAT(BP_CAT(gemm, type), BP_ISA),                                 \
        .gemm_pack = BP_CAT(BP_CAT(gemm_pack, type), BP_ISA),                       \
        .gemm_mr = BP_CAT(BP_CAT(gemm_mr, type), BP_ISA),                           \
        .gemm_nr = BP_CAT(BP_CAT(gemm_nr, type), BP_ISA),                           \
    }
#define BP_STRING_(x) #x
#define BP_STRING(x) BP_STRING_(x)

static const bp_table BP_CAT(bp_table, BP_ISA) = {
    .name = BP_STRING(BP_ISA),
    .f32 = BP_ENTRIES(f32),
    .f64 = BP_ENTRIES(f64),
};

#undef BP_REAL
#undef BP_F32
#undef BP_TYPE
#undef BP_NAME
#undef BP_ENTRY
#undef BP_ENTRIES
#undef BP_STRING
#undef BP_STRING_
