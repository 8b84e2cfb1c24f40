"""Normalizations, forward and backward, against PyTorch's; fused forms against composed ones.

The rate is the memory traffic: every array that must be read or written counted once, over the median time.
"""
from functools import partial

import numpy as np
import pytest
from harness import Job, Rate
from rivals import COMPILED, LAST, NCHW, compiled_by, pytorch, same


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def channels(lib, F, x, w, b):
    return F.batch_norm(x, None, None, w, b, True)


def channels_relu(lib, F, x, w, b):
    return F.relu(channels(lib, F, x, w, b))


def channels_residual_relu(lib, F, x, w, b, r):
    return F.relu(channels(lib, F, x, w, b) + r)


def fused_relu(lib, F, x, w, b):
    return F.batch_norm(x, None, None, w, b, True, activation="relu")


def fused_residual_relu(lib, F, x, w, b, r):
    return F.batch_norm(x, None, None, w, b, True, residual=r, activation="relu")


def rows(lib, F, x, w, b):
    return F.layer_norm(x, x.shape[-1:], w, b)


def root_mean_square(lib, F, x, w, b):
    return F.rms_norm(x, x.shape[-1:], w)


def residual_rows(lib, F, x, w, b, r):
    s = x + r
    return F.layer_norm(s, s.shape[-1:], w, b), s


def residual_root_mean_square(lib, F, x, w, b, r):
    s = x + r
    return F.rms_norm(s, s.shape[-1:], w), s


def fused_residual_rows(lib, F, x, w, b, r):
    return F.layer_norm(x, x.shape[-1:], w, b, residual=r)


def fused_residual_root_mean_square(lib, F, x, w, b, r):
    return F.rms_norm(x, x.shape[-1:], w, residual=r)


def groups(lib, F, x, w, b):
    return F.group_norm(x, 32, w, b)


def instances(lib, F, x, w, b):
    return F.instance_norm(x, None, None, w, b)


FUNCTIONS = {f.__name__: f for f in (
    channels, channels_relu, channels_residual_relu, fused_relu, fused_residual_relu, rows, root_mean_square,
    residual_rows, residual_root_mean_square, fused_residual_rows, fused_residual_root_mean_square, groups, instances,
)}

# name → (shape of x, arrays of its size that a step must read and write, composed form, fused form or None, bar)
CASES = {
    "batch_norm + relu 128×16×32×32": ((128, 16, 32, 32), 5, "channels_relu", "fused_relu", 1.5),
    "batch_norm + relu 128×64×8×8": ((128, 64, 8, 8), 5, "channels_relu", "fused_relu", 1.5),
    "batch_norm + residual + relu 128×16×32×32": (
        (128, 16, 32, 32), 8, "channels_residual_relu", "fused_residual_relu", 1.5
    ),
    "batch_norm 32×64×56×56": ((32, 64, 56, 56), 5, "channels", None, 1.5),
    "layer_norm 1024×768": ((1024, 768), 5, "rows", None, 1.2),
    "layer_norm 4096×64": ((4096, 64), 5, "rows", None, 1.2),
    "rms_norm 1024×768": ((1024, 768), 5, "root_mean_square", None, 1.2),
    "residual + layer_norm 1024×768": ((1024, 768), 8, "residual_rows", "fused_residual_rows", 1.2),
    "residual + layer_norm 4096×64": ((4096, 64), 8, "residual_rows", "fused_residual_rows", 1.2),
    "residual + rms_norm 1024×768": (
        (1024, 768), 8, "residual_root_mean_square", "fused_residual_root_mean_square", 1.2
    ),
    "group_norm 16×64×32×32, 32 groups": ((16, 64, 32, 32), 5, "groups", None, 1.2),
    "instance_norm 16×64×32×32": ((16, 64, 32, 32), 5, "instances", None, 1.2),
}


def norm_job(lib, inputs, form, place=same, compiled=same):
    """The names are the same in both libraries, and so is this job."""
    tensors = {key: place(lib.from_numpy(array)) for key, array in inputs.items()}
    dy = tensors.pop("dy")
    tensors = [tensor.requires_grad_() for tensor in tensors.values()]
    call = compiled(partial(FUNCTIONS[form], lib, lib.nn.functional))

    def step():
        for tensor in tensors:
            tensor.grad = None
        y = call(*tensors)
        outputs = y if isinstance(y, tuple) else (y,)
        lib.autograd.backward(outputs, (dy,) * len(outputs))
        return outputs

    if compiled is not same:
        compiled_by(step)

    def result(outputs):
        # Mean squares of gradients: where z is about 1e-9, relu may pass a gradient on in one library and not in the other.
        gradients = {f"d{i}": tensor.grad for i, tensor in enumerate(tensors) if tensor.grad is not None}
        values = {f"y{i}": y.detach().numpy() for i, y in enumerate(outputs)}
        return {key: np.square(g.numpy(), dtype=np.float64).mean() for key, g in gradients.items()} | values

    return Job(step, result)


def bpnn_job(inputs, form):
    import bpnn

    return norm_job(bpnn, inputs, form)


def torch_job(inputs, form, how):
    torch, place, compiled = pytorch(how)
    return norm_job(torch, inputs, form, place, compiled)


@pytest.mark.parametrize("name", CASES)
def test_norm(race, name):
    shape, moved, composed, fused, bar = CASES[name]
    width = shape[1]
    inputs = {"x": normal(*shape), "w": 1 + normal(width) / 8, "b": normal(width)}
    if "residual" in composed:
        inputs["r"] = normal(*shape)[::-1].copy()
    inputs["dy"] = normal(*shape)[..., ::-1].copy()
    contenders = {"bpnn": partial(bpnn_job, form=fused or composed)}
    if fused:
        contenders["bpnn composed"] = partial(bpnn_job, form=composed)
    for how in (NCHW, *([LAST] if len(shape) == 4 else []), COMPILED):
        contenders[how] = partial(torch_job, form=composed, how=how)
    race(
        f"{name}, forward and backward", contenders, inputs=inputs, bars={"PyTorch": bar},
        rate=Rate(4e-9 * np.prod(shape) * moved, "GB/s"), seconds=0.1, rtol=1e-3, atol=2e-3,
    )
