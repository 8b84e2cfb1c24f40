"""Training steps of GPTs from random weights: forward, loss of the next token, backward, AdamW (fused in PyTorch).

PyTorch runs a model written for speed (torch_gpt.py), eager and compiled, and transformers' own. The last three sizes are GPT-2
124M: all contenders together take about 16 GB there, the four of a size some minutes.
"""
from functools import partial

import numpy as np
import pytest
from harness import Absent, Rate
from rivals import compiled_by, drawn, pytorch, training

ADAMW = {"lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0.1}
# vocabulary, context, width, layers, heads
SMALL, BABY, GPT2 = (65, 64, 128, 4, 4), (65, 64, 384, 6, 6), (50257, 1024, 768, 12, 12)
# name: (model, texts, tokens, bar, bar of memory)
CASES = {
    "GPT 4 × 128, 12 × 64": (SMALL, 12, 64, 1.5, None),
    "GPT 6 × 384, 12 × 64": (BABY, 12, 64, 1.15, None),
    "GPT-2 124M, 4 × 64": (GPT2, 4, 64, 1.3, None),
    "GPT-2 124M, 4 × 256": (GPT2, 4, 256, 1.25, 1.25),
    "GPT-2 124M, 1 × 1024": (GPT2, 1, 1024, 1.25, None),
}


def flop(model, texts, length):
    """Floating-point operations of the products of a step: forward and twice that in backward; attention sees half of it."""
    vocabulary, _, width, layers, _ = model
    token = layers * (12 * width * width + length * width) + vocabulary * width
    return 3 * 2 * token * texts * length


def weights(name, shape):
    """The same starting values for all, from a parameter's name in Hugging Face's files, in their layout (Conv1D: in, out)."""
    return drawn(name, shape, [".ln_"])


def turn(tokens, from_numpy):
    """A function that gives the batches (B, T) in turn."""
    batches, state = [from_numpy(one) for one in tokens], {"next": 0}

    def batch():
        index = state["next"]
        state["next"] = (index + 1) % len(batches)
        return index, batches[index]

    return batch


def own_loss(model, batch):
    """The loss that a model makes itself of the next batch; the same call in bpnn and in transformers."""

    def compute():
        tokens = batch()[1]
        return model(tokens, labels=tokens).loss

    return compute


def config_of(model):
    vocabulary, context, width, layers, heads = model
    return {
        "vocab_size": vocabulary, "n_positions": context, "n_embd": width, "n_layer": layers, "n_head": heads, "resid_pdrop": 0.0,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": None, "eos_token_id": None,
    }


def bpnn_job(inputs, model):
    import bpnn
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel

    with bpnn.nn.init.skip_init():
        gpt = GPT2LMHeadModel(GPT2Config(**config_of(model)))
    with bpnn.no_grad():
        for name, parameter in gpt.named_parameters():
            parameter.copy_(bpnn.from_numpy(weights(name.removeprefix("transformer."), tuple(parameter.shape))))
    optimizer = bpnn.optim.AdamW(gpt.parameters(), **ADAMW)
    return training(optimizer, own_loss(gpt, turn(inputs["tokens"], bpnn.from_numpy)))


def torch_job(inputs, model, how="PyTorch"):
    torch, _, compiler = pytorch(how)
    from torch_gpt import GPT

    gpt = GPT(*model)
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            conv = ".c_" in name and name.endswith("weight")
            array = weights(name, tuple(parameter.shape)[::-1] if conv else tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(array.T if conv else array))
    optimizer = torch.optim.AdamW(gpt.parameters(), fused=True, **ADAMW)
    batch = turn(inputs["tokens"], torch.from_numpy)
    # The same loss as with labels=tokens in transformers: the last place has no target.
    following = np.full_like(inputs["tokens"], -100)
    following[..., :-1] = inputs["tokens"][..., 1:]
    targets = [torch.from_numpy(one) for one in following]
    compute_loss = compiler(gpt)
    if compiler is torch.compile:
        compiled_by(lambda: compute_loss(torch.from_numpy(inputs["tokens"][0]), targets[0]).backward())

    def next_loss():
        index, tokens = batch()
        return compute_loss(tokens, targets[index])

    return training(optimizer, next_loss)


def transformers_job(inputs, model):
    torch = pytorch("PyTorch")[0]
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as missing:
        raise Absent(str(missing)) from missing
    gpt = GPT2LMHeadModel(GPT2Config(**config_of(model), attn_implementation="sdpa", use_cache=False)).train()
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            parameter.copy_(torch.from_numpy(weights(name.removeprefix("transformer."), tuple(parameter.shape))))
    optimizer = torch.optim.AdamW(gpt.parameters(), fused=True, **ADAMW)
    return training(optimizer, own_loss(gpt, turn(inputs["tokens"], torch.from_numpy)))


@pytest.mark.parametrize("case", CASES)
def test_gpt(race, peak, case):
    model, texts, length, bar, memory = CASES[case]
    contenders = {
        "bpnn": partial(bpnn_job, model=model),
        "PyTorch": partial(torch_job, model=model),
        "PyTorch compiled": partial(torch_job, model=model, how="PyTorch compiled"),
        "PyTorch, transformers": partial(transformers_job, model=model),
    }
    inputs = {"tokens": np.random.default_rng(0).integers(0, model[0], (4, texts, length))}
    large = {"rounds": 5, "seconds": 3} if model is GPT2 else {"seconds": 1}
    race(
        f"{case}, AdamW", contenders, inputs=inputs, bars={"PyTorch": bar}, memory_bar=memory, rtol=1e-3,
        rate=Rate(flop(model, texts, length) / 1e9, "GFLOP/s", peak), **large,
    )
