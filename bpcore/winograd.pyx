"""3 x 3 convolution of stride 1 by Winograd's F(4 x 4, 3 x 3): when it pays, who computes what; the sums: kernels/winograd.h.

It serves float32 alone, with channels in multiples of a vector. The rounding error is 2 to 3 times that of the plain sum (root
mean square; tests/bpcore/test_winograd.py holds it there). `BPNN_WINOGRAD=0` or `use(False)` does without it.
"""
import os

cimport numpy as np
from libc.string cimport memset
from numpy cimport NPY_FLOAT, ndarray, npy_intp

from bpcore.activation cimport Map
from bpcore.conv_kernels cimport bp_winograd, give_scratch, kernels, take_scratch
from bpcore.conv_plan cimport Shape, up
from bpcore.memory cimport empty
from bpcore.threads cimport parallel_for, parallel_for_checked, range_fn, team_size

np.import_array()

cdef Py_ssize_t BLOCK = 384 << 10           # bytes of transformed tiles that a box should not exceed: part of a second cache
cdef Py_ssize_t SUMS = 16 << 20             # bytes of partial sums of a weight's gradient
cdef enum:
    GROUPS = 16                             # of boxes, the most, that are summed up apart
cdef bint enabled = os.environ.get("BPNN_WINOGRAD", "1") != "0"


def use(bint on):
    """Whether convolutions may use it from now on; returns whether they could before."""
    global enabled
    before = enabled
    enabled = on
    return before


cdef struct Work:
    bp_winograd w
    Py_ssize_t images, box_images, blocks, bands     # boxes: along the images, and along the rows of tiles of one
    Py_ssize_t panels                                # parts of the outputs that are computed apart
    Py_ssize_t scratch
    double ns
    bint failed
    const Map *f
    char *z
    # the weights, and the partial sums of their gradient
    const char *weight
    Py_ssize_t so, sc
    bint turned
    char *sum
    Py_ssize_t sum_step, parts
    char *dw


