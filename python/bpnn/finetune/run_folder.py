"""The folder of a fine-tuning run: what it is told, what it leaves, and the checks by which it goes on exactly.

    config.json      format, version, data and base model with checksums, all options, the task's state: enough to build all again
    checkpoints/     what is trained, the optimizer and the random numbers, for `resume`
    history.csv      a row an epoch
    model/           the model in Hugging Face's layout, or the adapter's files in PEFT's
    README.md        the model card
    curves.png       a picture; worst.csv  the worst mistakes, with their places in the data
    metrics.json     scores; written last, so a run that has it is finished
"""
from __future__ import annotations

import dataclasses
import json
import math
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.data import DataError
from bpnn.utils._files import next_free_folder, write_text

from .settings import Settings, SettingsError

__all__ = ["RunFolder", "checksum_of_examples", "checksum_of_weights"]

FORMAT = 1
KIND = "finetune"


class RunFolder:
    """A run's folder and the content of its config.json."""

    def __init__(self, path: str | os.PathLike[str], config: dict[str, Any]) -> None:
        self.path, self.config = Path(path), config

    @classmethod
    def create(cls, out: str | None, task: str, config: Mapping[str, Any]) -> RunFolder:
        """A new folder: `out`, which must be absent or empty, else the next free of runs/TASK, runs/TASK-2, …"""
        path = _claim(Path(out)) if out is not None else next_free_folder(Path("runs"), task)
        told = {"format": FORMAT, "bpnn": bpnn.__version__, "task": KIND, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **config}
        run = cls(path, told)
        run.write_json("config.json", told)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder of a run, finished or not. Raises `SettingsError` naming what is wrong with it."""
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise SettingsError(f"{folder}: not the folder of a run (it has no config.json)")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise SettingsError(f"{folder / 'config.json'}: damaged ({error})") from None
        if not isinstance(config, dict) or config.get("task") != KIND:
            raise SettingsError(f"{folder}: not the folder of a fine-tuning run")
        if config.get("format") != FORMAT:
            raise SettingsError(f"{folder}: a run in format {config.get('format')}; this bpnn {bpnn.__version__} reads {FORMAT}")
        if missing := [key for key in ("data", "base", "options", "state") if not isinstance(config.get(key), dict)]:
            raise SettingsError(f"{folder / 'config.json'}: damaged (it has no {missing[0]!r})")
        return cls(folder, config)

    @property
    def settings(self) -> Settings:
        return Settings.build(self.config["options"], source=str(self.path / "config.json"))

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def write_json(self, name: str, values: Any) -> None:
        """Write values to a file; numbers that are not finite, which JSON does not know, as null."""
        write_text(self.path / name, json.dumps(_finite(values), indent=2, ensure_ascii=False) + "\n")

    def check_same(self, data: Mapping[str, Any], base: Mapping[str, Any]) -> None:
        """Raises where data or base model are not those that the run began with: `DataError`, `SettingsError`."""
        ours = self.config["data"]
        if data["crc32"] != ours["crc32"]:
            raise DataError(
                f"{self.path}: was trained on other data ({_counts(ours)} examples from {ours['source']}) "
                f"than found in {data['source']} ({_counts(data)})"
            )
        ours = self.config["base"]
        if base["crc32"] != ours["crc32"]:
            raise SettingsError(f"{self.path}: was trained on another base model than {base['path']} is now (its weights differ)")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _counts(data: Mapping[str, Any]) -> str:
    return " + ".join(str(data[part]) for part in ("train", "validation", "test"))


def refuse_taken(out: str | os.PathLike[str] | None) -> None:
    """`SettingsError` if `out` holds anything that a run would overwrite."""
    if out is None:
        return
    folder = Path(out)
    if (folder / "config.json").exists():
        again = f"bpnn finetune --resume {folder}"
        raise SettingsError(f"{folder}: holds a run already; choose another --out, or go on with it: {again}")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise SettingsError(f"{folder}: is not empty; choose another --out")


def _claim(folder: Path) -> Path:
    refuse_taken(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- checksums -------------------------------------------------------------------------------------------------------------


def checksum_of_examples(parts: Mapping[str, Sequence[Any]]) -> int:
    """CRC-32 of all that examples say, in their order; where their files are does not count."""
    checksum = 0
    for part, examples in parts.items():
        checksum = zlib.crc32(part.encode(), checksum)
        for example in examples:
            checksum = zlib.crc32(_said(example).encode(), checksum)
    return checksum


def _said(example: Any) -> str:
    values = dataclasses.asdict(example) if dataclasses.is_dataclass(example) and not isinstance(example, type) else {"": example}
    values.pop("where", None)
    if "path" in values:
        values["path"] = os.path.basename(str(values["path"]))
    return json.dumps(values, ensure_ascii=False, default=str, sort_keys=True)


def checksum_of_weights(model: Any) -> int:
    """CRC-32 of a model's weights and buffers, those kept in fewer bits too, in the order of their names."""
    arrays = {name: [tensor.detach().numpy()] for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        parts = getattr(getattr(module, "matrix", None), "parts", None)
        if parts is not None:
            arrays[f"{name}.matrix"] = list(parts)
    checksum = 0
    for name in sorted(arrays):
        checksum = zlib.crc32(name.encode(), checksum)
        for array in arrays[name]:
            checksum = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, checksum)
    return checksum
