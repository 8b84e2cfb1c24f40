#ifndef BP_AVERAGING_TABLE_H
#define BP_AVERAGING_TABLE_H
#include "window.h"

/* `begin` and `end` count rows (the last axis) of y through all planes, for avg_backward rows of dx, else planes. */
#define BP_AVERAGING_KERNELS(X, T) \
    X(void, avg_rows, (T * y, const T *x, const bp_window *w, bp_size begin, bp_size end)) \
    X(void, avg_backward, (T * dx, const T *dy, const bp_window *w, bp_size begin, bp_size end)) \
    X(void, plane_means, (T * y, const T *x, bp_size n, T divisor, bp_size begin, bp_size end)) \
    X(void, plane_spread, (T * dx, const T *dy, bp_size n, T divisor, bp_size begin, bp_size end))
BP_DECLARE_TABLE(bp_averaging, BP_AVERAGING_KERNELS)

#define BP_FAMILY bp_averaging
#define BP_KERNELS BP_AVERAGING_KERNELS
#define BP_BODIES "averaging.h"
#include "dispatch.h"
#endif
