from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "kernels/table.h":
    const Py_ssize_t BP_NARROW
    const Py_ssize_t BP_NARROW_ROWS
    const Py_ssize_t BP_AXIS_TILE
    const Py_ssize_t BP_DROPOUT_GROUP

    ctypedef struct bp_update:
        double scale, l2, keep, lr, eps, beta1, beta2, root, gain, direct, look

ctypedef void (*update_f32)(float *p, float *s0, float *s1, float *s2, const float *g, const bp_update *u,
                            Py_ssize_t n) noexcept nogil
ctypedef void (*update_f64)(double *p, double *s0, double *s1, double *s2, const double *g, const bp_update *u,
                            Py_ssize_t n) noexcept nogil

ctypedef void (*map_f32)(float *out, const float *x, Py_ssize_t n, const float *p) noexcept nogil
ctypedef void (*map_backward_f32)(float *dx, const float *dy, const float *saved, Py_ssize_t n,
                                 const float *p) noexcept nogil
ctypedef double (*loss_sum_f32)(const float *x, const float *t, Py_ssize_t n, const float *p) noexcept nogil
ctypedef void (*loss_f32)(float *out, const float *x, const float *t, Py_ssize_t n, const float *p) noexcept nogil
ctypedef void (*loss_slope_f32)(float *out, const float *x, const float *t, Py_ssize_t n, float scale,
                               const float *p) noexcept nogil
ctypedef void (*rows_f32)(float *y, const float *x, Py_ssize_t rows, Py_ssize_t cols) noexcept nogil
ctypedef void (*tile_f32)(float *y, const float *x, Py_ssize_t cols, Py_ssize_t inner, Py_ssize_t width) noexcept nogil
ctypedef void (*tile_backward_f32)(float *dx, const float *dy, const float *y, Py_ssize_t cols, Py_ssize_t inner,
                                  Py_ssize_t width) noexcept nogil
ctypedef void (*rows_backward_f32)(float *dx, const float *dy, const float *y, Py_ssize_t rows,
                                  Py_ssize_t cols) noexcept nogil
ctypedef void (*map_f64)(double *out, const double *x, Py_ssize_t n, const double *p) noexcept nogil
ctypedef void (*map_backward_f64)(double *dx, const double *dy, const double *saved, Py_ssize_t n,
                                 const double *p) noexcept nogil
ctypedef double (*loss_sum_f64)(const double *x, const double *t, Py_ssize_t n, const double *p) noexcept nogil
ctypedef void (*loss_f64)(double *out, const double *x, const double *t, Py_ssize_t n, const double *p) noexcept nogil
ctypedef void (*loss_slope_f64)(double *out, const double *x, const double *t, Py_ssize_t n, double scale,
                               const double *p) noexcept nogil
ctypedef void (*rows_f64)(double *y, const double *x, Py_ssize_t rows, Py_ssize_t cols) noexcept nogil
ctypedef void (*tile_f64)(double *y, const double *x, Py_ssize_t cols, Py_ssize_t inner, Py_ssize_t width) noexcept nogil
ctypedef void (*tile_backward_f64)(double *dx, const double *dy, const double *y, Py_ssize_t cols, Py_ssize_t inner,
                                  Py_ssize_t width) noexcept nogil
ctypedef void (*rows_backward_f64)(double *dx, const double *dy, const double *y, Py_ssize_t rows,
                                  Py_ssize_t cols) noexcept nogil

ctypedef void (*bp_epilogue)(void *ctx, Py_ssize_t row0, Py_ssize_t row1, Py_ssize_t col0, Py_ssize_t col1) noexcept nogil

