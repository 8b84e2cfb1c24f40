"""The head of a language model with its loss, forward and backward: GPT-2's size, and BERT's where most rows are ignored (masked
words). PyTorch computes linear and cross_entropy: faster than its linear_cross_entropy in chunks."""
import numpy as np
import pytest
from harness import THREADS, Job

CASES = {"GPT-2, 1024 rows": (1024, 768, 50257, 0), "BERT, 15 % of 1024 rows": (1024, 768, 30522, 0.85)}


def arrays(case):
    rows, width, classes, ignored = CASES[case]
    rng = np.random.default_rng(0)
    t = rng.integers(0, classes, rows)
    t[rng.random(rows) < ignored] = -100
    x, w = rng.standard_normal((rows, width), np.float32), rng.standard_normal((classes, width), np.float32)
    return {"x": x, "w": 0.02 * w, "t": t}


def job_of(lib, head, inputs):
    x, w, t = (lib.from_numpy(inputs[name]) for name in ("x", "w", "t"))
    x.requires_grad_()
    w.requires_grad_()

    def step():
        x.grad = w.grad = None
        loss = head(x, w, t)
        loss.backward()
        return loss

    return Job(step, result=lambda loss: {"loss": loss.detach().numpy(), "dx": x.grad.numpy(), "dw": w.grad.numpy()[:100]})


def bpnn_job(inputs):
    import bpnn
    import bpnn.nn.functional as F

    return job_of(bpnn, F.linear_cross_entropy, inputs)


def composed_job(inputs):
    import bpnn
    import bpnn.nn.functional as F

    return job_of(bpnn, lambda x, w, t: F.cross_entropy(F.linear(x, w), t), inputs)


def torch_job(inputs):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(THREADS)
    return job_of(torch, lambda x, w, t: F.cross_entropy(F.linear(x, w), t), inputs)


@pytest.mark.parametrize("case", CASES)
def test_head(race, case):
    contenders = {"bpnn": bpnn_job, "bpnn, composed": composed_job, "PyTorch": torch_job}
    race(f"head and loss, {case}", contenders, inputs=arrays(case), bars={"PyTorch": 1.1}, memory_bar=1.25, rounds=3)
