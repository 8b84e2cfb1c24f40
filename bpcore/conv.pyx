"""Convolutions and transposed convolutions over one, two or three axes.

Sizes: N images, C input channels, O output channels, G groups of them, K taps of a kernel; the axes of an image are called depth,
height and width, missing ones have one place. The three sums over places are in convolve.pyx:

    y = w * x + b          dx = the same with the taps turned round          dw[o, c, k] = sum over places s of dy[o, s] x[c, s + k]

A transposed convolution is the second of them, so its own gradients are the first and the third.
"""
from operator import index

cimport cython
cimport numpy as np
from libc.string cimport memset
from numpy cimport NPY_DOUBLE, NPY_FLOAT, ndarray, npy_intp

from bpcore.activation cimport Map, epilogue_map, map_backward
from bpcore.conv_kernels cimport AXES
from bpcore.conv_plan cimport Axis, Shape
from bpcore.conv_weight cimport correlate_weight
from bpcore.convolve cimport correlate, correlate_input
from bpcore.memory cimport contiguous, empty, empty_like
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, recordsn, wrap

np.import_array()


# --- nodes --------------------------------------------------------------------------------------------------------------------

cdef ndarray sum_places(ndarray dy):
    """The sum over images and places: what a bias gets."""
    return (<object> dy).sum(axis=(0, *range(2, dy.ndim)))


@cython.final
cdef class ConvolutionNode(Node):
    cdef Shape shape
    cdef const Map *f            # the activation, or NULL

    cdef object backward(self, object grad):
        cdef ndarray x, w, saved, dz, dx = None, dw = None, db = None
        cdef npy_intp n
        x, w, saved = self.saved
        cdef ndarray dy = contiguous(grad)
        cdef bint bias = len(self.edges) == 3 and self.needs(2)
        dz = dy if self.f is NULL else map_backward(self.f, dy, saved, NULL)
        if self.needs(0):
            dx = input_like(&self.shape, dz, False)
            correlate_input(&self.shape, dx, dz, w, None)
        if self.needs(1):
            dw = empty_like(w)
            if bias:
                n = np.PyArray_DIM(w, 0)
                db = empty(1, &n, np.PyArray_TYPE(w))
            correlate_weight(&self.shape, dw, db, x, dz)
        elif bias:
            db = sum_places(dz)
        return (dx, dw, db) if len(self.edges) == 3 else (dx, dw)


@cython.final
cdef class TransposedConvolutionNode(Node):
    cdef Shape shape             # of the convolution whose gradient this is

    cdef object backward(self, object grad):
        cdef ndarray x, w, dx = None, dw = None, db = None
        x, w = self.saved
        cdef ndarray dy = contiguous(grad)
        if self.needs(0):
            dx = input_like(&self.shape, dy, True)
            correlate(&self.shape, dx, dy, w, None, NULL, None)
        if self.needs(1):
            dw = empty_like(w)
            correlate_weight(&self.shape, dw, None, dy, x)
        if len(self.edges) == 3 and self.needs(2):
            db = sum_places(dy)
        return (dx, dw, db) if len(self.edges) == 3 else (dx, dw)


cdef ndarray input_like(const Shape *s, ndarray like, bint out):
    """An array for x, or for y where `out`, with as many axes as `like`."""
    cdef npy_intp dims[AXES + 2]
    cdef int n = np.PyArray_NDIM(like), a
    dims[0] = s.images
    dims[1] = s.groups * (s.outputs if out else s.channels)
    for a in range(n - 2):
        dims[2 + a] = s.axis[AXES - (n - 2) + a].out if out else s.axis[AXES - (n - 2) + a].size
    return empty(n, dims, np.PyArray_TYPE(like))


# --- arguments ----------------------------------------------------------------------------------------------------------------

cdef Py_ssize_t MOST = 0x7fffffff           # of a stride and the like: sizes computed from them do not overflow


cdef int numbers(Py_ssize_t *out, object value, int axes, Py_ssize_t least, str name) except -1:
    """A whole number for all axes or one for each."""
    cdef int a
    try:
        items = (index(value),) if hasattr(value, "__index__") else tuple(map(index, value))
    except TypeError:
        raise TypeError(f"{name}: expected a whole number or {axes} of them, got {value!r}") from None
    if len(items) == 1:
        items = items * axes
    if len(items) != axes:
        raise ValueError(f"{name}: expected a whole number or {axes} of them, got {value!r}")
    for a in range(axes):
        if items[a] < least:
            raise ValueError(f"{name}: expected {least} or more, got {value!r}")
        if items[a] > MOST:
            raise ValueError(f"{name}: expected {MOST} at most, got {value!r}")
        out[a] = items[a]
    return 0


