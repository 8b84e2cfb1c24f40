"""Tensors of a file by name, read when they are asked for.

A file's bytes are mapped into memory, not read: a tensor stored as float32 *is* the file's memory; float16, bfloat16 and
quantized tensors become float32 when they are read. `Entry.fill` writes a tensor into memory that exists already, so that a
model is loaded without a second copy of it.
"""
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Reader = Callable[[], np.ndarray]
Filler = Callable[[np.ndarray], None]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    path, name: where it is. kind: its type as the file has it ("F32", "BF16", "Q4_K"). dtype: of the array that it becomes.
    read: gives that array; fill: writes its numbers into a C-contiguous array of its shape; release: gives the file's pages back
    to the system until they are needed again.
    """

    path: str
    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Reader
    fill: Filler
    release: Callable[[], None] = field(default=_nothing)

    def mapped(self, change: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...] | None = None) -> "Entry":
        """The entry with `change` applied to what is read; which changes the order (transposing), not the numbers."""
        def fill(out: np.ndarray) -> None:
            out[...] = change(self.read())

        return replace(self, shape=self.shape if shape is None else shape, read=lambda: change(self.read()), fill=fill)

    def transposed(self) -> "Entry":
        """The entry with its axes in reverse order."""
        return self.mapped(np.transpose, self.shape[::-1])


class Weights(Mapping[str, np.ndarray]):
    """The tensors of a pretrained file or folder by name: `weights[name]` reads one.

    entries: what is known of each without reading it. path: the file or folder, for messages. metadata: text from the header.
    """

    def __init__(self, entries: Mapping[str, Entry], path: str, metadata: Mapping[str, Any] | None = None):
        self.entries = dict(entries)
        self.path = path
        self.metadata = dict(metadata or {})

    def __getitem__(self, name: str) -> np.ndarray:
        return self.entries[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __repr__(self) -> str:
        return f"<{len(self)} tensors of {self.path}>"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self.entries[name].shape

    def kind(self, name: str) -> str:
        """The type of a tensor as the file has it, such as "BF16"."""
        return self.entries[name].kind

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], path: str = "arrays") -> "Weights":
        """Weights of arrays in memory."""
        return cls({name: array_entry(path, name, array.dtype.name, array) for name, array in arrays.items()}, path)


def array_entry(path: str, name: str, kind: str, array: np.ndarray, release: Callable[[], None] = _nothing) -> Entry:
    """An entry whose numbers are `array`; float16 is read as float32."""
    dtype = np.dtype("float32") if array.dtype == np.float16 else array.dtype.newbyteorder("=")

    def read() -> np.ndarray:  # without a copy where type, order and alignment allow
        return np.require(array, dtype, ["C", "A"])

    def fill(out: np.ndarray) -> None:
        out[...] = array

    return Entry(path, name, kind, array.shape, dtype, read, fill, release)


def bfloat16_entry(path: str, name: str, bits: np.ndarray, release: Callable[[], None] = _nothing) -> Entry:
    """An entry of bfloat16 numbers, given as uint16: the upper halves of float32 numbers."""
    def read() -> np.ndarray:
        return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)

    def fill(out: np.ndarray) -> None:
        if out.dtype == np.float32 and out.flags.c_contiguous:
            np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)
        else:
            out[...] = read()

    return Entry(path, name, "BF16", bits.shape, np.dtype("float32"), read, fill, release)


class MappedFile:
    """The bytes of a file as arrays that read the file when they are looked at; it stays open as long as they live."""

    def __init__(self, path: str):
        self.path = path
        self.size = os.path.getsize(path)
        self._map = None
        if self.size:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def array(self, begin: int, end: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Bytes `begin` to `end` as an array that cannot be written; the caller has checked that the sizes fit."""
        if end == begin or self._map is None:
            return np.empty(shape, dtype)
        dtype = np.dtype(dtype)
        return np.frombuffer(self._map, dtype, (end - begin) // dtype.itemsize, begin).reshape(shape)

    def bytes(self, begin: int, end: int) -> bytes:
        """A copy of the bytes `begin` to `end`."""
        return b"" if self._map is None else self._map[begin:end]

    def releaser(self, begin: int, end: int) -> Callable[[], None]:
        """A function that tells the system that the pages between are not needed for now. Reading them again reads the file."""
        advice = getattr(mmap, "MADV_DONTNEED", None)
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE  # pages that are wholly inside
        length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
        held = self._map
        if held is None or advice is None or length <= 0:
            return _nothing

        def release() -> None:
            held.madvise(advice, first, length)

        return release
