"""Windows that slide over planes: their sizes, and what families of images share."""
cimport numpy as np
from numpy cimport ndarray, npy_intp

from bpcore.memory cimport empty
from bpcore.operand cimport shape_of
from bpcore.tensor cimport Tensor, as_tensor

np.import_array()


cdef int numbers(object given, int axes, str name, Py_ssize_t *out) except -1:
    """One integer for each axis from one integer for all, or from a sequence, into the last places of three."""
    cdef int i
    if isinstance(given, (tuple, list)):
        if len(given) != axes and len(given) != 1:
            raise RuntimeError(f"{name}: expected one number or {axes}, got {given}")
        for i in range(axes):
            out[3 - axes + i] = given[i if len(given) > 1 else 0]
    else:
        for i in range(3 - axes, 3):
            out[i] = given
    return 0


cdef Tensor planes_of(object input, int axes, str name):
    """`input` as a tensor, if it has channels and `axes` axes behind them, of which none is empty."""
    cdef Tensor x = as_tensor(input, "input")
    cdef int ndim = np.PyArray_NDIM(x.array), d
    if x.array.dtype.kind in "biuc":
        raise RuntimeError(f"input: {name} expected floats, got {x.array.dtype}")
    if ndim != axes + 1 and ndim != axes + 2:
        raise RuntimeError(f"input: {name} expected {axes + 1} or {axes + 2} axes, got shape {shape_of(x.array)}")
    for d in range(ndim):
        if np.PyArray_DIM(x.array, d) == 0 and (d or ndim == axes + 1):
            raise RuntimeError(f"input: {name} expected no empty axis behind the batch, got shape {shape_of(x.array)}")
    return x


cdef ndarray new_planes(ndarray x, int axes, const Py_ssize_t *out, int typenum):
    """An array of the leading axes of `x` and planes of the last `axes` sizes of `out`."""
    cdef npy_intp[5] dims
    cdef int ndim = np.PyArray_NDIM(x), d
    for d in range(ndim):
        dims[d] = np.PyArray_DIM(x, d) if d < ndim - axes else out[3 - ndim + d]
    return empty(ndim, dims, typenum)


cdef int slide(bp_window *w, ndarray x, int axes, object kernel_size, object stride, object padding, object dilation,
               bint ceil_mode, bint average) except -1:
    """Fill in a window and check it."""
    cdef int a, ndim = np.PyArray_NDIM(x)
    cdef Py_ssize_t reach, room
    for a in range(3):
        w.size[a] = w.kernel[a] = w.stride[a] = w.dilation[a] = w.out[a] = 1
        w.pad[a] = 0
    w.include_pad = w.divisor = 0
    numbers(kernel_size, axes, "kernel_size", w.kernel)
    numbers(kernel_size if stride is None or stride == [] or stride == () else stride, axes, "stride", w.stride)
    numbers(padding, axes, "padding", w.pad)
    numbers(dilation, axes, "dilation", w.dilation)
    for a in range(3 - axes, 3):
        w.size[a] = np.PyArray_DIM(x, ndim - 3 + a)
        for value, name in ((w.kernel[a], "kernel_size"), (w.stride[a], "stride"), (w.dilation[a], "dilation")):
            if value < 1:
                raise RuntimeError(f"{name}: expected numbers above 0, got {value}")
        reach = w.dilation[a] * (w.kernel[a] - 1) + 1
        if not 0 <= w.pad[a] <= reach // 2:
            raise RuntimeError(f"padding: expected from 0 to half of the kernel's reach of {reach}, got {w.pad[a]}")
        room = w.size[a] + 2 * w.pad[a] - reach
        # A window wider than the padded plane is accepted only where ceil_mode lets it stand out beyond the end.
        if room < 0 and not (ceil_mode and room + w.stride[a] - 1 >= 0):
            raise RuntimeError(f"kernel_size: expected at most the padded size {w.size[a] + 2 * w.pad[a]}, "
                               f"got a window of {reach}")
        w.out[a] = (room + (w.stride[a] - 1 if ceil_mode else 0)) // w.stride[a] + 1
        if ceil_mode and (w.out[a] - 1) * w.stride[a] >= w.size[a] + w.pad[a]:
            w.out[a] -= 1
        if not average and w.dilation[a] > 1 and w.pad[a]:
            reaches_in(w, a)
    return 0


cdef int reaches_in(const bp_window *w, int a) except -1:
    """Refuse windows whose every element lies in the padding: a dilated one may step over the plane."""
    cdef Py_ssize_t o, k, at
    cdef bint found
    for o in range(w.out[a]):
        found = False
        for k in range(w.kernel[a]):
            at = o * w.stride[a] - w.pad[a] + k * w.dilation[a]
            found = found or 0 <= at < w.size[a]
        if not found:
            raise RuntimeError(f"dilation: expected every window to reach into the plane of {w.size[a]}, got {w.dilation[a]} "
                               f"with kernel_size {w.kernel[a]} and padding {w.pad[a]}")
    return 0
