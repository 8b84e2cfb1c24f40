"""Matrix products against NumPy's float64 over odd sizes, both types, every layout, both engines, every instruction set."""
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from bpcore import blas, gemm, simd, threads

SIZES = [1, 2, 3, 5, 6, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127]
DTYPES = [np.float32, np.float64]
LAYOUTS = list(itertools.product([False, True], repeat=2))


@pytest.fixture(params=["own", "blas"])
def engine(request):
    if request.param == "blas" and not blas.load():
        pytest.skip(f"no BLAS: {blas.info()['error']}")
    before = gemm.get_engine()
    gemm.set_engine(request.param)
    yield request.param
    gemm.set_engine(before)


@pytest.fixture
def team():
    """Two threads, whatever the environment says."""
    before = threads.get_num_threads()
    threads.set_num_threads(2)
    yield
    threads.set_num_threads(before)


def stored(rng, rows, cols, dtype, transposed, pad=0):
    """A matrix that is stored transposed where asked, with `pad` unused numbers (NaN) behind each row in memory."""
    shape = (cols, rows) if transposed else (rows, cols)
    whole = np.full((shape[0], shape[1] + pad), np.nan, dtype)
    whole[:, : shape[1]] = rng.standard_normal(shape)
    return whole[:, : shape[1]]


def check(m, n, k, dtype, rng, trans_a=False, trans_b=False, alpha=1.0, beta=0.0, bias=False, pad=0, own_out=False):
    a = stored(rng, m, k, dtype, trans_a, pad)
    b = stored(rng, k, n, dtype, trans_b, pad)
    row = rng.standard_normal(n).astype(dtype) if bias else None
    out = stored(rng, m, n, dtype, False, pad) if own_out or beta else None
    left, right = ((x.T if turned else x).astype(np.float64) for x, turned in ((a, trans_a), (b, trans_b)))
    expected = alpha * (left @ right) + (row if bias else 0)
    size = abs(alpha) * (np.abs(left) @ np.abs(right)) + (np.abs(row) if bias else 0)
    if beta:
        expected = expected + beta * out.astype(np.float64)
        size = size + np.abs(beta * out)
    elif out is not None:
        out[:] = np.nan
    got = gemm.matmul(a, b, out=out, alpha=alpha, beta=beta, trans_a=trans_a, trans_b=trans_b, bias=row)
    assert got.shape == (m, n) and got.dtype == dtype
    if out is not None:
        assert got is out
        if pad:
            assert np.isnan(out.base[:, n:]).all(), "wrote behind a row"
    # each of the k + 3 roundings is at most half a unit of what has been added up so far
    bound = (k + 3) * np.finfo(dtype).eps * size + np.finfo(dtype).tiny
    assert (np.abs(got - expected) <= bound).all(), (m, n, k, dtype, trans_a, trans_b, alpha, beta, bias, pad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("trans_a", "trans_b"), LAYOUTS)
def test_against_float64(engine, dtype, trans_a, trans_b):
    rng, choice = np.random.default_rng(0), random.Random(0)
    for _ in range(120):
        m, n, k = (choice.choice(SIZES) for _ in range(3))
        alpha, beta = choice.choice([(1.0, 0.0), (1.0, 1.0), (-0.5, 2.0), (2.0, 0.0)])
        check(m, n, k, dtype, rng, trans_a, trans_b, alpha, beta, choice.random() < 0.5, choice.choice([0, 0, 3]),
              choice.random() < 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("trans_a", "trans_b"), LAYOUTS)
