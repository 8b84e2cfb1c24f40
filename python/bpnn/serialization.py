"""Saving and loading: safetensors files, nothing pickled.

A file holds tensors and, in its header, text. A flat dictionary of tensors, such as a `state_dict`, is stored under its own
names, as every other program that reads safetensors expects it. Anything more (nested dictionaries, lists, numbers, as in an
optimizer's state) is stored as its tensors, each named by its path joined by dots, and a JSON tree of the rest in the header
under the key `bpnn`, in which a tensor's place is marked by its name.
"""
import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from bpcore.tensor import Tensor, from_array

from .utils._files import replacing, sync_file

PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle")
VERSION = 1
HEADER_KEY = "bpnn"

# safetensors' names of the types that NumPy has; bfloat16 comes from ml_dtypes
STORED = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64", "BF16"}
SAVED = {
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool",
    "complex64", "bfloat16",
}

CONVERT_HINT = (
    "bpnn reads and writes safetensors only, for a pickle runs whatever code its author put into it; convert it once with "
    "PyTorch: safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'model.safetensors')"
)


class StateDict(OrderedDict):
    """What `load` returns for a dictionary: ordered as it was saved, with the file's text in `metadata`."""

    metadata: dict[str, str]

    def __init__(self, *args: Any, metadata: dict[str, str] | None = None, **keywords: Any):
        super().__init__(*args, **keywords)
        self.metadata = metadata or {}