cdef void shorten(Axis *x) noexcept nogil:
    """Steps beyond the kernel mean nothing where there is one place alone, but each costs a turn of a loop."""
    if x.out == 1:
        x.stride = min(x.stride, x.dilation * (x.kernel - 1) + 1)


cdef int check(Tensor x, Tensor w, Tensor b, int axes, bint transposed, Py_ssize_t groups) except -1:
    cdef int kind = np.PyArray_TYPE(w.array)
    cdef tuple layout = ("in_channels", "out_channels / groups") if transposed else ("out_channels", "in_channels / groups")
    names = ("depth", "height", "width")[AXES - axes:]
    if kind != NPY_FLOAT and kind != NPY_DOUBLE:
        raise TypeError(f"weight: expected float32 or float64, got {w.dtype}")
    if np.PyArray_TYPE(x.array) != kind:
        raise RuntimeError(f"input: expected the dtype of weight, {w.dtype}, got {x.dtype}")
    if w.ndim != axes + 2:
        raise RuntimeError(f"weight: expected shape ({', '.join(layout + names)}), got {w.shape}")
    if x.ndim != axes + 1 and x.ndim != axes + 2:
        raise RuntimeError(f"input: expected shape (N, C, {', '.join(names)}) or (C, {', '.join(names)}), got {x.shape}")
    if groups < 1:
        raise ValueError(f"groups: expected 1 or more, got {groups}")
    if w.shape[0] % groups or w.shape[0] == 0:
        raise RuntimeError(f"weight: expected {layout[0]} in multiples of groups = {groups}, got shape {w.shape}")
    channels = w.shape[0] if transposed else w.shape[1] * groups
    if x.shape[-1 - axes] != channels:
        raise RuntimeError(
            f"input: expected {channels} channels for a weight of shape {w.shape} and {groups} groups, got shape {x.shape}")
    if 0 in w.shape:
        raise RuntimeError(f"weight: expected no empty axis, got shape {w.shape}")
    if b is not None:
        outputs = w.shape[1] * groups if transposed else w.shape[0]
        if np.PyArray_TYPE(b.array) != kind:
            raise RuntimeError(f"bias: expected the dtype of weight, {w.dtype}, got {b.dtype}")
        if b.shape != (outputs,):
            raise RuntimeError(f"bias: expected shape ({outputs},), got {b.shape}")
    return 0


cdef int read_geometry(Shape *s, Tensor w, int axes, object stride, object dilation, Py_ssize_t groups) except -1:
    """What a convolution and a transposed one have in common."""
    cdef Py_ssize_t step[AXES]
    cdef Py_ssize_t spread[AXES]
    cdef int a, at
    memset(s, 0, sizeof(Shape))
    for a in range(AXES):
        s.axis[a] = Axis(1, 1, 1, 1, 0, 1)
    numbers(step, stride, axes, 1, "stride")
    numbers(spread, dilation, axes, 1, "dilation")
    s.groups = groups
    s.channels = np.PyArray_DIM(w.array, 1)
    s.outputs = np.PyArray_DIM(w.array, 0) // groups
    for a in range(axes):
        at = AXES - axes + a
        s.axis[at].kernel = np.PyArray_DIM(w.array, 2 + a)
        s.axis[at].stride = step[a]
        s.axis[at].dilation = spread[a]
    return 0


cdef int read_padding(Shape *s, int axes, object padding) except -1:
    """Elements before the first one; `out` of each axis gets those on both sides."""
    cdef Py_ssize_t pad[AXES]
    cdef Axis *x
    cdef int a
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"padding: expected whole numbers, 'same' or 'valid', got {padding!r}")
        for a in range(AXES - axes, AXES):
            x = &s.axis[a]
            if padding == "same" and x.stride != 1:
                raise ValueError(f"padding: 'same' needs a stride of 1, got {x.stride}")
            x.out = (x.kernel - 1) * x.dilation if padding == "same" else 0
            x.pad = x.out // 2
        return 0
    numbers(pad, padding, axes, 0, "padding")
    for a in range(axes):
        s.axis[AXES - axes + a].pad = pad[a]
        s.axis[AXES - axes + a].out = 2 * pad[a]
    return 0