cdef bint lay(Work *k, const Shape *s, bint turned, bint weight) noexcept nogil:
    """Fill in the geometry; whether it pays."""
    cdef bp_winograd *w = &k.w
    cdef Py_ssize_t vl = kernels().f32.conv_vector(), tiles, most
    cdef double c, o, plain, cycles
    cdef int a
    if not enabled or s.groups != 1 or s.axis[0].kernel != 1 or s.axis[0].size != 1 or s.axis[0].out != 1:
        return False
    for a in range(1, 3):
        if s.axis[a].kernel != 3 or s.axis[a].stride != 1 or s.axis[a].dilation != 1:
            return False
    if not kernels().f32.winograd_works() or s.channels % vl or s.outputs % vl:
        return False
    memset(k, 0, sizeof(Work))
    k.images = s.images
    w.channels = s.outputs if turned else s.channels
    w.outputs = s.channels if turned else s.outputs
    w.in_height = s.axis[1].out if turned else s.axis[1].size
    w.in_width = s.axis[2].out if turned else s.axis[2].size
    w.height = s.axis[1].size if turned else s.axis[1].out
    w.width = s.axis[2].size if turned else s.axis[2].out
    w.pad_y = 2 - s.axis[1].pad if turned else s.axis[1].pad
    w.pad_x = 2 - s.axis[2].pad if turned else s.axis[2].pad
    w.ty, w.tx = up(w.height, 4), up(w.width, 4)
    tiles = w.ty * w.tx
    # Cycles an image, fitted to measurements: the products, the transforms, turning channels last and back, the weights.
    c, o = w.channels, w.outputs
    plain = (9.9 * c * o / vl + 0.8 * o) * w.height * w.width + 11 * c * o / k.images
    cycles = tiles * (47 * c * o / vl + 300 * (c + o) / vl + 16 * (c + o)) + 400 * c * o / vl / k.images
    most = max(1, BLOCK // (36 * 4 * (w.channels + w.outputs)))
    k.box_images = min(k.images, max(1, most // tiles))
    w.rows = w.ty if most >= tiles else max(1, most // w.tx)
    w.tiles = k.box_images * w.rows * w.tx
    k.blocks = up(k.images, k.box_images)
    k.bands = up(w.ty, w.rows)
    if weight:
        # Partial sums are cleared, added to, and added up: four passes over memory that is near or far.
        k.sum_step = 36 * kernels().f32.winograd_step(w.channels, w.outputs) + w.outputs
        k.parts = max(1, min(min(k.blocks * k.bands, GROUPS), SUMS // (k.sum_step * 4)))
        cycles += k.parts * k.sum_step * 16. / (8 if k.sum_step * 4 < 1 << 20 else 3) / k.images
    k.ns = 0.3 * cycles * k.images                  # of everything
    return cycles < plain


cdef void weight_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Work *k = <Work *> ctx
    kernels().f32.winograd_weights(<float *> k.w.u, <const float *> k.weight, k.so, k.sc, k.turned, k.w.channels, k.w.outputs,
                                   begin, end)


cdef void boxes_of(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Work *k = <Work *> ctx
    cdef Py_ssize_t item, i, o, n0, n1, t0, t1, o0, o1, n, at, run, size = k.w.height * k.w.width
    cdef Py_ssize_t panel = 2 * kernels().f32.conv_vector(), all = up(k.w.outputs, panel)
    cdef void *scratch = take_scratch(k.scratch)
    if scratch == NULL:
        k.failed = True
        return
    for item in range(begin, end):
        i, o = item // k.panels, item % k.panels
        o0, o1 = all * o // k.panels * panel, min(k.w.outputs, all * (o + 1) // k.panels * panel)
        n0, t0 = i // k.bands * k.box_images, i % k.bands * k.w.rows
        n1, t1 = min(k.images, n0 + k.box_images), min(k.w.ty, t0 + k.w.rows)
        kernels().f32.winograd_box(&k.w, n0, n1, t0, t1, o0, o1, NULL, <float *> scratch)
        if k.f != NULL:
            run = (min(k.w.height, 4 * t1) - 4 * t0) * k.w.width
            for n in range(n0, n1):
                for o in range(o0, o1):
                    at = (n * k.w.outputs + o) * size + 4 * t0 * k.w.width
                    k.f.f32(<float *> k.z + at, <const float *> k.w.y + at, run, NULL)
    give_scratch(scratch, k.scratch)


cdef void sums_of(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Partial sums `begin` to `end`, each over its boxes."""
    cdef Work *k = <Work *> ctx
    cdef Py_ssize_t part, i, all = k.blocks * k.bands, n0, t0
    cdef void *scratch = take_scratch(k.scratch)
    if scratch == NULL:
        k.failed = True
        return
    for part in range(begin, end):
        for i in range(all * part // k.parts, all * (part + 1) // k.parts):
            n0, t0 = i // k.bands * k.box_images, i % k.bands * k.w.rows
            kernels().f32.winograd_box(&k.w, n0, min(k.images, n0 + k.box_images), t0, min(k.w.ty, t0 + k.w.rows), 0,
                                       k.w.outputs, <float *> k.sum + part * k.sum_step, <float *> scratch)
    give_scratch(scratch, k.scratch)


cdef void finish_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Work *k = <Work *> ctx
    kernels().f32.winograd_finish(<float *> k.dw, <const float *> k.sum, k.sum_step, k.parts, k.w.channels, k.w.outputs, begin,
                                  end)


cdef int share(Work *k, range_fn fn, Py_ssize_t n) except -1:
    k.scratch = (kernels().f32.winograd_scratch(&k.w) + 16) * 4
    parallel_for_checked(fn, k, n, k.ns / n)
    if k.failed:
        raise MemoryError(f"convolution: no memory for {k.scratch} bytes of scratch")
    return 0


cdef bint winograd(const Shape *s, ndarray y, ndarray x, ndarray w, ndarray b, bint turned, const Map *f, ndarray z) except -1:
    cdef Work k
    cdef npy_intp n
    cdef int team
    cdef ndarray packed
    if np.PyArray_TYPE(y) != NPY_FLOAT or not lay(&k, s, turned, False):
        return False
    k.w.x = np.PyArray_DATA(x)
    k.w.y = np.PyArray_DATA(y)
    k.w.bias = NULL if b is None else np.PyArray_DATA(b)
    k.f = f
    k.z = NULL if z is None else <char *> np.PyArray_DATA(z)
    k.weight = <const char *> np.PyArray_DATA(w)
    k.so = 9 if turned else s.channels * 9
    k.sc = s.channels * 9 if turned else 9
    k.turned = turned
    n = 36 * kernels().f32.winograd_step(k.w.channels, k.w.outputs)
    packed = empty(1, &n, NPY_FLOAT)
    k.w.u = np.PyArray_DATA(packed)
    with nogil:
        parallel_for(weight_range, &k, k.w.channels, 5. * k.w.outputs)
    # Smaller boxes where there are too few for the team, but of 8 tiles at least: fewer leave the products' rows empty. Then
    # parts of the outputs.
    team = team_size(k.ns)
    while k.blocks * k.bands < 2 * team and k.box_images > 1 and k.box_images * k.w.ty * k.w.tx >= 16:
        k.box_images = up(k.box_images, 2)
        k.blocks = up(k.images, k.box_images)
    while k.blocks * k.bands < 2 * team and k.box_images == 1 and k.w.rows * k.w.tx >= 16:
        k.w.rows = up(k.w.rows, 2)
        k.bands = up(k.w.ty, k.w.rows)
    k.w.tiles = k.box_images * k.w.rows * k.w.tx
    k.panels = 1
    if k.blocks * k.bands < team:
        k.panels = min(up(team, k.blocks * k.bands), up(k.w.outputs, 2 * kernels().f32.conv_vector()))
    share(&k, boxes_of, k.blocks * k.bands * k.panels)
    return True


cdef bint winograd_weight(const Shape *s, ndarray dw, ndarray db, ndarray x, ndarray dy) except -1:
    cdef Work k
    cdef npy_intp n
    cdef Py_ssize_t part, o, bias
    cdef ndarray sums
    cdef float total
    cdef float *to
    if np.PyArray_TYPE(dw) != NPY_FLOAT or not lay(&k, s, False, True):
        return False
    if k.parts < min(GROUPS, k.blocks * k.bands) // 2:
        return False                        # too large for partial sums: few threads would find work
    bias = k.sum_step - k.w.outputs
    k.w.x = np.PyArray_DATA(x)
    k.w.y = np.PyArray_DATA(dy)
    k.w.bias = NULL if db is None else np.PyArray_DATA(db)      # only says that its gradient is wanted
    k.dw = <char *> np.PyArray_DATA(dw)
    n = k.parts * k.sum_step
    sums = empty(1, &n, NPY_FLOAT)
    k.sum = <char *> np.PyArray_DATA(sums)
    memset(k.sum, 0, n * 4)
    share(&k, sums_of, k.parts)
    with nogil:
        parallel_for(finish_range, &k, k.w.channels, 3. * k.w.outputs * k.parts)
    if db is not None:
        to = <float *> np.PyArray_DATA(db)
        for o in range(k.w.outputs):
            total = 0
            for part in range(k.parts):
                total += (<float *> k.sum)[part * k.sum_step + bias + o]
            to[o] = total
    return True
