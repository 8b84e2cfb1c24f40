# cython: embedsignature=True
"""Gradients of which only some rows are there: those of a table of which a batch used a few rows.

A `SparseTensor` is always coalesced: every row once, in ascending order. It is no `Tensor`: operators refuse it, the engine adds it
up, optimizers that can update single rows take it, `to_dense()` makes a Tensor of it.

Rows that are named several times are summed in the order in which they are named, each by one thread.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int64_t
from libc.string cimport memset
from numpy cimport NPY_INT64, ndarray, npy_intp

from bpcore.lines cimport take_rows
from bpcore.memory cimport contiguous, empty, zeros
from bpcore.operand cimport is_real, new
from bpcore.tensor cimport wrap
from bpcore.threads cimport parallel_for

import numpy

from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/embedding_table.h":
    ctypedef struct bp_embedding_f32:
        void (*rows_sum)(float *y, const float *x, const int64_t *index, const float *scale, Py_ssize_t n,
                         Py_ssize_t width) noexcept nogil
        void (*rows_max)(float *y, int64_t *origin, const float *x, const int64_t *index, Py_ssize_t n,
                         Py_ssize_t width) noexcept nogil
        float (*rows_dot)(const float *a, const float *b, Py_ssize_t width) noexcept nogil
    ctypedef struct bp_embedding_f64:
        void (*rows_sum)(double *y, const double *x, const int64_t *index, const double *scale, Py_ssize_t n,
                         Py_ssize_t width) noexcept nogil
        void (*rows_max)(double *y, int64_t *origin, const double *x, const int64_t *index, Py_ssize_t n,
                         Py_ssize_t width) noexcept nogil
        double (*rows_dot)(const double *a, const double *b, Py_ssize_t width) noexcept nogil
    ctypedef struct bp_embedding:
        bp_embedding_f32 f32
        bp_embedding_f64 f64
    const bp_embedding *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_embedding *kernels = bp_choose(isa)

cdef enum:
    PIECES = 64            # of a sum over all rows: enough that a row which is named often does not hold up the others

DEF COST = 0.15            # nanoseconds a byte read or written, on one thread


cdef void rows_sum(char *y, const char *x, const int64_t *index, const char *scale, Py_ssize_t n, Py_ssize_t width,
                   int itemsize) noexcept nogil:
    if itemsize == 4:
        kernels.f32.rows_sum(<float *> y, <const float *> x, index, <const float *> scale, n, width)
    else:
        kernels.f64.rows_sum(<double *> y, <const double *> x, index, <const double *> scale, n, width)


cdef void rows_max(char *y, int64_t *origin, const char *x, const int64_t *index, Py_ssize_t n, Py_ssize_t width,
                   int itemsize) noexcept nogil:
    if itemsize == 4:
        kernels.f32.rows_max(<float *> y, origin, <const float *> x, index, n, width)
    else:
        kernels.f64.rows_max(<double *> y, origin, <const double *> x, index, n, width)


cdef double rows_dot(const char *a, const char *b, Py_ssize_t width, int itemsize) noexcept nogil:
    if itemsize == 4:
        return kernels.f32.rows_dot(<const float *> a, <const float *> b, width)
    return kernels.f64.rows_dot(<const double *> a, <const double *> b, width)


# --- who names which row --------------------------------------------------------------------------------------------------

cdef inline int64_t *ints(ndarray a) noexcept:
    return <int64_t *> np.PyArray_DATA(a)


cdef ndarray vector(npy_intp n):
    return empty(1, &n, NPY_INT64)


cdef Groups group(ndarray index, Py_ssize_t height, int64_t skip):
    """The places of `index`, contiguous int64 in [0, height), by the row that they name; those that name `skip` are left out."""
    cdef Groups groups = Groups.__new__(Groups)
    cdef Py_ssize_t n = np.PyArray_SIZE(index), i, r, used = 0, left = 0, many
    cdef npy_intp size = height
    cdef int64_t *p = ints(index)
    cdef int64_t *count
    cdef int64_t *rows
    cdef int64_t *starts
    cdef int64_t *order
    cdef ndarray counts
    if height > 16 * n + 4096:             # few places, a tall table: sort rather than count
        return sorted_groups(index, skip)
    counts = zeros(1, &size, NPY_INT64)
    count = ints(counts)
    with nogil:
        for i in range(n):
            if p[i] != skip:
                used += count[p[i]] == 0
                count[p[i]] += 1
                left += 1
    groups.rows, groups.starts, groups.order = vector(used), vector(used + 1), vector(left)
    rows, starts, order = ints(groups.rows), ints(groups.starts), ints(groups.order)
    with nogil:
        used = left = 0
        for r in range(height):
            if count[r]:
                many = count[r]
                rows[used] = r
                starts[used] = count[r] = left
                used += 1
                left += many
        starts[used] = left
        for i in range(n):
            if p[i] != skip:
                order[count[p[i]]] = i
                count[p[i]] += 1
    return groups


cdef Groups sorted_groups(ndarray index, int64_t skip):
    cdef Groups groups = Groups.__new__(Groups)
    order = numpy.argsort(index, kind="stable")
    rows = index[order]
    if skip >= 0:
        order, rows = order[rows != skip], rows[rows != skip]
    first = numpy.flatnonzero(numpy.diff(rows, prepend=-1))
    groups.rows, groups.order = contiguous(rows[first]), contiguous(order)
    groups.starts = numpy.append(first, len(rows))
    return groups


# --- sums -----------------------------------------------------------------------------------------------------------------

ctypedef struct Job:
    char *y
    const char *x
    const int64_t *rows                # NULL: 0, 1, 2 …
    const int64_t *starts
    const int64_t *index
    const char *scale
    Py_ssize_t used, height, width
    int itemsize
    int64_t bounds[PIECES + 1]         # rows where the pieces of the work begin


cdef Py_ssize_t from_row(const Job *job, Py_ssize_t row) noexcept nogil:
    """The number of named rows before `row`."""
    cdef Py_ssize_t low = 0, high = job.used, middle
    if job.rows is NULL:
        return row
    while low < high:
        middle = (low + high) // 2
        if job.rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


cdef void cut(Job *job) noexcept nogil:
    """Bounds of pieces of equal work: a row costs one, a place that names it two."""
    cdef Py_ssize_t low, high, middle, piece
    cdef double total = job.height + 2.0 * job.starts[job.used]
    for piece in range(PIECES):
        low, high = 0, job.height
        while low < high:
            middle = (low + high) // 2
            if middle + 2.0 * job.starts[from_row(job, middle)] < total * piece / PIECES:
                low = middle + 1
            else:
                high = middle
        job.bounds[piece] = low
    job.bounds[PIECES] = job.height


cdef void sum_pieces(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """y[row] = the sum of what names it, 0 where nothing does; the rows of pieces `begin` to `end`."""
    cdef Job *job = <Job *> ctx
    cdef Py_ssize_t row = job.bounds[begin], stop = job.bounds[end], k = from_row(job, row), named, first
    cdef Py_ssize_t size = job.width * job.itemsize
    cdef const char *scale = NULL
    while row < stop:
        named = stop
        if k < job.used:
            named = min(stop, job.rows[k] if job.rows is not NULL else k)
        if named > row:                # rows in between are cleared together: long runs are quicker
            memset(job.y + row * size, 0, (named - row) * size)
            row = named
            continue
        first = job.starts[k]
        if job.scale is not NULL:
            scale = job.scale + first * job.itemsize
        rows_sum(job.y + row * size, job.x, job.index + first, scale, job.starts[k + 1] - first, job.width, job.itemsize)
        row += 1
        k += 1


cdef ndarray summed(Groups groups, ndarray source, ndarray scale, ndarray x, Py_ssize_t height):
    """For each row the sum of `scale[i] x[source[i]]` over the places i that name it. x: (M, width), contiguous float32 or float64;
    `source`: int64 for each place, or None for the place itself; `scale`: for each place, or None.

    Of (height, width) with zeros in the rows that are not named; or of the named rows alone where `height` is negative."""
    cdef Job job
    cdef npy_intp dims[2]
    cdef ndarray y, index = groups.order
    cdef double work
    job.used = np.PyArray_SIZE(groups.rows)
    job.height = height if height >= 0 else job.used
    job.width = np.PyArray_DIM(x, 1)
    job.itemsize = <int> np.PyArray_ITEMSIZE(x)
    if source is not None:
        index = source[groups.order]
    if scale is not None:
        scale = scale[groups.order]
    dims[0], dims[1] = job.height, job.width
    y = empty(2, dims, np.PyArray_TYPE(x))
    job.y, job.x = <char *> np.PyArray_DATA(y), <const char *> np.PyArray_DATA(x)
    job.rows = ints(groups.rows) if height >= 0 else NULL
    job.starts, job.index = ints(groups.starts), ints(index)
    job.scale = <const char *> np.PyArray_DATA(scale) if scale is not None else NULL
    work = COST * (job.height + 2.0 * job.starts[job.used]) * job.width * job.itemsize
    with nogil:
        cut(&job)
        parallel_for(sum_pieces, &job, PIECES, work / PIECES)
    return y


# --- sparse tensors -------------------------------------------------------------------------------------------------------

cdef SparseTensor sparse_rows(ndarray rows, ndarray values, tuple shape):
    """From rows that are ascending, each once."""
    cdef SparseTensor s = SparseTensor.__new__(SparseTensor)
    s.rows, s.array, s.sizes = rows, values, shape
    return s


cdef SparseTensor coalesced(ndarray rows, ndarray values, tuple shape):
    """From contiguous int64 rows in any order, as often as one likes, and contiguous values."""
    cdef Groups groups = group(rows, shape[0], -1)
    cdef ndarray flat
    if np.PyArray_SIZE(groups.rows) == np.PyArray_SIZE(rows):
        return sparse_rows(groups.rows, take_rows(values, groups.order), shape)
    flat = summed(groups, None, None, values.reshape(len(values), -1), -1)
    return sparse_rows(groups.rows, flat.reshape((-1,) + shape[1:]), shape)


cdef SparseTensor add_sparse(SparseTensor a, SparseTensor b):
    cdef SparseTensor s = coalesced(numpy.concatenate([a.rows, b.rows]), numpy.concatenate([a.array, b.array]), a.sizes)
    s.loose = a.loose or b.loose
    return s


cdef int add_to_dense(ndarray dense, SparseTensor sparse) except -1:
    """dense += sparse"""
    if np.PyArray_SIZE(sparse.array):
        (<object> dense)[sparse.rows] += sparse.array
    return 0


cdef ndarray dense_of(SparseTensor sparse):
    cdef ndarray dense = new(sparse.sizes, np.PyArray_TYPE(sparse.array))
    np.PyArray_FILLWBYTE(dense, 0)
    if np.PyArray_SIZE(sparse.array):
        (<object> dense)[sparse.rows] = sparse.array
    return dense


@cython.final
cdef class SparseTensor:
    """A tensor of which only some rows are there; the others are zero. What `weight.grad` of a table used with `sparse=True` is.

    The names are those of PyTorch's sparse COO tensors with one sparse axis: `indices()` is (1, U), int64, and `values()` is
    (U, ...), of the same memory. Rows are ascending and each is there once: `is_coalesced()` is always true.

    indices: (N,) or (1, N), integers in [0, shape[0]); values: (N, *shape[1:]), float32 or float64; those of a row that is named
    several times are added. Raises `ValueError` where shapes do not fit and `IndexError` for a row outside.

    >>> from bpcore.sparse import SparseTensor
    >>> import numpy as np
    >>> s = SparseTensor([2, 0, 2], np.array([[1.0], [5.0], [3.0]]), (4, 1))
    >>> s.indices().tolist(), s.values().tolist(), s.to_dense().tolist()
    ([[0, 2]], [[5.0], [4.0]], [[5.0], [0.0], [4.0], [0.0]])
    """

    def __init__(self, indices, values, shape):
        cdef object rows = contiguous(numpy.asarray(getattr(indices, "_array", indices), dtype=numpy.int64))
        cdef object elements = contiguous(numpy.asarray(getattr(values, "_array", values)))
        shape = tuple(int(n) for n in shape)
        if rows.ndim == 2 and rows.shape[0] == 1:
            rows = rows[0]
        if rows.ndim != 1:
            raise ValueError(f"indices: expected shape (N,) or (1, N), got {rows.shape}")
        if not is_real(np.PyArray_TYPE(elements)):
            raise TypeError(f"values: expected float32 or float64, got {elements.dtype}")
        if not shape or elements.shape != (len(rows),) + shape[1:]:
            raise ValueError(f"values: expected {(len(rows),) + shape[1:]} for shape {shape}, got {elements.shape}")
        if len(rows) and (rows.min() < 0 or rows.max() >= shape[0]):
            raise IndexError(f"indices: expected rows in [0, {shape[0] - 1}], got {rows.min()} to {rows.max()}")
        cdef SparseTensor made = coalesced(rows, elements, shape)
        self.rows, self.array, self.sizes = made.rows, made.array, made.sizes

    @property
    def shape(self):
        """The sizes of the whole tensor."""
        return self.sizes

    @property
    def dtype(self):
        """The NumPy dtype."""
        return self.array.dtype

    @property
    def ndim(self):
        """The number of axes."""
        return len(self.sizes)

    @property
    def is_sparse(self):
        """True."""
        return True

    @property
    def requires_grad(self):
        """False: gradients have no history."""
        return False

    def dim(self):
        """The number of axes."""
        return len(self.sizes)

    def size(self, dim=None):
        """The shape, or the size of axis `dim`."""
        return self.sizes if dim is None else self.sizes[dim]

    def numel(self):
        """The number of elements, zeros and all."""
        total = 1
        for n in self.sizes:
            total *= n
        return total

    def sparse_dim(self):
        """1: the rows."""
        return 1

    def dense_dim(self):
        """The number of axes of a row."""
        return len(self.sizes) - 1

    def indices(self):
        """The rows that are there, a Tensor (1, U) of int64."""
        return wrap(self.rows.reshape(1, -1))

    def values(self):
        """Their elements, a Tensor (U, ...) of the same memory."""
        return wrap(self.array)

    def _nnz(self):
        return np.PyArray_DIM(self.rows, 0)

    def _indices(self):
        return self.indices()

    def _values(self):
        return self.values()

    def is_coalesced(self):
        """True: every row is there once, in ascending order."""
        return True

    def coalesce(self):
        """Itself."""
        return self

    def to_dense(self):
        """A Tensor with the zeros."""
        return wrap(dense_of(self))

    def clone(self):
        """A copy."""
        return sparse_rows(self.rows.copy(), self.array.copy(), self.sizes)

    def __deepcopy__(self, memo):
        return self.clone()

    def detach(self):
        """Itself: it has no history."""
        return self

    def detach_(self):
        """Itself: it has no history."""
        return self

    def zero_(self):
        """Drop all rows; returns it."""
        self.rows, self.array = self.rows[:0], self.array[:0]
        return self

    def __array__(self, dtype=None, copy=None):
        return dense_of(self) if dtype is None else dense_of(self).astype(dtype)

    def __add__(self, other):
        if type(other) is not SparseTensor:
            return NotImplemented
        if other.shape != self.sizes or other.dtype != self.array.dtype:
            raise RuntimeError(f"other: expected {self.dtype} of shape {self.sizes}, got {other.dtype} of shape {other.shape}")
        return add_sparse(self, <SparseTensor> other)

    def __repr__(self):
        return (f"SparseTensor(indices={self.rows.tolist()}, values={self.array.tolist()}, shape={self.sizes})"
                if self.numel() <= 1000 else
                f"SparseTensor({self._nnz()} of {self.sizes[0]} rows, shape={self.sizes}, dtype={self.array.dtype})")
