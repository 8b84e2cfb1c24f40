"""softmax, log_softmax and softmin against their formulas in float64."""
import numpy as np
import pytest
from scipy import special

import bpnn
from bpcore import softmax as S
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
CASES = {
    "softmax": (S.softmax, special.softmax),
    "log_softmax": (S.log_softmax, special.log_softmax),
    "softmin": (S.softmin, lambda x, axis: special.softmax(-x, axis)),
}
SHAPES = [
    ((1,), 0), ((31,), -1), ((32,), 0), ((33,), 0), ((2500,), 0), ((), 0), ((0,), 0), ((0, 3), 1), ((3, 0), 1), ((3, 0), 0),
    ((5, 3), 1), ((900, 10), 1), ((7, 31), -1), ((7, 32), 1), ((7, 33), 1), ((2, 1030), 1),
    ((31, 33), 0), ((3, 4, 5), 1), ((2, 33, 130), 1), ((4, 3, 64), 0), ((2, 3, 2, 65), -3),
]


def backward(name, x, y, dy, axis):
    """The gradient, from the formula for y."""
    if name == "log_softmax":
        return dy - np.exp(y) * dy.sum(axis, keepdims=True)
    sign = -1 if name == "softmin" else 1
    return sign * y * (dy - (dy * y).sum(axis, keepdims=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_forward_and_gradient(name, dtype, shape, axis):
    f, formula = CASES[name]
    x, dy = (np.asarray(RNG.normal(size=shape) * s).astype(dtype) for s in (4, 1))
    t = bpnn.tensor(x, requires_grad=True)
    y = f(t, axis)
    y.backward(bpnn.from_numpy(dy))
    assert y.dtype == dtype and y.shape == shape and t.grad.shape == shape
    if not x.size:
        return
    wide = x.astype(np.float64)
    expected = formula(wide, axis) if shape else np.asarray(0.0 if name == "log_softmax" else 1.0)
    slope = backward(name, wide, expected, dy.astype(np.float64), axis) if shape else np.zeros(())
    tolerance = {"rtol": 5e-6, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(y.detach().numpy(), expected, **tolerance)
    np.testing.assert_allclose(t.grad.numpy(), slope, **tolerance)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradcheck(name, axis):
    x = bpnn.tensor(RNG.normal(size=(2, 3, 4)), requires_grad=True)
    bpnn.autograd.gradcheck(lambda t: CASES[name][0](t, axis), x)


@pytest.mark.parametrize("name", CASES)
def test_layouts(name):
    f = CASES[name][0]
    x = RNG.normal(size=(6, 8, 5)).astype(np.float32)
    for view in (x.transpose(2, 0, 1), x[::2, ::-1], np.asfortranarray(x)):
        for axis in range(3):
            got = f(bpnn.from_numpy(view), axis).numpy()
            np.testing.assert_array_equal(got, f(bpnn.from_numpy(view.copy()), axis).numpy())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("axis", [0, 1])
def test_one_thread_and_two_give_the_same_bits(name, axis):
    x, results = RNG.normal(size=(301, 999)).astype(np.float32), []
    for threads in (1, 2):
        set_num_threads(threads)
        t = bpnn.tensor(x, requires_grad=True)
        y = CASES[name][0](t, axis)
        (y * y).sum().backward()
        results.append((y.detach().numpy(), t.grad.numpy()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("cols", [4, 40])
@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nan(cols, axis):
    x = RNG.normal(size=(6, cols)).astype(np.float32)
    x[0] = -np.inf                        # no finite element: NaN
    x[1, 1] = -np.inf                     # probability 0
    x[2, 2] = np.inf                      # NaN
    x[3, 3] = np.nan                      # NaN
    x[4] = -3e38                          # large but finite: uniform
    x[5] = 3e38
    for f, log in ((S.softmax, False), (S.log_softmax, True)):
        y = f(bpnn.from_numpy(x if axis else x.T), axis).numpy()
        y = y if axis else y.T
        assert np.isnan(y[[0, 2, 3]]).any(1).all() and np.isnan(y[[0, 3]]).all()
        assert y[1, 1] == (-np.inf if log else 0) and np.isfinite(np.delete(y[1], 1)).all()
        np.testing.assert_allclose(y[4:], -np.log(cols) if log else 1 / cols, rtol=1e-6)


def test_large_rows_are_accurate():
    x = RNG.normal(size=(2, 60_000)).astype(np.float32)
    np.testing.assert_allclose(S.softmax(bpnn.tensor(x), 1).numpy(), special.softmax(x.astype(np.float64), 1), rtol=5e-7)
    assert abs(S.softmax(bpnn.tensor(x), 1).numpy().astype(np.float64).sum(1) - 1).max() < 1e-6


def test_dtype_argument():
    x = bpnn.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = S.softmax(x, 0, dtype=bpnn.float64)
    (y * bpnn.tensor([1.0, 0.0, 2.0], dtype=bpnn.float64)).sum().backward()
    assert y.dtype == np.float64 and x.grad.dtype == np.float32
    assert S.log_softmax(bpnn.tensor([1, 2, 3]), 0, dtype=bpnn.float32).dtype == np.float32
    assert S.softmax(bpnn.tensor(np.ones(4, np.float16)), 0).dtype == np.float16


def test_arguments():
    x = bpnn.tensor(np.zeros((2, 3)))
    with pytest.raises(IndexError, match=r"dim: expected to be in \[-2, 1\], got 2"):
        S.softmax(x, 2)
    with pytest.raises(TypeError, match="softmax: expected a floating-point input or dtype, got int64"):
        S.softmax(bpnn.tensor([1, 2]), 0)
    with pytest.raises(TypeError, match="input"):
        S.log_softmax("text", 0)
    for shape, axis in [((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)]:
        x = bpnn.tensor(RNG.normal(size=shape))
        with pytest.warns(UserWarning, match=f"dim is not given and taken as {axis}"):
            y = S.softmax(x)
        np.testing.assert_array_equal(y.numpy(), S.softmax(x, axis).numpy())


def test_saved_values_are_guarded():
    x = bpnn.tensor(RNG.normal(size=(2, 3)), requires_grad=True)
    y = S.softmax(x, 1)
    with bpnn.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        y.sum().backward()


@pytest.mark.rivals
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_torch_agrees(name, shape, axis):
    torch = pytest.importorskip("torch")
    x = np.asarray(RNG.normal(size=shape)) * 5
    if x.ndim == 2 and x.shape[0] > 4 and x.shape[1] > 2:
        x[0], x[1, 0], x[2, 1], x[3, 0] = -np.inf, -np.inf, np.nan, np.inf
    dy = np.asarray(RNG.normal(size=shape))
    ours, theirs = bpnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = CASES[name][0](ours, axis), getattr(torch.nn.functional, name)(theirs, axis)
    y.backward(bpnn.from_numpy(dy))
    z.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-11, atol=1e-13)
