"""Gradients: `backward`, `grad`, `Function`, `gradcheck`, and the switches of the tape."""
from bpnn.autograd.function import Function
from bpnn.autograd.gradcheck import GradcheckError, gradcheck
from bpnn.autograd.mode import enable_grad, inference_mode, no_grad, set_grad_enabled

import numpy as np

from bpcore.engine import run_backward
from bpcore.sparse import SparseTensor
from bpcore.tensor import Tensor, from_array, is_grad_enabled

__all__ = [
    "Function", "GradcheckError", "backward", "enable_grad", "grad", "gradcheck", "inference_mode", "is_grad_enabled",
    "no_grad", "set_grad_enabled",
]


def _as_list(name, value, length=None):
    """A list of Tensors and Nones from one of them or a sequence."""
    items = [value] if value is None or isinstance(value, Tensor) else list(value)
    for item in items:
        if item is not None and not isinstance(item, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(item).__name__}")
    if length is not None and len(items) != length:
        if value is None:
            return [None] * length
        raise ValueError(f"{name}: expected {length} gradients, one for each output, got {len(items)}")
    return items


def _arrays(name, value, length):
    return [None if item is None else item.numpy(force=True) for item in _as_list(name, value, length)]


def _refuse_second_order(create_graph):
    if create_graph:
        raise RuntimeError("create_graph=True: gradients of gradients are not available; expected create_graph=False")


def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None):
    """Add the gradients of `tensors` to the `grad` of the leaves they were computed from.

    `grad_tensors` are the gradients of some scalar with respect to each of `tensors`; they may be left out for tensors of one
    element. With `inputs`, only the `grad` of these tensors is added to. Raises `RuntimeError` where a tensor needed was changed
    in place or its graph was freed by an earlier backward (`retain_graph=True` keeps it).
    """
    _refuse_second_order(create_graph)
    tensors = _as_list("tensors", tensors)
    grads = _arrays("grad_tensors", grad_tensors, len(tensors))
    if inputs is None:
        run_backward(tensors, grads, bool(retain_graph))
        return
    inputs = _as_list("inputs", inputs)
    if not inputs:
        raise RuntimeError("inputs: expected at least one tensor, got none")
    for tensor, gradient in zip(inputs, run_backward(tensors, grads, bool(retain_graph), inputs, True), strict=True):
        if gradient is not None:
            gradient = np.asarray(gradient)
            total = gradient.copy() if tensor.grad is None else np.asarray(tensor.grad) + gradient
            tensor.grad = from_array(total)


def grad(outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, allow_unused=False):
    """The gradients of `outputs` with respect to `inputs`, a tuple of Tensors (of SparseTensors for tables used with
    `sparse=True`); no `grad` attribute is touched.

    Raises `RuntimeError` where an input was not used, unless `allow_unused=True` (its gradient is then None).

    >>> import bpnn
    >>> x = bpnn.tensor([1.0, 2.0], requires_grad=True)
    >>> bpnn.autograd.grad((x * x).sum(), x)
    (tensor([2., 4.]),)
    """
    _refuse_second_order(create_graph)
    outputs, inputs = _as_list("outputs", outputs), _as_list("inputs", inputs)
    gradients = run_backward(
        outputs, _arrays("grad_outputs", grad_outputs, len(outputs)), bool(retain_graph), inputs, allow_unused
    )
    return tuple(g if g is None or type(g) is SparseTensor else from_array(g.copy()) for g in gradients)
