#ifndef BP_POOLING_TABLE_H
#define BP_POOLING_TABLE_H
#include "window.h"

/* `begin` and `end` count rows (the last axis) of y through all planes, for max_scatter planes. `taps` says which element of its
 * window a maximum was: its number in row-major order, in a byte, or in 32 bits if `wide`. `total`: elements of x. */
#define BP_POOLING_KERNELS(X, T) \
    X(void, max_rows, (T * y, void *taps, int wide, const T *x, const bp_window *w, bp_size begin, bp_size end)) \
    X(void, max_scatter, (T * dx, const T *dy, const void *taps, int wide, const bp_size *offset, const bp_window *w, \
        bp_size begin, bp_size end)) \
    X(void, max2_rows, (T * y, uint8_t *taps, const T *x, bp_size total, const bp_window *w, bp_size begin, bp_size end)) \
    X(void, max2_backward, (T * dx, const T *dy, const uint8_t *taps, const bp_window *w, bp_size begin, bp_size end))
BP_DECLARE_TABLE(bp_pooling, BP_POOLING_KERNELS)

#define BP_FAMILY bp_pooling
#define BP_KERNELS BP_POOLING_KERNELS
#define BP_BODIES "pooling.h"
#include "dispatch.h"
#endif
