"""safetensors files and folders of them, mapped into memory, their headers checked to the last byte.

The format: eight bytes with the header's length, the header (JSON: name to type, shape and place), the tensors without gaps.
https://huggingface.co/docs/safetensors
"""
import json
import math
import os
from typing import Any

import numpy as np

from bpnn.serialization import CONVERT_HINT, PICKLED, STORED, _refuse_other_formats

from .weights import Entry, MappedFile, Weights, array_entry, bfloat16_entry

LARGEST_HEADER = 100_000_000  # as in the reference implementation
INDEX_SUFFIX = ".safetensors.index.json"
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4",
    "U16": "<u2", "U8": "u1", "BOOL": "?", "C64": "<c8", "BF16": "<u2",
}
assert set(DTYPES) == STORED  # what bpnn.load reads


def open_safetensors(path: str | os.PathLike[str]) -> Weights:
    """The tensors of one safetensors file.

    Raises `FileNotFoundError`; `ValueError` naming the file, and the tensor, where the file is truncated or its header is not
    what the format asks for.
    """
    source = os.fspath(path)
    file = MappedFile(source)
    header, start = _read_header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{source}: the header's __metadata__ is not text by name")
    places = sorted((*_checked_tensor(source, name, about, file.size - start), name) for name, about in header.items())
    _check_places(source, places, file.size - start)
    entries: dict[str, Entry] = {}
    for begin, end, name in places:
        kind, shape = header[name]["dtype"], tuple(header[name]["shape"])
        array = file.array(start + begin, start + end, DTYPES[kind], shape)
        release = file.releaser(start + begin, start + end)
        if kind == "BF16":
            entries[name] = bfloat16_entry(source, name, array, release)
        else:
            entries[name] = array_entry(source, name, kind, array, release)
    return Weights(entries, source, metadata)


def open_sharded(index: str | os.PathLike[str]) -> Weights:
    """The tensors of the files that `model.safetensors.index.json` lists.

    Raises `ValueError` naming every shard that is missing and every tensor that index and shards do not agree on.
    """
    source = os.fspath(index)
    content = read_json(source)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(value, str) for value in places.values()):
        raise ValueError(f"{source}: expected an object 'weight_map' of file names by tensor")
    folder = os.path.dirname(source)
    shards = sorted(set(places.values()))
    for shard in shards:
        if os.path.basename(shard) != shard or shard in ("", ".", ".."):
            raise ValueError(f"{source}: {shard!r} is not the name of a file beside it")
        _refuse_pickle(os.path.join(folder, shard))
    missing = [shard for shard in shards if not os.path.isfile(os.path.join(folder, shard))]
    if missing:
        raise FileNotFoundError(f"{source}: of {len(shards)} files that it lists these are missing: {', '.join(missing)}")
    opened = {shard: open_safetensors(os.path.join(folder, shard)) for shard in shards}
    problems = [f"{name}: is not in {shard}" for name, shard in places.items() if name not in opened[shard]]
    for shard, weights in opened.items():
        for name in weights:
            if places.get(name) != shard:
                problems.append(f"{name}: is in {shard}, the index says {places.get(name, 'nothing')}")
    if problems:
        raise ValueError(f"{source} does not fit its files:\n  " + "\n  ".join(problems))
    entries = {name: opened[shard].entries[name] for name, shard in places.items()}
    metadata = next((weights.metadata for weights in opened.values()), {})
    return Weights(entries, source, metadata)


def find_weights(folder: str, name: str = "model") -> str:
    """The file of weights in a folder: `name`.safetensors, or the index of its parts.

    Raises `FileNotFoundError`; `ValueError` where the folder has pickled weights alone.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder}: is not a folder")
    for suffix in (".safetensors", INDEX_SUFFIX):
        path = os.path.join(folder, name + suffix)
        if os.path.isfile(path):
            return path
    present = sorted(os.listdir(folder))
    pickled = [item for item in present if item.lower().endswith(PICKLED)]
    if pickled:
        raise ValueError(f"{os.path.join(folder, pickled[0])}: is pickled, and there is no {name}.safetensors; {CONVERT_HINT}")
    others = [item for item in present if item.endswith((".safetensors", ".gguf"))]
    hint = f"; it has {', '.join(others)}" if others else ""
    raise FileNotFoundError(f"{folder}: has neither {name}.safetensors nor {name}{INDEX_SUFFIX}{hint}")


def read_json(path: str) -> dict[str, Any]:
    """The object of a JSON file. Raises `ValueError` naming the file where it is something else."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is damaged or no JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _refuse_pickle(path: str) -> None:
    extension = os.path.splitext(path)[1]
    if extension.lower() in PICKLED:
        raise ValueError(f"{path}: {extension} is the extension of pickled files; {CONVERT_HINT}")


# --- the header -----------------------------------------------------------------------------------------------------------

def _read_header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors begin."""
    source = file.path
    _refuse_pickle(source)
    head = file.bytes(0, 9)
    _refuse_other_formats(source, head)
    if len(head) < 8:
        raise ValueError(f"{source}: is truncated: {file.size} bytes, a safetensors file begins with 8 bytes of length")
    length = int.from_bytes(head[:8], "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"{source}: is no safetensors file: its header would have {length} bytes, more than {LARGEST_HEADER}")
    if 8 + length > file.size:
        raise ValueError(f"{source}: is truncated: the header has {length} bytes, the file has {file.size}")
    try:
        header = json.loads(file.bytes(8, 8 + length).decode(), object_pairs_hook=lambda pairs: _unique(source, pairs))
    except _Duplicate as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: its header is damaged ({error})") from None
    if not isinstance(header, dict):
        raise ValueError(f"{source}: its header is no JSON object")
    return header, 8 + length


class _Duplicate(Exception):
    pass


def _unique(source: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Duplicate(f"{source}: tensor {twice!r} is in the header twice")
    return result


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _checked_tensor(source: str, name: str, about: Any, room: int) -> tuple[int, int]:
    """Where a tensor begins and ends, of `room` bytes."""
    where = f"{source}: tensor {name!r}"
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where}: expected dtype, shape and data_offsets, got {about!r}")
    kind, shape, place = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{where} has type {kind!r}, which bpnn does not read (it reads {', '.join(DTYPES)})")
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise ValueError(f"{where}: expected a shape of sizes, got {shape!r}")
    if not isinstance(place, list) or len(place) != 2 or not all(map(_is_size, place)) or place[0] > place[1]:
        raise ValueError(f"{where}: expected data_offsets of begin and end, got {place!r}")
    begin, end = place
    if end > room:
        raise ValueError(f"{where} ends at byte {end}, the file has {room} bytes of tensors: it is truncated or damaged")
    expected = math.prod(shape) * np.dtype(DTYPES[kind]).itemsize
    if end - begin != expected:
        raise ValueError(f"{where}: shape {tuple(shape)} of {kind} takes {expected} bytes, data_offsets {place} hold {end - begin}")
    return begin, end


def _check_places(source: str, places: list[tuple[int, int, str]], room: int) -> None:
    """Every byte belongs to one tensor."""
    at, before = 0, "the header"
    for begin, end, name in places:
        if begin < at:
            raise ValueError(f"{source}: tensor {name!r} begins at byte {begin}, {before!r} ends at {at}: they overlap")
        if begin > at:
            raise ValueError(f"{source}: tensor {name!r} begins at byte {begin}, {before!r} ends at {at}: a gap")
        at, before = end, name
    if at != room:
        raise ValueError(f"{source}: the tensors end at byte {at}, the file has {room} bytes of tensors: {room - at} too many")
