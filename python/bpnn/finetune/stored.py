"""A frozen base in fewer bits, for adapters in float32 on top of it (QLoRA: Dettmers et al. 2023, there with 4 bits).

    model = AutoModelForCausalLM.from_pretrained("model.gguf", store="int8")     # never as a whole in float32
    model = store_frozen(model, "bfloat16")                                      # of a model that is there already
"""
from __future__ import annotations

from typing import Any, TypeVar

from bpnn import nn
from bpnn.nn.modules.stored import StoredEmbedding, StoredLinear, Storing

Model = TypeVar("Model", bound=nn.Module)


def store_frozen(model: Model, kind: str = "int8") -> Model:
    """Keep the weights of the linear maps of `model` as "bfloat16" (half the memory) or "int8" (28 %), frozen; returns it.

    The table of tokens is kept so, too, and the map to their scores; classifiers and embeddings of positions stay as they are. So
    does what trains along, such as adapters, once something in the model is frozen. Products are computed in the type of the
    activations. Raises `ValueError` for another kind.
    """
    storing = Storing(model, kind)
    some_frozen = not all(parameter.requires_grad for parameter in model.parameters())
    for name, places in list(storing.places.items()):
        parent, child = places[0]
        if not (some_frozen and parent._modules[child].weight.requires_grad):
            storing(name)
    return model


def make_dense(model: Model) -> Model:
    """The opposite of `store_frozen`: all weights as float32, the numbers that they stood for, still frozen; returns the model."""
    shared: dict[int, Any] = {}
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):
            if isinstance(module, (StoredLinear, StoredEmbedding)):
                parent._modules[name] = made = module.dense()
                made.weight = shared.setdefault(id(module.matrix), made.weight)  # tied as they were
    return model
