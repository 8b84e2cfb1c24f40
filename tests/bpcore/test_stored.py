"""Weights kept as bfloat16 and int8: what they stand for, and linear maps with them, against their formulas in NumPy."""
import bpnn
import numpy as np
import pytest
from bpnn.nn import functional as F

from bpcore.stored import BLOCK, StoredMatrix, store

RNG = np.random.default_rng(0)
KINDS = pytest.mark.parametrize("kind", ["bfloat16", "int8"])
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (3, 31), (33, 32), (17, 33), (500, 97), (65, 0), (0, 5), (1200, 520)])


def widened(array, kind):
    """The numbers that are nearest, from the definitions."""
    wide = np.asarray(array, np.float32)
    if kind == "bfloat16":
        low = (wide.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        high = ((wide.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
        even = (wide.view(np.uint32) >> 16) % 2 == 0
        nearer = np.abs(wide.astype(float) - low) - np.abs(high.astype(float) - wide)
        return np.where((nearer < 0) | ((nearer == 0) & even), low, high)
    out = np.zeros_like(wide)
    for i in range(0, wide.shape[1], 32):
        block = wide[:, i : i + 32]
        scale = np.abs(block).max(1, initial=0, keepdims=True) / np.float32(127)
        out[:, i : i + 32] = np.rint(np.divide(block, scale, where=scale > 0, out=np.zeros_like(block))) * scale
    return out


@SHAPES
@KINDS
def test_what_is_stored(kind, shape):
    array = RNG.normal(size=shape).astype(np.float32)
    stored = store(array, kind)
    assert stored.shape == shape and stored.kind == kind
    np.testing.assert_allclose(stored.dense(), widened(array, kind), rtol=2e-7, atol=0)
    assert stored.dense("float64").dtype == np.float64
    np.testing.assert_allclose(stored.dense("float64"), widened(array, kind), rtol=2e-7, atol=0)
    blocks = -(-shape[1] // BLOCK)
    assert stored.nbytes == (2 * array.size if kind == "bfloat16" else array.size + 4 * shape[0] * blocks)
    again = StoredMatrix(*stored.parts)
    np.testing.assert_array_equal(again.dense(), stored.dense())


def test_bfloat16_agrees_with_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = (RNG.normal(size=(64, 100)) * 10.0 ** RNG.integers(-30, 30, (64, 100))).astype(np.float32)
    np.testing.assert_array_equal(store(array, "bfloat16").dense(), array.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_a_block_of_zeros_stays_zero():
    array = np.zeros((2, 40), np.float32)
    array[1, 35] = -3
    np.testing.assert_array_equal(store(array, "int8").dense(), array)


@BOTH
@KINDS
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "tanh"])
@pytest.mark.parametrize("shape", [(1, 5, 3), (4, 33, 31), (7, 97, 1100), (64, 520, 1200)])
def test_linear(kind, dtype, shape, activation):
    m, k, n = shape
    weight = RNG.normal(size=(n, k)).astype(np.float32)
    x, b, dy = (RNG.normal(size=s).astype(dtype) for s in ((m, k), (n,), (m, n)))
    stored = store(weight, kind)
    dense = bpnn.from_numpy(stored.dense(dtype))
    results = []
    for w in (stored, dense):
        tx, tb = (bpnn.from_numpy(a.copy()).requires_grad_() for a in (x, b))
        y = F.linear(tx, w, tb, activation)
        y.backward(bpnn.from_numpy(dy))
        results.append([y.detach().numpy(), tx.grad.numpy(), tb.grad.numpy()])
    exact = x.astype(float) @ stored.dense("float64").T + b
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    if activation is None:
        np.testing.assert_allclose(results[0][0], exact, rtol=tolerance, atol=tolerance * np.sqrt(k) * 3)
        dx = dy.astype(float) @ stored.dense("float64")
        np.testing.assert_allclose(results[0][1], dx, rtol=tolerance, atol=tolerance * np.sqrt(n) * 3)
    for one, other in zip(*results):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.sqrt(max(n, k)) * 3)


@BOTH
@KINDS
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("rows", [1, 700])
def test_head_of_a_language_model(kind, dtype, ignored, rows):
    stored = store(RNG.normal(size=(1100, 48)).astype(np.float32), kind)
    x, b = RNG.normal(size=(rows, 48)).astype(dtype), RNG.normal(size=1100).astype(dtype)
    target = RNG.integers(0, 1100, rows)
    if ignored and rows > 1:
        target[::3] = -100
    tx, tb = (bpnn.from_numpy(a.copy()).requires_grad_() for a in (x, b))
    loss = F.linear_cross_entropy(tx, stored, bpnn.from_numpy(target), linear_bias=tb)
    loss.backward()
    z = x.astype(float) @ stored.dense("float64").T + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    kept = np.flatnonzero(target >= 0)
    wanted = -np.log(p[kept, target[kept]]).mean()
    dz = np.zeros_like(p)
    dz[kept] = p[kept]
    dz[kept, target[kept]] -= 1
    dz /= len(kept)
    tolerance = 1e-4 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(loss.item(), wanted, rtol=tolerance)
    np.testing.assert_allclose(tx.grad.numpy(), dz @ stored.dense("float64"), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(tb.grad.numpy(), dz.sum(0), rtol=tolerance, atol=tolerance)
    soft = np.full((rows, 1100), 1 / 1100, dtype)
    np.testing.assert_allclose(
        F.linear_cross_entropy(tx, stored, bpnn.from_numpy(soft), linear_bias=tb).item(), -np.log(p).mean(1).mean(), rtol=tolerance)


@KINDS
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5)])
def test_rows_of_a_table(kind, shape):
    stored = store(RNG.normal(size=(40, 70)).astype(np.float32), kind)
    places = RNG.integers(0, 40, shape)
    for dtype in (np.float32, np.float64):
        got = stored.take(np.asarray(places), dtype)
        assert got.dtype == dtype and got.shape == (*shape, 70)
        np.testing.assert_array_equal(got, stored.dense(dtype)[places])
    with pytest.raises(IndexError, match="places: expected 0 to 39, got 40 to 40"):
        stored.take(np.array([40]))
    with pytest.raises(TypeError, match="places: expected int64"):
        stored.take(np.array([1.0]))


