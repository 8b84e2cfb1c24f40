"""Products of vectors, matrices and stacks of matrices, over the one door `bpcore.gemm`."""
cimport numpy as np
from numpy cimport ndarray, npy_intp

from bpcore.arith cimport ADD, MUL
from bpcore.arithmetic cimport binary
from bpcore.gemm cimport gemm_batched_checked, product
from bpcore.memory cimport contiguous, empty
from bpcore.operand cimport (
    MAX_DIMS, broadcast_shapes, is_real, quiet_begin, quiet_end, shape_of, stretch, strided,
)
from bpcore.shape cimport permuted, reshaped
from bpcore.tensor cimport Node, Tensor, as_tensor, attach, records2, wrap

import numpy

from bpcore.reduce import sum

np.import_array()


# --- arrays ---------------------------------------------------------------------------------------------------------------

cdef ndarray flipped(ndarray a):
    """A view with the last two axes exchanged."""
    cdef npy_intp dims[MAX_DIMS]
    cdef npy_intp strides[MAX_DIMS]
    cdef int i, n = np.PyArray_NDIM(a)
    for i in range(n):
        dims[i] = np.PyArray_DIM(a, i)
        strides[i] = np.PyArray_STRIDE(a, i)
    dims[n - 2], dims[n - 1] = dims[n - 1], dims[n - 2]
    strides[n - 2], strides[n - 1] = strides[n - 1], strides[n - 2]
    return strided(a, n, dims, strides, 0)


cdef ndarray times(ndarray a, ndarray b):
    """(..., m, k) times (..., k, n) with the same leading sizes, of one type."""
    cdef npy_intp dims[MAX_DIMS]
    cdef int i, n = np.PyArray_NDIM(a)
    cdef ndarray c
    for i in range(n):
        dims[i] = np.PyArray_DIM(a, i)
    dims[n - 1] = np.PyArray_DIM(b, n - 1)
    c = empty(n, dims, np.PyArray_TYPE(a))
    if np.PyArray_SIZE(c) == 0:
        return c
    if not is_real(np.PyArray_TYPE(a)):
        token = quiet_begin()
        try:
            numpy.matmul(a, b, c)
        finally:
            quiet_end(token)
    elif n == 2:
        product(c, a, b)
    else:
        stacked(c, a, b)
    return c


ctypedef struct Stack:
    Py_ssize_t step, ld           # elements between matrices and between rows
    bint trans


cdef bint stack_layout(ndarray a, Stack *s) noexcept:
    """Whether gemm can read the stack where it lies, and how."""
    cdef int n = np.PyArray_NDIM(a), i
    cdef Py_ssize_t item = np.PyArray_ITEMSIZE(a), rows = np.PyArray_DIM(a, n - 2), columns = np.PyArray_DIM(a, n - 1)
    cdef Py_ssize_t row = np.PyArray_STRIDE(a, n - 2), column = np.PyArray_STRIDE(a, n - 1), step = 0, count = 1, stride
    if (column == item or columns == 1) and (rows == 1 or (row >= columns * item and row % item == 0)):
        s.trans = False
        s.ld = columns if rows == 1 else row // item
    elif (row == item or rows == 1) and (columns == 1 or (column >= rows * item and column % item == 0)):
        s.trans = True
        s.ld = rows if columns == 1 else column // item
    else:
        return False
    for i in range(n - 3, -1, -1):
        stride = np.PyArray_STRIDE(a, i)
        if np.PyArray_DIM(a, i) == 1:
            continue
        if count == 1:
            step = stride
        elif stride != step * count:
            return False
        count *= np.PyArray_DIM(a, i)
    if step % item:
        return False
    s.step = step // item
    return True


cdef int stacked(ndarray c, ndarray a, ndarray b) except -1:
    cdef Stack sa, sb
    cdef int n = np.PyArray_NDIM(a)
    cdef Py_ssize_t rows = np.PyArray_DIM(a, n - 2), depth = np.PyArray_DIM(a, n - 1), columns = np.PyArray_DIM(b, n - 1)
    cdef Py_ssize_t batch = np.PyArray_SIZE(c) // (rows * columns)
    if not stack_layout(a, &sa):
        a = contiguous(a)
        stack_layout(a, &sa)
    if not stack_layout(b, &sb):
        b = contiguous(b)
        stack_layout(b, &sb)
    if np.PyArray_TYPE(a) == np.NPY_FLOAT:
        gemm_batched_checked(
            <float *> np.PyArray_DATA(c), columns, rows * columns, <float *> np.PyArray_DATA(a), sa.ld, sa.step, sa.trans,
            <float *> np.PyArray_DATA(b), sb.ld, sb.step, sb.trans, batch, rows, columns, depth, <float> 1, <float> 0)
    else:
        gemm_batched_checked(
            <double *> np.PyArray_DATA(c), columns, rows * columns, <double *> np.PyArray_DATA(a), sa.ld, sa.step, sa.trans,
            <double *> np.PyArray_DATA(b), sb.ld, sb.step, sb.trans, batch, rows, columns, depth, <double> 1, <double> 0)
    return 0


