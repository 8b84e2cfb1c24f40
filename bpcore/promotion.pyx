"""Which type an operation computes in, by PyTorch's rules: kinds are ordered bool < integers < floats < complex, and a tensor with
axes outranks a 0-dim tensor, which outranks a number, of the same kind."""
cimport numpy as np
from cpython.complex cimport PyComplex_Check
from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_Check
from numpy cimport NPY_BOOL, ndarray

from bpcore.tensor cimport Tensor, as_tensor

import numpy

from bpcore.dtypes import default_float

np.import_array()


cdef bint is_number(object value):
    """A Python or NumPy scalar: it takes part in promotion with its kind only."""
    return (PyFloat_Check(value) or PyLong_Check(value) or PyComplex_Check(value) or isinstance(value, numpy.generic))


cdef int category(int typenum) noexcept:
    """0 bool, 1 integers, 2 floats, 3 complex."""
    if typenum == NPY_BOOL:
        return 0
    if typenum <= np.NPY_ULONGLONG:
        return 1
    if np.NPY_CFLOAT <= typenum <= np.NPY_CLONGDOUBLE:
        return 3
    return 2


cdef int number_type(object value) except -2:
    """The type a number stands for where no tensor outranks it."""
    if isinstance(value, (bool, numpy.bool_)):
        return NPY_BOOL
    if isinstance(value, (int, numpy.integer)):
        return np.dtype(numpy.int64).num
    if isinstance(value, (float, numpy.floating)):
        return default_float().num
    return complex_of(default_float().num)


cdef int complex_of(int typenum) noexcept:
    return np.NPY_CFLOAT if typenum == np.NPY_FLOAT else np.NPY_CDOUBLE


cdef int float_type(int typenum):
    """The type in which a function such as `sin` computes: floats stay, integers become the default float."""
    return typenum if category(typenum) >= 2 else default_float().num


cdef int join(int a, int b) except -2:
    """The type that holds values of both; -1 stands for none."""
    if a == b or b < 0:
        return a
    if a < 0:
        return b
    cdef int ka = category(a), kb = category(b)
    if ka != kb and not (ka == 3 and b == np.NPY_DOUBLE or kb == 3 and a == np.NPY_DOUBLE):
        return a if ka > kb else b
    return numpy.promote_types(np.PyArray_DescrFromType(a), np.PyArray_DescrFromType(b)).num


cdef int combined(int higher, int lower) except -2:
    """A type of higher rank (tensors before 0-dim tensors before numbers) keeps its width against one of its kind."""
    if higher < 0:
        return lower
    if lower < 0:
        return higher
    cdef int kh = category(higher), kl = category(lower)
    if kh >= 2:
        return complex_of(higher) if kl == 3 and kh == 2 else higher
    return join(higher, lower) if kh == 0 or kl >= 2 else higher


cdef int promoted(tuple values) except -2:
    """The type number that an operation of these tensors and numbers computes in, by PyTorch's rules."""
    cdef int dims = -1, zero = -1, number = -1, n
    cdef ndarray a
    for value in values:
        if isinstance(value, Tensor):
            a = (<Tensor> value).array
        elif isinstance(value, ndarray):
            a = <ndarray> value
        else:
            number = join(number, number_type(value))
            continue
        n = np.PyArray_TYPE(a)
        if np.PyArray_NDIM(a):
            dims = join(dims, n)
        else:
            zero = join(zero, n)
    return combined(dims, combined(zero, number))


def result_type(tensor1, tensor2):
    """The dtype of an operation of two tensors or numbers: bool < integers < floats < complex; tensors with axes outrank
    0-dim tensors, and these outrank numbers, of the same kind."""
    for value in (tensor1, tensor2):
        if not is_number(value):
            as_tensor(value, "tensor1" if value is tensor1 else "tensor2")
    return np.PyArray_DescrFromType(promoted((tensor1, tensor2)))


def promote_types(type1, type2):
    """The smallest dtype that holds values of both, where floats outrank integers of any width."""
    return np.PyArray_DescrFromType(join(numpy.dtype(type1).num, numpy.dtype(type2).num))


def can_cast(from_, to):
    """Whether a result of type `from_` may be stored as `to`: a kind may become a higher kind, not a lower one."""
    cdef int a = category(numpy.dtype(from_).num), b = category(numpy.dtype(to).num)
    return a <= b
