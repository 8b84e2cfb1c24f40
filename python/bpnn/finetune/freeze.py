"""Parameters that are not trained: by name, the first layers, all but the head; and thawed layer by layer.

    freeze(model, "*embeddings*")                      # by patterns of names
    freeze_layers(model, 4)                            # embeddings and the first four layers
    head_only(model)                                   # all but the head
    trained, total = trainable_parameters(model)
    Trainer(model, AdamW(model.parameters(), 5e-5), callbacks=[GradualUnfreezing()])

A frozen parameter gets no gradient, so no optimizer updates or decays it, and what only frozen layers need is not computed in
backward. Dropout and the running statistics of batch normalization go on in frozen layers, as in PyTorch.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bpnn import nn
from bpnn.nn.modules.stored import StoredEmbedding, StoredLinear
from bpnn.pretrained.loading import matches
from bpnn.train.callbacks import Callback

from ._structure import LayerGroup, layer_groups, layers_of, names_of

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["GradualUnfreezing", "freeze", "freeze_layers", "head_only", "trainable_parameters", "unfreeze"]


def freeze(model: nn.Module, patterns: str | Iterable[str] = "*") -> list[str]:
    """Do not train the parameters whose names match one of `patterns`; returns their names.

    Patterns are those of `fnmatch`, where `*` goes over dots; the names are the model's, inside of a wrapper for adapters those of
    the pretrained model as well. Raises `ValueError` naming a pattern that matches nothing.
    """
    return _set(model, patterns, False)


def unfreeze(model: nn.Module, patterns: str | Iterable[str] = "*") -> list[str]:
    """Train the parameters whose names match one of `patterns`; see `freeze`."""
    return _set(model, patterns, True)


def _set(model: nn.Module, patterns: str | Iterable[str], trained: bool) -> list[str]:
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    named = list(names_of(model))
    for pattern in wanted:
        if not any(matches(name, [pattern]) for names, _ in named for name in names):
            some = ", ".join(names[0] for names, _ in named[:3])
            raise ValueError(f"patterns: {pattern!r} matches none of the {len(named)} parameters ({some} …)")
    changed = []
    for names, parameter in named:
        if any(matches(name, wanted) for name in names):
            parameter.requires_grad = trained
            changed.append(names[0])
    return changed


def freeze_layers(model: nn.Module, k: int) -> list[str]:
    """Do not train the embeddings and the first `k` layers; returns the names of the parameters.

    Of a model that is no pretrained one: the first `k` of its children that have parameters. A table of tokens that is also the map
    to scores is frozen with the embeddings. Raises `ValueError` where there are not so many layers.
    """
    layers = layers_of(model)
    groups = layer_groups(model)
    count = len(layers) if layers else len(groups)
    if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= count:
        raise ValueError(f"k: expected a number of layers from 0 to {count}, got {k!r}")
    if not layers:
        return _freeze_groups(groups[:k])
    embeddings = [group for group in groups if group.name == "embeddings"]
    frozen = _freeze_groups(embeddings)
    for name, layer in layers[:k]:
        for inner, parameter in layer.named_parameters(prefix=name):
            parameter.requires_grad = False
            frozen.append(inner)
    return frozen


def head_only(model: nn.Module) -> list[str]:
    """Train nothing but the head; returns the names of its parameters.

    The head is what `PreTrainedModel.heads` names and all outside of the bare model, the pooler too; of other models the last child
    that has parameters. Raises `ValueError` for a pretrained model without one, such as a language model whose map to scores is the
    table of tokens.
    """
    *below, head = layer_groups(model)
    if not head.parameters:
        raise ValueError(
            f"model: expected one with a head of its own, got {type(model).__name__}, which has none or shares it "
            "with the table of tokens (tie_word_embeddings)"
        )
    _freeze_groups(below)
    trained = [(name, parameter) for name, parameter in head.parameters if ".original_module." not in name]  # kept by adapters
    for _, parameter in trained:
        parameter.requires_grad = True
    return [name for name, _ in trained]


def _freeze_groups(groups: Iterable[LayerGroup]) -> list[str]:
    names = []
    for group in groups:
        for name, parameter in group.parameters:
            parameter.requires_grad = False
            names.append(name)
    return names


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """(trained, total): how many numbers the parameters have that are trained, and all; tied ones count once.

    Frozen weights that `store_frozen` keeps as bfloat16 or int8 count as the numbers they stand for.
    """
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters) + _stored(model)
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad), total


def _stored(model: nn.Module) -> int:
    """The numbers of weights that are no parameters any more."""
    stored = [module for module in model.modules() if isinstance(module, (StoredLinear, StoredEmbedding))]
    matrices = {id(module.matrix): module.matrix.shape for module in stored}  # tied ones once
    return sum(rows * columns for rows, columns in matrices.values())


class GradualUnfreezing(Callback):
    """Trains the head alone first, then, epoch by epoch, layers more from the top (Howard and Ruder 2018, ULMFiT).

    After e epochs the head and the first floor(e `layers_per_epoch`) groups of `layer_groups` below it are trained; the embeddings
    are the last. The optimizer must own all that is to be trained from the start; what it does not own, or what is frozen before
    `fit`, stays as it is. A frozen parameter has no gradient: it is neither updated nor decayed, and its moments do not change.
    Which are frozen follows from the number of epochs alone, so a resumed run goes on exactly. At the end of `fit` all is trainable
    again that was before.

    layers_per_epoch: 1 as in the paper; 2 for two a time, 0.5 for one every second epoch.
    """

    def __init__(self, layers_per_epoch: float = 1.0) -> None:
        if not layers_per_epoch > 0:
            raise ValueError(f"layers_per_epoch: expected a number above 0, got {layers_per_epoch}")
        self.layers_per_epoch = layers_per_epoch
        self._chosen: list[Any] = []  # parameters to be trained sooner or later

    def trained_groups(self, model: nn.Module, epoch: int) -> list[str]:
        """The names of the groups that are trained with `epoch` epochs done, from the top."""
        names = [group.name for group in reversed(layer_groups(model)) if group.parameters]
        return names[: 1 + self._below(epoch)]

    def _below(self, epoch: int) -> int:
        return int(epoch * self.layers_per_epoch + 1e-9)  # 3 * (1 / 3) is 1

    def on_fit_start(self, trainer: Trainer) -> None:
        self._chosen = [p for p in trainer.owned_parameters() if p.requires_grad]

    def on_epoch_start(self, trainer: Trainer) -> None:
        chosen = {id(p) for p in self._chosen}
        trained = set(self.trained_groups(trainer.model, trainer.state.epoch))
        for group in layer_groups(trainer.model):
            for _, parameter in group.parameters:
                if id(parameter) in chosen:
                    parameter.requires_grad = group.name in trained
                    if not parameter.requires_grad:
                        parameter.grad = None

    def on_fit_exit(self, trainer: Trainer) -> None:
        for parameter in self._chosen:
            parameter.requires_grad = True
        self._chosen = []
