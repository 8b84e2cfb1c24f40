"""One pass over any number of tensors, in one parallel region.

A `Sweep` is a table of parameters, gradients and states, cut into blocks at fixed places in each tensor. The blocks, not the
tensors, are split evenly over the team: a thousand small tensors and one large one are shared alike, and the result does not
depend on the number of threads. Filling the table is all the work that needs the interpreter.

A sparse gradient is in the table as its values. Parameter and states are represented by stand-ins of the same rows, which are
written back after the update: an update never knows.
"""
cimport numpy as np
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport PyObject
from libc.math cimport sqrt
from libc.string cimport memset
from numpy cimport NPY_FLOAT32, NPY_FLOAT64, ndarray

from bpcore.lines cimport take_rows
from bpcore.memory cimport empty_like, zeros
from bpcore.simd cimport kernels, update_f32, update_f64
from bpcore.sparse cimport SparseTensor, dense_of
from bpcore.tensor cimport Tensor, wrap
from bpcore.threads cimport parallel_for

np.import_array()

cdef enum:
    BLOCK = 4096                # elements: small enough that a block's gradient is still in the cache when it is cleared

cdef double BYTE = 0.01         # nanoseconds for a byte that an update touches, on one thread, out of the cache (measured)


# --- over the table, without the interpreter ------------------------------------------------------------------------------

cdef struct Work:
    const Entry *entries
    Py_ssize_t count
    block_fn fn
    double *partial             # one number a block, or NULL
    double factor


cdef inline Py_ssize_t blocks_of(Py_ssize_t n) noexcept nogil:
    return (n + BLOCK - 1) // BLOCK