def test_more_axes_and_no_gradient():
    stored = store(RNG.normal(size=(6, 4)).astype(np.float32), "int8")
    x = bpnn.randn(2, 3, 4)
    y = F.linear(x, stored)
    assert y.shape == (2, 3, 6) and not y.requires_grad
    np.testing.assert_allclose(y.numpy(), x.numpy() @ stored.dense().T, rtol=1e-5, atol=1e-6)


@KINDS
def test_errors(kind):
    stored = store(np.ones((3, 4), np.float32), kind)
    with pytest.raises(RuntimeError, match=r"input: expected shape \(\*, 4\)"):
        F.linear(bpnn.ones(2, 5), stored)
    with pytest.raises(TypeError, match="input: expected float32 or float64, got int64"):
        F.linear(bpnn.ones(2, 4, dtype=bpnn.int64), stored)
    with pytest.raises(ValueError, match="transposed: expected False"):
        F.linear(bpnn.ones(2, 4), stored, transposed=True)
    with pytest.raises(RuntimeError, match="bias: expected the dtype of input"):
        F.linear(bpnn.ones(2, 4), stored, bpnn.ones(3, dtype=bpnn.float64))
    with pytest.raises(ValueError, match="kind: expected bfloat16 or int8, got 'int4'"):
        store(np.ones((3, 4)), "int4")
    with pytest.raises(ValueError, match="array: expected finite numbers"):
        store(np.array([[np.nan]]), kind)
    with pytest.raises(TypeError, match="array: expected real numbers with 2 axes"):
        store(np.ones(3), kind)
    with pytest.raises(TypeError, match="numbers: expected int8 with scales, got uint16"):
        StoredMatrix(np.zeros((1, 1), np.uint16), np.zeros((1, 1), np.float32))
    with pytest.raises(ValueError, match=r"scales: expected a float32 array of shape \(1, 2\)"):
        StoredMatrix(np.zeros((1, 33), np.int8), np.zeros((1, 1), np.float32))