def test_several_blocks(engine, dtype, trans_a, trans_b):
    """Beyond one block of rows, of columns and of k."""
    rng = np.random.default_rng(1)
    for m, n, k in [(300, 70, 901), (7, 2500, 401), (2500, 5, 401), (1, 5000, 33), (65, 64, 2000), (260, 520, 3)]:
        check(m, n, k, dtype, rng, trans_a, trans_b, bias=True)
        check(m, n, k, dtype, rng, trans_a, trans_b, 0.5, -1.0, pad=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_or_columns(engine, dtype):
    rng = np.random.default_rng(2)
    for few, many, k in itertools.product(range(1, 14), [1, 24, 25, 100, 129], [1, 17, 300]):
        for trans_a, trans_b in LAYOUTS:
            check(few, many, k, dtype, rng, trans_a, trans_b, bias=True)
            check(many, few, k, dtype, rng, trans_a, trans_b, beta=1.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_strides(engine, dtype):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((40, 60)).astype(dtype), rng.standard_normal((60, 80)).astype(dtype)
    for left, right in [(a[::2, ::3], b[::3, ::2]), (a[::-1], b[:, ::-1]), (a[:, ::-1], b[::-1]), (a[:1], b[:, :1]),
                        (np.broadcast_to(a[:1], (5, 60)), b), (a[:, :1], np.broadcast_to(b[:1, :1], (1, 9)))]:
        expected = left.astype(np.float64) @ right
        np.testing.assert_allclose(gemm.matmul(left, right), expected, rtol=1e-4, atol=1e-4)
        memory = np.full((2 * right.shape[1], 3 * left.shape[0]), np.nan, dtype)
        out = memory.T[::3, ::2]                                                    # strided, column-major
        gemm.matmul(left, right, out=out)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
        assert np.count_nonzero(~np.isnan(memory)) == out.size
    record = np.zeros(30, dtype=[("x", dtype), ("y", np.int8)])                     # strides that are no whole elements
    record["x"] = rng.standard_normal(30)
    left = record["x"].reshape(5, 6)
    np.testing.assert_allclose(gemm.matmul(left, b[:6]), left.astype(np.float64) @ b[:6], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty(engine, dtype):
    def ones(*shape):
        return np.ones(shape, dtype)

    assert gemm.matmul(ones(0, 3), ones(3, 4)).shape == (0, 4)
    assert gemm.matmul(ones(4, 3), ones(3, 0)).shape == (4, 0)
    assert (gemm.matmul(ones(4, 0), ones(0, 5)) == 0).all()
    assert (gemm.matmul(ones(4, 0), ones(0, 5), bias=ones(5)) == 1).all()
    out = ones(4, 5)
    assert (gemm.matmul(ones(4, 0), ones(0, 5), out=out, beta=3.0) == 3).all()
    assert (gemm.matmul(ones(4, 2), ones(2, 5), out=out, alpha=0.0, beta=2.0) == 6).all()
    assert gemm.matmul(ones(2, 0), gemm.Packed(ones(0, 3))).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(engine, dtype):
    for m, n, k, trans_b in [(3, 4, 5, False), (3, 4, 5, True), (1, 100, 100, True), (1, 100, 100, False),
                             (40, 50, 60, False), (40, 50, 60, True), (60, 3, 70, True)]:
        a, b = np.ones((m, k), dtype), np.ones((n, k) if trans_b else (k, n), dtype)
        a[m - 1, k // 2] = np.nan
        out = np.full((m, n), np.nan, dtype)
        gemm.matmul(a, b, out=out, trans_b=trans_b)
        assert np.isnan(out[m - 1]).all() and (out[: m - 1] == k).all()
        a[m - 1, k // 2] = np.inf
        assert np.isposinf(gemm.matmul(a, b, trans_b=trans_b)[m - 1]).all()
        b[:] = 0
        assert np.isnan(gemm.matmul(a, b, trans_b=trans_b)[m - 1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed(dtype):
    rng = np.random.default_rng(4)
    for m, n, k, trans_b in itertools.product([1, 2, 5, 8, 33, 100], [1, 10, 33, 100], [1, 7, 64, 405, 1201], [False, True]):
        a, b = rng.standard_normal((m, k)).astype(dtype), stored(rng, k, n, dtype, trans_b, 2)
        bias = rng.standard_normal(n).astype(dtype)
        got = gemm.matmul(a, gemm.Packed(b, trans_b), bias=bias)
        expected = a.astype(np.float64) @ (b.T if trans_b else b) + bias
        np.testing.assert_allclose(got, expected, rtol=0, atol=np.finfo(dtype).eps * k * 8 + 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("trans_a", "trans_b"), LAYOUTS)
def test_same_bits_on_any_team(dtype, trans_a, trans_b, team):
    """Own kernels: one thread, two, three and five."""
    rng = np.random.default_rng(5)
    before = gemm.get_engine()
    gemm.set_engine("own")
    for m, n, k in [(64, 500, 784), (500, 784, 64), (1, 3000, 500), (3000, 1, 500), (3, 2999, 801), (200, 333, 1000),
                    (127, 129, 131), (8, 4001, 300), (4001, 10, 300)]:
        a, b = stored(rng, m, k, dtype, trans_a), stored(rng, k, n, dtype, trans_b)
        bias = rng.standard_normal(n).astype(dtype)
        results = []
        for count in (1, 2, 3, 5):
            threads.set_num_threads(count)
            results.append(gemm.matmul(a, b, trans_a=trans_a, trans_b=trans_b, bias=bias).tobytes())
        assert len(set(results)) == 1, (m, n, k)
    gemm.set_engine(before)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3001, 2900, 2800), (2900, 3001, 2800)])
def test_products_in_pieces(shape):
    """Long enough to be cut for Ctrl-C, along either side."""
    rng = np.random.default_rng(8)
    m, n, k = shape
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    np.testing.assert_allclose(gemm.matmul(a, b), a @ b, rtol=0, atol=1e-9)


def test_errors():
    a, b = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
    for call, error, words in [
        (lambda: gemm.matmul([[1.0]], b), TypeError, "a: expected a NumPy array, got list"),
        (lambda: gemm.matmul(a[0], b), ValueError, r"a: expected 2 dimensions, got shape \(3,\)"),
        (lambda: gemm.matmul(a, b.astype(int)), TypeError, "b: expected float32 or float64, got int64"),
        (lambda: gemm.matmul(a, b.astype(float)), TypeError, "b: expected float32 as a, got float64"),
        (lambda: gemm.matmul(a, b, trans_b=True), ValueError, "b: expected 3 rows"),
        (lambda: gemm.matmul(a, b, beta=1.0), ValueError, "beta: expected 0 without out"),
        (lambda: gemm.matmul(a, b, bias=np.ones(3, np.float32)), ValueError, r"bias: .* shape \(4,\), .* shape \(3,\)"),
        (lambda: gemm.matmul(a, b, bias=np.ones(4)), ValueError, "bias: expected a float32 array"),
        (lambda: gemm.matmul(a, b, out=np.ones((2, 4))), TypeError, "out: expected float32, got float64"),
        (lambda: gemm.matmul(a, b, out=np.ones((4, 2), np.float32)), ValueError, r"out: expected shape \(2, 4\)"),
        (lambda: gemm.matmul(a, b, out=b[:2]), ValueError, "out: .* overlaps b"),
        (lambda: gemm.matmul(a, b, out=np.broadcast_to(np.float32(0), (2, 4))), ValueError, "out: expected a writeable"),
        (lambda: gemm.matmul(a, gemm.Packed(b), trans_b=True), ValueError, "trans_b: a packed matrix"),
        (lambda: gemm.set_engine("fast"), ValueError, "engine: expected 'auto', 'own' or 'blas', got 'fast'"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_from_several_threads(engine, team):
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((120, 300)), rng.standard_normal((300, 200))
    expected, wrong = gemm.matmul(a, b), []

    def work():
        for _ in range(30):
            if not np.array_equal(gemm.matmul(a, b), expected):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_blas_threads_are_put_back(team):
    if not blas.load() or blas.get_num_threads() is None:
        pytest.skip("no BLAS with a known setting")
    from scipy.linalg import lu_factor

    before = blas.get_num_threads(), gemm.get_engine()
    gemm.set_engine("blas")
    a = np.random.default_rng(7).standard_normal((400, 400))
    gemm.matmul(a, a)
    lu_factor(a)
    assert blas.get_num_threads() == before[0]
    gemm.set_engine(before[1])


# --- in processes of their own -----------------------------------------------------------------------------------------------

def environment(**settings):
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **settings}


def run(code, timeout=120, **settings):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=timeout,
                          env=environment(**settings))


SWEEP = """
    import itertools, numpy as np
    from bpcore import gemm, simd
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for m, n, k in itertools.product([1, 3, 8, 17, 65, 127], [1, 10, 33, 64, 100], [1, 4, 31, 64, 500]):
            for ta, tb in itertools.product([False, True], repeat=2):
                a = rng.standard_normal((k, m) if ta else (m, k)).astype(dtype)
                b = rng.standard_normal((n, k) if tb else (k, n)).astype(dtype)
                got = gemm.matmul(a, b, trans_a=ta, trans_b=tb)
                expected = (a.T if ta else a).astype(float) @ (b.T if tb else b)
                assert np.abs(got - expected).max() <= 8 * np.finfo(dtype).eps * k, (dtype, m, n, k, ta, tb)
    print(simd.cpu(), gemm.get_engine())
"""


@pytest.mark.parametrize("cpu", ["baseline", "avx2", "avx512", "neon"])
@pytest.mark.parametrize("engine", ["auto", "own"])
def test_every_instruction_set(cpu, engine):
    result = run(SWEEP, BPNN_CPU=cpu, BPNN_GEMM=engine)
    if "no such instruction set" in result.stderr:
        pytest.skip(f"no {cpu} here")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] in (cpu, simd.cpu())
    if engine == "own":
        assert result.stdout.split()[1] == "own"


def test_importing_does_not_import_scipy_linalg():
    result = run("import sys, bpcore.gemm as g; g.set_engine('auto'); print('scipy.linalg' in sys.modules)")
    assert result.stdout.strip() == "False", result.stderr
    result = run("""
        import sys, numpy as np, bpcore.gemm as g
        g.set_engine('blas'); g.matmul(np.eye(50), np.eye(50))
        assert 'scipy.linalg' not in sys.modules
        import scipy.linalg
        print(scipy.linalg.blas.dgemm(1.0, np.eye(3), np.eye(3)).trace())
    """)
    assert result.stdout.strip() == "3.0" or "no BLAS" in result.stderr, result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("engine", ["own", "blas"])
def test_after_fork(engine):
    result = run("""
        import os, numpy as np
        from bpcore import gemm, threads
        threads.set_num_threads(2)
        a = np.random.default_rng(0).standard_normal((300, 300))
        expected = gemm.matmul(a, a)
        child = os.fork()
        if child == 0:
            os._exit(0 if np.allclose(gemm.matmul(a, a), expected) else 1)
        print(os.waitpid(child, 0)[1])
    """, timeout=60, BPNN_GEMM=engine)
    assert result.stdout.strip() == "0" or "no BLAS" in result.stderr, result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_long_products_give_way():
    """Ctrl-C in a product of some ten seconds is heard soon."""
    code = """
import numpy as np
from bpcore import gemm
a, b = np.ones((6000, 12000)), np.ones((12000, 6000))
print("ready", flush=True)
try:
    gemm.matmul(a, b)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment())
    assert child.stdout.readline().strip() == "ready"
    try:
        child.wait(0.5)
        pytest.skip("this machine is too fast")
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=5)[0].strip() == "stopped"
