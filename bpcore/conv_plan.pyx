"""How a sum over taps is laid out and shared: planes, boxes of places, tables of distances (kernels/conv_args.h has the words)."""
cimport numpy as np
from libc.string cimport memset
from numpy cimport NPY_INTP, ndarray, npy_intp

from bpcore.conv_kernels cimport AXES, bp_box, bp_conv
from bpcore.memory cimport empty
from bpcore.threads cimport parallel_for_checked, range_fn

np.import_array()

PLANES = 384 << 10


# --- boxes and their planes ------------------------------------------------------------------------------------------------

cdef void box_at(const Work *w, Py_ssize_t item, bp_box *box) noexcept nogil:
    """Images and places of box number `item`."""
    cdef int a
    for a in range(AXES - 1, -1, -1):
        box.first[a] = item % w.boxes[a] * w.box[a]
        box.count[a] = min(w.box[a], w.g.out[a] - box.first[a])
        item //= w.boxes[a]
    box.image0 = item * w.box_images
    box.image1 = min(w.g.images, box.image0 + w.box_images)


cdef int share(Work *w, range_fn fn, Py_ssize_t n) except -1:
    parallel_for_checked(fn, w, n, w.ns)
    if w.failed:
        raise MemoryError(f"convolution: no memory for {w.scratch} bytes of scratch")
    return 0


cdef void lay_planes(Work *w) noexcept nogil:
    """The distances in planes for boxes of `box` places, or in x where that serves as planes."""
    cdef bp_conv *g = &w.g
    if g.in_place:
        g.row = g.in_[2]
        g.phase = 0
        g.depth = g.row * g.in_[1]
        g.plane = g.depth * g.in_[0]
        g.image = g.plane * g.channels * g.groups
    else:
        g.phase = w.box[2] + g.reach[2] // g.step[2]
        g.row = g.phase * g.step[2]
        g.depth = g.row * ((w.box[1] - 1) * g.step[1] + g.reach[1] + 1)
        g.plane = g.depth * ((w.box[0] - 1) * g.step[0] + g.reach[0] + 1)
        g.image = g.plane * g.channels


cdef void halve_boxes(Work *w) noexcept nogil:
    """Smaller boxes until the planes of one fit: along the depth first, the width last."""
    cdef int a
    lay_planes(w)
    while not w.g.in_place and w.g.image * w.itemsize > PLANES:
        a = 0 if w.box[0] > 1 else 1 if w.box[1] > 4 or (w.box[1] > 1 and w.box[2] <= 256) else 2
        if a == 2 and w.box[2] <= 128:
            break
        w.box[a] = up(w.box[a], 2) if a < 2 else up(up(w.box[a], 2), 64) * 64
        lay_planes(w)


cdef void count_boxes(Work *w) noexcept nogil:
    cdef int a
    for a in range(AXES):
        w.boxes[a] = up(w.g.out[a], w.box[a])
    w.blocks = up(w.g.images, w.box_images)


cdef void fill_offsets(Work *w, Py_ssize_t *offset, Py_ssize_t **tap, bint rows_first) noexcept nogil:
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t c, i, j, q, t, row, p
    for c in range(g.channels):
        for i in range(g.taps[0]):
            for j in range(g.taps[1]):
                row = i * g.taps[1] + j
                p = (row * g.channels + c if rows_first else c * g.taps[0] * g.taps[1] + row) * g.taps[2]
                for q in range(g.taps[2]):
                    t = tap[2][q] - g.lo[2]
                    offset[p + q] = (c * g.plane + (tap[0][i] - g.lo[0]) * g.depth + (tap[1][j] - g.lo[1]) * g.row
                                     + t % g.step[2] * g.phase + t // g.step[2])
    g.offset = offset
    g.tap_row = tap[1]


cdef void note_taps(bp_conv *g, int a, const Py_ssize_t *tap, char *used) noexcept nogil:
    """The reach of an axis's taps, and which elements modulo the step they read."""
    cdef Py_ssize_t j, lo = tap[0], hi = tap[0]
    for j in range(1, g.taps[a]):
        lo = min(lo, tap[j])
        hi = max(hi, tap[j])
    g.lo[a] = lo
    g.reach[a] = hi - lo
    memset(used, 0, g.step[a])
    for j in range(g.taps[a]):
        used[(tap[j] - lo) % g.step[a]] = 1
    g.used[a] = used


cdef bint inside(const bp_conv *g) noexcept nogil:
    """Whether no tap leaves the input, and neighbors stay neighbors."""
    cdef int a
    for a in range(AXES):
        if g.lo[a] < 0 or (g.out[a] - 1) * g.step[a] + g.lo[a] + g.reach[a] >= g.in_[a]:
            return False
    return g.step[2] == 1


# --- taps ----------------------------------------------------------------------------------------------------------------------

cdef Shape simple(const Shape *s) noexcept nogil:
    """The same with a width alone where every place sees one element, itself."""
    cdef Shape t = s[0]
    cdef int a
    for a in range(AXES):
        if t.axis[a].kernel != 1 or t.axis[a].stride != 1 or t.axis[a].pad != 0 or t.axis[a].size != t.axis[a].out:
            return t
    t.axis[2].size = t.axis[2].out = t.axis[0].size * t.axis[1].size * t.axis[2].size
    t.axis[0].size = t.axis[0].out = t.axis[1].size = t.axis[1].out = 1
    return t


cdef ndarray make_tables(const Shape *s, Py_ssize_t channels, Tables *t):
    """Room for the tables of one sum; lives as long as the array."""
    cdef Py_ssize_t taps = s.axis[0].kernel * s.axis[1].kernel * s.axis[2].kernel
    cdef npy_intp n = taps * (2 * channels + 1)
    cdef int a
    for a in range(AXES):
        n += s.axis[a].kernel + s.axis[a].stride
    cdef ndarray room = empty(1, &n, NPY_INTP)
    t.offset = <Py_ssize_t *> np.PyArray_DATA(room)
    t.weight_offset = t.offset + taps * channels
    t.weight_tap = t.weight_offset + taps * channels
    cdef Py_ssize_t *at = t.weight_tap + taps
    for a in range(AXES):
        t.tap[a] = at
        at += s.axis[a].kernel
        t.used[a] = <char *> at
        at += s.axis[a].stride
    return room


cdef void forward_taps(bp_conv *g, const Shape *s, Tables *t) noexcept nogil:
    """The geometry of a convolution itself."""
    cdef const Axis *x
    cdef Py_ssize_t j
    cdef int a
    g.images = s.images
    g.groups = s.groups
    g.channels = s.channels
    g.outputs = s.outputs
    for a in range(AXES):
        x = &s.axis[a]
        g.in_[a] = x.size
        g.out[a] = g.whole[a] = x.out
        g.step[a] = x.stride
        g.taps[a] = x.kernel
        g.spread[a] = 1
        g.start[a] = 0
        for j in range(x.kernel):
            t.tap[a][j] = j * x.dilation - x.pad
        note_taps(g, a, t.tap[a], t.used[a])
