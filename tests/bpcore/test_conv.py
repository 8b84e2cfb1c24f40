"""Convolution against a loop over taps in float64."""
import sys
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpcore import conv, winograd
from bpcore.memory import memory_stats
from bpcore.threads import set_num_threads
from bpnn.autograd import gradcheck
from bpnn.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from conv_reference import FUNCTIONS, assert_near, conv_reference

RNG = np.random.default_rng(0)
FLOATS = [np.float32, np.float64]

# images, channels, outputs, size, kernel, keywords
CASES = [
    # one axis
    (2, 3, 5, (9,), (3,), {}),
    (2, 1, 1, (1,), (1,), {}),
    (1, 7, 33, (40,), (5,), {"stride": 2, "padding": 2}),
    (3, 4, 6, (31,), (4,), {"padding": "same"}),
    (3, 4, 6, (31,), (2,), {"padding": "same", "dilation": 3}),
    (2, 6, 6, (50,), (3,), {"stride": 3, "dilation": 4, "padding": (3,), "groups": 3}),
    (2, 300, 64, (17,), (3,), {"padding": 1}),
    (1, 1, 6, (700,), (9,), {"padding": 4}),
    (2, 5, 7, (4,), (9,), {"padding": 4}),                                      # a kernel wider than the input
    # two
    (2, 3, 5, (6, 7), (3, 2), {"padding": "same"}),
    (2, 3, 5, (6, 7), (2, 4), {"padding": "same", "dilation": (1, 2)}),
    (2, 3, 5, (6, 7), (2, 4), {"padding": "valid"}),
    (2, 1, 6, (28, 28), (5, 5), {}),                                            # LeNet's
    (2, 6, 16, (14, 14), (5, 5), {}),
    (3, 3, 16, (32, 32), (3, 3), {"padding": 1}),                               # ResNet's
    (2, 16, 32, (32, 32), (3, 3), {"padding": 1, "stride": 2}),
    (2, 16, 32, (32, 32), (1, 1), {"stride": 2}),
    (2, 64, 32, (8, 8), (1, 1), {}),
    (2, 3, 8, (33, 29), (7, 7), {"padding": 3, "stride": 2}),
    (1, 3, 8, (30, 30), (11, 11), {"padding": 2, "stride": 4}),
    (2, 4, 6, (10, 10), (1, 1), {"padding": 1}),                                # places that see nothing
    (2, 4, 6, (2, 3), (3, 3), {"padding": 4}),
    (2, 4, 6, (9, 8), (3, 3), {"padding": (3, 0), "stride": (1, 3)}),
    (2, 4, 6, (16, 13), (3, 3), {"dilation": (2, 3), "stride": (3, 2), "padding": (0, 4)}),
    (1, 4, 6, (12, 12), (2, 2), {"stride": 3}),                                 # elements that nobody sees
    (2, 5, 3, (7, 1), (3, 1), {"padding": (1, 0)}),
    (2, 5, 3, (1, 33), (1, 3), {"padding": (0, 1)}),
    (1, 2, 3, (5, 600), (3, 3), {"padding": 1}),                                # boxes narrower than the image
    (1, 40, 3, (64, 70), (3, 3), {"padding": 1}),
    (20, 6, 13, (5, 5), (3, 3), {}),
    (20, 512, 64, (2, 2), (3, 3), {"padding": 1}),                              # small images of many channels
    (20, 256, 33, (4, 4), (3, 3), {"padding": 1}),
    (5, 100, 31, (2, 2), (2, 2), {}),
    # groups
    (2, 6, 4, (9, 8), (3, 3), {"groups": 2, "padding": 1}),
    (2, 32, 64, (8, 8), (3, 3), {"groups": 2, "padding": 1}),
    (2, 12, 12, (14, 14), (3, 3), {"groups": 12, "padding": 1}),                # depthwise
    (2, 5, 5, (17, 33), (3, 3), {"groups": 5, "padding": 1, "stride": 2}),
    (2, 5, 5, (17, 20), (5, 3), {"groups": 5, "padding": (2, 0), "dilation": (1, 2)}),
    (2, 5, 15, (11, 10), (3, 3), {"groups": 5, "padding": 1}),                  # several outputs of each channel
    (2, 15, 5, (11, 10), (3, 3), {"groups": 5, "padding": 1}),
    # three
    (2, 3, 5, (4, 5, 6), (2, 3, 2), {"padding": "same"}),
    (2, 3, 4, (6, 7, 8), (3, 3, 3), {"padding": 1, "stride": 2}),
    (1, 4, 6, (5, 6, 17), (3, 1, 2), {"padding": (1, 0, 1), "dilation": (2, 1, 1), "groups": 2}),
    (1, 8, 16, (8, 8, 8), (3, 3, 3), {"padding": 1}),
    (2, 4, 4, (5, 5, 5), (3, 3, 3), {"padding": 1, "groups": 4}),
    (2, 16, 16, (1, 12, 12), (1, 3, 3), {"padding": (0, 1, 1)}),                # a plane
    (2, 4, 5, (2, 3, 4), (1, 1, 1), {}),
]


