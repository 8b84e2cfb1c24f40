"""A run folder: what a training run is told, what it leaves, and how that is read back.

    config.json        format, version, task, data, options: enough to build everything again
    checkpoints/       for `bpnn train --resume`
    history.csv        a row an epoch
    model.safetensors  the weights of the best epoch
    curves.png         a picture
    metrics.json       scores on the test set; written last, so a run that has it is finished
"""
from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpnn.utils._files import next_free_folder, write_text

from .errors import CliError

FORMAT = 1


@dataclass(frozen=True)
class Run:
    folder: Path
    config: dict[str, Any]

    @classmethod
    def create(cls, out: str | None, task: str, config: dict[str, Any]) -> Run:
        """A new run folder: `out`, which must be absent or empty, else the next free of runs/TASK, runs/TASK-2, …"""
        import bpnn

        folder = _claim(Path(out)) if out is not None else next_free_folder(Path("runs"), task)
        run = cls(folder, {"format": FORMAT, "bpnn": bpnn.__version__, "task": task} | config)
        run.write_json("config.json", run.config)
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        path = Path(folder)
        if not path.is_dir():
            raise CliError(f"{path}: no such run folder")
        config = path / "config.json"
        if not config.is_file():
            raise CliError(f"{path}: not a run folder (it has no config.json)")
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CliError(f"{config}: damaged ({error})") from error
        if not isinstance(values, dict) or "format" not in values:
            raise CliError(f"{config}: not the config of a run (it names no format)")
        if values["format"] != FORMAT:
            import bpnn

            raise CliError(
                f"{path}: a run in format {values['format']}, written by bpnn {values.get('bpnn', 'of unknown version')}; "
                f"this bpnn {bpnn.__version__} reads format {FORMAT}"
            )
        for key in ("task", "data", "options"):
            if key not in values:
                raise CliError(f"{config}: damaged (it has no {key!r})")
        return cls(path, values)

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def finished(self) -> bool:
        return (self.folder / "metrics.json").is_file()

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        write_text(self.folder / name, json.dumps(values, indent=2) + "\n")

    def load_weights(self, model: Any) -> None:
        """Puts model.safetensors into `model`."""
        import bpnn

        if not self.weights.is_file():
            raise CliError(f"{self.folder}: has no model.safetensors; finish the run: bpnn train --resume {self.folder}")
        try:
            model.load_state_dict(bpnn.load(self.weights))
        except OSError:
            raise
        except Exception as error:
            raise CliError(f"{self.weights}: cannot be read as this run's model ({error})") from error


def refuse_taken(out: str | None) -> None:
    """`CliError` if `out` holds anything that a run would overwrite."""
    if out is None:
        return
    folder = Path(out)
    if (folder / "config.json").exists():
        raise CliError(
            f"{folder}: holds a run already; choose another --out, or go on with it: bpnn train --resume {folder}"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise CliError(f"{folder}: is not empty; choose another --out")


def _claim(folder: Path) -> Path:
    refuse_taken(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
