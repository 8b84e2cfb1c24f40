"""Convolution on arrays: which places are computed together, by whom, and in which form; kernels/conv.h does the sums.

One primitive serves everything: y[s] = sum over taps t of w[t] x[s step + t], over a lattice of places s. A convolution is one of
these; its gradient with respect to the input is one for each residue of the places modulo the stride, with the taps that
reach them. Nothing depends on the number of threads.
"""
cimport numpy as np
from libc.string cimport memset
from numpy cimport ndarray, npy_intp

from bpcore.activation cimport Map
from bpcore.conv_kernels cimport (
    AXES, BP_ALONG_OUTPUTS, BP_ALONG_PIXELS, BP_GATHERED, BP_UNPACKED, bp_box, bp_conv, give_scratch, kernels, take_scratch,
)
from bpcore.conv_plan cimport (
    PLANES, Axis, Shape, Tables, Work, box_at, count_boxes, fill_offsets, forward_taps, halve_boxes, inside, lay_planes,
    make_tables, note_taps, share, simple, up,
)
from bpcore.memory cimport empty
from bpcore.threads cimport parallel_for, team_size
from bpcore.winograd cimport winograd

np.import_array()


cdef void activate(const Work *w, const bp_box *box) noexcept nogil:
    """z = f(y) over the places of a box: rows of the width where y has other places too."""
    cdef const bp_conv *g = &w.g
    cdef Py_ssize_t n, o, d, h, at, size = g.whole[0] * g.whole[1] * g.whole[2], run = box.count[2], rows = box.count[1]
    cdef Py_ssize_t o0 = g.outputs * box.tile0 // w.tiles, o1 = g.outputs * box.tile1 // w.tiles, nr
    if g.form != BP_ALONG_PIXELS and g.form != BP_UNPACKED:
        nr = 2 * (kernels().f32.conv_vector() if w.itemsize == 4 else kernels().f64.conv_vector())
        o0, o1 = box.tile0 * nr, min(g.outputs, box.tile1 * nr)
    if run == g.whole[2]:
        run *= rows
        rows = 1
    for n in range(box.image0, box.image1):
        for o in range(o0, o1):
            for d in range(box.count[0]):
                for h in range(rows):
                    at = (((n * g.groups + box.group) * g.outputs + o) * size + (box.first[0] + d) * g.whole[1] * g.whole[2]
                          + (box.first[1] + h) * g.whole[2] + box.first[2])
                    if w.itemsize == 4:
                        w.f.f32(<float *> w.z + at, <const float *> g.y + at, run, NULL)
                    else:
                        w.f.f64(<double *> w.z + at, <const double *> g.y + at, run, NULL)


