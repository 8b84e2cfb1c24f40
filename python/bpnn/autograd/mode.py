"""The switches of the tape, as context managers and decorators. Each thread has its own."""
import functools
import inspect

from bpcore.tensor import is_grad_enabled, set_grad_mode


class _Mode:
    """Sets the tape's switch on entry and restores it on exit; also a decorator of functions and generators."""

    def __init__(self, enabled):
        self._enabled = bool(enabled)
        self._before = []

    def __enter__(self):
        self._before.append(set_grad_mode(self._enabled))

    def __exit__(self, *exception):
        set_grad_mode(self._before.pop())

    def __call__(self, function):
        enabled = self._enabled
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args, **keywords):
                # The switch holds while the generator's body runs, not while its consumer does.
                iterator = function(*args, **keywords)
                try:
                    with _Mode(enabled):
                        item = next(iterator)
                    while True:
                        sent = yield item
                        with _Mode(enabled):
                            item = iterator.send(sent)
                except StopIteration as stop:
                    return stop.value
                finally:
                    iterator.close()

            return generator

        @functools.wraps(function)
        def wrapper(*args, **keywords):
            with _Mode(enabled):
                return function(*args, **keywords)

        return wrapper


class no_grad(_Mode):
    """Do not record: results have no history and leaves may be changed in place.

    >>> import bpnn
    >>> w = bpnn.ones(2, requires_grad=True)
    >>> with bpnn.no_grad():
    ...     (w * 2).requires_grad
    False
    """

    def __new__(cls, function=None):
        # `@no_grad` without parentheses decorates at once, as in PyTorch.
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self):
        super().__init__(False)


class enable_grad(no_grad):
    """Record, inside a `no_grad` block."""

    def __init__(self):
        _Mode.__init__(self, True)


class inference_mode(_Mode):
    """As `no_grad`; `inference_mode(False)` changes nothing."""

    def __new__(cls, mode=True):
        return cls()(mode) if callable(mode) else super().__new__(cls)

    def __init__(self, mode=True):
        super().__init__(is_grad_enabled() and not mode)


class set_grad_enabled(_Mode):
    """Record or not, by a flag: at once, and until the end of a `with` block where it is used as one."""

    def __init__(self, mode):
        super().__init__(mode)
        self._at_once = set_grad_mode(self._enabled)

    def __enter__(self):
        self._before.append(self._at_once)
        set_grad_mode(self._enabled)

    def __call__(self, function):
        set_grad_mode(self._at_once)
        return super().__call__(function)
