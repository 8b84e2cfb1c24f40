"""Checkpoints: all that a run needs to go on as if it had never stopped.

A checkpoint is a folder `step-000000100` of one safetensors file for each component and a `manifest.json` with their sizes and
SHA-256 sums. It is written under a temporary name, each file is brought to the disk, the manifest last, and then the folder
gets its name in one step. A process killed anywhere in between leaves the checkpoints that were there before.

>>> import bpnn
>>> from bpnn.train.checkpoint import get_rng_states, load_checkpoint, save_checkpoint
>>> path = save_checkpoint("run/checkpoints", 100, {"model": {"weight": bpnn.ones(3)}, "rng": get_rng_states()}, {"loss": 0.5})
>>> path.name
'step-000000100'
>>> checkpoint = load_checkpoint("run/checkpoints")
>>> checkpoint.step, checkpoint.info["loss"], checkpoint["model"]["weight"].tolist()
(100, 0.5, [1.0, 1.0, 1.0])
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..random import get_rng_state, set_rng_state
from ..serialization import load, save_new
from ..utils._files import sync_file, sync_folder

FORMAT = "bpnn checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
TEMPORARY = ".writing-"  # what a killed write or removal leaves; the next write clears it away
NAME = re.compile(r"step-(\d{9,})(?:-(\d+))?")
COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class CheckpointError(ValueError):
    """A checkpoint is missing or damaged, or of another version."""


class VersionError(CheckpointError):
    """A checkpoint is whole but of a version that this bpnn does not read."""


@dataclass(frozen=True)
class Checkpoint(Mapping[str, Any]):
    """A checkpoint's components by name, with its `step`, its `info` and the `path` it was read from."""

    path: Path
    step: int
    info: dict[str, Any]
    components: dict[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        if name not in self.components:
            raise KeyError(f"{self.path} has no component {name!r}; it has {', '.join(self.components)}")
        return self.components[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.components)

    def __len__(self) -> int:
        return len(self.components)


# --- writing --------------------------------------------------------------------------------------------------------------

def save_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    components: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
    *,
    keep: int | None = None,
    best: str | None = None,
    mode: str = "min",
) -> Path:
    """Write a checkpoint of `step` into `folder` (made where missing) and return its path.

    components: what to keep by name, each anything that `bpnn.save` takes: state_dicts of model, optimizer, scheduler and
    loader, `get_rng_states()`. info: numbers and text to read without the components, such as metrics. keep, best, mode: afterwards
    `prune_checkpoints(folder, keep, best, mode)`, where `keep` is given.

    One process at a time writes to a folder. Raises `TypeError` for what cannot be saved and `OSError` where the disk is full;
    the folder's checkpoints are then what they were.
    """
    if not isinstance(step, (int, np.integer)) or isinstance(step, bool) or step < 0:
        raise ValueError(f"step: expected an integer of 0 or more, got {step!r}")
    for name in components:
        if not isinstance(name, str) or not COMPONENT.fullmatch(name):
            raise ValueError(f"components: expected names of letters, digits, '_' and '-', got {name!r}")
    if keep is not None:
        _check_pruning(keep, mode)
    try:
        told = json.dumps(dict(info or {}))
    except (TypeError, ValueError) as error:
        raise TypeError(f"info: expected numbers, text, lists and dictionaries ({error})") from None
    home = Path(folder)
    _make_folder(home)
    _clear_leftovers(home)
    draft = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=home))
    try:
        draft.chmod(home.stat().st_mode & 0o777)  # mkdtemp makes it the owner's alone
        files = {}
        for name, content in components.items():
            path = draft / f"{name}.safetensors"
            save_new(content, path)
            files[path.name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
        manifest = {"format": FORMAT, "version": VERSION, "step": int(step), "info": json.loads(told), "files": files}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")
        sync_file(draft / MANIFEST)
        sync_folder(draft)
        final = _free_name(home, int(step))
        os.rename(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(home)
    if keep is not None:
        prune_checkpoints(home, keep, best, mode)
    return final


def prune_checkpoints(folder: str | os.PathLike[str], keep: int, best: str | None = None, mode: str = "min") -> list[Path]:
    """Remove all but the last `keep` checkpoints, and the best; returns those that remain, oldest first.

    best: the entry of `info` that tells the best one, by the smallest (`mode="min"`) or largest (`"max"`) value; the earliest
    of equals.
    """
    _check_pruning(keep, mode)
    paths = list_checkpoints(folder)
    kept = set(paths[-keep:])
    if best is not None:
        path = best_checkpoint(folder, best, mode)
        if path is not None:
            kept.add(path)
    for path in paths:
        if path not in kept:
            # first the name, so that a removal cut short leaves no checkpoint with files missing
            hidden = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder)) / path.name
            os.rename(path, hidden)
            shutil.rmtree(hidden.parent)
    return [path for path in paths if path in kept]


def _check_pruning(keep: int, mode: str) -> None:
    if not isinstance(keep, int) or keep < 1:
        raise ValueError(f"keep: expected an integer above zero, got {keep!r}")
    if mode not in ("min", "max"):
        raise ValueError(f"mode: expected 'min' or 'max', got {mode!r}")


