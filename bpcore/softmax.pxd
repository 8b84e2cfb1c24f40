# Softmax on arrays, for other operators (attention).
from numpy cimport ndarray

# y = softmax(x), or its logarithm, along the last axis of a contiguous float32 or float64 array.
cdef ndarray softmax_forward(ndarray x, bint log)
# The gradient of x from that of y and y itself, both contiguous.
cdef ndarray softmax_backward(ndarray dy, ndarray y, bint log)