# --- tensors --------------------------------------------------------------------------------------------------------------

cdef class MatmulNode(Node):
    """C = A B: dA = dC Bᵀ, dB = Aᵀ dC"""

    cdef object backward(self, object dc):
        a, b = self.saved
        return (times(dc, flipped(b)) if self.needs(0) else None,
                times(flipped(a), dc) if self.needs(1) else None)


cdef Tensor times_tensor(Tensor a, Tensor b):
    """`times`, recorded."""
    cdef Tensor out = wrap(times(a.array, b.array))
    cdef Node node
    cdef bint save_a = b.wants_grad(), save_b = a.wants_grad()
    if records2(a, b):
        node = MatmulNode.__new__(MatmulNode)
        if save_a:
            node.guard(a)
        if save_b:
            node.guard(b)
        attach(out, node, (a, b), (a.array if save_a else None, b.array if save_b else None))
    return out


cdef tuple pair(object input, object other, str names):
    """Two tensors, which must have one type already, as in PyTorch."""
    first, second = names.split()
    cdef Tensor a = as_tensor(input, first), b = as_tensor(other, second)
    if np.PyArray_TYPE(a.array) != np.PyArray_TYPE(b.array):
        raise RuntimeError(f"{names.replace(' ', ' and ')}: expected one dtype, got {a.array.dtype} and {b.array.dtype}")
    return a, b


cdef int mismatch(Tensor a, Tensor b) except -1:
    raise RuntimeError(f"shapes {shape_of(a.array)} and {shape_of(b.array)} cannot be multiplied")


def matmul(input, other):
    """The product of vectors, matrices, or stacks of matrices whose leading axes broadcast."""
    cdef Tensor a, b, c
    cdef tuple lead, sa, sb
    a, b = pair(input, other, "input other")
    cdef int na = np.PyArray_NDIM(a.array), nb = np.PyArray_NDIM(b.array)
    if na == 2 and nb == 2:
        if np.PyArray_DIM(a.array, 1) != np.PyArray_DIM(b.array, 0):
            mismatch(a, b)
        return times_tensor(a, b)
    if na == 0 or nb == 0:
        raise RuntimeError("matmul: expected tensors of at least one axis, got a 0-dim tensor")
    sa, sb = shape_of(a.array), shape_of(b.array)
    if sa[na - 1] != sb[nb - 2 if nb > 1 else 0]:
        mismatch(a, b)
    if na == 1:                                     # a row
        c = matmul(reshaped(a, (1,) + sa), b)
        sa = shape_of(c.array)
        return reshaped(c, sa[:-1] if nb == 1 else sa[:len(sa) - 2] + sa[len(sa) - 1:])
    if nb == 1:                                     # a column
        c = matmul(a, reshaped(b, sb + (1,)))
        return reshaped(c, shape_of(c.array)[:na - 1])
    if nb == 2 and np.PyArray_IS_C_CONTIGUOUS(a.array) and np.PyArray_SIZE(a.array):   # one matrix for the whole stack
        rows = np.PyArray_SIZE(a.array) // sa[na - 1]
        return reshaped(times_tensor(reshaped(a, (rows, sa[na - 1])), b), sa[:na - 1] + (sb[1],))
    lead = broadcast_shapes([sa[:na - 2], sb[:nb - 2]])
    return times_tensor(stretch(a, lead + sa[na - 2:]), stretch(b, lead + sb[nb - 2:]))


def rmatmul(input, other):
    """`other @ input`."""
    return matmul(other, input)


cdef int expect(Tensor t, int ndim, str name) except -1:
    if np.PyArray_NDIM(t.array) != ndim:
        raise RuntimeError(f"{name}: expected {ndim} axes, got shape {shape_of(t.array)}")
    return 0


def mm(input, mat2):
    """The product of two matrices."""
    cdef Tensor a, b
    a, b = pair(input, mat2, "input mat2")
    expect(a, 2, "input")
    expect(b, 2, "mat2")
    return matmul(a, b)


def bmm(input, mat2):
    """The products of two stacks of matrices, (B, m, k) and (B, k, n)."""
    cdef Tensor a, b
    a, b = pair(input, mat2, "input mat2")
    expect(a, 3, "input")
    expect(b, 3, "mat2")
    if np.PyArray_DIM(a.array, 0) != np.PyArray_DIM(b.array, 0) or np.PyArray_DIM(a.array, 2) != np.PyArray_DIM(b.array, 1):
        mismatch(a, b)
    return times_tensor(a, b)


def mv(input, vec):
    """The product of a matrix and a vector."""
    cdef Tensor a, b
    a, b = pair(input, vec, "input vec")
    expect(a, 2, "input")
    expect(b, 1, "vec")
    return matmul(a, b)


