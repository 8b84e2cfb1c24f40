"""Frozen weights in fewer bits: bfloat16, or int8 with a scale for each 32 numbers of a row (the Q8_0 of GGUF files, with float32
scales; Dettmers et al. 2023 train adapters on a quantized base in this way).

A product widens some rows of the matrix into a buffer that stays in the cache, multiplies with them, and goes on to the next:
the matrix is never there as a whole. Sizes: M rows of x, K inputs, N outputs; y = f(x W^T + b), dx = dz W. There is no dW.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport int8_t, int64_t, uint16_t
from numpy cimport NPY_DOUBLE, NPY_FLOAT, ndarray, npy_intp

from bpcore.activation cimport Map
from bpcore.gemm cimport product
from bpcore.memory cimport contiguous, empty
from bpcore.simd cimport bp_epilogue
from bpcore.threads cimport parallel_for

import numpy

from bpcore.simd import cpu

np.import_array()


cdef extern from "kernels/stored_table.h":
    const Py_ssize_t BP_STORED_BLOCK

    ctypedef struct bp_stored_f32:
        void (*widen_bfloat16)(float *out, const uint16_t *bits, Py_ssize_t n) noexcept nogil
        void (*widen_int8)(float *out, const int8_t *q, const float *scale, Py_ssize_t n) noexcept nogil

    ctypedef struct bp_stored_f64:
        void (*widen_bfloat16)(double *out, const uint16_t *bits, Py_ssize_t n) noexcept nogil
        void (*widen_int8)(double *out, const int8_t *q, const float *scale, Py_ssize_t n) noexcept nogil

    ctypedef struct bp_stored_table:
        bp_stored_f32 f32
        bp_stored_f64 f64

    const bp_stored_table *bp_choose(const char *wanted)


cdef bytes isa = cpu().encode()
cdef const bp_stored_table *table = bp_choose(isa)

KINDS = ("bfloat16", "int8")
BLOCK = BP_STORED_BLOCK

# Numbers that are widened at a time: most matrices of small models at once, and no more than 4 MiB of the others.
cdef Py_ssize_t PIECE = 1 << 20


# --- rows -----------------------------------------------------------------------------------------------------------------

cdef struct Taken:
    Rows rows
    const int64_t *places


cdef inline void widen_row(const Rows *r, Py_ssize_t to, Py_ssize_t row) noexcept nogil:
    """Row `to` of `out`, from row `row` of the matrix."""
    cdef Py_ssize_t at = row * r.cols
    to *= r.cols
    if r.scales is NULL:
        if r.is_double:
            table.f64.widen_bfloat16(<double *> r.out + to, <const uint16_t *> r.numbers + at, r.cols)
        else:
            table.f32.widen_bfloat16(<float *> r.out + to, <const uint16_t *> r.numbers + at, r.cols)
    elif r.is_double:
        table.f64.widen_int8(<double *> r.out + to, <const int8_t *> r.numbers + at, r.scales + row * r.blocks, r.cols)
    else:
        table.f32.widen_int8(<float *> r.out + to, <const int8_t *> r.numbers + at, r.scales + row * r.blocks, r.cols)


cdef void widen_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Rows *r = <Rows *> ctx
    cdef Py_ssize_t i
    for i in range(begin, end):
        widen_row(r, i, r.first + i)


cdef void take_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Taken *t = <Taken *> ctx
    cdef Py_ssize_t i
    for i in range(begin, end):
        widen_row(&t.rows, i, t.places[i])


cdef int typenum_of(object dtype) except -1:
    kind = numpy.dtype(dtype)
    if kind not in (numpy.float32, numpy.float64):
        raise TypeError(f"dtype: expected float32 or float64, got {kind}")
    return NPY_DOUBLE if kind == numpy.float64 else NPY_FLOAT


@cython.final
cdef class StoredMatrix:
    """A matrix (N, K) kept as bfloat16, `numbers` as uint16, the upper halves of float32; or as int8 `numbers` with float32
    `scales` (N, ⌈K / 32⌉).

    Made of its parts, which are not copied: see `store`. Raises `TypeError` or `ValueError` naming the part that does not fit.
    """

    def __cinit__(self, numbers, scales=None):
        cdef npy_intp blocks
        if not isinstance(numbers, ndarray) or np.PyArray_NDIM(numbers) != 2:
            raise TypeError(f"numbers: expected an array with 2 axes, got {getattr(numbers, 'shape', type(numbers).__name__)}")
        if numbers.dtype != (numpy.uint16 if scales is None else numpy.int8):
            raise TypeError(f"numbers: expected {'uint16 without' if scales is None else 'int8 with'} scales, got {numbers.dtype}")
        self.kind = "bfloat16" if scales is None else "int8"
        self.shape = numbers.shape
        self.numbers = contiguous(numbers)
        if scales is not None:
            blocks = (np.PyArray_DIM(numbers, 1) + BP_STORED_BLOCK - 1) // BP_STORED_BLOCK
            if not isinstance(scales, ndarray) or scales.dtype != numpy.float32 or scales.shape != (self.shape[0], blocks):
                raise ValueError(
                    f"scales: expected a float32 array of shape {(self.shape[0], blocks)}, got "
                    f"{getattr(scales, 'dtype', type(scales).__name__)} of shape {getattr(scales, 'shape', None)}")
            self.scales = contiguous(scales)

    @property
    def parts(self):
        """`(numbers,)` or `(numbers, scales)`."""
        return (self.numbers,) if self.scales is None else (self.numbers, self.scales)

    @property
    def dtype(self):
        """float32, which the numbers stand for."""
        return numpy.dtype(numpy.float32)

    @property
    def requires_grad(self):
        """False."""
        return False

    @property
    def nbytes(self):
        """Bytes of all parts."""
        return sum([part.nbytes for part in self.parts])

    cdef ndarray rows(self, Py_ssize_t begin, Py_ssize_t end, int typenum):
        """Rows begin..end as real numbers, in a buffer of the pool."""
        cdef npy_intp dims[2]
        dims[0], dims[1] = end - begin, np.PyArray_DIM(self.numbers, 1)
        cdef ndarray out = empty(2, dims, typenum)
        cdef Rows r
        self.describe(&r, out)
        r.first = begin
        with nogil:
            parallel_for(widen_range, &r, dims[0], 0.15 * dims[1])
        return out

    cdef void describe(self, Rows *r, ndarray out) noexcept:
        """What the loops over rows need, from the first row on."""
        r.out, r.cols, r.is_double = np.PyArray_DATA(out), np.PyArray_DIM(out, 1), np.PyArray_TYPE(out) == NPY_DOUBLE
        r.numbers, r.scales, r.blocks, r.first = np.PyArray_DATA(self.numbers), NULL, 0, 0
        if self.scales is not None:
            r.scales, r.blocks = <const float *> np.PyArray_DATA(self.scales), np.PyArray_DIM(self.scales, 1)

    def dense(self, dtype="float32"):
        """All of it as a new array (N, K) of float32 or float64."""
        return self.rows(0, np.PyArray_DIM(self.numbers, 0), typenum_of(dtype))

    def take(self, places, dtype="float32"):
        """The rows at `places`, int64 of any shape (*), as a new array (*, K). Raises `IndexError` for a place that is no row."""
        cdef npy_intp dims[2]
        cdef ndarray wanted = contiguous(numpy.asarray(places))
        cdef Taken t
        cdef Rows *r = &t.rows
        if np.PyArray_TYPE(wanted) != np.NPY_INT64:
            raise TypeError(f"places: expected int64, got {wanted.dtype}")
        if wanted.size and not (0 <= wanted.min() and wanted.max() < self.shape[0]):
            raise IndexError(f"places: expected 0 to {self.shape[0] - 1}, got {wanted.min()} to {wanted.max()}")
        dims[0], dims[1] = np.PyArray_SIZE(wanted), self.shape[1]
        cdef ndarray out = empty(2, dims, typenum_of(dtype))
        t.places = <const int64_t *> np.PyArray_DATA(wanted)
        self.describe(r, out)
        with nogil:
            parallel_for(take_range, &t, dims[0], 20 + 0.15 * dims[1])
        return out.reshape((<object> wanted).shape + (self.shape[1],))

    def __deepcopy__(self, memo):
        return self                     # nobody changes it

    def __repr__(self):
        return f"StoredMatrix({self.kind}, shape={self.shape})"


def store(array, kind):
    """The StoredMatrix nearest to a real matrix (N, K). `kind`: "bfloat16", rounded to the nearest, ties to even; or "int8":
    each block of 32 numbers of a row is divided by its scale, the largest magnitude / 127, and rounded.

    Raises `TypeError` for another kind of array, `ValueError` for another `kind` and for numbers that are not finite.
    """
    if not isinstance(array, ndarray) or np.PyArray_NDIM(array) != 2 or array.dtype.kind != "f":
        raise TypeError(f"array: expected real numbers with 2 axes, got {getattr(array, 'dtype', type(array).__name__)} "
                        f"of shape {getattr(array, 'shape', None)}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected {' or '.join(KINDS)}, got {kind!r}")
    height, width = array.shape
    blocks = -(-width // BLOCK)
    numbers = numpy.empty((height, width), numpy.uint16 if kind == "bfloat16" else numpy.int8)
    scales = None if kind == "bfloat16" else numpy.empty((height, blocks), numpy.float32)
    step = max(1, PIECE // max(width, 1))       # a piece at a time: the temporary arrays stay small
    for i in range(0, height, step):
        piece = numpy.ascontiguousarray(array[i : i + step], numpy.float32)
        if not numpy.isfinite(piece).all():
            raise ValueError("array: expected finite numbers, got inf or nan")
        if scales is None:
            bits = piece.view(numpy.uint32)
            numbers[i : i + step] = (bits + numpy.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
            continue
        padded = numpy.zeros((len(piece), blocks * BLOCK), numpy.float32)
        padded[:, :width] = piece
        padded = padded.reshape(len(piece), blocks, BLOCK)
        scale = numpy.abs(padded).max(2) / numpy.float32(127)
        scales[i : i + step] = scale
        safe = numpy.where(scale > 0, scale, 1)[:, :, None]
        rounded = numpy.clip(numpy.rint(padded / safe), -127, 127).astype(numpy.int8)
        numbers[i : i + step] = rounded.reshape(len(piece), -1)[:, :width]
    return StoredMatrix(numbers, scales)


# --- products -------------------------------------------------------------------------------------------------------------

cdef struct Panel:
    char *y
    const char *z
    Py_ssize_t ld
    const Map *f
    bint is_double


cdef void activate_panel(void *ctx, Py_ssize_t row0, Py_ssize_t row1, Py_ssize_t col0, Py_ssize_t col1) noexcept nogil:
    """y = f(z) over a finished block of the product."""
    cdef Panel *p = <Panel *> ctx
    cdef Py_ssize_t i, at, n = col1 - col0
    for i in range(row0, row1):
        at = i * p.ld + col0
        if p.is_double:
            p.f.f64(<double *> p.y + at, <const double *> p.z + at, n, NULL)
        else:
            p.f.f32(<float *> p.y + at, <const float *> p.z + at, n, NULL)


cdef int times_transposed(ndarray c, ndarray a, object weight, bint across, ndarray bias, const Map *f, ndarray y) except -1:
    cdef StoredMatrix stored
    cdef Py_ssize_t i, last, step, n = np.PyArray_DIM(c, 1), size = np.PyArray_ITEMSIZE(c)
    cdef int typenum = np.PyArray_TYPE(c)
    cdef ndarray w
    cdef Panel panel = Panel(NULL, NULL, n, f, typenum == NPY_DOUBLE)
    cdef bp_epilogue epilogue = NULL
    if f is not NULL:
        epilogue = activate_panel
        panel.y, panel.z = <char *> np.PyArray_DATA(y), <const char *> np.PyArray_DATA(c)
    if not isinstance(weight, StoredMatrix):
        w = weight if across else np.PyArray_Transpose(weight, NULL)
        product(c, a, w, 1, 0, bias, epilogue, &panel)
        return 0
    stored = <StoredMatrix> weight
    step = piece_of(stored)
    for i in range(0, n, step):
        last = min(i + step, n)
        w = np.PyArray_Transpose(stored.rows(i, last, typenum), NULL)
        product(c[:, i:last], a, w, 1, 0, None if bias is None else bias[i:last], epilogue, &panel)
        if f is not NULL:
            panel.y, panel.z = panel.y + (last - i) * size, panel.z + (last - i) * size
    return 0


cdef int times(ndarray c, ndarray a, object weight, bint across, double beta) except -1:
    cdef StoredMatrix stored
    cdef Py_ssize_t i, last, step, n = np.PyArray_DIM(a, 1)
    if not isinstance(weight, StoredMatrix):
        product(c, a, np.PyArray_Transpose(weight, NULL) if across else weight, 1, beta)
        return 0
    stored = <StoredMatrix> weight
    step = piece_of(stored)
    if n == 0:
        product(c, a, stored.rows(0, 0, np.PyArray_TYPE(c)), 1, beta)
    for i in range(0, n, step):
        last = min(i + step, n)
        product(c, a[:, i:last], stored.rows(i, last, np.PyArray_TYPE(c)), 1, beta if i == 0 else 1)
    return 0


cdef Py_ssize_t piece_of(StoredMatrix w):
    """How many rows to widen at a time: a multiple of 16, what the products work on side by side."""
    return max(PIECE // max(<Py_ssize_t> w.shape[1], 1) // 16 * 16, 16)
