"""Matrix products against NumPy's OpenBLAS, SciPy's BLAS inside our own team, and PyTorch: float32, on two threads.

`BPNN_CPU=avx2 pytest bench --benchmark -k gemm` compares without AVX-512 (set OPENBLAS_CORETYPE=Haswell and
ATEN_CPU_CAPABILITY=avx2 with it, for the rivals).
"""
from functools import partial

import numpy as np
import pytest
from harness import Job

# M, N, K of C = A B, and whether A and B are stored transposed: a linear layer's output is "NT", its input gradient "NN", its
# weight gradient "TN".
SHAPES = [
    (1, 500, 784, "NT"), (4, 500, 784, "NT"), (16, 500, 784, "NT"), (64, 500, 784, "NT"), (64, 784, 500, "NN"),
    (500, 784, 64, "TN"), (64, 10, 500, "NT"), (32, 16, 4, "NT"), (32, 3, 16, "NT"), (8, 3072, 768, "NT"), (1, 768, 768, "NT"),
    (256, 3072, 768, "NT"), (4096, 64, 576, "NT"), (1024, 3072, 768, "NT"), (1024, 1024, 1024, "NN"),
]
# Small products of NumPy and of PyTorch mostly measure their callers; what is held to a bar is large enough to compute.
BARS = {(64, 500, 784, "NT"): 1.3, (64, 784, 500, "NN"): 1.1, (1024, 3072, 768, "NT"): 0.9, (1024, 1024, 1024, "NN"): 0.9}


def operands(inputs):
    return inputs["a"], inputs["b"]


def bpnn_job(inputs, layout, engine="own"):
    from bpcore import gemm

    gemm.set_engine(engine)
    a, b = operands(inputs)
    out = np.empty((a.shape[layout[0] == "T"], b.shape[layout[1] == "N"]), a.dtype)
    step = partial(gemm.matmul, a, b, out, trans_a=layout[0] == "T", trans_b=layout[1] == "T")
    return Job(step, result=lambda c: {"c": c})


def packed_job(inputs, layout):
    from bpcore import gemm

    a, b = operands(inputs)
    packed = gemm.Packed(b, layout[1] == "T")
    return Job(partial(gemm.matmul, a, packed, trans_a=layout[0] == "T"), result=lambda c: {"c": c})


def turned(inputs, layout):
    a, b = operands(inputs)
    return a.T if layout[0] == "T" else a, b.T if layout[1] == "T" else b


def numpy_job(inputs, layout):
    a, b = turned(inputs, layout)
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    return Job(partial(np.matmul, a, b, out), result=lambda c: {"c": c})


def torch_job(inputs, layout):
    import torch

    torch.set_num_threads(2)
    a, b = (torch.from_numpy(x) for x in operands(inputs))
    a, b = a.t() if layout[0] == "T" else a, b.t() if layout[1] == "T" else b
    out = torch.empty(a.shape[0], b.shape[1])
    return Job(lambda: torch.mm(a, b, out=out), result=lambda c: {"c": c.numpy()})


@pytest.mark.parametrize(("m", "n", "k", "layout"), SHAPES)
def test_gemm(race, m, n, k, layout):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if layout[0] == "T" else (m, k), np.float32)
    b = rng.standard_normal((n, k) if layout[1] == "T" else (k, n), np.float32)
    jobs = {"bpnn": bpnn_job, "bpnn, packed once": packed_job, "BLAS in our team": partial(bpnn_job, engine="blas"),
            "NumPy": numpy_job, "PyTorch": torch_job}
    bar = BARS.get((m, n, k, layout))
    race(f"product {m}×{n}×{k} {layout}", {name: partial(job, layout=layout) for name, job in jobs.items()},
         inputs={"a": a, "b": b}, bars={"NumPy": bar} if bar else {}, rtol=1e-3, atol=1e-3)