# --- convolution --------------------------------------------------------------------------------------------------------------

cdef Tensor convolve(object input, object weight, object bias, object stride, object padding, object dilation,
                     Py_ssize_t groups, object activation, int axes):
    cdef Tensor x = as_tensor(input, "input"), w = as_tensor(weight, "weight")
    cdef Tensor b = None if bias is None else as_tensor(bias, "bias"), out
    cdef const Map *f = epilogue_map(activation)
    cdef Shape s
    cdef Axis *axis
    cdef ndarray xa, wa, ba = None, y, z
    cdef ConvolutionNode node
    cdef bint taped
    cdef Py_ssize_t reach
    cdef int a
    check(x, w, b, axes, False, groups)
    if x.ndim == axes + 1:
        return convolve(x.unsqueeze(0), w, b, stride, padding, dilation, groups, activation, axes).squeeze(0)
    read_geometry(&s, w, axes, stride, dilation, groups)
    read_padding(&s, axes, padding)
    s.images = np.PyArray_DIM(x.array, 0)
    for a in range(AXES - axes, AXES):
        axis = &s.axis[a]
        axis.size = np.PyArray_DIM(x.array, 2 + a - (AXES - axes))
        reach = axis.dilation * (axis.kernel - 1) + 1
        if axis.size + axis.out < reach:
            raise RuntimeError(
                f"input: expected at least {reach - axis.out} along axis {2 + a - (AXES - axes)} for a kernel that reaches over "
                f"{reach} elements, got shape {x.shape}")
        axis.out = (axis.size + axis.out - reach) // axis.stride + 1
        shorten(axis)
    xa, wa = contiguous(x.array), contiguous(w.array)
    if b is not None:
        ba = contiguous(b.array)
    y = z = input_like(&s, xa, True)
    taped = recordsn((x, w, b))
    if f is not NULL and taped and not f.from_output:
        z = empty_like(y)
    correlate(&s, y, xa, wa, ba, f, z)
    out = wrap(z)
    if taped:
        node = ConvolutionNode.__new__(ConvolutionNode)
        node.shape = s
        node.f = f
        if w.wants_grad():
            node.guard(x)
        if x.wants_grad():
            node.guard(w)
        if f is not NULL and f.from_output:
            node.guard(out)
        attach(out, node, (x, w) if b is None else (x, w, b), (xa if w.wants_grad() else None, wa, None if f is NULL else y))
    return out


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, Py_ssize_t groups=1, *, activation=None):
    """`y[n, o, i] = f(b[o] + sum_{c, k} w[o, c, k] x[n, c, i stride + k dilation - padding])`; see `conv2d`.

    input x: (N, C, L) or (C, L); weight w: (O, C / groups, K); bias b: (O,) or None; y: (N, O, L').
    """
    return convolve(input, weight, bias, stride, padding, dilation, groups, activation, 1)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, Py_ssize_t groups=1, *, activation=None):
    """`y[n, o, i, j] = f(b[o] + sum_{c, k, l} w[o, c, k, l] x[n, c, p, q])` for `p = i stride + k dilation - padding` and the same
    for q and j, l; x = 0 outside (a cross-correlation, as everywhere in the field).

    input x: (N, C, H, W) or (C, H, W); weight w: (O, C / groups, K, L); bias b: (O,) or None; y: (N, O, H', W') with
    `H' = (H + 2 padding - dilation (K - 1) - 1) // stride + 1`. All float32 or all float64. `stride`, `padding` and `dilation` are
    whole numbers or one for each axis; `padding` may be "valid" (none) or "same" (the output has the size of the input; stride 1).
    With `groups` = G, output channel o sees only the input channels of its group. `activation` f: None, "relu", "sigmoid", "tanh",
    "gelu", "gelu_tanh" or "silu", computed in the same pass.

    Raises `RuntimeError` that names the argument whose shape or dtype does not fit, `ValueError` for a number out of range.
    The products are formed without an im2col matrix: Chellapilla, Puri and Simard 2006 describe what is avoided, and why.
    """
    return convolve(input, weight, bias, stride, padding, dilation, groups, activation, 2)


def conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, Py_ssize_t groups=1, *, activation=None):
    """`conv2d` over three axes. x: (N, C, D, H, W) or (C, D, H, W); w: (O, C / groups, K, L, M); y: (N, O, D', H', W')."""
    return convolve(input, weight, bias, stride, padding, dilation, groups, activation, 3)


# --- transposed convolution ---------------------------------------------------------------------------------------------------

cdef Tensor convolve_transposed(object input, object weight, object bias, object stride, object padding, object output_padding,
                                Py_ssize_t groups, object dilation, int axes):
    cdef Tensor x = as_tensor(input, "input"), w = as_tensor(weight, "weight")
    cdef Tensor b = None if bias is None else as_tensor(bias, "bias"), out
    cdef Shape s
    cdef Axis *axis
    cdef Py_ssize_t pad[AXES]
    cdef Py_ssize_t more[AXES]
    cdef ndarray xa, wa, ba = None, y
    cdef TransposedConvolutionNode node
    cdef int a, at
    check(x, w, b, axes, True, groups)
    if x.ndim == axes + 1:
        return convolve_transposed(x.unsqueeze(0), w, b, stride, padding, output_padding, groups, dilation, axes).squeeze(0)
    read_geometry(&s, w, axes, stride, dilation, groups)
    numbers(pad, padding, axes, 0, "padding")
    numbers(more, output_padding, axes, 0, "output_padding")
    s.images = np.PyArray_DIM(x.array, 0)
    for a in range(axes):
        at = AXES - axes + a
        axis = &s.axis[at]
        if more[a] >= axis.stride and more[a] >= axis.dilation:
            raise RuntimeError(
                f"output_padding: expected less than stride {axis.stride} or dilation {axis.dilation}, got {more[a]}")
        axis.out = np.PyArray_DIM(x.array, 2 + a)
        axis.pad = pad[a]
        axis.size = (axis.out - 1) * axis.stride - 2 * pad[a] + axis.dilation * (axis.kernel - 1) + more[a] + 1
        if axis.size < 1 or axis.out < 1:
            raise RuntimeError(f"input: shape {x.shape} gives an output of {axis.size} along axis {2 + a}, expected 1 or more")
        shorten(axis)
    xa, wa = contiguous(x.array), contiguous(w.array)
    if b is not None:
        ba = contiguous(b.array)
    y = input_like(&s, xa, False)
    correlate_input(&s, y, xa, wa, ba)
    out = wrap(y)
    if recordsn((x, w, b)):
        node = TransposedConvolutionNode.__new__(TransposedConvolutionNode)
        node.shape = s
        if w.wants_grad():
            node.guard(x)
        if x.wants_grad():
            node.guard(w)
        attach(out, node, (x, w) if b is None else (x, w, b), (xa if w.wants_grad() else None, wa))
    return out


def conv_transpose1d(input, weight, bias=None, stride=1, padding=0, output_padding=0, Py_ssize_t groups=1, dilation=1):
    """The gradient of `conv1d` as an operator; see `conv_transpose2d`. x: (N, C, L); w: (C, O / groups, K); y: (N, O, L')."""
    return convolve_transposed(input, weight, bias, stride, padding, output_padding, groups, dilation, 1)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, Py_ssize_t groups=1, dilation=1):
    """`y[n, o, i, j] = b[o] + sum of w[c, o, k, l] x[n, c, p, q]` over `i = p stride - padding + k dilation` and the same for j.

    input x: (N, C, H, W) or (C, H, W); weight w: (C, O / groups, K, L); bias b: (O,) or None; y: (N, O, H', W') with
    `H' = (H - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1`. All float32 or all float64. It is the gradient of
    `conv2d` of the same arguments with respect to its input; `output_padding` tells which of several input sizes is meant.
    Raises `RuntimeError` or `ValueError` that names the argument. Zeiler et al. 2010, "Deconvolutional networks".
    """
    return convolve_transposed(input, weight, bias, stride, padding, output_padding, groups, dilation, 2)


def conv_transpose3d(input, weight, bias=None, stride=1, padding=0, output_padding=0, Py_ssize_t groups=1, dilation=1):
    """`conv_transpose2d` over three axes. input: (N, C, D, H, W); weight: (C, O / groups, K, L, M); y: (N, O, D', H', W')."""
    return convolve_transposed(input, weight, bias, stride, padding, output_padding, groups, dilation, 3)
