"""Quantized blocks of GGUF files to float32 (the types of ggml: github.com/ggml-org/ggml, ggml-quants.c).

A row of a matrix is cut into blocks, each with its scales and its whole numbers. `B` blocks in, `(B, numbers a block)` out.
"""
from collections.abc import Callable

import numpy as np

Blocks = np.ndarray  # (B, bytes a block), uint8


def _half(blocks: Blocks, at: int) -> np.ndarray:
    """The float16 at byte `at` of each block, as float32: (B, 1)."""
    return np.ascontiguousarray(blocks[:, at:at + 2]).view("<f2").astype(np.float32)


def _nibbles(quants: np.ndarray) -> np.ndarray:
    """(B, n) bytes to (B, 2 n) numbers 0 … 15: the low halves of all bytes, then the high ones."""
    return np.concatenate([quants & 15, quants >> 4], axis=1)


def q8_0(blocks: Blocks) -> np.ndarray:
    """`d * q`: 32 numbers of 8 bits."""
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def q4_0(blocks: Blocks) -> np.ndarray:
    """`d * (q - 8)`: 32 numbers of 4 bits."""
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def q4_1(blocks: Blocks) -> np.ndarray:
    """`d * q + m`: 32 numbers of 4 bits."""
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + _half(blocks, 2)


def q4_k(blocks: Blocks) -> np.ndarray:
    """`d s q - dmin m`: eight groups of 32 numbers of 4 bits, each with a scale s and a minimum m of 6 bits."""
    packed = blocks[:, 4:16]  # four scales, four minima (6 bits each), then four bytes with 4 bits of each of the other eight
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate([low & 63, high & 15 | low >> 6 << 4], axis=1).astype(np.float32)
    minimum = np.concatenate([middle & 63, high >> 4 | middle >> 6 << 4], axis=1).astype(np.float32)
    quants = blocks[:, 16:].reshape(-1, 4, 1, 32) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    values = (_half(blocks, 0) * scale)[:, :, None] * quants.reshape(-1, 8, 32).astype(np.float32)
    return (values - (_half(blocks, 2) * minimum)[:, :, None]).reshape(-1, 256)


def q6_k(blocks: Blocks) -> np.ndarray:
    """`d s (q - 32)`: sixteen groups of 16 numbers of 6 bits, each with a scale s of 8 bits."""
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    quants = low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 4
    scale = _half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scale[:, :, None] * (quants.astype(np.float32) - 32)).reshape(-1, 256)


# name: bytes a block, numbers a block, function
QUANTIZED: dict[str, tuple[int, int, Callable[[Blocks], np.ndarray]]] = {
    "Q4_0": (18, 32, q4_0), "Q4_1": (20, 32, q4_1), "Q8_0": (34, 32, q8_0), "Q4_K": (144, 256, q4_k), "Q6_K": (210, 256, q6_k),
}

AT_ONCE = 1 << 13  # blocks: what is in use at a time stays in the cache


def dequantize(kind: str, data: np.ndarray, out: np.ndarray) -> None:
    """Fill the C-contiguous `out` with the numbers of the blocks of `data` (uint8, in the file's order)."""
    size, count, function = QUANTIZED[kind]
    blocks, rows = data.reshape(-1, size), out.reshape(-1, count)
    for begin in range(0, len(blocks), AT_ONCE):
        rows[begin:begin + AT_ONCE] = function(blocks[begin:begin + AT_ONCE])
