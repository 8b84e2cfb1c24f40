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
    "stored": ("make_dense", "store_frozen"),
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
    def __call__(self, model: Any, data: Any, **options: Any) -> Any:
        from .api import finetune

        return finetune(model, data, **options)


sys.modules[__name__].__class__ = _Callable
