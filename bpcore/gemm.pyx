"""The one door to matrix multiplication: `C = alpha op(A) op(B) + beta C`, float32 and float64, row-major.

Two engines stand behind it and callers never see which one ran. The own kernels (`kernels/gemm*.h`) are packed tiles after
Goto and van de Geijn, with paths of their own for few rows and for small products; SciPy's BLAS (`blas.pyx`) is there for builds
whose own kernels lack vector instructions. A product is cut into a grid of panels of C, one for each thread of the team, and
either engine computes a panel on one thread. How an element of C is summed up depends on the product alone, not on the
panels: the own kernels give the same bits on any number of threads.

`BPNN_GEMM=auto|own|blas` or `set_engine` forces an engine.
"""
import os

import numpy as np

cimport numpy as np
from cpython.exc cimport PyErr_CheckSignals
from numpy cimport NPY_FLOAT32, NPY_FLOAT64, ndarray, npy_intp

from bpcore cimport blas
from bpcore.memory cimport contiguous, empty
from bpcore.simd cimport BP_AXPY, BP_DOT, BP_TILE, bp_gemm, kernels
from bpcore.threads cimport CHUNK, parallel_for, team_size, unhurried

from bpcore.blas import info as blas_info, load as load_blas
from bpcore.simd import cpu

np.import_array()

cdef enum:
    NEVER, LARGE, ALWAYS        # which products the BLAS gets, of those that it can take
cdef int use_blas = NEVER
cdef double COLD = 1 << 18                      # so many elements are too many for a core's own caches


# --- one product, planned ----------------------------------------------------------------------------------------------------

cdef struct Job:
    bp_gemm g
    int itemsize
    bint blas
    double ns                                   # the work on one thread
    Py_ssize_t batch, step_a, step_b, step_c    # in elements
    Py_ssize_t first, i0, i1, j0, j1            # the part to compute now: products from `first`, a rectangle of C
    Py_ssize_t mr, nr                           # panels start at multiples of these
    int rows, cols                              # the grid


cdef inline Py_ssize_t up(Py_ssize_t x, Py_ssize_t unit) noexcept nogil:
    return (x + unit - 1) // unit * unit


cdef double estimate(const bp_gemm *g, double lanes, Py_ssize_t width, int dots, int *path) noexcept nogil:
    """Cycles that the best path takes for g as it is turned, roughly: `lanes` multiply-adds a cycle, vectors of `width`, `dots`
    columns in one go of dot products. Fitted to measurements: over random shapes the choice costs about 1 % on average."""
    cdef double m = g.m, n = g.n, k = g.k, best, other, turned = 0 if g.csc == 1 else m * n
    cdef bint cold
    # Tiles: fewer than four rows do not hide the latency of a multiply-add; a b that is not contiguous along its rows is
    # transposed while it is packed, and the last columns of one that is are packed too.
    best = 1.05 * max(m, 4) * up(g.n, width) * k / lanes + 300 + turned
    best += 1. * (g.n % width) * k if g.csb == 1 else 0.7 * up(g.n, width) * k
    # Tiles read a b that no cache holds in pieces of one tile's width, a page each: four cycles an element.
    cold = g.csb == 1 and g.m <= 8 and n * k > COLD
    if cold:
        best += 2.5 * n * k
    path[0] = BP_TILE
    if g.csa == 1 and g.rsb == 1 and g.k >= width:
        other = m * (n + g.n % dots) * (1.1 * up(g.k, width) / lanes + 8) + 60
        if other < best:
            best = other
            path[0] = BP_DOT
    if g.csb == 1 and (g.m <= 4 or cold):
        other = (1.1 if g.m <= 4 else 2.) * m * n * k / lanes + 30 + turned
        if other < best:
            best = other
            path[0] = BP_AXPY
    return best


