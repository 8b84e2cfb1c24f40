"""The idx file format of MNIST: a big-endian header and raw values, plain or gzip-compressed.

    bytes 0-1  zero
    byte  2    type of the values
    byte  3    number of dimensions n
    4 n bytes  the dimensions, 32-bit unsigned
    the rest   the values in row-major order

Source: http://yann.lecun.com/exdb/mnist, "THE IDX FILE FORMAT".
"""
from __future__ import annotations

import gzip
import math
import os
import zlib
from typing import Any, BinaryIO, cast

import numpy as np

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DataError(ValueError):
    """A data file that is missing, damaged or not what it should be; the message names it."""


def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, np.dtype[Any]]:
    """The array in an idx file, in the machine's byte order; compression is seen from the content, not the name.

    Raises `DataError` for a file that is truncated, too long, damaged, or no idx file; `OSError` if it cannot be read.
    """
    with open(path, "rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        try:
            if not compressed:
                return _parse(plain, path)
            with gzip.GzipFile(fileobj=plain) as stream:
                return _parse(cast(BinaryIO, stream), path)
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: damaged gzip data ({error})") from error
        except EOFError as error:
            raise DataError(f"{path}: the gzip data is truncated") from error


def _parse(stream: BinaryIO, path: str | os.PathLike[str]) -> np.ndarray[Any, np.dtype[Any]]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not head[3]:
        raise DataError(f"{path}: not an idx file (it begins with {head.hex(' ') or 'nothing'})")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path}: truncated within the header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    dtype = np.dtype(TYPES[head[2]])
    expected = math.prod(shape) * dtype.itemsize
    # One byte more than expected: shows a file that is too long and makes gzip check its checksum.
    values = _read(stream, expected + 1)
    if len(values) != expected:
        found = f"only {len(values)}" if len(values) < expected else "more"
        raise DataError(f"{path}: its header announces {shape}, {expected} bytes of values, but there are {found}")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read(stream: BinaryIO, limit: int) -> bytes:
    """At most `limit` bytes, in pieces: a header may announce any size, and memory is taken only for what is there."""
    pieces = []
    while limit and (piece := stream.read(min(limit, 1 << 24))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)
