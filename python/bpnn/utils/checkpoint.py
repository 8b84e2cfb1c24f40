"""Memory for time: activations are thrown away in forward and computed again in backward. Chen et al. 2016."""
from bpcore.engine import run_backward
from bpcore.random import default_generator
from bpcore.recompute import leaves_since, mark
from bpcore.tensor import Tensor, is_grad_enabled, record
from bpnn.autograd.mode import enable_grad

__all__ = ["checkpoint", "checkpoint_sequential"]


def checkpoint(function, *args, use_reentrant=None, preserve_rng_state=True, **kwargs):
    """`function(*args, **kwargs)`, of which only inputs and outputs are kept: backward calls the function again.

    Arguments and results are tensors, numbers and anything else, also in lists, tuples and dictionaries. Gradients go to the
    arguments and to all leaves that the function uses, such as a module's parameters; `backward`, `autograd.grad` and hooks see
    what they see without. `preserve_rng_state`: the second call draws the same random numbers as the first (dropout).
    `use_reentrant` is PyTorch's; both ways are the same here.

    Other side effects of the function happen twice (the running statistics of batch normalization). Raises `RuntimeError` where the
    function uses a tensor computed outside that is not an argument; and in backward where what it uses was changed in place, or
    where the second call gives other outputs.

    >>> import bpnn
    >>> from bpnn.utils.checkpoint import checkpoint
    >>> x = bpnn.tensor([1.0, 2.0], requires_grad=True)
    >>> checkpoint(lambda x: (x.exp() ** 2).sum(), x).backward()
    """
    if not is_grad_enabled():
        return function(*args, **kwargs)
    piece = _Piece(function, args, kwargs, preserve_rng_state)
    result = piece.first()
    outputs = []
    _collect(result, outputs)
    moving = [i for i, t in enumerate(outputs) if t.requires_grad]
    if not moving:
        return result
    leaves, closed = leaves_since(outputs, piece.begin)
    if not closed:
        raise RuntimeError("function: it uses a tensor that requires grad, was computed outside and is not among the arguments; "
                           "pass it as an argument")
    piece.outline(outputs, moving, leaves)
    # Without their history the outputs keep nothing else alive.
    fresh = [t.detach() if t.requires_grad else t for t in outputs]
    record([fresh[i] for i in moving], piece.sources + piece.leaves, piece.backward, "CheckpointBackward")
    return _rebuild(result, iter(fresh))


def checkpoint_sequential(functions, segments, input, use_reentrant=None, preserve_rng_state=True):
    """A `Sequential`, or a list of functions, one after the other, cut into `segments`; each but the last is a `checkpoint`."""
    functions = list(functions.children()) if hasattr(functions, "children") else list(functions)
    if not 1 <= segments <= max(1, len(functions)):
        raise ValueError(f"segments: expected a number in [1, {len(functions)}], got {segments}")

    def run(begin, end):
        def forward(x):
            for function in functions[begin:end]:
                x = function(x)
            return x
        return forward

    size, end = len(functions) // segments, 0
    for begin in range(0, size * (segments - 1), size):
        end = begin + size
        input = checkpoint(run(begin, end), input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state)
    return run(end, len(functions))(input)


class _Piece:
    """One call: what it was called with, and how to do it again."""

    def __init__(self, function, args, kwargs, preserve_rng_state):
        self.function, self.given = function, (args, kwargs)
        tensors = []
        _collect(self.given, tensors)
        self.arguments = tensors
        self.sources = [t for t in tensors if t.requires_grad]
        self.random = default_generator().get_state() if preserve_rng_state else None

    def call(self):
        """The result, and the leaves that stand for the arguments that require grad."""
        stand_ins = []
        for t in self.arguments:
            copy = t.detach()
            copy.requires_grad = t.requires_grad
            stand_ins.append(copy)
        args, kwargs = _rebuild(self.given, iter(stand_ins))
        self.begin = mark()
        return self.function(*args, **kwargs), [t for t in stand_ins if t.requires_grad]

    def first(self):
        result, self.stand_ins = self.call()
        return result

    def outline(self, outputs, moving, leaves):
        """Keep what backward compares and needs; drop the rest."""
        self.moving, self.shapes = moving, [t.shape for t in outputs]
        self.leaves = [t for t in leaves if not any(t is own for own in self.stand_ins)]
        self.versions = [(t, t._version) for t in self.arguments + self.leaves]
        self.begin = self.stand_ins = None

    def again(self):
        """The second call, with the random numbers of the first."""
        if self.random is None:
            return self.call()
        now = default_generator().get_state()
        default_generator().set_state(self.random)
        try:
            return self.call()
        finally:
            default_generator().set_state(now)

    def backward(self, grads):
        """From the gradients of the outputs (arrays) to those of the arguments and of the leaves."""
        if any(t._version != version for t, version in self.versions):
            raise RuntimeError("CheckpointBackward: a tensor needed for backward has been modified by an in-place operation")
        with enable_grad():
            result, stand_ins = self.again()
        outputs = []
        _collect(result, outputs)
        if [t.shape for t in outputs] != self.shapes:
            raise RuntimeError(f"checkpoint: the second call of the function gave outputs of shapes {[t.shape for t in outputs]}, "
                               f"the first {self.shapes}")
        grads = grads if isinstance(grads, tuple) else (grads,)
        pairs = [(outputs[i], g) for i, g in zip(self.moving, grads, strict=True) if g is not None and outputs[i].requires_grad]
        wanted = stand_ins + self.leaves
        del result, outputs
        found = run_backward([t for t, _ in pairs], [g for _, g in pairs], False, wanted, True)
        return tuple(found) if len(found) != 1 else found[0]


def _collect(value, found):
    """Append every tensor in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, found)


def _rebuild(value, tensors):
    """The same nest with other tensors in place of its own, in the order of `_collect`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, (list, tuple)):
        items = [_rebuild(item, tensors) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        items = {key: _rebuild(item, tensors) for key, item in value.items()}
        if type(value) is dict:
            return items
        copy = value.copy()
        copy.update(items)
        return copy
    return value
