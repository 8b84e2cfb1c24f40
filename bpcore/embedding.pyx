# cython: embedsignature=True
"""Rows of a table, picked by integers, and bags of them reduced to one row each.

Sizes: V rows in the table, D elements in a row, N integers, B bags. The gradient of the table is summed row by row in the order of
the integers (bpcore.sparse), so it does not depend on the number of threads; rows that nothing picked are cleared in the same pass.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int64_t
from libc.string cimport memcpy
from numpy cimport NPY_FLOAT32, NPY_INT64, ndarray, npy_intp

from bpcore.lines cimport put_lines
from bpcore.memory cimport contiguous, empty
from bpcore.operand cimport cast, is_real, new, shape_of
from bpcore.sparse cimport Groups, SparseTensor, group, rows_dot, rows_max, rows_sum, sparse_rows, summed
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records, recordsn, wrap
from bpcore.threads cimport parallel_for

import numpy

np.import_array()

DEF COST = 0.1            # nanoseconds a byte


# --- arguments ------------------------------------------------------------------------------------------------------------

cdef Tensor table_of(object weight):
    cdef Tensor w = as_tensor(weight, "weight")
    if np.PyArray_NDIM(w.array) != 2:
        raise RuntimeError(f"weight: expected 2 axes (rows, elements), got shape {shape_of(w.array)}")
    return w


cdef ndarray integers(object index, str name):
    """An argument of int32 or int64, of any shape, as contiguous int64."""
    cdef Tensor t = as_tensor(index, name)
    if t.array.dtype.name != "int64" and t.array.dtype.name != "int32":
        raise TypeError(f"{name}: expected int32 or int64, got {t.array.dtype}")
    return contiguous(cast(t.array, NPY_INT64))


cdef int64_t *ints(ndarray a) noexcept:
    return <int64_t *> np.PyArray_DATA(a)


cdef int in_table(ndarray index, Py_ssize_t height) except -1:
    """Refuse integers that name no row."""
    cdef int64_t *p = ints(index)
    cdef Py_ssize_t i, n = np.PyArray_SIZE(index), bad = -1
    with nogil:
        for i in range(n):
            if p[i] < 0 or p[i] >= height:
                bad = i
                break
    if bad >= 0:
        raise IndexError(f"input: index {p[bad]} is out of range for a table of {height} rows")
    return 0


cdef int64_t padding_of(object padding_idx, Py_ssize_t height) except? -2:
    """The row whose gradient stays zero, or -1."""
    if padding_idx is None:
        return -1
    if not -height <= padding_idx < height:
        raise ValueError(f"padding_idx: expected a row of the table, in [{-height}, {height - 1}], got {padding_idx}")
    return padding_idx if padding_idx >= 0 else padding_idx + height


cdef int renormalize(Tensor w, ndarray index, double max_norm, double norm_type) except -1:
    """Scale rows that are picked and longer than `max_norm` down to it, in place."""
    rows = numpy.unique(index)
    if not np.PyArray_ISWRITEABLE(w.array):
        raise ValueError("max_norm: it changes weight in place, which is read-only")
    picked = w.array[rows]
    size = numpy.linalg.norm(picked, norm_type, axis=1) if np.PyArray_SIZE(picked) else numpy.zeros(0)
    over = size > max_norm
    if over.any():
        w.array[rows[over]] = picked[over] * (max_norm / (size[over] + 1e-7)).astype(w.array.dtype)[:, None]
        w.bump()
    return 0


# --- embedding ------------------------------------------------------------------------------------------------------------

ctypedef struct Pick:
    char *y
    const char *w
    const int64_t *index
    Py_ssize_t bytes


cdef void pick_rows(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Pick *job = <Pick *> ctx
    cdef Py_ssize_t i
    for i in range(begin, end):
        memcpy(job.y + i * job.bytes, job.w + job.index[i] * job.bytes, job.bytes)


cdef ndarray picked_rows(ndarray w, ndarray index):
    """w[index], (*, D); indices have been checked."""
    cdef npy_intp dims[64]
    cdef int i, lead = np.PyArray_NDIM(index)
    cdef Pick job
    cdef ndarray y
    w = contiguous(w)
    for i in range(lead):
        dims[i] = np.PyArray_DIM(index, i)
    dims[lead] = np.PyArray_DIM(w, 1)
    y = empty(lead + 1, dims, np.PyArray_TYPE(w))
    job.y, job.w, job.index = <char *> np.PyArray_DATA(y), <const char *> np.PyArray_DATA(w), ints(index)
    job.bytes = dims[lead] * np.PyArray_ITEMSIZE(w)
    with nogil:
        parallel_for(pick_rows, &job, np.PyArray_SIZE(index), 5 + job.bytes * COST)
    return y


cdef object table_gradient(Groups groups, ndarray source, ndarray scale, ndarray dy, tuple shape, bint sparse, int typenum):
    """dW from the gradients `dy` (M, D) that each place gets: `scale` times row `source` (or its own).

    Where few rows are named they travel alone even if a dense gradient is wanted: a head that is tied to the table has one that
    they are added to."""
    cdef bint loose = not sparse and 8 * np.PyArray_SIZE(groups.rows) < <Py_ssize_t> shape[0]
    cdef ndarray dw = summed(groups, source, scale, contiguous(dy), -1 if sparse or loose else shape[0])
    cdef SparseTensor rows
    if typenum != np.PyArray_TYPE(dw):
        dw = cast(dw, typenum)
    if not (sparse or loose):
        return dw
    rows = sparse_rows(groups.rows, dw, shape)
    rows.loose = loose
    return rows


cdef ndarray frequencies(Groups groups, Py_ssize_t n, object dtype):
    """For each place, 1 / how often its row is named."""
    cdef object counts = numpy.diff(groups.starts), scale = numpy.zeros(n, dtype)
    scale[groups.order] = numpy.repeat(1 / counts, counts)
    return scale


@cython.final
cdef class EmbeddingNode(Node):
    """y[i] = W[index[i]]: dW[index[i]] += dy[i]"""
    cdef int64_t padding
    cdef bint by_frequency, sparse
    cdef tuple shape
    cdef int typenum

    cdef object backward(self, object grad):
        index, = self.saved
        cdef ndarray dy = contiguous(grad), scale = None
        cdef Groups groups = group(index, self.shape[0], self.padding)
        if not is_real(np.PyArray_TYPE(dy)):
            dy = cast(dy, NPY_FLOAT32)
        if self.by_frequency:
            scale = frequencies(groups, np.PyArray_SIZE(index), dy.dtype)
        return table_gradient(groups, None, scale, dy.reshape(index.size, self.shape[1]), self.shape, self.sparse, self.typenum)


def embedding(input, weight, padding_idx=None, max_norm=None, double norm_type=2.0, bint scale_grad_by_freq=False,
              bint sparse=False):
    """The rows of `weight` that `input` names: `y[...] = weight[input[...]]`.

    input: int32 or int64, (*); weight: (V, D); y: (*, D). `padding_idx`: a row that gets no gradient. `max_norm`: rows that are
    picked and whose `norm_type` norm is larger are first scaled down to it, in place. `scale_grad_by_freq`: divide each row's
    gradient by how often `input` names it. `sparse`: the gradient of `weight` is a `bpcore.sparse.SparseTensor` of the rows that
    were picked. Raises `IndexError` for an index outside the table."""
    cdef Tensor w = table_of(weight), out
    cdef ndarray index = integers(input, "input")
    cdef Py_ssize_t height = np.PyArray_DIM(w.array, 0)
    cdef EmbeddingNode node
    cdef int64_t padding = padding_of(padding_idx, height)
    in_table(index, height)
    if sparse and scale_grad_by_freq:
        raise RuntimeError("scale_grad_by_freq: expected False with sparse=True")
    if max_norm is not None:
        renormalize(w, index, max_norm, norm_type)
    out = wrap(picked_rows(w.array, index))
    if records(w):
        node = EmbeddingNode.__new__(EmbeddingNode)
        node.padding, node.by_frequency, node.sparse = padding, scale_grad_by_freq, sparse
        node.shape, node.typenum = shape_of(w.array), np.PyArray_TYPE(w.array)
        attach(out, node, (w,), (kept(index, input).reshape(-1),))
    return out


cdef ndarray kept(ndarray index, object given):
    """The integers for backward: a copy where they are the caller's own memory, which may change before."""
    return index.copy() if index is as_tensor(given, "input").array else index