cdef void plan(Job *job) noexcept nogil:
    """Choose how the product is computed, from its shape and strides alone."""
    cdef bp_gemm *g = &job.g
    cdef bint f32 = job.itemsize == 4
    cdef Py_ssize_t nr = kernels().f32.gemm_nr() if f32 else kernels().f64.gemm_nr()
    cdef double lanes = min(64, nr * job.itemsize) / job.itemsize, straight, turned, cycles
    cdef int path, other, dots
    job.mr = kernels().f32.gemm_mr() if f32 else kernels().f64.gemm_mr()
    dots = <int> job.mr // 2
    job.nr = nr
    job.blas = use_blas == ALWAYS or use_blas == LARGE and min(g.m, g.n) >= 16 and <double> g.m * g.n * g.k > 1e5
    job.blas = job.blas and blas.fits(g)
    if job.blas:
        cycles = <double> g.m * g.n * g.k / lanes
    elif g.packed is not NULL:
        cycles = estimate(g, lanes, nr // 2, dots, &path)
    else:
        straight = estimate(g, lanes, nr // 2, dots, &path)
        blas.turn(g)
        turned = estimate(g, lanes, nr // 2, dots, &other)
        if turned < straight:
            job.step_a, job.step_b = job.step_b, job.step_a
            g.path = other
            cycles = turned
        else:
            blas.turn(g)
            g.path = path
            cycles = straight
    # A cycle is about 0.3 ns; memory gives each thread some 15 bytes a nanosecond.
    job.ns = max(0.3 * cycles, job.itemsize / 15. * (<double> g.m * g.k + <double> g.k * g.n + <double> g.m * g.n))


cdef void lay_grid(Job *job, int team) noexcept nogil:
    """The grid of at most `team` panels over the job's rectangle in which the largest panel costs least."""
    cdef Py_ssize_t m = up(job.i1 - job.i0, job.mr) // job.mr, n = up(job.j1 - job.j0, job.nr) // job.nr, height, width
    cdef double cost, best = 0
    cdef int rows, cols
    job.rows = job.cols = 1
    for rows in range(1, team + 1):
        cols = team // rows
        if rows > m or cols > n:
            continue
        height = (m + rows - 1) // rows * job.mr
        width = (n + cols - 1) // cols * job.nr
        cost = <double> height * width + 8. * (height + width)      # the tiles, and the packing for them
        if best == 0 or cost < best:
            best = cost
            job.rows = rows
            job.cols = cols


# --- computing it ------------------------------------------------------------------------------------------------------------

cdef void panels(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Panels `begin` to `end` of a job, product after product."""
    cdef const Job *job = <const Job *> ctx
    cdef Py_ssize_t item, r, c, per = job.rows * job.cols
    cdef Py_ssize_t m = up(job.i1 - job.i0, job.mr) // job.mr, n = up(job.j1 - job.j0, job.nr) // job.nr, i0, i1, j0, j1
    cdef bp_gemm g
    for item in range(begin, end):
        g = job.g
        g.a = <const char *> g.a + (job.first + item // per) * job.step_a * job.itemsize
        g.b = <const char *> g.b + (job.first + item // per) * job.step_b * job.itemsize
        g.c = <char *> g.c + (job.first + item // per) * job.step_c * job.itemsize
        r = item % per // job.cols
        c = item % job.cols
        i0 = job.i0 + m * r // job.rows * job.mr
        i1 = min(job.i1, job.i0 + m * (r + 1) // job.rows * job.mr)
        j0 = job.j0 + n * c // job.cols * job.nr
        j1 = min(job.j1, job.j0 + n * (c + 1) // job.cols * job.nr)
        if job.blas:
            if job.itemsize == 4:
                blas.panel[float](&g, i0, i1, j0, j1, NULL)
            else:
                blas.panel[double](&g, i0, i1, j0, j1, NULL)
        elif job.itemsize == 4:
            kernels().f32.gemm(&g, i0, i1, j0, j1)
        else:
            kernels().f64.gemm(&g, i0, i1, j0, j1)


cdef void compute(Job *job, Py_ssize_t batch, double ns) noexcept nogil:
    """The job's rectangle of `batch` products from `first` on; each takes `ns`."""
    cdef int team = team_size(batch * ns)
    # Enough products share themselves out. Few of them are cut into panels for the whole team; long ones into more, so that a
    # thread that is held up leaves some of its own to the others.
    cdef int parts = <int> min(4, max(1, ns / team / 1e6)) * team
    lay_grid(job, 1 if team == 1 or batch >= 4 * team or batch % team == 0 else parts)
    cdef Py_ssize_t n = batch * job.rows * job.cols
    if job.blas:
        blas.hold()
    if team == 1:
        panels(job, 0, n)
    else:
        parallel_for(panels, job, n, 1e9)
    if job.blas:
        blas.release()


cdef void run(Job *job) noexcept nogil:
    if job.g.m <= 0 or job.g.n <= 0 or job.batch <= 0:
        return
    plan(job)
    job.first = job.i0 = job.j0 = 0
    job.i1 = job.g.m
    job.j1 = job.g.n
    compute(job, job.batch, job.ns)


cdef int run_checked(Job *job) except -1:
    """The same, with the GIL: cut into pieces of about 100 ms, whole products first, then the longer side of each."""
    if job.g.m <= 0 or job.g.n <= 0 or job.batch <= 0:
        return 0
    plan(job)
    cdef Py_ssize_t step, pieces, q, count, m = job.g.m, n = job.g.n
    job.i0 = job.j0 = job.first = 0
    job.i1 = m
    job.j1 = n
    if job.batch * job.ns < 2 * CHUNK:          # the usual way
        with nogil:
            compute(job, job.batch, job.ns)
        return 0
    step = unhurried(job.batch, job.ns)
    pieces = <Py_ssize_t> (job.ns / CHUNK / team_size(job.ns)) + 1 if step == 1 else 1
    while job.first < job.batch:
        count = min(step, job.batch - job.first)
        for q in range(pieces):
            if m >= n:
                job.i0 = min(m, up(m * q // pieces, job.mr))
                job.i1 = min(m, up(m * (q + 1) // pieces, job.mr))
            else:
                job.j0 = min(n, up(n * q // pieces, job.nr))
                job.j1 = min(n, up(n * (q + 1) // pieces, job.nr))
            with nogil:
                compute(job, count, job.ns / pieces)
            PyErr_CheckSignals()
        job.first += count
    return 0


# --- the pointer-level API (gemm.pxd) ----------------------------------------------------------------------------------------

cdef inline void fill(
        Job *job, floating *c, Py_ssize_t ldc, const floating *a, Py_ssize_t lda, bint trans_a, const floating *b, Py_ssize_t ldb,
        bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, double alpha, double beta, const floating *bias,
        bp_epilogue epilogue, void *ctx) noexcept nogil:
    job.g = bp_gemm(
        c=c, a=a, b=b, bias=bias, m=m, n=n, k=max(k, 0), rsc=ldc, csc=1, rsa=1 if trans_a else lda, csa=lda if trans_a else 1,
        rsb=1 if trans_b else ldb, csb=ldb if trans_b else 1, alpha=alpha, beta=beta, packed=NULL, epilogue=epilogue, ctx=ctx,
        path=BP_TILE, transposed=0)
    job.itemsize = sizeof(floating)
    job.batch = 1
    job.step_a = job.step_b = job.step_c = 0


cdef void gemm(
        floating *c, Py_ssize_t ldc, const floating *a, Py_ssize_t lda, bint trans_a, const floating *b, Py_ssize_t ldb,
        bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, floating alpha, floating beta, const floating *bias,
        bp_epilogue epilogue, void *ctx) noexcept nogil:
    cdef Job job
    fill(&job, c, ldc, a, lda, trans_a, b, ldb, trans_b, m, n, k, alpha, beta, bias, epilogue, ctx)
    run(&job)


cdef int gemm_checked(
        floating *c, Py_ssize_t ldc, const floating *a, Py_ssize_t lda, bint trans_a, const floating *b, Py_ssize_t ldb,
        bint trans_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, floating alpha, floating beta, const floating *bias,
        bp_epilogue epilogue, void *ctx) except -1:
    cdef Job job
    fill(&job, c, ldc, a, lda, trans_a, b, ldb, trans_b, m, n, k, alpha, beta, bias, epilogue, ctx)
    return run_checked(&job)


cdef void gemm_batched(
        floating *c, Py_ssize_t ldc, Py_ssize_t step_c, const floating *a, Py_ssize_t lda, Py_ssize_t step_a, bint trans_a,
        const floating *b, Py_ssize_t ldb, Py_ssize_t step_b, bint trans_b, Py_ssize_t batch, Py_ssize_t m, Py_ssize_t n,
        Py_ssize_t k, floating alpha, floating beta) noexcept nogil:
    cdef Job job
    fill(&job, c, ldc, a, lda, trans_a, b, ldb, trans_b, m, n, k, alpha, beta, <const floating *> NULL, NULL, NULL)
    job.batch = batch
    job.step_a, job.step_b, job.step_c = step_a, step_b, step_c
    run(&job)


cdef int gemm_batched_checked(
        floating *c, Py_ssize_t ldc, Py_ssize_t step_c, const floating *a, Py_ssize_t lda, Py_ssize_t step_a, bint trans_a,
        const floating *b, Py_ssize_t ldb, Py_ssize_t step_b, bint trans_b, Py_ssize_t batch, Py_ssize_t m, Py_ssize_t n,
        Py_ssize_t k, floating alpha, floating beta) except -1:
    cdef Job job
    fill(&job, c, ldc, a, lda, trans_a, b, ldb, trans_b, m, n, k, alpha, beta, <const floating *> NULL, NULL, NULL)
    job.batch = batch
    job.step_a, job.step_b, job.step_c = step_a, step_b, step_c
    return run_checked(&job)


cdef Py_ssize_t gemm_packed_size(Py_ssize_t n, Py_ssize_t k, size_t itemsize) noexcept nogil:
    return up(n, kernels().f32.gemm_nr() if itemsize == 4 else kernels().f64.gemm_nr()) * k


cdef struct Packing:
    void *packed
    const void *b
    Py_ssize_t rsb, csb, n, k
    int itemsize, nr


cdef void pack_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Tiles `begin` to `end` of the columns of b."""
    cdef const Packing *p = <const Packing *> ctx
    cdef Py_ssize_t j0 = begin * p.nr, j1 = min(p.n, end * p.nr)
    if p.itemsize == 4:
        kernels().f32.gemm_pack(<float *> p.packed, <const float *> p.b, p.rsb, p.csb, p.n, p.k, j0, j1)
    else:
        kernels().f64.gemm_pack(<double *> p.packed, <const double *> p.b, p.rsb, p.csb, p.n, p.k, j0, j1)


cdef void pack(Packing *p) noexcept nogil:
    p.nr = kernels().f32.gemm_nr() if p.itemsize == 4 else kernels().f64.gemm_nr()
    if p.n > 0 and p.k > 0:
        parallel_for(pack_range, p, up(p.n, p.nr) // p.nr, 0.2 * p.nr * p.k)


cdef void gemm_pack_b(floating *packed, const floating *b, Py_ssize_t ldb, bint trans_b, Py_ssize_t n,
                      Py_ssize_t k) noexcept nogil:
    cdef Packing p = Packing(packed=packed, b=b, rsb=1 if trans_b else ldb, csb=ldb if trans_b else 1, n=n, k=k,
                             itemsize=sizeof(floating), nr=0)
    pack(&p)


cdef int gemm_packed_checked(
        floating *c, Py_ssize_t ldc, const floating *a, Py_ssize_t lda, bint trans_a, const floating *packed, Py_ssize_t m,
        Py_ssize_t n, Py_ssize_t k, floating alpha, floating beta, const floating *bias, bp_epilogue epilogue,
        void *ctx) except -1:
    cdef Job job
    fill(&job, c, ldc, a, lda, trans_a, <const floating *> NULL, 0, False, m, n, k, alpha, beta, bias, epilogue, ctx)
    job.g.packed = packed
    return run_checked(&job)


# --- arrays ------------------------------------------------------------------------------------------------------------------

cdef inline bint whole_strides(ndarray a) noexcept:
    """Whether the strides of a 2-D array are whole elements, so that it can be used where it lies."""
    cdef npy_intp size = np.PyArray_ITEMSIZE(a)
    return (np.PyArray_ISALIGNED(a) and not np.PyArray_ISBYTESWAPPED(a)
            and np.PyArray_STRIDE(a, 0) % size == 0 and np.PyArray_STRIDE(a, 1) % size == 0)


cdef inline Py_ssize_t row_stride(ndarray a) noexcept:
    return np.PyArray_STRIDE(a, 0) // np.PyArray_ITEMSIZE(a)


cdef inline Py_ssize_t column_stride(ndarray a) noexcept:
    """A single column counts as contiguous; NumPy may give it any stride."""
    return 1 if np.PyArray_DIM(a, 1) == 1 else np.PyArray_STRIDE(a, 1) // np.PyArray_ITEMSIZE(a)


cdef int product(ndarray c, ndarray a, ndarray b, double alpha=1, double beta=0, ndarray bias=None, bp_epilogue epilogue=NULL,
                 void *ctx=NULL) except -1:
    if not whole_strides(b):
        b = contiguous(b)
    return array_product(c, a, np.PyArray_DATA(b), row_stride(b), column_stride(b), NULL, alpha, beta, bias, epilogue, ctx)


cdef int array_product(ndarray c, ndarray a, const void *b, Py_ssize_t rsb, Py_ssize_t csb, const void *packed, double alpha,
                       double beta, ndarray bias, bp_epilogue epilogue, void *ctx) except -1:
    if not whole_strides(a):
        a = contiguous(a)
    cdef Job job
    job.g = bp_gemm(
        c=np.PyArray_DATA(c), a=np.PyArray_DATA(a), b=b, bias=NULL, m=np.PyArray_DIM(c, 0), n=np.PyArray_DIM(c, 1),
        k=np.PyArray_DIM(a, 1), rsc=row_stride(c), csc=column_stride(c), rsa=row_stride(a), csa=column_stride(a), rsb=rsb,
        csb=csb, alpha=alpha, beta=beta, packed=packed, epilogue=epilogue, ctx=ctx, path=BP_TILE, transposed=0)
    if bias is not None:
        bias = contiguous(bias)
        job.g.bias = np.PyArray_DATA(bias)
    job.itemsize = <int> np.PyArray_ITEMSIZE(c)
    job.batch = 1
    job.step_a = job.step_b = job.step_c = 0
    return run_checked(&job)


cdef void extent(ndarray a, char **low, char **high) noexcept:
    """The first byte of an array's elements, and the one after the last."""
    cdef int axis
    cdef npy_intp reach
    low[0] = <char *> np.PyArray_DATA(a)
    high[0] = low[0] + (np.PyArray_ITEMSIZE(a) if np.PyArray_SIZE(a) else 0)
    for axis in range(np.PyArray_NDIM(a)):
        reach = (np.PyArray_DIM(a, axis) - 1) * np.PyArray_STRIDE(a, axis)
        if np.PyArray_SIZE(a) and reach < 0:
            low[0] += reach
        elif np.PyArray_SIZE(a):
            high[0] += reach


cdef bint overlap(ndarray a, ndarray b) noexcept:
    """Whether the memory that two arrays span has bytes in common."""
    cdef char *low_a
    cdef char *high_a
    cdef char *low_b
    cdef char *high_b
    extent(a, &low_a, &high_a)
    extent(b, &low_b, &high_b)
    return low_a < high_b and low_b < high_a


cdef ndarray matrix(object value, str name, bint transposed):
    """A 2-D float array, transposed if so asked; TypeError or ValueError otherwise."""
    if not isinstance(value, ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(value).__name__}")
    cdef ndarray a = value
    if np.PyArray_NDIM(a) != 2:
        raise ValueError(f"{name}: expected 2 dimensions, got shape {(<object> a).shape}")
    if np.PyArray_TYPE(a) != NPY_FLOAT32 and np.PyArray_TYPE(a) != NPY_FLOAT64:
        raise TypeError(f"{name}: expected float32 or float64, got {a.dtype}")
    return a.T if transposed else a


cdef class Packed:
    """A right-hand matrix (K, N), packed once for many products: `matmul(a, Packed(b))`. A copy: later changes of `b` do not
    show in it."""
    cdef readonly tuple shape
    cdef readonly object dtype
    cdef ndarray data

    def __init__(self, b, bint trans_b=False):
        cdef ndarray array = matrix(b, "b", trans_b)
        if not whole_strides(array):
            array = contiguous(array)
        self.shape = (<object> array).shape
        self.dtype = array.dtype
        cdef npy_intp size = gemm_packed_size(self.shape[1], self.shape[0], np.PyArray_ITEMSIZE(array))
        self.data = empty(1, &size, np.PyArray_TYPE(array))
        cdef Packing p = Packing(
            packed=np.PyArray_DATA(self.data), b=np.PyArray_DATA(array), rsb=row_stride(array), csb=column_stride(array),
            n=self.shape[1], k=self.shape[0], itemsize=<int> np.PyArray_ITEMSIZE(array), nr=0)
        with nogil:
            pack(&p)


def matmul(a, b, out=None, double alpha=1, double beta=0, bint trans_a=False, bint trans_b=False, bias=None):
    """`alpha op(a) op(b) + beta out + bias` of 2-D float32 or float64 arrays.

    `op(a)` is (M, K), `op(b)` is (K, N); `op` transposes where `trans_a`, `trans_b` say so. `b` may be `Packed`. `bias` of shape
    (N,) is added to every row. The result is (M, N), written into `out` where that is given; `beta` other than 0 needs it, and
    with `beta` 0 it is not read. Any strides are taken; transposed views cost nothing.

    Raises TypeError for other types or types that differ, ValueError for shapes that do not fit, for an `out` that
    overlaps an input, and for `beta` without `out`.
    """
    cdef bint packed = isinstance(b, Packed)
    cdef ndarray left = matrix(a, "a", trans_a), right = None, target, row = None
    if packed:
        if trans_b:
            raise ValueError("trans_b: a packed matrix cannot be transposed; say so when it is packed")
        k, n = (<Packed> b).shape
    else:
        right = matrix(b, "b", trans_b)
        k, n = (<object> right).shape
    cdef npy_intp dims[2]
    dims[0] = np.PyArray_DIM(left, 0)
    dims[1] = n
    if np.PyArray_DIM(left, 1) != k:
        raise ValueError(f"b: expected {np.PyArray_DIM(left, 1)} rows for a of shape {(<object> left).shape} "
                         f"(after transposing), got shape {(k, n)}")
    if np.PyArray_TYPE(left) != np.PyArray_TYPE((<Packed> b).data if packed else right):
        raise TypeError(f"b: expected {left.dtype} as a, got {b.dtype}")
    if bias is not None:
        if not isinstance(bias, ndarray) or bias.shape != (n,) or bias.dtype != left.dtype:
            raise ValueError(f"bias: expected a {left.dtype} array of shape {(n,)}, got "
                             f"{getattr(bias, 'dtype', type(bias).__name__)} of shape {getattr(bias, 'shape', None)}")
        row = contiguous(bias)
    if out is None:
        if beta != 0:
            raise ValueError(f"beta: expected 0 without out, got {beta}")
        target = empty(2, dims, np.PyArray_TYPE(left))
    else:
        target = matrix(out, "out", False)
        if np.PyArray_TYPE(target) != np.PyArray_TYPE(left):
            raise TypeError(f"out: expected {left.dtype}, got {target.dtype}")
        if np.PyArray_DIM(target, 0) != dims[0] or np.PyArray_DIM(target, 1) != n:
            raise ValueError(f"out: expected shape {(dims[0], n)}, got {out.shape}")
        if not np.PyArray_ISWRITEABLE(target) or not whole_strides(target):
            raise ValueError("out: expected a writeable, aligned array with strides of whole elements")
        for other, name in ((left, "a"), (right, "b"), (row, "bias")):
            if other is not None and overlap(target, other):
                raise ValueError(f"out: expected memory of its own, got an array that overlaps {name}")
    if packed:
        array_product(target, left, NULL, 0, 0, np.PyArray_DATA((<Packed> b).data), alpha, beta, row, NULL, NULL)
    else:
        product(target, left, right, alpha, beta, row)
    return target if out is None else out


# --- the choice of engine ----------------------------------------------------------------------------------------------------

def set_engine(name):
    """Compute with `"own"` kernels, with the `"blas"` wherever it can take a product, or, with `"auto"`, the better of the two
    for this processor. Raises ValueError for another name, RuntimeError where there is no BLAS."""
    global use_blas
    if name not in ("auto", "own", "blas"):
        raise ValueError(f"engine: expected 'auto', 'own' or 'blas', got {name!r}")
    # Without wide vectors and fused multiply-adds the own kernels are behind a BLAS that chooses its own instructions.
    wanted = name == "blas" or (name == "auto" and cpu() == "baseline")
    found = wanted and load_blas()
    if name == "blas" and not found:
        raise RuntimeError(f"no BLAS: {blas_info()['error']}")
    use_blas = (ALWAYS if name == "blas" else LARGE) if found else NEVER


def get_engine():
    """What computes large products now: `"blas"` or `"own"`."""
    return "own" if use_blas == NEVER else "blas"


set_engine(os.environ.get("BPNN_GEMM") or "auto")
