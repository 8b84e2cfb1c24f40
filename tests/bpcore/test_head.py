"""linear_cross_entropy against the formula in float64."""
from types import SimpleNamespace

import bpnn
import numpy as np
import pytest
from bpnn.nn import functional as F
from scipy.special import log_softmax, softmax

from bpcore import gemm
from bpcore.memory import memory_stats, reset_peak
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = [(1, 1, 1), (7, 3, 5), (31, 33, 32), (33, 32, 31), (65, 5, 1030)]      # rows, inputs, classes


def arrays(m, k, v, dtype, ignored=True):
    """x, W, b, classes of which some are ignored, weights of the classes"""
    x, w, b = RNG.normal(size=(m, k)), RNG.normal(size=(v, k)), RNG.normal(size=v)
    t = RNG.integers(0, v, m)
    if ignored and m > 3:
        t[::3] = -100
    return x.astype(dtype), w.astype(dtype), b.astype(dtype), t, RNG.uniform(0.5, 2, v).astype(dtype)


def reference(x, w, b, t, weight, smoothing, reduction, dy):
    """The loss, dx, dW, db in float64."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    v = len(w)
    weight = np.ones(v) if weight is None else weight.astype(np.float64)
    z = x @ w.T + (0 if b is None else b.astype(np.float64))
    real = t != -100
    q = np.zeros_like(z)
    q[real, t[real]] = 1 - smoothing
    q[real] += smoothing / v
    q *= weight
    losses = -(q * log_softmax(z, 1)).sum(1)
    mass = weight[t[real]].sum() if reduction == "mean" else 1
    dz = (softmax(z, 1) * q.sum(1, keepdims=True) - q) * (np.broadcast_to(dy, losses.shape) / mass)[:, None]
    return losses if reduction == "none" else losses.sum() / mass, dz @ w, dz.T @ x, dz.sum(0)


def close(ours, expected, dtype):
    scale = max(1, np.abs(expected).max(initial=0))
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(ours / scale, expected / scale, rtol=tolerance, atol=tolerance)


def leaves(*values):
    return [None if a is None else bpnn.tensor(a, requires_grad=True) for a in values]


@BOTH
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("smoothing", "weighted", "biased"),
                         [(0, False, False), (0, True, True), (0.1, False, True), (0.3, True, False)])
def test_loss_and_gradients(sizes, reduction, smoothing, weighted, biased, dtype):
    x, w, b, t, weight = arrays(*sizes, dtype)
    b, weight = b if biased else None, weight if weighted else None
    dy = RNG.normal(size=len(x) if reduction == "none" else ()).astype(dtype)
    expected = reference(x, w, b, t, weight, smoothing, reduction, dy)
    for options in (None, 4, SimpleNamespace(batch_chunk_size=len(x))):
        inputs = leaves(x, w, b)
        loss = F.linear_cross_entropy(
            *inputs[:2], bpnn.tensor(t), linear_bias=inputs[2], weight=None if weight is None else bpnn.tensor(weight),
            reduction=reduction, label_smoothing=smoothing, options=options)
        assert loss.dtype == dtype
        loss.backward(bpnn.tensor(dy))
        close(loss.detach().numpy(), expected[0], dtype)
        for leaf, gradient in zip(inputs, expected[1:], strict=True):
            if leaf is not None:
                assert leaf.grad.dtype == dtype and leaf.grad.shape == gradient.shape
                close(leaf.grad.numpy(), gradient, dtype)
        with bpnn.no_grad():
            alone = F.linear_cross_entropy(
                bpnn.tensor(x), bpnn.tensor(w), bpnn.tensor(t), linear_bias=None if b is None else bpnn.tensor(b),
                weight=None if weight is None else bpnn.tensor(weight), reduction=reduction, label_smoothing=smoothing)
        close(alone.numpy(), expected[0], dtype)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("needed", range(1, 8))
def test_any_subset_of_gradients(needed, reduction):
    x, w, b, t, _ = arrays(9, 4, 6, np.float64)
    inputs = [bpnn.tensor(a, requires_grad=bool(needed >> i & 1)) for i, a in enumerate((x, w, b))]
    loss = F.linear_cross_entropy(*inputs[:2], bpnn.tensor(t), linear_bias=inputs[2], reduction=reduction, options=4)
    loss.sum().backward()
    for leaf, gradient in zip(inputs, reference(x, w, b, t, None, 0, reduction, 1)[1:], strict=True):
        assert (leaf.grad is not None) == leaf.requires_grad
        if leaf.requires_grad:
            close(leaf.grad.numpy(), gradient, np.float64)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(reduction):
    x, w, b, t, weight = arrays(5, 3, 4, np.float64)
    bpnn.autograd.gradcheck(
        lambda x, w, b: F.linear_cross_entropy(x, w, bpnn.tensor(t), linear_bias=b, weight=bpnn.tensor(weight), reduction=reduction,
                                               label_smoothing=0.2, options=2), leaves(x, w, b))


@BOTH
def test_more_axes_and_layouts(dtype):
    x, w, _, t, _ = arrays(24, 5, 7, dtype)
    expected = reference(x, w, None, t, None, 0, "mean", 1)
    for given, weight in ((x.reshape(2, 3, 4, 5), w), (np.asfortranarray(x).reshape(4, 6, 5), np.asfortranarray(w)),
                          (np.repeat(x, 2, 1)[:, ::2], np.repeat(w, 2, 0)[::2])):
        inputs = [bpnn.from_numpy(a).requires_grad_() for a in (given, weight)]
        target = bpnn.tensor(t.reshape(given.shape[:-1]).astype(np.int32))
        loss = F.linear_cross_entropy(*inputs, target)
        loss.backward()
        close(loss.detach().numpy(), expected[0], dtype)
        close(inputs[0].grad.numpy().reshape(24, 5), expected[1], dtype)
        close(inputs[1].grad.numpy(), expected[2], dtype)
        rows = F.linear_cross_entropy(*inputs, target, reduction="none")
        assert rows.shape == given.shape[:-1]
    one = F.linear_cross_entropy(bpnn.tensor(x[1]), bpnn.tensor(w), bpnn.tensor(t[1]))
    assert one.shape == ()
    close(one.numpy(), -log_softmax(x[1].astype(float) @ w.T.astype(float))[t[1]], dtype)


def test_probabilities_and_a_loss_over_several_axes():
    x, w, b, _, _ = arrays(6, 4, 10, np.float64)
    p = softmax(RNG.normal(size=(6, 10)), 1)
    inputs = leaves(x, w, b)
    loss = F.linear_cross_entropy(*inputs[:2], bpnn.tensor(p), linear_bias=inputs[2])
    loss.backward()
    z = x @ w.T + b
    close(loss.detach().numpy(), -(p * log_softmax(z, 1)).sum(1).mean(), np.float64)
    close(inputs[1].grad.numpy(), (softmax(z, 1) - p).T @ x / 6, np.float64)
    rows = F.linear_cross_entropy(bpnn.tensor(x.reshape(2, 3, 4)), *leaves(w), bpnn.tensor(p.reshape(2, 3, 10)), reduction="none")
    assert rows.shape == (2, 3)
    threes = bpnn.tensor(np.full((6, 2), 3))
    wide = F.linear_cross_entropy(bpnn.tensor(x), bpnn.tensor(w.reshape(5, 2, 4)), threes, reduction="none")
    close(wide.numpy(), -log_softmax((x @ w.T).reshape(6, 5, 2), 1)[:, 3], np.float64)


def test_nothing_to_predict():
    x, w, _, _, _ = arrays(4, 3, 5, np.float64)
    for target, size in ((np.full(4, -100), 4), (np.zeros(0, int), 0)):
        for reduction, expected in (("mean", np.nan), ("sum", 0)):
            inputs = leaves(x[:size], w)
            loss = F.linear_cross_entropy(*inputs, bpnn.tensor(target), reduction=reduction)
            loss.backward()
            np.testing.assert_equal(loss.item(), expected)
            assert inputs[0].grad.shape == (size, 3) and not inputs[1].grad.numpy().any()


@pytest.fixture
def own_products():
    """Not the BLAS, whose sums depend on how a product is shared out."""
    before = gemm.get_engine()
    gemm.set_engine("own")
    yield
    gemm.set_engine(before)


@BOTH
@pytest.mark.usefixtures("own_products")
def test_one_thread_and_two_give_the_same_bits(dtype):
    x, w, b, t, _ = arrays(300, 40, 3001, dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        inputs = leaves(x, w, b)
        loss = F.linear_cross_entropy(*inputs[:2], bpnn.tensor(t), linear_bias=inputs[2], label_smoothing=0.1, options=64)
        loss.backward()
        results.append([loss.detach().numpy(), *(leaf.grad.numpy() for leaf in inputs)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_logits_never_exist_at_once():
    x, w, _, t, _ = arrays(2048, 8, 5000, np.float32, ignored=False)
    inputs = leaves(x, w)
    before = memory_stats()["in_use"]
    reset_peak()
    F.linear_cross_entropy(*inputs, bpnn.tensor(t), options=128).backward()
    assert memory_stats()["peak"] - before < 2048 * 5000 * 4 / 8


def test_a_second_backward():
    x, w, _, t, _ = arrays(8, 3, 5, np.float64)
    inputs = leaves(x, w)
    loss = F.linear_cross_entropy(*inputs, bpnn.tensor(t))
    loss.backward(retain_graph=True)
    first = inputs[1].grad.numpy().copy()
    loss.backward()
    np.testing.assert_allclose(inputs[1].grad.numpy(), 2 * first, rtol=1e-12)


@pytest.mark.parametrize(("change", "error", "text"), [
    ({"input": np.zeros((4, 2))}, RuntimeError, "input: expected shape"),
    ({"input": np.zeros((4, 3), np.float32)}, RuntimeError, "input: expected the dtype"),
    ({"linear_weight": np.zeros(3)}, RuntimeError, "linear_weight: expected shape"),
    ({"linear_weight": np.zeros((5, 3), int)}, TypeError, "linear_weight: expected float32"),
    ({"linear_bias": np.zeros(4)}, RuntimeError, "linear_bias: expected"),
    ({"target": np.array([0, 1, 5, 2])}, IndexError, r"target: expected classes in \[0, 4\].* got 5 at position \[2\]"),
    ({"target": np.zeros(3, int)}, ValueError, "target: expected shape"),
    ({"target": np.zeros(4)}, TypeError, "target: expected classes"),
    ({"target": np.zeros((4, 5)), "ignore_index": 1}, RuntimeError, "ignore_index: expected None"),
    ({"weight": np.ones(4)}, RuntimeError, "weight: expected one number"),
    ({"label_smoothing": 2}, RuntimeError, "label_smoothing"),
    ({"reduction": "max"}, ValueError, "reduction"),
    ({"options": 0}, ValueError, "options: expected"),
])
def test_errors(change, error, text):
    given = {"input": np.zeros((4, 3)), "linear_weight": np.zeros((5, 3)), "target": np.zeros(4, int)} | change
    given = {name: bpnn.tensor(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
    with pytest.raises(error, match=text):
        F.linear_cross_entropy(given.pop("input"), given.pop("linear_weight"), given.pop("target"), **given)
