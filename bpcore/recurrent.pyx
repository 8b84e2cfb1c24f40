"""Recurrent layers: tanh and relu networks (Elman 1990), LSTM (Hochreiter and Schmidhuber 1997; projections: Sak et al. 2014), GRU
(Cho et al. 2014). One node is one layer, in one or both directions.

Sizes: T steps, B sequences, K inputs, H units, P numbers of state that a step hands on (H, fewer with a projection), D directions,
N rows: T B, or fewer where the sequences are packed. With z = W x + b_ih + U h + b_hh for each gate:

    RNN     h' = f(z)
    LSTM    c' = f c + i g,  h' = o tanh c',  with i, f, o = sigmoid(z), g = tanh(z)
    GRU     h' = (1 - z) n + z h,  n = tanh(W_n x + b_in + r (U_n h + b_hn)),  r, z = sigmoid(z)

Forward is one product x W^T over all rows and the sweep of timesteps.pyx. Backward sweeps back in parts of about PART rows; each
leaves the gradient dz before the activations, and then dW = dz^T x, dU = dz^T h, dx = dz W over all rows of the part.
"""
cimport cython
cimport numpy as np
from cpython.exc cimport PyErr_CheckSignals
from numpy cimport NPY_DOUBLE, NPY_FLOAT, NPY_INTP, ndarray, npy_intp

from bpcore.gemm cimport product, unhurried
from bpcore.memory cimport contiguous, empty, zeros
from bpcore.operand cimport new, shape_of
from bpcore.tensor cimport Node, Tensor, Version, as_tensor, attach_slots, recordsn, wrap
from bpcore.timesteps cimport (
    GRU, LSTM, RNN_RELU, RNN_TANH, Steps, pack_projection, pack_weights, packed_size, projection_size, step_cost, sum_columns, sweep,
)

import numpy

np.import_array()

cdef enum:
    PART = 1024                 # rows that backward takes in one go: enough for its products, few enough to stay in the cache
    CACHED = 1 << 20            # bytes of gates that forward takes in one go where they are not kept
    PAD = 16                    # numbers behind each row of dz: whole pages from row to row would share few places in the cache
    PER_DIRECTION = 5           # parameters


# --- arguments ------------------------------------------------------------------------------------------------------------

cdef inline int gates_of(int kind) noexcept:
    """Gates in the weights."""
    return 4 if kind == LSTM else 3 if kind == GRU else 1


cdef void expect(Tensor t, str name, tuple shape, int typenum) except *:
    if shape_of(t.array) != shape:
        raise RuntimeError(f"{name}: expected shape {shape}, got {t.shape}")
    if np.PyArray_TYPE(t.array) != typenum:
        raise RuntimeError(f"{name}: expected the dtype of input, {np.PyArray_DescrFromType(typenum)}, got {t.dtype}")


cdef Tensor optional(object value, str name):
    return None if value is None else as_tensor(value, name)


cdef ndarray lay_out(Tensor x, object batch_sizes):
    """The numbers of sequences in each step, T of them, and then the first rows of the steps, T + 1."""
    cdef Py_ssize_t steps, t
    cdef npy_intp size
    cdef ndarray sizes, plan
    cdef Py_ssize_t *p
    if batch_sizes is None:
        steps = x.array.shape[0]
    else:
        sizes = numpy.ascontiguousarray(as_tensor(batch_sizes, "batch_sizes").array, dtype=numpy.intp)
        if np.PyArray_NDIM(sizes) != 1:
            raise RuntimeError(f"batch_sizes: expected one axis, got shape {shape_of(sizes)}")
        steps = np.PyArray_SIZE(sizes)
    if steps == 0:
        raise RuntimeError("input: expected at least one time step, got none")
    size = 2 * steps + 1
    plan = empty(1, &size, NPY_INTP)
    p = <Py_ssize_t *> np.PyArray_DATA(plan)
    p[steps] = 0
    for t in range(steps):
        p[t] = x.array.shape[1] if batch_sizes is None else (<Py_ssize_t *> np.PyArray_DATA(sizes))[t]
        if batch_sizes is not None and (p[t] < 1 or (t and p[t] > p[t - 1])):
            raise RuntimeError("batch_sizes: expected positive numbers that do not grow, got "
                               f"{p[t]}{f' after {p[t - 1]}' if t else ''} at step {t}")
        p[steps + t + 1] = p[steps + t] + p[t]
    if batch_sizes is not None and p[2 * steps] != x.array.shape[0]:
        raise RuntimeError(f"batch_sizes: expected a sum of {x.array.shape[0]}, the rows of input, got {p[2 * steps]}")
    return plan


