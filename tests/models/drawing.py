"""Weights and inputs drawn by NumPy from their names alone: the same numbers everywhere, nothing large to store."""
import zlib

import numpy as np


def uniform(name, shape):
    """Numbers between -1 and 1 that depend on `name` alone; of raw bits, which NumPy promises never to change."""
    size = int(np.prod(shape))
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(size) >> np.uint64(11)
    return (bits.astype(np.float64) / 2**52 - 1).reshape(shape)


def weight(name, shape):
    """The float32 tensor of a parameter, by its name in files: norms about 1, biases that are not 0, matrices of small gain."""
    numbers = 3**0.5 * uniform(name, shape)
    if len(shape) > 1:
        numbers = numbers * (0.8 / np.prod(shape[1:]) ** 0.5)
    elif "norm" in name.lower() or ".ln_" in f".{name}":
        numbers = 0.2 * numbers + (0 if name.endswith(("bias", "beta")) else 1)
    else:
        numbers = 0.2 * numbers
    return numbers.astype(np.float32)


def integers(name, shape, begin, end):
    """Whole numbers from `begin` to below `end`."""
    return (begin + np.floor((uniform(name, shape) + 1) / 2 * (end - begin))).astype(np.int64)
