"""Pooling, interpolation and blocks, forward and backward, against PyTorch's."""
import numpy as np
import pytest
from harness import Job
from rivals import contenders, pytorch, same

# name → (shape, the operator given nn.functional of either library, the bar)
CASES = {
    "max_pool2d 2×2, 64×6×28×28": ((64, 6, 28, 28), lambda F, x: F.max_pool2d(x, 2), 2.0),
    "max_pool2d 2×2, 64×16×10×10": ((64, 16, 10, 10), lambda F, x: F.max_pool2d(x, 2), 1.5),
    "max_pool2d 2×2, 128×16×32×32": ((128, 16, 32, 32), lambda F, x: F.max_pool2d(x, 2), 2.0),
    "max_pool2d 3×3 stride 2, 32×64×55×55": ((32, 64, 55, 55), lambda F, x: F.max_pool2d(x, 3, 2), 2.0),
    "max_pool2d 3×3 stride 2 padded, 16×64×32×32": ((16, 64, 32, 32), lambda F, x: F.max_pool2d(x, 3, 2, 1), 2.0),
    "avg_pool2d 2×2, 64×16×32×32": ((64, 16, 32, 32), lambda F, x: F.avg_pool2d(x, 2), 1.0),
    "avg_pool2d 3×3, 64×16×32×32": ((64, 16, 32, 32), lambda F, x: F.avg_pool2d(x, 3, 1, 1), 1.0),
    "global average, 128×64×8×8": ((128, 64, 8, 8), lambda F, x: F.adaptive_avg_pool2d(x, 1), 1.0),
    "global average, 32×512×7×7": ((32, 512, 7, 7), lambda F, x: F.adaptive_avg_pool2d(x, 1), 1.0),
    "adaptive_avg_pool2d 7, 32×64×13×13": ((32, 64, 13, 13), lambda F, x: F.adaptive_avg_pool2d(x, 7), None),
    "bilinear ×2, 16×32×28×28": ((16, 32, 28, 28), lambda F, x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), None),
    "nearest ×2, 16×32×28×28": ((16, 32, 28, 28), lambda F, x: F.interpolate(x, scale_factor=2.0), None),
    "unfold 3×3, 16×32×28×28": ((16, 32, 28, 28), lambda F, x: F.unfold(x, 3, padding=1), None),
    "reflection pad 2, 16×32×28×28": ((16, 32, 28, 28), lambda F, x: F.pad(x, (2, 2, 2, 2), "reflect"), None),
}


def pooling_job(lib, inputs, case, place=same):
    """The names are the same in both libraries, and so is this job."""
    F, call = lib.nn.functional, CASES[case][1]
    x = place(lib.from_numpy(inputs["x"])).requires_grad_()
    dy = place(lib.ones(*call(F, x).shape))

    def step():
        x.grad = None
        y = call(F, x)
        y.backward(dy)
        return y

    return Job(step, result=lambda y: {"y": y.detach().numpy(), "dx": x.grad.numpy()})


def bpnn_job(inputs, case):
    import bpnn

    return pooling_job(bpnn, inputs, case)


def torch_job(inputs, case, how):
    torch, place, _ = pytorch(how)
    return pooling_job(torch, inputs, case, place)


@pytest.mark.parametrize("case", CASES)
def test_pooling(race, case):
    shape, _, bar = CASES[case]
    race(
        f"{case}, forward and backward", contenders(bpnn_job, torch_job, case=case),
        inputs={"x": np.random.default_rng(0).standard_normal(shape, np.float32)},
        bars={} if bar is None else {"PyTorch": bar}, seconds=0.1,
    )
