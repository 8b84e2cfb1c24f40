"""Blocks of images as columns and back, and the shuffling of pixels and channels.

`unfold` takes (N, C, H, W) to (N, C kh kw, L): column l holds the elements under the l-th place of a sliding block of kh by kw;
the places go from left to right and from top to bottom, and there are

    places = (size + 2 padding - dilation (kernel - 1) - 1) // stride + 1

along each axis. `fold` adds the columns up where they came from. Each is the gradient of the other. Half types are computed in
float32. Sizes that do not fit raise `RuntimeError`.
"""
cimport cython
cimport numpy as np
from cython cimport floating
from libc.string cimport memcpy, memset
from numpy cimport NPY_FLOAT, ndarray, npy_intp

from bpcore.memory cimport contiguous, empty
from bpcore.operand cimport cast_tensor, is_real, shape_of
from bpcore.shape cimport permuted, reshaped
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, wrap
from bpcore.threads cimport parallel_for_checked
from bpcore.windows cimport numbers

np.import_array()


# --- arrays ---------------------------------------------------------------------------------------------------------------

ctypedef struct Blocks:            # sizes and places along height and width
    Py_ssize_t size[2]
    Py_ssize_t places[2]
    Py_ssize_t kernel[2]
    Py_ssize_t stride[2]
    Py_ssize_t pad[2]
    Py_ssize_t dilation[2]

ctypedef struct Job:
    const Blocks *b
    void *image
    void *columns
    bint single


