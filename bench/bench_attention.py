"""Attention, forward and backward, from a joint projection of queries, keys and values: in one node, apart, composed, packed.

The rate counts the products of the pairs of query and key that may meet: two in forward, five in backward.
"""
from functools import partial

import numpy as np
import pytest
from harness import Job, Rate
from rivals import pytorch

# name → (B, T, H, D, causal, bar)
CASES = {
    "attention, causal, 12×4×64×32": (12, 64, 4, 32, True, 1.3),
    "attention, causal, 4×12×256×64": (4, 256, 12, 64, True, 1.3),
    "attention, causal, 1×12×1024×64": (1, 1024, 12, 64, True, 1.3),
    "attention, all pairs, 8×12×197×64": (8, 197, 12, 64, False, 1.0),
}
LENGTHS = (23, 12, 31, 67, 9, 25, 18, 22, 40, 15, 7, 28, 19, 33, 21, 11, 26, 14, 36, 17, 24, 8, 20, 29, 16, 45, 10, 27, 13, 30,
           6, 34)


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def whole(lib, q, k, v, causal, mask):
    return lib.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def joint(lib, qkv, causal, mask):
    return lib.nn.functional.qkv_attention(qkv, attn_mask=mask, is_causal=causal)


def composed(lib, q, k, v, causal, mask):
    """The formula; a causal mask is added."""
    s = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if causal:
        s = s + lib.triu(lib.full((q.shape[-2], q.shape[-2]), -float("inf")), 1)
    return lib.softmax(s, -1) @ v


def attention_job(lib, inputs, attend, causal):
    """qkv: (B, T, 3, H, D); dy: (B, T, H, D); seen: (B, T) or absent. The same in both libraries."""
    qkv, dy = lib.from_numpy(inputs["qkv"]).requires_grad_(), lib.from_numpy(inputs["dy"])
    seen = inputs.get("seen")
    mask = None if seen is None else lib.from_numpy(seen)[:, None, None, :]

    def step():
        qkv.grad = None
        if attend is joint:
            y = joint(lib, qkv, causal, mask)
        else:
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
            y = attend(lib, q, k, v, causal, mask).transpose(1, 2)
        y.backward(dy)
        return y

    rows = slice(None) if seen is None else seen
    return Job(step, lambda y: {"y": y.detach().numpy()[rows], "dqkv": qkv.grad.numpy()[rows]})


def bpnn_job(inputs, form, causal):
    import bpnn

    return attention_job(bpnn, inputs, {"joint": joint, "apart": whole, "composed": composed}[form], causal)


def torch_job(inputs, causal):
    torch = pytorch("PyTorch")[0]
    return attention_job(torch, inputs, whole, causal)


@pytest.mark.parametrize("name", CASES)
def test_attention(race, name):
    B, T, H, D, causal, bar = CASES[name]
    contenders = {
        "bpnn": partial(bpnn_job, form="joint", causal=causal),
        "bpnn apart": partial(bpnn_job, form="apart", causal=causal),
        "bpnn composed": partial(bpnn_job, form="composed", causal=causal),
        "PyTorch": partial(torch_job, causal=causal),
    }
    pairs = B * H * (T * (T + 1) / 2 if causal else T * T)
    race(
        f"{name}, forward and backward", contenders, inputs={"qkv": normal(B, T, 3, H, D), "dy": normal(B, T, H, D)},
        bars={"PyTorch": bar}, rate=Rate(14e-9 * pairs * D, "GFLOP/s"), seconds=0.2, rtol=1e-3, atol=1e-4,
    )


def packed_job(inputs):
    """The real tokens alone: (total, 3, H, D)."""
    import bpnn
    from bpnn.nn import functional as F

    seen = inputs["seen"]
    qkv, dy = bpnn.from_numpy(inputs["qkv"][seen]).requires_grad_(), bpnn.from_numpy(inputs["dy"][seen])
    starts = np.cumsum([0, *seen.sum(1)])

    def step():
        qkv.grad = None
        y = F.qkv_attention(qkv, starts)
        y.backward(dy)
        return y

    return Job(step, lambda y: {"y": y.detach().numpy(), "dqkv": qkv.grad.numpy()})


def test_packed_sentences(race):
    T, H, D = max(LENGTHS), 12, 64
    seen = np.arange(T) < np.array(LENGTHS)[:, None]
    inputs = {"qkv": normal(len(LENGTHS), T, 3, H, D), "dy": normal(len(LENGTHS), T, H, D) * seen[..., None, None], "seen": seen}
    contenders = {
        "bpnn": packed_job,
        "bpnn padded": partial(bpnn_job, form="joint", causal=False),
        "PyTorch padded": partial(torch_job, causal=False),
    }
    race(
        "attention of 32 sentences of 6 to 67 tokens, forward and backward", contenders, inputs=inputs, bars={"PyTorch": 2.0},
        rate=Rate(14e-9 * H * D * sum(n * n for n in LENGTHS), "GFLOP/s"), seconds=0.2, rtol=1e-3, atol=1e-4,
    )
