"""Recurrent layers: tanh and relu networks (Elman 1990), LSTM (Hochreiter and Schmidhuber 1997; projections: Sak et al. 2014),
GRU (Cho et al. 2014). One node is one layer, in one or both directions.

Sizes: T steps, B sequences, K inputs, H units, P numbers of state that a step hands on (H, fewer with a projection), D
directions, N rows: T B, or fewer where the sequences are packed. With z = W x + b_ih + U h + b_hh for each gate:

    RNN     h' = f(z)
    LSTM    c' = f c + i g,  h' = o tanh c',  with i, f, o = sigmoid(z), g = tanh(z)
    GRU     h' = (1 - z) n + z h,  n = tanh(W_n x + b_in + r (U_n h + b_hn)),  r, z = sigmoid(z)

Forward is one product x W^T over all rows and the sweep of timesteps.pyx. Backward sweeps back in parts of about PART rows; each
leaves dz, the gradient before the activations, and then [dW dU] = dz^T [x h] and dx = dz W over all rows of the part.
"""
cimport cython
cimport numpy as np
from cpython.exc cimport PyErr_CheckSignals
from numpy cimport ndarray

from bpcore.gemm cimport product
from bpcore.memory cimport contiguous
from bpcore.operand cimport new
from bpcore.recurrent_layer cimport PAD, PER_DIRECTION, Layer, biases, copy_of, data, gates_of, raw, rows_of
from bpcore.tensor cimport Node, Tensor, Version, attach_slots, recordsn, wrap
from bpcore.timesteps cimport (
    GRU, LSTM, RNN_RELU, RNN_TANH, Steps, pack_projection, pack_weights, packed_size, projection_size, sum_columns, sweep,
)

import numpy

np.import_array()

cdef enum:
    PART = 1024                 # rows that backward takes in one go: enough for its products, few enough to stay in the cache
    CACHED = 1 << 20            # bytes of gates that forward takes in one go where they are not kept


# --- forward --------------------------------------------------------------------------------------------------------------

cdef class Direction:
    """One direction's arrays that backward needs too."""
    cdef ndarray w_ih, w_hh, w_hr       # the parameters W, U and the projection
    cdef ndarray gates                  # (N, W), or so many of the rows as forward takes in one go; of an RNN its part of `out`
    cdef ndarray cells                  # (N, H): c before each step
    cdef ndarray hidden                 # (N, H): h before the projection
    cdef ndarray packed, packed_projection, bias        # of forward alone

    cdef void prepare(self, Steps *s, Layer layer, int d, Py_ssize_t rows, ndarray out, bint keep) except *:
        """Allocate, pack the weights, and put everything into `s`."""
        cdef tuple parameters = layer.parameters[d]
        cdef Tensor w_ih = parameters[0], w_hh = parameters[1], w_hr = parameters[4]
        self.w_ih, self.w_hh = contiguous(w_ih.array), contiguous(w_hh.array)
        self.packed, self.bias = raw(packed_size(s, False)), biases(layer, parameters)
        s.weights, s.bias = data(self.packed), data(self.bias)
        if layer.kind == RNN_TANH or layer.kind == RNN_RELU:
            self.gates = out[:, d * layer.H:(d + 1) * layer.H]
        else:
            self.gates = new((rows, layer.W), layer.typenum)
        s.gates = data(self.gates)
        if layer.kind == LSTM:
            self.cells = new((layer.N if keep else layer.B, layer.H), layer.typenum)
            s.cells = data(self.cells)
        if layer.projected:
            self.w_hr, self.packed_projection = contiguous(w_hr.array), raw(projection_size(s, False))
            self.hidden = new((rows, layer.H), layer.typenum)
            s.projection, s.hidden = data(self.packed_projection), data(self.hidden)
            pack_projection(s, data(self.w_hr), False)
        with nogil:
            pack_weights(s, np.PyArray_DATA(self.w_hh), False)

    cdef void finish(self) noexcept:
        self.packed = self.packed_projection = self.bias = None