def ids(case):
    return "-".join(str(v).replace(" ", "") for v in case)


def draw(case, dtype=np.float32, bias=True):
    """x, w, b."""
    images, channels, outputs, size, kernel, keywords = case
    x = RNG.standard_normal((images, channels, *size)).astype(dtype)
    w = RNG.standard_normal((outputs, channels // keywords.get("groups", 1), *kernel)).astype(dtype)
    return x, w, RNG.standard_normal(outputs).astype(dtype) if bias else None


def run(x, w, b, dy=None, f=None, **keywords):
    """y, dx, dw, db as arrays; dy may be a function of the shape."""
    tensors = [None if a is None else bpnn.from_numpy(a.copy()).requires_grad_() for a in (x, w, b)]
    y = (f or FUNCTIONS[w.ndim - 2])(*tensors, **keywords)
    dy = RNG.standard_normal(y.shape).astype(x.dtype) if dy is None else dy
    y.backward(bpnn.from_numpy(dy))
    return y.detach().numpy(), *(None if t is None else t.grad.numpy() for t in tensors), dy


def check(x, w, b, **keywords):
    *got, dy = run(x, w, b, **keywords)
    for one, expected, what in zip(got, conv_reference(x, w, b, dy, **keywords), ("y", "dx", "dw", "db"), strict=True):
        if one is not None and not (what == "db" and one.dtype == np.float32):
            assert_near(one, expected, what)
        elif one is not None:                                 # sums of numbers around zero: as a share of what is summed
            np.testing.assert_allclose(one, expected, atol=2e-6 * (dy.size / len(one)), rtol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
def test_conv(case, dtype, bias):
    check(*draw(case, dtype, bias), **case[-1])


@pytest.mark.parametrize("width", [1, 7, 8, 10, 14, 16, 28, 31, 32, 33])
@pytest.mark.parametrize("dtype", FLOATS)
def test_sizes(width, dtype):
    """Every form: vectors along pixels, along outputs, gathered; for widths and outputs around those of vectors and tiles."""
    for i, outputs in enumerate((1, 3, 6, 13, 16, 31, 32, 33, 64)):
        for j, channels in enumerate((1, 5, 16)):
            case = ((1, 2, 20)[(i + j) % 3], channels, outputs, (3 + i % 4, width), (3, 3), {"padding": 1})
            check(*draw(case, dtype), padding=1)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_strides(stride, dtype):
    for padding in (0, 1, 2):
        for dilation in (1, 2):
            for kernel in ((1, 2), (2, 3), (3, 5)):
                case = (2, 4, 6, (11, 14), kernel, {"groups": 1 + padding % 2})
                check(*draw(case, dtype), stride=stride, padding=padding, dilation=dilation, groups=1 + padding % 2)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_unbatched(axes):
    x, w, b = draw((1, 4, 6, (5, 6, 7)[:axes], (3, 2, 3)[:axes], {}), np.float64)
    got = run(x[0], w, b, padding=1)
    expected = conv_reference(x, w, b, got[-1][None], padding=1)
    assert_near(got[0], expected[0][0], "y")
    assert_near(got[1], expected[1][0], "dx")
    assert_near(got[2], expected[2], "dw")
    fused = FUNCTIONS[axes](bpnn.from_numpy(x[0]), bpnn.from_numpy(w), activation="relu")
    assert_near(fused.numpy(), np.maximum(conv_reference(x, w)[0], 0))


def test_strides_beyond_the_input():
    x, w, b = draw((2, 4, 6, (5, 6), (2, 3), {}), np.float64)
    check(x, w, b, stride=(7, 6))
    check(x, w, b, stride=(4, 1000), padding=1)
    y = conv.conv2d(*(bpnn.from_numpy(a).requires_grad_() for a in (x, w, b)), stride=10**9)
    y.sum().backward()                                        # not a step for each residue of the stride
    assert y.shape == (2, 6, 1, 1)


def test_empty_batch():
    x, w, b = draw((0, 4, 6, (8, 8), (3, 3), {}))
    y, dx, dw, db, _ = run(x, w, b, padding=1)
    assert y.shape == (0, 6, 8, 8) and dx.shape == x.shape
    assert not dw.any() and not db.any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_strided_arguments(dtype):
    x = RNG.standard_normal((16, 20, 2, 33)).astype(dtype)
    w = RNG.standard_normal((3, 3, 16, 64)).astype(dtype)
    for view, weight in [
        (x.transpose(2, 3, 0, 1)[:, 1:17], w.transpose(3, 2, 0, 1)),
        (x.transpose(2, 0, 1, 3)[..., ::2], w.transpose(3, 2, 1, 0)[::2]),
        (x.transpose(2, 0, 1, 3)[:, :, ::-1, ::-1], w.transpose(3, 2, 0, 1)[:, :, ::-1, 1:]),
    ]:
        b = RNG.standard_normal(2 * len(weight)).astype(dtype)[::2]
        tensors = [bpnn.from_numpy(np.ascontiguousarray(a)).requires_grad_() for a in (view, weight)]
        y = conv.conv2d(bpnn.tensor(view), bpnn.tensor(weight), bpnn.tensor(b), padding=1)
        expected = conv_reference(view, weight, b, padding=1)
        assert_near(y.numpy(), expected)
        dy = np.ascontiguousarray(RNG.standard_normal(expected.shape[::-1]).astype(dtype)).transpose()     # a strided gradient too
        conv.conv2d(*tensors, padding=1).backward(bpnn.from_numpy(dy))
        _, dx, dw, _ = conv_reference(view, weight, None, dy, padding=1)
        assert_near(tensors[0].grad.numpy(), dx, "dx")
        assert_near(tensors[1].grad.numpy(), dw, "dw")


def test_views():
    """Tensors that are views themselves, whose gradients go back to what they are views of."""
    base, kernel = RNG.standard_normal((8, 8, 4, 2)), RNG.standard_normal((3, 3, 4, 6))
    x, w = bpnn.from_numpy(base).requires_grad_(), bpnn.from_numpy(kernel).requires_grad_()
    y = conv.conv2d(x.permute(3, 2, 0, 1)[..., ::2], w.permute(3, 2, 0, 1), stride=2, padding=1)
    y.sum().backward()
    _, dx, dw, _ = conv_reference(base.transpose(3, 2, 0, 1)[..., ::2], kernel.transpose(3, 2, 0, 1), None,
                                  np.ones(y.shape), stride=2, padding=1)
    assert_near(x.grad.numpy()[:, ::2], dx.transpose(2, 3, 1, 0))
    assert not x.grad.numpy()[:, 1::2].any()
    assert_near(w.grad.numpy(), dw.transpose(2, 3, 1, 0))


@pytest.mark.parametrize("case", [
    (2, 2, 3, (5,), (3,), {"stride": 2, "padding": 1}), (1, 2, 2, (4, 5), (2, 3), {"padding": "same", "dilation": 2}),
    (2, 4, 4, (4, 3), (3, 3), {"padding": 1, "groups": 4}), (1, 2, 4, (5, 4), (2, 2), {"stride": (2, 1), "groups": 2}),
    (1, 2, 2, (3, 2, 3), (2, 2, 2), {"padding": 1, "stride": 2}),
], ids=ids)
@pytest.mark.parametrize("activation", [None, "tanh", "gelu"])
def test_gradcheck(case, activation):
    tensors = [bpnn.from_numpy(a).requires_grad_() for a in draw(case, np.float64)]
    assert gradcheck(lambda *t: FUNCTIONS[len(case[3])](*t, activation=activation, **case[-1]), tensors)


@pytest.mark.parametrize("case", [
    (20, 16, 16, (32, 32), (3, 3), {"padding": 1}), (20, 16, 32, (32, 32), (3, 3), {"padding": 1, "stride": 2}),
    (1, 64, 48, (33, 37), (3, 3), {"padding": 1}), (20, 256, 256, (2, 2), (3, 3), {"padding": 1}),
    (7, 512, 300, (4, 4), (3, 3), {"padding": 1}), (8, 384, 384, (3, 3), (3, 3), {}), (33, 1, 6, (28, 28), (5, 5), {}),
    (9, 24, 24, (30, 30), (3, 3), {"padding": 1, "groups": 24}), (3, 32, 192, (16, 16), (1, 1), {}),
    (4, 24, 40, (20, 20), (5, 5), {"groups": 2}), (2, 6, 9, (9, 10, 40), (3, 3, 3), {"padding": 1}),
], ids=ids)
@pytest.mark.parametrize("dtype", FLOATS)
def test_threads(case, dtype):
    """The same bits from one, two and three threads."""
    x, w, b = draw(case, dtype)
    results, dy = [], None
    for threads in (1, 2, 3):
        set_num_threads(threads)
        *got, dy = run(x, w, b, dy, activation="silu", **case[-1])
        results.append(got)
    for others in results[1:]:
        for one, other, what in zip(results[0], others, ("y", "dx", "dw", "db"), strict=True):
            assert one.tobytes() == other.tobytes(), what


def wants(i):
    return bool(i & 1), bool(i & 2), bool(i & 4)


@pytest.mark.parametrize("case", [
    (2, 3, 4, (6, 7), (3, 3), {"padding": 1}), (2, 32, 32, (12, 12), (3, 3), {"padding": 1}),
    (2, 4, 4, (6, 7), (3, 3), {"padding": 1, "groups": 4}),
], ids=ids)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_frozen(case, activation):
    """What needs no gradient gets none; the others' stay the same."""
    arrays = draw(case)
    *_, dx, dw, db, dy = run(*arrays, activation=activation, **case[-1])
    for i in range(8):
        tensors = [bpnn.from_numpy(a).requires_grad_(on) for a, on in zip(arrays, wants(i), strict=True)]
        y = conv.conv2d(*tensors, activation=activation, **case[-1])
        assert y.requires_grad == (i > 0)
        if i:
            y.backward(bpnn.from_numpy(dy))
        for t, on, expected in zip(tensors, wants(i), (dx, dw, db), strict=True):
            assert (t.grad is not None) == on
            if on:
                np.testing.assert_allclose(t.grad.numpy(), expected, rtol=1e-5, atol=1e-4 if expected is db else 0)


def test_changed_arguments():
    """A change between forward and backward is noticed where the changed array is needed."""
    def back(x_wants, w_wants, changed):
        x, w = bpnn.ones(1, 2, 5, 5, requires_grad=x_wants), bpnn.ones(3, 2, 3, 3, requires_grad=w_wants)
        y = conv.conv2d(x, w)
        with bpnn.no_grad():
            (x if changed == "x" else w).mul_(2)
        y.sum().backward()
    back(True, False, "x")
    back(False, True, "w")
    for x_wants, w_wants, changed in ((True, True, "x"), (True, True, "w"), (False, True, "x"), (True, False, "w")):
        with pytest.raises(RuntimeError):
            back(x_wants, w_wants, changed)


ACTIVATIONS = {
    "relu": F.relu, "sigmoid": F.sigmoid, "tanh": F.tanh, "gelu": F.gelu, "silu": F.silu,
    "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_activation(activation, dtype):
    """In the same pass as after it, in every form."""
    for case in [
        (2, 3, 7, (9, 33), (3, 3), {"padding": 1}), (3, 32, 32, (13, 13), (3, 3), {"padding": 1}), (5, 20, 33, (3, 2), (2, 2), {}),
        (2, 8, 8, (9, 10), (3, 3), {"groups": 8}), (2, 2, 40, (4, 4, 9), (2, 2, 2), {}), (2, 6, 6, (70,), (3,), {"groups": 2}),
    ]:
        arrays, f = draw(case, dtype), FUNCTIONS[len(case[3])]
        *fused, dy = run(*arrays, activation=activation, **case[-1])
        apart = run(*arrays, dy, lambda *t, f=f, case=case: ACTIVATIONS[activation](f(*t, **case[-1])))
        for one, other, what in zip(fused, apart, ("y", "dx", "dw", "db"), strict=False):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-5 if dtype == np.float32 else 1e-13, err_msg=what)


@pytest.mark.parametrize("case", [
    (2, 3, 4, (8, 12), (3, 3), {"padding": 1}), (2, 3, 40, (8, 3), (3, 3), {"padding": 1}), (4, 24, 40, (3, 3), (2, 2), {}),
    (2, 5, 5, (9, 9), (3, 3), {"groups": 5, "stride": 2}), (2, 16, 16, (9, 14), (3, 3), {"padding": 1}),
    (2, 4, 40, (9, 9), (1, 1), {}),
], ids=ids)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_not_finite(case, value, dtype):
    """What is not a number reaches the places that see it, and no other."""
    x, w, _ = draw(case, dtype)
    before = winograd.use(False)                              # test_winograd.py has its own
    try:
        finite = conv.conv2d(bpnn.from_numpy(x), bpnn.from_numpy(w), **case[-1]).numpy()
        x[1, 2, 2, 1] = value
        got = conv.conv2d(bpnn.from_numpy(x), bpnn.from_numpy(w), **case[-1]).numpy()
    finally:
        winograd.use(before)
    mark = np.zeros_like(x)
    mark[1, 2, 2, 1] = 1
    reached = conv_reference(mark, np.ones_like(w), **case[-1]) > 0
    assert not np.isfinite(got[reached]).any()
    np.testing.assert_array_equal(got[~reached], finite[~reached])


X, W = (2, 3, 8, 8), (4, 3, 3, 3)
ERRORS = [
    (X, (4, 2, 3, 3), {}, RuntimeError, "input"), ((2, 3, 8), (4, 3, 3), {}, RuntimeError, "weight"),
    ((8, 8), W, {}, RuntimeError, "input"), ((1, 2, 3, 8, 8), W, {}, RuntimeError, "input"),
    ((2, 3, 2, 8), W, {}, RuntimeError, "input"), ((2, 3, 4, 4), W, {"dilation": 2}, RuntimeError, "input"),
    (X, W, {"stride": 0}, ValueError, "stride"), (X, W, {"stride": (1, 1, 1)}, ValueError, "stride"),
    (X, W, {"stride": 1.5}, TypeError, "stride"), (X, W, {"stride": (1, 2.0)}, TypeError, "stride"),
    (X, W, {"padding": -1}, ValueError, "padding"), (X, W, {"padding": "full"}, ValueError, "padding"),
    (X, W, {"padding": "same", "stride": 2}, ValueError, "padding"), (X, W, {"padding": None}, TypeError, "padding"),
    (X, W, {"padding": 2**62}, ValueError, "padding"), (X, W, {"dilation": 2**64}, ValueError, "dilation"),
    (X, W, {"dilation": 0}, ValueError, "dilation"), (X, W, {"groups": 0}, ValueError, "groups"),
    (X, (4, 1, 3, 3), {"groups": 3}, RuntimeError, "weight"), (X, (0, 3, 3, 3), {}, RuntimeError, "weight"),
    (X, (4, 3, 0, 3), {}, RuntimeError, "weight"), (X, W, {"activation": "softmax"}, ValueError, "activation"),
    (X, W, {"bias": bpnn.zeros(3)}, RuntimeError, "bias"),
    (X, W, {"bias": bpnn.zeros(4, dtype=bpnn.float64)}, RuntimeError, "bias"),
]


@pytest.mark.parametrize(("x", "w", "keywords", "kind", "name"), ERRORS)
def test_errors(x, w, keywords, kind, name):
    with pytest.raises(kind, match=rf"^{name}: .*(expected|needs).*got"):
        conv.conv2d(bpnn.zeros(*x), bpnn.zeros(*w), **keywords)


def test_type_errors():
    with pytest.raises(RuntimeError, match="^input: expected the dtype of weight, float32, got float64"):
        conv.conv1d(bpnn.zeros(1, 1, 3, dtype=bpnn.float64), bpnn.zeros(1, 1, 3))
    with pytest.raises(TypeError, match="^weight: expected float32 or float64, got int64"):
        conv.conv1d(bpnn.zeros(1, 1, 3, dtype=bpnn.int64), bpnn.zeros(1, 1, 3, dtype=bpnn.int64))


def test_nothing_is_kept():
    x, w, b = draw((8, 16, 16, (16, 16), (3, 3), {}))
    run(x, w, b, padding=1)
    before = memory_stats()["in_use"]
    for _ in range(3):
        run(x, w, b, padding=1, activation="gelu")
        run(x.astype(np.float64), w.astype(np.float64), None, stride=2)
    assert memory_stats()["in_use"] == before
