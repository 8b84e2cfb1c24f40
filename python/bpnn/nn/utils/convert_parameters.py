"""Parameters as one vector, and back."""
import bpnn
from bpcore.tensor import Tensor


def parameters_to_vector(parameters):
    """The elements of `parameters`, an iterable of Tensors, as one vector; gradients flow back through it."""
    return bpnn.cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec, parameters):
    """Make `parameters` views of the vector's elements, in order.

    Raises `TypeError` where `vec` is no Tensor, `ValueError` where it has too few or too many elements; then nothing has
    changed.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vec: expected a Tensor, got {type(vec).__name__}")
    parameters = list(parameters)
    total = sum(parameter.numel() for parameter in parameters)
    if vec.numel() != total or len(vec.shape) != 1:
        raise ValueError(f"vec: expected a vector of {total} elements, got shape {vec.shape}")
    values = vec.detach()
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = values[start:stop].reshape(parameter.shape)
        start = stop
