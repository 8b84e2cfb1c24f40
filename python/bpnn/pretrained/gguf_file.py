"""GGUF files: what llama.cpp stores a model in, with its configuration, its tokenizer and quantized tensors.

The format: "GGUF", version, counts, then names with typed values, names of tensors with shape, type and place, and the tensors
at multiples of the alignment. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

The reader of the package `gguf` makes an array of every string in the file, which takes seconds for a vocabulary; this one takes
a twentieth of that, and says which tensor is wrong.
"""
import math
import os
import struct
from typing import Any

import numpy as np

from .dequantize import QUANTIZED, dequantize
from .weights import Entry, MappedFile, Weights, array_entry, bfloat16_entry

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}

# ggml's numbers of types
PLAIN = {0: ("F32", "<f4"), 1: ("F16", "<f2"), 24: ("I8", "i1"), 25: ("I16", "<i2"), 26: ("I32", "<i4"), 27: ("I64", "<i8"),
         28: ("F64", "<f8"), 30: ("BF16", "<u2")}
BLOCKS = {2: "Q4_0", 3: "Q4_1", 8: "Q8_0", 12: "Q4_K", 14: "Q6_K"}
OTHERS = {6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
          18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
          21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}


def open_gguf(path: str | os.PathLike[str]) -> Weights:
    """The tensors of a GGUF file under the file's own names, its values by name in `metadata`.

    Shapes are NumPy's: the file lists the axes in the opposite order. F32 tensors are the file's memory; F16, BF16, Q8_0, Q4_0,
    Q4_1, Q4_K and Q6_K become float32 when they are read.

    Raises `FileNotFoundError`; `ValueError` naming the file and the tensor where it is truncated, damaged, of another version, or
    has a tensor of another type.
    """
    source = os.fspath(path)
    file = MappedFile(source)
    cursor = _Cursor(file)
    head = file.bytes(0, 24)
    if head[:4] != MAGIC:
        raise ValueError(f"{source}: is no GGUF file: it begins with {head[:4]!r}")
    if len(head) < 24:
        raise ValueError(f"{source}: is truncated: {file.size} bytes")
    version, tensors, values = struct.unpack("<IQQ", head[4:])
    if version not in VERSIONS:
        raise ValueError(f"{source}: is GGUF version {version}, bpnn reads versions 2 and 3 (little-endian)")
    cursor.at = 24
    metadata: dict[str, Any] = {}
    for _ in range(values):
        name = cursor.text("the name of a value")
        if name in metadata:
            raise ValueError(f"{source}: value {name!r} is there twice")
        metadata[name] = cursor.value(cursor.number("<u4", name), name)
    found: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(tensors):
        name = cursor.text("the name of a tensor")
        if name in found:
            raise ValueError(f"{source}: tensor {name!r} is there twice")
        axes = cursor.number("<u4", name)
        if axes > 4:
            raise ValueError(f"{source}: tensor {name!r} has {axes} axes, GGUF has at most 4")
        shape = tuple(cursor.number("<u8", name) for _ in range(axes))[::-1]
        found[name] = shape, cursor.number("<u4", name), cursor.number("<u8", name)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"{source}: general.alignment: expected a power of two, got {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    entries = {name: _entry(file, name, start, alignment, *about) for name, about in found.items()}
    _check_overlap(source, [(at, *_size(source, name, shape, kind), name) for name, (shape, kind, at) in found.items()])
    return Weights(entries, source, metadata)


def _entry(file: MappedFile, name: str, start: int, alignment: int, shape: tuple[int, ...], kind: int, offset: int) -> Entry:
    where = f"{file.path}: tensor {name!r}"
    size, label = _size(file.path, name, shape, kind)
    begin, end = start + offset, start + offset + size
    if offset % alignment:
        raise ValueError(f"{where} begins at byte {offset}, which is no multiple of the alignment {alignment}")
    if end > file.size:
        raise ValueError(f"{where} ends at byte {end}, the file has {file.size}: it is truncated or damaged")
    release = file.releaser(begin, end)
    if kind in BLOCKS:
        return _quantized_entry(file.path, name, label, shape, file.array(begin, end, np.uint8, (size,)), release)
    array = file.array(begin, end, PLAIN[kind][1], shape)
    if label == "BF16":
        return bfloat16_entry(file.path, name, array, release)
    return array_entry(file.path, name, label, array, release)


