"""layer_norm and rms_norm against their formulas in float64."""
import bpnn
import numpy as np
import pytest

from bpcore.layer_norm import layer_norm, rms_norm
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
# Input and normalized shape. The last ones: a row longer than a chunk; pieces of several blocks of rows.
SHAPES = [((3, 1), 1), ((7, 31), 31), ((3, 5, 32), 32), ((131, 33), 33), ((5, 4, 3, 6), (3, 6)), ((31,), 31), ((2, 5001), 5001),
          ((4200, 17), 17)]
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
KINDS = pytest.mark.parametrize("center", [True, False], ids=["layer", "rms"])


def arrays(shape, normalized, dtype):
    """x, w, b, dy"""
    x = RNG.normal(size=shape) * 2 + 1
    return tuple(a.astype(dtype) for a in (x, RNG.normal(size=normalized), RNG.normal(size=normalized), RNG.normal(size=shape)))


def reference(x, w, b, dy, normalized, center, eps=1e-5):
    """y, dx, dw, db in float64."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    n = len(normalized) if isinstance(normalized, tuple) else 1
    axes, rest = tuple(range(-n, 0)), tuple(range(x.ndim - n))
    mean = x.mean(axes, keepdims=True) if center else 0
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + eps)
    h = (x - mean) * rstd
    g = dy if w is None else dy * w
    dx = g - h * (g * h).mean(axes, keepdims=True) - (g.mean(axes, keepdims=True) if center else 0)
    return h * (1 if w is None else w) + (0 if b is None else b), dx * rstd, (dy * h).sum(rest), dy.sum(rest)


def run(center, x, normalized, w, b, eps=1e-5):
    return layer_norm(x, normalized, w, b, eps) if center else rms_norm(x, normalized, w, eps)


def close(ours, expected, dtype):
    scale = max(1, np.abs(expected).max(initial=0))
    tolerance = 3e-5 if dtype == np.float32 else 1e-11     # rounding grows by up to 1 / sqrt(eps) = 316 where a row varies little
    np.testing.assert_allclose(ours / scale, expected / scale, rtol=tolerance, atol=tolerance)


@BOTH
@KINDS
@pytest.mark.parametrize("affine", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("shape", "normalized"), SHAPES)
def test_forward_and_gradients(shape, normalized, affine, center, dtype):
    x, w, b, dy = arrays(shape, normalized, dtype)
    w, b = w if affine[0] else None, b if affine[1] and center else None
    leaves = [None if a is None else bpnn.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = run(center, leaves[0], normalized, *leaves[1:])
    y.backward(bpnn.tensor(dy))
    expected = reference(x, w, b, dy, normalized, center)
    assert y.dtype == dtype and y.shape == shape
    close(y.detach().numpy(), expected[0], dtype)
    for t, theirs in zip(leaves, expected[1:], strict=True):
        if t is not None:
            assert t.grad.shape == theirs.shape
            close(t.grad.numpy(), theirs, dtype)


@KINDS
@pytest.mark.parametrize("needed", range(1, 8))
def test_any_subset_of_gradients(needed, center):
    x, w, b, dy = arrays((9, 5), 5, np.float64)
    leaves = [bpnn.tensor(a, requires_grad=bool(needed >> i & 1)) for i, a in enumerate((x, w, b))]
    y = run(center, leaves[0], 5, *leaves[1:])
    if not y.requires_grad:
        assert needed == 4 and not center
        return
    y.backward(bpnn.tensor(dy))
    for t, expected in zip(leaves[:3 if center else 2], reference(x, w, b, dy, 5, center)[1:], strict=False):
        assert (t.grad is not None) == t.requires_grad
        if t.requires_grad:
            close(t.grad.numpy(), expected, np.float64)


@KINDS
def test_gradcheck(center):
    x, w, b, _ = arrays((3, 2, 5), (2, 5), np.float64)
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b)[:2 + center]]
    bpnn.autograd.gradcheck(lambda x, w, b=None: run(center, x, (2, 5), w, b), leaves)


@BOTH
@KINDS
def test_layouts(center, dtype):
    x, w, b, dy = arrays((6, 8), 8, dtype)
    store = np.repeat(np.stack([w, b]), 2, 1)
    for view in (np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x[::-1], np.broadcast_to(x[0], x.shape)):
        results = []
        for array, parameters in ((view, store[:, ::2]), (view.copy(), np.stack([w, b]))):
            leaves = [bpnn.from_numpy(a) for a in (array, *parameters)]
            y = run(center, leaves[0].requires_grad_(), 8, *(t.requires_grad_() for t in leaves[1:]))
            y.backward(bpnn.from_numpy(np.asfortranarray(dy)))
            results.append([y.detach().numpy(), *(t.grad.numpy() for t in leaves[:2 + center])])
        for one, two in zip(*results, strict=True):
            np.testing.assert_array_equal(one, two)


@BOTH
@KINDS
@pytest.mark.parametrize(("rows", "cols"), [(1024, 768), (5001, 33), (3, 100_001)])
def test_one_thread_and_two_give_the_same_bits(rows, cols, center, dtype):
    x, w, b, dy = arrays((rows, cols), cols, dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b)]
        y = run(center, leaves[0], cols, *leaves[1:])
        y.backward(bpnn.tensor(dy))
        results.append([y.detach().numpy(), *(t.grad.numpy() for t in leaves[:2 + center])])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("cols", [64, 768, 5000])
def test_large_mean(cols):
    """A mean of 1e4 and a deviation of 1 in float32."""
    x = (RNG.normal(size=(32, cols)) + 1e4).astype(np.float32)
    dy = RNG.normal(size=x.shape).astype(np.float32)
    t = bpnn.tensor(x, requires_grad=True)
    y = layer_norm(t, cols)
    y.backward(bpnn.tensor(dy))
    expected = reference(x, None, None, dy, cols, True)
    np.testing.assert_allclose(y.detach().numpy(), expected[0], atol=1e-4)
    np.testing.assert_allclose(t.grad.numpy(), expected[1], atol=1e-4)


@BOTH
@KINDS
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0), (2, 0, 3)])
def test_empty(shape, center, dtype):
    leaves = [bpnn.zeros(*s, dtype=dtype, requires_grad=True) for s in (shape, shape[-1:], shape[-1:])]
    y = run(center, leaves[0], shape[-1], *leaves[1:])
    y.backward(bpnn.zeros(*shape, dtype=dtype))
    assert y.shape == shape and leaves[0].grad.shape == shape
    assert leaves[1].grad.tolist() == [0] * shape[-1]


def test_errors():
    x = bpnn.zeros(2, 3)
    with pytest.raises(RuntimeError, match=r"input: expected shape \(\*, 4\), got \(2, 3\)"):
        layer_norm(x, 4)
    with pytest.raises(RuntimeError, match=r"input: expected shape \(\*, 5, 2, 3\), got \(2, 3\)"):
        rms_norm(x, (5, 2, 3))
    with pytest.raises(RuntimeError, match="normalized_shape: expected at least one axis"):
        layer_norm(x, ())
    with pytest.raises(TypeError, match="normalized_shape: expected an integer or integers, got 'three'"):
        layer_norm(x, "three")
    with pytest.raises(RuntimeError, match=r"weight: expected the normalized shape \(3,\), got \(2, 3\)"):
        layer_norm(x, 3, bpnn.zeros(2, 3))
    with pytest.raises(RuntimeError, match="bias: expected the dtype of input, float32, got float64"):
        layer_norm(x, 3, None, bpnn.zeros(3, dtype=np.float64))
    with pytest.raises(TypeError, match="input: expected a floating-point tensor, got int64"):
        rms_norm(bpnn.zeros(3, dtype=np.int64), 3)


def test_saved_values_are_guarded():
    x, w = bpnn.randn(4, 3, requires_grad=True), bpnn.ones(3, requires_grad=True)
    for changed in (x, w):
        y = layer_norm(x, 3, w)
        with bpnn.no_grad():
            changed.add_(1)
        with pytest.raises(RuntimeError, match="modified by an in-place operation"):
            y.sum().backward()


@KINDS
def test_half_types(center):
    x, w, b, dy = (bpnn.tensor(a).to(np.float16) for a in arrays((4, 30), 30, np.float32))
    y = run(center, x.requires_grad_(), 30, w, b)
    y.backward(dy)
    assert y.dtype == x.grad.dtype == np.float16
    wide = [t.detach().float().numpy() for t in (x, w, b, dy)]
    expected = reference(wide[0], wide[1], wide[2] if center else None, wide[3], 30, center)
    np.testing.assert_allclose(y.detach().float().numpy(), expected[0], rtol=3e-3, atol=3e-3)
    np.testing.assert_allclose(x.grad.float().numpy(), expected[1], rtol=3e-3, atol=3e-3)


@KINDS
def test_rows_that_are_not_finite_stay_alone(center):
    x = RNG.normal(size=(4, 40)).astype(np.float32)
    x[1, 3], x[2, 39] = np.nan, np.inf
    y = run(center, bpnn.tensor(x), 40, None, None).numpy()
    assert np.isnan(y[1]).all() and np.isnan(y[2]).any() and np.isfinite(y[[0, 3]]).all()


@pytest.mark.rivals
@BOTH
@KINDS
@pytest.mark.parametrize(("shape", "normalized"), SHAPES)
def test_torch_agrees(shape, normalized, center, dtype):
    torch = pytest.importorskip("torch")
    normalized = normalized if isinstance(normalized, tuple) else (normalized,)
    x, w, b, dy = arrays(shape, normalized, dtype)
    results = []
    for tensor, functions in ((bpnn.tensor, (layer_norm, rms_norm)),
                              (torch.tensor, (torch.nn.functional.layer_norm, torch.nn.functional.rms_norm))):
        leaves = [tensor(a, requires_grad=True) for a in (x, w, b)]
        y = functions[0](leaves[0], normalized, *leaves[1:]) if center else functions[1](leaves[0], normalized, leaves[1])
        y.backward(tensor(dy))
        results.append([y.detach().numpy(), *(t.grad.numpy() for t in leaves[:2 + center])])
    for ours, theirs in zip(*results, strict=True):
        scale = max(1, np.abs(theirs).max())
        tolerance = 2e-4 if dtype == np.float32 else 1e-10      # one column: exact zeros there, rounding times 316 here
        np.testing.assert_allclose(ours / scale, theirs / scale, rtol=tolerance, atol=tolerance)
