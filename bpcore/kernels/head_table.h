/* The kernel of head.pyx and its table. */
#ifndef BP_HEAD_TABLE_H
#define BP_HEAD_TABLE_H

#include "table.h"

/* head.h: the losses of rows of logits z (rows, cols), and in place of z the gradients where `wanted`. weight (cols) and each (rows) may
 * be NULL for 1; `spread` is smoothing / cols times the sum of all weights. */
#define BP_HEAD_KERNELS(X, T)                                                                                                \
    X(void, head_rows, (T *loss, T *z, const int64_t *t, const T *weight, const T *each, bp_size rows, bp_size cols,         \
                        T smoothing, T spread, T scale, int wanted))

BP_DECLARE_TABLE(bp_head, BP_HEAD_KERNELS)

#define BP_FAMILY bp_head
#define BP_KERNELS BP_HEAD_KERNELS
#define BP_BODIES "head.h"
#include "dispatch.h"

#endif
