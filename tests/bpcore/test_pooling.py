"""Pooling against loops over windows in float64."""
import itertools
import math

import numpy as np
import pytest

import bpnn
from bpcore import adaptive, averaging, pooling, unpooling
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
MAX = {1: pooling.max_pool1d, 2: pooling.max_pool2d, 3: pooling.max_pool3d}
AVG = {1: averaging.avg_pool1d, 2: averaging.avg_pool2d, 3: averaging.avg_pool3d}
ADAPTIVE_AVG = {1: adaptive.adaptive_avg_pool1d, 2: adaptive.adaptive_avg_pool2d, 3: adaptive.adaptive_avg_pool3d}
ADAPTIVE_MAX = {1: adaptive.adaptive_max_pool1d, 2: adaptive.adaptive_max_pool2d, 3: adaptive.adaptive_max_pool3d}

# size, kernel, stride, padding, dilation, ceil_mode
WINDOWS = [
    ((28, 28), (2, 2), (2, 2), (0, 0), (1, 1), False),         # the quick way, with rows of every length
    ((10, 10), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((7, 9), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((5, 66), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((7, 9), (2, 2), (2, 2), (0, 0), (1, 1), True),
    ((13, 13), (3, 3), (2, 2), (0, 0), (1, 1), False),
    ((16, 16), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((9, 8), (3, 2), (1, 3), (1, 0), (2, 1), True),
    ((6, 5), (3, 3), (1, 1), (1, 1), (1, 1), False),
    ((4, 5), (4, 5), (4, 5), (0, 0), (1, 1), False),           # one window
    ((2, 300), (2, 3), (1, 2), (1, 1), (1, 1), False),         # more columns than a tile has
    ((20, 20), (17, 17), (3, 3), (8, 8), (1, 1), True),        # more elements than a byte numbers
    ((11,), (3,), (2,), (1,), (1,), True),
    ((400,), (3,), (1,), (1,), (90,), False),                 # elements of a window far apart
    ((40,), (2,), (2,), (0,), (1,), False),
    ((33,), (5,), (4,), (2,), (2,), False),
    ((5, 6, 7), (2, 3, 2), (2, 1, 2), (1, 1, 0), (1, 1, 1), True),
    ((4, 4, 8), (2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1), False),
]
OUTPUTS = [((7, 9), (3, 4)), ((8, 8), (1, 1)), ((8, 12), (4, 6)), ((5, 5), (7, 3)), ((13,), (5,)), ((5, 6, 4), (2, 5, 4))]


def ids(case):
    return "-".join(str(v).replace(" ", "") for v in case)


def places(n, k, s, p, d, ceil):
    """For each window along an axis: its start, and the elements it has within 0..n."""
    count = (math.ceil if ceil else math.floor)((n + 2 * p - d * (k - 1) - 1) / s) + 1
    if ceil and (count - 1) * s >= n + p:
        count -= 1
    starts = [o * s - p for o in range(count)]
    return [(start, [i for i in range(start, start + k * d, d) if 0 <= i < n]) for start in starts]


def windows(case):
    """For each output, the indices of its window's elements in the plane, and the windows along each axis."""
    axes = [places(*one) for one in zip(*case[:5], [case[5]] * len(case[0]), strict=True)]
    for at in itertools.product(*(range(len(axis)) for axis in axes)):
        chosen = [axis[o] for axis, o in zip(axes, at, strict=True)]
        yield at, list(itertools.product(*(inside for _, inside in chosen))), [start for start, _ in chosen]


def shape_of(case):
    return tuple(len(places(*one)) for one in zip(*case[:5], [case[5]] * len(case[0]), strict=True))


def best_of(plane, inside):
    """The first largest element, or the last NaN."""
    best = inside[0]
    for at in inside:
        if plane[at] > plane[best] or np.isnan(plane[at]):
            best = at
    return best


def max_reference(x, dy, case):
    y, dx, index = np.empty((*x.shape[:2], *shape_of(case))), np.zeros(x.shape), np.empty((*x.shape[:2], *shape_of(case)), int)
    for n, c in np.ndindex(*x.shape[:2]):
        for at, inside, _ in windows(case):
            best = best_of(x[n, c], inside)
            y[n, c][at], index[n, c][at] = x[n, c][best], np.ravel_multi_index(best, case[0])
            dx[n, c][best] += dy[n, c][at]
    return y, dx, index


def avg_reference(x, dy, case, include, divisor):
    y, dx = np.empty((*x.shape[:2], *shape_of(case))), np.zeros(x.shape)
    for at, inside, starts in windows(case):
        ends = [min(a + k, n + p) for a, k, n, p in zip(starts, case[1], case[0], case[3], strict=True)]
        padded = math.prod(e - a for a, e in zip(starts, ends, strict=True))
        count = divisor or (padded if include else len(inside))
        where = tuple(np.array(inside).T)
        y[(slice(None), slice(None), *at)] = x[(slice(None), slice(None), *where)].sum(-1) / count
        for one in inside:
            dx[(slice(None), slice(None), *one)] += dy[(slice(None), slice(None), *at)] / count
    return y, dx


def run(function, x, dy=None):
    """The output and the gradient for `dy` (ones without it), as arrays."""
    t = bpnn.tensor(x, requires_grad=True)
    y = function(t)
    y.backward(bpnn.ones_like(y) if dy is None else bpnn.from_numpy(dy.astype(x.dtype)))
    return y.detach().numpy(), t.grad.numpy()


def arguments(case):
    return {"kernel_size": case[1], "stride": case[2], "padding": case[3], "ceil_mode": case[5]}


@pytest.mark.parametrize("case", WINDOWS, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max(case, dtype):
    f, keywords = MAX[len(case[0])], arguments(case) | {"dilation": case[4]}
    x = np.round(RNG.normal(size=(2, 3, *case[0])), 1).astype(dtype)                    # rounded: with ties
    dy = RNG.normal(size=(2, 3, *shape_of(case)))
    y, dx, index = max_reference(x, dy, case)
    got, slope = run(lambda t: f(t, **keywords), x, dy)
    np.testing.assert_array_equal(got, y.astype(dtype))
    np.testing.assert_allclose(slope, dx, rtol=1e-5, atol=1e-5 if dtype == np.float32 else 1e-12)
    values, indices = f(bpnn.tensor(x), return_indices=True, **keywords)
    np.testing.assert_array_equal(values.numpy(), got)
    np.testing.assert_array_equal(indices.numpy(), index)
    single, _ = run(lambda t: f(t, **keywords), x[1])                                    # without a batch axis
    np.testing.assert_array_equal(single, got[1])


@pytest.mark.parametrize("case", [case for case in WINDOWS if max(case[4]) == 1], ids=ids)
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_avg(case, include, dtype):
    x = RNG.normal(size=(2, 3, *case[0])).astype(dtype)
    dy = RNG.normal(size=(2, 3, *shape_of(case)))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
    for divisor in (None, 7) if len(case[0]) > 1 else (None,):
        keywords = arguments(case) | {"count_include_pad": include} | ({"divisor_override": divisor} if divisor else {})
        y, dx = avg_reference(x.astype(float), dy, case, include, divisor)
        got, slope = run(lambda t, k=keywords: AVG[len(case[0])](t, **k), x, dy)
        np.testing.assert_allclose(got, y, **tolerance)
        np.testing.assert_allclose(slope, dx, **tolerance)


def halves(n, m):
    return [range(o * n // m, -(-(o + 1) * n // m)) for o in range(m)]


@pytest.mark.parametrize(("size", "out"), OUTPUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adaptive(size, out, dtype):
    x, dy = RNG.normal(size=(2, 3, *size)).astype(dtype), RNG.normal(size=(2, 3, *out))
    mean, mean_dx, most, most_dx = np.empty(dy.shape), np.zeros(x.shape), np.empty(dy.shape), np.zeros(x.shape)
    index = np.empty(dy.shape, int)
    for n, c, *at in np.ndindex(*dy.shape):
        inside = list(itertools.product(*(halves(*pair)[o] for pair, o in zip(zip(size, out, strict=True), at, strict=True))))
        here, plane = (n, c, *at), x[n, c]
        mean[here] = np.mean([float(plane[one]) for one in inside])
        best = best_of(plane, inside)
        most[here], index[here] = plane[best], np.ravel_multi_index(best, size)
        most_dx[(n, c, *best)] += dy[here]
        for one in inside:
            mean_dx[(n, c, *one)] += dy[here] / len(inside)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
    got, slope = run(lambda t: ADAPTIVE_AVG[len(size)](t, out), x, dy)
    np.testing.assert_allclose(got, mean, **tolerance)
    np.testing.assert_allclose(slope, mean_dx, **tolerance)
    got, slope = run(lambda t: ADAPTIVE_MAX[len(size)](t, out), x, dy)
    np.testing.assert_array_equal(got, most.astype(dtype))
    np.testing.assert_allclose(slope, most_dx, **tolerance)
    values, indices = ADAPTIVE_MAX[len(size)](bpnn.tensor(x), out, return_indices=True)
    np.testing.assert_array_equal(indices.numpy(), index)
    np.testing.assert_array_equal(values.numpy(), got)


def test_adaptive_sizes():
    x = bpnn.tensor(RNG.normal(size=(2, 3, 6, 8)))
    assert adaptive.adaptive_avg_pool2d(x, (None, 4)).shape == (2, 3, 6, 4)
    assert adaptive.adaptive_max_pool2d(x, 2).shape == (2, 3, 2, 2)
    np.testing.assert_allclose(adaptive.adaptive_avg_pool2d(x, 1).numpy()[..., 0, 0], x.numpy().mean((2, 3)))
    assert adaptive.adaptive_avg_pool2d(x, 0).shape == (2, 3, 0, 0)


@pytest.mark.parametrize("norm", [1, 2, 3.0])
def test_lp(norm):
    x = np.abs(RNG.normal(size=(2, 3, 7, 9))) + 0.1
    expected = np.empty((2, 3, 3, 4))
    for i, j in np.ndindex(3, 4):
        expected[:, :, i, j] = (x[:, :, 2 * i:2 * i + 2, 2 * j:2 * j + 2]**norm).sum((2, 3))**(1 / norm)
    np.testing.assert_allclose(averaging.lp_pool2d(bpnn.tensor(x), norm, 2).numpy(), expected)
    rows = (x[..., 0:8].reshape(2, 3, 7, 4, 2)**norm).sum(-1)**(1 / norm)
    np.testing.assert_allclose(averaging.lp_pool1d(bpnn.tensor(x[0]), norm, 2).numpy(), rows[0])


GRADCHECK = [
    lambda t: pooling.max_pool2d(t, 2), lambda t: pooling.max_pool2d(t, 3, 2, 1), lambda t: pooling.max_pool1d(t[0], 3, 1, 1),
    lambda t: averaging.avg_pool2d(t, 3, 2, 1, count_include_pad=False), lambda t: averaging.avg_pool2d(t, (5, 6)),
    lambda t: averaging.lp_pool2d(t, 2, 2), lambda t: adaptive.adaptive_avg_pool2d(t, (3, 4)),
    lambda t: adaptive.adaptive_max_pool2d(t, (3, 4)), lambda t: adaptive.adaptive_avg_pool2d(t, 1),
]


@pytest.mark.parametrize("function", GRADCHECK)
def test_gradcheck(function):
    x = RNG.permutation(2 * 2 * 5 * 6).reshape(2, 2, 5, 6) / 10.0 + 0.5               # far apart: no ties, no kinks
    bpnn.autograd.gradcheck(function, bpnn.tensor(x, requires_grad=True))


EVERY = [
    lambda t: pooling.max_pool2d(t, 2), lambda t: pooling.max_pool2d(t, 3, 2, 1), lambda t: averaging.avg_pool2d(t, 2),
    lambda t: averaging.avg_pool2d(t, 3, 2, 1), lambda t: adaptive.adaptive_avg_pool2d(t, 1),
    lambda t: adaptive.adaptive_avg_pool2d(t, 5), lambda t: adaptive.adaptive_max_pool2d(t, 5),
    lambda t: averaging.lp_pool2d(t, 2, 2), lambda t: pooling.max_pool2d(t, 17, 1, 8),
]


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_thread_and_two_give_the_same_bits(function, dtype):
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        results.append(run(function, np.random.default_rng(1).normal(size=(16, 7, 29, 27)).astype(dtype)))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("function", EVERY)
def test_layouts_and_empty_batches(function):
    x = RNG.normal(size=(3, 4, 18, 20)).astype(np.float32)
    expected, slope = run(function, x)
    t = bpnn.from_numpy(np.ascontiguousarray(x.transpose(3, 1, 0, 2)).transpose(2, 1, 3, 0)).requires_grad_()
    y = function(t)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    y.backward(bpnn.from_numpy(np.broadcast_to(np.float32(1), y.shape)))
    np.testing.assert_array_equal(t.grad.numpy(), slope)
    y, dx = run(function, x[:0])
    assert y.shape == (0, *expected.shape[1:]) and dx.shape == (0, 4, 18, 20)


@pytest.mark.parametrize("size", [(6, 6), (9, 33)])
@pytest.mark.parametrize("keywords", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1}])
def test_nan_and_infinity(size, keywords):
    x = RNG.normal(size=(1, 1, *size)).astype(np.float32)
    x[0, 0, 1, 2:4] = np.nan
    x[0, 0, 3:] = -np.inf
    x[0, 0, -1, -1] = np.inf
    k = keywords["kernel_size"]
    case = (size, (k, k), (keywords.get("stride", k),) * 2, (keywords.get("padding", 0),) * 2, (1, 1), False)
    y, _, index = max_reference(x, np.ones((1, 1, *shape_of(case))), case)
    values, indices = pooling.max_pool2d(bpnn.tensor(x), return_indices=True, **keywords)
    np.testing.assert_array_equal(values.numpy(), y.astype(np.float32))
    np.testing.assert_array_equal(indices.numpy(), index)


def test_half_types():
    x = RNG.normal(size=(1, 2, 6, 6)).astype(np.float16)
    t = bpnn.tensor(x, requires_grad=True)
    for function in EVERY[:6]:
        y = function(t)
        y.sum().backward()
        assert y.dtype == np.float16 and t.grad.dtype == np.float16


def test_errors():
    x = bpnn.tensor(np.zeros((2, 3, 4, 4), np.float32))
    for f in (pooling.max_pool2d, averaging.avg_pool2d):
        for arguments_, name in [(((5, 2),), "kernel_size"), ((0,), "kernel_size"), ((2, 0), "stride"), ((2, 2, 2), "padding"),
                                 ((2, 2, -1), "padding"), (((2, 2, 2),), "kernel_size")]:
            with pytest.raises(RuntimeError, match=f"^{name}: expected"):
                f(x, *arguments_)
        with pytest.raises(RuntimeError, match="^input: .* expected 3 or 4 axes"):
            f(x[0, 0], 2)
        with pytest.raises(RuntimeError, match="^input: .* no empty axis"):
            f(bpnn.zeros(2, 0, 4, 4), 2)
        with pytest.raises(RuntimeError, match="^input: .* floats, got int64"):
            f(bpnn.tensor([[[1, 2]]]), 1)
    with pytest.raises(RuntimeError, match="^dilation: expected"):
        pooling.max_pool2d(x, 2, 1, 1, 0)
    with pytest.raises(RuntimeError, match="^dilation: expected every window"):
        pooling.max_pool1d(bpnn.zeros(1, 1, 1), 2, 1, 3, 5)
    with pytest.raises(RuntimeError, match="^divisor_override: expected"):
        averaging.avg_pool2d(x, 2, divisor_override=0)
    for f in (adaptive.adaptive_avg_pool2d, adaptive.adaptive_max_pool2d):
        with pytest.raises(RuntimeError, match="^output_size: expected"):
            f(x, -1)
        with pytest.raises(RuntimeError, match="^output_size: expected"):
            f(x, (1, 2, 3))


@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
def test_unpool(size):
    x = RNG.permutation(2 * 3 * size[0] * size[1]).reshape(2, 3, *size).astype(float)
    values, indices = pooling.max_pool2d(bpnn.tensor(x), 2, return_indices=True)
    t = bpnn.tensor(values.numpy(), requires_grad=True)
    y = unpooling.max_unpool2d(t, indices, 2, output_size=size)
    kept = np.zeros(x.size)
    plane = np.arange(6)[:, None] * size[0] * size[1] + indices.numpy().reshape(6, -1)
    kept[plane.ravel()] = 1
    np.testing.assert_array_equal(y.detach().numpy(), x * kept.reshape(x.shape))
    y.backward(bpnn.from_numpy(x))
    np.testing.assert_array_equal(t.grad.numpy(), values.numpy())
    if size == (6, 8):
        np.testing.assert_array_equal(unpooling.max_unpool2d(values, indices, 2).numpy(), y.detach().numpy())
    bpnn.autograd.gradcheck(lambda v: unpooling.max_unpool2d(v, indices, 2, output_size=size), t)


def test_unpool_errors():
    values, indices = pooling.max_pool1d(bpnn.randn(2, 3, 8), 2, return_indices=True)
    with pytest.raises(RuntimeError, match="^indices: expected int64 of the input's shape"):
        unpooling.max_unpool1d(values, indices[:1], 2)
    with pytest.raises(RuntimeError, match="^indices: expected places within planes"):
        unpooling.max_unpool1d(values, indices + 8, 2)
    with pytest.raises(ValueError, match="^output_size: expected less than the stride away"):
        unpooling.max_unpool1d(values, indices, 2, output_size=(12,))


@pytest.mark.rivals
@pytest.mark.parametrize("case", WINDOWS, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_agrees(case, dtype):
    torch = pytest.importorskip("torch")
    axes, theirs = len(case[0]), torch.nn.functional
    x = np.round(RNG.normal(size=(2, 3, *case[0])), 1).astype(dtype)
    pairs = [(MAX, "max_pool", arguments(case) | {"dilation": case[4]}), (AVG, "avg_pool", arguments(case))]
    for ours, name, keywords in pairs[:1 if max(case[4]) > 1 else 2]:
        t = torch.tensor(x, requires_grad=True)
        z = getattr(theirs, f"{name}{axes}d")(t, **keywords)
        dy = RNG.normal(size=z.shape).astype(dtype)
        z.backward(torch.from_numpy(dy))
        y, dx = run(lambda t, f=ours, k=keywords: f[axes](t, **k), x, dy)
        np.testing.assert_allclose(y, z.detach().numpy(), rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(dx, t.grad.numpy(), rtol=2e-6, atol=1e-6)
