"""The settings that PyTorch is raced in: memory formats, eager and compiled. Jobs share what is the same in both libraries."""
from functools import partial

import numpy as np
from harness import THREADS, Absent, Job

NCHW, LAST, COMPILED, COMPILED_LAST = "PyTorch", "PyTorch channels-last", "PyTorch compiled", "PyTorch compiled channels-last"


def same(value):
    return value


def pytorch(how):
    """The library on its threads; a function that gives tensors and modules their memory format; one that compiles functions."""
    import torch

    torch.set_num_threads(THREADS)

    def place(value):
        flat = isinstance(value, torch.Tensor) and value.ndim != 4
        return value if flat or "channels-last" not in how else value.to(memory_format=torch.channels_last)

    return torch, place, torch.compile if "compiled" in how else same


def compiled_by(call, *arguments):
    """Calls a compiled function for the first time; a compiler that does not work makes the contender absent."""
    try:
        return call(*arguments)
    except Exception as error:
        raise Absent(f"torch.compile does not work here: {error}") from error


def training(optimizer, compute_loss):
    """The job of training steps, which both libraries write alike; the first losses are compared."""

    def step():
        optimizer.zero_grad()
        loss = compute_loss()
        loss.backward()
        optimizer.step()
        return loss

    return Job(step, lambda loss: {"loss": loss.detach().numpy()})


def drawn(name, shape, norms):
    """The same starting values for all, from a parameter's name in files: biases 0, what has one of `norms` in its name 1."""
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if any(norm in f".{name}" for norm in norms):
        return np.ones(shape, np.float32)
    seed = int.from_bytes(name.encode(), "little") % 2**63
    return np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(0.02)


def contenders(bpnn_job, torch_job, hows=(NCHW, LAST), **options):
    """bpnn and PyTorch in each of the settings, with the same options."""
    rivals = {how: partial(torch_job, how=how, **options) for how in hows}
    return {"bpnn": partial(bpnn_job, **options)} | rivals
