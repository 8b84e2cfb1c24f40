"""BitFit: only the biases of a model are trained, and its head (Ben Zaken et al. 2022)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from bpnn import nn

from ._targets import ALL_HEADS

__all__ = ["bitfit"]

Model = TypeVar("Model", bound=nn.Module)


def bitfit(model: Model, modules_to_save: Sequence[str] | None = None) -> Model:
    """Freeze all of `model` but its biases and its head; returns it.

    modules_to_save: the ends of the names of modules that are trained whole; None: the heads of classifiers and of question
    answering ("classifier", "score", "qa_outputs"). Shifts of normalizations are biases; LLaMA, which has none, keeps the head.
    Raises `ValueError` where nothing would be trained.
    """
    names = ALL_HEADS if modules_to_save is None else tuple(modules_to_save)
    whole = [path + "." for path, _ in model.named_modules() if path and path.endswith(names)]
    trained = 0
    for path, parameter in model.named_parameters():
        parameter.requires_grad = path.rpartition(".")[2] == "bias" or path.startswith(tuple(whole))
        trained += parameter.requires_grad
    if not trained:
        raise ValueError(f"model: expected biases, or modules called {', '.join(names)}; {type(model).__name__} has none of them")
    return model
