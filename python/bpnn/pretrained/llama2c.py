"""llama2.c's `.bin` files: a header of seven numbers, then float32 tensors in a fixed order (github.com/karpathy/llama2.c).

The header: width, hidden width, layers, heads, key-value heads, vocabulary (negative: the last matrix is stored apart), context.
Names and order of rows are those of `LlamaForCausalLM`: llama2.c rotates neighboring pairs of a head, Hugging Face its halves.
"""
import math
import os
import struct
from typing import Any

import numpy as np

from .weights import Entry, MappedFile, Weights, array_entry

HEADER = struct.Struct("<7i")


def halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix from neighboring pairs (x0 y0 x1 y1 …) to halves (x0 x1 … y0 y1 …), head by head."""
    rest = array.shape[1:]
    return array.reshape(heads, -1, 2, *rest).swapaxes(1, 2).reshape(array.shape)


def is_llama2c(path: str | os.PathLike[str]) -> bool:
    """Whether a file is exactly as long as its header, read as llama2.c's, says."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        head = file.read(HEADER.size)
    sizes = _sizes(head)
    return sizes is not None and os.path.getsize(path) == _expected(sizes)


def open_llama2c(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Weights]:
    """The configuration (keys of Hugging Face's `config.json`) and the tensors of a llama2.c file.

    Raises `FileNotFoundError`; `ValueError` naming the file where its length is not what its header says.
    """
    source = os.fspath(path)
    file = MappedFile(source)
    sizes = _sizes(file.bytes(0, HEADER.size))
    if sizes is None:
        raise ValueError(f"{source}: is no llama2.c file: its first 28 bytes are not seven sizes that fit each other")
    if file.size != _expected(sizes):
        raise ValueError(f"{source}: its header asks for {_expected(sizes)} bytes, the file has {file.size}: it is damaged")
    config = _config(sizes)
    entries: dict[str, Entry] = {}
    layers, heads, kv_heads = sizes[2], sizes[3], sizes[4]
    at = HEADER.size
    for name, shape, per_layer in _tensors(sizes):
        size = 4 * math.prod(shape)
        for layer in range(layers if per_layer else 1):
            full = f"model.layers.{layer}.{name}" if per_layer else name
            if name:
                entry = array_entry(source, full, "F32", file.array(at, at + size, "<f4", shape), file.releaser(at, at + size))
                if "q_proj" in name:
                    entry = entry.mapped(lambda x: halves(x, heads))
                elif "k_proj" in name:
                    entry = entry.mapped(lambda x: halves(x, kv_heads))
                entries[full] = entry
            at += size
    return config, Weights(entries, source)


def read_llama2c_vocabulary(path: str | os.PathLike[str]) -> tuple[list[str], list[float]]:
    """The pieces and their scores of llama2.c's `tokenizer.bin`, as SentencePiece writes them ("▁" for a space).

    Raises `FileNotFoundError`; `ValueError` naming the file and the piece where it is damaged.
    """
    source = os.fspath(path)
    with open(source, "rb") as file:
        data = file.read()
    if len(data) < 4:
        raise ValueError(f"{source}: is truncated: {len(data)} bytes")
    longest = int.from_bytes(data[:4], "little", signed=True)
    pieces: list[str] = []
    scores: list[float] = []
    at = 4
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError(f"{source}: is truncated in piece {len(pieces)}")
        score, length = struct.unpack_from("<fi", data, at)
        if not 0 <= length <= max(longest, 16) or at + 8 + length > len(data):
            raise ValueError(f"{source}: piece {len(pieces)} has {length} bytes: the file is truncated or no tokenizer of llama2.c")
        piece = data[at + 8:at + 8 + length].decode("utf-8", "replace")
        at += 8 + length
        special = {1: "<s>", 2: "</s>"}.get(len(pieces))  # the file has them between line breaks
        pieces.append(special if special and special in piece else piece.replace(" ", "▁"))
        scores.append(score)
    return pieces, scores


def _sizes(head: bytes) -> tuple[int, ...] | None:
    if len(head) < HEADER.size:
        return None
    sizes = HEADER.unpack(head)
    width, hidden, layers, heads, kv_heads, vocabulary, context = sizes
    if min(width, hidden, layers, heads, kv_heads, abs(vocabulary), context) < 1 or max(sizes) > 1 << 24 or layers > 10_000:
        return None
    return sizes if width % heads == 0 and heads % kv_heads == 0 and width // heads % 2 == 0 else None


def _tensors(sizes: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], bool]]:
    """Name, shape, and whether there is one for each layer, in the file's order; no name: not needed."""
    width, hidden, _, heads, kv_heads, vocabulary, context = sizes
    size = width // heads
    kv = kv_heads * size
    tensors = [
        ("model.embed_tokens.weight", (abs(vocabulary), width), False),
        ("input_layernorm.weight", (width,), True),
        ("self_attn.q_proj.weight", (width, width), True),
        ("self_attn.k_proj.weight", (kv, width), True),
        ("self_attn.v_proj.weight", (kv, width), True),
        ("self_attn.o_proj.weight", (width, width), True),
        ("post_attention_layernorm.weight", (width,), True),
        ("mlp.gate_proj.weight", (hidden, width), True),
        ("mlp.down_proj.weight", (width, hidden), True),
        ("mlp.up_proj.weight", (hidden, width), True),
        ("model.norm.weight", (width,), False),
        ("", (context, size), False),  # the cosines and sines of the rotation, which are computed now
    ]
    return [*tensors, ("lm_head.weight", (-vocabulary, width), False)] if vocabulary < 0 else tensors


def _expected(sizes: tuple[int, ...]) -> int:
    return HEADER.size + 4 * sum(math.prod(shape) * (sizes[2] if per_layer else 1) for _, shape, per_layer in _tensors(sizes))


def _config(sizes: tuple[int, ...]) -> dict[str, Any]:
    width, hidden, layers, heads, kv_heads, vocabulary, context = sizes
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": width, "intermediate_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": width // heads,
        "vocab_size": abs(vocabulary), "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": vocabulary > 0, "bos_token_id": 1, "eos_token_id": 2,
    }