cdef class Layer:
    """What a layer is given, checked: sizes, rows, parameters."""
    cdef int kind, typenum, itemsize, D
    cdef Py_ssize_t T, B, K, H, P, W, N
    cdef bint projected
    cdef ndarray plan               # see lay_out
    cdef tuple shape                # of the input
    cdef Tensor x, h0, c0           # dropped, with the parameters, when forward is done
    cdef list parameters            # for each direction: W, U, b_ih, b_hh, projection; None where there is none

    cdef void read(self, int kind, object input, object h0, object c0, object weights, object batch_sizes) except *:
        cdef Tensor x = as_tensor(input, "input"), w, t
        cdef int d, count = gates_of(kind)
        self.kind, self.x, self.D, self.parameters = kind, x, <int> len(weights), []
        self.typenum = np.PyArray_TYPE(x.array)
        if self.typenum != NPY_FLOAT and self.typenum != NPY_DOUBLE:
            raise TypeError(f"input: expected float32 or float64, got {x.dtype}")
        self.itemsize = 4 if self.typenum == NPY_FLOAT else 8
        if x.ndim != (3 if batch_sizes is None else 2):
            raise RuntimeError("input: expected shape " + ("(T, B, K)" if batch_sizes is None else "(N, K) with batch_sizes")
                               + f", got {x.shape}")
        if self.D != 1 and self.D != 2:
            raise ValueError(f"weights: expected those of one or two directions, got {self.D}")
        self.plan = lay_out(x, batch_sizes)
        self.shape = shape_of(x.array)
        self.T = (np.PyArray_SIZE(self.plan) - 1) // 2
        self.B, self.N, self.K = self.plan[0], self.plan[2 * self.T], x.shape[x.ndim - 1]
        for d in range(self.D):
            row = tuple(weights[d])
            if len(row) != PER_DIRECTION:
                raise ValueError(f"weights[{d}]: expected (w_ih, w_hh, b_ih, b_hh, w_hr), got {len(row)} entries")
            w = as_tensor(row[0], "w_ih")
            t = as_tensor(row[1], "w_hh")
            if d == 0:
                if w.ndim != 2 or w.shape[0] % count or t.ndim != 2:
                    raise RuntimeError(f"w_ih, w_hh: expected shapes ({count} H, K) and ({count} H, P), got {w.shape} and {t.shape}")
                self.H, self.P = w.shape[0] // count, t.shape[1]
                self.projected = row[4] is not None
            expect(w, "w_ih", (count * self.H, self.K), self.typenum)
            expect(t, "w_hh", (count * self.H, self.P if self.projected else self.H), self.typenum)
            b_ih, b_hh, w_hr = optional(row[2], "b_ih"), optional(row[3], "b_hh"), optional(row[4], "w_hr")
            if b_ih is not None:
                expect(b_ih, "b_ih", (count * self.H,), self.typenum)
            if b_hh is not None:
                expect(b_hh, "b_hh", (count * self.H,), self.typenum)
            if self.projected:
                expect(as_tensor(w_hr, "w_hr"), "w_hr", (self.P, self.H), self.typenum)
            self.parameters.append((w, t, b_ih, b_hh, w_hr))
        self.W = self.H * (4 if kind == GRU else count)
        self.h0, self.c0 = optional(h0, "h0"), optional(c0, "c0")
        if self.h0 is not None:
            expect(self.h0, "h0", (self.D, self.B, self.P), self.typenum)
        if self.c0 is not None:
            expect(self.c0, "c0", (self.D, self.B, self.H), self.typenum)

    cdef Steps steps(self, int d):
        """The sizes of one direction, without its arrays."""
        cdef Steps s
        cdef Py_ssize_t *plan = <Py_ssize_t *> np.PyArray_DATA(self.plan)
        s.kind, s.itemsize, s.reverse = self.kind, self.itemsize, d == 1
        s.T, s.B, s.K, s.H, s.P, s.W = self.T, self.B, self.K, self.H, self.P, self.W
        s.sizes, s.starts = plan, plan + self.T
        s.weights = s.projection = s.gates = s.h = s.c = s.cells = s.hidden = s.out = NULL
        s.bias = s.h0 = s.dout = s.zeros = s.x = NULL
        s.dz = s.inputs = s.dh = s.dc = s.dhidden = s.dprojected = NULL
        s.ld_gates = s.W
        s.ld_out = self.D * self.P
        s.ld_dz = s.W + PAD
        s.first_row = 0
        s.keep_cells = True
        return s

    cdef Py_ssize_t calm(self, double factor):
        """How many steps to compute between two looks at Ctrl-C, if they cost `factor` times those of forward."""
        cdef Steps s = self.steps(0)
        return unhurried(self.T, factor * self.D * self.N / self.T * (step_cost(&s) + 0.02 * self.W * self.K * self.itemsize / 4))


