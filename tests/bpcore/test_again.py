"""What is made again in backward instead of stored: the same bits, less memory, and the same errors."""
import gc

import bpnn
import numpy as np
import pytest
from bpnn.nn import functional as F

from bpcore.again import set_least
from bpcore.memory import memory_stats

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
N, K, M = 40, 24, 36


@pytest.fixture(autouse=True)
def everything():
    """Arrays of all sizes are made again."""
    before = set_least(0)
    yield
    set_least(before)


def leaf(*shape, dtype=np.float32):
    return bpnn.tensor(RNG.normal(size=shape).astype(dtype), requires_grad=True)


def normalized(x, w, b):
    return F.layer_norm(x, x.shape[-1:], w, b)


def root_mean_square(x, w, b):
    return F.rms_norm(x, x.shape[-1:], w)


def of_a_sum(x, w, b):
    y, _ = F.layer_norm(x, x.shape[-1:], w, b, residual=2 * x)
    return y


def activated(x, w, b):
    return F.linear(x, bpnn.diag(w), b, "gelu")


def gated(x, w, b):
    return F.swiglu(x * w, x + b)


def tanh_gated(x, w, b):
    return F.geglu(x * w, x + b, "tanh")


MAKERS = [normalized, root_mean_square, of_a_sum, activated, gated, tanh_gated]
EACH = pytest.mark.parametrize("maker", MAKERS)


@BOTH
@EACH
@pytest.mark.parametrize("consumers", [1, 3])
@pytest.mark.parametrize("shape", [(N, K), (4, 10, K)])
def test_the_same_bits(shape, consumers, maker, dtype):
    leaves = [leaf(*size, dtype=dtype) for size in (shape, (K,), (K,), *[(M, K)] * consumers)]
    results = []
    for size in (0, 1 << 60):
        set_least(size)
        y = maker(*leaves[:3])
        loss = sum(F.linear(y, w).square().sum() for w in leaves[3:])
        del y
        loss.backward(retain_graph=True)
        loss.backward()
        results.append([np.zeros(1) if t.grad is None else t.grad.numpy() for t in leaves])
        for t in leaves:
            t.grad = None
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@EACH
def test_it_is_not_stored(maker):
    gc.collect()  # what other tests left is not counted
    x, w, b, matrix = leaf(1024, 256), leaf(256), leaf(256), leaf(8, 256)
    stored = []
    for size in (0, 1 << 60):
        set_least(size)
        before = memory_stats()["in_use"]
        z = F.linear(maker(x, w, b), matrix)
        stored.append(memory_stats()["in_use"] - before)
        del z
        assert memory_stats()["in_use"] == before
    assert stored[1] - stored[0] == x.nbytes


def test_nothing_is_left_after_backward():
    x, w, b, matrix = leaf(1024, 256), leaf(256), leaf(256), leaf(8, 256)
    for maker in MAKERS:
        before = memory_stats()["in_use"]
        loss = F.linear(maker(x, w, b), matrix).sum()
        loss.backward()
        x.grad = w.grad = b.grad = matrix.grad = None
        assert memory_stats()["in_use"] - before < 1024, maker          # of the graph, which the loss still holds
        del loss


def test_what_is_alive_is_used():
    """An output that somebody holds is not made again, and must not have been changed."""
    x, matrix = leaf(N, K), leaf(M, K)
    y = F.layer_norm(x, K)
    loss = F.linear(y, matrix).sum()
    with bpnn.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()


def test_a_changed_output_is_stored():
    """In place, off the tape and on it: the product sees the new values."""
    x, matrix = leaf(N, K), leaf(M, K)
    for recorded in (False, True):
        y = F.layer_norm(x, K)
        with bpnn.set_grad_enabled(recorded):
            y.mul_(3)
        values = y.detach().numpy().copy()
        F.linear(y, matrix).sum().backward()
        np.testing.assert_allclose(matrix.grad.numpy(), np.tile(values.sum(0), (M, 1)), rtol=1e-4, atol=1e-5)
        matrix.grad = None


@pytest.mark.parametrize("changed", range(3))
def test_changed_sources_are_refused(changed):
    """Also where only the consumer's gradient is asked for."""
    leaves, matrix = [leaf(N, K), leaf(K), leaf(K)], leaf(M, K)
    loss = F.linear(normalized(*leaves), matrix).sum()
    with bpnn.no_grad():
        leaves[changed].add_(1)
    with pytest.raises(RuntimeError, match="LayerNormBackward: a tensor needed for backward has been modified"):
        bpnn.autograd.grad(loss, matrix)


def test_the_consumer_alone():
    """The producer's values were freed by a first backward through another consumer; a second one only asks for its own weight."""
    x, first, second = leaf(N, K), leaf(M, K), leaf(M, K)
    y = F.layer_norm(x, K)
    expected = np.tile(y.detach().numpy().sum(0), (M, 1))
    one, two = F.linear(y, first).sum(), F.linear(y, second).sum()
    del y
    one.backward()
    grad, = bpnn.autograd.grad(two, second)
    np.testing.assert_allclose(grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_small_arrays_are_stored():
    assert set_least(2 << 20) == 0
    x, matrix = leaf(N, K), leaf(M, K)
    before = memory_stats()["in_use"]
    z = F.linear(F.layer_norm(x, K), matrix)
    assert memory_stats()["in_use"] - before >= z.nbytes + x.nbytes
