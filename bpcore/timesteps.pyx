"""The loop over time of a recurrent layer.

The products of all time steps with the input's weights are one large product and happen elsewhere. What is left is a sweep: in
each step the state times the recurrent weights U, then the gates. Sequences of a batch do not depend on one another, so each
thread owns some of them for the whole sweep and never waits for another one. U is packed once a sweep. How an element is
summed up does not depend on how many rows a product has, so that any share of the batch computes the same bits.

Steps are counted in the order of the sweep: forward from 0 on, or from the end for the reverse direction; backward against it.
"""
from libc.string cimport memcpy, memset

from bpcore.gemm cimport gemm_pack_b, gemm_packed_size
from bpcore.simd cimport BP_TILE, bp_gemm, kernels as tables
from bpcore.threads cimport parallel_for, team_size

from bpcore.simd import cpu


cdef extern from "kernels/recurrent_table.h":
    ctypedef struct bp_cell:
        void *gates
        Py_ssize_t ld_gates
        const void *bias
        void *h
        void *c
        void *before
        Py_ssize_t ld_before
        void *out
        Py_ssize_t ld_out, rows, units
        void *dz
        Py_ssize_t ld_dz
        void *dh
        void *dc
        const void *dout
        Py_ssize_t ld_dout

    ctypedef void (*bp_cell_fn)(const bp_cell *s) noexcept nogil

    ctypedef struct bp_recurrent_f32:
        bp_cell_fn rnn_tanh, rnn_relu, lstm, gru, rnn_tanh_backward, rnn_relu_backward, lstm_backward, gru_backward

    ctypedef struct bp_recurrent_f64:
        bp_cell_fn rnn_tanh, rnn_relu, lstm, gru, rnn_tanh_backward, rnn_relu_backward, lstm_backward, gru_backward

    ctypedef struct bp_recurrent:
        bp_recurrent_f32 f32
        bp_recurrent_f64 f64

    const bp_recurrent *bp_choose(const char *wanted)

    ctypedef unsigned long long bp_float_mode
    bp_float_mode bp_flush_begin() noexcept nogil
    void bp_flush_end(bp_float_mode mode) noexcept nogil

cdef enum:
    KINDS = 4
    ROWS = 4                # rows below which a product costs more for each of them: no thread gets fewer
    COLUMNS = 128           # of a matrix, summed up by one thread

cdef bytes chosen = cpu().encode()
cdef const bp_recurrent *family = bp_choose(chosen)
cdef const bp_recurrent_f32 *f = &family.f32
cdef const bp_recurrent_f64 *d = &family.f64
cdef bp_cell_fn[2][KINDS] forward_cells
cdef bp_cell_fn[2][KINDS] backward_cells
forward_cells[0][:] = [f.rnn_tanh, f.rnn_relu, f.lstm, f.gru]
forward_cells[1][:] = [d.rnn_tanh, d.rnn_relu, d.lstm, d.gru]
backward_cells[0][:] = [f.rnn_tanh_backward, f.rnn_relu_backward, f.lstm_backward, f.gru_backward]
backward_cells[1][:] = [d.rnn_tanh_backward, d.rnn_relu_backward, d.lstm_backward, d.gru_backward]


# --- products ---------------------------------------------------------------------------------------------------------------

cdef inline void multiply(int itemsize, char *c, Py_ssize_t ldc, const char *a, Py_ssize_t lda, const char *packed, Py_ssize_t m,
                          Py_ssize_t n, Py_ssize_t k, double beta) noexcept nogil:
    """c = a b + beta c with b packed, on this thread."""
    cdef bp_gemm g = bp_gemm(
        c=c, a=a, b=NULL, bias=NULL, m=m, n=n, k=k, rsc=ldc, csc=1, rsa=lda, csa=1, rsb=0, csb=0, alpha=1, beta=beta,
        packed=packed, epilogue=NULL, ctx=NULL, path=BP_TILE, transposed=0)
    if itemsize == 4:
        tables().f32.gemm(&g, 0, m, 0, n)
    else:
        tables().f64.gemm(&g, 0, m, 0, n)


