"""`Module`: a tree of parameters, buffers and a forward."""
from collections import OrderedDict, namedtuple

from bpnn.nn.modules.hooks import BackwardWatch
from bpnn.nn.parameter import Parameter

from bpcore.tensor import RemovableHandle, Tensor, is_grad_enabled

IncompatibleKeys = namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])


class Module:
    """The base class of every network.

    Assign `Parameter`s and `Module`s as attributes in `__init__` (after `super().__init__()`) and write `forward`. A Tensor that is
    saved but not trained is a buffer (`register_buffer`).

    >>> import bpnn
    >>> from bpnn import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 3)
    ...     def forward(self, x):
    ...         return self.fc2(self.fc1(x).relu())
    >>> Net()(bpnn.zeros(2, 4)).shape
    (2, 3)
    """

    training: bool

    def __init__(self):
        # One dictionary a kind, in the order of assignment; plain attributes live in __dict__ as usual.
        state = self.__dict__
        state["training"] = True
        state["_parameters"] = {}
        state["_buffers"] = {}
        state["_modules"] = {}
        state["_not_saved"] = set()
        state["_forward_hooks"] = []
        state["_forward_pre_hooks"] = []
        state["_backward_hooks"] = []

    def forward(self, *args, **keywords):
        """Compute the outputs; every subclass defines it."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def __call__(self, *args, **keywords):
        state = self.__dict__
        if not (state["_forward_hooks"] or state["_forward_pre_hooks"] or state["_backward_hooks"]):
            return self.forward(*args, **keywords)
        return self._call_with_hooks(args, keywords)

    def _call_with_hooks(self, args, keywords):
        watch = BackwardWatch(self) if self._backward_hooks and is_grad_enabled() else None
        for (hook,) in list(self._forward_pre_hooks):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        if watch:
            args = watch.inputs(args)
        result = self.forward(*args, **keywords)
        for (hook,) in list(self._forward_hooks):
            changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return watch.outputs(result) if watch else result

    # --- attributes --------------------------------------------------------------------------------------------------------

    def __setattr__(self, name, value):
        state = self.__dict__
        kinds = (state.get("_parameters"), state.get("_modules"), state.get("_buffers"))
        if isinstance(value, Parameter):
            home = kinds[0]
        elif isinstance(value, Module):
            home = kinds[1]
        else:
            # None keeps a name's kind; a Tensor assigned to a buffer's name stays a buffer.
            home = next((k for k in kinds if k is not None and name in k), None)
            if home is not None and value is not None and not (home is kinds[2] and isinstance(value, Tensor)):
                expected = "Parameter" if home is kinds[0] else "Module" if home is kinds[1] else "Tensor"
                raise TypeError(f"{name}: expected a {expected} or None, got {type(value).__name__}")
        if home is None:
            if isinstance(value, (Parameter, Module)):
                raise AttributeError(f"{name}: call super().__init__() before assigning parameters and modules")
            state[name] = value
            return
        for other in kinds:
            if other is not home:
                other.pop(name, None)
        state.pop(name, None)
        home[name] = value

    def __getattr__(self, name):
        # Only reached where normal look-up fails.
        state = self.__dict__
        for kind in ("_parameters", "_modules", "_buffers"):
            home = state.get(kind)
            if home is not None and name in home:
                return home[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name):
        for home in (self._parameters, self._modules, self._buffers):
            if name in home:
                del home[name]
                self._not_saved.discard(name)
                return
        super().__delattr__(name)

    def __dir__(self):
        return sorted({*super().__dir__(), *self._parameters, *self._modules, *self._buffers})

    def _check_name(self, name):
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"name: expected a non-empty string without dots, got {name!r}")
        if hasattr(self, name) and not any(name in d for d in (self._parameters, self._modules, self._buffers)):
            raise KeyError(f"name: {type(self).__name__} has an attribute {name!r} already")

    def register_parameter(self, name, param):
        """Add a parameter (None: a place for one, saved by no one)."""
        self._check_name(name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"param: expected a Parameter or None, got {type(param).__name__}")
        self._parameters[name] = param

    def register_buffer(self, name, tensor, persistent=True):
        """Add a tensor that moves and is saved with the module but is not trained (`persistent=False`: not saved)."""
        self._check_name(name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"tensor: expected a Tensor or None, got {type(tensor).__name__}")
        self._buffers[name] = tensor
        (self._not_saved.discard if persistent else self._not_saved.add)(name)

    def add_module(self, name, module):
        """Add a child."""
        self._check_name(name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module: expected a Module or None, got {type(module).__name__}")
        self._modules[name] = module

    register_module = add_module

    # --- walking -----------------------------------------------------------------------------------------------------------

    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        """`(dotted name, module)` of this module and everything below, each module once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self):
        """This module and everything below."""
        for _, module in self.named_modules():
            yield module

    def named_children(self):
        """`(name, module)` of the direct children."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self):
        """The direct children."""
        for _, child in self.named_children():
            yield child

    def _named(self, kind, prefix, recurse, remove_duplicate):
        seen = set()
        for path, module in self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]:
            for name, tensor in module.__dict__[kind].items():
                if tensor is None or (remove_duplicate and id(tensor) in seen):
                    continue
                seen.add(id(tensor))
                yield f"{path}.{name}" if path else name, tensor

    def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
        """`(dotted name, Parameter)`; a parameter that is shared comes once."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse=True):
        """The parameters, what an optimizer takes."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix="", recurse=True, remove_duplicate=True):
        """`(dotted name, Tensor)` of the buffers."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse=True):
        """The buffers."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target):
        """The module of a dotted name; "" is this one."""
        module = self
        for name in target.split(".") if target else []:
            module = module._modules.get(name)
            if module is None:
                raise AttributeError(f"target: {type(self).__name__} has no module {target!r}")
        return module

    def get_parameter(self, target):
        """The parameter of a dotted name."""
        path, _, name = target.rpartition(".")
        parameter = self.get_submodule(path)._parameters.get(name)
        if parameter is None:
            raise AttributeError(f"target: {type(self).__name__} has no parameter {target!r}")
        return parameter

    def get_buffer(self, target):
        """The buffer of a dotted name."""
        path, _, name = target.rpartition(".")
        buffer = self.get_submodule(path)._buffers.get(name)
        if buffer is None:
            raise AttributeError(f"target: {type(self).__name__} has no buffer {target!r}")
        return buffer

    # --- saving and loading ------------------------------------------------------------------------------------------------

    def state_dict(self, *, prefix="", keep_vars=False):
        """Every parameter and persistent buffer under its dotted name. They share memory with the module."""
        state = OrderedDict()
        for path, module in self.named_modules(prefix=prefix.rstrip("."), remove_duplicate=False):
            for name, tensor in module._saved():
                state[f"{path}.{name}" if path else name] = tensor if keep_vars else tensor.detach()
        return state

    def _saved(self):
        """`(name, tensor)` of what this module itself saves."""
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is not None and name not in self._not_saved:
                yield name, tensor

    def load_state_dict(self, state_dict, strict=True, assign=False):
        """Copy values into the parameters and buffers (`assign=True`: take over the given memory).

        Raises one `RuntimeError` that names every missing, unexpected and misshapen tensor; nothing is changed then. Returns
        `(missing_keys, unexpected_keys)`, which `strict=False` allows.
        """
        own = self.state_dict(keep_vars=True)
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append("missing: " + ", ".join(missing))
        if strict and unexpected:
            problems.append("unexpected: " + ", ".join(unexpected))
        for name, tensor in own.items():
            given = state_dict.get(name)
            if given is not None and not isinstance(given, Tensor):
                problems.append(f"{name}: expected a Tensor, got {type(given).__name__}")
            elif given is not None and given.shape != tensor.shape:
                problems.append(f"{name}: expected shape {tensor.shape}, got {given.shape}")
        if problems:
            raise RuntimeError(f"state_dict does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for name, tensor in own.items():
            if name in state_dict:
                given = state_dict[name].detach()
                if assign:
                    tensor.data = given.data
                else:
                    tensor.data.copy_(given)
                tensor._changed()
        return IncompatibleKeys(missing, unexpected)

    # --- modes and types ---------------------------------------------------------------------------------------------------

    def train(self, mode=True):
        """Training mode for this module and everything below (dropout drops, batch-norm updates); returns self."""
        if not isinstance(mode, bool):
            raise ValueError(f"mode: expected a bool, got {mode!r}")
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self):
        """Evaluation mode; returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Train every parameter or none; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none=True):
        """Forget the gradients of the parameters (`set_to_none=False`: fill them with zeros)."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()

    def apply(self, fn):
        """Call `fn(module)` on everything below, children first, then on this module; returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _convert(self, convert):
        """Replace the memory of every parameter, gradient and buffer by `convert(tensor)`."""
        for module in self.modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    gradient, tensor.grad = tensor.grad, None
                    tensor.data = convert(tensor.data)
                    if gradient is not None:
                        tensor.grad = convert(gradient)
        return self

    def to(self, *args, dtype=None, device=None, **keywords):
        """Convert floating-point parameters and buffers to a dtype; `"cpu"` is the only device. Returns self."""
        from bpcore.dtypes import check_device, is_device, to_dtype

        for argument in (*args, device):
            if is_device(argument):
                check_device(argument)
            elif argument is not None and not isinstance(argument, bool):
                dtype = argument.dtype if isinstance(argument, Tensor) else argument
        if dtype is None:
            return self
        dtype = to_dtype(dtype)
        if dtype.kind in "biu":
            raise TypeError(f"dtype: expected a floating-point type, got {dtype}")
        return self._convert(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def type(self, dtype):
        """Convert every parameter and buffer to `dtype`; returns self."""
        return self._convert(lambda t: t.to(dtype))

    def float(self):
        """Floating-point parameters and buffers to float32; returns self."""
        return self.to("float32")

    def double(self):
        """Floating-point parameters and buffers to float64; returns self."""
        return self.to("float64")

    def cpu(self):
        """Returns self: everything is on the CPU."""
        return self

    # --- hooks -------------------------------------------------------------------------------------------------------------

    def register_forward_hook(self, hook):
        """Call `hook(module, args, output)` after forward; what it returns, unless None, replaces the output."""
        self._forward_hooks.append((hook,))
        return RemovableHandle(self._forward_hooks, self._forward_hooks[-1])

    def register_forward_pre_hook(self, hook):
        """Call `hook(module, args)` before forward; what it returns, unless None, replaces the arguments."""
        self._forward_pre_hooks.append((hook,))
        return RemovableHandle(self._forward_pre_hooks, self._forward_pre_hooks[-1])

    def register_full_backward_hook(self, hook):
        """Call `hook(module, grad_input, grad_output)`, tuples, once the gradients of the module's positional inputs are there;
        what it returns, unless None, replaces `grad_input`."""
        self._backward_hooks.append((hook,))
        return RemovableHandle(self._backward_hooks, self._backward_hooks[-1])

    # --- words -------------------------------------------------------------------------------------------------------------

    def extra_repr(self):
        """The arguments shown by repr."""
        return ""

    def __repr__(self):
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}({extra}", *lines]) + "\n)"