def _size(source: str, name: str, shape: tuple[int, ...], kind: int) -> tuple[int, str]:
    """Bytes of a tensor, and its type's name."""
    where = f"{source}: tensor {name!r}"
    if kind in PLAIN:
        label, dtype = PLAIN[kind]
        return math.prod(shape) * np.dtype(dtype).itemsize, label
    if kind not in BLOCKS:
        known = ", ".join([label for label, _ in PLAIN.values()] + list(QUANTIZED))
        raise ValueError(f"{where} has type {OTHERS.get(kind, kind)}, which bpnn does not read (it reads {known})")
    block, count, _ = QUANTIZED[BLOCKS[kind]]
    if not shape or shape[-1] % count:
        raise ValueError(f"{where}: rows of {BLOCKS[kind]} are multiples of {count} long, got shape {shape}")
    return math.prod(shape) // count * block, BLOCKS[kind]


def _quantized_entry(path: str, name: str, kind: str, shape: tuple[int, ...], data: np.ndarray, release: Any) -> Entry:
    def read() -> np.ndarray:
        out = np.empty(shape, np.float32)
        dequantize(kind, data, out)
        return out

    def fill(out: np.ndarray) -> None:
        if out.flags.c_contiguous:
            dequantize(kind, data, out)
        else:
            out[...] = read()

    return Entry(path, name, kind, shape, np.dtype("float32"), read, fill, release)


def _check_overlap(source: str, places: list[tuple[int, int, str, str]]) -> None:
    before, end = "", 0
    for begin, size, _, name in sorted(places):
        if begin < end:
            raise ValueError(f"{source}: tensor {name!r} begins at byte {begin}, {before!r} ends at {end}: they overlap")
        before, end = name, begin + size


class _Cursor:
    """Reads values one after another."""

    def __init__(self, file: MappedFile):
        self.file = file
        self.at = 0

    def take(self, size: int, what: str) -> bytes:
        if self.at + size > self.file.size:
            raise ValueError(f"{self.file.path}: is truncated in {what}: {size} bytes from byte {self.at}, it has {self.file.size}")
        self.at += size
        return self.file.bytes(self.at - size, self.at)

    def number(self, dtype: str, what: str) -> Any:
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(kind.itemsize, what), kind)[0].item()

    def text(self, what: str) -> str:
        return self.take(self.number("<u8", what), what).decode("utf-8", "replace")

    def value(self, kind: int, what: str) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.text(what)
        if kind != ARRAY:
            raise ValueError(f"{self.file.path}: value {what!r} has the unknown type {kind}")
        item, count = self.number("<u4", what), self.number("<u8", what)
        if item in SCALARS:
            dtype = np.dtype(SCALARS[item])
            return np.frombuffer(self.take(dtype.itemsize * count, what), dtype).tolist()
        if item == STRING:
            return self._texts(count, what)
        if item != ARRAY:
            raise ValueError(f"{self.file.path}: value {what!r} has the unknown type {item}")
        if count > self.file.size - self.at:
            raise ValueError(f"{self.file.path}: is truncated in {what}")
        return [self.value(ARRAY, what) for _ in range(count)]

    def _texts(self, count: int, what: str) -> list[str]:
        """`text` many times, without its checks' price: a vocabulary has a hundred thousand."""
        path, size, at = self.file.path, self.file.size, self.at
        data = self.file.array(0, size, np.uint8, (size,)).data
        number = struct.Struct("<Q").unpack_from
        texts = []
        for _ in range(count):
            length = number(data, at)[0] if at + 8 <= size else 8
            if at + 8 + length > size:
                raise ValueError(f"{path}: is truncated in {what}: {length} bytes from byte {at}, it has {size}")
            texts.append(str(data[at + 8:at + 8 + length], "utf-8", "replace"))
            at += 8 + length
        self.at = at
        return texts
