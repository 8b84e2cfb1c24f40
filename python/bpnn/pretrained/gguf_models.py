"""LLaMA's family in GGUF files under Hugging Face's names: configuration and tensors.

llama.cpp stores queries and keys of the architecture "llama" with the rows of a head in pairs, Hugging Face in halves.
"""
import re
from functools import partial
from typing import Any

import numpy as np

from .llama2c import halves
from .weights import Entry, Weights

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}  # Mistral and SmolLM are "llama" there

NAMES = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight",
}
PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"


def hugging_face(weights: Weights) -> tuple[dict[str, Any], Weights]:
    """The configuration (keys of `config.json`) and the tensors, under Hugging Face's names, of an opened GGUF file.

    Raises `ValueError` naming the file and the value or tensor: an architecture other than llama and qwen2, a value that
    is missing, a tensor that the architecture does not have.
    """
    path, values = weights.path, weights.metadata
    architecture = values.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{path}: general.architecture is {architecture!r}, bpnn reads {', '.join(ARCHITECTURES)}")
    config = _config(weights, architecture)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    entries: dict[str, Entry] = {}
    unknown = []
    for name, entry in weights.entries.items():
        match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
        if name in NAMES:
            entries[NAMES[name]] = entry
        elif match and match[2] in PARTS:
            if architecture == "llama" and match[2] in ("attn_q", "attn_k"):
                count = heads if match[2] == "attn_q" else kv_heads
                if not entry.shape or entry.shape[0] % (2 * count):
                    raise ValueError(f"{path}: tensor {name!r} has shape {entry.shape}, which {count} heads do not divide")
                entry = entry.mapped(partial(halves, heads=count))
            entries[f"model.layers.{match[1]}.{PARTS[match[2]]}.{match[3]}"] = entry
        elif name != ROPE_FACTORS:
            unknown.append(name)
    if unknown:
        raise ValueError(f"{path}: has tensors that {architecture} does not have: {', '.join(unknown)}")
    return config, Weights(entries, path, values)


def _config(weights: Weights, architecture: str) -> dict[str, Any]:
    path, values = weights.path, weights.metadata

    def value(key: str, *default: Any) -> Any:
        full = f"{architecture}.{key}"
        if full not in values and not default:
            raise ValueError(f"{path}: has no value {full!r}")
        found = values.get(full, *default)
        if isinstance(found, list):
            raise ValueError(f"{path}: {full} differs from layer to layer, which bpnn does not read")
        return found

    width, heads = value("embedding_length"), value("attention.head_count")
    if not heads or width % heads:
        raise ValueError(f"{path}: embedding_length {width} is no multiple of head_count {heads}")
    vocabulary = weights.shape("token_embd.weight")[0] if "token_embd.weight" in weights else value("vocab_size")
    config = {
        "model_type": architecture, "architectures": [ARCHITECTURES[architecture]], "hidden_size": width,
        "intermediate_size": value("feed_forward_length"), "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads, "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", width // heads), "vocab_size": vocabulary,
        "max_position_embeddings": value("context_length"),
        # stored as float32: 1e-05 is 9.999999747378752e-06 there
        "rms_norm_eps": float(str(np.float32(value("attention.layer_norm_rms_epsilon")))),
        "rope_theta": float(value("rope.freq_base", 10000.0)), "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in weights,
    }
    if architecture != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in weights
    if value("rope.dimension_count", config["head_dim"]) != config["head_dim"]:
        raise ValueError(f"{path}: rotates {value('rope.dimension_count')} of {config['head_dim']} numbers of a head, LLaMA all")
    for key, name in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        if f"tokenizer.ggml.{key}_token_id" in values:
            config[f"{name}_token_id"] = values[f"tokenizer.ggml.{key}_token_id"]
    kind = value("rope.scaling.type", "none")
    if kind == "linear":
        config["rope_scaling"] = {"rope_type": "linear", "factor": float(value("rope.scaling.factor"))}
    elif kind != "none":
        raise ValueError(f"{path}: {architecture}.rope.scaling.type is {kind!r}, bpnn reads 'linear'")
    if ROPE_FACTORS in weights:
        config["rope_scaling"] = _llama3_scaling(path, weights[ROPE_FACTORS], config)
    return config


def _llama3_scaling(path: str, factors: np.ndarray, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of LLaMA 3's rotary scaling, of which the file has the outcome: what each frequency is divided by."""
    size, theta, factor = config["head_dim"], config["rope_theta"], float(factors.max())
    frequency = theta ** (-np.arange(0, size, 2) / size)
    for original in (8192, 4096, 16384, 32768, 131072):
        length = original * frequency / (2 * np.pi)  # rotations within the original context: below 1 slowed, above 4 kept
        smooth = np.clip((length - 1) / 3, 0, 1)
        if factors.shape == frequency.shape and np.allclose(1 / ((1 - smooth) / factor + smooth), factors, rtol=1e-4):
            return {
                "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
    raise ValueError(f"{path}: tensor {ROPE_FACTORS!r} is not what LLaMA 3's scaling of positions gives")