# --- bags -----------------------------------------------------------------------------------------------------------------

MODES = ("sum", "mean", "max")


ctypedef struct Bags:
    char *y
    int64_t *origin                    # for max: which row each element came from
    const char *w
    const int64_t *index               # of the places that count, bag by bag
    const char *scale                  # for each of them, or NULL
    const int64_t *starts              # (B + 1,)
    Py_ssize_t width
    int itemsize


cdef void reduce_bags(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Bags *job = <Bags *> ctx
    cdef const char *scale = NULL
    cdef Py_ssize_t b, first, n
    for b in range(begin, end):
        first = job.starts[b]
        n = job.starts[b + 1] - first
        if job.origin is not NULL:
            rows_max(job.y + b * job.width * job.itemsize, job.origin + b * job.width, job.w, job.index + first, n, job.width,
                     job.itemsize)
        else:
            if job.scale is not NULL:
                scale = job.scale + first * job.itemsize
            rows_sum(job.y + b * job.width * job.itemsize, job.w, job.index + first, scale, n, job.width, job.itemsize)


cdef ndarray reduced(ndarray w, ndarray index, ndarray scale, ndarray starts, ndarray origin):
    """(B, D): the sums of scaled rows of each bag; or the largest elements, where they came from to `origin`."""
    cdef npy_intp dims[2]
    cdef Bags job
    cdef ndarray y
    dims[0], dims[1] = np.PyArray_SIZE(starts) - 1, np.PyArray_DIM(w, 1)
    y = empty(2, dims, np.PyArray_TYPE(w))
    job.y, job.w, job.index, job.starts = <char *> np.PyArray_DATA(y), <const char *> np.PyArray_DATA(w), ints(index), ints(starts)
    job.origin = ints(origin) if origin is not None else NULL
    job.scale = <const char *> np.PyArray_DATA(scale) if scale is not None else NULL
    job.width, job.itemsize = dims[1], <int> np.PyArray_ITEMSIZE(w)
    cdef double cost = COST * job.width * job.itemsize * (np.PyArray_SIZE(index) + dims[0]) / max(dims[0], 1)
    with nogil:
        parallel_for(reduce_bags, &job, dims[0], 10 + cost)
    return y


@cython.final
cdef class EmbeddingBagNode(Node):
    """y[b] = sum of scale[i] W[index[i]] over the places i of bag b: dW[index[i]] += scale[i] dy[b];
    with given weights, scale[i] = weights[i]: dweights[i] = W[index[i]] . dy[b]"""
    cdef bint by_frequency, sparse
    cdef tuple shape, weights_shape

    cdef object backward(self, object grad):
        w, index, bag, scale, places = self.saved
        cdef ndarray dy = contiguous(grad), s
        cdef Groups groups
        dw = dweights = None
        if self.needs(0):
            groups = group(index, self.shape[0], -1)
            s = scale
            if self.by_frequency:
                s = frequencies(groups, np.PyArray_SIZE(index), dy.dtype)
                if scale is not None:
                    s = s * scale
            dw = table_gradient(groups, bag, s, dy, self.shape, self.sparse, np.PyArray_TYPE(dy))
        if self.needs(1):
            dweights = dots(w, index, dy, bag, places, self.weights_shape)
        return dw, dweights


cdef ndarray dots(ndarray w, ndarray index, ndarray dy, ndarray bag, ndarray places, tuple shape):
    """For each place W[index] . dy[bag]; 0 for places that do not count."""
    cdef ndarray out = new(shape, np.PyArray_TYPE(dy))
    cdef char *to = <char *> np.PyArray_DATA(out)
    cdef const char *rows = <const char *> np.PyArray_DATA(w)
    cdef const char *grads = <const char *> np.PyArray_DATA(dy)
    cdef int64_t *row = ints(index)
    cdef int64_t *at = ints(bag)
    cdef int64_t *place = ints(places)
    cdef Py_ssize_t i, n = np.PyArray_SIZE(index), width = np.PyArray_DIM(dy, 1)
    cdef int itemsize = <int> np.PyArray_ITEMSIZE(dy)
    cdef double value
    np.PyArray_FILLWBYTE(out, 0)
    with nogil:
        for i in range(n):
            value = rows_dot(rows + row[i] * width * itemsize, grads + at[i] * width * itemsize, width, itemsize)
            if itemsize == 4:
                (<float *> to)[place[i]] = <float> value
            else:
                (<double *> to)[place[i]] = value
    return out


@cython.final
cdef class EmbeddingBagMaxNode(Node):
    """y[b, j] = W[origin[b, j], j]: dW there += dy; empty bags have no origin"""
    cdef tuple shape

    cdef object backward(self, object grad):
        origin, empty_bags = self.saved
        cdef ndarray dw = new(self.shape, np.PyArray_TYPE(<ndarray> grad))
        np.PyArray_FILLWBYTE(dw, 0)
        if empty_bags is not None:
            grad, origin = grad[~empty_bags], origin[~empty_bags]
        if np.PyArray_SIZE(<ndarray> grad):
            put_lines(dw, origin, grad, 0, True)
        return dw

    def name(self):
        return "EmbeddingBagBackward"


cdef tuple bags_of(ndarray index, object offsets, bint include_last):
    """The flat index and where its bags begin and end, (B,) each."""
    cdef ndarray at
    n = index.size
    if index.ndim == 2:
        if offsets is not None:
            raise ValueError("offsets: expected None for a 2-D input, each row of which is a bag, got offsets")
        at = numpy.arange(index.shape[0], dtype=numpy.int64) * index.shape[1]
        return index.reshape(-1), at, at + index.shape[1]
    if index.ndim != 1:
        raise ValueError(f"input: expected 1 or 2 axes, got shape {shape_of(index)}")
    if offsets is None:
        raise ValueError("offsets: expected where each bag begins, as input is 1-D, got None")
    at = integers(offsets, "offsets")
    if at.ndim != 1:
        raise ValueError(f"offsets: expected 1 axis, got shape {shape_of(at)}")
    if include_last and not len(at):
        raise ValueError("offsets: expected at least the last offset with include_last_offset=True, got none")
    if len(at) and at[0] != 0:
        raise ValueError(f"offsets: expected the first to be 0, got {at[0]}")
    if len(at) and (at[len(at) - 1] > n or (numpy.diff(at) < 0).any()):
        raise ValueError(f"offsets: expected places in [0, {n}] that do not fall, got {at.tolist()[:20]}")
    return (index, at[:-1], at[1:]) if include_last else (index, at, numpy.append(at[1:], n)[:len(at)])


def embedding_bag(input, weight, offsets=None, max_norm=None, double norm_type=2, bint scale_grad_by_freq=False, str mode="mean",
                  bint sparse=False, per_sample_weights=None, bint include_last_offset=False, padding_idx=None):
    """The sum, mean or largest elements (`mode`) of the rows of `weight` in each bag: (B, D), zeros for an empty bag.

    input: int32 or int64, (B, N), each row a bag; or (N,) with `offsets` (B,), where each bag begins (and with
    `include_last_offset` (B + 1,), where the last one ends). weight: (V, D), float32 or float64. `per_sample_weights`, of the shape
    of `input`: factors of the rows, for `mode="sum"`. `padding_idx`: entries that do not count. The other arguments are those of
    `embedding`. Raises `IndexError` for an index outside the table."""
    cdef Tensor w = table_of(weight), factors = None, out
    cdef ndarray index = integers(input, "input"), table, starts, scale = None, origin = None, bag, counts, places
    cdef Py_ssize_t height = np.PyArray_DIM(w.array, 0)
    cdef int64_t padding = padding_of(padding_idx, height)
    cdef EmbeddingBagNode node
    cdef EmbeddingBagMaxNode top
    if mode not in MODES:
        raise ValueError(f"mode: expected 'sum', 'mean' or 'max', got {mode!r}")
    if not is_real(np.PyArray_TYPE(w.array)):
        raise TypeError(f"weight: expected float32 or float64, got {w.array.dtype}")
    if per_sample_weights is not None:
        factors = as_tensor(per_sample_weights, "per_sample_weights")
        if mode != "sum":
            raise ValueError(f"per_sample_weights: expected None with mode={mode!r}; they are for mode='sum'")
        if shape_of(factors.array) != shape_of(index) or factors.array.dtype != w.array.dtype:
            raise ValueError(f"per_sample_weights: expected {w.array.dtype} of shape {shape_of(index)}, "
                             f"got {factors.array.dtype} of shape {shape_of(factors.array)}")
    if scale_grad_by_freq and (sparse or mode == "max"):
        raise RuntimeError(f"scale_grad_by_freq: expected False with {'sparse=True' if sparse else 'mode=max'}")
    if sparse and mode == "max":
        raise RuntimeError("sparse: expected False with mode='max'")
    in_table(index, height)
    if max_norm is not None:
        renormalize(w, index, max_norm, norm_type)
    index, begins, ends = bags_of(index, offsets, include_last_offset)
    # The places that count, and the bag of each.
    sizes = ends - begins
    bag = numpy.repeat(numpy.arange(len(begins), dtype=numpy.int64), sizes)
    places = numpy.arange(len(bag), dtype=numpy.int64)
    if padding >= 0:
        real = index[:len(bag)] != padding
        bag, places = bag[real], places[real]
        sizes = numpy.bincount(bag, minlength=len(begins))
    index = contiguous(index[places])
    starts = numpy.zeros(len(begins) + 1, numpy.int64)
    numpy.cumsum(sizes, out=starts[1:])
    if factors is not None:
        scale = factors.array.reshape(-1)[places]
    elif mode == "mean":
        counts = numpy.maximum(sizes, 1)
        scale = (1 / counts).astype(w.array.dtype)[bag]
    table = contiguous(w.array)
    if mode == "max":
        origin = new((len(begins), table.shape[1]), NPY_INT64)
    out = wrap(reduced(table, index, scale, starts, origin))
    if mode == "max":
        if records(w):
            top = EmbeddingBagMaxNode.__new__(EmbeddingBagMaxNode)
            top.shape = shape_of(w.array)
            attach(out, top, (w,), (origin, sizes == 0 if (sizes == 0).any() else None))
    elif recordsn((w, factors)):
        node = EmbeddingBagNode.__new__(EmbeddingBagNode)
        node.by_frequency, node.sparse, node.shape = scale_grad_by_freq, sparse, shape_of(w.array)
        if factors is not None:
            node.weights_shape = shape_of(factors.array)
            if factors.wants_grad():
                node.guard(w)
        attach(out, node, (w, factors), (table, index, bag, scale, places))
    return out
