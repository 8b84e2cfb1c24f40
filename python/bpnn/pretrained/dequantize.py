"""Quantized blocks of GGUF files to float32 (the types of ggml: github.com/ggml-org/ggml, ggml-quants.c).

A row of a matrix is cut into blocks, each with its scales and its whole numbers. `B` blocks, and `(B, numbers a block)` of float32
that are filled with what they stand for: in place, as the numbers are many times as large as what they are made of.
"""
from collections.abc import Callable

import numpy as np

Blocks = np.ndarray  # (B, bytes a block), uint8
Rows = np.ndarray  # (B, numbers a block), float32


def _half(blocks: Blocks, at: int) -> np.ndarray:
    """The float16 at byte `at` of each block, as float32: (B, 1)."""
    return np.ascontiguousarray(blocks[:, at:at + 2]).view("<f2").astype(np.float32)


def _nibbles(quants: np.ndarray, out: Rows) -> None:
    """(B, n) bytes to (B, 2 n) numbers 0 … 15: the low halves of all bytes, then the high ones."""
    quants = np.ascontiguousarray(quants)
    count = quants.shape[1]
    out[:, :count] = quants & 15
    out[:, count:] = quants >> 4


def q8_0(blocks: Blocks, out: Rows) -> None:
    """`d * q`: 32 numbers of 8 bits."""
    out[...] = np.ascontiguousarray(blocks[:, 2:]).view(np.int8)
    out *= _half(blocks, 0)


def q4_0(blocks: Blocks, out: Rows) -> None:
    """`d * (q - 8)`: 32 numbers of 4 bits."""
    _nibbles(blocks[:, 2:], out)
    out -= 8
    out *= _half(blocks, 0)


def q4_1(blocks: Blocks, out: Rows) -> None:
    """`d * q + m`: 32 numbers of 4 bits."""
    _nibbles(blocks[:, 4:], out)
    out *= _half(blocks, 0)
    out += _half(blocks, 2)


def q4_k(blocks: Blocks, out: Rows) -> None:
    """`d s q - dmin m`: eight groups of 32 numbers of 4 bits, each with a scale s and a minimum m of 6 bits."""
    packed = blocks[:, 4:16]  # four scales, four minima (6 bits each), then four bytes with 4 bits of each of the other eight
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate([low & 63, high & 15 | low >> 6 << 4], axis=1).astype(np.float32)
    minimum = np.concatenate([middle & 63, high >> 4 | middle >> 6 << 4], axis=1).astype(np.float32)
    quants = np.ascontiguousarray(blocks[:, 16:]).reshape(-1, 4, 32)
    groups = out.reshape(-1, 4, 2, 32)
    groups[:, :, 0] = quants & 15
    groups[:, :, 1] = quants >> 4
    groups *= (_half(blocks, 0) * scale).reshape(-1, 4, 2, 1)
    groups -= (_half(blocks, 2) * minimum).reshape(-1, 4, 2, 1)


def q6_k(blocks: Blocks, out: Rows) -> None:
    """`d s (q - 32)`: sixteen groups of 16 numbers of 6 bits, each with a scale s of 8 bits."""
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    groups = out.reshape(-1, 16, 16)
    groups[...] = low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 4
    groups -= 32
    groups *= (_half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32))[:, :, None]


# name: bytes a block, numbers a block, function
QUANTIZED: dict[str, tuple[int, int, Callable[[Blocks, Rows], None]]] = {
    "Q4_0": (18, 32, q4_0), "Q4_1": (20, 32, q4_1), "Q8_0": (34, 32, q8_0), "Q4_K": (144, 256, q4_k), "Q6_K": (210, 256, q6_k),
}

AT_ONCE = 1 << 17  # numbers: what is in use at a time stays in the cache


def dequantize(kind: str, data: np.ndarray, out: np.ndarray) -> None:
    """Fill the C-contiguous `out` with the numbers of the blocks of `data` (uint8, in the file's order)."""
    size, count, function = QUANTIZED[kind]
    blocks, rows = data.reshape(-1, size), out.reshape(-1, count)
    step = AT_ONCE // count
    for begin in range(0, len(blocks), step):
        part = rows[begin:begin + step]
        if part.dtype == np.float32:
            function(blocks[begin:begin + step], part)
        else:
            numbers = np.empty(part.shape, np.float32)
            function(blocks[begin:begin + step], numbers)
            part[...] = numbers
