"""swiglu and geglu against their formulas, and against the composed form."""
import math

import bpnn
import numpy as np
import pytest

from bpcore.gated import geglu, swiglu
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = [(1,), (31,), (32,), (33,), (5, 7), (3, 4, 65), (2000, 33), ()]
erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def silu(x):
    s = sigmoid(x)
    return x * s, s + x * s * (1 - s)


def gelu(x):
    cdf = (1 + erf(x / math.sqrt(2))) / 2
    return x * cdf, cdf + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_tanh(x):
    k = math.sqrt(2 / math.pi)
    t = np.tanh(k * (x + 0.044715 * x**3))
    return x * (1 + t) / 2, (1 + t) / 2 + x * (1 - t * t) / 2 * k * (1 + 3 * 0.044715 * x * x)


def geglu_tanh(gate, up):
    return geglu(gate, up, "tanh")


# gated unit, its activation with the derivative, and ours
CASES = {
    "swiglu": (swiglu, silu, bpnn.nn.functional.silu),
    "geglu": (geglu, gelu, bpnn.nn.functional.gelu),
    "geglu tanh": (geglu_tanh, gelu_tanh, lambda x: bpnn.nn.functional.gelu(x, approximate="tanh")),
}
EACH = pytest.mark.parametrize("case", CASES)


def arrays(shape, dtype):
    """gate, up, dy"""
    return tuple(np.asarray(scale * RNG.normal(size=shape), dtype) for scale in (3, 1, 1))


@BOTH
@EACH
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_gradients(shape, case, dtype):
    unit, activation, _ = CASES[case]
    g, u, dy = arrays(shape, dtype)
    gate, up = (bpnn.tensor(a, requires_grad=True) for a in (g, u))
    y = unit(gate, up)
    y.backward(bpnn.tensor(dy))
    value, slope = activation(g.astype(np.float64))
    assert y.shape == gate.grad.shape == up.grad.shape == shape and y.dtype == gate.grad.dtype == dtype
    tolerance = 2e-6 if dtype == np.float32 else 1e-13
    for ours, expected in ((y.detach(), value * u), (gate.grad, dy * u * slope), (up.grad, dy * value)):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)


@BOTH
@EACH
@pytest.mark.parametrize("needed", ["gate", "up", "both"])
def test_equals_the_composed_form(needed, case, dtype):
    unit, _, activation = CASES[case]
    g, u, dy = arrays((9, 33), dtype)
    results = []
    for form in (unit, lambda gate, up: activation(gate) * up):
        gate, up = bpnn.tensor(g, requires_grad=needed != "up"), bpnn.tensor(u, requires_grad=needed != "gate")
        y = form(gate, up)
        y.backward(bpnn.tensor(dy))
        assert (gate.grad is None, up.grad is None) == (needed == "up", needed == "gate")
        results.append([y.detach().numpy(), *(t.grad.numpy() for t in (gate, up) if t.grad is not None)])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


@EACH
def test_gradcheck(case):
    leaves = [bpnn.tensor(a, requires_grad=True) for a in arrays((3, 5), np.float64)[:2]]
    bpnn.autograd.gradcheck(CASES[case][0], leaves)


@BOTH
@EACH
def test_layouts(case, dtype):
    unit = CASES[case][0]
    g, u, dy = arrays((6, 8), dtype)
    joint = np.concatenate([g, u], 1)
    for left, right in ((np.asfortranarray(g), u[::-1]), (joint[:, :8], joint[:, 8:]), (np.broadcast_to(g[0], g.shape), u)):
        results = []
        for pair in ((left, right), (left.copy(), right.copy())):
            gate, up = (bpnn.from_numpy(a).requires_grad_() for a in pair)
            y = unit(gate, up)
            y.backward(bpnn.from_numpy(np.asfortranarray(dy)))
            results.append([y.detach().numpy(), gate.grad.numpy(), up.grad.numpy()])
        for one, two in zip(*results, strict=True):
            np.testing.assert_array_equal(one, two)


