"""Activations against their formulas in float64."""
import math

import numpy as np
import pytest
from scipy import special

import bpnn
from bpcore import activation as A
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
INPLACE = {
    A.relu: {}, A.relu6: {}, A.leaky_relu: {}, A.hardtanh: {}, A.elu: {}, A.selu: {}, A.celu: {}, A.silu: {}, A.hardsigmoid: {},
    A.hardswish: {}, A.mish: {}, A.threshold: {"threshold": 0.1, "value": 3.0},
}


def elu(x, a, b=1.0, c=1.0):
    return np.where(x > 0, b * x, a * np.expm1(np.minimum(x * c, 700)))


def gate(x):
    return np.clip(x + 3, 0, 6) / 6


# Function, keywords, formula; the inputs stay away from kinks, where finite differences mean nothing.
CASES = [
    (A.relu, {}, lambda x: np.maximum(x, 0)),
    (A.leaky_relu, {}, lambda x: np.where(x > 0, x, 0.01 * x)),
    (A.leaky_relu, {"negative_slope": -0.5}, lambda x: np.where(x > 0, x, -0.5 * x)),
    (A.hardtanh, {}, lambda x: np.clip(x, -1, 1)),
    (A.hardtanh, {"min_val": -0.25, "max_val": 2.0}, lambda x: np.clip(x, -0.25, 2)),
    (A.relu6, {}, lambda x: np.clip(x, 0, 6)),
    (A.sigmoid, {}, special.expit),
    (A.tanh, {}, np.tanh),
    (A.gelu, {}, lambda x: x * special.ndtr(x)),
    (A.gelu, {"approximate": "tanh"}, lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    (A.silu, {}, lambda x: x * special.expit(x)),
    (A.softplus, {}, lambda x: np.where(x > 20, x, np.logaddexp(0, x))),
    (A.softplus, {"beta": 3.0, "threshold": 2.0}, lambda x: np.where(3 * x > 2, x, np.logaddexp(0, 3 * x) / 3)),
    (A.elu, {}, lambda x: elu(x, 1)),
    (A.elu, {"alpha": 0.5}, lambda x: elu(x, 0.5)),
    (A.elu, {"alpha": -0.5}, lambda x: elu(x, -0.5)),
    (A.selu, {}, lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772)),
    (A.celu, {"alpha": 1.5}, lambda x: elu(x, 1.5, 1, 1 / 1.5)),
    (A.celu, {"alpha": -1.5}, lambda x: elu(x, -1.5, 1, 1 / -1.5)),
    (A.softsign, {}, lambda x: x / (1 + np.abs(x))),
    (A.logsigmoid, {}, lambda x: -np.logaddexp(0, -x)),
    (A.hardsigmoid, {}, gate),
    (A.hardswish, {}, lambda x: x * gate(x)),
    (A.mish, {}, lambda x: x * np.tanh(np.logaddexp(0, x))),
    (A.threshold, {"threshold": 0.35, "value": 3.0}, lambda x: np.where(x > 0.35, x, 3)),
    (A.hardshrink, {"lambd": 0.6}, lambda x: np.where(np.abs(x) > 0.6, x, 0)),
    (A.softshrink, {"lambd": 0.6}, lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.6, 0)),
]
KINKS = np.array([-3, -1, -0.6, -0.25, 0, 0.35, 0.6, 2 / 3, 1, 2, 3, 6])


def inputs(shape, dtype=np.float64):
    x = RNG.normal(size=shape) * 3
    near = np.abs(x[..., None] - KINKS).min(-1) < 0.01
    return np.where(near, x + 0.03, x).astype(dtype)