cdef inline void reach(const Blocks *b, int a, Py_ssize_t k, Py_ssize_t *lo, Py_ssize_t *hi) noexcept nogil:
    """The places whose block has its element k within the image."""
    cdef Py_ssize_t gap = b.pad[a] - k * b.dilation[a], room = b.size[a] - 1 + gap
    lo[0] = min((gap + b.stride[a] - 1) // b.stride[a] if gap > 0 else 0, b.places[a])
    hi[0] = max(min(room // b.stride[a] + 1 if room >= 0 else 0, b.places[a]), lo[0])


cdef void lift(floating *to, const floating *image, const Blocks *b, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    """One row of the columns: element (i, j) of all blocks, 0 beyond the image."""
    cdef Py_ssize_t y0, y1, x0, x1, y, x, s = b.stride[1], wide = b.places[1]
    cdef const floating *row
    reach(b, 0, i, &y0, &y1)
    reach(b, 1, j, &x0, &x1)
    memset(to, 0, y0 * wide * sizeof(floating))
    for y in range(y0, y1):
        row = image + (y * b.stride[0] - b.pad[0] + i * b.dilation[0]) * b.size[1] - b.pad[1] + j * b.dilation[1]
        memset(to + y * wide, 0, x0 * sizeof(floating))
        if s == 1:
            memcpy(to + y * wide + x0, row + x0, (x1 - x0) * sizeof(floating))
        else:
            for x in range(x0, x1):
                to[y * wide + x] = row[x * s]
        memset(to + y * wide + x1, 0, (wide - x1) * sizeof(floating))
    memset(to + y1 * wide, 0, (b.places[0] - y1) * wide * sizeof(floating))


cdef void lower(floating *image, const floating *rows, const Blocks *b) noexcept nogil:
    """One plane from its rows of the columns, kh kw of them, added in their order."""
    cdef Py_ssize_t i, j, y0, y1, x0, x1, y, x, s = b.stride[1], wide = b.places[1]
    cdef floating *to
    cdef const floating *row
    memset(image, 0, b.size[0] * b.size[1] * sizeof(floating))
    for i in range(b.kernel[0]):
        reach(b, 0, i, &y0, &y1)
        for j in range(b.kernel[1]):
            reach(b, 1, j, &x0, &x1)
            for y in range(y0, y1):
                to = image + (y * b.stride[0] - b.pad[0] + i * b.dilation[0]) * b.size[1] - b.pad[1] + j * b.dilation[1]
                row = rows + y * wide
                if s == 1:
                    for x in range(x0, x1):
                        to[x] += row[x]
                else:
                    for x in range(x0, x1):
                        to[x * s] += row[x]
            rows += b.places[0] * wide


cdef void lift_rows(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef const Blocks *b = job.b
    cdef Py_ssize_t r, taps = b.kernel[0] * b.kernel[1], plane = b.size[0] * b.size[1], n = b.places[0] * b.places[1]
    for r in range(begin, end):
        if job.single:
            lift(<float *> job.columns + r * n, <float *> job.image + r // taps * plane, b, r % taps // b.kernel[1],
                 r % b.kernel[1])
        else:
            lift(<double *> job.columns + r * n, <double *> job.image + r // taps * plane, b, r % taps // b.kernel[1],
                 r % b.kernel[1])


cdef void lower_planes(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Job *job = <Job *> ctx
    cdef const Blocks *b = job.b
    cdef Py_ssize_t p, plane = b.size[0] * b.size[1], block = b.kernel[0] * b.kernel[1] * b.places[0] * b.places[1]
    for p in range(begin, end):
        if job.single:
            lower(<float *> job.image + p * plane, <float *> job.columns + p * block, b)
        else:
            lower(<double *> job.image + p * plane, <double *> job.columns + p * block, b)


cdef ndarray to_columns(const Blocks *b, ndarray image):
    """(N, C, H, W) to (N, C kh kw, L)."""
    cdef npy_intp[3] dims
    cdef ndarray out
    cdef Job job
    dims[0] = np.PyArray_DIM(image, 0)
    dims[1] = np.PyArray_DIM(image, 1) * b.kernel[0] * b.kernel[1]
    dims[2] = b.places[0] * b.places[1]
    out = empty(3, dims, np.PyArray_TYPE(image))
    job.b = b
    job.image = np.PyArray_DATA(image)
    job.columns = np.PyArray_DATA(out)
    job.single = np.PyArray_TYPE(image) == NPY_FLOAT
    parallel_for_checked(lift_rows, &job, dims[0] * dims[1], 20 + 0.4 * dims[2])
    return out


cdef ndarray to_image(const Blocks *b, ndarray columns):
    """(N, C kh kw, L) to (N, C, H, W)."""
    cdef npy_intp[4] dims
    cdef ndarray out
    cdef Job job
    dims[0] = np.PyArray_DIM(columns, 0)
    dims[1] = np.PyArray_DIM(columns, 1) // (b.kernel[0] * b.kernel[1])
    dims[2], dims[3] = b.size[0], b.size[1]
    out = empty(4, dims, np.PyArray_TYPE(columns))
    job.b = b
    job.image = np.PyArray_DATA(out)
    job.columns = np.PyArray_DATA(columns)
    job.single = np.PyArray_TYPE(columns) == NPY_FLOAT
    parallel_for_checked(lower_planes, &job, dims[0] * dims[1],
             20 + 0.2 * dims[2] * dims[3] + 0.4 * b.kernel[0] * b.kernel[1] * b.places[0] * b.places[1])
    return out


# --- tensors --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class UnfoldNode(Node):
    """y = the blocks of x as columns: dx = dy added up where the columns came from"""
    cdef Blocks b

    cdef object backward(self, object dy):
        return to_image(&self.b, contiguous(dy))


@cython.final
cdef class FoldNode(Node):
    """y = columns added up: dx = the blocks of dy as columns"""
    cdef Blocks b

    cdef object backward(self, object dy):
        return to_columns(&self.b, contiguous(dy))


cdef int pair(object given, str name, Py_ssize_t least, Py_ssize_t *out) except -1:
    cdef Py_ssize_t[3] three
    numbers(given, 2, name, three)
    if min(three[1], three[2]) < least:
        raise RuntimeError(f"{name}: expected numbers of {least} or more, got {given}")
    out[0], out[1] = three[1], three[2]
    return 0


cdef int lay(Blocks *b, Py_ssize_t height, Py_ssize_t width, object kernel_size, object dilation, object padding,
             object stride) except -1:
    """Fill in the blocks of an image, of which there is at least one."""
    cdef int a
    b.size[0], b.size[1] = height, width
    pair(kernel_size, "kernel_size", 1, b.kernel)
    pair(dilation, "dilation", 1, b.dilation)
    pair(padding, "padding", 0, b.pad)
    pair(stride, "stride", 1, b.stride)
    for a in range(2):
        room = b.size[a] + 2 * b.pad[a] - b.dilation[a] * (b.kernel[a] - 1) - 1
        if room < 0:
            raise RuntimeError(f"kernel_size: expected blocks within the padded image of ({height + 2 * b.pad[0]}, "
                               f"{width + 2 * b.pad[1]}), got {kernel_size} with dilation {dilation}")
        b.places[a] = room // b.stride[a] + 1
    return 0


cdef Tensor batched(object input, int axes, str name, bint *single):
    """A floating-point tensor with a batch axis, which it gets where it has none."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple shape = shape_of(x.array)
    if x.array.dtype.kind in "biuc":
        raise RuntimeError(f"input: {name} expected floats, got {x.array.dtype}")
    single[0] = len(shape) == axes - 1
    if len(shape) != axes and not single[0] or 0 in shape[len(shape) - axes + 1:]:
        raise RuntimeError(f"input: {name} expected {axes - 1} or {axes} axes, none of them empty but the batch, "
                           f"got shape {shape}")
    return reshaped(x, (1,) + shape) if single[0] else x


def unfold(input, kernel_size, dilation=1, padding=0, stride=1):
    """The blocks of (N, C, H, W) or (C, H, W) as columns: (N, C kh kw, L) or (C kh kw, L)."""
    cdef bint single
    cdef Tensor x = batched(input, 4, "unfold", &single), out
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef Blocks b
    cdef UnfoldNode node
    if not is_real(typenum):
        return cast_tensor(unfold(cast_tensor(as_tensor(input, "input"), NPY_FLOAT), kernel_size, dilation, padding, stride),
                           typenum)
    lay(&b, np.PyArray_DIM(x.array, 2), np.PyArray_DIM(x.array, 3), kernel_size, dilation, padding, stride)
    out = wrap(to_columns(&b, contiguous(x.array)))
    if records(x):
        node = UnfoldNode.__new__(UnfoldNode)
        node.b = b
        attach(out, node, (x,), None)
    return reshaped(out, shape_of(out.array)[1:]) if single else out


def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """The columns (N, C kh kw, L) or (C kh kw, L) added up to images of `output_size`: (N, C, H, W) or (C, H, W)."""
    cdef bint single
    cdef Tensor x = batched(input, 3, "fold", &single), out
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef Py_ssize_t[2] size
    cdef Blocks b
    cdef FoldNode node
    if not is_real(typenum):
        return cast_tensor(fold(cast_tensor(as_tensor(input, "input"), NPY_FLOAT), output_size, kernel_size, dilation, padding,
                                stride), typenum)
    pair(output_size, "output_size", 1, size)
    lay(&b, size[0], size[1], kernel_size, dilation, padding, stride)
    if np.PyArray_DIM(x.array, 1) % (b.kernel[0] * b.kernel[1]):
        raise RuntimeError(f"input: expected a multiple of kernel_size {kernel_size} as columns' length, got shape "
                           f"{shape_of(x.array)}")
    if np.PyArray_DIM(x.array, 2) != b.places[0] * b.places[1]:
        raise RuntimeError(f"input: expected {b.places[0]} x {b.places[1]} columns for output_size {output_size}, got shape "
                           f"{shape_of(x.array)}")
    out = wrap(to_image(&b, contiguous(x.array)))
    if records(x):
        node = FoldNode.__new__(FoldNode)
        node.b = b
        attach(out, node, (x,), None)
    return reshaped(out, shape_of(out.array)[1:]) if single else out


# --- shuffles -------------------------------------------------------------------------------------------------------------

cdef tuple image_axes(Tensor x, str name, Py_ssize_t factor):
    """The leading axes, channels, height and width."""
    cdef tuple shape = shape_of(x.array)
    if len(shape) < 3:
        raise RuntimeError(f"input: {name} expected at least 3 axes, got shape {shape}")
    if factor < 1:
        raise RuntimeError(f"{name}: expected a factor above 0, got {factor}")
    return shape[:len(shape) - 3], shape[len(shape) - 3], shape[len(shape) - 2], shape[len(shape) - 1]


def pixel_shuffle(input, Py_ssize_t upscale_factor):
    """(*, C r^2, H, W) to (*, C, H r, W r): the r^2 channels of a group become the pixels of a square. Shi et al. 2016."""
    cdef Tensor x = as_tensor(input, "input")
    cdef Py_ssize_t r = upscale_factor
    lead, c, h, w = image_axes(x, "pixel_shuffle", r)
    if c % (r * r):
        raise RuntimeError(f"input: expected a multiple of upscale_factor^2 = {r * r} channels, got {c}")
    n = len(lead)
    x = reshaped(x, lead + (c // (r * r), r, r, h, w))
    return reshaped(permuted(x, tuple(range(n)) + (n, n + 3, n + 1, n + 4, n + 2)), lead + (c // (r * r), h * r, w * r))


def pixel_unshuffle(input, Py_ssize_t downscale_factor):
    """(*, C, H r, W r) to (*, C r^2, H, W): the inverse of `pixel_shuffle`."""
    cdef Tensor x = as_tensor(input, "input")
    cdef Py_ssize_t r = downscale_factor
    lead, c, h, w = image_axes(x, "pixel_unshuffle", r)
    if h % r or w % r:
        raise RuntimeError(f"input: expected sizes that are multiples of downscale_factor = {r}, got {(h, w)}")
    n = len(lead)
    x = reshaped(x, lead + (c, h // r, r, w // r, r))
    return reshaped(permuted(x, tuple(range(n)) + (n, n + 2, n + 4, n + 1, n + 3)), lead + (c * r * r, h // r, w // r))


def channel_shuffle(input, Py_ssize_t groups):
    """(N, C, *) with the channels of `groups` groups dealt out in turn. Zhang et al. 2018."""
    cdef Tensor x = as_tensor(input, "input")
    cdef tuple shape = shape_of(x.array)
    if len(shape) < 3:
        raise RuntimeError(f"input: channel_shuffle expected at least 3 axes, got shape {shape}")
    if groups < 1 or shape[1] % groups:
        raise RuntimeError(f"groups: expected a divisor of the {shape[1]} channels, got {groups}")
    x = reshaped(x, (shape[0], groups, shape[1] // groups) + shape[2:])
    return reshaped(permuted(x, (0, 2, 1) + tuple(range(3, len(shape) + 1))), shape)
