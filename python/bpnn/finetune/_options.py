"""Options as fields of a dataclass: what each is, how a value for it is checked, and how it is read from YAML."""
from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, field
from typing import Any


class SettingsError(ValueError):
    """A setting that does not exist, has a wrong value, or does not go with another; one line for the user."""


def option(
    default: Any, help: str, group: str, kind: type = str, *, choices: Sequence[str] = (), low: float = -math.inf,
    high: float = math.inf, above: bool = False, many: bool = False, metavar: str | None = None,
) -> Any:
    """A field of `Settings`. kind: of its value, or with `many` of each. Numbers lie from `low` (or above it) to `high`."""
    told = {"help": help, "group": group, "kind": kind, "choices": tuple(choices), "low": low, "high": high, "above": above,
            "many": many, "metavar": metavar}  # fmt: skip
    return field(default=default, metadata=told)


def flag_of(name: str) -> str:
    """`batch_size` as `--batch-size`."""
    return "--" + name.replace("_", "-")


def nearest(name: str, known: Sequence[str]) -> str:
    """` (did you mean 'lr'?)`, or nothing where no known name is like it."""
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def known(fields: Mapping[str, Any], given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`given` by names of fields; `-` stands for `_`. Raises `SettingsError` naming a key that is none, and the nearest."""
    values = {}
    for key, value in given.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            raise SettingsError(f"{source}: unknown key {str(key)!r}{nearest(name, list(fields))}")
        values[name] = value
    return values


def check(item: Field[Any], value: Any, source: str = "") -> Any:
    """`value` as a field wants it; `SettingsError` naming `source` and the key, what was expected and what came."""
    told = item.metadata
    where = f"{source}: {item.name}" if source else item.name
    if value is None:
        if item.default is None:
            return None
        raise SettingsError(f"{where}: expected {_expected(told)}, got nothing")
    if told["many"]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, (list, tuple)) or not value:
            raise SettingsError(f"{where}: expected a list, got {value!r}")
        return [_one(told, part, where) for part in value]
    return _one(told, value, where)


def _one(told: Mapping[str, Any], value: Any, where: str) -> Any:
    kind = told["kind"]
    wrong = SettingsError(f"{where}: expected {_expected(told)}, got {value!r}")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind is str:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, (int, float)) and told["many"] and not isinstance(value, bool):
            value = str(value)  # labels: 0, 1
        if not isinstance(value, str) or (told["choices"] and value not in told["choices"]):
            close = nearest(value, told["choices"]) if isinstance(value, str) else ""
            raise SettingsError(f"{wrong}{close}")
        return value
    try:
        if isinstance(value, bool) or (kind is int and int(value) != float(value)):
            raise ValueError
        number = kind(value)  # YAML takes 5e-5 for a text
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if not (told["low"] < number if told["above"] else told["low"] <= number) or not number <= told["high"] or number == math.inf:
        raise wrong
    return number


def _expected(told: Mapping[str, Any]) -> str:
    if told["choices"]:
        return f"one of {', '.join(told['choices'])}"
    kind = told["kind"]
    if kind is bool:
        return "true or false"
    if kind is str:
        return "a text"
    limits = []
    if told["low"] > -math.inf:
        limits.append(f"above {told['low']:g}" if told["above"] else f"at least {told['low']:g}")
    if told["high"] < math.inf:
        limits.append(f"at most {told['high']:g}")
    return " ".join(["a whole number" if kind is int else "a number", " and ".join(limits)]).strip()


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys of a YAML file. Raises `SettingsError` naming the file and the line; `ImportError` says what to install."""
    try:
        import yaml
    except ImportError:
        raise ImportError("reading YAML needs PyYAML: pip install 'bpnn[finetune]'") from None
    name = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = yaml.safe_load(file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise SettingsError(f"{name}{line}: no YAML ({getattr(error, 'problem', None) or error})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: expected text in UTF-8") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{name}: expected keys and values, got {type(content).__name__}")
    return content
