"""Interpolation against matrices written from the definitions, one axis at a time."""
import functools
import math

import numpy as np
import pytest
from scipy import interpolate as scipy_interpolate

import bpnn
from bpcore.interpolation import interpolate, upsample, upsample_bilinear, upsample_nearest
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
MODES = {"nearest": 1, "nearest-exact": 1, "linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
SIZES = [(5, 9), (9, 5), (7, 7), (1, 4), (4, 1), (6, 18), (33, 10)]


def keys(x, a):
    """Cubic convolution, Keys 1981, equation 4."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0


def matrix(mode, n, m, align=False, scale=None, antialias=False):
    """(m, n): the weights of n elements in each of m."""
    step = ((n - 1) / (m - 1) if m > 1 else 0) if align else (1 / scale if scale else n / m)
    out = np.zeros((m, n))
    for o in range(m):
        if mode.startswith("nearest"):
            out[o, min(math.floor((o + (0.5 if mode == "nearest-exact" else 0)) * step), n - 1)] = 1
            continue
        kernel = (lambda x: max(0, 1 - abs(x))) if mode != "bicubic" else functools.partial(keys, a=-0.5 if antialias else -0.75)
        if antialias:
            wide, center = max(step, 1), (o + 0.5) * step
            reach = wide * (2 if mode == "bicubic" else 1)
            inside = [i for i in range(n) if int(max(center - reach + 0.5, 0)) <= i < int(center + reach + 0.5)]
            weights = [kernel((i + 0.5 - center) / wide) for i in inside]
            for i, weight in zip(inside, weights, strict=True):
                out[o, i] = weight / sum(weights)
            continue
        at = o * step if align else (o + 0.5) * step - 0.5
        if mode != "bicubic":
            at = max(at, 0)
        base = math.floor(at)
        for i in range(base - 1, base + 3):                    # elements beyond the edge are those at the edge
            out[o, min(max(i, 0), n - 1)] += kernel(at - i)
    return out


def check(x, y, maps, tolerance):
    """`y` is `x` through the matrices of its last axes."""
    for axis, one in enumerate(maps):
        x = np.moveaxis(np.tensordot(x, one, (axis + 2, 1)), -1, axis + 2)
    np.testing.assert_allclose(y, x, **tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_sizes(mode, align, dtype, n, m):
    if mode.startswith("nearest"):
        align = None
    before, after = (n, 5, 4)[:MODES[mode]], (m, 7, 3)[:MODES[mode]]
    x = RNG.normal(size=(2, 3, *before)).astype(dtype)
    t = bpnn.tensor(x, requires_grad=True)
    y = interpolate(t, after, mode=mode, align_corners=align)
    maps = [matrix(mode, *pair, bool(align)) for pair in zip(before, after, strict=True)]
    tolerance = {"rtol": 1e-4, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-11}
    check(x.astype(float), y.detach().numpy(), maps, tolerance)
    dy = RNG.normal(size=y.shape).astype(dtype)
    y.backward(bpnn.from_numpy(dy))
    check(dy.astype(float), t.grad.numpy(), [one.T for one in maps], tolerance)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_antialias(mode, n, m):
    x = RNG.normal(size=(2, 3, n, 6))
    t = bpnn.tensor(x, requires_grad=True)
    y = interpolate(t, (m, 4), mode=mode, antialias=True)
    maps = [matrix(mode, n, m, antialias=True), matrix(mode, 6, 4, antialias=True)]
    check(x, y.detach().numpy(), maps, {"rtol": 1e-10, "atol": 1e-11})
    y.backward(y.detach())
    check(y.detach().numpy(), t.grad.numpy(), [one.T for one in maps], {"rtol": 1e-10, "atol": 1e-11})


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
@pytest.mark.parametrize("factor", [0.4, 1.7, 2.0, 2.3])
def test_scale_factor(mode, factor):
    x = RNG.normal(size=(1, 2, 11))
    m = math.floor(11 * factor)
    y = interpolate(bpnn.tensor(x), scale_factor=factor, mode=mode).numpy()
    check(x, y, [matrix(mode, 11, m, scale=factor)], {"atol": 1e-12})
    again = interpolate(bpnn.tensor(x), scale_factor=factor, mode=mode, recompute_scale_factor=True).numpy()
    check(x, again, [matrix(mode, 11, m)], {"atol": 1e-12})


def test_bilinear_is_the_spline_of_degree_one():
    """Corners aligned, against SciPy."""
    x = RNG.normal(size=(7, 9))
    spline = scipy_interpolate.RectBivariateSpline(np.arange(7), np.arange(9), x, kx=1, ky=1)
    y = interpolate(bpnn.tensor(x[None, None]), (13, 20), mode="bilinear", align_corners=True).numpy()[0, 0]
    np.testing.assert_allclose(y, spline(np.linspace(0, 6, 13), np.linspace(0, 8, 20)), rtol=1e-9, atol=1e-9)


def test_smooth_bicubic_keeps_a_straight_line():
    """Cubic convolution of slope -1/2 reproduces linear functions away from the edges."""
    x = np.add.outer(2.0 * np.arange(12), np.arange(15))
    y = interpolate(bpnn.tensor(x[None, None]), scale_factor=2, mode="bicubic", antialias=True).numpy()[0, 0]
    line = np.add.outer(2 * (np.arange(24) / 2 - 0.25), np.arange(30) / 2 - 0.25)
    np.testing.assert_allclose(y[4:-4, 4:-4], line[4:-4, 4:-4], rtol=1e-12)


def test_area_is_the_mean():
    x = RNG.normal(size=(2, 3, 6, 8))
    y = interpolate(bpnn.tensor(x), (3, 2), mode="area").numpy()
    np.testing.assert_allclose(y, x.reshape(2, 3, 3, 2, 2, 4).mean((3, 5)))


def test_other_names():
    x = bpnn.tensor(RNG.normal(size=(1, 2, 3, 4)))
    np.testing.assert_array_equal(upsample_nearest(x, scale_factor=2).numpy(), x.numpy().repeat(2, 2).repeat(2, 3))
    expected = interpolate(x, (5, 6), mode="bilinear", align_corners=True).numpy()
    np.testing.assert_array_equal(upsample_bilinear(x, (5, 6)).numpy(), expected)
    with pytest.warns(UserWarning, match="deprecated"):
        np.testing.assert_array_equal(upsample(x, (5, 6), mode="bilinear", align_corners=True).numpy(), expected)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [(5, 7), (3, 2)])
def test_gradcheck(mode, size):
    x = bpnn.tensor(RNG.normal(size=(1, 2, 4, 5)), requires_grad=True)
    bpnn.autograd.gradcheck(lambda t: interpolate(t, size, mode=mode), x)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_thread_and_two_give_the_same_bits(mode, dtype):
    x, results = RNG.normal(size=(4, 8, 37, 41)).astype(dtype), []
    for threads in (1, 2):
        set_num_threads(threads)
        t = bpnn.tensor(x, requires_grad=True)
        y = interpolate(t, (50, 29), mode=mode)
        y.backward(y.detach())
        results.append((y.detach().numpy(), t.grad.numpy()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_layouts_and_types():
    x = RNG.normal(size=(2, 3, 6, 7)).astype(np.float32)
    expected = interpolate(bpnn.tensor(x), (9, 5), mode="bilinear").numpy()
    view = bpnn.from_numpy(np.ascontiguousarray(x.T).T)
    np.testing.assert_array_equal(interpolate(view, (9, 5), mode="bilinear").numpy(), expected)
    assert interpolate(bpnn.tensor(x[:0]), (9, 5), mode="bilinear").shape == (0, 3, 9, 5)
    half = interpolate(bpnn.tensor(x.astype(np.float16)), (9, 5), mode="bilinear")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.numpy(), expected, rtol=1e-2, atol=1e-2)


def test_nearest_copies_bits():
    x = np.array([[[-0.0, np.nan, np.inf, -np.inf]]])
    y = interpolate(bpnn.tensor(x), scale_factor=2).numpy()
    np.testing.assert_array_equal(y, x.repeat(2, 2))
    assert np.signbit(y[0, 0, :2]).all()


def test_errors():
    x = bpnn.zeros(1, 2, 3, 4)
    for keywords, message in [
        ({}, "^size: expected either"), ({"size": 2, "scale_factor": 2}, "^size: expected either"),
        ({"size": (2, 3, 4)}, "^size: expected 2 numbers"), ({"scale_factor": (2.0,)}, "^scale_factor: expected 2 numbers"),
        ({"size": 2, "mode": "cubic"}, "^mode: expected one of"), ({"size": 2, "mode": "linear"}, "^input: linear expected 3 axes"),
        ({"size": 2, "align_corners": True}, "^align_corners: expected None"),
        ({"size": 2, "antialias": True}, "^antialias: expected mode 'bilinear'"),
        ({"size": 2, "recompute_scale_factor": True}, "^recompute_scale_factor: expected scale_factor"),
    ]:
        with pytest.raises(ValueError, match=message):
            interpolate(x, **keywords)
    for size in (0, (3, 0), -1):
        with pytest.raises(RuntimeError, match="^size: expected images of at least one element"):
            interpolate(x, size)
    with pytest.raises(TypeError, match="^input: expected floats, got int64"):
        interpolate(bpnn.tensor([[[1, 2]]]), 2)


@pytest.mark.rivals
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [{"size": 13}, {"size": 3}, {"scale_factor": 1.7}, {"scale_factor": 0.45}])
def test_torch_agrees(mode, align, size):
    torch = pytest.importorskip("torch")
    if mode.startswith("nearest"):
        align = None
    x = RNG.normal(size=(2, 3, *(9, 7, 5)[:MODES[mode]])).astype(np.float32)
    for antialias in (False, True) if MODES[mode] == 2 else (False,):
        ours, theirs = bpnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y = interpolate(ours, mode=mode, align_corners=align, antialias=antialias, **size)
        z = torch.nn.functional.interpolate(theirs, mode=mode, align_corners=align, antialias=antialias, **size)
        y.backward(y.detach())
        z.backward(z.detach())
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-4, atol=1e-5)
