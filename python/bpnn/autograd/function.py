"""User-defined operations with a backward of their own."""
from bpnn.autograd.mode import no_grad

from bpcore.tensor import Tensor, from_array, is_grad_enabled, record


class FunctionContext:
    """What `forward` leaves for `backward`: any attribute, and tensors through `save_for_backward`."""

    needs_input_grad: tuple = ()
    _saved: tuple = ()
    _not_differentiable: tuple = ()
    _dirty: tuple = ()
    materialize_grads = True

    def save_for_backward(self, *tensors):
        """Keep tensors (or None); backward refuses to run if one was changed in place since."""
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(f"save_for_backward: expected Tensors or None, got {type(tensor).__name__}")
        self._saved = tuple((t, None if t is None else t._version) for t in tensors)

    @property
    def saved_tensors(self):
        """The tensors that forward saved."""
        for tensor, version in self._saved:
            if tensor is not None and tensor._version != version:
                raise RuntimeError("a tensor needed for backward has been modified by an in-place operation")
        return tuple(tensor for tensor, _ in self._saved)

    def mark_non_differentiable(self, *outputs):
        """These outputs get no history."""
        self._not_differentiable = outputs

    def mark_dirty(self, *inputs):
        """Forward changed these inputs in place and returns them."""
        self._dirty = inputs

    def set_materialize_grads(self, value):
        """Whether backward gets zeros (the default) or None for outputs that no gradient reached."""
        self.materialize_grads = bool(value)


class Function:
    """An operation given by two static methods; call it through `apply`.

    >>> import bpnn
    >>> class Cube(bpnn.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x ** 3
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         x, = ctx.saved_tensors
    ...         return dy * 3 * x ** 2
    >>> x = bpnn.tensor([2.0], requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor([12.])
    """

    @staticmethod
    def forward(ctx, *args, **keywords):
        """Compute the outputs (a Tensor or a tuple) from the arguments."""
        raise TypeError("a Function must define the static method forward(ctx, *args)")

    @staticmethod
    def backward(ctx, *grads):
        """Compute the gradient of each argument of forward (None for what has none) from those of the outputs."""
        raise TypeError("a Function must define the static method backward(ctx, *grads)")

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Fill `ctx` where forward is written without one."""

    @classmethod
    def apply(cls, *args, **keywords):
        """Run forward and put the operation on the tape."""
        ctx = FunctionContext()
        ctx.needs_input_grad = tuple(
            isinstance(a, Tensor) and a.requires_grad and is_grad_enabled() for a in args
        )
        separate = cls.setup_context is not Function.setup_context
        with no_grad():
            result = cls.forward(*args, **keywords) if separate else cls.forward(ctx, *args, **keywords)
            if separate:
                cls.setup_context(ctx, args, result)
        if not any(ctx.needs_input_grad):
            return result
        single = isinstance(result, Tensor)
        given = (result,) if single else tuple(result)
        # An input that comes back unchanged must not get a new history in place of its own.
        outputs = tuple(
            from_array(t._array) if isinstance(t, Tensor) and any(t is a for a in args) and not _among(t, ctx._dirty) else t
            for t in given
        )
        tracked = [t if isinstance(t, Tensor) and not _among(t, ctx._not_differentiable)
                   and t.dtype.kind not in "biu" else None for t in outputs]
        record(tracked, [a if isinstance(a, Tensor) else None for a in args], _backward(cls, ctx, args, outputs), cls.__name__)
        return outputs[0] if single else outputs


def _among(tensor, tensors):
    return any(tensor is t for t in tensors)


def _backward(cls, ctx, args, outputs):
    """The node's callback: arrays to Tensors, `cls.backward`, checks, and back to arrays."""
    expected = [(a.shape, a.dtype) if isinstance(a, Tensor) else None for a in args]
    shapes = [(t.shape, t.dtype) if isinstance(t, Tensor) else None for t in outputs]

    def callback(grads):
        import numpy

        grads = grads if isinstance(grads, tuple) else (grads,)
        filled = []
        for g, spec in zip(grads, shapes, strict=True):
            if g is None and ctx.materialize_grads and spec is not None:
                g = numpy.zeros(*spec)
            filled.append(None if g is None else from_array(g))
        result = cls.backward(ctx, *filled)
        result = result if isinstance(result, tuple) else (result,)
        if len(result) < len(expected) or any(g is not None for g in result[len(expected):]):
            raise RuntimeError(f"{cls.__name__}.backward: expected {len(expected)} gradients, one for each argument of "
                               f"forward, got {len(result)}")
        arrays = []
        for i, (g, spec) in enumerate(zip(result, expected, strict=False)):
            if g is None or spec is None or not ctx.needs_input_grad[i]:
                arrays.append(None)
                continue
            if not isinstance(g, Tensor):
                raise TypeError(f"{cls.__name__}.backward: expected Tensors or None, got {type(g).__name__} for argument {i}")
            if g.shape != spec[0]:
                raise RuntimeError(f"{cls.__name__}.backward: gradient {i} has shape {g.shape}, expected {spec[0]}")
            arrays.append(g._array.astype(spec[1], copy=False))
        return tuple(arrays) if len(arrays) != 1 else arrays[0]

    return callback
