"""Convolution on arrays: which places are computed together, by whom, and in which form; kernels/conv.h does the sums.

One primitive serves everything: y[s] = sum over taps t of w[t] x[s step + t], over a lattice of places s. A convolution is one of
these; its gradient with respect to the input is one for each residue of the places modulo the stride, with the taps that
reach them. The weight's gradient is a sum over places, added up over groups of images whose number depends on the shape alone.
So nothing depends on the number of threads.
"""
cimport numpy as np
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from numpy cimport NPY_DOUBLE, NPY_INTP, ndarray, npy_intp

from bpcore.activation cimport Map
from bpcore.gemm cimport unhurried
from bpcore.memory cimport empty
from bpcore.threads cimport parallel_for, team_size

from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/conv_table.h":
    enum:
        BP_ALONG_PIXELS, BP_ALONG_OUTPUTS, BP_GATHERED
        BP_SCRATCH_BYTES
    void *bp_scratch_take() noexcept nogil
    void bp_scratch_give(void *p) noexcept nogil

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
        int form, in_place

    ctypedef struct bp_box:
        Py_ssize_t image0, image1
        Py_ssize_t[AXES] first, count
        Py_ssize_t group, tile0, tile1

    ctypedef struct bp_conv_table_f32:
        Py_ssize_t (*conv_tiles)(Py_ssize_t outputs, int form) noexcept nogil
        Py_ssize_t (*conv_packed_size)(Py_ssize_t k, Py_ssize_t outputs, int form) noexcept nogil
        void (*conv_pack)(float *out, const float *w, Py_ssize_t so, Py_ssize_t sc, const Py_ssize_t *tap, Py_ssize_t taps,
                          Py_ssize_t channels, Py_ssize_t outputs, int form) noexcept nogil
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
        int (*conv_vector)() noexcept nogil
        int (*conv_rows)() noexcept nogil

    ctypedef struct bp_conv_table_f64:
        Py_ssize_t (*conv_tiles)(Py_ssize_t outputs, int form) noexcept nogil
        Py_ssize_t (*conv_packed_size)(Py_ssize_t k, Py_ssize_t outputs, int form) noexcept nogil
        void (*conv_pack)(double *out, const double *w, Py_ssize_t so, Py_ssize_t sc, const Py_ssize_t *tap, Py_ssize_t taps,
                          Py_ssize_t channels, Py_ssize_t outputs, int form) noexcept nogil
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
        int (*conv_vector)() noexcept nogil
        int (*conv_rows)() noexcept nogil

    ctypedef struct bp_conv_table:
        bp_conv_table_f32 f32
        bp_conv_table_f64 f64
    const bp_conv_table *bp_choose(const char *wanted)


cdef bytes instructions = cpu().encode()
cdef const bp_conv_table *kernels = bp_choose(instructions)

cdef Py_ssize_t PLANES = 384 << 10          # bytes of planes that a box should not exceed: part of a second cache
cdef Py_ssize_t TURNED = 384 << 10          # the same for the transposed gradient
cdef Py_ssize_t SUMS = 8 << 20              # bytes of partial sums of a weight's gradient
cdef enum:
    GROUPS = 16                             # of images, the most, for which a weight's gradient is summed up apart


cdef inline Py_ssize_t up(Py_ssize_t x, Py_ssize_t unit) noexcept nogil:
    return (x + unit - 1) // unit


# --- the sum over taps --------------------------------------------------------------------------------------------------------

cdef struct Work:
    bp_conv g
    int itemsize
    bint depthwise
    Py_ssize_t box[AXES]            # places of a box at most
    Py_ssize_t boxes[AXES]
    Py_ssize_t box_images, blocks   # images of a box; boxes along the images
    Py_ssize_t tiles, parts         # tiles of outputs, and how many parts of them are computed apart
    Py_ssize_t scratch              # bytes
    Py_ssize_t first                # items before this call's
    double ns                       # of one item
    bint failed
    # the weight's gradient
    const char *dy
    char *sum
    char *dw
    char *db
    Py_ssize_t sum_step, ranges     # elements between sums; ranges of channels computed apart
    # what follows on an output that is complete
    const Map *f
    char *z


