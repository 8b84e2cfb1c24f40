"""lora_linear against its formula in NumPy, and against the composed form."""
import bpnn
import numpy as np
import pytest
from bpnn.autograd import gradcheck
from bpnn.nn import functional as F

from bpcore.stored import store
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (31, 33, 32, 3), (5, 7, 65, 8), (64, 96, 33, 16), (0, 4, 3, 2), (300, 520, 1100, 8)]
)


def arrays(sizes, dtype):
    """x, W, b, A, B, u, dy"""
    m, k, n, r = sizes
    return [RNG.normal(size=s).astype(dtype) for s in ((m, k), (n, k), (n,), (r, k), (n, r), (m, k), (m, n))]


def close(one, other, dtype, size):
    tolerance = 2e-5 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * max(size, 1) ** 0.5 * 4)


@BOTH
@SIZES
@pytest.mark.parametrize("stored", [None, "transposed", "int8", "bfloat16"])
@pytest.mark.parametrize("dropped", [False, True])
def test_forward_and_gradients(sizes, dtype, stored, dropped):
    x, w, b, a, low, u, dy = arrays(sizes, dtype)
    scale = 0.75
    weight, given = bpnn.from_numpy(w), {}
    if stored in ("int8", "bfloat16"):
        weight = store(w, stored)
        w = weight.dense("float64")
    elif stored:
        weight, given = bpnn.from_numpy(w.T.copy()), {"transposed": True}
    leaves = [bpnn.from_numpy(one.copy()).requires_grad_() for one in (x, b, a, low, u)]
    tx, tb, ta, tlow, tu = leaves
    y = F.lora_linear(tx, weight, tb, ta, tlow, scale, tu if dropped else None, **given)
    y.backward(bpnn.from_numpy(dy))
    x, w, b, a, low, u, dy = (one.astype(float) for one in (x, w, b, a, low, u, dy))
    v = u if dropped else x
    close(y.detach().numpy(), x @ w.T + b + scale * (v @ a.T) @ low.T, dtype, sizes[1] * sizes[3])
    dh = scale * dy @ low
    expected = [dy @ w + (0 if dropped else dh @ a), dy.sum(0), dh.T @ v, scale * dy.T @ (v @ a.T), dh @ a]
    for leaf, wanted in zip(leaves[: 5 if dropped else 4], expected):
        assert leaf.grad.dtype == dtype
        close(leaf.grad.numpy(), wanted, dtype, max(sizes) * sizes[3])
    assert dropped or tu.grad is None


def test_gradcheck_and_the_weight_trained_along():
    x, w, b, a, low, u, _ = (bpnn.from_numpy(one).requires_grad_() for one in arrays((5, 4, 3, 2), np.float64))
    assert gradcheck(lambda *t: F.lora_linear(*t, 0.5), (x, w, b, a, low))
    frozen = w.detach()
    assert gradcheck(lambda x, b, a, low, u: F.lora_linear(x, frozen, b, a, low, 0.5, u), (x, b, a, low, u))
    wt = bpnn.from_numpy(w.detach().numpy().T.copy()).requires_grad_()
    assert gradcheck(lambda *t: F.lora_linear(*t, 0.5, transposed=True), (x, wt, b, a, low))


@pytest.mark.parametrize("what", [0, 1, 2, 3])
def test_only_what_is_asked(what):
    """One leaf alone wants a gradient: the others get none, and it gets the same."""
    given = [bpnn.from_numpy(one) for one in arrays((6, 5, 4, 2), np.float64)]
    x, w, b, a, low, _, dy = given
    leaves = [x, b, a, low]
    for leaf in leaves:
        leaf.requires_grad_()
    F.lora_linear(x, w, b, a, low, 2.0).backward(dy)
    wanted = leaves[what].grad.numpy()
    for i, leaf in enumerate(leaves):
        leaf.grad = None
        leaf.requires_grad_(i == what)
    F.lora_linear(x, w, b, a, low, 2.0).backward(dy)
    np.testing.assert_array_equal(leaves[what].grad.numpy(), wanted)
    assert all(leaf.grad is None for i, leaf in enumerate(leaves) if i != what)


def test_more_axes_no_bias_and_threads():
    m, k, n, r = 66, 70, 90, 4
    x, w, _, a, low, _, dy = arrays((m, k, n, r), np.float32)
    results = []
    for threads in (1, 2):
        before = set_num_threads(threads) or 2
        leaves = [bpnn.from_numpy(one.copy()).requires_grad_() for one in (x.reshape(3, 22, k), a, low)]
        y = F.lora_linear(leaves[0], bpnn.from_numpy(w), None, leaves[1], leaves[2], 1.5)
        assert y.shape == (3, 22, n)
        y.backward(bpnn.from_numpy(dy.reshape(3, 22, n)))
        results.append([y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)])
        set_num_threads(before)
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    flat = x.astype(float)
    close(results[0][0].reshape(m, n), flat @ w.T + 1.5 * (flat @ a.T) @ low.T, np.float32, k * r)


def test_errors():
    x, w, b, a, low, u, _ = (bpnn.from_numpy(one) for one in arrays((6, 5, 4, 2), np.float32))
    for change, message in (
        ({"input": bpnn.ones(6, 4)}, r"input: expected float32 of shape \(6, 5\), got float32 of shape \(6, 4\)"),
        ({"lora_A": bpnn.ones(2, 4)}, r"lora_A: expected float32 of shape \(2, 5\)"),
        ({"lora_B": bpnn.ones(4, 3)}, r"lora_B: expected float32 of shape \(4, 2\)"),
        ({"bias": bpnn.ones(5)}, r"bias: expected float32 of shape \(4,\)"),
        ({"adapted": bpnn.ones(6, 5, dtype=bpnn.float64)}, r"adapted: expected float32 of shape \(6, 5\), got float64"),
        ({"weight": w.double()}, r"weight: expected float32"),
        ({"lora_A": bpnn.ones(5)}, r"lora_A: expected shape \(r, K\)"),
    ):
        given = {"input": x, "weight": w, "bias": b, "lora_A": a, "lora_B": low, "scaling": 1.0, "adapted": u} | change
        with pytest.raises(RuntimeError, match=message):
            F.lora_linear(**given)
    with pytest.raises(RuntimeError, match="adapted: expected None with a weight that requires grad"):
        F.lora_linear(x, w.clone().requires_grad_(), b, a, low, 1.0, u)
    loss = F.lora_linear(x, w, b, a.clone().requires_grad_(), low, 1.0).sum()
    low.add_(1)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()
