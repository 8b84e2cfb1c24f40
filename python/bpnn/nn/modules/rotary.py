"""Rotary position embedding: angles from a model's configuration, and a module that rotates by them."""
import math

import numpy as np

from bpnn.nn import functional as F
from bpnn.nn.modules.module import Module
from bpcore.tensor import from_array


def rotary_frequencies(dim, theta=10000.0, scaling=None, max_position_embeddings=2048, length=None, dtype=np.float32):
    """How far each pair of elements turns from one position to the next, an array (dim / 2,).

    `theta^(-2i/dim)`, changed by `scaling`, a dictionary with Hugging Face's keys (`rope_scaling` in config.json; its `rope_type`
    or `type` says which):

        default     none
        linear      divided by `factor`: positions are interpolated. Chen et al. 2023
        dynamic     theta is `theta (factor L / max_position_embeddings - factor + 1)^(dim / (dim - 2))` for texts of `length` L
                    beyond max_position_embeddings ("NTK-aware")
        llama3      wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched by `factor`, those below
                    `… / high_freq_factor` stay, between the two the factor changes smoothly

    Computed in `dtype` throughout: float32 gives the numbers of `transformers`. Raises `ValueError` for an unknown type
    or a key that is missing.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"dim: expected an even number, 2 or more, got {dim}")
    scaling = scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    required = {
        "default": (), "linear": ("factor",), "dynamic": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }
    if kind not in required:
        raise ValueError(f"scaling: expected the rope_type {', '.join(required)}, got {kind!r}")
    missing = [key for key in required[kind] if key not in scaling]
    if missing:
        raise ValueError(f"scaling: {kind} needs {', '.join(missing)}, got {scaling}")
    if kind == "dynamic":
        ratio = max(length or 0, max_position_embeddings) / max_position_embeddings
        theta = theta * (scaling["factor"] * ratio - (scaling["factor"] - 1)) ** (dim / (dim - 2))
    real = np.dtype(dtype).type
    exponents = np.arange(0, dim, 2).astype(real) / real(dim)
    frequencies = real(1) / (float(theta) ** exponents.astype(np.float64)).astype(real)
    if kind == "linear":
        return frequencies / real(scaling["factor"])
    if kind == "llama3":
        return _stretched(frequencies, *(scaling[key] for key in required[kind]))
    return frequencies


def _stretched(frequencies, factor, low, high, original):
    """LLaMA 3's: by how often a pair turns within the original context."""
    real = frequencies.dtype.type
    wavelengths = real(2 * math.pi) / frequencies
    slow = frequencies / real(factor)
    share = (real(original) / wavelengths - real(low)) / real(high - low)
    between = (1 - share) * slow + share * frequencies
    return np.where(wavelengths > original / low, slow, np.where(wavelengths < original / high, frequencies, between))


def rotary_tables(frequencies, length, dtype=None):
    """cos and sin of all angles of the positions below `length`: two Tensors (length, dim / 2) for `F.rotary_embedding`."""
    real = frequencies.dtype
    angles = np.arange(length, dtype=real)[:, None] * frequencies
    # Through float64: rounded correctly, whatever processor.
    return tuple(from_array(f(angles.astype(np.float64)).astype(real).astype(dtype or np.float32)) for f in (np.cos, np.sin))


class RotaryEmbedding(Module):
    """Rotates queries and keys by the angles of their positions; tables grow with the texts.

    `dim`: how many elements of each vector are rotated (all of a head, or fewer). `theta`, `scaling`, `max_position_embeddings`:
    see `rotary_frequencies`. `interleaved`: pairs are neighbours (GPT-J, llama2.c) instead of dim / 2 apart (Hugging Face's LLaMA).
    With dynamic scaling the angles depend on the longest position of the call.

    >>> import bpnn
    >>> rotary = bpnn.nn.RotaryEmbedding(4)
    >>> rotary(bpnn.ones(1, 2, 3, 4)).shape
    (1, 2, 3, 4)
    """

    def __init__(self, dim, theta=10000.0, max_position_embeddings=2048, scaling=None, interleaved=False):
        super().__init__()
        rotary_frequencies(dim, theta, scaling, max_position_embeddings)       # refuses what is wrong
        self.dim, self.theta, self.max_position_embeddings = dim, theta, max_position_embeddings
        self.scaling, self.interleaved = dict(scaling or {}), interleaved
        self._tables = {}

    def tables(self, length, dtype=np.float32):
        """cos and sin of at least `length` positions."""
        dynamic = self.scaling.get("rope_type", self.scaling.get("type")) == "dynamic"
        key = (np.dtype(dtype).name, max(length, self.max_position_embeddings) if dynamic else None)
        if key not in self._tables or self._tables[key][0].shape[0] < length:
            if dynamic:
                self._tables.clear()           # one for each length would be many
            real = np.float64 if np.dtype(dtype) == np.float64 else np.float32
            frequencies = rotary_frequencies(self.dim, self.theta, self.scaling, self.max_position_embeddings, length, real)
            rows = length if dynamic else max(64, 1 << (length - 1).bit_length())
            self._tables[key] = rotary_tables(frequencies, rows, dtype)
        return self._tables[key]

    def forward(self, input, positions=None, seq_dim=-2):
        """The rotated vectors; `positions` (T,) or (B, T), None: 0 … T - 1. `seq_dim`: the axis T of `input`."""
        if positions is None:
            length = input.shape[seq_dim]
        else:
            length = int(positions.max()) + 1 if positions.numel() else 0
        cos, sin = self.tables(max(length, 1), input.dtype)
        return F.rotary_embedding(input, cos, sin, positions, interleaved=self.interleaved, seq_dim=seq_dim)

    def extra_repr(self):
        """Size, base and scaling."""
        return f"{self.dim}, theta={self.theta}, scaling={self.scaling}, interleaved={self.interleaved}"
