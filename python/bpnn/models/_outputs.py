"""What the Transformer models return: values by name, as `transformers` has them."""
from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any


class Later:
    """A value that is computed when somebody asks for it: the logits beside a loss that was computed without them."""

    def __init__(self, compute: Callable[[], Any]):
        self.compute = compute


class ModelOutput:
    """Results of a model: `output.logits`, `output["logits"]`, or in order, `output[0]`; what is None counts as absent.

    Which there are: see the model. `tuple(output)` unpacks them.
    """

    def __init__(self, **values: Any):
        self.__dict__["_values"] = {name: value for name, value in values.items() if value is not None}
        self.__dict__["_names"] = tuple(values)

    def _value(self, name: str) -> Any:
        value = self._values[name]
        if isinstance(value, Later):
            value = self._values[name] = value.compute()
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also of an object that has nothing yet: `copy` and `pickle` ask
            raise AttributeError(name)
        if name in self._values:
            return self._value(name)
        if name in self._names:
            return None
        raise AttributeError(f"no {name!r}; there are {', '.join(self._values)}")

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self._values:
                raise KeyError(f"no {key!r}; there are {', '.join(self._values)}")
            return self._value(key)
        names = list(self._values)
        if isinstance(key, slice):
            return tuple(self._value(name) for name in names[key])
        return self._value(names[operator.index(key)])

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[str]:
        """The names of what there is."""
        return list(self._values)

    def values(self) -> list[Any]:
        """The values in order."""
        return [self._value(name) for name in self._values]

    def items(self) -> list[tuple[str, Any]]:
        """Names with values, in order."""
        return [(name, self._value(name)) for name in self._values]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, or `default`."""
        return self._value(name) if name in self._values else default

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in order."""
        return tuple(self.values())

    def __repr__(self) -> str:
        parts = (f"{name}=…" if isinstance(value, Later) else f"{name}={value!r}" for name, value in self._values.items())
        return f"ModelOutput({', '.join(parts)})"


def only_by_name(return_dict: bool | None) -> None:
    """Raises `ValueError` where a model is asked for a plain tuple."""
    if return_dict not in (None, True):
        raise ValueError(f"return_dict: expected True or None, got {return_dict!r}; unpack tuple(output) instead")