cdef tuple forward(Layer layer, bint keep):
    """(out, h, c, x, directions): the states after each step and after the last one; the input's rows; what backward needs."""
    cdef int d, itemsize = layer.itemsize
    cdef Py_ssize_t first, last, r0, r1, columns = gates_of(layer.kind) * layer.H, steps = layer.calm(1), rows = layer.N
    cdef ndarray x = rows_of(contiguous(layer.x.array), layer.N), out = new((layer.N, layer.D * layer.P), layer.typenum)
    cdef ndarray h = copy_of(None if layer.h0 is None else layer.h0.array, (layer.D, layer.B, layer.P), layer.typenum), c = None
    cdef Steps[2] s
    cdef Direction one
    cdef list directions = []
    if layer.kind == LSTM:
        c = copy_of(None if layer.c0 is None else layer.c0.array, (layer.D, layer.B, layer.H), layer.typenum)
    if not keep:
        steps = max(1, min(steps, CACHED // max(1, layer.W * itemsize * layer.B)))
        rows = min(layer.N, steps * layer.B)
    for d in range(layer.D):
        s[d] = layer.steps(d)
        s[d].h = data(h) + d * layer.B * layer.P * itemsize
        s[d].h0 = NULL if layer.h0 is None else s[d].h          # forward only looks whether it is there
        s[d].out = data(out) + d * layer.P * itemsize
        s[d].keep_cells = keep
        if c is not None:
            s[d].c = data(c) + d * layer.B * layer.H * itemsize
        one = Direction.__new__(Direction)
        one.prepare(&s[d], layer, d, rows, out, keep)
        directions.append(one)
    for first in range(0, layer.T, steps):
        last = min(layer.T, first + steps)
        for d in range(layer.D):
            one = directions[d]
            r0, r1 = s[d].starts[layer.T - last if d else first], s[d].starts[layer.T - first if d else last]
            if not keep and (layer.kind == LSTM or layer.kind == GRU):
                s[d].first_row = r0
            product(one.gates[r0 - s[d].first_row:r1 - s[d].first_row, :columns], x[r0:r1], np.PyArray_Transpose(one.w_ih, NULL))
        with nogil:
            sweep(s, layer.D, first, last, False)
        PyErr_CheckSignals()
    for one in directions:
        one.finish()
    return out, h, c, x, directions


# --- backward -------------------------------------------------------------------------------------------------------------

cdef class WayBack:
    """One direction's gradients: buffers for the rows of one part, and the sums over all parts."""
    cdef Layer layer
    cdef bint w, u                      # whether dW, dU are wanted
    cdef bint started
    cdef ndarray weights                # (rows of W, K + P): dW and dU side by side, as one product gives them
    cdef ndarray db                     # (W,)
    cdef ndarray w_hr                   # (P, H)
    cdef ndarray dz, inputs, dprojected, dhidden, packed, packed_projection     # see Steps

    cdef void prepare(self, Steps *s, Layer layer, Direction kept, Py_ssize_t rows, RecurrentNode node, int at) except *:
        """Allocate, pack the weights, and put everything into `s`; the parameters are the node's inputs from `at` on."""
        cdef int typenum = layer.typenum
        self.layer = layer
        self.packed, self.dz = raw(packed_size(s, True)), new((rows, layer.W + PAD), typenum)
        self.inputs = new((rows, layer.K + layer.P), typenum)
        s.weights, s.dz, s.inputs = data(self.packed), data(self.dz), data(self.inputs)
        pack_weights(s, data(kept.w_hh), True)
        if layer.projected:
            self.packed_projection = raw(projection_size(s, True))
            self.dprojected, self.dhidden = new((rows, layer.P), typenum), new((layer.B, layer.H), typenum)
            s.projection, s.dprojected, s.dhidden = data(self.packed_projection), data(self.dprojected), data(self.dhidden)
            pack_projection(s, data(kept.w_hr), True)
        self.w, self.u = node.needs(at), node.needs(at + 1)
        if self.w or self.u:
            self.weights = new((gates_of(layer.kind) * layer.H, layer.K + layer.P), typenum)
        if node.needs(at + 2) or node.needs(at + 3):
            self.db = new((layer.W,), typenum)
        if node.needs(at + 4):
            self.w_hr = new((layer.P, layer.H), typenum)

    cdef void add(self, Direction kept, Py_ssize_t r0, Py_ssize_t r1, ndarray dx) except *:
        """What the rows r0 to r1 give, after their sweep."""
        cdef Layer layer = self.layer
        cdef Py_ssize_t rows = r1 - r0, K = layer.K, first = 0 if self.w else K, last = K + (layer.P if self.u else 0)
        cdef Py_ssize_t two = 2 * layer.H, three = 3 * layer.H, columns = gates_of(layer.kind) * layer.H
        cdef bint add = self.started
        cdef ndarray dz = self.dz[:rows, :layer.W], inputs = self.inputs[:rows], turned = np.PyArray_Transpose(dz, NULL)
        if self.weights is not None and layer.kind != GRU:
            product(self.weights[:, first:last], turned, inputs[:, first:last], 1, add)
        elif self.weights is not None:
            product(self.weights[:two, first:last], turned[:two], inputs[:, first:last], 1, add)
            if self.w:
                product(self.weights[two:, :K], turned[two:three], inputs[:, :K], 1, add)
            if self.u:
                product(self.weights[two:, K:], turned[three:], inputs[:, K:], 1, add)
        if self.db is not None:
            with nogil:
                sum_columns(np.PyArray_DATA(self.db), np.PyArray_DATA(dz), rows, layer.W, layer.W + PAD, layer.itemsize, add)
        if self.w_hr is not None:
            product(self.w_hr, np.PyArray_Transpose(self.dprojected[:rows], NULL), kept.hidden[r0:r1], 1, add)
        if dx is not None:
            product(dx[r0:r1], dz[:, :columns], kept.w_ih, 1, layer.D == 2)
        self.started = True

    cdef list gradients(self):
        """Those of the parameters, in their order."""
        cdef Py_ssize_t K = self.layer.K, two = 2 * self.layer.H, three = 3 * self.layer.H
        cdef object b_ih = self.db, b_hh = self.db
        if self.db is not None and self.layer.kind == GRU:
            b_ih, b_hh = self.db[:three], numpy.concatenate((self.db[:two], self.db[three:]))
        return [self.weights[:, :K] if self.w else None, self.weights[:, K:] if self.u else None, b_ih, b_hh, self.w_hr]


@cython.final
cdef class RecurrentNode(Node):
    cdef Layer layer
    cdef list watched            # (version, its number) of the tensors whose arrays are saved: more than a node can guard

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
        cdef int d, itemsize = layer.itemsize
        cdef Py_ssize_t last, first, steps, parts = max(1, (layer.N + PART // 2) // PART)
        cdef ndarray dout = None, dh, dc = None, dx = None, x, out, h0, zero = copy_of(None, (layer.H,), layer.typenum)
        cdef Direction kept
        cdef WayBack way
        cdef Steps[2] s
        cdef list directions, ways = [], result
        x, out, h0, directions = self.saved
        if grads[0] is not None:
            dout = rows_of(contiguous(grads[0]), layer.N)
        dh = copy_of(grads[1], (layer.D, layer.B, layer.P), layer.typenum)
        if layer.kind == LSTM:
            dc = copy_of(grads[2], (layer.D, layer.B, layer.H), layer.typenum)
        steps = min(layer.calm(3), (layer.T + parts - 1) // parts)
        if self.needs(0):
            # Both directions add to it, and which of them comes to a row first differs.
            dx = copy_of(None, (layer.N, layer.K), layer.typenum) if layer.D == 2 else new((layer.N, layer.K), layer.typenum)
        for d in range(layer.D):
            kept = directions[d]
            s[d] = layer.steps(d)
            s[d].gates, s[d].cells, s[d].hidden = data(kept.gates), data(kept.cells), data(kept.hidden)
            s[d].zeros, s[d].needs_state = data(zero), self.needs(1)
            s[d].out = data(out) + d * layer.P * itemsize
            s[d].dh = data(dh) + d * layer.B * layer.P * itemsize
            if h0 is not None:
                s[d].h0 = data(h0) + d * layer.B * layer.P * itemsize
            if dout is not None:
                s[d].dout = data(dout) + d * layer.P * itemsize
            if dc is not None:
                s[d].dc = data(dc) + d * layer.B * layer.H * itemsize
            way = WayBack.__new__(WayBack)
            way.prepare(&s[d], layer, kept, min(layer.N, steps * layer.B), self, 3 + PER_DIRECTION * d)
            s[d].x = data(x) if way.w else NULL
            ways.append(way)
        last = layer.T
        while last > 0:
            first = max(0, last - steps)
            for d in range(layer.D):
                s[d].first_row = s[d].starts[layer.T - last if d else first]
            with nogil:
                sweep(s, layer.D, first, last, True)
            for d in range(layer.D):
                (<WayBack> ways[d]).add(directions[d], s[d].first_row, s[d].starts[layer.T - first if d else last], dx)
            PyErr_CheckSignals()
            last = first
        result = [None if dx is None else dx.reshape(layer.shape), dh if self.needs(1) else None, dc if self.needs(2) else None]
        for way in ways:
            result += way.gradients()
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
    out, h, c, x, directions = forward(layer, keep)
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
        attach_slots(outs, node, inputs, (x, out, None if h0 is None else contiguous(layer.h0.array), directions))
        layer.x = layer.h0 = layer.c0 = layer.parameters = None
    return outs


def rnn_tanh(input, h0, weights, batch_sizes=None):
    """`h' = tanh(W x + b_ih + U h + b_hh)` over all steps: `(out, h)`, the states after each step and after the last.

    input: (T, B, K), or (N, K) with `batch_sizes`, (T,) numbers that do not grow: how many sequences each step has; they are
    sorted by length, and row after row belongs to one step. h0: (D, B, H) or None for zeros. weights: one or two (for both
    directions, D = 2) tuples `(w_ih, w_hh, b_ih, b_hh, None)` of shapes (H, K), (H, H), (H,), (H,); a bias may be None. out:
    (T, B, D H) or (N, D H); h: (D, B, H). All float32 or all float64. Raises `RuntimeError` that names what does not fit,
    `TypeError` for other dtypes."""
    return run(RNN_TANH, input, h0, None, weights, batch_sizes)


def rnn_relu(input, h0, weights, batch_sizes=None):
    """`h' = max(0, W x + b_ih + U h + b_hh)`; arguments and results as for `rnn_tanh`."""
    return run(RNN_RELU, input, h0, None, weights, batch_sizes)


def lstm(input, h0, c0, weights, batch_sizes=None):
    """A long short-term memory over all steps: `(out, h, c)`; the formula stands at the head of this file.

    As `rnn_tanh`, but for: weights `(w_ih, w_hh, b_ih, b_hh, w_hr)` of shapes (4 H, K), (4 H, P), (4 H,), (4 H,), gates in the
    order i f g o; w_hr is None (P = H) or a projection (P, H) that h' goes through. h0: (D, B, P), c0: (D, B, H),
    either may be None."""
    return run(LSTM, input, h0, c0, weights, batch_sizes)


def gru(input, h0, weights, batch_sizes=None):
    """Gated recurrent units over all steps: `(out, h)`; the formula stands at the head of this file.

    As `rnn_tanh`, but for: weights `(w_ih, w_hh, b_ih, b_hh, None)` of shapes (3 H, K), (3 H, H), (3 H,), (3 H,), gates r z n."""
    return run(GRU, input, h0, None, weights, batch_sizes)
