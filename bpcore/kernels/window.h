/* A window that slides over planes, for pooling.h and averaging.h. */
#ifndef BP_WINDOW_H
#define BP_WINDOW_H
#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

#define BP_TILE_COLS 128 /* columns of y that are worked on together, on the stack; whole vectors */

/* Planes are of `size`, each (depth, height, width); one and two axes have leading sizes of 1. */
typedef struct {
    bp_size size[3], out[3], kernel[3], stride[3], pad[3], dilation[3];
    int include_pad;  /* averages: the elements of the padding count */
    bp_size divisor;  /* averages: divide by this, if it is not 0 */
} bp_window;

/* The columns `lo` to `hi` of y whose window has its element k within the plane. */
BP_INLINE bp_size bp_window_lo(const bp_window *w, int axis, bp_size k) {
    const bp_size gap = w->pad[axis] - k * w->dilation[axis], s = w->stride[axis];
    return gap > 0 ? (gap + s - 1) / s : 0;
}
BP_INLINE bp_size bp_window_hi(const bp_window *w, int axis, bp_size k) {
    const bp_size room = w->size[axis] - 1 + w->pad[axis] - k * w->dilation[axis];
    const bp_size hi = room < 0 ? 0 : room / w->stride[axis] + 1;
    return hi < w->out[axis] ? hi : w->out[axis];
}

/* What the window at `o` counts along an axis, and from where to where it lies within the plane. */
BP_INLINE bp_size bp_window_count(const bp_window *w, int axis, bp_size o, bp_size *from, bp_size *to) {
    const bp_size start = o * w->stride[axis] - w->pad[axis], limit = w->size[axis] + w->pad[axis];
    const bp_size end = start + w->kernel[axis] < limit ? start + w->kernel[axis] : limit;
    *from = start > 0 ? start : 0;
    *to = end < w->size[axis] ? end : w->size[axis];
    return w->include_pad ? end - start : *to - *from;
}
#endif
