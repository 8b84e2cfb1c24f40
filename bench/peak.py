"""What the processor can do: the rate of a large product, ours or OpenBLAS's."""
import numpy as np
from harness import Contender, Job, alternate

SIDE = 1536


def product_job(inputs):
    from bpcore import gemm

    out = np.empty((SIDE, SIDE), np.float32)
    return Job(lambda: gemm.matmul(inputs["a"], inputs["b"], out), result=lambda c: {})


def blas_job(inputs):
    out = np.empty((SIDE, SIDE), np.float32)
    return Job(lambda: np.matmul(inputs["a"], inputs["b"], out), result=lambda c: {})


def measure(folder):
    """GFLOP/s of a product of two matrices of SIDE × SIDE on two threads, in the best round of the faster library."""
    path = folder / "inputs.npz"
    rng = np.random.default_rng(0)
    np.savez(path, **{name: rng.standard_normal((SIDE, SIDE), np.float32) for name in "ab"})
    running = {job.__name__: Contender(job.__name__, job, path) for job in (product_job, blas_job)}
    try:
        steps = {name: one.calibrate(0.2) for name, one in running.items()}
        seconds = alternate({name: lambda name=name: running[name].run(steps[name]) for name in running}, rounds=8)
    finally:
        for one in running.values():
            one.close()
    return 2e-9 * SIDE**3 / min(min(rounds) for rounds in seconds.values())
