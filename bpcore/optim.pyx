"""The optimizers: what each needs besides the elements, worked out in double.

A `Step` is one fused pass over all parameters (see `bpcore.sweep`). Each method adds the tensors of one group; `run` updates
them all, reading and writing every element once:

    state = {}
    Step().adam([w, b], [dw, db], state, lr=1e-3).run(max_norm=1.0)

Parameters are float32 or float64 arrays or Tensors. `grads` is a list like `params`, where None leaves a parameter out; or
None itself, to take each Tensor's `grad`. `state` is a dict that the methods fill, with a dict of arrays (of Tensors for a
Tensor) for each parameter: its key is the Tensor itself, or an array's position in `params`. The arithmetic on the elements
is in `kernels/update.h`; formulas and sources are in the docstrings of `bpnn.optim`. A step that raises changes nothing: add
the groups to a new one.
"""
cimport cython
from libc.math cimport pow, sqrt
from numpy cimport NPY_FLOAT64

from bpcore.simd cimport bp_update, kernels
from bpcore.sparse cimport SparseTensor
from bpcore.sweep cimport REFUSED, ROWS, WHOLE, Entry, Sweep
from bpcore.tensor cimport Tensor


cdef void no_decay(object grad, double weight_decay) except *:
    """Decay is of every row; it would be lost on those that a sparse gradient has not."""
    if weight_decay != 0 and type(grad) is SparseTensor:
        raise RuntimeError(f"weight_decay: expected 0 with sparse gradients, got {weight_decay:g}")


cdef void check(list params, object grads, object state) except *:
    if grads is not None and len(grads) != len(params):
        raise ValueError(f"grads: expected one for each of {len(params)} params, got {len(grads)}")
    if not isinstance(state, dict):
        raise TypeError(f"state: expected a dict, got {type(state).__name__}")


def zero_grad(params, bint set_to_none=True):
    """Drop the gradients of Tensors, or fill them with zeros."""
    cdef Tensor t, g
    for item in params:
        t = <Tensor?> item
        if t.gradient is None:
            continue
        if set_to_none:
            t.gradient = None
        elif type(t.gradient) is SparseTensor:
            t.gradient.zero_()
        else:
            g = <Tensor> t.gradient
            if g.node is not None:
                g = g.detach()
                t.gradient = g
            g.array.fill(0)
            g.bump()


