"""Optimizer steps alone: the same parameters and gradients, one `step()` after another."""
from functools import partial

import numpy as np
import pytest
from harness import THREADS, Job


def gpt2(layers=12, width=768, vocabulary=50257, context=1024):
    """The shapes of GPT-2 124M: 148 tensors."""
    block = [
        (width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,),
        (width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,),
    ]
    return [(vocabulary, width), (context, width), *layers * block, (width,), (width,)]


NETWORKS = {
    "4-16-3": [(16, 4), (16,), (3, 16), (3,)],
    "784-500-10": [(500, 784), (500,), (10, 500), (10,)],
    "124M in 148 tensors": gpt2(),
}
OPTIONS = {"AdamW": {"lr": 1e-3}, "Adam": {"lr": 1e-3}, "SGD": {"lr": 1e-2, "momentum": 0.9}}


def numbers(shapes):
    """A start and a gradient for each shape, cheap to make even for 124 million elements."""
    rng = np.random.default_rng(0)
    ramp = rng.standard_normal(1009).astype(np.float32)
    return [(np.resize(ramp, shape), np.resize(ramp[::-1], shape)) for shape in shapes]


def bpnn_job(inputs, network, optimizer, max_norm=None):
    import bpnn

    bpnn.set_num_threads(THREADS)
    params = []
    for start, grad in numbers(NETWORKS[network]):
        params.append(bpnn.from_numpy(start).requires_grad_())
        params[-1].grad = bpnn.from_numpy(grad)
    opt = getattr(bpnn.optim, optimizer)(params, **OPTIONS[optimizer])
    keywords = {} if max_norm is None else {"max_norm": max_norm}
    return Job(
        step=lambda: opt.step(**keywords),
        result=lambda last: {"first": params[0].detach().numpy()[0], "last": params[-1].detach().numpy()},
    )


def torch_job(inputs, network, optimizer, max_norm=None):
    import torch

    torch.set_num_threads(THREADS)
    params = []
    for start, grad in numbers(NETWORKS[network]):
        params.append(torch.from_numpy(start).requires_grad_())
        params[-1].grad = torch.from_numpy(grad)
    opt = getattr(torch.optim, optimizer)(params, **OPTIONS[optimizer], fused=True)
    kept = [param.grad.clone() for param in params] if max_norm is not None else []

    def step():
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(params, max_norm)
        opt.step()

    def result(last):
        # Clipping in place changes the gradients that the next step would see; bpnn's fused clipping does not.
        for param, grad in zip(params, kept):
            param.grad.copy_(grad)
        return {"first": params[0].detach().numpy()[0], "last": params[-1].detach().numpy()}

    return Job(step=step, result=result)


@pytest.mark.parametrize(("network", "optimizer", "max_norm"), [
    ("4-16-3", "Adam", None),
    ("784-500-10", "Adam", None),
    ("784-500-10", "SGD", None),
    ("124M in 148 tensors", "AdamW", None),
    ("124M in 148 tensors", "AdamW", 1.0),
])
def test_step(race, network, optimizer, max_norm):
    keywords = {"network": network, "optimizer": optimizer, "max_norm": max_norm}
    clipped = "" if max_norm is None else ", clipped by the norm"
    race(
        f"{optimizer} step of {network}{clipped}",
        {"bpnn": partial(bpnn_job, **keywords), "PyTorch fused": partial(torch_job, **keywords)},
        bars={"PyTorch": 1.0},
    )
