"""Analytic gradients against central differences."""
import numpy

from bpcore.engine import run_backward
from bpcore.tensor import Tensor
from bpnn.autograd.mode import no_grad


class GradcheckError(RuntimeError):
    """An analytic gradient differs from the numerical one."""


def gradcheck(func, inputs, eps=1e-6, atol=1e-5, rtol=1e-3, raise_exception=True):
    """Compare the gradients of `func(*inputs)` with central differences `(f(x + eps) - f(x - eps)) / 2 eps`.

    Every element of every input that requires grad (float64, or the differences mean nothing) is checked against every element of
    every output. Returns True; a difference beyond `atol + rtol * |numerical|` raises `GradcheckError`, or returns False with
    `raise_exception=False`.

    >>> import bpnn
    >>> x = bpnn.randn(3, dtype=bpnn.float64, requires_grad=True)
    >>> bpnn.autograd.gradcheck(lambda x: (x * x).sum(), x)
    True
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.requires_grad]
    if not checked:
        raise ValueError("inputs: expected at least one Tensor that requires grad")
    for i in checked:
        if inputs[i].dtype != numpy.float64:
            raise ValueError(f"inputs[{i}]: expected float64 (differences need its precision), got {inputs[i].dtype}")
    try:
        for message in _differences(func, inputs, checked, eps, atol, rtol):
            raise GradcheckError(message)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _evaluate(func, inputs):
    """The differentiable outputs of `func`, a list."""
    result = func(*inputs)
    result = [result] if isinstance(result, Tensor) else list(result)
    return [t for t in result if isinstance(t, Tensor) and t.dtype.kind == "f"]


def _differences(func, inputs, checked, eps, atol, rtol):
    """Messages about gradients that differ; none where all agree."""
    outputs = _evaluate(func, inputs)
    analytic = {}
    for o, output in enumerate(outputs):
        for e in range(output.numel()):
            seed = numpy.zeros(output.shape, output.dtype)
            seed.reshape(-1)[e] = 1
            grads = [None] * len(checked)
            if output.requires_grad:
                grads = run_backward([output], [seed], True, [inputs[i] for i in checked], True)
            for i, g in zip(checked, grads, strict=True):
                analytic[o, e, i] = numpy.zeros(inputs[i].shape) if g is None else numpy.array(g)
    for i in checked:
        memory = inputs[i]._array
        for position in numpy.ndindex(memory.shape):
            value = memory[position]
            sides = []
            for step in (eps, -eps):
                memory[position] = value + step
                with no_grad():
                    sides.append([numpy.array(t._array) for t in _evaluate(func, inputs)])
            memory[position] = value
            for o, (above, below) in enumerate(zip(*sides, strict=True)):
                numerical = ((above - below) / (2 * eps)).reshape(-1)
                for e, n in enumerate(numerical):
                    a = analytic[o, e, i][position]
                    if not abs(a - n) <= atol + rtol * abs(n):
                        yield (f"output {o}, element {e}, with respect to input {i} at {position}: "
                               f"analytic {a:.8g}, numerical {n:.8g}")
