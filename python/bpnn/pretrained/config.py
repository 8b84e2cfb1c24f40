"""`config.json`: a model's sizes and settings under Hugging Face's keys.

A model declares its own as a dataclass:

    @dataclass
    class BertConfig(PretrainedConfig):
        model_type = "bert"
        hidden_size: int = 768
        layer_norm_eps: float = 1e-12
"""
import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from bpnn.utils._files import write_text

from .safetensors_file import read_json

CONFIG_NAME = "config.json"


def read_config(folder_or_file: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a model folder's `config.json`.

    Raises `FileNotFoundError` naming the folder; `ValueError` naming the file where it is no JSON object.
    """
    path = os.fspath(folder_or_file)
    if os.path.isdir(path):
        path = os.path.join(path, CONFIG_NAME)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file; a model folder has a {CONFIG_NAME}")
    return read_json(path)


def write_config(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Write `config` to `config.json` in a folder, made where it is missing; keys in order, as transformers writes them."""
    import json

    os.makedirs(folder, exist_ok=True)
    write_text(os.path.join(os.fspath(folder), CONFIG_NAME), json.dumps(dict(config), indent=2, sort_keys=True) + "\n")


class AnyKey(type):
    """Calling a configuration's class takes every key that a `config.json` may have, as `from_dict` does."""

    def __call__(cls: Any, *given: Any, **keys: Any) -> Any:
        """`from_dict` of keywords; places have no names, so the dataclass refuses them."""
        return super().__call__(*given, **keys) if given else cls.from_dict({**keys.pop("extra", {}), **keys})  # type: ignore[misc]


@dataclass(kw_only=True)
class PretrainedConfig(metaclass=AnyKey):
    """The base of models' configurations: fields are keys of `config.json`; keys that are no fields are kept in `extra`.

    model_type: the file's name of the architecture. also: names of architectures that are the same. aliases: other names of fields,
    such as GPT-2's {"hidden_size": "n_embd"}; they are read, asked for and set like the field, and are not written.
    """

    model_type: ClassVar[str] = ""
    also: ClassVar[Sequence[str]] = ()
    aliases: ClassVar[Mapping[str, str]] = {}

    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, source: str = "config", **changes: Any) -> Self:
        """The configuration of the content of a `config.json`; `changes` go first. `source` is named in errors.

        Raises `ValueError` for another `model_type`, or two names of one field that differ; `TypeError` for a value of the wrong
        type. Both name the key.
        """
        content = dict(config)
        found = changes.pop("model_type", content.pop("model_type", cls.model_type))
        if cls.model_type and found not in (cls.model_type, *cls.also):
            expected = " or ".join(map(repr, (cls.model_type, *cls.also)))
            raise ValueError(f"{source}: model_type is {found!r}, {cls.__name__} reads {expected}")
        values = cls.fields_of(content, changes, source=source)
        if not cls.model_type and found:
            values["extra"] = {"model_type": found, **values["extra"]}
        made: Self = type.__call__(cls, **values)
        if found != cls.model_type and cls.model_type:
            made.__dict__["model_type"] = found
        return made

    @classmethod
    def fields_of(cls, *given: Mapping[str, Any], source: str) -> dict[str, Any]:
        """The fields for some keys, `extra` among them; of several tables the later go first. Raises as `from_dict` does."""
        hints = typing.get_type_hints(cls)
        fields = {item.name for item in dataclasses.fields(cls)} - {"extra"}
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for content in given:
            read: dict[str, Any] = {}
            for key, value in content.items():
                name = cls.aliases.get(key, key)
                if name not in fields:
                    extra[key] = value
                    continue
                if name in read and read[name] != value:
                    raise ValueError(f"{source}: {key} is {value!r}, but {name}, another name of it, is {read[name]!r}")
                read[name] = _checked(f"{source}: {key}", hints[name], value)
            values |= read
        return {**values, "extra": extra}

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], *, revision: str | None = None, **changes: Any) -> Self:
        """The configuration of a model folder, a `config.json`, a model of the Hugging Face hub, a GGUF or a llama2.c file."""
        from .hub import resolve
        from .sources import open_pretrained

        path = resolve(name_or_folder, revision=revision, patterns=[CONFIG_NAME])
        if os.path.isdir(path):
            path = os.path.join(path, CONFIG_NAME)
        content = read_config(path) if path.endswith(".json") else open_pretrained(path).config
        return cls.from_dict(content, source=path, **changes)

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds: every field, and the keys of `extra`."""
        result = {"model_type": self.model_type} if self.model_type else {}
        result |= {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "extra"}
        return {**result, **self.extra}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` into a folder."""
        write_config(folder, self.to_dict())

    def __setattr__(self, name: str, value: Any) -> None:
        name = self.aliases.get(name, name)
        if name in self.__dataclass_fields__ or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            self.extra[name] = value

    def __getattr__(self, name: str) -> Any:  # fields are found before this is asked
        if name in type(self).aliases:
            return getattr(self, self.aliases[name])
        extra = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"{type(self).__name__} has no key {name!r}")


def _checked(where: str, hint: Any, value: Any) -> Any:
    """`value`, where its type is what a field asks for."""
    value = value.item() if isinstance(value, np.generic) else value
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    allowed = [item for kind in kinds if typing.get_origin(kind) is typing.Literal for item in typing.get_args(kind)]
    plain = tuple(typing.get_origin(kind) or kind for kind in kinds if typing.get_origin(kind) is not typing.Literal)
    if Any in plain or value in allowed:
        return value
    if isinstance(value, bool):
        fits = bool in plain
    else:
        fits = isinstance(value, plain) or (isinstance(value, int) and float in plain)
        fits = fits or (isinstance(value, list) and tuple in plain)
    if not fits:
        names = [*map(repr, allowed), *("null" if kind is types.NoneType else kind.__name__ for kind in plain)]
        raise TypeError(f"{where}: expected {' or '.join(names)}, got {value!r}")
    if isinstance(value, int) and not isinstance(value, bool) and float in plain and int not in plain:
        return float(value)
    return value
