# One pass over any number of tensors, in one parallel region.
from numpy cimport ndarray

from bpcore.simd cimport bp_update, update_f32, update_f64


cdef enum:
    REFUSED                            # an error
    ROWS                               # updates the rows that it has
    WHOLE                              # fills in the zeros


cdef struct Entry:                     # one parameter in the table
    char *p                            # NULL where only the gradient is asked for
    char *g
    char *s0                           # states; NULL where the update has none
    char *s1
    char *s2
    float *step                        # how many updates it has had; NULL where the update does not count
    double *product                    # a running product that the step multiplies by `factor`, or NULL
    double factor
    Py_ssize_t n                       # elements
    Py_ssize_t first                   # number of its first block
    int itemsize                       # 4: float32, 8: float64
    bint zero                          # whether the update clears the gradient
    update_f32 f32
    update_f64 f64
    bp_update u


ctypedef void (*block_fn)(const Entry *e, Py_ssize_t start, Py_ssize_t n, double *out, double factor) noexcept nogil


cdef class Sweep:
    cdef Entry *entries
    cdef Py_ssize_t count, capacity    # of entries
    cdef Py_ssize_t blocks             # of work, in all entries
    cdef double size                   # bytes of all gradients
    cdef double touched                # bytes that the update reads and writes
    cdef list kept                     # the arrays that the pointers point into
    cdef list changed                  # Tensors whose memory the update changes
    cdef list grads                    # the gradient of each entry: Tensors or arrays
    cdef list fresh                    # (dict, key, value): state that did not exist before this step
    cdef list copies                   # (array, rows or None, contiguous stand-in): written back after the update
    cdef Py_ssize_t index              # the parameter in hand: its place in its list, itself, its parts
    cdef object owner, grad, state, slots
    cdef ndarray array
    cdef int sparse                    # what the update makes of a sparse gradient: REFUSED, ROWS or WHOLE

    cdef void clear(self)
    cdef Entry *new_entry(self) except NULL
    cdef Entry *open(self, list params, object grads, Py_ssize_t i, object state) except? NULL
    cdef int close(self, Entry *e, update_f32 f32, update_f64 f64, int states) except -1
    cdef char *slot(self, object key, double fill) except NULL
    cdef void *scalar(self, object key, double start, int typenum) except NULL
    cdef double next_step(self, Entry *e) except -1
    cdef char *pointer(self, ndarray array) except NULL
    cdef object held(self, object key)
    cdef void keep(self, object key, ndarray value) except *
    cdef void each_block(self, block_fn fn, double *partial, double factor, double cost) noexcept
    cdef void finish(self) except *


cdef ndarray array_of(object value, str name, object i)
cdef Sweep gradients(object tensors)
cdef void squares_block(const Entry *e, Py_ssize_t start, Py_ssize_t n, double *out, double factor) noexcept nogil
cdef void rescale_block(const Entry *e, Py_ssize_t start, Py_ssize_t n, double *out, double factor) noexcept nogil
