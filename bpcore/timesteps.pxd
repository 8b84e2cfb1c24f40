# The loop over time of a recurrent layer, over pointers: see timesteps.pyx.
cdef enum:
    RNN_TANH, RNN_RELU, LSTM, GRU

# One direction of a layer. Rows are time steps one after the other, `sizes[t]` sequences in step t from row `starts[t]` on;
# sequences are sorted, the longest first. B sequences, H units, P wide state (H without projection), W columns of `gates`.
# Arrays that hold a part of the rows only begin at row `first_row` of the whole. Pointers are to float (itemsize 4) or double.
cdef struct Steps:
    int kind, itemsize
    bint reverse
    Py_ssize_t T, B, H, P, W
    const Py_ssize_t *sizes
    const Py_ssize_t *starts
    char *weights               # U packed for the sweep: `packed_size` bytes
    char *projection            # the projection, packed; NULL without
    char *gates                 # rows by ld_gates
    Py_ssize_t ld_gates, first_row
    const char *bias            # W
    char *h                     # B by P: the state, from the first to the last
    char *c                     # B by H (LSTM)
    char *cells                 # rows by H (LSTM): c before each step; B by H, overwritten, where it is not to be kept
    bint keep_cells
    char *hidden                # rows by H (projection): h before the projection
    char *out                   # rows by ld_out, from row 0 on
    Py_ssize_t ld_out
    const char *h0              # B by P, or NULL for zeros
    bint needs_state            # backward, from here on: whether the gradient of h0 is wanted
    const char *dout            # rows by ld_out, or NULL
    const char *zeros           # H of them
    char *dz                    # rows by ld_dz
    Py_ssize_t ld_dz
    const char *x               # rows by K, from row 0 on, or NULL
    Py_ssize_t K
    char *inputs                # rows by K + P: x and the state before each step, for the product that gives dW and dU
    char *dh                    # B by P
    char *dc                    # B by H
    char *dhidden               # B by H (projection)
    char *dprojected            # rows by P (projection)

cdef Py_ssize_t packed_size(const Steps *s, bint backward) noexcept nogil
cdef void pack_weights(Steps *s, const void *u, bint backward) noexcept nogil
cdef Py_ssize_t projection_size(const Steps *s, bint backward) noexcept nogil
cdef void pack_projection(Steps *s, const void *w, bint backward) noexcept nogil
cdef double step_cost(const Steps *s) noexcept nogil
cdef void sweep(const Steps *directions, int count, Py_ssize_t first, Py_ssize_t last, bint backward) noexcept nogil
cdef void sum_columns(void *total, const void *x, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t ld, int itemsize,
                      bint add) noexcept nogil
