"""What goes together: checked before anything is read, so that a mistake costs a second and not an epoch."""
from __future__ import annotations

from typing import Any

from .settings import ADAPTERS, FIELDS, Settings, SettingsError

__all__ = ["check_together"]

LOW_RANK = ("lora", "dora")
# Which methods, or tasks, an option says something to.
FOR_METHODS: dict[str, tuple[str, ...]] = {
    "rank": LOW_RANK, "alpha": LOW_RANK, "lora_dropout": LOW_RANK, "rslora": LOW_RANK, "targets": (*LOW_RANK, "ia3"),
    "virtual_tokens": ("prompt", "prefix"), "merge": (*LOW_RANK, "ia3"), "freeze": ("frozen",), "freeze_layers": ("frozen",),
    "layers_per_epoch": ("gradual",), "layer_decay": ("full", "frozen", "gradual"),
    "stochastic_depth": ("full", "frozen", "gradual"),
}  # fmt: skip
TEXTS = ("classify", "regress", "tokens", "qa", "embed", "lm")
LOGITS = ("classify", "tokens", "qa", "lm", "image")
FOR_TASKS: dict[str, tuple[str, ...]] = {
    "text_pair": ("classify", "regress"), "pooling": ("classify", "regress", "embed"), "labels": ("classify", "tokens", "image"),
    "max_length": TEXTS, "mixup": ("image",), "cutmix": ("image",), "label_smoothing": LOGITS,
    "r_drop": LOGITS, "augment": ("classify", "regress", "image"),
    "stride": ("qa",), "max_answer_length": ("qa",), "no_answer_threshold": ("qa",), "standardize": ("regress",),
    "loss": ("embed",), "completion_only": ("lm",), "mask_probability": ("lm",), "max_new_tokens": ("lm",),
    "teacher": ("classify", "regress", "image", "lm"),
}  # fmt: skip
ADVERSARIAL_TASKS = {"fgm": TEXTS, "freelb": TEXTS, "pgd": (*TEXTS, "image")}
# An option that says something only beside another.
NEEDS = {"adversarial_epsilon": "adversarial", "temperature": "teacher", "distill_weight": "teacher", "search": "trials"}
HEADLESS = ("lm", "embed")  # tasks whose models have no head of their own


def changed(settings: Settings, name: str) -> bool:
    """Whether an option is not as by default."""
    return bool(getattr(settings, name) != FIELDS[name].default)


def check_together(settings: Settings) -> None:
    """Raises `SettingsError` for options that contradict each other or would be ignored."""
    s = settings
    for name, methods in FOR_METHODS.items():
        if changed(s, name) and s.method not in methods:
            raise SettingsError(f"{name}: goes with method {_any_of(methods)}, not with {s.method}")
    for name, tasks in FOR_TASKS.items():
        if changed(s, name) and s.task not in tasks:
            raise SettingsError(f"{name}: goes with task {_any_of(tasks)}, not with {s.task}")
    for name, other in NEEDS.items():
        if changed(s, name) and getattr(s, other) is None:
            raise SettingsError(f"{name}: goes with {other}, which is not given")
    if s.adversarial is not None and s.task not in (able := ADVERSARIAL_TASKS[s.adversarial]):
        raise SettingsError(f"adversarial: {s.adversarial} goes with task {_any_of(able)}, not with {s.task}")
    if s.base != "float32" and s.method not in (*ADAPTERS, "head"):
        raise SettingsError(f"base: {s.base} is for frozen weights, method {s.method} trains them; choose lora, say")
    if s.merge and s.base != "float32":
        raise SettingsError(f"merge: adapters cannot be merged into a base of {s.base}; leave merge or base out")
    if s.method == "frozen" and s.freeze is None and s.freeze_layers is None:
        raise SettingsError("method: frozen needs freeze (patterns of names) or freeze_layers (a number)")
    if s.method == "head" and s.task in HEADLESS:
        raise SettingsError(f"method: head cannot train for task {s.task}, whose models have no head of their own")
    _check_pairs(s)


def _check_pairs(s: Settings) -> None:
    for one, other in (
        ("ema", "swa"), ("mixup", "cutmix"), ("folds", "trials"), ("mixup", "label_smoothing"), ("cutmix", "label_smoothing"),
        ("mixup", "teacher"), ("cutmix", "teacher"), ("mixup", "r_drop"), ("cutmix", "r_drop"), ("teacher", "r_drop"),
        ("folds", "validation"), ("folds", "test"),
    ):
        if changed(s, one) and changed(s, other):
            raise SettingsError(f"{one}: does not go with {other}; leave one of them out")
    if s.data is not None and s.train is not None:
        raise SettingsError("train: does not go with data, which is split; give train, validation and test, or data")
    if s.patience is not None and not (s.validation or s.validation_share or _is_folder(s.data)):
        raise SettingsError("patience: needs a validation part; give validation_share above 0")


def _is_folder(data: Any) -> bool:
    import os

    return data is not None and os.path.isdir(data)


def _any_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
