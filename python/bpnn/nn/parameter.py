"""Tensors that a module trains, and tensors that it only keeps."""
from bpnn._tensor import Tensor

from bpcore.tensor import Tensor as CoreTensor
from bpcore.tensor import from_array


class Parameter(Tensor):
    """A leaf that a `Module` finds by itself: assigned as an attribute, it is in `parameters()` and `state_dict()`.

    Shares the memory of `data`; requires grad unless told otherwise.
    """

    def __init__(self, data=None, requires_grad=True):
        if data is not None and not isinstance(data, CoreTensor):
            data = from_array(data)
        super().__init__(data)
        self.requires_grad = requires_grad

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            memo[id(self)] = Parameter(self.data.clone(), self.requires_grad)
        return memo[id(self)]

    def __repr__(self):
        return "Parameter containing:\n" + super().__repr__()