cdef void *take(Work *w) noexcept nogil:
    return bp_scratch_take() if w.scratch <= <Py_ssize_t> BP_SCRATCH_BYTES else malloc(w.scratch)


cdef void give(Work *w, void *p) noexcept nogil:
    if w.scratch <= <Py_ssize_t> BP_SCRATCH_BYTES:
        bp_scratch_give(p)
    else:
        free(p)


cdef void box_at(const Work *w, Py_ssize_t item, bp_box *box) noexcept nogil:
    """Images and places of box number `item`."""
    cdef int a
    for a in range(AXES - 1, -1, -1):
        box.first[a] = item % w.boxes[a] * w.box[a]
        box.count[a] = min(w.box[a], w.g.out[a] - box.first[a])
        item //= w.boxes[a]
    box.image0 = item * w.box_images
    box.image1 = min(w.g.images, box.image0 + w.box_images)


cdef void activate(const Work *w, const bp_box *box) noexcept nogil:
    """z = f(y) over the places of a box: rows of the width where y has other places too."""
    cdef const bp_conv *g = &w.g
    cdef Py_ssize_t n, o, d, h, at, size = g.whole[0] * g.whole[1] * g.whole[2], run = box.count[2], rows = box.count[1]
    cdef Py_ssize_t o0 = g.outputs * box.tile0 // w.tiles, o1 = g.outputs * box.tile1 // w.tiles, nr
    if g.form != BP_ALONG_PIXELS:
        nr = 2 * (kernels.f32.conv_vector() if w.itemsize == 4 else kernels.f64.conv_vector())
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
    cdef void *scratch = take(w)
    if scratch == NULL:
        w.failed = True
        return
    if w.depthwise:
        begin += w.first
        end += w.first
        if w.itemsize == 4:
            kernels.f32.conv_depthwise(&w.g, begin, end, <float *> scratch)
        else:
            kernels.f64.conv_depthwise(&w.g, begin, end, <double *> scratch)
        if w.f != NULL:
            size = w.g.whole[0] * w.g.whole[1] * w.g.whole[2]
            if w.itemsize == 4:
                w.f.f32(<float *> w.z + begin * size, <const float *> w.g.y + begin * size, (end - begin) * size, NULL)
            else:
                w.f.f64(<double *> w.z + begin * size, <const double *> w.g.y + begin * size, (end - begin) * size, NULL)
    else:
        for i in range(w.first + begin, w.first + end):
            part = i % w.parts
            box.tile0 = w.tiles * part // w.parts
            box.tile1 = w.tiles * (part + 1) // w.parts
            box.group = i // w.parts % w.g.groups
            box_at(w, i // w.parts // w.g.groups, &box)
            if w.itemsize == 4:
                kernels.f32.conv_box(&w.g, &box, <float *> scratch)
            else:
                kernels.f64.conv_box(&w.g, &box, <double *> scratch)
            if w.f != NULL:
                activate(w, &box)
    give(w, scratch)


cdef int share(Work *w, void (*fn)(void *, Py_ssize_t, Py_ssize_t) noexcept nogil, Py_ssize_t n) except -1:
    """Run fn over n items on the team, looking for Ctrl-C now and then."""
    cdef Py_ssize_t step = unhurried(n, w.ns)
    w.first = 0
    while w.first < n:
        with nogil:
            parallel_for(fn, w, min(step, n - w.first), w.ns)
        if w.failed:
            raise MemoryError(f"convolution: no memory for {w.scratch} bytes of scratch")
        w.first += step
        if w.first < n:
            PyErr_CheckSignals()
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


cdef void halve_boxes(Work *w, Py_ssize_t planes) noexcept nogil:
    """Smaller boxes until the planes of one fit: along the depth first, the width last."""
    cdef int a
    lay_planes(w)
    while not w.g.in_place and w.g.image * w.itemsize > planes:
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


cdef void fill_offsets(Work *w, Py_ssize_t *offset, Py_ssize_t **tap) noexcept nogil:
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t c, i, j, q, t, p = 0
    for c in range(g.channels):
        for i in range(g.taps[0]):
            for j in range(g.taps[1]):
                for q in range(g.taps[2]):
                    t = tap[2][q] - g.lo[2]
                    offset[p] = (c * g.plane + (tap[0][i] - g.lo[0]) * g.depth + (tap[1][j] - g.lo[1]) * g.row
                                 + t % g.step[2] * g.phase + t // g.step[2])
                    p += 1
    g.offset = offset


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


cdef double choose_form(Work *w) noexcept nogil:
    """The form that takes fewest cycles for one place of every output; returns them."""
    cdef bp_conv *g = &w.g
    cdef double vl = kernels.f32.conv_vector() if w.itemsize == 4 else kernels.f64.conv_vector()
    cdef double mr = kernels.f32.conv_rows() if w.itemsize == 4 else kernels.f64.conv_rows()
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


cdef int run_places(Work *w, Py_ssize_t **tap, Py_ssize_t *offset, const Py_ssize_t *weight_tap, ndarray weight,
                    Py_ssize_t so, Py_ssize_t sc, Py_ssize_t group_step) except -1:
    """One sum over taps, for which `g` has everything but the layout."""
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t taps = g.taps[0] * g.taps[1] * g.taps[2], q, size, items, places
    cdef npy_intp n
    cdef double cycles
    cdef ndarray packed
    cdef bp_box box
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
        halve_boxes(w, PLANES)
        if g.form == BP_GATHERED:
            w.box_images = min(g.images, max(1, 96 // places))
    count_boxes(w)
    # Weights: packed once for all boxes.
    w.tiles = kernels.f32.conv_tiles(g.outputs, g.form) if f32 else kernels.f64.conv_tiles(g.outputs, g.form)
    size = kernels.f32.conv_packed_size(g.k, g.outputs, g.form) if f32 else kernels.f64.conv_packed_size(g.k, g.outputs, g.form)
    n = g.groups * size
    packed = empty(1, &n, np.PyArray_TYPE(weight))
    g.weight = np.PyArray_DATA(packed)
    g.weight_step = size
    with nogil:
        for q in range(g.groups):
            if f32:
                kernels.f32.conv_pack(<float *> g.weight + q * size, <const float *> np.PyArray_DATA(weight) + q * group_step,
                                      so, sc, weight_tap, taps, g.channels, g.outputs, g.form)
            else:
                kernels.f64.conv_pack(<double *> g.weight + q * size, <const double *> np.PyArray_DATA(weight) + q * group_step,
                                      so, sc, weight_tap, taps, g.channels, g.outputs, g.form)
    # Enough items for the team: smaller boxes, else parts of the outputs.
    team = team_size(0.3 * cycles * places * g.images * g.groups)
    if not w.depthwise:
        items = w.blocks * w.boxes[0] * w.boxes[1] * w.boxes[2] * g.groups
        while items < 2 * team and w.box[1] >= 8 and w.box_images == 1:
            w.box[1] = up(w.box[1], 2)
            count_boxes(w)
            items = w.blocks * w.boxes[0] * w.boxes[1] * w.boxes[2] * g.groups
        if items < 2 * team:
            w.parts = min(w.tiles, up(2 * team, items))
        items *= w.parts
    else:
        items = g.images * g.groups
    lay_planes(w)
    fill_offsets(w, offset, tap)
    w.ns = 0.3 * cycles * places * g.images * g.groups / items
    if w.depthwise:
        size = g.plane + 64
    else:
        box_at(w, 0, &box)
        size = kernels.f32.conv_scratch(g, &box) if f32 else kernels.f64.conv_scratch(g, &box)
    w.scratch = (size + 16) * w.itemsize
    share(w, boxes_of, items)
    return 0


# --- what the operators need ----------------------------------------------------------------------------------------------------

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


cdef struct Tables:
    Py_ssize_t *tap[AXES]
    Py_ssize_t *offset
    Py_ssize_t *weight_tap
    char *used[AXES]


cdef ndarray make_tables(const Shape *s, Py_ssize_t channels, Tables *t):
    """Room for the tables of one sum; lives as long as the array."""
    cdef Py_ssize_t taps = s.axis[0].kernel * s.axis[1].kernel * s.axis[2].kernel
    cdef npy_intp n = taps * (channels + 1)
    cdef int a
    for a in range(AXES):
        n += s.axis[a].kernel + s.axis[a].stride
    cdef ndarray room = empty(1, &n, NPY_INTP)
    t.offset = <Py_ssize_t *> np.PyArray_DATA(room)
    t.weight_tap = t.offset + taps * channels
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


cdef int correlate(const Shape *shape, ndarray y, ndarray x, ndarray w, ndarray b, const Map *f, ndarray z) except -1:
    if np.PyArray_SIZE(y) == 0:
        return 0
    cdef Shape s = simple(shape)
    cdef Tables t
    cdef Work work
    cdef Py_ssize_t j, taps = s.axis[0].kernel * s.axis[1].kernel * s.axis[2].kernel
    memset(&work, 0, sizeof(Work))
    cdef ndarray room = make_tables(&s, s.channels, &t)
    forward_taps(&work.g, &s, &t)
    work.g.x = np.PyArray_DATA(x)
    work.g.y = np.PyArray_DATA(y)
    work.g.bias = NULL if b is None else np.PyArray_DATA(b)
    work.itemsize = np.PyArray_ITEMSIZE(y)
    work.f = f
    work.z = NULL if z is None else <char *> np.PyArray_DATA(z)
    for j in range(taps):
        t.weight_tap[j] = j
    return run_places(&work, t.tap, t.offset, t.weight_tap, w, s.channels * taps, taps, s.outputs * s.channels * taps)


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
    cdef ndarray room = make_tables(&s, s.outputs, &t)
    for a in range(AXES):
        # Some residues have no tap at all: nothing writes there.
        holes = holes or s.axis[a].kernel < s.axis[a].stride or s.axis[a].dilation > 1 and s.axis[a].stride > 1
    if holes or np.PyArray_SIZE(dy) == 0:
        dx.fill(0)
        if b is not None:
            dx += (<object> b).reshape((-1,) + (1,) * (dx.ndim - 2))
    if np.PyArray_SIZE(dy) == 0:
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
        run_places(&work, t.tap, t.offset, t.weight_tap, w, taps, s.channels * taps, s.outputs * s.channels * taps)
    return 0


# --- the weight's gradient ------------------------------------------------------------------------------------------------------

cdef void sums_of(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Items `begin` to `end`: for each sum (a part of the images), a group and a range of its channels."""
    cdef Work *w = <Work *> ctx
    cdef bp_conv *g = &w.g
    cdef Py_ssize_t item, part, r, c0, c1, block, places = w.boxes[0] * w.boxes[1] * w.boxes[2], i, parts = w.parts
    cdef bp_box box
    cdef void *scratch = take(w)
    if scratch == NULL:
        w.failed = True
        return
    for item in range(w.first + begin, w.first + end):
        r = item % w.ranges
        box.group = item // w.ranges % g.groups
        part = item // w.ranges // g.groups
        c0 = g.channels * r // w.ranges
        c1 = g.channels * (r + 1) // w.ranges
        i = (part * g.groups + box.group) * w.sum_step
        for block in range(w.blocks * part // parts * places, w.blocks * (part + 1) // parts * places):
            box_at(w, block, &box)
            if w.itemsize == 4:
                kernels.f32.conv_weight_box(g, &box, <const float *> w.dy, <float *> w.sum + i, c0, c1, <float *> scratch)
            else:
                kernels.f64.conv_weight_box(g, &box, <const double *> w.dy, <double *> w.sum + i, c0, c1, <double *> scratch)
    give(w, scratch)


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
            kernels.f32.conv_weight_finish(
                <float *> w.dw + group * g.outputs * g.k, NULL if w.db == NULL else <float *> w.db + group * g.outputs,
                <const float *> w.sum + group * w.sum_step, step, w.parts, g.k, g.outputs, p0, p1)
        else:
            kernels.f64.conv_weight_finish(
                <double *> w.dw + group * g.outputs * g.k, NULL if w.db == NULL else <double *> w.db + group * g.outputs,
                <const double *> w.sum + group * w.sum_step, step, w.parts, g.k, g.outputs, p0, p1)


cdef void depthwise_sums(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Work *w = <Work *> ctx
    cdef void *scratch = take(w)
    if scratch == NULL:
        w.failed = True
        return
    begin += w.first
    end += w.first
    if w.itemsize == 4:
        kernels.f32.conv_depthwise_weight(&w.g, <const float *> w.dy, <float *> w.dw, <float *> w.db, begin, end,
                                          <float *> scratch)
    else:
        kernels.f64.conv_depthwise_weight(&w.g, <const double *> w.dy, <double *> w.dw, <double *> w.db, begin, end,
                                          <double *> scratch)
    give(w, scratch)


cdef int correlate_weight(const Shape *shape, ndarray dw, ndarray db, ndarray x, ndarray dy) except -1:
    if np.PyArray_SIZE(x) == 0 or np.PyArray_SIZE(dy) == 0 or np.PyArray_SIZE(dw) == 0:
        dw.fill(0)
        if db is not None:
            db.fill(0)
            if np.PyArray_SIZE(dy) > 0:
                (<object> dy).sum(axis=(0, *range(2, dy.ndim)), out=db)
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
    cdef ndarray room = make_tables(&s, s.channels, &t)
    forward_taps(g, &s, &t)
    g.x = np.PyArray_DATA(x)
    w.dy = <const char *> np.PyArray_DATA(dy)
    w.dw = <char *> np.PyArray_DATA(dw)
    w.db = NULL if db is None else <char *> np.PyArray_DATA(db)
    w.itemsize = np.PyArray_ITEMSIZE(dw)
    g.k = s.channels * taps
    vl = kernels.f32.conv_vector() if f32 else kernels.f64.conv_vector()
    for a in range(AXES):
        w.box[a] = g.out[a]
    places = g.out[0] * g.out[1] * g.out[2]
    w.box_images = 1
    if g.channels == 1 and g.outputs == 1 and g.groups > 1:
        lay_planes(&w)
        fill_offsets(&w, t.offset, t.tap)
        w.scratch = ((g.k + 4) * vl + g.out[0] * g.out[1] * up(g.out[2], vl) * vl + g.plane + 4 * vl) * w.itemsize
        w.ns = 0.3 * g.images * places * taps / vl * 1.5
        return share(&w, depthwise_sums, g.groups)
    g.in_place = inside(g)
    wide = kernels.f32.conv_weight_width(g.outputs) if f32 else kernels.f64.conv_weight_width(g.outputs)
    while w.box[1] > 1 and w.box[0] * w.box[1] * w.box[2] * wide * w.itemsize > TURNED:
        w.box[1] = up(w.box[1], 2)
    halve_boxes(&w, PLANES)
    if w.box[0] * w.box[1] * w.box[2] == places:
        w.box_images = min(g.images, up(256, places))
    count_boxes(&w)
    lay_planes(&w)
    fill_offsets(&w, t.offset, t.tap)
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
    size = kernels.f32.conv_weight_scratch(g, &box, size) if f32 else kernels.f64.conv_weight_scratch(g, &box, size)
    w.scratch = (size + 16) * w.itemsize
    n = w.parts * g.groups * w.ranges
    w.ns = 0.3 * cycles / n
    share(&w, sums_of, n)
    with nogil:
        parallel_for(finish_range, &w, g.groups * up(g.k + 1, 64), 0.5 * 64 * g.outputs * w.parts)
    return 0