cdef extern from "kernels/table.h":
    enum:
        BP_TILE, BP_DOT, BP_AXPY

    ctypedef struct bp_gemm:
        void *c
        const void *a
        const void *b
        const void *bias
        Py_ssize_t m, n, k, rsc, csc, rsa, csa, rsb, csb
        double alpha, beta
        const void *packed
        bp_epilogue epilogue
        void *ctx
        int path, transposed

    ctypedef struct bp_table_f32:
        map_f32 exp, log, log1p, erf, relu, leaky_relu, hardtanh, hardsigmoid, threshold, hardshrink, softshrink
        map_f32 sigmoid
        map_f32 tanh, elu, elu_input, softplus, logsigmoid, softsign, hardswish, silu, gelu, gelu_tanh, mish
        map_backward_f32 relu_backward, leaky_relu_backward, hardtanh_backward, hardsigmoid_backward
        map_backward_f32 threshold_backward, hardshrink_backward, softshrink_backward, sigmoid_backward
        map_backward_f32 tanh_backward, elu_backward, elu_input_backward, softplus_backward
        map_backward_f32 logsigmoid_backward, softsign_backward, hardswish_backward, silu_backward
        map_backward_f32 gelu_backward, gelu_tanh_backward, mish_backward
        double (*sum)(const float *x, Py_ssize_t n) noexcept nogil
        void (*sum_rows)(float *out, const float *x, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t ld) noexcept nogil
        rows_f32 softmax, log_softmax
        rows_backward_f32 softmax_backward, log_softmax_backward
        void (*cross_entropy)(float *loss, float *dx, const float *x, const int64_t *t, const float *weight, Py_ssize_t rows,
                              Py_ssize_t cols, int64_t ignore, float smoothing, float scale) noexcept nogil
        void (*cross_entropy_soft)(float *loss, float *dx, const float *x, const float *target, const float *weight,
                                   Py_ssize_t rows, Py_ssize_t cols, float smoothing, float scale) noexcept nogil
        tile_f32 softmax_tile, log_softmax_tile
        tile_backward_f32 softmax_tile_backward, log_softmax_tile_backward
        loss_f32 mse, l1, smooth_l1, huber, bce, bce_logits, kl_div, kl_div_log
        loss_sum_f32 mse_sum, l1_sum, smooth_l1_sum, huber_sum, bce_sum, bce_logits_sum, kl_div_sum
        loss_sum_f32 kl_div_log_sum
        loss_slope_f32 mse_dx, l1_dx, smooth_l1_dx, huber_dx, bce_dx, bce_logits_dx, kl_div_dx, kl_div_log_dx
        loss_slope_f32 bce_dt, bce_logits_dt, kl_div_dt, kl_div_log_dt
        void (*dropout)(float *y, const float *x, Py_ssize_t n, uint64_t seed, uint64_t group, uint32_t threshold,
                        float kept, float shift, float floor) noexcept nogil
        void (*random_words)(uint32_t *words, Py_ssize_t n, uint64_t seed) noexcept nogil
        void (*arith)(int op, float *y, const float *a, const float *b, Py_ssize_t n) noexcept nogil
        void (*arith_number)(int op, float *y, const float *a, float s, Py_ssize_t n) noexcept nogil
        update_f32 sgd
        update_f32 adagrad
        update_f32 rmsprop
        update_f32 adadelta
        update_f32 adam
        update_f32 nadam
        update_f32 radam
        update_f32 adamax
        void (*rescale)(float *x, double factor, Py_ssize_t n) noexcept nogil
        double (*sum_squares)(const float *x, Py_ssize_t n) noexcept nogil
        void (*gemm)(const bp_gemm *g, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1) noexcept nogil
        void (*gemm_pack)(float *out, const float *b, Py_ssize_t rsb, Py_ssize_t csb, Py_ssize_t n, Py_ssize_t k,
                          Py_ssize_t j0, Py_ssize_t j1) noexcept nogil
        int (*gemm_mr)() noexcept nogil
        int (*gemm_nr)() noexcept nogil

    ctypedef struct bp_table_f64:
        map_f64 exp, log, log1p, erf, relu, leaky_relu, hardtanh, hardsigmoid, threshold, hardshrink, softshrink
        map_f64 sigmoid
        map_f64 tanh, elu, elu_input, softplus, logsigmoid, softsign, hardswish, silu, gelu, gelu_tanh, mish
        map_backward_f64 relu_backward, leaky_relu_backward, hardtanh_backward, hardsigmoid_backward
        map_backward_f64 threshold_backward, hardshrink_backward, softshrink_backward, sigmoid_backward
        map_backward_f64 tanh_backward, elu_backward, elu_input_backward, softplus_backward
        map_backward_f64 logsigmoid_backward, softsign_backward, hardswish_backward, silu_backward
        map_backward_f64 gelu_backward, gelu_tanh_backward, mish_backward
        double (*sum)(const double *x, Py_ssize_t n) noexcept nogil
        void (*sum_rows)(double *out, const double *x, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t ld) noexcept nogil
        rows_f64 softmax, log_softmax
        rows_backward_f64 softmax_backward, log_softmax_backward
        void (*cross_entropy)(double *loss, double *dx, const double *x, const int64_t *t, const double *weight, Py_ssize_t rows,
                              Py_ssize_t cols, int64_t ignore, double smoothing, double scale) noexcept nogil
        void (*cross_entropy_soft)(double *loss, double *dx, const double *x, const double *target, const double *weight,
                                   Py_ssize_t rows, Py_ssize_t cols, double smoothing, double scale) noexcept nogil
        tile_f64 softmax_tile, log_softmax_tile
        tile_backward_f64 softmax_tile_backward, log_softmax_tile_backward
        loss_f64 mse, l1, smooth_l1, huber, bce, bce_logits, kl_div, kl_div_log
        loss_sum_f64 mse_sum, l1_sum, smooth_l1_sum, huber_sum, bce_sum, bce_logits_sum, kl_div_sum
        loss_sum_f64 kl_div_log_sum
        loss_slope_f64 mse_dx, l1_dx, smooth_l1_dx, huber_dx, bce_dx, bce_logits_dx, kl_div_dx, kl_div_log_dx
        loss_slope_f64 bce_dt, bce_logits_dt, kl_div_dt, kl_div_log_dt
        void (*dropout)(double *y, const double *x, Py_ssize_t n, uint64_t seed, uint64_t group, uint32_t threshold,
                        double kept, double shift, double floor) noexcept nogil
        void (*random_words)(uint32_t *words, Py_ssize_t n, uint64_t seed) noexcept nogil
        void (*arith)(int op, double *y, const double *a, const double *b, Py_ssize_t n) noexcept nogil
        void (*arith_number)(int op, double *y, const double *a, double s, Py_ssize_t n) noexcept nogil
        update_f64 sgd
        update_f64 adagrad
        update_f64 rmsprop
        update_f64 adadelta
        update_f64 adam
        update_f64 nadam
        update_f64 radam
        update_f64 adamax
        void (*rescale)(double *x, double factor, Py_ssize_t n) noexcept nogil
        double (*sum_squares)(const double *x, Py_ssize_t n) noexcept nogil
        void (*gemm)(const bp_gemm *g, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1) noexcept nogil
        void (*gemm_pack)(double *out, const double *b, Py_ssize_t rsb, Py_ssize_t csb, Py_ssize_t n, Py_ssize_t k,
                          Py_ssize_t j0, Py_ssize_t j1) noexcept nogil
        int (*gemm_mr)() noexcept nogil
        int (*gemm_nr)() noexcept nogil

    ctypedef struct bp_table:
        const char *name
        bp_table_f32 f32
        bp_table_f64 f64

cdef const bp_table *kernels() noexcept nogil