@cython.final
cdef class Step(Sweep):
    """One step of an optimizer: add groups, then `run`."""

    def sgd(self, list params, grads, state, *, double lr=1e-3, double momentum=0, double dampening=0,
            double weight_decay=0, bint nesterov=False, bint maximize=False):
        """Stochastic gradient descent; state `momentum_buffer` where `momentum` is not 0. Of a sparse gradient: updates its rows;
        with momentum all rows, since those of earlier steps go on."""
        cdef Entry *e
        cdef Py_ssize_t i
        cdef bint first
        check(params, grads, state)
        self.sparse = ROWS if momentum == 0 else WHOLE
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            no_decay(self.grad, weight_decay)
            e.u.scale, e.u.l2, e.u.lr, e.u.direct = -1 if maximize else 1, weight_decay, lr, 1
            if momentum != 0:
                first = self.held("momentum_buffer") is None
                e.s0 = self.slot("momentum_buffer", 0)
                e.u.beta1 = 0 if first else momentum
                e.u.gain = 1 if first else 1 - dampening
                e.u.direct = 1 if nesterov else 0
                e.u.look = momentum if nesterov else 1
            self.close(e, kernels().f32.sgd, kernels().f64.sgd, 1 if momentum != 0 else 0)
        return self

    def adagrad(self, list params, grads, state, *, double lr=1e-2, double lr_decay=0, double weight_decay=0,
                double initial_accumulator_value=0, double eps=1e-10, bint maximize=False):
        """Adagrad; state `step`, `sum`. Of a sparse gradient: updates its rows."""
        cdef Entry *e
        cdef Py_ssize_t i
        check(params, grads, state)
        self.sparse = ROWS
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            no_decay(self.grad, weight_decay)
            e.s0 = self.slot("sum", initial_accumulator_value)
            e.u.scale, e.u.l2, e.u.eps = -1 if maximize else 1, weight_decay, eps
            e.u.lr = lr / (1 + (self.next_step(e) - 1) * lr_decay)
            self.close(e, kernels().f32.adagrad, kernels().f64.adagrad, 1)
        return self

    def rmsprop(self, list params, grads, state, *, double lr=1e-2, double alpha=0.99, double eps=1e-8,
                double weight_decay=0, double momentum=0, bint centered=False, bint maximize=False):
        """RMSprop; state `step`, `square_avg`, and `momentum_buffer`, `grad_avg` where asked for."""
        cdef Entry *e
        cdef Py_ssize_t i
        check(params, grads, state)
        self.sparse = REFUSED
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            self.next_step(e)
            e.s0 = self.slot("square_avg", 0)
            if momentum > 0:
                e.s2 = self.slot("momentum_buffer", 0)
            if centered:
                e.s1 = self.slot("grad_avg", 0)
            e.u.scale, e.u.l2, e.u.lr, e.u.eps = -1 if maximize else 1, weight_decay, lr, eps
            e.u.beta1, e.u.beta2 = momentum, alpha
            self.close(e, kernels().f32.rmsprop, kernels().f64.rmsprop, 1 + (momentum > 0) + centered)
        return self

    def adadelta(self, list params, grads, state, *, double lr=1, double rho=0.9, double eps=1e-6, double weight_decay=0,
                 bint maximize=False):
        """Adadelta; state `step`, `square_avg`, `acc_delta`."""
        cdef Entry *e
        cdef Py_ssize_t i
        check(params, grads, state)
        self.sparse = REFUSED
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            self.next_step(e)
            e.s0, e.s1 = self.slot("square_avg", 0), self.slot("acc_delta", 0)
            e.u.scale, e.u.l2, e.u.lr, e.u.eps = -1 if maximize else 1, weight_decay, lr, eps
            e.u.beta2 = rho
            self.close(e, kernels().f32.adadelta, kernels().f64.adadelta, 2)
        return self

    def adam(self, list params, grads, state, *, double lr=1e-3, double beta1=0.9, double beta2=0.999, double eps=1e-8,
             double weight_decay=0, bint decoupled=False, bint amsgrad=False, bint maximize=False):
        """Adam, and AdamW where `decoupled`; state `step`, `exp_avg`, `exp_avg_sq`, and `max_exp_avg_sq` for amsgrad."""
        cdef Entry *e
        cdef Py_ssize_t i
        cdef bp_update u
        cdef double t, last = 0
        check(params, grads, state)
        self.sparse = REFUSED
        u.scale, u.eps, u.beta1, u.beta2 = -1 if maximize else 1, eps, beta1, beta2
        u.l2 = 0 if decoupled else weight_decay
        u.keep = 1 - lr * weight_decay if decoupled else 1
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            e.s0, e.s1 = self.slot("exp_avg", 0), self.slot("exp_avg_sq", 0)
            if amsgrad:
                e.s2 = self.slot("max_exp_avg_sq", 0)
            t = self.next_step(e)
            if t != last:
                u.lr = lr / (1 - pow(beta1, t))
                u.root = 1 / sqrt(1 - pow(beta2, t))
                last = t
            e.u = u
            self.close(e, kernels().f32.adam, kernels().f64.adam, 3 if amsgrad else 2)
        return self

    def sparse_adam(self, list params, grads, state, *, double lr=1e-3, double beta1=0.9, double beta2=0.999, double eps=1e-8,
                    bint maximize=False):
        """Adam of the rows that sparse gradients have; the means of the others stay. State `step`, `exp_avg`, `exp_avg_sq`."""
        cdef Entry *e
        cdef Py_ssize_t i
        cdef double t
        check(params, grads, state)
        self.sparse = ROWS
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            if type(self.grad) is not SparseTensor:
                raise RuntimeError(f"grads[{i}]: SparseAdam does not support dense gradients, please consider Adam instead")
            e.s0, e.s1 = self.slot("exp_avg", 0), self.slot("exp_avg_sq", 0)
            t = self.next_step(e)
            e.u.scale, e.u.eps, e.u.beta1, e.u.beta2, e.u.keep, e.u.root = -1 if maximize else 1, eps, beta1, beta2, 1, 1
            e.u.lr = lr * sqrt(1 - pow(beta2, t)) / (1 - pow(beta1, t))
            self.close(e, kernels().f32.adam, kernels().f64.adam, 2)
        return self

    def nadam(self, list params, grads, state, *, double lr=2e-3, double beta1=0.9, double beta2=0.999, double eps=1e-8,
              double weight_decay=0, double momentum_decay=4e-3, bint decoupled=False, bint maximize=False):
        """NAdam; state `step`, `mu_product`, `exp_avg`, `exp_avg_sq`."""
        cdef Entry *e
        cdef Py_ssize_t i
        cdef double t, mu, next_mu, product
        check(params, grads, state)
        self.sparse = REFUSED
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            e.s0, e.s1 = self.slot("exp_avg", 0), self.slot("exp_avg_sq", 0)
            t = self.next_step(e)
            mu = beta1 * (1 - 0.5 * pow(0.96, t * momentum_decay))
            next_mu = beta1 * (1 - 0.5 * pow(0.96, (t + 1) * momentum_decay))
            e.product, e.factor = <double *> self.scalar("mu_product", 1, NPY_FLOAT64), mu
            product = e.product[0] * mu
            e.u.scale, e.u.eps, e.u.beta1, e.u.beta2 = -1 if maximize else 1, eps, beta1, beta2
            e.u.l2 = 0 if decoupled else weight_decay
            e.u.keep = 1 - lr * weight_decay if decoupled else 1
            e.u.direct = lr * (1 - mu) / (1 - product)
            e.u.lr = lr * next_mu / (1 - product * next_mu)
            e.u.root = 1 / sqrt(1 - pow(beta2, t))
            self.close(e, kernels().f32.nadam, kernels().f64.nadam, 2)
        return self

    def radam(self, list params, grads, state, *, double lr=1e-3, double beta1=0.9, double beta2=0.999, double eps=1e-8,
              double weight_decay=0, bint decoupled=False, bint maximize=False):
        """RAdam; state `step`, `exp_avg`, `exp_avg_sq`."""
        cdef Entry *e
        cdef Py_ssize_t i
        cdef double t, rho, limit = 2 / (1 - beta2) - 1, left1, left2
        check(params, grads, state)
        self.sparse = REFUSED
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            e.s0, e.s1 = self.slot("exp_avg", 0), self.slot("exp_avg_sq", 0)
            t = self.next_step(e)
            left1, left2 = 1 - pow(beta1, t), 1 - pow(beta2, t)
            rho = limit - 2 * t * pow(beta2, t) / left2
            e.u.scale, e.u.eps, e.u.beta1, e.u.beta2 = -1 if maximize else 1, eps, beta1, beta2
            e.u.l2 = 0 if decoupled else weight_decay
            e.u.keep = 1 - lr * weight_decay if decoupled else 1
            e.u.direct = lr / left1
            if rho > 5:
                e.u.look = 1
                e.u.lr = lr / left1 * sqrt(left2 * (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
            self.close(e, kernels().f32.radam, kernels().f64.radam, 2)
        return self

    def adamax(self, list params, grads, state, *, double lr=2e-3, double beta1=0.9, double beta2=0.999, double eps=1e-8,
               double weight_decay=0, bint maximize=False):
        """Adamax; state `step`, `exp_avg`, `exp_inf`."""
        cdef Entry *e
        cdef Py_ssize_t i
        check(params, grads, state)
        self.sparse = REFUSED
        for i in range(len(params)):
            e = self.open(params, grads, i, state)
            if e is NULL:
                continue
            e.s0, e.s1 = self.slot("exp_avg", 0), self.slot("exp_inf", 0)
            e.u.scale, e.u.l2, e.u.eps = -1 if maximize else 1, weight_decay, eps
            e.u.beta1, e.u.beta2 = beta1, beta2
            e.u.lr = lr / (1 - pow(beta1, self.next_step(e)))
            self.close(e, kernels().f32.adamax, kernels().f64.adamax, 2)
        return self
