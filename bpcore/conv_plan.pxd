# How a sum over taps is laid out and shared, for convolve.pyx and conv_weight.pyx.
from numpy cimport ndarray

from bpcore.activation cimport Map
from bpcore.conv_kernels cimport AXES, bp_box, bp_conv
from bpcore.threads cimport range_fn

cdef struct Axis:
    Py_ssize_t size, out, kernel, stride, pad, dilation     # pad: before the first element

cdef struct Shape:
    Py_ssize_t images, groups, channels, outputs            # channels and outputs of one group
    Axis axis[AXES]                                         # depth, height, width

cdef Py_ssize_t PLANES              # bytes of planes that a box should not exceed: part of a second cache

# One sum over taps, and how it is cut into items.
cdef struct Work:
    bp_conv g
    int itemsize
    bint depthwise
    Py_ssize_t box[AXES]            # places of a box at most
    Py_ssize_t boxes[AXES]
    Py_ssize_t box_images, blocks   # images of a box; boxes along the images
    Py_ssize_t tiles, parts         # tiles of outputs, and how many parts of them are computed apart
    Py_ssize_t scratch              # bytes
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

cdef struct Tables:
    Py_ssize_t *tap[AXES]
    Py_ssize_t *offset
    Py_ssize_t *weight_tap
    Py_ssize_t *weight_offset
    char *used[AXES]

cdef inline Py_ssize_t up(Py_ssize_t x, Py_ssize_t unit) noexcept nogil:
    """x / unit, rounded up."""
    return (x + unit - 1) // unit

# Whole axes that need no sum, made one.
cdef Shape simple(const Shape *s) noexcept nogil
# Room for the tables of one sum over `channels`; it lives as long as the array.
cdef ndarray make_tables(const Shape *s, Py_ssize_t channels, Tables *t)
cdef void forward_taps(bp_conv *g, const Shape *s, Tables *t) noexcept nogil
cdef void note_taps(bp_conv *g, int a, const Py_ssize_t *tap, char *used) noexcept nogil
# Distances of channels and taps in their order, or with `rows_first` of rows of taps, channels, and taps of a row.
cdef void fill_offsets(Work *w, Py_ssize_t *offset, Py_ssize_t **tap, bint rows_first) noexcept nogil
cdef bint inside(const bp_conv *g) noexcept nogil
cdef void lay_planes(Work *w) noexcept nogil
cdef void halve_boxes(Work *w) noexcept nogil
cdef void count_boxes(Work *w) noexcept nogil
cdef void box_at(const Work *w, Py_ssize_t item, bp_box *box) noexcept nogil
# Run fn over n items of w.ns nanoseconds on the team, looking for Ctrl-C now and then; MemoryError where scratch ran out.
cdef int share(Work *w, range_fn fn, Py_ssize_t n) except -1
