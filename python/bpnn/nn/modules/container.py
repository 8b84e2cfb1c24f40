"""Modules that hold modules."""
from collections import OrderedDict

from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter


def _plain(module):
    """Whether a call of `module` is its forward and nothing else."""
    return not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


class Sequential(Module):
    """Modules one after the other: `Sequential(a, b)` or `Sequential(OrderedDict(name=module))`.

    A linear, convolution or batch-norm layer and an activation behind it that it can apply itself (`fused_activations` of its
    class) run as one operation; the numbers are the same.

    >>> import bpnn
    >>> from bpnn import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))(bpnn.zeros(3, 4)).shape
    (3, 2)
    """

    def __init__(self, *args):
        super().__init__()
        if len(args) == 1 and isinstance(args[0], dict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(args):
                self.add_module(str(i), module)

    def forward(self, input):
        """Pass `input` through every module in order."""
        waiting, fusable = None, ()         # a module whose activation may follow, and which it can apply
        for module in self._modules.values():
            if waiting is not None:
                fused = getattr(module, "fused_activation", None)
                if fused in fusable and _plain(module):
                    input = waiting.forward(input, activation=fused)
                    waiting = None
                    continue
                input = waiting.forward(input)
                waiting = None
            fusable = type(module).__dict__.get("fused_activations", ())    # a subclass may have a forward of its own
            if fusable and _plain(module):
                waiting = module
            else:
                input = module(input)
        return input if waiting is None else waiting.forward(input)

    def append(self, module):
        """Add a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules):
        """Add modules at the end; returns self."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index, module):
        """Put a module before position `index`; returns self."""
        modules = list(self._modules.values())
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def _renumber(self, modules):
        self._modules.clear()
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return list(self._modules.values())[index]

    def __setitem__(self, index, module):
        setattr(self, list(self._modules)[index], module)

    def __delitem__(self, index):
        names = list(self._modules)[index]
        for name in [names] if isinstance(names, str) else names:
            del self._modules[name]
        self._renumber(list(self._modules.values()))


class ModuleList(Module):
    """A list of modules whose parameters are found."""

    def __init__(self, modules=None):
        super().__init__()
        self.extend(modules or ())

    def append(self, module):
        """Add a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules):
        """Add modules at the end; returns self."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index, module):
        """Put a module before position `index`."""
        modules = list(self)
        modules.insert(index, module)
        self._modules.clear()
        self.extend(modules)

    def pop(self, index):
        """Remove and return the module at `index`."""
        module = self[index]
        del self[index]
        return module

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def __contains__(self, module):
        return module in self._modules.values()

    def __getitem__(self, index):
        modules = list(self._modules.values())
        return type(self)(modules[index]) if isinstance(index, slice) else modules[index]

    def __setitem__(self, index, module):
        setattr(self, list(self._modules)[index], module)

    def __delitem__(self, index):
        modules = list(self)
        del modules[index]
        self._modules.clear()
        self.extend(modules)

    def __add__(self, other):
        return type(self)([*self, *other])


class ModuleDict(Module):
    """A dictionary of modules whose parameters are found."""

    def __init__(self, modules=None):
        super().__init__()
        self.update(modules or {})

    def update(self, modules):
        """Add the modules of a mapping or of `(name, module)` pairs."""
        for name, module in dict(modules).items():
            self[name] = module

    def __getitem__(self, name):
        return self._modules[name]

    def __setitem__(self, name, module):
        if name in self._modules:
            self._modules[name] = module
        else:
            self.add_module(name, module)

    def __delitem__(self, name):
        del self._modules[name]

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules)

    def __contains__(self, name):
        return name in self._modules

    def keys(self):
        """The names."""
        return self._modules.keys()

    def values(self):
        """The modules."""
        return self._modules.values()

    def items(self):
        """`(name, module)` pairs."""
        return self._modules.items()

    def pop(self, name):
        """Remove and return the module called `name`."""
        return self._modules.pop(name)

    def clear(self):
        """Remove every module."""
        self._modules.clear()


class ParameterList(Module):
    """A list of parameters that are found."""

    def __init__(self, values=None):
        super().__init__()
        self.extend(values or ())

    def append(self, value):
        """Add a parameter at the end; returns self."""
        self.register_parameter(str(len(self)), value if isinstance(value, Parameter) else Parameter(value))
        return self

    def extend(self, values):
        """Add parameters at the end; returns self."""
        for value in values:
            self.append(value)
        return self

    def __len__(self):
        return len(self._parameters)

    def __iter__(self):
        return iter(self._parameters.values())

    def __getitem__(self, index):
        return list(self._parameters.values())[index]