@BOTH
@EACH
def test_one_thread_and_two_give_the_same_bits(case, dtype):
    g, u, dy = arrays((501, 333), dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        gate, up = (bpnn.tensor(a, requires_grad=True) for a in (g, u))
        y = CASES[case][0](gate, up)
        y.backward(bpnn.tensor(dy))
        results.append([y.detach().numpy(), gate.grad.numpy(), up.grad.numpy()])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@BOTH
@EACH
def test_empty(case, dtype):
    gate, up = (bpnn.zeros(0, 3, dtype=dtype, requires_grad=True) for _ in range(2))
    y = CASES[case][0](gate, up)
    y.sum().backward()
    assert y.shape == gate.grad.shape == up.grad.shape == (0, 3)


@EACH
def test_one_tensor_twice(case):
    """f(x) x: both gradients go to one leaf."""
    unit, activation, _ = CASES[case]
    x = RNG.normal(size=(4, 5))
    t = bpnn.tensor(x, requires_grad=True)
    unit(t, t).sum().backward()
    value, slope = activation(x)
    np.testing.assert_allclose(t.grad.numpy(), value + x * slope, rtol=1e-12)


@BOTH
@EACH
def test_far_from_zero(case, dtype):
    """No overflow on the way: the activation is 0 or x, its slope 0 or 1."""
    g = np.array([-1e30, -1e3, -120, 120, 1e3, 1e30], dtype)
    gate, up = bpnn.tensor(g, requires_grad=True), bpnn.full((6,), 2.0, dtype=dtype, requires_grad=True)
    y = CASES[case][0](gate, up)
    y.sum().backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-30}
    np.testing.assert_allclose(y.detach().numpy(), 2 * np.maximum(g, 0), **tolerance)
    np.testing.assert_allclose(up.grad.numpy(), np.maximum(g, 0), **tolerance)
    np.testing.assert_allclose(gate.grad.numpy(), 2.0 * (g > 0), **tolerance)


@EACH
def test_half_types(case):
    unit, activation, _ = CASES[case]
    g, u, dy = arrays((4, 30), np.float16)
    gate, up = (bpnn.tensor(a, requires_grad=True) for a in (g, u))
    y = unit(gate, up)
    y.backward(bpnn.tensor(dy))
    assert y.dtype == gate.grad.dtype == up.grad.dtype == np.float16
    g, u, dy = (a.astype(np.float64) for a in (g, u, dy))
    value, slope = activation(g)
    for ours, expected in ((y.detach(), value * u), (gate.grad, dy * u * slope), (up.grad, dy * value)):
        np.testing.assert_allclose(ours.float().numpy(), expected, rtol=2e-3, atol=1e-4)


def test_saved_values_are_guarded():
    for changed in range(2):
        pair = [bpnn.randn(4, requires_grad=True) for _ in range(2)]
        y = swiglu(*pair)
        with bpnn.no_grad():
            pair[changed].add_(1)
        with pytest.raises(RuntimeError, match="modified by an in-place operation"):
            y.sum().backward()


def test_errors():
    x = bpnn.zeros(2, 3)
    with pytest.raises(RuntimeError, match=r"up: expected the shape of gate, \(2, 3\), got \(3,\)"):
        swiglu(x, bpnn.zeros(3))
    with pytest.raises(RuntimeError, match="up: expected the dtype of gate, float32, got float64"):
        geglu(x, bpnn.zeros(2, 3, dtype=np.float64))
    with pytest.raises(TypeError, match="gate: expected a floating-point tensor, got int64"):
        swiglu(bpnn.zeros(3, dtype=np.int64), bpnn.zeros(3, dtype=np.int64))
    with pytest.raises(RuntimeError, match="approximate: expected 'none' or 'tanh', got 'sigmoid'"):
        geglu(x, x, "sigmoid")


@pytest.mark.rivals
@BOTH
@EACH
def test_torch_agrees(case, dtype):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    activation = {"swiglu": F.silu, "geglu": F.gelu, "geglu tanh": lambda x: F.gelu(x, approximate="tanh")}[case]
    g, u, dy = arrays((33, 65), dtype)
    results = []
    for tensor, form in ((bpnn.tensor, CASES[case][0]), (torch.tensor, lambda gate, up: activation(gate) * up)):
        gate, up = tensor(g, requires_grad=True), tensor(u, requires_grad=True)
        y = form(gate, up)
        y.backward(tensor(dy))
        results.append([y.detach().numpy(), gate.grad.numpy(), up.grad.numpy()])
    for ours, theirs in zip(*results, strict=True):
        tolerance = 2e-6 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