cdef void boxes_of(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Items `begin` to `end`: for each box its groups, for each of them its parts of the outputs."""
    cdef Work *w = <Work *> ctx
    cdef Py_ssize_t i, part, size
    cdef bp_box box
    cdef void *scratch = take_scratch(w.scratch)
    if scratch == NULL:
        w.failed = True
        return
    if w.depthwise:
        if w.itemsize == 4:
            kernels().f32.conv_depthwise(&w.g, begin, end, <float *> scratch)
        else:
            kernels().f64.conv_depthwise(&w.g, begin, end, <double *> scratch)
        if w.f != NULL:
            size = w.g.whole[0] * w.g.whole[1] * w.g.whole[2]
            if w.itemsize == 4:
                w.f.f32(<float *> w.z + begin * size, <const float *> w.g.y + begin * size, (end - begin) * size, NULL)
            else:
                w.f.f64(<double *> w.z + begin * size, <const double *> w.g.y + begin * size, (end - begin) * size, NULL)
    else:
        for i in range(begin, end):
            part = i % w.parts
            box.tile0 = w.tiles * part // w.parts
            box.tile1 = w.tiles * (part + 1) // w.parts
            box.group = i // w.parts % w.g.groups
            box_at(w, i // w.parts // w.g.groups, &box)
            if w.itemsize == 4:
                kernels().f32.conv_box(&w.g, &box, <float *> scratch)
            else:
                kernels().f64.conv_box(&w.g, &box, <double *> scratch)
            if w.f != NULL:
                activate(w, &box)
    give_scratch(scratch, w.scratch)


cdef double choose_form(Work *w) noexcept nogil:
    """The form that takes fewest cycles for one place of every output; returns them."""
    cdef bp_conv *g = &w.g
    cdef double vl = kernels().f32.conv_vector() if w.itemsize == 4 else kernels().f64.conv_vector()
    cdef double mr = kernels().f32.conv_rows() if w.itemsize == 4 else kernels().f64.conv_rows()
    cdef double width = g.out[2], o = g.outputs, k = g.k, vectors = up(g.outputs, <Py_ssize_t> vl), rows, pixels, along, gathered
    # Fewer than six sums at once do not hide the latency of a multiply-add; turning round costs about a cycle an element.
    rows = width / up(g.out[2], <Py_ssize_t> mr)
    pixels = up(g.out[2], <Py_ssize_t> vl) / width * o * k * max(1, 3 / min(o, mr))
    along = vectors * k * max(1, 6 / (rows * min(2, vectors))) + 0.8 * o
    gathered = 1.02 * vectors * k + 1.5 * k + 1.2 * o
    if pixels <= along and pixels <= gathered:
        g.form = BP_ALONG_PIXELS
        if g.in_place and g.out[2] % <Py_ssize_t> vl:
            g.in_place = False              # the last vector would be read beyond the input
        return pixels
    g.form = BP_ALONG_OUTPUTS if along <= gathered else BP_GATHERED
    return min(along, gathered)


cdef struct Packing:
    bp_conv *g
    const char *weight
    Py_ssize_t so, sc, group_step
    const Py_ssize_t *tap
    Py_ssize_t tiles
    int itemsize


cdef void pack_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Tiles `begin` to `end` of the weights of all groups."""
    cdef Packing *p = <Packing *> ctx
    cdef Py_ssize_t i, group, at
    for i in range(begin, end):
        group, at = i // p.tiles, i % p.tiles
        if p.itemsize == 4:
            kernels().f32.conv_pack(<float *> p.g.weight + group * p.g.weight_step, <const float *> p.weight + group * p.group_step,
                                    p.so, p.sc, p.tap, p.g, at, at + 1)
        else:
            kernels().f64.conv_pack(<double *> p.g.weight + group * p.g.weight_step,
                                    <const double *> p.weight + group * p.group_step, p.so, p.sc, p.tap, p.g, at, at + 1)


cdef bint spares_packing(const Work *w, Py_ssize_t places) noexcept nogil:
    """Whether there are so few places in all that packing the weights would cost more than it saves."""
    cdef const bp_conv *g = &w.g
    cdef Py_ssize_t vl = kernels().f32.conv_vector() if w.itemsize == 4 else kernels().f64.conv_vector()
    return (not w.depthwise and g.form != BP_ALONG_PIXELS and g.images * places <= 8 * vl and g.k * g.outputs >= 1 << 17
            and g.image * g.images * w.itemsize <= 2 * PLANES)


cdef int run_places(Work *w, Tables *t, ndarray weight, Py_ssize_t so, Py_ssize_t sc, Py_ssize_t group_step) except -1:
    """One sum over taps, for which `g` has everything but the layout."""
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t taps = g.taps[0] * g.taps[1] * g.taps[2], size, items, places, p
    cdef npy_intp n
    cdef double cycles
    cdef ndarray packed
    cdef bp_box box
    cdef Packing packing
    cdef int a, team
    cdef bint f32 = w.itemsize == 4
    g.k = g.channels * taps
    w.depthwise = g.channels == 1 and g.outputs == 1 and g.groups > 1
    g.in_place = not w.depthwise and inside(g)
    cycles = choose_form(w)
    for a in range(AXES):
        w.box[a] = g.out[a]
    w.box_images = w.parts = 1
    places = g.out[0] * g.out[1] * g.out[2]
    if w.depthwise:
        g.form = BP_ALONG_PIXELS
    else:
        halve_boxes(w)
        if g.form == BP_GATHERED:
            w.box_images = min(g.images, max(1, 96 // places))
        if w.box[1] == g.out[1] and w.box[2] == g.out[2] and w.box[0] == g.out[0] and spares_packing(w, places):
            g.form = BP_UNPACKED
            w.box_images = g.images
    count_boxes(w)
    # Weights: packed once for all boxes.
    w.tiles = kernels().f32.conv_tiles(g.outputs, g.form) if f32 else kernels().f64.conv_tiles(g.outputs, g.form)
    size = kernels().f32.conv_packed_size(g.k, g.outputs, g.form) if f32 else kernels().f64.conv_packed_size(g.k, g.outputs, g.form)
    if g.form == BP_UNPACKED:
        for p in range(g.k):
            t.weight_offset[p] = p // g.taps[2] % g.channels * sc + t.weight_tap[
                p // (g.taps[2] * g.channels) * g.taps[2] + p % g.taps[2]]
        g.weight = np.PyArray_DATA(weight)
        g.weight_step = group_step
        g.weight_row = so
        g.weight_offset = t.weight_offset
    else:
        n = g.groups * size
        packed = empty(1, &n, np.PyArray_TYPE(weight))
        g.weight = np.PyArray_DATA(packed)
        g.weight_step = size
        packing = Packing(&w.g, <const char *> np.PyArray_DATA(weight), so, sc, group_step, t.weight_tap, w.tiles, w.itemsize)
        with nogil:
            parallel_for(pack_range, &packing, g.groups * w.tiles, 1. * g.k * g.outputs / w.tiles)
    # Enough items for the team: smaller boxes, else parts of the outputs.
    team = team_size(0.3 * cycles * places * g.images * g.groups)
    if not w.depthwise:
        items = w.blocks * w.boxes[0] * w.boxes[1] * w.boxes[2] * g.groups
        while items < 2 * team and w.box[1] >= 8 and w.box_images == 1:
            w.box[1] = up(w.box[1], 2)
            count_boxes(w)
            items = w.blocks * w.boxes[0] * w.boxes[1] * w.boxes[2] * g.groups
        if items < 2 * team:
            w.parts = min(w.tiles, up(team if g.form == BP_UNPACKED else 2 * team, items))
        items *= w.parts
    else:
        items = g.images * g.groups
    lay_planes(w)
    fill_offsets(w, t.offset, t.tap, True)
    w.ns = 0.3 * cycles * places * g.images * g.groups / items
    if w.depthwise:
        size = g.plane + 64
    else:
        box_at(w, 0, &box)
        size = kernels().f32.conv_scratch(g, &box) if f32 else kernels().f64.conv_scratch(g, &box)
    w.scratch = (size + 16) * w.itemsize
    share(w, boxes_of, items)
    return 0


# --- what the operators need ----------------------------------------------------------------------------------------------------

cdef int correlate(const Shape *shape, ndarray y, ndarray x, ndarray w, ndarray b, const Map *f, ndarray z) except -1:
    if np.PyArray_SIZE(y) == 0:
        return 0
    if winograd(shape, y, x, w, b, False, f, z):
        return 0
    cdef Shape s = simple(shape)
    cdef Tables t
    cdef Work work
    cdef Py_ssize_t j, taps = s.axis[0].kernel * s.axis[1].kernel * s.axis[2].kernel
    memset(&work, 0, sizeof(Work))
    cdef ndarray _room = make_tables(&s, s.channels, &t)
    forward_taps(&work.g, &s, &t)
    work.g.x = np.PyArray_DATA(x)
    work.g.y = np.PyArray_DATA(y)
    work.g.bias = NULL if b is None else np.PyArray_DATA(b)
    work.itemsize = np.PyArray_ITEMSIZE(y)
    work.f = f
    work.z = NULL if z is None else <char *> np.PyArray_DATA(z)
    for j in range(taps):
        t.weight_tap[j] = j
    return run_places(&work, &t, w, s.channels * taps, taps, s.outputs * s.channels * taps)


cdef int correlate_input(const Shape *shape, ndarray dx, ndarray dy, ndarray w, ndarray b) except -1:
    if np.PyArray_SIZE(dx) == 0:
        return 0
    cdef Shape s = simple(shape)
    cdef Tables t
    cdef Work work
    cdef bp_conv *g = &work.g
    cdef const Axis *x
    cdef Py_ssize_t phase[AXES]
    cdef Py_ssize_t kept[AXES]
    cdef Py_ssize_t i, j, q, k, n, reach, taps = s.axis[0].kernel * s.axis[1].kernel * s.axis[2].kernel
    cdef Py_ssize_t phases = s.axis[0].stride * s.axis[1].stride * s.axis[2].stride, p
    cdef int a
    cdef bint holes = False
    cdef ndarray _room = make_tables(&s, s.outputs, &t)
    for a in range(AXES):
        # Some residues have no tap at all: nothing writes there.
        holes = holes or s.axis[a].kernel < s.axis[a].stride or s.axis[a].dilation > 1 and s.axis[a].stride > 1
    if holes or np.PyArray_SIZE(dy) == 0:
        dx.fill(0)
        if b is not None:
            dx += (<object> b).reshape((-1,) + (1,) * (dx.ndim - 2))
    if np.PyArray_SIZE(dy) == 0 or winograd(shape, dx, dy, w, b, True, NULL, None):
        return 0
    for p in range(phases):
        memset(&work, 0, sizeof(Work))
        q = p
        for a in range(AXES - 1, -1, -1):
            phase[a] = q % s.axis[a].stride
            q //= s.axis[a].stride
        g.images = s.images
        g.groups = s.groups
        g.channels = s.outputs
        g.outputs = s.channels
        n = 1
        for a in range(AXES):
            x = &s.axis[a]
            g.in_[a] = x.out
            g.whole[a] = x.size
            g.spread[a] = x.stride
            g.start[a] = phase[a]
            g.step[a] = 1
            g.out[a] = max(0, (x.size - phase[a] + x.stride - 1) // x.stride)
            kept[a] = 0
            for k in range(x.kernel):
                reach = phase[a] + x.pad - k * x.dilation
                if reach % x.stride == 0:
                    t.tap[a][kept[a]] = reach // x.stride
                    kept[a] += 1
            g.taps[a] = kept[a]
            n *= kept[a] * g.out[a]
        if n == 0:
            continue
        # The weights of the kept taps, in their order.
        n = 0
        for i in range(s.axis[0].kernel):
            if (phase[0] + s.axis[0].pad - i * s.axis[0].dilation) % s.axis[0].stride:
                continue
            for j in range(s.axis[1].kernel):
                if (phase[1] + s.axis[1].pad - j * s.axis[1].dilation) % s.axis[1].stride:
                    continue
                for k in range(s.axis[2].kernel):
                    if (phase[2] + s.axis[2].pad - k * s.axis[2].dilation) % s.axis[2].stride:
                        continue
                    t.weight_tap[n] = (i * s.axis[1].kernel + j) * s.axis[2].kernel + k
                    n += 1
        for a in range(AXES):
            note_taps(g, a, t.tap[a], t.used[a])
        g.x = np.PyArray_DATA(dy)
        g.y = np.PyArray_DATA(dx)
        g.bias = NULL if b is None else np.PyArray_DATA(b)
        work.itemsize = np.PyArray_ITEMSIZE(dx)
        run_places(&work, &t, w, taps, s.channels * taps, s.outputs * s.channels * taps)
    return 0
