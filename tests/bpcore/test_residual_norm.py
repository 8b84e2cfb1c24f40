"""layer_norm and rms_norm of a sum with a residual: two outputs of one node, against formulas in float64 and the composed form."""
import bpnn
import numpy as np
import pytest

from bpcore.layer_norm import layer_norm, rms_norm
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
EPS = 1e-5
SHAPES = [((3, 1), 1), ((7, 31), 31), ((3, 5, 32), 32), ((131, 33), 33), ((5, 4, 3, 6), (3, 6)), ((2, 5001), 5001),
          ((4200, 17), 17)]
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
KINDS = pytest.mark.parametrize("center", [True, False], ids=["layer", "rms"])
USED = pytest.mark.parametrize("used", ["y", "s", "ys"])


def arrays(shape, normalized, dtype):
    """x, r, w, b, dy, ds"""
    shapes = (shape, shape, normalized, normalized, shape, shape)
    return tuple((RNG.normal(size=size) + (i == 0)).astype(dtype) for i, size in enumerate(shapes))


def reference(x, r, w, b, dy, ds, normalized, center):
    """y, s, the gradient of x and of r, dw, db in float64; dy or ds None: that output is not used."""
    s = x.astype(np.float64) + r
    n = len(normalized) if isinstance(normalized, tuple) else 1
    axes, rest = tuple(range(-n, 0)), tuple(range(x.ndim - n))
    mean = s.mean(axes, keepdims=True) if center else 0
    rstd = 1 / np.sqrt(((s - mean) ** 2).mean(axes, keepdims=True) + EPS)
    h = (s - mean) * rstd
    y = h * w + (b if center else 0)
    if dy is None:
        return y, s, ds, None, None
    dy = dy.astype(np.float64)
    g = dy * w
    dx = rstd * (g - h * (g * h).mean(axes, keepdims=True) - (g.mean(axes, keepdims=True) if center else 0))
    return y, s, dx + (0 if ds is None else ds), (dy * h).sum(rest), dy.sum(rest)


def run(center, x, r, normalized, w, b):
    return layer_norm(x, normalized, w, b, EPS, residual=r) if center else rms_norm(x, normalized, w, EPS, residual=r)


def back(y, s, dy, ds):
    """Gradients of those outputs that have one."""
    pairs = [(t, bpnn.from_numpy(d)) for t, d in ((y, dy), (s, ds)) if d is not None]
    bpnn.autograd.backward([t for t, _ in pairs], [d for _, d in pairs])


def close(ours, expected, dtype):
    scale = max(1, np.abs(expected).max(initial=0))
    tolerance = 3e-5 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(ours / scale, expected / scale, rtol=tolerance, atol=tolerance)


@BOTH
@KINDS
@USED
@pytest.mark.parametrize(("shape", "normalized"), SHAPES)
def test_forward_and_gradients(shape, normalized, used, center, dtype):
    x, r, w, b, dy, ds = arrays(shape, normalized, dtype)
    dy, ds = dy if "y" in used else None, ds if "s" in used else None
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, r, w, b)]
    y, s = run(center, *leaves[:2], normalized, *leaves[2:])
    back(y, s, dy, ds)
    expected = reference(x, r, w, b, dy, ds, normalized, center)
    np.testing.assert_array_equal(s.detach().numpy(), x + r)
    assert y.shape == s.shape == shape and y.dtype == s.dtype == dtype
    close(y.detach().numpy(), expected[0], dtype)
    close(leaves[0].grad.numpy(), expected[2], dtype)
    np.testing.assert_array_equal(leaves[0].grad.numpy(), leaves[1].grad.numpy())
    assert not np.shares_memory(leaves[0].grad.numpy(), leaves[1].grad.numpy())
    for t, theirs in zip(leaves[2:3 + center], expected[3:], strict=False):
        if theirs is None:
            assert t.grad is None
        else:
            close(t.grad.numpy(), theirs, dtype)


@KINDS
@pytest.mark.parametrize("affine", [(False, False), (True, False), (False, True)])
def test_without_weight_or_bias(affine, center):
    x, r, w, b, dy, ds = arrays((9, 33), 33, np.float32)
    w, b = w if affine[0] else None, b if affine[1] else None
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, r)]
    y, s = run(center, *leaves, 33, w, b)
    back(y, s, dy, ds)
    expected = reference(x, r, 1 if w is None else w, 0 if b is None else b, dy, ds, 33, center)
    close(y.detach().numpy(), expected[0], np.float32)
    close(leaves[0].grad.numpy(), expected[2], np.float32)


