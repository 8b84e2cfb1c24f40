"""Affine maps whose frozen weight is kept in fewer bits."""
from __future__ import annotations

from typing import Any

import numpy as np

import bpnn
from bpcore.stored import KINDS, StoredMatrix, store
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.linear import Linear
from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter


class StoredLinear(Module):
    """`y = x W^T + b` with a frozen W of shape (out_features, in_features), kept as "bfloat16" or "int8".

    matrix: the `bpcore.stored.StoredMatrix` that W is. It is neither parameter nor buffer: it is not trained, not cast and not in
    `state_dict()`. bias: (out_features,), frozen too at first, or None.
    """

    def __init__(self, matrix: StoredMatrix, bias: Any = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.origin: type = Linear  # what `dense` makes of it again
        self.out_features, self.in_features = matrix.shape
        self.register_parameter("bias", bias)

    @classmethod
    def of(cls, module: Module, kind: str) -> StoredLinear:
        """The map of a `Linear`, or of a module whose weight lies (in_features, out_features) and that says so by `transposed`.

        Its weight must not be needed elsewhere: a tied one would exist twice.
        """
        weight: Any = module.weight.detach().numpy()
        bias: Any = module.bias
        made = cls(
            store(weight.T if getattr(module, "transposed", False) else weight, kind),
            None if bias is None else bias.requires_grad_(False),
        )
        made.origin = type(module)
        return made

    def forward(self, input: Any, *, activation: str | None = None) -> Any:
        """As `Linear`."""
        return F.linear(input, self.matrix, self.bias, activation)

    def dense(self) -> Any:
        """The same map with a weight of float32, frozen, as the module that it was made of."""
        weight, transposed = self.matrix.dense(), getattr(self.origin, "transposed", False)
        with init.skip_init():
            sizes = (self.out_features, self.in_features) if transposed else (self.in_features, self.out_features)
            module = self.origin(*sizes)
        module.weight = Parameter(bpnn.from_numpy(np.ascontiguousarray(weight.T) if transposed else weight), requires_grad=False)
        module.bias = self.bias
        return module.train(self.training)

    def extra_repr(self) -> str:
        """The sizes and the kind."""
        return (f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
                f"kind={self.matrix.kind}")


class Storing:
    """Replaces linear maps inside `model.base_model`, or the model, by `StoredLinear`s of a kind; called with names of weights.

    Head, embeddings, tied weights, and maps that other modules wrap in ways of their own stay as they are.
    """

    def __init__(self, model: Module, kind: str) -> None:
        self.kind = check_kind(kind)
        uses: dict[int, int] = {}
        for module in model.modules():
            for parameter in module._parameters.values():
                uses[id(parameter)] = uses.get(id(parameter), 0) + 1
        base = getattr(model, "base_model", model)
        prefix = next((name + "." for name, module in model.named_modules() if module is base and name), "")
        self.places: dict[str, tuple[Module, str]] = {}  # of the weight's name: the module's parent, and its name there
        for path, parent in base.named_modules():
            for name, module in parent._modules.items():
                fits = type(module) is Linear or getattr(module, "transposed", False)
                if fits and uses[id(module.weight)] == 1:
                    self.places[prefix + ".".join(filter(None, (path, name, "weight")))] = parent, name

    def __call__(self, name: str) -> None:
        """Do it, where the weight `name` is one that can be stored."""
        if name in self.places:
            parent, child = self.places.pop(name)
            parent._modules[child] = StoredLinear.of(parent._modules[child], self.kind)
            bpnn.empty_cache()  # what was given back is for others, not for the pool


def check_kind(kind: str, name: str = "kind") -> str:
    """`kind`; `ValueError` naming the argument for another."""
    if kind not in KINDS:
        raise ValueError(f"{name}: expected {' or '.join(KINDS)}, got {kind!r}")
    return kind