cdef inline char *data(ndarray a) noexcept:
    return NULL if a is None else <char *> np.PyArray_DATA(a)


cdef ndarray raw(Py_ssize_t size):
    """Bytes."""
    cdef npy_intp n = size
    return empty(1, &n, np.NPY_UINT8)


cdef ndarray rows_of(ndarray a, Py_ssize_t rows):
    """A contiguous array as a matrix of so many rows."""
    return a if np.PyArray_NDIM(a) == 2 else a.reshape(rows, np.PyArray_DIM(a, np.PyArray_NDIM(a) - 1))


cdef ndarray copy_of(object given, tuple shape, int typenum):
    """A contiguous copy of an array, or zeros for None."""
    cdef ndarray a = new(shape, typenum)
    if given is None:
        a.fill(0)
    else:
        np.PyArray_CopyInto(a, given)
    return a


cdef inline ndarray array_of(Tensor t):
    return None if t is None else t.array


cdef ndarray biases(Layer layer, tuple parameters):
    """One number for each column of the gates: both biases where both products are added, each its own where they are not."""
    cdef npy_intp width = layer.W
    cdef ndarray total = zeros(1, &width, layer.typenum)
    cdef Tensor b_ih = parameters[2], b_hh = parameters[3]
    cdef Py_ssize_t two = 2 * layer.H
    if layer.kind != GRU:
        if b_ih is not None:
            total += b_ih.array
        if b_hh is not None:
            total += b_hh.array
        return total
    if b_ih is not None:
        total[:3 * layer.H] += b_ih.array
    if b_hh is not None:
        total[:two] += b_hh.array[:two]
        total[3 * layer.H:] += b_hh.array[two:]
    return total


# --- forward --------------------------------------------------------------------------------------------------------------

