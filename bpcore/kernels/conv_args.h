/* Convolution: what one is, and the kernels that compute it. conv.h says how. */
#ifndef BP_CONV_ARGS_H
#define BP_CONV_ARGS_H

#include <stddef.h>

#include "macros.h"

typedef ptrdiff_t bp_size;


enum { BP_ALONG_PIXELS, BP_ALONG_OUTPUTS, BP_GATHERED, BP_UNPACKED }; /* what lies along a vector; see conv.h */

/* y[n, g, o, s] = bias[g, o] + sum over c and taps t of w[g, o, c, t] x[n, g, c, s step + tap[t]], with x = 0 outside.
 *
 * The last three axes are depth, height and width; a place s of y lies at s spread + start of the array (`whole`), so that the
 * gradient of a strided convolution is a few of these, side by side. Work is cut into boxes of places; for a box the needed
 * part of x is laid out as planes: for each image and channel its rows of depth and height, in each the phases of the width (the
 * places that are equal modulo step[2]), with zeros where x ends. Then neighbors in y are neighbors in a plane. */
typedef struct {
    const void *x, *bias;
    void *y;
    const void *weight;         /* of all groups, packed by conv_pack for `form` */
    bp_size images, groups, channels, outputs, k; /* channels and outputs of a group; k = channels times taps */
    bp_size weight_step;        /* elements from a group's packed weights to the next one's */
    bp_size in[3], out[3], step[3], taps[3], whole[3], spread[3], start[3];
    bp_size lo[3], reach[3];    /* the smallest tap of an axis, and the largest minus the smallest */
    const char *used[3];        /* of `step` elements in turn, which any tap of the axis reads */
    bp_size plane, depth, row, phase, image; /* distances in planes: between channels, depths, rows, phases, images */
    const bp_size *offset;      /* k distances: from a place's first element in the planes to what its taps see */
    const bp_size *tap_row;     /* the taps of the height */
    const bp_size *weight_offset; /* BP_UNPACKED: k distances in the weights of an output, which are weight_row apart */
    bp_size weight_row;
    int form, in_place;         /* in_place: x itself serves as planes */
} bp_conv;

/* One box: images, places, a group and some of its tiles of outputs. */
typedef struct {
    bp_size image0, image1, first[3], count[3], group, tile0, tile1;
} bp_box;

/* A 3 x 3 convolution of stride 1 by winograd.h; y is dy where the weight's gradient is asked for. */
typedef struct {
    const void *x, *u, *bias;
    void *y;
    bp_size channels, outputs, in_height, in_width, height, width, pad_y, pad_x;
    bp_size ty, tx;          /* tiles of 4 x 4 places: rows of them, and tiles of a row */
    bp_size tiles, rows;     /* the most tiles, and rows of tiles of one image, in a box */
} bp_winograd;

#define BP_CONV_KERNELS(X, T)                                                                                                  \
    /* tiles of outputs that one group has; elements of its packed weights; some tiles of them, w[o][c][tap] so and sc apart */ \
    X(bp_size, conv_tiles, (bp_size outputs, int form))                                                                        \
    X(bp_size, conv_packed_size, (bp_size k, bp_size outputs, int form))                                                       \
    X(void, conv_pack, (T *out, const T *w, bp_size so, bp_size sc, const bp_size *tap, const bp_conv *g, bp_size t0,          \
                        bp_size t1))                                                                                           \
    /* y over a box; the elements of scratch that it needs */                                                                  \
    X(bp_size, conv_scratch, (const bp_conv *g, const bp_box *box))                                                            \
    X(void, conv_box, (const bp_conv *g, const bp_box *box, T *scratch))                                                       \
    /* sum[k + 1][width] += the gradient of w' over a box, for channels c0 to c1; the last row: the bias's, if g->bias */      \
    X(bp_size, conv_weight_width, (bp_size outputs))                                                                           \
    X(bp_size, conv_weight_scratch, (const bp_conv *g, const bp_box *box, bp_size channels))                                   \
    X(void, conv_weight_box, (const bp_conv *g, const bp_box *box, const T *dy, T *sum, bp_size c0, bp_size c1, T *scratch))   \
    X(void, conv_weight_finish, (T *dw, T *db, const T *sum, bp_size step, bp_size parts, bp_size k, bp_size outputs,          \
                                 bp_size p0, bp_size p1))                                                                      \
    /* one channel and one output a group: y over planes first to last; dw[groups][taps] and db[groups] of some groups */      \
    X(void, conv_depthwise, (const bp_conv *g, bp_size first, bp_size last, T *scratch))                                       \
    X(void, conv_depthwise_weight, (const bp_conv *g, const T *dy, T *dw, T *db, bp_size first, bp_size last, T *scratch))     \
    /* winograd.h: weights of channels c0..c1 to u, turned round for the input's gradient; a box; dw from partial sums */      \
    X(int, winograd_works, (void)) X(bp_size, winograd_step, (bp_size channels, bp_size outputs))                              \
    X(void, winograd_weights, (T *u, const T *w, bp_size so, bp_size sc, int turned, bp_size channels, bp_size outputs,        \
                               bp_size c0, bp_size c1))                                                                        \
    X(bp_size, winograd_scratch, (const bp_winograd *w))                                                                       \
    X(void, winograd_box, (const bp_winograd *w, bp_size n0, bp_size n1, bp_size t0, bp_size t1, bp_size o0, bp_size o1,       \
                           T *sum, T *scratch))                                                                                \
    X(void, winograd_finish, (T *dw, const T *sum, bp_size step, bp_size parts, bp_size channels, bp_size outputs,             \
                              bp_size c0, bp_size c1))                                                                         \
    X(int, conv_vector, (void)) X(int, conv_rows, (void))

BP_DECLARE_TABLE(bp_conv_table, BP_CONV_KERNELS)

#endif
