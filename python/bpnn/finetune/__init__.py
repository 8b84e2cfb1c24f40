"""Fine-tuning: one file a technique, each usable alone; and the way from a pretrained model and data to a good model.

    tuned = bpnn.finetune("folder, hub name or .gguf", "reviews.csv", task="classify", method="lora")
    tuned.predict(["a moving and often funny film"])

The package itself is that function: `bpnn.finetune(…)` is `bpnn.finetune.api.finetune(…)`.
"""
from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# Where each public name is; a module is loaded when one of its names is first asked for.
_NAMES: dict[str, tuple[str, ...]] = {
    # a whole run
    "api": ("Finetuned", "Interrupted", "resume"),
    "settings": ("Settings", "SettingsError"),
    "tasks": ("TASKS", "Task"),
    "pooled": ("PooledClassifier",),
    "estimate": ("Memory", "TimeEstimate", "available_memory", "estimate_memory"),
    "best_score": ("BestScore",),
    "crossval": ("CrossValidation", "GroupKFold", "KFold", "StratifiedKFold", "cross_validate"),
    "search": ("Pruning", "best_settings", "read_space", "suggest"),
    # what is trained, and how fast
    "freeze": ("GradualUnfreezing", "freeze", "freeze_layers", "head_only", "trainable_parameters", "unfreeze"),
    "stored": ("make_dense", "store_frozen"),
    "rates": (
        "discriminative", "get_constant_schedule", "get_constant_schedule_with_warmup",
        "get_cosine_schedule_with_warmup", "get_cosine_with_hard_restarts_schedule_with_warmup",
        "get_exponential_schedule_with_warmup", "get_inverse_sqrt_schedule", "get_linear_schedule_with_warmup",
        "get_polynomial_decay_schedule_with_warmup", "get_slanted_triangular_schedule",
        "layer_groups", "layerwise_decay",
    ),
    # adapters
    "adapters": ("PeftModel", "get_peft_model"),
    "lora": ("LoraConfig", "LoraLinear"),
    "ia3": ("IA3Config", "IA3Linear"),
    "bitfit": ("bitfit",),
    "prompt": ("PromptEmbedding", "PromptTuningConfig"),
    "prefix": ("PrefixEncoder", "PrefixTuningConfig"),
    # callbacks that change batch, loss, gradients or weights
    "adversarial": ("FGSM", "PGD", "fgsm", "pgd"),
    "embedding_attacks": ("EmbeddingPGD", "FGM", "FreeLB"),
    "rdrop": ("RDrop", "symmetric_kl"),
    "smoothing": ("LabelSmoothing",),
    "l2sp": ("L2SP",),
    "mixup": ("CutMix", "Mixup"),
    "averaging": ("EMA", "SWA"),
    "stochastic_depth": ("DropPath", "StochasticDepth", "drop_path"),
    "distill": ("Distillation", "distillation_loss"),
    "student": ("student_of",),
    "replay": ("Replay",),
    "ewc": ("EWC",),
    "lwf": ("LwF",),
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bpnn.finetune' has no attribute {name!r}")
    value = getattr(import_module(f"bpnn.finetune.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Callable(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _WHERE or not isinstance(value, ModuleType):  # `freeze` is the function, not the file of that name
            super().__setattr__(name, value)

    def __call__(self, *given: Any, **options: Any) -> Any:
        from .api import finetune

        return finetune(*given, **options)


sys.modules[__name__].__class__ = _Callable
