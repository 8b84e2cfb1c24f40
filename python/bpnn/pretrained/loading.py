"""From files into models: names, transposed and tied tensors, everything wrong said at once."""
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from bpcore.tensor import Tensor
from bpnn.nn import Module

from .weights import Entry, Weights

OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # TensorFlow's, in files of 2018 to 2020
Rename = Mapping[str, str] | Callable[[str], str | None]


class Loaded(NamedTuple):
    """What `load_into` did not do: names of the model that the file lacks (allowed by `optional`), names of the file left out."""

    missing: list[str]
    ignored: list[str]


def load_into(
    model: Module, weights: Weights | Mapping[str, np.ndarray], *, rename: Rename | None = None, prefixes: Sequence[str] = (),
    transposed: Sequence[str] = (), tied: Mapping[str, str] | None = None, ignore: Sequence[str] = (), optional: Sequence[str] = (),
    loaded: Callable[[str], object] | None = None,
) -> Loaded:
    """Copy the tensors of a file into a model's parameters and buffers, one after another: no second copy of the model exists.

    rename: a function from the file's name to the model's (None: leave it out), or a table of parts of names between dots,
    {"attention.q_lin": "attention.self.query"}; the old `LayerNorm.gamma` and `.beta` are always understood.
    prefixes: what may be in front of the names on one side and not on the other: "bert.".
    transposed: patterns of the model's names whose tensors the file has transposed: "*.c_attn.weight".
    tied: {name: other}: where the file lacks `name`, it gets the tensor of `other`; one parameter with two names needs no entry.
    ignore: patterns of the file's names (renamed) to leave out. optional: patterns of the model's names that may be missing.
    loaded: called with the name of each tensor that was copied, which may be replaced then by something smaller.
    Patterns are those of `fnmatch`, where `*` goes over dots.

    Raises one `RuntimeError` that names the file and every missing, unexpected and misshapen tensor; nothing is changed then.
    """
    source = weights if isinstance(weights, Weights) else Weights.from_arrays(weights)
    own = model.state_dict(keep_vars=True)
    problems: list[str] = []
    plan: dict[str, Entry] = {}
    origin: dict[str, str] = {}
    ignored: list[str] = []
    unexpected: list[str] = []
    for file_name, entry in source.entries.items():
        renamed = _renamed(file_name, rename)
        name = None if renamed is None else _placed(renamed, own, prefixes)
        if name is None:
            if renamed is None or any(matches(form, ignore) for form in {file_name, renamed}):
                ignored.append(file_name)
            else:
                unexpected.append(file_name)
        elif name in plan:
            problems.append(f"{name}: the file has it as {origin[name]} and as {file_name}")
        else:
            plan[name] = entry.transposed() if matches(name, transposed) else entry
            origin[name] = file_name
    missing = _tie(own, plan, origin, tied or {}, problems)
    lacking = [name for name in missing if not matches(name, optional)]
    if lacking:
        problems.insert(0, "missing: " + ", ".join(lacking))
    if unexpected:
        problems.insert(0, "unexpected: " + ", ".join(unexpected))
    for name, entry in plan.items():
        problems += _misfit(name, own[name], entry, origin[name])
    if problems:
        raise RuntimeError(f"{source.path} does not fit {type(model).__name__}:\n  " + "\n  ".join(problems))
    first: dict[int, str] = {}
    for name in plan:
        first.setdefault(id(own[name]), name)
    for name in first.values():
        _copy(own.pop(name), plan[name])
        if loaded is not None:
            loaded(name)
    return Loaded(missing, ignored)


def _renamed(name: str, rename: Rename | None) -> str | None:
    framed = f".{name}."
    for table in (OLD_NAMES, rename if isinstance(rename, Mapping) else {}):
        for old, new in table.items():
            framed = framed.replace(f".{old}.", f".{new}." if new else ".")
    return rename(framed[1:-1]) if callable(rename) else framed[1:-1]


def _placed(name: str, own: Mapping[str, Tensor], prefixes: Sequence[str]) -> str | None:
    """The model's name for a name of the file: the same, or with one of the prefixes less or more."""
    candidates = [name]
    candidates += [name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)]
    candidates += [prefix + name for prefix in prefixes]
    return next((candidate for candidate in candidates if candidate in own), None)


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _tie(
    own: Mapping[str, Tensor], plan: dict[str, Entry], origin: dict[str, str], tied: Mapping[str, str], problems: list[str],
) -> list[str]:
    """Fill in what the file has under another name of the same tensor; returns what is still missing."""
    names: dict[int, list[str]] = {}
    for name, tensor in own.items():
        names.setdefault(id(tensor), []).append(name)
    for name in own:
        group = [other for other in names[id(own[name])] if other in plan]
        if name not in plan:
            partner = group[0] if group else tied.get(name)
            if partner in plan:
                plan[name], origin[name] = plan[partner], origin[partner]
        elif not _equal(plan[name], plan[group[0]]):
            problems.append(f"{name}: is one with {group[0]} in the model, the file has different numbers for them")
    return [name for name in own if name not in plan]


def _equal(one: Entry, other: Entry) -> bool:
    return one is other or one.shape != other.shape or np.array_equal(one.read(), other.read(), equal_nan=True)


def _misfit(name: str, tensor: Tensor, entry: Entry, origin: str) -> list[str]:
    called = name if origin == name else f"{name} ({origin} in the file)"
    if entry.shape != tuple(tensor.shape):
        return [f"{called}: expected shape {tuple(tensor.shape)}, got {entry.shape}"]
    kinds = {entry.dtype.kind, np.dtype(tensor.dtype).kind}
    if len(kinds) > 1 and not kinds <= {"i", "u"}:  # whole numbers are no weights, whatever NumPy would make of them
        return [f"{called}: expected {tensor.dtype}, got {entry.kind}"]
    return []


def _copy(tensor: Tensor, entry: Entry) -> None:
    target = tensor.data.numpy()
    if target.flags.c_contiguous:
        entry.fill(target)
    else:
        target[...] = entry.read()
    entry.release()
    tensor._changed()
