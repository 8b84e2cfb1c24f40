"""Transposed convolution against a loop over taps in float64, and both kinds against PyTorch."""
import random
import sys
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpcore import conv
from bpcore.threads import set_num_threads
from bpnn.autograd import gradcheck

sys.path.insert(0, str(Path(__file__).parent))
from conv_reference import FUNCTIONS, TRANSPOSED, assert_near, conv_reference, transposed_reference

RNG = np.random.default_rng(0)
FLOATS = [np.float32, np.float64]

# images, channels, outputs, size, kernel, keywords
CASES = [
    (2, 3, 5, (9,), (3,), {}),
    (2, 4, 6, (31,), (4,), {"stride": 2, "padding": 1}),
    (2, 4, 6, (7,), (5,), {"stride": 3, "padding": 2, "output_padding": 2}),
    (2, 6, 9, (12,), (2,), {"stride": 3, "dilation": 2, "groups": 3, "output_padding": 1}),
    (3, 5, 7, (1,), (1,), {}),
    (2, 3, 5, (6, 7), (3, 2), {}),
    (2, 16, 8, (8, 8), (4, 4), {"stride": 2, "padding": 1}),                    # a generator's
    (20, 100, 64, (1, 1), (4, 4), {}),
    (2, 32, 32, (14, 14), (3, 3), {"padding": 1}),                              # Winograd's shape
    (2, 16, 33, (9, 31), (3, 3), {"padding": 2}),
    (2, 8, 3, (16, 16), (2, 2), {"stride": 2}),
    (2, 4, 6, (5, 6), (1, 1), {"stride": 3}),                                   # places that nobody writes
    (2, 4, 6, (5, 6), (2, 1), {"stride": (3, 2), "output_padding": (2, 1)}),
    (2, 4, 6, (5, 6), (3, 3), {"stride": 2, "dilation": 2, "padding": 1, "output_padding": 1}),
    (2, 4, 6, (5, 6), (3, 3), {"stride": 2, "dilation": (4, 3), "output_padding": (3, 2)}),    # output_padding beyond the stride
    (2, 4, 6, (9, 8), (3, 5), {"padding": (2, 4)}),
    (2, 4, 6, (1, 5), (3, 3), {"stride": (9, 2), "output_padding": (8, 1), "dilation": (2, 1)}),
    (2, 4, 6, (1, 1), (2, 3), {"stride": 70, "output_padding": (69, 1), "padding": (1, 0)}),
    (2, 64, 13, (4, 4), (3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    (2, 512, 31, (2, 2), (3, 3), {"padding": 1}),
    (2, 6, 8, (7, 10), (3, 3), {"groups": 2, "stride": 2}),
    (2, 5, 5, (7, 33), (3, 3), {"groups": 5, "stride": 2, "padding": 1}),       # depthwise
    (2, 5, 10, (7, 10), (3, 3), {"groups": 5}),
    (2, 3, 4, (3, 4, 5), (2, 3, 2), {"stride": (2, 1, 2), "padding": (0, 1, 1), "output_padding": (1, 0, 0)}),
    (1, 4, 6, (4, 4, 9), (3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
]


def ids(case):
    return "-".join(str(v).replace(" ", "") for v in case)


def draw(case, dtype=np.float32, bias=True):
    images, channels, outputs, size, kernel, keywords = case
    x = RNG.standard_normal((images, channels, *size)).astype(dtype)
    w = RNG.standard_normal((channels, outputs // keywords.get("groups", 1), *kernel)).astype(dtype)
    return x, w, RNG.standard_normal(outputs).astype(dtype) if bias else None


def run(f, arrays, dy=None, **keywords):
    """y, dx, dw, db and the gradient that was drawn."""
    tensors = [None if a is None else bpnn.from_numpy(a.copy()).requires_grad_() for a in arrays]
    y = f(*tensors, **keywords)
    dy = RNG.standard_normal(y.shape).astype(arrays[0].dtype) if dy is None else dy
    y.backward(bpnn.from_numpy(dy))
    return y.detach().numpy(), *(None if t is None else t.grad.numpy() for t in tensors), dy


def compare(got, expected, dy):
    for one, e, what in zip(got, expected, ("y", "dx", "dw", "db"), strict=True):
        if one is None:
            continue
        if what == "db" and one.dtype == np.float32:              # a sum around zero: as a share of what is summed
            np.testing.assert_allclose(one, e, atol=2e-6 * dy.size / len(one), rtol=2e-5)
        else:
            assert_near(one, e, what)


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
def test_transposed(case, dtype, bias):
    arrays = draw(case, dtype, bias)
    *got, dy = run(TRANSPOSED[len(case[3])], arrays, **case[-1])
    compare(got, transposed_reference(*arrays, dy, **case[-1]), dy)


@pytest.mark.parametrize("width", [1, 7, 8, 10, 16, 31, 33])
@pytest.mark.parametrize("dtype", FLOATS)
def test_sizes(width, dtype):
    for i, outputs in enumerate((1, 3, 6, 13, 16, 32, 33, 64)):
        keywords = {"stride": 1 + i % 3, "padding": i % 2, "output_padding": i % 3 // 2}
        arrays = draw(((1, 2, 20)[i % 3], (1, 5, 16)[(i + width) % 3], outputs, (3 + i % 4, width), (3, 3), keywords), dtype)
        *got, dy = run(conv.conv_transpose2d, arrays, **keywords)
        compare(got, transposed_reference(*arrays, dy, **keywords), dy)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_unbatched(axes):
    arrays = draw((1, 4, 6, (5, 6, 7)[:axes], (3, 2, 3)[:axes], {}), np.float64)
    y, dx, dw, db, dy = run(TRANSPOSED[axes], (arrays[0][0], *arrays[1:]), stride=2)
    expected = transposed_reference(*arrays, dy[None], stride=2)
    compare((y[None], dx[None], dw, db), expected, dy)


def test_empty_batch():
    y, dx, dw, db, _ = run(conv.conv_transpose2d, draw((0, 4, 6, (8, 8), (3, 3), {})), stride=2)
    assert y.shape == (0, 6, 17, 17) and dx.shape == (0, 4, 8, 8)
    assert not dw.any() and not db.any()


def test_strided_arguments():
    x, w = RNG.standard_normal((12, 20, 3, 8)), RNG.standard_normal((3, 3, 6, 8))
    view, weight = x.transpose(2, 3, 0, 1)[..., ::2], w.transpose(3, 2, 1, 0)[:, ::-1]
    tensors = [bpnn.tensor(view, requires_grad=True), bpnn.tensor(weight, requires_grad=True)]
    y = conv.conv_transpose2d(*tensors, stride=2)
    dy = RNG.standard_normal(y.shape[::-1]).transpose()
    y.backward(bpnn.from_numpy(dy))
    compare((y.detach().numpy(), tensors[0].grad.numpy(), tensors[1].grad.numpy(), None),
            transposed_reference(view, weight, None, dy, stride=2), dy)


@pytest.mark.parametrize("keywords", [
    {"padding": 1}, {"stride": 2, "padding": (1, 2), "dilation": (1, 2)}, {"stride": 3, "groups": 2},
])
def test_is_the_gradient_of_convolution(keywords):
    """<conv(x), z> = <x, conv_transpose(z)>."""
    x, w = RNG.standard_normal((2, 4, 10, 13)), RNG.standard_normal((6, 4 // keywords.get("groups", 1), 4, 3))
    y = conv.conv2d(bpnn.from_numpy(x), bpnn.from_numpy(w), **keywords).numpy()
    z = RNG.standard_normal(y.shape)
    smallest = conv.conv_transpose2d(bpnn.from_numpy(z), bpnn.from_numpy(w), **keywords).shape
    more = tuple(a - b for a, b in zip(x.shape[2:], smallest[2:], strict=True))
    back = conv.conv_transpose2d(bpnn.from_numpy(z), bpnn.from_numpy(w), output_padding=more, **keywords).numpy()
    np.testing.assert_allclose((y * z).sum(), (x * back).sum(), rtol=1e-10)
    _, dx, _, _ = conv_reference(x, w, None, z, **keywords)
    assert_near(back, dx)


@pytest.mark.parametrize("case", [
    (2, 2, 3, (4,), (3,), {"stride": 2, "output_padding": 1}), (1, 2, 2, (3, 4), (3, 2), {"padding": 1, "dilation": 2}),
    (2, 4, 4, (3, 2), (3, 3), {"stride": 2, "padding": 1, "groups": 4}), (1, 2, 2, (2, 2, 3), (2, 2, 2), {"stride": 2}),
], ids=ids)
def test_gradcheck(case):
    tensors = [bpnn.from_numpy(a).requires_grad_() for a in draw(case, np.float64)]
    assert gradcheck(lambda *t: TRANSPOSED[len(case[3])](*t, **case[-1]), tensors)


@pytest.mark.parametrize("case", [
    (20, 32, 16, (16, 16), (4, 4), {"stride": 2, "padding": 1}), (7, 300, 256, (4, 4), (3, 3), {"padding": 1}),
    (3, 48, 48, (30, 30), (3, 3), {"padding": 1}), (5, 24, 24, (30, 30), (3, 3), {"groups": 24, "stride": 2}),
], ids=ids)
@pytest.mark.parametrize("dtype", FLOATS)
def test_threads(case, dtype):
    arrays, results, dy = draw(case, dtype), [], None
    for threads in (1, 2, 3):
        set_num_threads(threads)
        *got, dy = run(conv.conv_transpose2d, arrays, dy, **case[-1])
        results.append([one.tobytes() for one in got])
    assert results[0] == results[1] == results[2]


def test_frozen():
    arrays = draw((2, 4, 6, (5, 6), (3, 3), {}))
    *_, dx, dw, db, dy = run(conv.conv_transpose2d, arrays, stride=2)
    for i in range(8):
        on = bool(i & 1), bool(i & 2), bool(i & 4)
        tensors = [bpnn.from_numpy(a).requires_grad_(want) for a, want in zip(arrays, on, strict=True)]
        y = conv.conv_transpose2d(*tensors, stride=2)
        assert y.requires_grad == (i > 0)
        if i:
            y.backward(bpnn.from_numpy(dy))
        for t, want, expected in zip(tensors, on, (dx, dw, db), strict=True):
            assert (t.grad is not None) == want
            if want:
                np.testing.assert_array_equal(t.grad.numpy(), expected)


@pytest.mark.parametrize(("x", "w", "keywords", "kind", "name"), [
    ((2, 3, 8, 8), (4, 2, 3, 3), {}, RuntimeError, "input"), ((2, 4, 8, 8), (4, 3, 3), {}, RuntimeError, "weight"),
    ((2, 4, 8, 8), (4, 2, 3, 3), {"groups": 3}, RuntimeError, "weight"),
    ((2, 4, 8, 8), (4, 2, 3, 3), {"stride": 0}, ValueError, "stride"),
    ((2, 4, 8, 8), (4, 2, 3, 3), {"padding": "same"}, TypeError, "padding"),
    ((2, 4, 8, 8), (4, 2, 3, 3), {"padding": -1}, ValueError, "padding"),
    ((2, 4, 1, 1), (4, 2, 3, 3), {"padding": 2}, RuntimeError, "input"),
    ((2, 4, 0, 3), (4, 2, 3, 3), {}, RuntimeError, "input"),
    ((2, 4, 8, 8), (4, 2, 3, 3), {"stride": 2, "output_padding": 2}, RuntimeError, "output_padding"),
    ((2, 4, 8, 8), (4, 2, 3, 3), {"output_padding": -1}, ValueError, "output_padding"),
    ((2, 4, 8, 8), (4, 2, 3, 3), {"bias": bpnn.zeros(4)}, RuntimeError, "bias"),
])
def test_errors(x, w, keywords, kind, name):
    with pytest.raises(kind, match=rf"^{name}: .*expected"):
        conv.conv_transpose2d(bpnn.zeros(*x), bpnn.zeros(*w), **keywords)


def geometry(rng):
    """A random one: whether it is transposed, the shapes of x and w, and keywords; None where it gives no output."""
    axes, transposed = rng.choice([1, 2, 2, 2, 3]), rng.random() < 0.4
    groups = rng.choice([1, 1, 1, 2, 3])
    channels, outputs = rng.choice([1, 2, 3, 8, 16, 17, 32, 48]), rng.choice([1, 3, 6, 13, 16, 31, 32, 33, 48])
    if rng.random() < 0.2:
        groups, channels, outputs = rng.choice([4, 9]), 1, 1
    size = [min(rng.choice([1, 2, 4, 7, 8, 10, 14, 16, 28, 32, 33]), {1: 40, 2: 34, 3: 9}[axes]) for _ in range(axes)]
    kernel, stride = [rng.choice([1, 2, 3, 3, 5]) for _ in size], [rng.choice([1, 1, 1, 2, 3]) for _ in size]
    padding, dilation = [rng.choice([0, 0, 1, 2, 3]) for _ in size], [rng.choice([1, 1, 1, 2]) for _ in size]
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    images = rng.choice([0, 1, 2, 3, 9, 20])
    if transposed:
        keywords["output_padding"] = [rng.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)]
        lengths = [(n - 1) * s - 2 * p + d * (k - 1) + m + 1
                   for n, s, p, d, k, m in zip(size, stride, padding, dilation, kernel, keywords["output_padding"], strict=True)]
        shape = (groups * channels, outputs, *kernel)
    else:
        lengths = [n + 2 * p - d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)]
        shape = (groups * outputs, channels, *kernel)
    return (transposed, (images, groups * channels, *size), shape, keywords) if min(lengths) > 0 else None


@pytest.mark.rivals
@pytest.mark.parametrize("seed", range(60))
def test_against_torch(seed):
    torch = pytest.importorskip("torch")
    rng = random.Random(seed)
    case = None
    while case is None:
        case = geometry(rng)
    transposed, size, shape, keywords = case
    dtype = FLOATS[seed % 2]
    f = (TRANSPOSED if transposed else FUNCTIONS)[len(shape) - 2]
    x, w = RNG.standard_normal(size).astype(dtype), RNG.standard_normal(shape).astype(dtype)
    b = RNG.standard_normal(keywords["groups"] * shape[1] if transposed else shape[0]).astype(dtype) if rng.random() < 0.7 else None
    *got, dy = run(f, (x, w, b), **keywords)
    theirs = [None if a is None else torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w, b)]
    y = getattr(torch.nn.functional, f.__name__)(*theirs, **keywords)
    y.backward(torch.from_numpy(dy.astype(np.float64)))
    compare(got, (y.detach().numpy(), *(None if t is None else t.grad.numpy() for t in theirs)), dy)
