"""Where things are in a model, whatever its architecture: the table of tokens, the layers from below, the head.

A pretrained model is looked for inside what wraps it (adapters, a sentence encoder, a classifier on pooled rows); names are those
inside it. Other models are taken apart by their children, in their order: the last one that has parameters is the head.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bpnn import nn
from bpnn.models._pretrained import PreTrainedModel
from bpnn.models._token_tables import INPUTS
from bpnn.pretrained.loading import matches

HEAD = "head"


@dataclass
class LayerGroup:
    """A layer of a model: `name`, and the names and parameters that no group before it has."""

    name: str
    parameters: list[tuple[str, Any]] = field(default_factory=list)

    def numel(self) -> int:
        """How many numbers the parameters have."""
        return sum(parameter.numel() for _, parameter in self.parameters)


def pretrained_in(model: nn.Module) -> tuple[str, PreTrainedModel] | None:
    """The pretrained model in `model`, which may be itself, and the prefix of its names ("" or "base_model.model.")."""
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            return (f"{name}." if name else ""), module
    return None


def names_of(model: nn.Module) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each parameter once, with all its names: those of tied ones, and those inside the pretrained model."""
    found = pretrained_in(model)
    prefix = found[0] if found else ""
    names: dict[int, list[str]] = {}
    parameters = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameters[id(parameter)] = parameter
        forms = {name: None, name.removeprefix(prefix): None}
        names.setdefault(id(parameter), []).extend(forms)
    for key, parameter in parameters.items():
        yield tuple(names[key]), parameter


def base_of(model: nn.Module) -> nn.Module:
    """The bare pretrained model, down to the encoder in a classifier on pooled rows; else the model itself."""
    found = pretrained_in(model)
    if found is None:
        return model
    base = found[1].base_model
    while isinstance(base, PreTrainedModel) and base.base_model is not base:
        base = base.base_model
    return base


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a pretrained model from below, with their names in `model`: the items of its outermost lists of modules.

    Of a model that is no pretrained one: none.
    """
    if pretrained_in(model) is None:
        return []
    base = base_of(model)
    prefix = next(name for name, module in model.named_modules() if module is base)
    layers: list[tuple[str, nn.Module]] = []
    taken: list[str] = []
    for name, module in base.named_modules(prefix=prefix):
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in taken):
            taken.append(name)
            layers += [(f"{name}.{i}", layer) for i, layer in enumerate(module)]
    return layers


def layer_groups(model: nn.Module) -> list[LayerGroup]:
    """The parameters of a model from the bottom to the top: "embeddings", "layer.0" …, "head"; each parameter once.

    The head is what `PreTrainedModel.heads` names and all outside of the bare model. What else is not in a layer belongs to the
    embeddings before the first, and to the last layer behind it: the norm at the end. A table of tokens that the head shares is
    in the embeddings. Of other models the children that have parameters are the groups, by their names, lists of modules item by
    item. Groups without parameters are left out, but for the head of a pretrained model.
    """
    found = pretrained_in(model)
    groups = _children(model) if found is None else _pretrained(model, *found)
    seen: set[int] = set()
    for group in groups:
        kept = []
        for name, parameter in group.parameters:
            if id(parameter) not in seen:
                seen.add(id(parameter))
                kept.append((name, parameter))
        group.parameters = kept
    return [group for group in groups if group.parameters or (found is not None and group.name == HEAD)]


def _pretrained(model: nn.Module, prefix: str, inner: PreTrainedModel) -> list[LayerGroup]:
    base = base_of(model)
    inside = {id(parameter) for parameter in base.parameters()}
    layers = layers_of(model)
    groups = [LayerGroup("embeddings"), *(LayerGroup(f"layer.{i}") for i in range(len(layers)))]
    head = LayerGroup(HEAD)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        at = next((i for i, (layer, _) in enumerate(layers, 1) if name.startswith(f"{layer}.")), None)
        if at is not None:
            groups[at].parameters.append((name, parameter))
        elif id(parameter) not in inside or matches(name.removeprefix(prefix), inner.heads):
            head.parameters.append((name, parameter))
        else:  # before the layers, or behind them
            groups[-1 if _behind(name, layers) else 0].parameters.append((name, parameter))
    return [*groups, head]


def _behind(name: str, layers: list[tuple[str, nn.Module]]) -> bool:
    """Whether a parameter of the bare model belongs to the norm behind the layers; its other parts are embeddings."""
    part = name.rpartition(".")[0].rpartition(".")[2]
    return bool(layers) and part in ("layernorm", "ln_f", "norm", "layer_norm")


def _children(model: nn.Module) -> list[LayerGroup]:
    own = list(model.named_parameters(recurse=False))
    children = [(name, child) for name, child in model.named_children() if next(child.parameters(), None) is not None]
    if len(children) == 1 and not own:
        name, child = children[0]
        inner = _children(child)
        return [LayerGroup(f"{name}.{group.name}", [(f"{name}.{n}", p) for n, p in group.parameters]) for group in inner]
    groups = [LayerGroup("own", own)] if own else []
    for name, child in children:
        items = [(f"{name}.{i}", item) for i, item in enumerate(child)] if isinstance(child, nn.ModuleList) else [(name, child)]
        groups += [LayerGroup(path, list(item.named_parameters(prefix=path))) for path, item in items]
    return groups or [LayerGroup(HEAD, own)]


def token_tables(model: nn.Module) -> list[nn.Module]:
    """The modules that turn tokens into rows, each once. Raises `ValueError` for a model that reads no tokens."""
    if pretrained_in(model) is not None:
        named = (child for module in base_of(model).modules() for name, child in module.named_children() if name in INPUTS)
        tables = list(dict.fromkeys(named))
    else:
        tables = [module for module in model.modules() if isinstance(module, nn.Embedding)][:1]
    if not tables:
        raise ValueError(f"model: expected one that reads tokens, with a table of them, got {type(model).__name__}")
    return tables