@KINDS
@USED
@pytest.mark.parametrize("needed", range(1, 16))
def test_any_subset_of_gradients(needed, used, center):
    x, r, w, b, dy, ds = arrays((9, 5), 5, np.float64)
    dy, ds = dy if "y" in used else None, ds if "s" in used else None
    leaves = [bpnn.tensor(a, requires_grad=bool(needed >> i & 1)) for i, a in enumerate((x, r, w, b))]
    y, s = run(center, *leaves[:2], 5, *leaves[2:])
    if not y.requires_grad:
        assert needed == 8 and not center and not s.requires_grad
        return
    back(y, s, dy, ds)
    _, _, dx, dw, db = reference(x, r, w, b, dy, ds, 5, center)
    for t, expected in zip(leaves[:3 + center], (dx, dx, dw, db), strict=False):
        assert (t.grad is not None) == (t.requires_grad and expected is not None)
        if t.grad is not None:
            close(t.grad.numpy(), expected, np.float64)


@KINDS
def test_gradcheck(center):
    leaves = [bpnn.tensor(a, requires_grad=True) for a in arrays((3, 2, 5), (2, 5), np.float64)[:3 + center]]
    bpnn.autograd.gradcheck(lambda x, r, w, b=None: run(center, x, r, (2, 5), w, b), leaves)


@KINDS
def test_the_residual_may_be_the_input(center):
    x, _, w, b, dy, ds = arrays((4, 6), 6, np.float64)
    t = bpnn.tensor(x, requires_grad=True)
    y, s = run(center, t, t, 6, w, b)
    back(y, s, dy, ds)
    expected = reference(x, x, w, b, dy, ds, 6, center)
    close(y.detach().numpy(), expected[0], np.float64)
    close(t.grad.numpy(), 2 * expected[2], np.float64)


@BOTH
@KINDS
def test_layouts(center, dtype):
    x, r, w, b, dy, ds = arrays((6, 8), 8, dtype)
    for view in (np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x[::-1], np.broadcast_to(x[0], x.shape)):
        results = []
        for one, two in ((view, np.asfortranarray(r)), (view.copy(), r)):
            leaves = [bpnn.from_numpy(a).requires_grad_() for a in (one, two, w, b)]
            y, s = run(center, *leaves[:2], 8, *leaves[2:])
            back(y, s, np.asfortranarray(dy), np.repeat(ds, 2, 1)[:, ::2])
            results.append([y.detach().numpy(), s.detach().numpy(), *(t.grad.numpy() for t in leaves[:3 + center])])
        for ours, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, expected)


@BOTH
@KINDS
@pytest.mark.parametrize(("rows", "cols"), [(1024, 256), (5001, 33), (3, 100_001)])
def test_one_thread_and_two_give_the_same_bits(rows, cols, center, dtype):
    x, r, w, b, dy, ds = arrays((rows, cols), cols, dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, r, w, b)]
        y, s = run(center, *leaves[:2], cols, *leaves[2:])
        back(y, s, dy, ds)
        results.append([y.detach().numpy(), s.detach().numpy(), *(t.grad.numpy() for t in leaves[:3 + center])])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@BOTH
@KINDS
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (2, 0, 3)])
def test_empty(shape, center, dtype):
    leaves = [bpnn.zeros(*size, dtype=dtype, requires_grad=True) for size in (shape, shape, shape[-1:], shape[-1:])]
    y, s = run(center, *leaves[:2], shape[-1], *leaves[2:])
    (y.sum() + s.sum()).backward()
    assert y.shape == s.shape == leaves[0].grad.shape == leaves[1].grad.shape == shape
    assert leaves[2].grad.tolist() == [0] * shape[-1]


def blocks(x, parameters, fused):
    """Three layers of a residual stream: x = x + tanh(norm(x) A)."""
    update = bpnn.zeros(*x.shape, dtype=x.dtype)
    for matrix, w in parameters:
        if fused:
            y, x = rms_norm(update, w.shape, w, EPS, residual=x)
        else:
            x = x + update
            y = rms_norm(x, w.shape, w, EPS)
        update = bpnn.tanh(y @ matrix)
    return x + update


