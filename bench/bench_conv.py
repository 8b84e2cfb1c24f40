"""Convolutions forward and backward against PyTorch's, with GFLOP/s and the fraction of what a large product reaches."""
import numpy as np
import pytest
from harness import Job, Rate
from rivals import contenders, pytorch, same

# name → (x, weight, settings, whether x needs a gradient: not where a network begins)
CASES = {
    "conv2d 3×3 16→16, 128×32×32": ((128, 16, 32, 32), (16, 16, 3, 3), {"padding": 1}, True),
    "conv2d 3×3 32→32, 128×16×16": ((128, 32, 16, 16), (32, 32, 3, 3), {"padding": 1}, True),
    "conv2d 3×3 64→64, 128×8×8": ((128, 64, 8, 8), (64, 64, 3, 3), {"padding": 1}, True),
    "conv2d 3×3 stride 2 16→32, 128×32×32": ((128, 16, 32, 32), (32, 16, 3, 3), {"padding": 1, "stride": 2}, True),
    "conv2d 1×1 32→192, 64×32×32": ((64, 32, 32, 32), (192, 32, 1, 1), {}, True),
    "conv2d 3×3 depthwise 192, 64×32×32": ((64, 192, 32, 32), (192, 1, 3, 3), {"padding": 1, "groups": 192}, True),
    "conv2d 5×5 1→6, 64×28×28": ((64, 1, 28, 28), (6, 1, 5, 5), {"padding": 2}, False),
    "conv2d 5×5 6→16, 64×14×14": ((64, 6, 14, 14), (16, 6, 5, 5), {}, True),
    "conv2d 7×7 stride 2 3→64, 16×64×64": ((16, 3, 64, 64), (64, 3, 7, 7), {"padding": 3, "stride": 2}, False),
    "conv2d 3×3 512→512, 16×2×2": ((16, 512, 2, 2), (512, 512, 3, 3), {"padding": 1}, True),
    "conv_transpose2d 4×4 stride 2 64→32, 32×16×16": ((32, 64, 16, 16), (64, 32, 4, 4), {"padding": 1, "stride": 2}, True),
}


def shape_of(case):
    """The output's shape, and the multiplications of a forward pass."""
    (n, channels, h, w), (first, second, kh, kw), options, _ = CASES[case]
    stride, padding = options.get("stride", 1), options.get("padding", 0)
    if "transpose" in case:  # weight: (inputs, outputs, kh, kw)
        out = [(side - 1) * stride - 2 * padding + k for side, k in ((h, kh), (w, kw))]
        return (n, second, *out), n * channels * h * w * second * kh * kw
    out = [(side + 2 * padding - k) // stride + 1 for side, k in ((h, kh), (w, kw))]
    return (n, first, *out), n * first * out[0] * out[1] * second * kh * kw


def conv_job(lib, inputs, case, place=same):
    """The names are the same in both libraries, and so is this job."""
    options, needs_dx = CASES[case][2:]
    call = getattr(lib.nn.functional, case.split()[0])
    x, w, dy = (place(lib.from_numpy(inputs[name])) for name in ("x", "w", "dy"))
    tensors = [w, x] if needs_dx else [w]
    for tensor in tensors:
        tensor.requires_grad_()
    terms = (dy.shape[0] * dy.shape[2] * dy.shape[3]) ** 0.5  # a gradient of the weight is a sum of that many, squared

    def step():
        for tensor in tensors:
            tensor.grad = None
        y = call(x, w, **options)
        y.backward(dy)
        return y

    def result(y):
        shown = {"y": y.detach(), "dx": x.grad} if needs_dx else {"y": y.detach()}
        return {name: t.numpy()[[0, -1]] for name, t in shown.items()} | {"dw": w.grad.numpy() / terms}

    return Job(step, result)


def bpnn_job(inputs, case):
    import bpnn

    return conv_job(bpnn, inputs, case)


def torch_job(inputs, case, how):
    torch, place, _ = pytorch(how)
    return conv_job(torch, inputs, case, place)


@pytest.mark.parametrize("case", CASES)
def test_conv(race, peak, case):
    x, w, _, needs_dx = CASES[case]
    y, products = shape_of(case)
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(shape, np.float32) for name, shape in (("x", x), ("w", w), ("dy", y))}
    inputs["w"] *= (w[1] * w[2] * w[3]) ** -0.5
    race(
        f"{case}, forward and backward", contenders(bpnn_job, torch_job, case=case), inputs=inputs, bars={"PyTorch": 1.0},
        rate=Rate((6e-9 if needs_dx else 4e-9) * products, "GFLOP/s", peak), seconds=0.1, rtol=1e-3, atol=1e-3,
    )
