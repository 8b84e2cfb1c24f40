"""Tables: rows picked and the gradient of the table, dense and sparse; a step of a large table with Adam and with SparseAdam."""
from functools import partial

import numpy as np
import pytest
from harness import THREADS, Job

HEIGHT, WIDTH, BATCH, STEPS = 20_000, 128, 32, 100


def arrays():
    """A table, words as frequent as in a text (Zipf), and a cotangent."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, HEIGHT + 1)
    return {
        "w": rng.standard_normal((HEIGHT, WIDTH), np.float32),
        "index": rng.choice(HEIGHT, (BATCH, STEPS), p=share / share.sum()),
        "dy": rng.standard_normal((BATCH, STEPS, WIDTH), np.float32),
    }


def gradient_job(lib, F, inputs, case):
    index, w, dy = (lib.from_numpy(inputs[name]) for name in ("index", "w", "dy"))
    w.requires_grad_()
    call = {
        "embedding": lambda: F.embedding(index, w),
        "embedding, sparse gradient": lambda: F.embedding(index, w, sparse=True),
        "embedding_bag, mean": lambda: F.embedding_bag(index, w),
    }[case]
    cotangent = dy[:, 0] if "bag" in case else dy

    def step():
        w.grad = None
        call().backward(cotangent)

    return Job(step, result=lambda _: {"dw": (w.grad.to_dense() if "sparse" in case else w.grad).numpy()})


def step_job(lib, F, inputs, case):
    index, w, dy = (lib.from_numpy(inputs[name]) for name in ("index", "w", "dy"))
    w.requires_grad_()
    sparse = case == "SparseAdam"
    update = lib.optim.SparseAdam([w], lr=1e-3) if sparse else lib.optim.Adam([w], lr=1e-3, fused=True)

    def step():
        update.zero_grad()
        F.embedding(index, w, sparse=sparse).backward(dy)
        update.step()

    return Job(step, result=lambda _: {"rows": w.detach().numpy()[:1000].copy()})


JOBS = {"gradient": gradient_job, "step": step_job}


def bpnn_job(inputs, job, case):
    import bpnn
    import bpnn.nn.functional as F

    return JOBS[job](bpnn, F, inputs, case)


def torch_job(inputs, job, case):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(THREADS)
    return JOBS[job](torch, F, inputs, case)


@pytest.mark.parametrize("case", ["embedding", "embedding, sparse gradient", "embedding_bag, mean"])
def test_gradient(race, case):
    contenders = {"bpnn": bpnn_job, "PyTorch": torch_job}
    race(f"{case} 20000×128, 32×100, with backward",
         {name: partial(job, job="gradient", case=case) for name, job in contenders.items()}, inputs=arrays())


@pytest.mark.parametrize("case", ["Adam", "SparseAdam"])
def test_step(race, case):
    contenders = {"bpnn": bpnn_job, "PyTorch": torch_job}
    race(f"a step of a table 20000×128, 32×100, {case}",
         {name: partial(job, job="step", case=case) for name, job in contenders.items()}, inputs=arrays(), rtol=1e-3, atol=1e-4)