def _make_folder(home: Path) -> None:
    missing = [p for p in (home, *home.parents) if not p.exists()]
    home.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def _clear_leftovers(home: Path) -> None:
    for path in home.glob(TEMPORARY + "*"):
        shutil.rmtree(path, ignore_errors=True)


def _free_name(home: Path, step: int) -> Path:
    """The name for `step`; a folder cannot be replaced in one step, so a second checkpoint of a step gets a number."""
    taken = [_order(path) for path in list_checkpoints(home)]
    times = [again for number, again in taken if number == step]
    return home / (f"step-{step:09d}" + (f"-{max(times) + 1}" if times else ""))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reading --------------------------------------------------------------------------------------------------------------

def list_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in `folder`, oldest step first, unchecked; none where there is no such folder."""
    home = Path(folder)
    if not home.is_dir():
        return []
    return sorted((path for path in home.iterdir() if NAME.fullmatch(path.name)), key=_order)


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The path of the last checkpoint in `folder`, unchecked; None where there is none."""
    paths = list_checkpoints(folder)
    return paths[-1] if paths else None


def best_checkpoint(folder: str | os.PathLike[str], metric: str, mode: str = "min") -> Path | None:
    """The path of the checkpoint whose `info[metric]` is smallest (`mode="min"`) or largest (`"max"`); None where none has it."""
    found: tuple[float, Path] | None = None
    for path in list_checkpoints(folder):
        with contextlib.suppress(CheckpointError, OSError):
            value = read_manifest(path)["info"].get(metric)
            if isinstance(value, (int, float)) and value == value:
                rank = -value if mode == "max" else value
                if found is None or rank < found[0]:
                    found = rank, path
    return found[1] if found else None


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the checkpoint `path`, or the last good one in the folder `path`, after checking its sizes and SHA-256 sums.

    A damaged one in a folder of several is warned of, and the one before it is read. Raises `CheckpointError` naming the file
    where there is no good one, and where it is of another version.
    """
    home = Path(path)
    if NAME.fullmatch(home.name) or (home / MANIFEST).is_file():
        return _read(home)
    if not home.is_dir():
        raise CheckpointError(f"{home}: there is no such folder")
    paths = list_checkpoints(home)
    if not paths:
        raise CheckpointError(f"{home}: there is no checkpoint in this folder")
    reasons = []
    for candidate in reversed(paths):
        try:
            checkpoint = _read(candidate)
        except VersionError:
            raise
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        if reasons:
            warnings.warn(f"{'; '.join(reasons)}; going back to {checkpoint.path.name}", RuntimeWarning, stacklevel=2)
        return checkpoint
    raise CheckpointError("; ".join(reasons))


def verify_checkpoint(path: str | os.PathLike[str]) -> None:
    """Raise `CheckpointError` unless every file of the checkpoint `path` is as its manifest says."""
    home = Path(path)
    for name, entry in read_manifest(home)["files"].items():
        file = home / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing")
        if file.stat().st_size != entry["size"]:
            raise CheckpointError(f"{file}: has {file.stat().st_size} bytes instead of {entry['size']}")
        if _sha256(file) != entry["sha256"]:
            raise CheckpointError(f"{file}: is damaged (its SHA-256 sum is not the manifest's)")


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of the checkpoint `path`: its `step`, `info` and `files`."""
    file = Path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is missing") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file}: is damaged") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{file}: is no manifest of a bpnn checkpoint")
    if manifest.get("version") != VERSION:
        raise VersionError(
            f"{file.parent}: was written in version {manifest.get('version')} of bpnn's checkpoints; "
            f"this bpnn reads version {VERSION}"
        )
    files = manifest.get("files")
    whole = (
        isinstance(manifest.get("step"), int) and isinstance(manifest.get("info"), dict) and isinstance(files, dict)
        and all(isinstance(entry, dict) and {"size", "sha256"} <= entry.keys() for entry in files.values())
        # a manifest names files beside it, nothing elsewhere
        and all(name.endswith(".safetensors") and COMPONENT.fullmatch(name.removesuffix(".safetensors")) for name in files)
    )
    if not whole:
        raise CheckpointError(f"{file}: is damaged")
    return manifest


def _read(path: Path) -> Checkpoint:
    verify_checkpoint(path)
    manifest = read_manifest(path)
    try:
        components = {name.removesuffix(".safetensors"): load(path / name) for name in manifest["files"]}
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return Checkpoint(path, manifest["step"], manifest["info"], components)


def _order(path: Path) -> tuple[int, int]:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


# --- random numbers -------------------------------------------------------------------------------------------------------

def get_rng_states() -> dict[str, Any]:
    """The state of the global generators: bpnn's, Python's `random` and NumPy's."""
    return {"bpnn": get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state(legacy=False)}


def set_rng_states(state: Mapping[str, Any]) -> None:
    """Go on from what `get_rng_states()` gave."""
    set_rng_state(state["bpnn"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