def dot(input, tensor):
    """The sum of the products of two vectors' elements."""
    cdef Tensor a, b
    a, b = pair(input, tensor, "input tensor")
    expect(a, 1, "input")
    expect(b, 1, "tensor")
    if np.PyArray_SIZE(a.array) != np.PyArray_SIZE(b.array):
        mismatch(a, b)
    return matmul(a, b)


def inner(input, other):
    """The sum of products over the last axes; with a 0-dim tensor, the product."""
    cdef Tensor a = as_tensor(input, "input"), b = as_tensor(other, "other")
    cdef int na = np.PyArray_NDIM(a.array), nb = np.PyArray_NDIM(b.array)
    if na == 0 or nb == 0:
        return binary(MUL, a, b)
    return tensordot(a, b, ((na - 1,), (nb - 1,)))


def outer(input, vec2):
    """The matrix of all products of two vectors' elements."""
    cdef Tensor a = as_tensor(input, "input"), b = as_tensor(vec2, "vec2")
    expect(a, 1, "input")
    expect(b, 1, "vec2")
    return binary(MUL, reshaped(a, (np.PyArray_SIZE(a.array), 1)), b)


def tensordot(a, b, dims=2):
    """The sum of products over axes: the last `dims` of `a` with the first of `b`, or the two lists of axes in `dims`."""
    cdef Tensor x = as_tensor(a, "a"), y = as_tensor(b, "b")
    cdef int nx = np.PyArray_NDIM(x.array), ny = np.PyArray_NDIM(y.array)
    cdef tuple sx = shape_of(x.array), sy = shape_of(y.array)
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(nx, ny):
            raise RuntimeError(f"dims: expected 0 to {min(nx, ny)}, got {dims}")
        over_x, over_y = range(nx - dims, nx), range(dims)
    else:
        over_x, over_y = dims
    over_x, over_y = [d % nx for d in over_x], [d % ny for d in over_y]
    for p, q in zip(over_x, over_y):             # a size of 1 broadcasts
        if sx[p] == 1 and sy[q] != 1:
            y = sum(y, q, True)
        elif sy[q] == 1 and sx[p] != 1:
            x = sum(x, p, True)
    sx, sy = shape_of(x.array), shape_of(y.array)
    if [sx[d] for d in over_x] != [sy[d] for d in over_y]:
        raise RuntimeError(f"dims: axes {over_x} of {sx} and {over_y} of {sy} do not have the same sizes")
    free_x = [d for d in range(nx) if d not in over_x]
    free_y = [d for d in range(ny) if d not in over_y]
    depth = numpy.prod([sx[d] for d in over_x], dtype=int)
    rows = tuple([sx[d] for d in free_x])
    columns = tuple([sy[d] for d in free_y])
    left = reshaped(permuted(x, tuple(free_x + over_x)), (numpy.prod(rows, dtype=int), depth))
    right = reshaped(permuted(y, tuple(over_y + free_y)), (depth, numpy.prod(columns, dtype=int)))
    return reshaped(matmul(left, right), rows + columns)


# --- sums with a product --------------------------------------------------------------------------------------------------

cdef Tensor plus(object input, Tensor result, object beta, object alpha):
    """`beta * input + alpha * product`; beta = 0 ignores `input`, NaN and all."""
    cdef Tensor x = as_tensor(input, "input")
    if np.PyArray_TYPE(x.array) != np.PyArray_TYPE(result.array):
        raise RuntimeError(f"input: expected the dtype of the product, {result.array.dtype}, got {x.array.dtype}")
    if isinstance(alpha, float) and result.array.dtype.kind in "iu":
        raise RuntimeError(f"alpha: expected an integer for integer tensors, got {alpha}")
    if alpha != 1:
        result = binary(MUL, result, alpha)
    if beta == 0:
        return result
    if beta != 1:
        x = binary(MUL, x, beta)
    return binary(ADD, stretch(x, shape_of(result.array)), result)


def addmm(input, mat1, mat2, *, beta=1, alpha=1):
    """`beta * input + alpha * (mat1 @ mat2)`."""
    return plus(input, mm(mat1, mat2), beta, alpha)


def addmv(input, mat, vec, *, beta=1, alpha=1):
    """`beta * input + alpha * (mat @ vec)`."""
    return plus(input, mv(mat, vec), beta, alpha)


def addr(input, vec1, vec2, *, beta=1, alpha=1):
    """`beta * input + alpha * outer(vec1, vec2)`."""
    return plus(input, outer(vec1, vec2), beta, alpha)


def baddbmm(input, batch1, batch2, *, beta=1, alpha=1):
    """`beta * input + alpha * bmm(batch1, batch2)`."""
    return plus(input, bmm(batch1, batch2), beta, alpha)


def addbmm(input, batch1, batch2, *, beta=1, alpha=1):
    """`beta * input + alpha * (the sum of the products batch1[i] @ batch2[i])`."""
    return plus(input, tensordot(batch1, batch2, ((0, 2), (0, 1))), beta, alpha)
