"""What a recurrent layer is given, checked, and laid out for the sweeps of timesteps.pyx. Sizes as in recurrent.pyx."""
cimport numpy as np
from numpy cimport NPY_DOUBLE, NPY_FLOAT, NPY_INTP, ndarray, npy_intp

from bpcore.memory cimport empty, zeros
from bpcore.operand cimport new, shape_of
from bpcore.tensor cimport Tensor, as_tensor
from bpcore.threads cimport unhurried
from bpcore.timesteps cimport GRU, LSTM, Steps, step_cost

import numpy

np.import_array()


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
    """Sizes, parameters and rows of a layer."""

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
                    raise RuntimeError(f"w_ih, w_hh: expected shapes ({count} H, K) and ({count} H, P), "
                                       f"got {w.shape} and {t.shape}")
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
        s.ld_out = self.D * self.P
        s.ld_gates = s.W if self.kind == LSTM or self.kind == GRU else s.ld_out     # an RNN's gate is its output
        s.ld_dz = s.W + PAD
        s.first_row = 0
        s.keep_cells = True
        return s

    cdef Py_ssize_t calm(self, double factor):
        """How many steps to compute between two looks at Ctrl-C, if they cost `factor` times those of forward."""
        cdef Steps s = self.steps(0)
        return unhurried(self.T, factor * self.D * self.N / self.T * (step_cost(&s) + 0.02 * self.W * self.K * self.itemsize / 4))


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
