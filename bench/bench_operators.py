"""Single operators, forward and backward, against PyTorch's."""
from functools import partial

import numpy as np
import pytest
from harness import THREADS, Job

B, T, V = 64, 1024, 10_000  # rows of a batch, width, classes


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def labels(rows, classes):
    return np.random.default_rng(0).integers(0, classes, rows)


# name → (arrays, the operator on tensors of either library, given the library and its nn.functional)
CASES = {
    "linear 64×784 → 500": ([normal(B, 784), normal(500, 784), normal(500)], lambda lib, F, x, w, b: F.linear(x, w, b)),
    "linear 1024×768 → 3072": (
        [normal(1024, 768), normal(3072, 768), normal(3072)], lambda lib, F, x, w, b: F.linear(x, w, b)
    ),
    "matmul 512×512": ([normal(512, 512), normal(512, 512)], lambda lib, F, x, y: lib.matmul(x, y)),
    "matmul 48×64×64 batched": ([normal(48, 64, 64), normal(48, 64, 64)], lambda lib, F, x, y: lib.matmul(x, y)),
    "softmax 1024×1024": ([normal(1024, T)], lambda lib, F, x: F.softmax(x, -1)),
    "log_softmax 1024×1024": ([normal(1024, T)], lambda lib, F, x: F.log_softmax(x, -1)),
    "cross_entropy 64×10": ([normal(B, 10), labels(B, 10)], lambda lib, F, x, y: F.cross_entropy(x, y)),
    "cross_entropy 512×10000": ([normal(512, V), labels(512, V)], lambda lib, F, x, y: F.cross_entropy(x, y)),
    "mse_loss 64×1024": ([normal(B, T), normal(B, T)], lambda lib, F, x, y: F.mse_loss(x, y)),
    "relu 1024×1024": ([normal(1024, T)], lambda lib, F, x: F.relu(x)),
    "gelu 1024×1024": ([normal(1024, T)], lambda lib, F, x: F.gelu(x)),
    "gelu (tanh) 1024×1024": ([normal(1024, T)], lambda lib, F, x: F.gelu(x, approximate="tanh")),
    "silu 1024×1024": ([normal(1024, T)], lambda lib, F, x: F.silu(x)),
    "tanh 1024×1024": ([normal(1024, T)], lambda lib, F, x: lib.tanh(x)),
    "tanh 64×500": ([normal(B, 500)], lambda lib, F, x: lib.tanh(x)),
    "sigmoid 1024×1024": ([normal(1024, T)], lambda lib, F, x: lib.sigmoid(x)),
    "exp 1024×1024": ([normal(1024, T)], lambda lib, F, x: lib.exp(x)),
    "dropout 1024×1024": ([normal(1024, T)], lambda lib, F, x: F.dropout(x, 0.1)),
    "add 1024×1024": ([normal(1024, T), normal(1024, T)], lambda lib, F, x, y: x + y),
    "add 64×500": ([normal(B, 500), normal(B, 500)], lambda lib, F, x, y: x + y),
    "mul 1024×1024": ([normal(1024, T), normal(1024, T)], lambda lib, F, x, y: x * y),
    "mul 8": ([normal(8), normal(8)], lambda lib, F, x, y: x * y),
    "sum 1024×1024": ([normal(1024, T)], lambda lib, F, x: x.sum()),
    "mean of rows 1024×1024": ([normal(1024, T)], lambda lib, F, x: x.mean(-1)),
}
RANDOM = ("dropout",)


def operator_job(lib, F, inputs, case, backward):
    """The names are the same in both libraries, and so is this job."""
    call = partial(CASES[case][1], lib, F)
    tensors = [lib.from_numpy(inputs[f"arr{index}"]) for index in range(len(inputs))]
    floats = [tensor for tensor in tensors if tensor.dtype == lib.float32]
    random = case.startswith(RANDOM)
    if not backward:
        return Job(lambda: call(*tensors), result=lambda y: {} if random else {"y": y.numpy()})
    for tensor in floats:
        tensor.requires_grad_()
    dy = lib.ones_like(call(*tensors).detach())

    def step():
        for tensor in floats:
            tensor.grad = None
        call(*tensors).backward(dy)

    def result(_):
        return {} if random else {f"d{index}": tensor.grad.numpy() for index, tensor in enumerate(floats)}

    return Job(step, result)


def bpnn_job(inputs, **options):
    import bpnn

    return operator_job(bpnn, bpnn.nn.functional, inputs, **options)


def torch_job(inputs, **options):
    import torch

    torch.set_num_threads(THREADS)
    return operator_job(torch, torch.nn.functional, inputs, **options)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_operator(race, case, backward):
    options = {"case": case, "backward": backward}
    arrays = {f"arr{index}": array for index, array in enumerate(CASES[case][0])}
    race(
        f"{case}, forward and backward" if backward else f"{case}, forward",
        {"bpnn": partial(bpnn_job, **options), "PyTorch": partial(torch_job, **options)},
        inputs=arrays, seconds=0.1, rtol=1e-3, atol=2e-4,
    )