def test_a_residual_stream_and_its_hooks():
    """Gradients accumulate over two backwards of a retained graph, hooks see each gradient once and may replace it."""
    start = RNG.normal(size=(5, 8))
    weights = [(RNG.normal(size=(8, 8)) / 3, RNG.normal(size=8)) for _ in range(3)]
    results = []
    for fused in (True, False):
        seen = []
        x = bpnn.tensor(start, requires_grad=True)
        parameters = [tuple(bpnn.tensor(a, requires_grad=True) for a in pair) for pair in weights]
        stream = x * 1
        stream.register_hook(lambda grad, seen=seen: seen.append(grad.numpy().copy()))
        out = blocks(stream, parameters, fused)
        out.register_hook(lambda grad: 2 * grad)
        for _ in range(2):
            out.square().sum().backward(retain_graph=True)
        assert len(seen) == 2
        results.append([out.detach().numpy(), *seen, x.grad.numpy(), *(t.grad.numpy() for pair in parameters for t in pair)])
    for ours, expected in zip(*results, strict=True):
        close(ours, expected, np.float64)


def test_gradients_asked_for_of_both_outputs():
    x, r, w, b, dy, ds = arrays((4, 6), 6, np.float64)
    t = bpnn.tensor(x, requires_grad=True)
    y, s = layer_norm(t * 1, 6, w, b, EPS, residual=r)
    grads = bpnn.autograd.grad([(y * bpnn.tensor(dy)).sum() + (s * bpnn.tensor(ds)).sum()], [y, s, t])
    for ours, expected in zip(grads, (dy, ds, reference(x, r, w, b, dy, ds, 6, True)[2]), strict=True):
        close(ours.numpy(), expected, np.float64)


def test_changes_in_place():
    x = bpnn.randn(4, 3, requires_grad=True)
    y, s = layer_norm(x, 3, residual=bpnn.ones(4, 3))
    with bpnn.no_grad():
        s.add_(1)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        y.sum().backward()
    y, s = layer_norm(x, 3, residual=x)
    y.mul_(2)                                       # only s is saved
    (y.square().sum() + s.sum()).backward()
    twice, total = layer_norm(x, 3, residual=x)
    expected, = bpnn.autograd.grad((2 * twice).square().sum() + total.sum(), x)
    close(x.grad.numpy(), expected.numpy(), np.float32)


@KINDS
def test_half_types(center):
    x, r, w, b, dy, ds = (bpnn.tensor(a).to(np.float16) for a in arrays((4, 30), 30, np.float32))
    y, s = run(center, x.requires_grad_(), r.requires_grad_(), 30, w, b)
    bpnn.autograd.backward([y, s], [dy, ds])
    assert y.dtype == s.dtype == x.grad.dtype == r.grad.dtype == np.float16
    expected = reference(*(t.detach().float().numpy() for t in (x, r, w, b, dy, ds)), 30, center)
    for ours, theirs in zip((y, s, x.grad, r.grad), (*expected[:3], expected[2]), strict=True):
        np.testing.assert_allclose(ours.detach().float().numpy(), theirs, rtol=3e-3, atol=3e-3)


def test_modules():
    x, r = bpnn.randn(4, 3, requires_grad=True), bpnn.randn(4, 3)
    for module in (bpnn.nn.LayerNorm(3), bpnn.nn.RMSNorm(3, eps=1e-6)):
        y, s = module(x, residual=r)
        assert s.tolist() == (x + r).tolist()
        np.testing.assert_array_equal(y.detach().numpy(), module(s.detach()).detach().numpy())


def test_errors():
    x = bpnn.zeros(2, 3)
    with pytest.raises(RuntimeError, match=r"residual: expected the shape of input, \(2, 3\), got \(3,\)"):
        layer_norm(x, 3, residual=bpnn.zeros(3))
    with pytest.raises(RuntimeError, match="residual: expected the dtype of input, float32, got float64"):
        rms_norm(x, 3, residual=bpnn.zeros(2, 3, dtype=np.float64))
    with pytest.raises(RuntimeError, match="residual: expected the dtype of input, float16, got float32"):
        layer_norm(x.to(np.float16), 3, residual=x)
    with pytest.raises(TypeError, match="residual: expected a Tensor, an array or a number, got str"):
        layer_norm(x, 3, residual="x")