def save(obj: Any, path: str | os.PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Save `obj` to the safetensors file `path`, which is replaced in one step: a failed or killed write leaves it as it was.

    obj: a dictionary of tensors, or any nesting of dictionaries, lists and tuples of tensors, arrays, numbers, bools, strings
    and None. They come back as they were, floats exactly; tensors lose their history, and tensors that share memory become
    copies. metadata: text to keep in the file's header; that of a dictionary which `load` returned, where not given.

    >>> import bpnn
    >>> bpnn.save({"weight": bpnn.ones(2, 3)}, "ones.safetensors")
    >>> bpnn.load("ones.safetensors")["weight"].tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

    Raises `TypeError` naming the key and the type of what cannot be saved, `ValueError` for the extensions of pickled files
    (`.pt`, `.bin`, …), `OSError` where the file cannot be written.
    """
    target = _checked_path(path)
    if metadata is None:
        metadata = getattr(obj, "metadata", {}) if isinstance(obj, StateDict) else {}
    arrays, header = _encoded(obj, metadata)
    with replacing(target) as temporary:
        _write(temporary, target, arrays, header)


def save_new(obj: Any, path: str | os.PathLike[str]) -> None:
    """Save `obj` as `save` does, but straight to the file `path` and on to the disk: for a folder that nobody reads yet."""
    target = _checked_path(path)
    _write(target, target, *_encoded(obj, {}))
    sync_file(target)


def load(path: str | os.PathLike) -> Any:
    """Load a safetensors file: what `save` was given, or, of a file from elsewhere, an ordered dictionary of tensors.

    The file's own text is in the dictionary's `metadata`. bfloat16 tensors need the package `ml_dtypes`.

    Raises `FileNotFoundError`; `ValueError` naming the file where it is pickled, damaged, or of a later version.
    """
    source = _checked_path(path)
    arrays, header = _read(source)
    note = header.pop(HEADER_KEY, None)
    tensors = {name: from_array(array) for name, array in arrays.items()}
    if note is None:
        return StateDict(tensors, metadata=header)
    try:
        note = json.loads(note)
        version = note["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"{source}: its header's entry {HEADER_KEY!r} is damaged") from None
    if version != VERSION:
        raise ValueError(f"{source}: was saved in version {version!r} of bpnn's layout, this bpnn reads version {VERSION}")
    if "order" in note:
        names = [name for name in note["order"] if name in tensors]
        return StateDict({name: tensors[name] for name in [*names, *tensors]}, metadata=header)
    try:
        obj = _decode(note["tree"], tensors)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"{source}: its header does not fit its tensors ({type(error).__name__}: {error})") from None
    return StateDict(obj, metadata=header) if isinstance(obj, dict) else obj


# --- objects and trees ----------------------------------------------------------------------------------------------------
# JSON has dictionaries with text as keys, lists, text, numbers, bools and null. What else there is becomes a dictionary of one
# key that begins with "$": {"$tensor": name}, {"$array": name}, {"$tuple": [...]}, {"$dict": [[key, value], ...]} (keys that
# are not text, or begin with "$").

def _encoded(obj: Any, metadata: Mapping[str, str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of `obj` by name, and the header's text."""
    header = _checked_metadata(metadata)
    arrays: dict[str, np.ndarray] = {}
    tree = _Writer(arrays).encode(obj, ())
    note = {"version": VERSION, "order": list(obj)} if _is_flat(obj) else {"version": VERSION, "tree": tree}
    header[HEADER_KEY] = json.dumps(note)
    return arrays, header


def _is_flat(obj: Any) -> bool:
    return isinstance(obj, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in obj.items())


class _Writer:
    """Turns an object into a tree, putting its tensors into `arrays`."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def encode(self, value: Any, path: tuple[Any, ...]) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, Tensor):
            return {"$tensor": self._keep(value._array, path)}
        if isinstance(value, np.ndarray):
            return {"$array": self._keep(value, path)}
        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            value = value.item()
        if isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Mapping):
            return self._encode_dict(value, path)
        if isinstance(value, list):
            return [self.encode(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, tuple):
            return {"$tuple": [self.encode(item, (*path, i)) for i, item in enumerate(value)]}
        where = f"key {_dotted(path)!r}" if path else "obj"
        hint = "; save its state_dict()" if hasattr(value, "state_dict") else ""
        raise TypeError(
            f"{where}: expected tensors, arrays, numbers, bools, strings, None or dictionaries, lists and tuples of them, "
            f"got {type(value).__name__}{hint}"
        )

    def _encode_dict(self, value: Mapping[Any, Any], path: tuple[Any, ...]) -> Any:
        items = [(key, self.encode(item, (*path, key))) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        for key, _ in items:
            if not isinstance(key, (str, int, float, bool, tuple)) and key is not None:
                where = _dotted(path) or "obj"
                raise TypeError(f"key {key!r} of {where!r}: expected text, a number or a tuple, got {type(key).__name__}")
        return {"$dict": [[self.encode(key, (*path, key)), item] for key, item in items]}

    def _keep(self, array: np.ndarray, path: tuple[Any, ...]) -> str:
        if array.dtype.name not in SAVED:
            raise TypeError(f"key {_dotted(path)!r}: tensors of type {array.dtype} cannot be saved")
        name = _dotted(path) or "tensor"
        while name in self.arrays:  # {"a": {"b": x}, "a.b": y}: both paths read the same
            name += "_"
        self.arrays[name] = array
        return name


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path)


def _decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        (key, value), = tree.items()
        if key == "$tensor":
            return tensors[value]
        if key == "$array":
            return tensors[value]._array
        if key == "$tuple":
            return tuple(_decode(item, tensors) for item in value)
        if key == "$dict":
            return {_decode(k, tensors): _decode(v, tensors) for k, v in value}
    return {key: _decode(value, tensors) for key, value in tree.items()}


# --- files ----------------------------------------------------------------------------------------------------------------

def _checked_path(path: str | os.PathLike) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected the name of a file, got {type(path).__name__}")
    result = os.fsdecode(path)
    extension = os.path.splitext(result)[1]
    if extension.lower() in PICKLED:
        raise ValueError(f"{result}: {extension} is the extension of pickled files; {CONVERT_HINT}")
    return result


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata: expected text for text, got {key!r}: {value!r}")
        if key == HEADER_KEY:
            raise ValueError(f"metadata: the key {HEADER_KEY!r} is bpnn's own")
    return dict(metadata)


def _write(path: str, target: str, arrays: dict[str, np.ndarray], header: dict[str, str]) -> None:
    """Write the file `path`; errors name `target`."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # safetensors writes the memory as it lies: it must be contiguous, in little-endian order
    ready = {}
    for name, array in arrays.items():
        dense = np.asarray(array, order="C")
        ready[name] = dense.astype(dense.dtype.newbyteorder("<"), copy=False) if dense.dtype.byteorder == ">" else dense
    try:
        save_file(ready, path, metadata=header)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else 0
        raise OSError(number, f"could not be written: {os.strerror(number) if code else error}", target) from None


def _read(source: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    with open(source, "rb") as file:
        _refuse_other_formats(source, file.read(9))
    try:
        with safe_open(source, framework="np") as file:
            names = file.offset_keys()
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            _check_kinds(source, kinds)
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        reason = " ".join(str(error).removeprefix("Error while deserializing header: ").split())
        raise ValueError(f"{source}: is damaged or no safetensors file ({reason})") from None


def _refuse_other_formats(source: str, head: bytes) -> None:
    if head[8:] == b"{":
        return
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        raise ValueError(f"{source}: is a zip archive, such as PyTorch's pickled files; {CONVERT_HINT}")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ValueError(f"{source}: is a pickled file; {CONVERT_HINT}")


def _check_kinds(source: str, kinds: dict[str, str]) -> None:
    for name, kind in kinds.items():
        if kind not in STORED:
            raise ValueError(f"{source}: tensor {name!r} has type {kind}, which bpnn does not read")
        if kind == "BF16":
            try:
                import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy
            except ImportError:
                raise ImportError(
                    f"{source}: tensor {name!r} is bfloat16, which needs the package ml_dtypes: pip install ml_dtypes"
                ) from None
