"""Backward hooks of modules: identities on the tape around a module, which see its gradients."""
from bpcore.tensor import Tensor, from_array, record


class BackwardWatch:
    """Follows one call of a module and runs its backward hooks when both gradients are there."""

    def __init__(self, module):
        self._module = module
        self._grad_output = None
        self._watches_inputs = False

    def inputs(self, args):
        """The arguments, passed through an identity whose backward runs the hooks."""
        places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        if not any(args[i].requires_grad for i in places):
            return args
        self._watches_inputs = True
        copies = [from_array(args[i]._array) for i in places]

        def arrived(grads):
            grads = grads if isinstance(grads, tuple) else (grads,)
            given = self._run(tuple(None if g is None else from_array(g) for g in grads))
            result = tuple(None if g is None else g._array for g in given)
            return result if len(result) > 1 else result[0]

        record(copies, [args[i] for i in places], arrived, "BackwardHook")
        args = list(args)
        for i, copy in zip(places, copies, strict=True):
            args[i] = copy
        return tuple(args)

    def outputs(self, result):
        """The result, passed through an identity whose backward keeps the gradients for the hooks."""
        single = isinstance(result, Tensor)
        outputs = (result,) if single else result
        if not isinstance(outputs, tuple) or not any(isinstance(t, Tensor) and t.requires_grad for t in outputs):
            return result
        places = [i for i, t in enumerate(outputs) if isinstance(t, Tensor)]
        copies = [from_array(outputs[i]._array) for i in places]

        def arrived(grads):
            grads = grads if isinstance(grads, tuple) else (grads,)
            self._grad_output = tuple(None if g is None else from_array(g) for g in grads)
            if not self._watches_inputs:
                self._run((None,))
            return grads if len(grads) > 1 else grads[0]

        record(copies, [outputs[i] for i in places], arrived, "BackwardHook")
        if single:
            return copies[0]
        outputs = list(outputs)
        for i, copy in zip(places, copies, strict=True):
            outputs[i] = copy
        return tuple(outputs)

    def _run(self, grad_input):
        for (hook,) in list(self._module._backward_hooks):
            changed = hook(self._module, grad_input, self._grad_output)
            if changed is not None:
                grad_input = changed if isinstance(changed, tuple) else (changed,)
        return grad_input
