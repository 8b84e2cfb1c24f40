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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

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


@dataclass(kw_only=True)
class PretrainedConfig:
    """The base of models' configurations: fields are keys of `config.json`; keys that are no fields are kept in `extra`.

    model_type: the file's name of the architecture. renamed: other names of fields, such as GPT-2's {"n_embd": "hidden_size"};
    they are read, can be asked for as attributes, and are what is written where the file had them. aliases: more names that are
    read and can be asked for, and are not written.
    """

    model_type: ClassVar[str] = ""
    renamed: ClassVar[Mapping[str, str]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}

    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, source: str = "config", **changes: Any) -> Self:
        """The configuration of the content of a `config.json`; `changes` go first. `source` is named in errors.

        Raises `ValueError` for another `model_type`, or two names of one field that differ; `TypeError` for a value of the wrong
        type. Both name the key.
        """
        content = {**config, **changes}
        found = content.pop("model_type", cls.model_type)
        if cls.model_type and found != cls.model_type:
            raise ValueError(f"{source}: model_type is {found!r}, {cls.__name__} reads {cls.model_type!r}")
        hints = typing.get_type_hints(cls)
        names = {item.name for item in dataclasses.fields(cls)} - {"extra"}
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {} if cls.model_type else {"model_type": found} if found else {}
        for key, value in content.items():
            name = cls.renamed.get(key) or cls.aliases.get(key, key)
            if name not in names:
                extra[key] = value
                continue
            if name in values and values[name] != value and key not in changes:
                raise ValueError(f"{source}: {key} is {value!r}, but {name}, another name of it, is {values[name]!r}")
            values[name] = _checked(f"{source}: {key}", hints[name], value)
        return cls(**values, extra=extra)

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
        for other, name in self.renamed.items():
            result[other] = result.pop(name)
        return {**result, **self.extra}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` into a folder."""
        write_config(folder, self.to_dict())

    def __getattr__(self, name: str) -> Any:  # fields are found before this is asked
        for table in (type(self).renamed, type(self).aliases):
            if name in table:
                return getattr(self, table[name])
        extra = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"{type(self).__name__} has no key {name!r}")


def _checked(where: str, hint: Any, value: Any) -> Any:
    """`value`, where its type is what a field asks for."""
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
