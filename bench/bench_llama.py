"""Training steps of LLaMAs from random weights: forward, loss of the next token, backward, AdamW (fused in PyTorch).

PyTorch runs transformers' own model with its `scaled_dot_product_attention`.
"""
from functools import partial

import numpy as np
import pytest
from bench_gpt import own_loss, turn
from harness import Absent, Rate
from rivals import drawn, pytorch, training

ADAMW = {"lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0.1}
# vocabulary, width, inner width, layers, query heads, key-value heads
STORIES, SMOL = (32000, 288, 768, 6, 6, 6), (49152, 576, 1536, 30, 9, 3)
CASES = {"stories15M, 8 × 64": (STORIES, 8, 64), "SmolLM2 135M, 2 × 128": (SMOL, 2, 128)}


def config_of(model):
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    return {**dict(zip(names, model)), "tie_word_embeddings": True}


def flop(model, texts, length):
    """Floating-point operations of the products of a step: forward and twice that in backward; attention sees half of it."""
    vocabulary, width, inner, layers, heads, groups = model
    token = layers * (2 * width * width * (1 + groups / heads) + 3 * width * inner + length * width) + vocabulary * width
    return 3 * 2 * token * texts * length


def weights(name, shape):
    """The same starting values for both, from a parameter's name."""
    return drawn(name, shape, ["norm"])


def bpnn_job(inputs, model):
    import bpnn
    from bpnn.models import LlamaConfig, LlamaForCausalLM

    with bpnn.nn.init.skip_init():
        llama = LlamaForCausalLM(LlamaConfig(**config_of(model)))
    with bpnn.no_grad():
        for name, parameter in llama.named_parameters():
            parameter.copy_(bpnn.from_numpy(weights(name, tuple(parameter.shape))))
    optimizer = bpnn.optim.AdamW(llama.parameters(), **ADAMW)
    return training(optimizer, own_loss(llama, turn(inputs["tokens"], bpnn.from_numpy)))


def transformers_job(inputs, model):
    torch = pytorch("PyTorch")[0]
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as missing:
        raise Absent(str(missing)) from missing
    llama = LlamaForCausalLM(LlamaConfig(**config_of(model), use_cache=False, attn_implementation="sdpa")).train()
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            parameter.copy_(torch.from_numpy(weights(name, tuple(parameter.shape))))
    optimizer = torch.optim.AdamW(llama.parameters(), fused=True, **ADAMW)
    return training(optimizer, own_loss(llama, turn(inputs["tokens"], torch.from_numpy)))


@pytest.mark.parametrize("case", CASES)
def test_llama(race, peak, case):
    model, texts, length = CASES[case]
    inputs = {"tokens": np.random.default_rng(0).integers(0, model[0], (4, texts, length))}
    race(
        f"{case}, AdamW", {"bpnn": partial(bpnn_job, model=model), "PyTorch transformers": partial(transformers_job, model=model)},
        inputs=inputs, bars={"PyTorch": 1.15}, rate=Rate(flop(model, texts, length) / 1e9, "GFLOP/s", peak), rounds=5, seconds=3,
        rtol=1e-3, atol=1e-4,
    )