def ids(case):
    return case[0].__name__ + "".join(f"-{v}" for v in case[1].values())


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (31,), (32,), (33,), (5, 67), (), (0,), (0, 3)])
def test_forward_and_gradient(case, dtype, shape):
    f, keywords, formula = case
    x = inputs(shape, dtype)
    dy = np.asarray(RNG.normal(size=shape)).astype(dtype)
    t = bpnn.tensor(x, requires_grad=True)
    y = f(t, **keywords)
    y.backward(bpnn.from_numpy(dy))
    assert y.dtype == dtype and y.shape == shape and t.grad.shape == shape
    wide, step = x.astype(np.float64), 1e-6
    slope = (formula(wide + step) - formula(wide - step)) / (2 * step)
    tolerance = {"rtol": 2e-6, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(y.detach().numpy(), formula(wide), **tolerance)
    np.testing.assert_allclose(t.grad.numpy(), dy * slope, rtol=1e-5, atol=1e-5 if dtype == np.float32 else 1e-8)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_gradcheck(case):
    x = bpnn.tensor(inputs((4, 5)), requires_grad=True)
    bpnn.autograd.gradcheck(lambda t: case[0](t, **case[1]), x)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_layouts(case):
    f, keywords, _ = case
    x = inputs((6, 9), np.float32)
    expected = f(bpnn.tensor(x), **keywords).numpy()
    for view, same in [(x.T.copy().T, expected), (x[::2, ::3], expected[::2, ::3]), (x[::-1], expected[::-1])]:
        t = bpnn.tensor(0.0)
        t.data = bpnn.from_numpy(view)
        t.requires_grad_()
        y = f(t, **keywords)
        np.testing.assert_allclose(y.detach().numpy(), same, rtol=1e-6)
        y.backward(bpnn.from_numpy(np.ones((view.shape[1], view.shape[0]), np.float32).T))
        assert t.grad.shape == view.shape


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_thread_and_two_give_the_same_bits(case, dtype):
    f, keywords, _ = case
    x, results = inputs((100_003,), dtype), []
    for threads in (1, 2):
        set_num_threads(threads)
        t = bpnn.tensor(x, requires_grad=True)
        y = f(t, **keywords)
        y.backward(bpnn.ones_like(y))
        results.append((y.detach().numpy(), t.grad.numpy()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("f", INPLACE, ids=lambda f: f.__name__)
def test_inplace(f):
    x, keywords = inputs((3, 40), np.float32), INPLACE[f]
    expected = f(bpnn.tensor(x), **keywords).numpy()
    t = bpnn.tensor(x)
    assert f(t, inplace=True, **keywords) is t
    np.testing.assert_array_equal(t.numpy(), expected)

    leaf = bpnn.tensor(x, requires_grad=True)
    f(leaf, **keywords).sum().backward()
    gradient, leaf.grad = leaf.grad.numpy(), None
    middle = leaf * 1.0
    assert f(middle, inplace=True, **keywords) is middle
    middle.sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), gradient)

    with pytest.raises(RuntimeError, match="leaf"):
        f(leaf, inplace=True, **keywords)
    np.testing.assert_array_equal(leaf.detach().numpy(), x)


def test_saved_values_are_guarded():
    x = bpnn.tensor(inputs((5,)), requires_grad=True)
    y = A.sigmoid(x)
    with bpnn.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        y.sum().backward()


def test_integers():
    x = bpnn.tensor([-2, 0, 3])
    assert A.relu(x).tolist() == [0, 0, 3] and A.relu(x).dtype == np.int64
    for f in (A.sigmoid, A.tanh, A.softsign):
        assert f(x).dtype == np.float32
    for f in (A.gelu, A.silu, A.softplus, A.leaky_relu, A.elu, A.mish):
        with pytest.raises(TypeError, match="input: expected a floating-point tensor, got int64"):
            f(x)
    with pytest.raises(TypeError, match="got bool"):
        A.relu(bpnn.tensor([True]))


def test_half_types():
    x = inputs((40,), np.float16)
    t = bpnn.tensor(x, requires_grad=True)
    y = A.silu(t)
    y.backward(bpnn.ones_like(y))
    assert y.dtype == np.float16 and t.grad.dtype == np.float16
    np.testing.assert_allclose(y.detach().numpy(), (x * special.expit(x.astype(np.float64))), rtol=2e-3, atol=1e-4)


def test_arguments():
    x = bpnn.tensor([1.0])
    with pytest.raises(ValueError, match="min_val: expected at most max_val"):
        A.hardtanh(x, 2.0, 1.0)
    with pytest.raises(RuntimeError, match="approximate: expected 'none' or 'tanh', got 'quick'"):
        A.gelu(x, approximate="quick")
    with pytest.raises(RuntimeError, match="alpha"):
        A.celu(x, 0.0)
    with pytest.raises(RuntimeError, match="lambd"):
        A.softshrink(x, -1.0)
    with pytest.raises(TypeError, match="input"):
        A.relu("text")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out(dtype):
    """Large arguments neither overflow on the way nor come out as NaN."""
    x = np.array([-1e30, -1000, -100, 100, 1000, 1e30], dtype)
    identity = np.where(x > 0, x, 0)
    for f in (A.relu, A.silu, A.gelu, A.mish, A.softplus, A.hardswish, lambda t: A.gelu(t, approximate="tanh")):
        t = bpnn.tensor(x, requires_grad=True)
        y = f(t)
        y.backward(bpnn.ones_like(y))
        np.testing.assert_allclose(y.detach().numpy(), identity, rtol=1e-6, atol=1e-30)
        np.testing.assert_allclose(t.grad.numpy(), x > 0, atol=1e-30)
    assert A.sigmoid(bpnn.tensor(x)).tolist()[3:] == [1, 1, 1]
    assert A.logsigmoid(bpnn.tensor(x)).tolist()[:3] == x[:3].tolist()


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_nan_stays_nan(case):
    x = np.full(37, np.nan)
    assert np.isnan(case[0](bpnn.tensor(x), **case[1]).numpy()).all()


@pytest.mark.rivals
@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_agrees(case, dtype):
    torch = pytest.importorskip("torch")
    f, keywords, _ = case
    x = np.concatenate([inputs((1000,), dtype), np.array([-20, 20, 50, -50], dtype)])
    dy = RNG.normal(size=x.shape).astype(dtype)
    ours, theirs = bpnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = f(ours, **keywords), getattr(torch.nn.functional, f.__name__)(theirs, **keywords)
    y.backward(bpnn.from_numpy(dy))
    z.backward(torch.from_numpy(dy))
    tolerance = {"rtol": 3e-6, "atol": 2e-6} if dtype == np.float32 else {"rtol": 2e-7, "atol": 1e-9}
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), **tolerance)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), **tolerance)
