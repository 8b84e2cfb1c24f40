"""Configurations of adapters: the keys of `adapter_config.json`, under PEFT's names."""
from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from bpnn.pretrained.config import _checked

from ._targets import ALL_HEADS, HEADS, model_type


@dataclass(kw_only=True)
class PeftConfig:
    """What all adapters have.

    task_type: "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", whose heads are trained along, "CAUSAL_LM", "FEATURE_EXTRACTION" or None.
    inference_mode: the adapter is not trained. modules_to_save: the ends of the names of modules that are trained whole and saved
    with the adapter. base_model_name_or_path, revision: where the model came from; only written down.
    """

    peft_type: ClassVar[str] = ""
    from_file = False  # True of a configuration that was read: its numbers are there, none need to be drawn

    task_type: str | None = None
    inference_mode: bool = False
    modules_to_save: list[str] | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.task_type not in HEADS:
            expected = ", ".join(str(task) for task in HEADS)
            raise ValueError(f"task_type: expected one of {expected}, got {self.task_type!r}")
        self.task_type = None if self.task_type is None else str(getattr(self.task_type, "value", self.task_type))
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (set, tuple)):
                setattr(self, item.name, sorted(value) if isinstance(value, set) else list(value))

    def model_class(self) -> Any:
        """The class of models with such adapters."""
        from .adapters import PeftModel

        return PeftModel

    def prepared(self, model: Any) -> Self:
        """A copy that says for this model what was left open; the head of its task is among `modules_to_save`.

        Raises `ValueError` for a name in `modules_to_save` that ends no module's.
        """
        done = copy.deepcopy(self)
        paths = [path for path, _ in model.named_modules() if path]
        for name in self.modules_to_save or ():
            if name not in ALL_HEADS and not any(path.endswith(name) for path in paths):
                raise ValueError(f"modules_to_save: no module of {type(model).__name__} ends with {name!r}")
        names = [*(done.modules_to_save or ()), *HEADS[done.task_type]]
        done.modules_to_save = list(dict.fromkeys(names)) or None
        return done

    def to_dict(self) -> dict[str, Any]:
        """What `adapter_config.json` holds."""
        return {"peft_type": self.peft_type} | {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str) -> Self:
        """Of the keys of a file, each of which must be a field. Raises `TypeError` or `ValueError` naming file and key."""
        import typing

        hints = typing.get_type_hints(cls)
        values = {key: _checked(f"{source}: {key}", hints[key], value) for key, value in content.items()}
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None


@dataclass(kw_only=True)
class TargetConfig(PeftConfig):
    """What adapters at linear maps have.

    target_modules: the ends of names, a regular expression for whole names, "all-linear", or None: the default of the
    architecture. exclude_modules: the same, of modules that get none. fan_in_fan_out: PEFT's note that weights lie as (inputs,
    outputs); seen by itself here, and written.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    fan_in_fan_out: bool = False

    def layer(self, module: Any, path: str) -> Any:
        """The module that takes the place of a linear map."""
        raise TypeError(f"{type(self).__name__} has no layer")

    def default_targets(self, kind: str) -> list[str]:
        """`target_modules` of an architecture where nothing was said. Raises `ValueError` for one without a default."""
        raise TypeError(f"{type(self).__name__} has no default_targets")

    def prepared(self, model: Any) -> Self:
        """See `PeftConfig.prepared`; also `target_modules`."""
        done = super().prepared(model)
        if not done.target_modules:
            done.target_modules = self.default_targets(model_type(model))
        done.fan_in_fan_out = model_type(model) == "gpt2"
        return done


def without_default(kind: str, table: Mapping[str, Any]) -> ValueError:
    """The error for an architecture whose linear maps must be named."""
    return ValueError(f"target_modules: expected names of linear maps, or 'all-linear', for the architecture {kind!r}; there are "
                      f"defaults for {', '.join(table)}")
