# The C kernels of convolution (kernels/conv_args.h), for the rooms that share them.
cdef enum:
    AXES = 3

cdef extern from "kernels/conv_args.h":
    enum:
        BP_ALONG_PIXELS, BP_ALONG_OUTPUTS, BP_GATHERED, BP_UNPACKED
    ctypedef struct bp_conv:
        const void *x
        const void *bias
        void *y
        const void *weight
        Py_ssize_t images, groups, channels, outputs, k, weight_step
        Py_ssize_t[AXES] in_ "in"
        Py_ssize_t[AXES] out, step, taps, whole, spread, start, lo, reach
        const char *used[AXES]
        Py_ssize_t plane, depth, row, phase, image
        const Py_ssize_t *offset
        const Py_ssize_t *tap_row
        const Py_ssize_t *weight_offset
        Py_ssize_t weight_row
        int form, in_place

    ctypedef struct bp_box:
        Py_ssize_t image0, image1
        Py_ssize_t[AXES] first, count
        Py_ssize_t group, tile0, tile1

    ctypedef struct bp_winograd:
        const void *x
        const void *u
        const void *bias
        void *y
        Py_ssize_t channels, outputs, in_height, in_width, height, width, pad_y, pad_x, ty, tx, tiles, rows

    ctypedef struct bp_conv_table_f32:
        Py_ssize_t (*conv_tiles)(Py_ssize_t outputs, int form) noexcept nogil
        Py_ssize_t (*conv_packed_size)(Py_ssize_t k, Py_ssize_t outputs, int form) noexcept nogil
        void (*conv_pack)(float *out, const float *w, Py_ssize_t so, Py_ssize_t sc, const Py_ssize_t *tap, const bp_conv *g,
                          Py_ssize_t t0, Py_ssize_t t1) noexcept nogil
        Py_ssize_t (*conv_scratch)(const bp_conv *g, const bp_box *box) noexcept nogil
        void (*conv_box)(const bp_conv *g, const bp_box *box, float *scratch) noexcept nogil
        Py_ssize_t (*conv_weight_width)(Py_ssize_t outputs) noexcept nogil
        Py_ssize_t (*conv_weight_scratch)(const bp_conv *g, const bp_box *box, Py_ssize_t channels) noexcept nogil
        void (*conv_weight_box)(const bp_conv *g, const bp_box *box, const float *dy, float *sum, Py_ssize_t c0, Py_ssize_t c1,
                                float *scratch) noexcept nogil
        void (*conv_weight_finish)(float *dw, float *db, const float *sum, Py_ssize_t step, Py_ssize_t parts, Py_ssize_t k,
                                   Py_ssize_t outputs, Py_ssize_t p0, Py_ssize_t p1) noexcept nogil
        void (*conv_depthwise)(const bp_conv *g, Py_ssize_t first, Py_ssize_t last, float *scratch) noexcept nogil
        void (*conv_depthwise_weight)(const bp_conv *g, const float *dy, float *dw, float *db, Py_ssize_t first,
                                      Py_ssize_t last, float *scratch) noexcept nogil
        int (*winograd_works)() noexcept nogil
        Py_ssize_t (*winograd_step)(Py_ssize_t channels, Py_ssize_t outputs) noexcept nogil
        void (*winograd_weights)(float *u, const float *w, Py_ssize_t so, Py_ssize_t sc, int turned, Py_ssize_t channels,
                                 Py_ssize_t outputs, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
        Py_ssize_t (*winograd_scratch)(const bp_winograd *w) noexcept nogil
        void (*winograd_box)(const bp_winograd *w, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t o0,
                             Py_ssize_t o1, float *sum, float *scratch) noexcept nogil
        void (*winograd_finish)(float *dw, const float *sum, Py_ssize_t step, Py_ssize_t parts, Py_ssize_t channels,
                                Py_ssize_t outputs, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
        int (*conv_vector)() noexcept nogil
        int (*conv_rows)() noexcept nogil

    ctypedef struct bp_conv_table_f64:
        Py_ssize_t (*conv_tiles)(Py_ssize_t outputs, int form) noexcept nogil
        Py_ssize_t (*conv_packed_size)(Py_ssize_t k, Py_ssize_t outputs, int form) noexcept nogil
        void (*conv_pack)(double *out, const double *w, Py_ssize_t so, Py_ssize_t sc, const Py_ssize_t *tap, const bp_conv *g,
                          Py_ssize_t t0, Py_ssize_t t1) noexcept nogil
        Py_ssize_t (*conv_scratch)(const bp_conv *g, const bp_box *box) noexcept nogil
        void (*conv_box)(const bp_conv *g, const bp_box *box, double *scratch) noexcept nogil
        Py_ssize_t (*conv_weight_width)(Py_ssize_t outputs) noexcept nogil
        Py_ssize_t (*conv_weight_scratch)(const bp_conv *g, const bp_box *box, Py_ssize_t channels) noexcept nogil
        void (*conv_weight_box)(const bp_conv *g, const bp_box *box, const double *dy, double *sum, Py_ssize_t c0, Py_ssize_t c1,
                                double *scratch) noexcept nogil
        void (*conv_weight_finish)(double *dw, double *db, const double *sum, Py_ssize_t step, Py_ssize_t parts, Py_ssize_t k,
                                   Py_ssize_t outputs, Py_ssize_t p0, Py_ssize_t p1) noexcept nogil
        void (*conv_depthwise)(const bp_conv *g, Py_ssize_t first, Py_ssize_t last, double *scratch) noexcept nogil
        void (*conv_depthwise_weight)(const bp_conv *g, const double *dy, double *dw, double *db, Py_ssize_t first,
                                      Py_ssize_t last, double *scratch) noexcept nogil
        int (*winograd_works)() noexcept nogil
        Py_ssize_t (*winograd_step)(Py_ssize_t channels, Py_ssize_t outputs) noexcept nogil
        void (*winograd_weights)(double *u, const double *w, Py_ssize_t so, Py_ssize_t sc, int turned, Py_ssize_t channels,
                                 Py_ssize_t outputs, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
        Py_ssize_t (*winograd_scratch)(const bp_winograd *w) noexcept nogil
        void (*winograd_box)(const bp_winograd *w, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t o0,
                             Py_ssize_t o1, double *sum, double *scratch) noexcept nogil
        void (*winograd_finish)(double *dw, const double *sum, Py_ssize_t step, Py_ssize_t parts, Py_ssize_t channels,
                                Py_ssize_t outputs, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
        int (*conv_vector)() noexcept nogil
        int (*conv_rows)() noexcept nogil

    ctypedef struct bp_conv_table:
        bp_conv_table_f32 f32
        bp_conv_table_f64 f64

cdef const bp_conv_table *kernels() noexcept nogil

# Scratch for a range of work: one of the buffers that matrix products use too, or memory of its own where that is too small.
cdef void *take_scratch(Py_ssize_t bytes) noexcept nogil
cdef void give_scratch(void *scratch, Py_ssize_t bytes) noexcept nogil
