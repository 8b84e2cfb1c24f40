"""The gradient of a convolution's weight: dw[o, c, t] = sum over places s of dy[o, s] x[c, s step + t].

Images are shared out in groups, each with a sum of its own, whose number depends on the shape alone; the sums are added up in
their order. So nothing depends on the number of threads.
"""
cimport numpy as np
from libc.string cimport memset
from numpy cimport ndarray, npy_intp

from bpcore.conv_kernels cimport AXES, bp_box, bp_conv, give_scratch, kernels, take_scratch
from bpcore.conv_plan cimport (
    Shape, Tables, Work, box_at, count_boxes, fill_offsets, forward_taps, halve_boxes, inside, lay_planes, make_tables, share,
    simple, up,
)
from bpcore.memory cimport empty
from bpcore.threads cimport parallel_for, team_size
from bpcore.winograd cimport winograd_weight

np.import_array()

cdef Py_ssize_t TURNED = 384 << 10          # bytes of the transposed gradient that a box should not exceed
cdef Py_ssize_t SUMS = 8 << 20              # bytes of partial sums
cdef enum:
    GROUPS = 16                             # of images, the most, that are summed up apart


cdef void sums_of(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Items `begin` to `end`: for each sum (a part of the images), a group and a range of its channels."""
    cdef Work *w = <Work *> ctx
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t item, part, r, c0, c1, block, places = w.boxes[0] * w.boxes[1] * w.boxes[2], i, parts = w.parts
    cdef bp_box box
    cdef void *scratch = take_scratch(w.scratch)
    if scratch == NULL:
        w.failed = True
        return
    for item in range(begin, end):
        r = item % w.ranges
        box.group = item // w.ranges % g.groups
        part = item // w.ranges // g.groups
        c0 = g.channels * r // w.ranges
        c1 = g.channels * (r + 1) // w.ranges
        i = (part * g.groups + box.group) * w.sum_step
        for block in range(w.blocks * part // parts * places, w.blocks * (part + 1) // parts * places):
            box_at(w, block, &box)
            if w.itemsize == 4:
                kernels().f32.conv_weight_box(g, &box, <const float *> w.dy, <float *> w.sum + i, c0, c1, <float *> scratch)
            else:
                kernels().f64.conv_weight_box(g, &box, <const double *> w.dy, <double *> w.sum + i, c0, c1, <double *> scratch)
    give_scratch(scratch, w.scratch)


cdef void finish_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Blocks of 64 rows of the sums, group after group, to dw."""
    cdef Work *w = <Work *> ctx
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t item, group, p0, p1, per = up(g.k + 1, 64), step = w.sum_step * g.groups
    for item in range(begin, end):
        group = item // per
        p0 = item % per * 64
        p1 = min(g.k + 1, p0 + 64)
        if w.itemsize == 4:
            kernels().f32.conv_weight_finish(
                <float *> w.dw + group * g.outputs * g.k, NULL if w.db == NULL else <float *> w.db + group * g.outputs,
                <const float *> w.sum + group * w.sum_step, step, w.parts, g.k, g.outputs, p0, p1)
        else:
            kernels().f64.conv_weight_finish(
                <double *> w.dw + group * g.outputs * g.k, NULL if w.db == NULL else <double *> w.db + group * g.outputs,
                <const double *> w.sum + group * w.sum_step, step, w.parts, g.k, g.outputs, p0, p1)


cdef void depthwise_sums(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Work *w = <Work *> ctx
    cdef void *scratch = take_scratch(w.scratch)
    if scratch == NULL:
        w.failed = True
        return
    if w.itemsize == 4:
        kernels().f32.conv_depthwise_weight(&w.g, <const float *> w.dy, <float *> w.dw, <float *> w.db, begin, end,
                                          <float *> scratch)
    else:
        kernels().f64.conv_depthwise_weight(&w.g, <const double *> w.dy, <double *> w.dw, <double *> w.db, begin, end,
                                          <double *> scratch)
    give_scratch(scratch, w.scratch)


cdef int correlate_weight(const Shape *shape, ndarray dw, ndarray db, ndarray x, ndarray dy) except -1:
    if np.PyArray_SIZE(x) == 0 or np.PyArray_SIZE(dy) == 0 or np.PyArray_SIZE(dw) == 0:
        dw.fill(0)
        if db is not None:
            db.fill(0)
            if np.PyArray_SIZE(dy) > 0:
                (<object> dy).sum(axis=(0, *range(2, dy.ndim)), out=db)
        return 0
    if winograd_weight(shape, dw, db, x, dy):
        return 0
    cdef Shape s = simple(shape)
    cdef Tables t
    cdef Work w
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t taps = s.axis[0].kernel * s.axis[1].kernel * s.axis[2].kernel, wide, places, size
    cdef npy_intp n
    cdef int a, team, vl
    cdef bp_box box
    cdef ndarray sums
    cdef bint f32 = np.PyArray_ITEMSIZE(dw) == 4
    cdef double cycles
    memset(&w, 0, sizeof(Work))
    cdef ndarray _room = make_tables(&s, s.channels, &t)
    forward_taps(g, &s, &t)
    g.x = np.PyArray_DATA(x)
    w.dy = <const char *> np.PyArray_DATA(dy)
    w.dw = <char *> np.PyArray_DATA(dw)
    w.db = NULL if db is None else <char *> np.PyArray_DATA(db)
    g.bias = w.db
    w.itemsize = np.PyArray_ITEMSIZE(dw)
    g.k = s.channels * taps
    vl = kernels().f32.conv_vector() if f32 else kernels().f64.conv_vector()
    for a in range(AXES):
        w.box[a] = g.out[a]
    places = g.out[0] * g.out[1] * g.out[2]
    w.box_images = 1
    if g.channels == 1 and g.outputs == 1 and g.groups > 1:
        lay_planes(&w)
        fill_offsets(&w, t.offset, t.tap, False)
        w.scratch = ((g.k + 4) * vl + g.out[0] * g.out[1] * up(g.out[2], vl) * vl + g.plane + 4 * vl) * w.itemsize
        w.ns = 0.3 * g.images * places * taps / vl * 1.5
        return share(&w, depthwise_sums, g.groups)
    g.in_place = inside(g)
    wide = kernels().f32.conv_weight_width(g.outputs) if f32 else kernels().f64.conv_weight_width(g.outputs)
    while w.box[1] > 1 and w.box[0] * w.box[1] * w.box[2] * wide * w.itemsize > TURNED:
        w.box[1] = up(w.box[1], 2)
    halve_boxes(&w)
    if w.box[0] * w.box[1] * w.box[2] == places:
        w.box_images = min(g.images, up(256, places))
    count_boxes(&w)
    lay_planes(&w)
    fill_offsets(&w, t.offset, t.tap, False)
    # Sums apart: a number that depends on the shape alone.
    w.sum_step = (g.k + 1) * wide
    w.parts = min(min(w.blocks, GROUPS), max(1, SUMS // (w.sum_step * g.groups * w.itemsize)))
    cycles = <double> g.images * places * g.groups * g.k * up(g.outputs, vl)
    team = team_size(0.3 * cycles)
    w.ranges = 1
    if w.parts * g.groups < 2 * team:
        w.ranges = min(up(2 * team, w.parts * g.groups), max(1, g.channels // 8))
    n = w.parts * g.groups * w.sum_step
    sums = empty(1, &n, np.PyArray_TYPE(dw))
    w.sum = <char *> np.PyArray_DATA(sums)
    memset(w.sum, 0, n * w.itemsize)
    box_at(&w, 0, &box)
    size = up(g.channels, w.ranges)
    size = kernels().f32.conv_weight_scratch(g, &box, size) if f32 else kernels().f64.conv_weight_scratch(g, &box, size)
    w.scratch = (size + 16) * w.itemsize
    n = w.parts * g.groups * w.ranges
    w.ns = 0.3 * cycles / n
    share(&w, sums_of, n)
    with nogil:
        parallel_for(finish_range, &w, g.groups * up(g.k + 1, 64), 0.5 * 64 * g.outputs * w.parts)
    return 0