cdef void pack(int itemsize, char *packed, const char *b, Py_ssize_t ldb, bint turned, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    if itemsize == 4:
        gemm_pack_b[float](<float *> packed, <const float *> b, ldb, turned, n, k)
    else:
        gemm_pack_b[double](<double *> packed, <const double *> b, ldb, turned, n, k)


cdef inline Py_ssize_t joint(const Steps *s) noexcept nogil:
    """Columns of `gates` whose recurrent product is added to that of the input; those behind them (GRU) hold it alone."""
    return 2 * s.H if s.kind == GRU else s.W


cdef Py_ssize_t first_part(const Steps *s, bint backward) noexcept nogil:
    return s.itemsize * (gemm_packed_size(s.P, joint(s), s.itemsize) if backward else gemm_packed_size(joint(s), s.P, s.itemsize))


cdef Py_ssize_t packed_size(const Steps *s, bint backward) noexcept nogil:
    """Bytes of `weights`."""
    cdef Py_ssize_t size = first_part(s, backward)
    if s.kind == GRU:
        size += s.itemsize * (gemm_packed_size(s.P, s.H, s.itemsize) if backward else gemm_packed_size(s.H, s.P, s.itemsize))
    return size


cdef void pack_weights(Steps *s, const void *u, bint backward) noexcept nogil:
    """`weights` from U: U^T for forward, U for backward."""
    cdef const char *rest = <const char *> u + s.itemsize * joint(s) * s.P
    if backward:
        pack(s.itemsize, s.weights, <const char *> u, s.P, False, s.P, joint(s))
        if s.kind == GRU:
            pack(s.itemsize, s.weights + first_part(s, True), rest, s.P, False, s.P, s.H)
    else:
        pack(s.itemsize, s.weights, <const char *> u, s.P, True, joint(s), s.P)
        if s.kind == GRU:
            pack(s.itemsize, s.weights + first_part(s, False), rest, s.P, True, s.H, s.P)


cdef Py_ssize_t projection_size(const Steps *s, bint backward) noexcept nogil:
    """Bytes of `projection`."""
    return s.itemsize * (gemm_packed_size(s.H, s.P, s.itemsize) if backward else gemm_packed_size(s.P, s.H, s.itemsize))


cdef void pack_projection(Steps *s, const void *w, bint backward) noexcept nogil:
    """`projection` from the weights (P, H): transposed for forward."""
    pack(s.itemsize, s.projection, <const char *> w, s.H, not backward, s.H if backward else s.P, s.P if backward else s.H)


# --- steps ------------------------------------------------------------------------------------------------------------------

cdef void forward_steps(const Steps *s, Py_ssize_t first, Py_ssize_t last, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Steps `first` to `last` of sequences `b0` to `b1`."""
    cdef Py_ssize_t i, q, t, m, row, size = s.itemsize, part = first_part(s, False)
    cdef bp_cell_fn activate = forward_cells[size == 8][s.kind]
    cdef char *h = s.h + b0 * s.P * size
    cdef char *gates
    cdef char *out
    cdef bp_cell cell
    cell.bias = s.bias
    cell.ld_gates = s.ld_gates
    cell.ld_before = s.H
    cell.units = s.H
    cell.c = s.c + b0 * s.H * size
    for i in range(first, last):
        t = s.T - 1 - i if s.reverse else i
        m = min(b1, s.sizes[t]) - b0
        if m <= 0:
            continue
        row = s.starts[t] + b0
        gates = s.gates + (row - s.first_row) * s.ld_gates * size
        out = s.out + row * s.ld_out * size
        if i > 0 or s.h0 is not NULL:
            multiply(size, gates, s.ld_gates, h, s.P, s.weights, m, joint(s), s.P, 1)
        if s.kind == GRU:                   # a first state of zeros changes nothing but what the product would have written
            multiply(size, gates + 3 * s.H * size, s.ld_gates, h, s.P, s.weights + part, m, s.H, s.P, 0)
        cell.rows = m
        cell.gates = gates
        cell.before = s.cells + (row if s.keep_cells else b0) * s.H * size
        if s.projection is NULL:
            cell.h = h
            cell.out = out
            cell.ld_out = s.ld_out
            activate(&cell)
        else:
            cell.h = cell.out = s.hidden + (row - s.first_row) * s.H * size
            cell.ld_out = s.H
            activate(&cell)
            multiply(size, h, s.P, <const char *> cell.h, s.H, s.projection, m, s.P, s.H, 0)
            for q in range(m):
                memcpy(out + q * s.ld_out * size, h + q * s.P * size, s.P * size)


cdef void gather_inputs(const Steps *s, Py_ssize_t i, Py_ssize_t t, Py_ssize_t b0, Py_ssize_t m) noexcept nogil:
    """What went into step i, for `m` sequences from `b0` on: x, and the last step's output or the first state."""
    cdef Py_ssize_t q, before = t + 1 if s.reverse else t - 1, size = s.itemsize, have = 0 if i == 0 else s.sizes[before]
    cdef char *to = s.inputs + ((s.starts[t] + b0 - s.first_row) * (s.K + s.P) + s.K) * size
    for q in range(b0, b0 + m):
        if s.x is not NULL:
            memcpy(to - s.K * size, s.x + (s.starts[t] + q) * s.K * size, s.K * size)
        if q < have:
            memcpy(to, s.out + (s.starts[before] + q) * s.ld_out * size, s.P * size)
        elif s.h0 is not NULL:
            memcpy(to, s.h0 + q * s.P * size, s.P * size)
        else:
            memset(to, 0, s.P * size)
        to += (s.K + s.P) * size


cdef inline void add_rows(char *to, const char *x, const char *y, Py_ssize_t n, int itemsize) noexcept nogil:
    cdef Py_ssize_t j
    if itemsize == 4:
        for j in range(n):
            (<float *> to)[j] = (<const float *> x)[j] + (<const float *> y)[j]
    else:
        for j in range(n):
            (<double *> to)[j] = (<const double *> x)[j] + (<const double *> y)[j]


cdef void backward_steps(const Steps *s, Py_ssize_t first, Py_ssize_t last, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Steps `last - 1` down to `first` of sequences `b0` to `b1`."""
    cdef Py_ssize_t i, q, t, m, row, size = s.itemsize, part = first_part(s, True), both = joint(s)
    cdef bp_cell_fn slope = backward_cells[size == 8][s.kind]
    cdef char *dh = s.dh + b0 * s.P * size
    cdef char *to
    cdef const char *dout
    cdef bp_cell cell
    cell.ld_gates = s.ld_gates
    cell.ld_dz = s.ld_dz
    cell.ld_before = s.H if s.kind == LSTM else s.K + s.P
    cell.units = s.H
    cell.dc = s.dc + b0 * s.H * size
    for i in range(last - 1, first - 1, -1):
        t = s.T - 1 - i if s.reverse else i
        m = min(b1, s.sizes[t]) - b0
        if m <= 0:
            continue
        row = s.starts[t] + b0
        gather_inputs(s, i, t, b0, m)
        cell.rows = m
        cell.gates = s.gates + row * s.ld_gates * size
        cell.dz = s.dz + (row - s.first_row) * s.ld_dz * size
        if s.kind == LSTM:
            cell.before = s.cells + row * s.H * size
        else:
            cell.before = s.inputs + ((row - s.first_row) * (s.K + s.P) + s.K) * size
        dout = s.zeros if s.dout is NULL else s.dout + row * s.ld_out * size
        if s.projection is NULL:
            cell.dh = dh
            cell.dout = dout
            cell.ld_dout = 0 if s.dout is NULL else s.ld_out
        else:
            to = s.dprojected + (row - s.first_row) * s.P * size
            for q in range(m):
                add_rows(to + q * s.P * size, dh + q * s.P * size, dout if s.dout is NULL else dout + q * s.ld_out * size, s.P,
                         s.itemsize)
            cell.dh = s.dhidden + b0 * s.H * size
            cell.dout = s.zeros
            cell.ld_dout = 0
            multiply(size, <char *> cell.dh, s.H, to, s.P, s.projection, m, s.H, s.P, 0)
        slope(&cell)
        if i == 0 and not s.needs_state:
            break
        multiply(size, dh, s.P, <const char *> cell.dz, s.ld_dz, s.weights, m, s.P, both, 1 if s.kind == GRU else 0)
        if s.kind == GRU:
            multiply(size, dh, s.P, <const char *> cell.dz + 3 * s.H * size, s.ld_dz, s.weights + part, m, s.P, s.H, 1)


# --- threads ----------------------------------------------------------------------------------------------------------------

cdef struct Share:
    const Steps *directions
    Py_ssize_t first, last
    int slices
    bint backward


cdef Py_ssize_t cut(const Steps *s, Py_ssize_t first, Py_ssize_t last, int index, int slices) noexcept nogil:
    """The first sequence of slice `index`, so that the slices have about as many rows each in these steps."""
    cdef Py_ssize_t t0 = s.T - last if s.reverse else first, t1 = s.T - first if s.reverse else last
    cdef Py_ssize_t b, length = t1, rows = s.starts[t1] - s.starts[t0], taken = 0
    if index == slices:
        return s.B
    if s.sizes[t0] == s.sizes[t1 - 1]:
        return s.sizes[t0] * index // slices
    for b in range(s.B):
        if taken * slices >= rows * index:
            return b
        while length > t0 and s.sizes[length - 1] <= b:     # the steps that sequence b takes part in
            length -= 1
        taken += length - t0
    return s.B


cdef void share_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Slices `begin` to `end`, direction after direction."""
    cdef const Share *p = <const Share *> ctx
    cdef const Steps *s
    cdef bp_float_mode mode = bp_flush_begin()
    cdef Py_ssize_t item, b0, b1
    for item in range(begin, end):
        s = p.directions + item // p.slices
        b0 = cut(s, p.first, p.last, <int> (item % p.slices), p.slices)
        b1 = cut(s, p.first, p.last, <int> (item % p.slices) + 1, p.slices)
        if b0 >= b1:
            continue
        if p.backward:
            backward_steps(s, p.first, p.last, b0, b1)
        else:
            forward_steps(s, p.first, p.last, b0, b1)
    bp_flush_end(mode)


cdef double step_cost(const Steps *s) noexcept nogil:
    """Nanoseconds that a row of one direction takes, roughly: the product, the gates."""
    cdef double width = s.W * s.P + (0 if s.projection is NULL else s.H * s.P)
    return (0.02 * width + 2 * s.H) * s.itemsize / 4 + 50


cdef void sweep(const Steps *directions, int count, Py_ssize_t first, Py_ssize_t last, bint backward) noexcept nogil:
    """Steps `first` to `last` of one or two directions of a layer, forward, or backward from the last one on."""
    cdef const Steps *s = directions
    cdef double ns
    cdef Share p
    if first >= last or s.B == 0:
        return
    ns = step_cost(s) * s.starts[s.T] * (last - first) / s.T
    p = Share(directions, first, last, 1, backward)
    p.slices = <int> max(1, min(s.B // ROWS, team_size(ns * count)))
    if count == 2 and p.slices % 2 == 0:
        p.slices //= 2
    parallel_for(share_range, &p, count * p.slices, ns / p.slices)


# --- sums -------------------------------------------------------------------------------------------------------------------

cdef struct Sum:
    char *total
    const char *x
    Py_ssize_t rows, cols, ld
    int itemsize
    bint add


cdef void sum_range(void *ctx, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const Sum *p = <const Sum *> ctx
    cdef Py_ssize_t item, i, j, n
    cdef float[COLUMNS] part32
    cdef double[COLUMNS] part64
    for item in range(begin, end):
        j = item * COLUMNS
        n = min(COLUMNS, p.cols - j)
        if p.itemsize == 4:
            tables().f32.sum_rows(part32, <const float *> p.x + j, p.rows, n, p.ld)
            for i in range(n):
                (<float *> p.total)[j + i] = part32[i] + ((<float *> p.total)[j + i] if p.add else 0)
        else:
            tables().f64.sum_rows(part64, <const double *> p.x + j, p.rows, n, p.ld)
            for i in range(n):
                (<double *> p.total)[j + i] = part64[i] + ((<double *> p.total)[j + i] if p.add else 0)


cdef void sum_columns(void *total, const void *x, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t ld, int itemsize,
                      bint add) noexcept nogil:
    """total (+)= the sum of the rows of x."""
    cdef Sum p = Sum(<char *> total, <const char *> x, rows, cols, ld, itemsize, add)
    parallel_for(sum_range, &p, (cols + COLUMNS - 1) // COLUMNS, 0.1 * rows * COLUMNS)
