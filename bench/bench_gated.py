"""Gated linear units, forward and backward: one node against the activation and the product, here and in PyTorch.

The rate is the memory traffic of the fused form: three arrays forward, five backward, over the median time.
"""
from functools import partial

import numpy as np
import pytest
from harness import Job, Rate
from rivals import COMPILED, NCHW, compiled_by, pytorch, same

ROWS, WIDTH = 1024, 1536  # 4 × 256 tokens of a LLaMA with 576 channels


def swiglu(lib, F, gate, up):
    return F.silu(gate) * up


def geglu(lib, F, gate, up):
    return F.gelu(gate) * up


def geglu_tanh(lib, F, gate, up):
    return F.gelu(gate, approximate="tanh") * up


def fused_swiglu(lib, F, gate, up):
    return F.swiglu(gate, up)


def fused_geglu(lib, F, gate, up):
    return F.geglu(gate, up)


def fused_geglu_tanh(lib, F, gate, up):
    return F.geglu(gate, up, "tanh")


FUNCTIONS = {f.__name__: f for f in (swiglu, geglu, geglu_tanh, fused_swiglu, fused_geglu, fused_geglu_tanh)}


def gated_job(lib, inputs, form, compiled=same):
    """The names are the same in both libraries, and so is this job."""
    gate, up, dy = (lib.from_numpy(inputs[name]) for name in ("gate", "up", "dy"))
    gate.requires_grad_()
    up.requires_grad_()
    call = compiled(partial(FUNCTIONS[form], lib, lib.nn.functional))

    def step():
        gate.grad = up.grad = None
        y = call(gate, up)
        y.backward(dy)
        return y

    if compiled is not same:
        compiled_by(step)
    return Job(step, result=lambda y: {"y": y.detach().numpy(), "dgate": gate.grad.numpy(), "dup": up.grad.numpy()})


def bpnn_job(inputs, form):
    import bpnn

    return gated_job(bpnn, inputs, form)


def torch_job(inputs, form, how):
    torch, _, compiled = pytorch(how)
    return gated_job(torch, inputs, form, compiled)


@pytest.mark.parametrize("form", ["swiglu", "geglu", "geglu_tanh"])
def test_gated(race, form):
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((ROWS, WIDTH), np.float32) for name in ("gate", "up", "dy")}
    contenders = {"bpnn": partial(bpnn_job, form=f"fused_{form}"), "bpnn composed": partial(bpnn_job, form=form)}
    contenders |= {how: partial(torch_job, form=form, how=how) for how in (NCHW, COMPILED)}
    race(
        f"{form.replace('_', ' ')} {ROWS}×{WIDTH}, forward and backward", contenders, inputs=inputs, bars={"PyTorch": 1.5},
        rate=Rate(4e-9 * ROWS * WIDTH * 8, "GB/s"), seconds=0.1, rtol=1e-3, atol=1e-5,
    )
