"""What is trained: from a pretrained model and the settings to the model that a trainer gets, and its groups of parameters."""
from __future__ import annotations

import os
from typing import Any

from bpnn import nn

from .settings import ADAPTERS, Settings, SettingsError
from .stored import store_frozen

__all__ = ["prepare_model"]

VIRTUAL = ("prompt", "prefix")
ARGUMENTS = {"k": "freeze_layers", "patterns": "freeze", "target_modules": "targets"}  # of functions: the settings

# PEFT's names of the tasks, which it writes into an adapter's configuration
TASK_TYPES = {
    "classify": "SEQ_CLS", "regress": "SEQ_CLS", "tokens": "TOKEN_CLS", "qa": "QUESTION_ANS", "embed": "FEATURE_EXTRACTION",
    "lm": "CAUSAL_LM", "image": None,
}  # fmt: skip


def prepare_model(model: Any, settings: Settings) -> Any:
    """`model` with what the method adds, and frozen what it does not train; what to train and to save from now on.

    Raises `SettingsError` naming the setting that does not fit the model.
    """
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    if settings.gradient_checkpointing:
        if not hasattr(model, "gradient_checkpointing_enable"):
            raise SettingsError(f"gradient_checkpointing: {type(model).__name__} cannot compute its layers again")
        model.gradient_checkpointing_enable()
    # Virtual tokens begin as rows of the table, before that is stored; and only what a head leaves frozen is stored.
    late = settings.method in (*VIRTUAL, "head")
    if settings.base != "float32" and not late:
        store_frozen(model, settings.base)
    try:
        model = _with_method(model, settings)
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        name, colon, rest = str(error).partition(": ")
        if colon and name in ARGUMENTS:
            raise SettingsError(f"{ARGUMENTS[name]}: {rest}") from None
        raise SettingsError(f"method {settings.method}: {error}") from None
    if settings.base != "float32" and late:
        store_frozen(model, settings.base)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SettingsError(f"method {settings.method}: leaves nothing to train")
    return model


def _with_method(model: Any, settings: Settings) -> Any:
    if settings.method in ADAPTERS:
        from .adapters import get_peft_model

        return get_peft_model(model, adapter_config(settings))
    if settings.method == "head":
        from .freeze import head_only

        head_only(model)
    elif settings.method == "bitfit":
        from .bitfit import bitfit

        bitfit(model)
    elif settings.method == "frozen":
        from .freeze import freeze, freeze_layers

        if settings.freeze_layers is not None:
            freeze_layers(model, settings.freeze_layers)
        if settings.freeze is not None:
            freeze(model, settings.freeze)
    return model


def adapter_config(settings: Settings) -> Any:
    """The configuration of the method's adapters, with PEFT's names."""
    from bpnn import finetune as known

    place = str(settings.model)
    base = os.path.abspath(place) if os.path.exists(place) else place  # for PEFT's AutoPeftModel…, which looks for it there
    common: dict[str, Any] = {"task_type": TASK_TYPES[settings.task], "base_model_name_or_path": base}
    if settings.method in ("lora", "dora", "ia3") and settings.targets is not None:
        common["target_modules"] = "all-linear" if settings.targets == ["all-linear"] else settings.targets
    if settings.method in ("lora", "dora"):
        return known.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.lora_dropout, use_rslora=settings.rslora,
            use_dora=settings.method == "dora", **common,
        )
    if settings.method == "ia3":
        return known.IA3Config(**common)
    kind = known.PromptTuningConfig if settings.method == "prompt" else known.PrefixTuningConfig
    return kind(num_virtual_tokens=settings.virtual_tokens, **common)


def set_dropout(model: Any, p: float) -> None:
    """Give all dropouts of a model the probability `p`, those of attention too."""
    found = 0
    for module in model.modules():
        names = ("p",) if isinstance(module, nn.Dropout) else ("dropout", "dropout_p")  # the latter: numbers of attention
        for name in names:
            if isinstance(getattr(module, name, None), (int, float)):
                setattr(module, name, p)
                found += 1
    if not found:
        raise SettingsError(f"dropout: {type(model).__name__} has none")
