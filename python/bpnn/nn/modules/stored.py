"""Affine maps and tables whose frozen weight is kept in fewer bits."""
from __future__ import annotations

from typing import Any

import numpy as np

import bpnn
from bpcore.stored import KINDS, StoredMatrix, store
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.linear import Linear
from bpnn.nn.modules.module import Module
from bpnn.nn.modules.sparse import Embedding
from bpnn.nn.parameter import Parameter


class StoredLinear(Module):
    """`y = x W^T + b` with a frozen W of shape (out_features, in_features), kept as "bfloat16" or "int8".

    matrix, or weight: the `bpcore.stored.StoredMatrix` that W is. It is no parameter and no buffer: not trained, not cast, not in
    `state_dict()`. bias: (out_features,), frozen too at first, or None.
    """

    def __init__(self, matrix: StoredMatrix, bias: Any = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.origin: type = Linear  # what `dense` makes of it again
        self.out_features, self.in_features = matrix.shape
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> StoredMatrix:
        """`matrix`."""
        return self.matrix

    @classmethod
    def of(cls, module: Module, kind: str, matrix: StoredMatrix | None = None) -> StoredLinear:
        """The map of a `Linear`, or of a module whose weight lies (in_features, out_features) and that says so by `transposed`.

        matrix: its weight, where that is stored already.
        """
        weight: Any = module.weight.detach().numpy()
        bias: Any = module.bias
        if matrix is None:
            matrix = store(weight.T if getattr(module, "transposed", False) else weight, kind)
        made = cls(matrix, None if bias is None else bias.requires_grad_(False))
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


class StoredEmbedding(Embedding):
    """A frozen table of (num_embeddings, embedding_dim) whose rows are kept in fewer bits: see `StoredLinear`."""

    def __init__(self, matrix: StoredMatrix, padding_idx: int | None = None) -> None:
        Module.__init__(self)
        self.matrix, self.padding_idx = matrix, padding_idx
        self.num_embeddings, self.embedding_dim = matrix.shape

    @property
    def weight(self) -> StoredMatrix:
        """`matrix`."""
        return self.matrix

    def forward(self, input: Any) -> Any:
        """The rows at `input`, (*): (*, embedding_dim). Raises `IndexError` for what is no row."""
        return bpnn.from_numpy(self.matrix.take(np.asarray(input.numpy(), np.int64)))

    def dense(self) -> Embedding:
        """The same table in float32, frozen."""
        return Embedding.from_pretrained(bpnn.from_numpy(self.matrix.dense()), padding_idx=self.padding_idx).train(self.training)

    def extra_repr(self) -> str:
        """The sizes and the kind."""
        return f"{self.num_embeddings}, {self.embedding_dim}, kind={self.matrix.kind}"


class Storing:
    """Replaces linear maps inside `model.base_model`, or the model, by `StoredLinear`s of a kind; called with names of weights.

    The table of tokens of a model that has one becomes a `StoredEmbedding`, and the map to their scores is stored, too; tied ones
    share their matrix. Other heads, other tied weights, and maps that other modules wrap in ways of their own stay as they are.
    """

    def __init__(self, model: Any, kind: str) -> None:
        self.kind = check_kind(kind)
        base = getattr(model, "base_model", model)
        holders: dict[int, list[tuple[str, Module, str]]] = {}  # of each weight: its names, their modules' parents, names there
        inside = {id(module) for module in base.modules()}
        for path, parent in model.named_modules():
            for name, module in parent._modules.items():
                weight = None if module is None else module._parameters.get("weight")
                if weight is not None:
                    holders.setdefault(id(weight), []).append((".".join(filter(None, (path, name, "weight"))), parent, name))
        self.places: dict[str, list[tuple[Module, str]]] = {}  # of the weight's names: where its modules are
        for found in holders.values():
            modules = [parent._modules[name] for _, parent, name in found]
            tokens = [(type(module), name) in TABLES for (_, _, name), module in zip(found, modules)]
            linear = type(modules[0]) is Linear or getattr(modules[0], "transposed", False)
            if all(tokens) or (len(found) == 1 and linear and id(modules[0]) in inside):
                where = [(parent, name) for _, parent, name in found]
                self.places |= {path: where for path, _, _ in found}

    def __call__(self, name: str) -> None:
        """Do it, where the weight `name` is one that can be stored."""
        made: Any = None
        for parent, child in self.places.get(name, ()):
            module: Any = parent._modules[child]
            if type(module) is Embedding:
                made = made or store(module.weight.detach().numpy(), self.kind)
                parent._modules[child] = StoredEmbedding(made, module.padding_idx)
            else:
                parent._modules[child] = new = StoredLinear.of(module, self.kind, made)
                made = new.matrix
            del module
        if made is not None:
            self.places = {key: value for key, value in self.places.items() if value is not self.places[name]}
            bpnn.empty_cache()  # what was given back is for others, not for the pool


TOKENS = ("word_embeddings", "wte", "embed_tokens")  # how the architectures call the table of tokens,
SCORES = ("lm_head", "decoder", "vocab_projector")  # and the map back to it
TABLES = {*((Embedding, name) for name in TOKENS), *((Linear, name) for name in SCORES)}


def check_kind(kind: str, name: str = "kind") -> str:
    """`kind`; `ValueError` naming the argument for another."""
    if kind not in KINDS:
        raise ValueError(f"{name}: expected {' or '.join(KINDS)}, got {kind!r}")
    return kind
