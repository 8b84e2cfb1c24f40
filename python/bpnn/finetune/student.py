"""Students for distillation: some of the layers of a pretrained model."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from bpnn import nn
from bpnn.models._pretrained import PreTrainedModel
from bpnn.nn import init

__all__ = ["student_of"]


def student_of(model: Any, layers: int | Sequence[int]) -> Any:
    """A copy of a pretrained model that has only some of its layers, with their weights; all else is as in the teacher.

    layers: the numbers of the layers to keep, from 0 and in order, or how many: the first, the last, and evenly between (Sanh et
    al. 2019 begin with every other layer). For any model of `bpnn.models` with a stack of layers: BERT, RoBERTa, DistilBERT,
    GPT-2, LLaMA, ViT and classifiers on them. Layer i of the student was layer `layers[i]`, so its hidden state i + 1 belongs to
    the teacher's `layers[i] + 1`: `layer_map=[(0, 0), *((i + 1, l + 1) for i, l in enumerate(layers))]`.

    Raises `TypeError` for another model, `ValueError` for layers that it lacks.
    """
    if not isinstance(model, PreTrainedModel) or not hasattr(model.config, "num_hidden_layers"):
        raise TypeError(f"model: expected a pretrained model with num_hidden_layers, got {type(model).__name__}")
    count = int(model.config.num_hidden_layers)
    stacks = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not stacks:
        raise TypeError(f"model: expected a list of {count} layers, {type(model).__name__} has none")
    stack = min(stacks, key=lambda name: name.count(".")) + "."
    if isinstance(layers, int):
        if not 1 <= layers <= count:
            raise ValueError(f"layers: expected 1 to {count}, got {layers}")
        kept = [round(i * (count - 1) / max(layers - 1, 1)) for i in range(layers)]
    else:
        kept = [int(layer) for layer in layers]
    if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= count:
        raise ValueError(f"layers: expected numbers of 0 to {count - 1} in order, got {layers}")
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(kept)
    given = {name: getattr(model, name) for name in ("pooling", "max_seq_length") if hasattr(model, name)}
    if isinstance(getattr(model, "dropout", None), nn.Dropout) and given:
        given["dropout"] = model.dropout.p
    if hasattr(model, "pooler"):
        given["add_pooling_layer"] = model.pooler is not None
    with init.skip_init():
        student = type(model)(config, **given)
    student.to(next(iter(model.parameters())).dtype)
    state = {}
    for name, value in model.state_dict().items():
        number, _, rest = name.removeprefix(stack).partition(".") if name.startswith(stack) else ("", "", "")
        if not number:
            state[name] = value
        elif int(number) in kept:
            state[f"{stack}{kept.index(int(number))}.{rest}"] = value
    missing, unexpected = student.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise TypeError(f"model: {', '.join([*missing, *unexpected])} fit no {type(model).__name__} of fewer layers")
    return student.train(model.training)