cdef tuple forward(Layer layer, bint keep):
    """(out, h, c, kept): the states after each step, and after the last one; `kept`, for each direction, what backward needs."""
    cdef int d, itemsize = layer.itemsize
    cdef Py_ssize_t first, last, r0, r1, columns = gates_of(layer.kind) * layer.H, steps = layer.calm(1), rows = layer.N
    cdef ndarray x = rows_of(contiguous(layer.x.array), layer.N), out = new((layer.N, layer.D * layer.P), layer.typenum)
    cdef ndarray h = copy_of(array_of(layer.h0), (layer.D, layer.B, layer.P), layer.typenum), c = None, gates, cells = None, hidden = None
    cdef ndarray weights, projection, bias, w_ih, w_hh
    cdef Steps[2] s
    cdef list kept = [], held = []
    if layer.kind == LSTM:
        c = copy_of(array_of(layer.c0), (layer.D, layer.B, layer.H), layer.typenum)
    if not keep:
        steps = max(1, min(steps, CACHED // max(1, layer.W * itemsize * layer.B)))
        rows = min(layer.N, steps * layer.B)
    for d in range(layer.D):
        s[d] = layer.steps(d)
        parameters = <tuple> layer.parameters[d]
        w_ih, w_hh = contiguous((<Tensor> parameters[0]).array), contiguous((<Tensor> parameters[1]).array)
        weights, bias = raw(packed_size(&s[d], False)), biases(layer, parameters)
        s[d].weights, s[d].bias = data(weights), data(bias)
        s[d].h = data(h) + d * layer.B * layer.P * itemsize
        s[d].out = data(out) + d * layer.P * itemsize
        s[d].h0 = NULL if layer.h0 is None else s[d].h      # only looked at for whether it is there
        if layer.kind == RNN_TANH or layer.kind == RNN_RELU:
            gates = out[:, d * layer.H:(d + 1) * layer.H]
            s[d].ld_gates = s[d].ld_out
        else:
            gates = new((rows, layer.W), layer.typenum)
        s[d].gates = <char *> np.PyArray_DATA(gates)
        if layer.kind == LSTM:
            cells = new((layer.N if keep else layer.B, layer.H), layer.typenum)
            s[d].keep_cells, s[d].cells, s[d].c = keep, data(cells), data(c) + d * layer.B * layer.H * itemsize
        projection = None
        if layer.projected:
            projection, hidden = raw(projection_size(&s[d], False)), new((rows, layer.H), layer.typenum)
            s[d].projection, s[d].hidden = data(projection), data(hidden)
            w_hr = contiguous((<Tensor> parameters[4]).array)
            pack_projection(&s[d], data(w_hr), False)
        with nogil:
            pack_weights(&s[d], np.PyArray_DATA(w_hh), False)
        kept.append((w_ih, w_hh, w_hr if layer.projected else None, gates, cells, hidden))
        held.append((weights, projection, bias))
    for first in range(0, layer.T, steps):
        last = min(layer.T, first + steps)
        for d in range(layer.D):
            r0, r1 = s[d].starts[layer.T - last if d else first], s[d].starts[layer.T - first if d else last]
            gates = kept[d][3]
            if layer.kind == LSTM or layer.kind == GRU:
                s[d].first_row = 0 if keep else r0
            product(gates[r0 - s[d].first_row:r1 - s[d].first_row, :columns], x[r0:r1], np.PyArray_Transpose(kept[d][0], NULL))
        with nogil:
            sweep(s, layer.D, first, last, False)
        PyErr_CheckSignals()
    return out, h, c, x, kept


# --- backward -------------------------------------------------------------------------------------------------------------

cdef class Gradients:
    """Where the gradients of one direction's parameters are summed up, part after part."""
    cdef ndarray weights                # (rows of W, K + P): dW and dU side by side, as one product gives them
    cdef ndarray db, dprojection
    cdef bint w, u                      # which are wanted
    cdef bint started

    cdef void add(self, Layer layer, ndarray inputs, ndarray dz, ndarray hidden, ndarray dprojected) except *:
        """Those of some rows."""
        cdef Py_ssize_t two = 2 * layer.H, K = layer.K, first = 0 if self.w else K, last = K + (layer.P if self.u else 0)
        cdef int itemsize = layer.itemsize
        cdef bint add = self.started
        cdef ndarray turned = np.PyArray_Transpose(dz, NULL)
        if self.weights is not None and layer.kind != GRU:
            product(self.weights[:, first:last], turned, inputs[:, first:last], 1, add)
        elif self.weights is not None:
            product(self.weights[:two, first:last], turned[:two], inputs[:, first:last], 1, add)
            if self.w:
                product(self.weights[two:, :K], turned[two:3 * layer.H], inputs[:, :K], 1, add)
            if self.u:
                product(self.weights[two:, K:], turned[3 * layer.H:], inputs[:, K:], 1, add)
        if self.db is not None:
            with nogil:
                sum_columns(np.PyArray_DATA(self.db), np.PyArray_DATA(dz), np.PyArray_DIM(dz, 0), layer.W, layer.W + PAD,
                            itemsize, add)
        if self.dprojection is not None:
            product(self.dprojection, np.PyArray_Transpose(dprojected, NULL), hidden, 1, add)
        self.started = True

    cdef ndarray bias(self, Layer layer, bint input):
        """The gradient of b_ih, or of b_hh."""
        cdef Py_ssize_t two = 2 * layer.H, three = 3 * layer.H
        if layer.kind != GRU:
            return self.db
        return self.db[:three] if input else numpy.concatenate((self.db[:two], self.db[three:]))


@cython.final
cdef class RecurrentNode(Node):
    cdef Layer layer
    cdef list watched            # (version, its number) of tensors whose arrays are saved

    cdef void watch(self, Tensor t) except *:
        if t is not None:
            self.watched.append((t.version, t.version.n))

    cdef void check(self) except *:
        Node.check(self)
        for version, n in self.watched:
            if (<Version> version).n != n:
                raise RuntimeError(f"{self.name()}: a tensor needed for backward has been modified by an in-place operation")

    cdef object backward(self, object grads):
        cdef Layer layer = self.layer
        cdef int d, at, itemsize = layer.itemsize
        cdef Py_ssize_t first, last, r0, r1, rows, steps, parts, columns = gates_of(layer.kind) * layer.H
        cdef ndarray dout = None, dh, dc = None, dx = None, x, out, h0, zero, part
        cdef Gradients sums
        cdef Steps[2] s
        cdef list arrays = [], totals = [], result
        x, out, h0, kept = self.saved
        if grads[0] is not None:
            dout = rows_of(contiguous(grads[0]), layer.N)
        dh = copy_of(grads[1], (layer.D, layer.B, layer.P), layer.typenum)
        if layer.kind == LSTM:
            dc = copy_of(grads[2], (layer.D, layer.B, layer.H), layer.typenum)
        parts = max(1, (layer.N + PART // 2) // PART)
        steps = min(layer.calm(3), (layer.T + parts - 1) // parts)
        rows = min(layer.N, steps * layer.B)
        zero = copy_of(None, (layer.H,), layer.typenum)
        if self.needs(0):
            dx = copy_of(None, (layer.N, layer.K), layer.typenum) if layer.D == 2 else new((layer.N, layer.K), layer.typenum)
        for d in range(layer.D):
            w_ih, w_hh, w_hr, gates, cells, hidden = kept[d]
            s[d] = layer.steps(d)
            s[d].gates = data(gates)
            if layer.kind == RNN_TANH or layer.kind == RNN_RELU:
                s[d].ld_gates = s[d].ld_out
            s[d].cells, s[d].hidden = data(cells), data(hidden)
            s[d].out = data(out) + d * layer.P * itemsize
            s[d].zeros, s[d].needs_state = data(zero), self.needs(1)
            if h0 is not None:
                s[d].h0 = data(h0) + d * layer.B * layer.P * itemsize
            if dout is not None:
                s[d].dout = data(dout) + d * layer.P * itemsize
            s[d].dh = data(dh) + d * layer.B * layer.P * itemsize
            if dc is not None:
                s[d].dc = data(dc) + d * layer.B * layer.H * itemsize
            work = [raw(packed_size(&s[d], True)), new((rows, layer.W + PAD), layer.typenum), new((rows, layer.K + layer.P), layer.typenum),
                    None, None, None]
            s[d].weights, s[d].dz, s[d].inputs = data(work[0]), data(work[1]), data(work[2])
            if layer.projected:
                work[3:] = [raw(projection_size(&s[d], True)), new((rows, layer.P), layer.typenum),
                            new((layer.B, layer.H), layer.typenum)]
                s[d].projection, s[d].dprojected, s[d].dhidden = data(work[3]), data(work[4]), data(work[5])
                pack_projection(&s[d], data(w_hr), True)
            pack_weights(&s[d], data(w_hh), True)
            arrays.append(work)
            sums = Gradients.__new__(Gradients)
            at = 3 + PER_DIRECTION * d
            sums.w, sums.u = self.needs(at), self.needs(at + 1)
            s[d].x = data(x) if sums.w else NULL
            if sums.w or sums.u:
                sums.weights = new((columns, layer.K + layer.P), layer.typenum)
            if self.needs(at + 2) or self.needs(at + 3):
                sums.db = new((layer.W,), layer.typenum)
            if self.needs(at + 4):
                sums.dprojection = new((layer.P, layer.H), layer.typenum)
            totals.append(sums)
        last = layer.T
        while last > 0:
            first = max(0, last - steps)
            for d in range(layer.D):
                s[d].first_row = s[d].starts[layer.T - last if d else first]
            with nogil:
                sweep(s, layer.D, first, last, True)
            for d in range(layer.D):
                r0, r1 = s[d].starts[layer.T - last if d else first], s[d].starts[layer.T - first if d else last]
                work, hidden = arrays[d], kept[d][5]
                part = work[1][:r1 - r0, :layer.W]
                (<Gradients> totals[d]).add(
                    layer, work[2][:r1 - r0], part, None if hidden is None else hidden[r0:r1],
                    None if hidden is None else work[4][:r1 - r0])
                if dx is not None:
                    product(dx[r0:r1], part[:, :columns], kept[d][0], 1, layer.D == 2)
            PyErr_CheckSignals()
            last = first
        result = [None if dx is None else dx.reshape(layer.shape), dh if self.needs(1) else None, dc if self.needs(2) else None]
        for d in range(layer.D):
            sums, at = totals[d], 3 + PER_DIRECTION * d
            result += [sums.weights[:, :layer.K] if sums.w else None, sums.weights[:, layer.K:] if sums.u else None,
                       sums.bias(layer, True) if self.needs(at + 2) else None,
                       sums.bias(layer, False) if self.needs(at + 3) else None, sums.dprojection]
        return tuple(result)

    def name(self):
        return ("RnnTanh", "RnnRelu", "Lstm", "Gru")[self.layer.kind] + "Backward"


# --- public ---------------------------------------------------------------------------------------------------------------

cdef tuple run(int kind, object input, object h0, object c0, object weights, object batch_sizes):
    cdef Layer layer = Layer.__new__(Layer)
    cdef RecurrentNode node
    cdef Tensor t
    cdef tuple inputs, outs
    layer.read(kind, input, h0, c0, weights, batch_sizes)
    inputs = (layer.x, layer.h0, layer.c0)
    for parameters in layer.parameters:
        inputs += parameters
    keep = recordsn(inputs)
    out, h, c, x, kept = forward(layer, keep)
    outs = (wrap(out if batch_sizes is not None else out.reshape(layer.T, layer.B, layer.D * layer.P)), wrap(h))
    if kind == LSTM:
        outs += (wrap(c),)
    if keep:
        node = RecurrentNode.__new__(RecurrentNode)
        node.layer, node.watched = layer, []
        for t in (outs[0], layer.x, layer.h0):
            node.watch(t)
        for w_ih, w_hh, _, _, w_hr in layer.parameters:
            for t in (w_ih, w_hh, w_hr):
                node.watch(t)
        attach_slots(outs, node, inputs, (x, out, None if h0 is None else contiguous(layer.h0.array), kept))
        layer.x = layer.h0 = layer.c0 = layer.parameters = None
    return outs


def rnn_tanh(input, h0, weights, batch_sizes=None):
    """`h' = tanh(W x + b_ih + U h + b_hh)` over all steps: `(out, h)`, the states after each step and after the last.

    input: (T, B, K), or (N, K) with `batch_sizes`, (T,) numbers that do not grow: how many sequences each step has; they are sorted by
    length, and row after row belongs to one step. h0: (D, B, H) or None for zeros. weights: one or two (for both directions, D = 2)
    tuples `(w_ih, w_hh, b_ih, b_hh, None)` of shapes (H, K), (H, H), (H,), (H,); a bias may be None. out: (T, B, D H) or (N, D H);
    h: (D, B, H). All float32 or all float64. Raises `RuntimeError` that names what does not fit, `TypeError` for other dtypes."""
    return run(RNN_TANH, input, h0, None, weights, batch_sizes)


def rnn_relu(input, h0, weights, batch_sizes=None):
    """`h' = max(0, W x + b_ih + U h + b_hh)`; arguments and results as for `rnn_tanh`."""
    return run(RNN_RELU, input, h0, None, weights, batch_sizes)


def lstm(input, h0, c0, weights, batch_sizes=None):
    """A long short-term memory over all steps: `(out, h, c)`; the formula stands at the head of this file.

    As `rnn_tanh`, but for: weights `(w_ih, w_hh, b_ih, b_hh, w_hr)` of shapes (4 H, K), (4 H, P), (4 H,), (4 H,), gates in the order
    i f g o; w_hr is None (P = H) or a projection (P, H) that h' goes through. h0: (D, B, P), c0: (D, B, H), either may be None."""
    return run(LSTM, input, h0, c0, weights, batch_sizes)


def gru(input, h0, weights, batch_sizes=None):
    """Gated recurrent units over all steps: `(out, h)`; the formula stands at the head of this file.

    As `rnn_tanh`, but for: weights `(w_ih, w_hh, b_ih, b_hh, None)` of shapes (3 H, K), (3 H, H), (3 H,), (3 H,), gates r z n."""
    return run(GRU, input, h0, None, weights, batch_sizes)
