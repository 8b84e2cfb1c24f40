"""Affine maps with a frozen weight, forward and backward: with a low-rank change (LoRA), and with the weight in fewer bits.

The composed form is PEFT's: the map, two thin products, a sum. GFLOP/s count the products of the definitions: forward, and the
gradient of the input; the frozen weight has none.
"""
from functools import partial

import numpy as np
import pytest
from harness import Job, Rate
from rivals import COMPILED, NCHW, compiled_by, pytorch, same

RANK, SCALE = 8, 2.0
# rows, inputs, outputs: 32 sentences of SST-2 in MiniLM; 4 × 256 tokens in SmolLM2 and in GPT-2
SIZES = {
    "MiniLM, 736×384→384": (736, 384, 384), "SmolLM2, 1024×576→576": (1024, 576, 576), "GPT-2, 1024×768→2304": (1024, 768, 2304),
}


def composed(F, x, w, b, a, low):
    return F.linear(x, w, b) + SCALE * F.linear(F.linear(x, a), low)


def fused(F, x, w, b, a, low):
    return F.lora_linear(x, w, b, a, low, SCALE)


def plain(F, x, w, b, a, low):
    return F.linear(x, w, b)


FUNCTIONS = {f.__name__: f for f in (composed, fused, plain)}


def job(lib, inputs, form, kind=None, compiled=same):
    """The names are the same in both libraries, and so is this job."""
    x, w, b, a, low, dy = (lib.from_numpy(inputs[name]) for name in ("x", "w", "b", "a", "low", "dy"))
    if kind is not None:
        from bpcore.stored import store

        w = store(inputs["w"], kind)
    leaves = [x] if form == "plain" else [x, a, low]
    for leaf in leaves:
        leaf.requires_grad_()
    call = compiled(partial(FUNCTIONS[form], lib.nn.functional))

    def step():
        for leaf in leaves:
            leaf.grad = None
        y = call(x, w, b, a, low)
        y.backward(dy)
        return y

    if compiled is not same:
        compiled_by(step)
    return Job(step, result=lambda y: {"y": y.detach().numpy(), **{f"d{i}": leaf.grad.numpy() for i, leaf in enumerate(leaves)}})


def bpnn_job(inputs, **options):
    import bpnn

    return job(bpnn, inputs, **options)


def torch_job(inputs, form, how):
    torch, _, compiled = pytorch(how)
    return job(torch, inputs, form, compiled=compiled)


def arrays(size):
    m, k, n = size
    rng = np.random.default_rng(0)
    shapes = {"x": (m, k), "w": (n, k), "b": (n,), "a": (RANK, k), "low": (n, RANK), "dy": (m, n)}
    return {name: rng.standard_normal(shape, np.float32) / np.float32(k**0.5) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", SIZES)
def test_lora(race, peak, name):
    m, k, n = SIZES[name]
    contenders = {"bpnn": partial(bpnn_job, form="fused"), "bpnn composed": partial(bpnn_job, form="composed")}
    contenders |= {how: partial(torch_job, form="composed", how=how) for how in (NCHW, COMPILED)}
    work = 2e-9 * m * (2 * k * n + 3 * RANK * (k + n))
    race(f"LoRA, {name}", contenders, inputs=arrays(SIZES[name]), bars={"PyTorch": 1.1}, rate=Rate(work, "GFLOP/s", peak),
         rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_stored(race, peak, name):
    """int8 rounds the weight by up to 1/254 of the largest of its block."""
    m, k, n = SIZES[name]
    contenders = {
        "bpnn": partial(bpnn_job, form="plain", kind="int8"), "bpnn bfloat16": partial(bpnn_job, form="plain", kind="bfloat16"),
        "bpnn float32": partial(bpnn_job, form="plain"), NCHW: partial(torch_job, form="plain", how=NCHW),
    }
    race(f"frozen weight as int8, {name}", contenders, inputs=arrays(SIZES[name]), bars={"PyTorch": 0.9},
         rate=Rate(4e-9 * m * k * n, "GFLOP/s", peak), rtol=0.05, atol=0.02)