cdef void work_range(void *context, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Blocks `begin` to `end` of the table."""
    cdef Work *work = <Work *> context
    cdef Py_ssize_t low = 0, high = work.count, middle, start, b = begin, stop
    cdef const Entry *e
    while high - low > 1:       # the last entry whose first block is not after `begin`
        middle = (low + high) // 2
        if work.entries[middle].first <= begin:
            low = middle
        else:
            high = middle
    while b < end:
        e = &work.entries[low]
        stop = min(end, e.first + blocks_of(e.n))
        while b < stop:
            start = (b - e.first) * BLOCK
            work.fn(e, start, min(<Py_ssize_t> BLOCK, e.n - start), work.partial + b, work.factor)
            b += 1
        low += 1


cdef inline char *at(char *base, Py_ssize_t offset) noexcept nogil:
    return NULL if base is NULL else base + offset


cdef void update_block(const Entry *e, Py_ssize_t start, Py_ssize_t n, double *out, double factor) noexcept nogil:
    cdef Py_ssize_t i = start * e.itemsize
    if e.itemsize == 4:
        e.f32(<float *> (e.p + i), <float *> at(e.s0, i), <float *> at(e.s1, i), <float *> at(e.s2, i),
              <const float *> (e.g + i), &e.u, n)
    else:
        e.f64(<double *> (e.p + i), <double *> at(e.s0, i), <double *> at(e.s1, i), <double *> at(e.s2, i),
              <const double *> (e.g + i), &e.u, n)
    if e.zero:
        memset(e.g + i, 0, n * e.itemsize)


cdef void squares_block(const Entry *e, Py_ssize_t start, Py_ssize_t n, double *out, double factor) noexcept nogil:
    if e.itemsize == 4:
        out[0] = kernels().f32.sum_squares(<const float *> e.g + start, n)
    else:
        out[0] = kernels().f64.sum_squares(<const double *> e.g + start, n)


cdef void rescale_block(const Entry *e, Py_ssize_t start, Py_ssize_t n, double *out, double factor) noexcept nogil:
    if e.itemsize == 4:
        kernels().f32.rescale(<float *> e.g + start, factor, n)
    else:
        kernels().f64.rescale(<double *> e.g + start, factor, n)


# --- arguments ------------------------------------------------------------------------------------------------------------

cdef ndarray array_of(object value, str name, object i):
    if isinstance(value, Tensor):
        return (<Tensor> value).array
    if isinstance(value, ndarray):
        return <ndarray> value
    if type(value) is SparseTensor:
        return (<SparseTensor> value).array
    raise TypeError(f"{name}[{i!r}]: expected a Tensor or an array, got {type(value).__name__}")


cdef inline int real_size(ndarray a, str name, Py_ssize_t i) except -1:
    """4 or 8, the bytes in an element of a float32 or float64 array."""
    cdef int typenum = np.PyArray_TYPE(a)
    if typenum == NPY_FLOAT32:
        return 4
    if typenum == NPY_FLOAT64:
        return 8
    raise TypeError(f"{name}[{i}]: expected float32 or float64, got {a.dtype}")


cdef inline bint alike(ndarray a, ndarray b) noexcept:
    return np.PyArray_TYPE(a) == np.PyArray_TYPE(b) and np.PyArray_SAMESHAPE(a, b)


cdef str kind(ndarray a):
    return f"{a.dtype} of shape {(<object> a).shape}"


cdef inline object get(object mapping, object key):
    """`mapping.get(key)` for a dict or a subclass of it, without looking up the method."""
    cdef PyObject *found = PyDict_GetItemWithError(mapping, key)
    return None if found is NULL else <object> found


# --- the table ------------------------------------------------------------------------------------------------------------

cdef class Sweep:
    """A table of tensors and what is to be done with them."""

    def __cinit__(self):
        self.clear()

    def __dealloc__(self):
        PyMem_Free(self.entries)

    cdef void clear(self):
        self.count = self.blocks = 0
        self.size = self.touched = 0
        self.kept, self.changed, self.grads = [], [], []
        self.fresh = self.copies = self.owner = self.grad = self.state = self.slots = self.array = None

    cdef Entry *new_entry(self) except NULL:
        cdef Py_ssize_t capacity
        cdef Entry *grown
        if self.count == self.capacity:
            capacity = 8 + 2 * self.capacity
            grown = <Entry *> PyMem_Realloc(self.entries, capacity * sizeof(Entry))
            if grown is NULL:
                raise MemoryError(f"no memory for a table of {capacity} tensors")
            self.entries = grown
            self.capacity = capacity
        memset(&self.entries[self.count], 0, sizeof(Entry))
        return &self.entries[self.count]

    cdef Entry *open(self, list params, object grads, Py_ssize_t i, object state) except? NULL:
        """A new entry with `params[i]`, its gradient and its state in hand; NULL without an exception where it has no
        gradient. `close` makes it part of the table."""
        cdef object param = params[i], grad
        cdef ndarray p, g
        cdef Entry *e
        if grads is not None:
            grad = grads[i]
        elif isinstance(param, Tensor):
            grad = (<Tensor> param).gradient
        else:
            raise TypeError(f"params[{i}]: expected a Tensor where no grads are given, got {type(param).__name__}")
        if grad is None:
            return NULL
        p = array_of(param, "params", i)
        g = array_of(grad, "grads", i)
        e = self.new_entry()
        e.itemsize = real_size(p, "params", i)
        if type(grad) is SparseTensor:
            if self.sparse == REFUSED:
                raise RuntimeError(f"grads[{i}]: this optimizer does not support sparse gradients; SGD, Adagrad and SparseAdam do")
            if np.PyArray_TYPE(g) != np.PyArray_TYPE(p) or grad.shape != (<object> p).shape:
                raise ValueError(f"grads[{i}]: expected {kind(p)}, like its parameter, got {grad.dtype} of shape {grad.shape}")
            if self.sparse == WHOLE:
                g = dense_of(<SparseTensor> grad)
        elif not alike(p, g):
            raise ValueError(f"grads[{i}]: expected {kind(p)}, like its parameter, got {kind(g)}")
        if not np.PyArray_ISWRITEABLE(p):
            raise ValueError(f"params[{i}]: expected an array that can be written, got a read-only one")
        self.grad = grad
        e.n = np.PyArray_SIZE(g)
        e.p = self.pointer(p)
        if not np.PyArray_ISCARRAY_RO(g):
            g = np.PyArray_GETCONTIGUOUS(g)
        self.kept.append(g)
        e.g = <char *> np.PyArray_DATA(g)
        self.index, self.owner, self.array = i, param, p
        self.state, self.slots = state, get(state, param if isinstance(param, Tensor) else i)
        if self.slots is not None and not isinstance(self.slots, dict):
            raise TypeError(f"state of params[{i}]: expected a dict, got {type(self.slots).__name__}")
        return e

    cdef int close(self, Entry *e, update_f32 f32, update_f64 f64, int states) except -1:
        """Add the entry: its update, and how many states that reads and writes."""
        e.f32, e.f64 = f32, f64
        e.first = self.blocks
        self.blocks += blocks_of(e.n)
        self.size += <double> e.n * e.itemsize
        self.touched += <double> e.n * e.itemsize * (3 + 2 * states)
        self.count += 1
        self.grads.append(self.grad)
        if isinstance(self.owner, Tensor):
            self.changed.append(self.owner)
        return 0

    cdef char *slot(self, object key, double fill) except NULL:
        """The elements of a state of the parameter in hand, made and filled where it does not exist."""
        cdef object held = self.held(key)
        cdef ndarray p = self.array, s
        if held is None:
            s = zeros(np.PyArray_NDIM(p), np.PyArray_DIMS(p), np.PyArray_TYPE(p))
            if fill != 0:
                np.PyArray_FillWithScalar(s, fill)
            self.keep(key, s)
            return self.pointer(s)
        s = array_of(held, "state", key)
        if not alike(p, s) or not np.PyArray_ISWRITEABLE(s):
            raise ValueError(f"state {key!r} of params[{self.index}]: expected a writable {kind(p)}, got {kind(s)}")
        return self.pointer(s)

    cdef void *scalar(self, object key, double start, int typenum) except NULL:
        """A number in the state of the parameter in hand, as an array without axes that the step can write."""
        cdef object held = self.held(key)
        cdef ndarray s = None
        if held is not None and not isinstance(held, (int, float)):
            s = array_of(held, "state", key)
        if s is None or np.PyArray_TYPE(s) != typenum or np.PyArray_NDIM(s) != 0 or not np.PyArray_ISCARRAY(s):
            if held is not None:
                start = held if s is None else s.item()
            s = zeros(0, NULL, typenum)
            np.PyArray_FillWithScalar(s, start)
            self.keep(key, s)
        self.kept.append(s)
        return np.PyArray_DATA(s)

    cdef double next_step(self, Entry *e) except -1:
        """The number of this update of the parameter in hand, from 1."""
        e.step = <float *> self.scalar("step", 0, NPY_FLOAT32)
        return <double> e.step[0] + 1

    cdef char *pointer(self, ndarray array) except NULL:
        """The elements of an array that will be written, through a stand-in where they do not lie in order or the gradient in hand
        has only some rows."""
        cdef ndarray direct = array, rows
        if self.sparse == ROWS and type(self.grad) is SparseTensor:
            rows = (<SparseTensor> self.grad).rows
            direct = take_rows(array, rows) if np.PyArray_IS_C_CONTIGUOUS(array) else np.PyArray_GETCONTIGUOUS(array[rows])
            if self.copies is None:
                self.copies = []
            self.copies.append((array, rows, direct))
        elif not np.PyArray_ISCARRAY(array):
            direct = empty_like(array)
            np.PyArray_CopyInto(direct, array)
            if self.copies is None:
                self.copies = []
            self.copies.append((array, None, direct))
        self.kept.append(direct)
        return <char *> np.PyArray_DATA(direct)

    cdef object held(self, object key):
        """What the state of the parameter in hand has for `key`, or None."""
        return None if self.slots is None else get(self.slots, key)

    cdef void keep(self, object key, ndarray value) except *:
        """Add to the state of the parameter in hand when the step runs, not before: it may yet fail."""
        if self.fresh is None:
            self.fresh = []
        if self.slots is None:
            self.slots = {}
            self.fresh.append((self.state, self.owner if isinstance(self.owner, Tensor) else self.index, self.slots))
        self.fresh.append((self.slots, key, wrap(value) if isinstance(self.owner, Tensor) else value))

    cdef void each_block(self, block_fn fn, double *partial, double factor, double cost) noexcept:
        """Call `fn` for every block; `cost` is that of all of them, in nanoseconds."""
        cdef Work work
        work.entries, work.count, work.fn, work.partial, work.factor = self.entries, self.count, fn, partial, factor
        with nogil:
            parallel_for(work_range, &work, self.blocks, cost / max(self.blocks, 1))

    cdef void finish(self) except *:
        """Bring what was written to where it belongs, and count the changes."""
        if self.copies is not None:
            for array, rows, direct in self.copies:
                if rows is None:
                    np.PyArray_CopyInto(array, direct)
                else:
                    array[rows] = direct
        for item in self.changed:
            (<Tensor> item).bump()

    def norm(self):
        """The 2-norm of all gradients in the table together, a float; sums are in double whatever the dtype."""
        cdef double total = 0
        cdef Py_ssize_t i
        cdef double *partial = <double *> PyMem_Malloc(max(self.blocks, 1) * sizeof(double))
        if partial is NULL:
            raise MemoryError(f"no memory for {self.blocks} partial sums")
        self.each_block(squares_block, partial, 1, 2 * BYTE * self.size)
        for i in range(self.blocks):        # in the order of the table, whoever computed them
            total += partial[i]
        PyMem_Free(partial)
        return sqrt(total)

    def rescale(self, double factor):
        """Multiply all gradients in the table by `factor`, in place."""
        self.each_block(rescale_block, NULL, factor, 2 * BYTE * self.size)
        self.finish()
        self.clear()

    def run(self, max_norm=None, bint zero_grad=False):
        """Update everything in the table and empty it.

        `max_norm`: scale the gradients, as `clip_grad_norm_` would, so that the 2-norm of all of them together is at most
        this; the scaling is folded into the update and the gradients stay as they are. `zero_grad`: leave zeros in the
        gradients. Returns the norm before clipping, or None without `max_norm`."""
        cdef Entry *e
        cdef Py_ssize_t i
        cdef ndarray g
        cdef double factor = 1
        norm = None
        if max_norm is not None:
            norm = self.norm()
            factor = clip_coefficient(norm, max_norm)
        if zero_grad:
            for i in range(self.count):
                g = array_of(self.grads[i], "grads", i)
                if not np.PyArray_ISWRITEABLE(g):
                    raise ValueError(f"grads[{i}]: expected an array that can be zeroed, got a read-only one")
                self.entries[i].zero = np.PyArray_ISCARRAY(g) and np.PyArray_DATA(g) == self.entries[i].g
        if self.fresh is not None:
            for mapping, key, value in self.fresh:
                mapping[key] = value
        for i in range(self.count):
            e = &self.entries[i]
            e.u.scale *= factor
            if e.step is not NULL:
                e.step[0] += 1
            if e.product is not NULL:
                e.product[0] *= e.factor
        self.each_block(update_block, NULL, 1, BYTE * self.touched)
        self.finish()
        if zero_grad:
            for i in range(self.count):
                if not self.entries[i].zero:
                    array_of(self.grads[i], "grads", i).fill(0)
                if isinstance(self.grads[i], Tensor):
                    (<Tensor> self.grads[i]).bump()
        self.clear()
        return norm


# --- gradients by themselves ----------------------------------------------------------------------------------------------

cdef Sweep gradients(object tensors):
    """A table of gradients alone."""
    cdef Sweep sweep = Sweep.__new__(Sweep)
    cdef Entry *e
    cdef ndarray a
    cdef Py_ssize_t i = 0
    for item in tensors:
        a = array_of(item, "tensors", i)
        if not np.PyArray_ISWRITEABLE(a):
            a = np.PyArray_GETCONTIGUOUS(a)
        e = sweep.new_entry()
        e.itemsize = real_size(a, "tensors", i)
        e.n = np.PyArray_SIZE(a)
        sweep.grad = None
        e.g = sweep.pointer(a)
        sweep.owner = sweep.grad = item
        sweep.close(e, NULL, NULL, 0)
        i += 1
    return sweep


def clip_coefficient(double norm, double max_norm):
    """`min(1, max_norm / (norm + 1e-6))`: the factor that brings gradients of this norm to `max_norm`, as in PyTorch. NaN for
    a norm that is NaN."""
    cdef double factor
    if not max_norm >= 0:
        raise ValueError(f"max_norm: expected a number that is not negative, got {max_norm}")
    factor = max_norm / (norm + 1e-6)
    return 1.0 if factor > 1 else factor


def total_norm(tensors):
    """The 2-norm of float32 and float64 arrays or Tensors taken together, a float. Sums are in double."""
    return gradients(tensors).norm()


def rescale(tensors, double factor):
    """Multiply float32 and float64 arrays or Tensors by `factor`, in place, in one parallel region."""
    cdef list items = list(tensors)
    for i, item in enumerate(items):
        if not np.PyArray_ISWRITEABLE(array_of(item, "tensors", i)):
            raise ValueError(f"tensors[{i}]: expected an array that can be written, got a read-only one")
    gradients(items).rescale(factor)
