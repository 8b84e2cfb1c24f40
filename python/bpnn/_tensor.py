"""`bpnn.Tensor`: bpcore's tensor with PyTorch's methods."""
import numpy

from bpcore.dtypes import check_device, is_device, to_dtype
from bpcore.engine import run_backward
from bpcore.operand import to_type
from bpcore.tensor import Tensor as Core
from bpcore.tensor import from_array, set_tensor_type
from bpnn._inplace import InPlace
from bpnn._methods import Methods
from bpnn._printing import tensor_text


class Tensor(Methods, InPlace, Core):
    """An n-dimensional array of one dtype with a place on the tape. Make one with `bpnn.tensor` and its siblings.

    >>> import bpnn
    >>> x = bpnn.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ()

    # Python's protocols
    def __repr__(self):
        return tensor_text(self)

    def __bool__(self):
        if self.numel() != 1:
            raise RuntimeError(f"the truth of a tensor of shape {self.shape} is ambiguous; use any() or all()")
        return bool(self.item())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        value = self.item()
        if not isinstance(value, int):
            raise TypeError(f"only an integer tensor of one element is an index, got {self.dtype}")
        return int(value)

    def __complex__(self):
        return complex(self.item())

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("len() of a 0-dim tensor")
        return self.shape[0]

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("iteration over a 0-dim tensor")
        return iter(self.unbind(0))

    def __contains__(self, element):
        return bool((self._array == (element._array if isinstance(element, Core) else element)).any())

    def __format__(self, spec):
        return format(self.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return from_array(numpy.asarray(array))

    def __copy__(self):
        if not self.is_leaf:
            raise RuntimeError("copy: only leaves can be copied; use tensor.detach()")
        copy = type(self).__new__(type(self))
        Core.__init__(copy, self._array)
        copy.requires_grad = self.requires_grad
        return copy

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            raise RuntimeError("deepcopy: only leaves can be copied; use tensor.detach().clone()")
        if id(self) in memo:
            return memo[id(self)]
        copy = type(self).__new__(type(self))
        Core.__init__(copy, self._array.copy())
        copy.requires_grad = self.requires_grad
        if self.grad is not None:
            copy.grad = self.grad.__deepcopy__(memo)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol):
        raise TypeError("tensors are not pickled; write them with bpnn.save, or send tensor.numpy()")

    # the tape
    def backward(self, gradient=None, retain_graph=None, create_graph=False, inputs=None):
        """Add the gradients of this tensor to the `grad` of the leaves it was computed from; see `bpnn.autograd.backward`."""
        if gradient is None and inputs is None and not create_graph:
            run_backward([self], [None], bool(retain_graph))
            return
        from bpnn.autograd import backward

        backward(self, gradient, retain_graph, create_graph, inputs)

    def requires_grad_(self, requires_grad=True):
        """Set `requires_grad`; returns the tensor."""
        self.requires_grad = requires_grad
        return self

    # types and places
    def to(self, *args, device=None, dtype=None, non_blocking=False, copy=False, memory_format=None):
        """This tensor as another dtype: `to(dtype)`, `to(other_tensor)`, `to("cpu")`. Itself where nothing changes."""
        for arg in args:
            if isinstance(arg, Core):
                dtype = arg.dtype
            elif is_device(arg):
                device = arg
            elif arg is not None and not isinstance(arg, bool):
                dtype = to_dtype(arg)
        check_device(device)
        result = self if dtype is None else to_type(self, dtype)
        return result.clone() if copy and result is self else result

    def type(self, dtype=None, non_blocking=False):
        """This tensor as another dtype; without one, the name of its type, such as `"bpnn.FloatTensor"`."""
        if dtype is None:
            names = {"float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long", "uint8": "Byte"}
            return f"bpnn.{names.get(self.dtype.name, self.dtype.name.capitalize())}Tensor"
        return to_type(self, dtype)

    def type_as(self, other):
        """This tensor as the dtype of `other`."""
        return to_type(self, other.dtype)

    def float(self):
        """This tensor as float32."""
        return to_type(self, numpy.float32)

    def double(self):
        """This tensor as float64."""
        return to_type(self, numpy.float64)

    def half(self):
        """This tensor as float16."""
        return to_type(self, numpy.float16)

    def bfloat16(self):
        """This tensor as bfloat16."""
        return to_type(self, "bfloat16")

    def int(self):
        """This tensor as int32."""
        return to_type(self, numpy.int32)

    def long(self):
        """This tensor as int64."""
        return to_type(self, numpy.int64)

    def short(self):
        """This tensor as int16."""
        return to_type(self, numpy.int16)

    def byte(self):
        """This tensor as uint8."""
        return to_type(self, numpy.uint8)

    def char(self):
        """This tensor as int8."""
        return to_type(self, numpy.int8)

    def bool(self):
        """Whether each element is nonzero."""
        return to_type(self, numpy.bool_)

    def cpu(self):
        """This tensor: there is no other place."""
        return self

    @property
    def device(self):
        """Always `"cpu"`."""
        return "cpu"

    @property
    def is_cuda(self):
        """Always False."""
        return False

    @property
    def is_sparse(self):
        """False; a gradient of which only some rows are there (`bpcore.sparse.SparseTensor`) says True."""
        return False

    def is_floating_point(self):
        """Whether the dtype is one of floats."""
        return self.dtype.kind == "f" or self.dtype.name == "bfloat16"

    def is_complex(self):
        """Whether the dtype is complex."""
        return self.dtype.kind == "c"

    def element_size(self):
        """Bytes in an element."""
        return self.itemsize

    def nelement(self):
        """The number of elements."""
        return self.numel()

    def ndimension(self):
        """The number of axes."""
        return self.ndim

    def stride(self, dim=None):
        """How many elements lie between neighbors along each axis, or along `dim`."""
        strides = tuple(n // self.itemsize for n in self._array.strides)
        return strides if dim is None else strides[dim]

    # relatives
    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False):
        """A tensor with a copy of `data`, of this dtype unless given."""
        data = data._array if isinstance(data, Core) else data
        return from_array(numpy.array(data, self.dtype if dtype is None else to_dtype(dtype)), requires_grad)

    def new_empty(self, *size, dtype=None, device=None, requires_grad=False):
        """An uninitialised tensor of this dtype unless given."""
        return from_array(numpy.empty(_shape(size), self.dtype if dtype is None else to_dtype(dtype)), requires_grad)

    def new_zeros(self, *size, dtype=None, device=None, requires_grad=False):
        """A tensor of zeros of this dtype unless given."""
        return from_array(numpy.zeros(_shape(size), self.dtype if dtype is None else to_dtype(dtype)), requires_grad)

    def new_ones(self, *size, dtype=None, device=None, requires_grad=False):
        """A tensor of ones of this dtype unless given."""
        return from_array(numpy.ones(_shape(size), self.dtype if dtype is None else to_dtype(dtype)), requires_grad)

    def new_full(self, size, fill_value, *, dtype=None, device=None, requires_grad=False):
        """A tensor of one value of this dtype unless given."""
        dtype = self.dtype if dtype is None else to_dtype(dtype)
        return from_array(numpy.full(_shape((size,)), fill_value, dtype), requires_grad)


def _shape(size):
    return tuple(size[0]) if len(size) == 1 and not hasattr(size[0], "__index__") else size


set_tensor_type(Tensor)
