"""From models into files that `transformers` reads."""
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bpnn.nn import Module
from bpnn.utils._files import replacing, write_text

from .loading import matches
from .safetensors_file import INDEX_SUFFIX

KINDS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}


def save_weights(
    model: Module, folder: str | os.PathLike[str], *, rename: Callable[[str], str | None] | None = None,
    transposed: Sequence[str] = (), dtype: str | Mapping[str, str] | None = None, max_shard_size: int | None = None,
    name: str = "model", metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a model's tensors as `transformers` reads them: `model.safetensors` in `folder`, which is made where it is missing.

    rename: from the model's name to the file's (None: leave it out). transposed: patterns of the model's names to transpose.
    dtype: "float16" or "bfloat16" to store the floating-point tensors rounded to the nearest, by default as they are; or a table
    from the model's name, so that tensors that were not changed get the bytes of the file they came from. A tensor that the model
    has under two names (tied) is written under the first. max_shard_size: bytes a file; more than one comes with its index.

    Returns the names of the files. Each is replaced in one step. Raises `TypeError` for a tensor or type that cannot be stored.
    """
    chosen: dict[str, tuple[np.ndarray, str]] = {}
    seen: set[int] = set()
    for own, tensor in model.state_dict(keep_vars=True).items():
        stored = rename(own) if rename else own
        if stored is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        array = tensor.detach().numpy()
        wanted = dtype.get(own) if isinstance(dtype, Mapping) else dtype
        kind = str(wanted) if wanted is not None and array.dtype.kind == "f" else array.dtype.name
        if kind not in KINDS:
            raise TypeError(f"{own}: expected one of {', '.join(KINDS)}, got {kind}")
        chosen[stored] = array.T if matches(own, transposed) else array, kind
    # as the reference implementation orders them: the widest type first, so that every tensor is aligned
    order = sorted(chosen, key=lambda item: (-_width(chosen[item][1]), item))
    header = {"format": "pt", **(metadata or {})}
    os.makedirs(folder, exist_ok=True)
    parts = _parts({item: chosen[item][0].size * _width(chosen[item][1]) for item in order}, max_shard_size)
    single = os.path.join(os.fspath(folder), f"{name}.safetensors")
    index = os.path.join(os.fspath(folder), name + INDEX_SUFFIX)
    older = _listed(index)
    if len(parts) == 1:
        _write(single, chosen, parts[0], header)
        _remove(index)
        for file in older:
            _remove(os.path.join(os.fspath(folder), file))
        return [os.path.basename(single)]
    places: dict[str, str] = {}
    files = [f"{name}-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    for file, part in zip(files, parts):
        _write(os.path.join(os.fspath(folder), file), chosen, part, header)
        places |= dict.fromkeys(part, file)
    total = sum(array.size * _width(kind) for array, kind in chosen.values())
    write_text(index, json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}, indent=2) + "\n")
    _remove(single)
    for file in older - set(files):
        _remove(os.path.join(os.fspath(folder), file))
    return files


def _listed(index: str) -> set[str]:
    """The files beside an index that it lists, if there is one."""
    try:
        with open(index, encoding="utf-8") as file:
            names = set(json.load(file)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in names if isinstance(name, str) and os.path.basename(name) == name and name.endswith(".safetensors")}


def _remove(path: str) -> None:
    """Remove the older form of the same weights, which readers would take first."""
    if os.path.isfile(path):
        os.unlink(path)


def _width(kind: str) -> int:
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


def _parts(sizes: Mapping[str, int], limit: int | None) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    room = math.inf if limit is None else limit
    used = 0
    for name, size in sizes.items():
        if parts[-1] and used + size > room:
            parts.append([])
            used = 0
        parts[-1].append(name)
        used += size
    return parts


def _write(path: str, chosen: Mapping[str, tuple[np.ndarray, str]], names: Sequence[str], metadata: Mapping[str, str]) -> None:
    """Write one file; what is transposed or rounded exists one tensor at a time."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in names:
        array, kind = chosen[name]
        size = array.size * _width(kind)
        header[name] = {"dtype": KINDS[kind], "shape": list(array.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            array, kind = chosen[name]
            stored = _bfloat16(array) if kind == "bfloat16" else array.astype(np.dtype(kind).newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(stored).data if stored.size else b"")


def _bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), bits >> 16 | 0x40, rounded).astype("<u2")
