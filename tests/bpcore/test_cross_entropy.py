"""cross_entropy and nll_loss against their formulas in float64."""
import itertools

import numpy as np
import pytest
from scipy import special

import bpnn
from bpcore import cross_entropy as C
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
SHAPES = [(1, 1), (5,), (33, 3), (900, 10), (7, 31), (7, 32), (7, 33), (2, 1030), (2, 5, 3), (2, 40, 3, 4), (0, 4)]
REDUCE = {
    "none": lambda losses, mass: losses, "sum": lambda losses, mass: losses.sum(), "mean": lambda losses, mass: losses.sum() / mass,
}


def rows(a):
    """(N, C, d1, …) or (C) as (R, C)."""
    return a[None] if a.ndim == 1 else np.moveaxis(a, 1, -1).reshape(-1, a.shape[1])


def unrows(r, shape):
    return r.reshape(shape) if len(shape) == 1 else np.moveaxis(r.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def reference(x, target, w, smoothing, ignore, reduction, dy, log=special.log_softmax):
    """The loss and the gradients of x and of probabilities, in float64. `log`: from x to log-probabilities."""
    shape, classes = x.shape, target.ndim != x.ndim
    r = rows(x.astype(np.float64))
    n_classes = r.shape[1]
    w = np.ones(n_classes) if w is None else w.astype(np.float64)
    keep = np.ones(len(r))
    if classes:
        t = target.ravel()
        keep = (t != ignore).astype(float)
        q = np.eye(n_classes)[np.where(t == ignore, 0, t)]
    else:
        q = rows(target.astype(np.float64))
    mass = (keep * (q @ w)).sum() if classes else float(len(r))
    q = ((1 - smoothing) * q + smoothing / n_classes) * w * keep[:, None]
    logp = log(r, 1) if r.size else r
    losses = -(q * logp).sum(1)
    out_shape = () if len(shape) == 1 else (shape[0], *shape[2:])
    with np.errstate(all="ignore"):
        value = REDUCE[reduction](losses.reshape(out_shape), mass)
        scale = np.broadcast_to(dy, out_shape).reshape(-1, 1) / (mass if reduction == "mean" else 1)
    dx = scale * (np.exp(logp) * q.sum(1, keepdims=True) - q) if log is special.log_softmax else -scale * q
    dq = -scale * (1 - smoothing) * w * logp
    return value, unrows(dx, shape), unrows(dq, shape)


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-13}


def data(shape, dtype=np.float64):
    """Logits, classes of which some are ignored, probabilities, weights."""
    n_classes = shape[0] if len(shape) == 1 else shape[1]
    x = (RNG.normal(size=shape) * 3).astype(dtype)
    t = np.asarray(RNG.integers(0, n_classes, () if len(shape) == 1 else (shape[0], *shape[2:])))
    if t.size > 2:
        t.flat[::3] = -100
    p = unrows(special.softmax(RNG.normal(size=rows(x).shape), 1), shape) if x.size else x
    return x, t, p.astype(dtype), RNG.uniform(0.5, 2, n_classes).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCE)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_classes(dtype, shape, reduction, smoothing):
    x, t, _, w = data(shape, dtype)
    for weight in (None, w):
        a = bpnn.tensor(x, requires_grad=True)
        options = {"weight": None if weight is None else bpnn.tensor(weight), "reduction": reduction}
        y = C.cross_entropy(a, bpnn.tensor(t), label_smoothing=smoothing, **options)
        assert y.dtype == dtype and y.shape == (t.shape if reduction == "none" else ())
        for dy in (np.ones(y.shape, dtype), np.asarray(RNG.normal(size=y.shape)).astype(dtype)):
            a.grad = None
            C.cross_entropy(a, bpnn.tensor(t), label_smoothing=smoothing, **options).backward(bpnn.from_numpy(dy))
            value, dx, _ = reference(x, t, weight, smoothing, -100, reduction, dy)
            np.testing.assert_allclose(y.detach().numpy(), value, **tolerance(dtype))
            np.testing.assert_allclose(a.grad.numpy(), dx, **tolerance(dtype))
        with bpnn.no_grad():
            plain = C.cross_entropy(a, bpnn.tensor(t), label_smoothing=smoothing, **options)
        np.testing.assert_array_equal(plain.numpy(), y.detach().numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCE)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("wants", [(True, True), (True, False), (False, True)])
def test_probabilities(dtype, shape, reduction, smoothing, wants):
    x, _, p, w = data(shape, dtype)
    for weight in (None, w):
        a, b = (bpnn.tensor(v, requires_grad=g) for v, g in zip((x, p), wants, strict=True))
        y = C.cross_entropy(
            a, b, None if weight is None else bpnn.tensor(weight), reduction=reduction, label_smoothing=smoothing)
        dy = np.asarray(RNG.normal(size=y.shape)).astype(dtype)
        y.backward(bpnn.from_numpy(dy))
        value, dx, dp = reference(x, p, weight, smoothing, None, reduction, dy)
        np.testing.assert_allclose(y.detach().numpy(), value, **tolerance(dtype))
        for tensor, expected, wanted in ((a, dx, wants[0]), (b, dp, wants[1])):
            if wanted:
                np.testing.assert_allclose(tensor.grad.numpy(), expected, **tolerance(dtype))
            else:
                assert tensor.grad is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCE)
def test_nll_loss(dtype, shape, reduction):
    x, t, _, w = data(shape, dtype)
    for weight in (None, w):
        a = bpnn.tensor(x, requires_grad=True)
        y = C.nll_loss(a, bpnn.tensor(t), None if weight is None else bpnn.tensor(weight), reduction=reduction)
        dy = np.asarray(RNG.normal(size=y.shape)).astype(dtype)
        y.backward(bpnn.from_numpy(dy))
        value, dx, _ = reference(x, t, weight, 0, -100, reduction, dy, log=lambda r, axis: r)
        np.testing.assert_allclose(y.detach().numpy(), value, **tolerance(dtype))
        np.testing.assert_allclose(a.grad.numpy(), dx, **tolerance(dtype))


@pytest.mark.parametrize("reduction", REDUCE)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradcheck(reduction, smoothing):
    x, t, p, w = (bpnn.tensor(a) for a in data((3, 4, 2)))
    options = {"weight": w, "reduction": reduction, "label_smoothing": smoothing}
    x.requires_grad_()
    bpnn.autograd.gradcheck(lambda x: C.cross_entropy(x, t, **options), x)
    p.requires_grad_()
    bpnn.autograd.gradcheck(lambda x, p: C.cross_entropy(x, p, **options), (x, p))
    bpnn.autograd.gradcheck(lambda x: C.nll_loss(x, t, weight=w, reduction=reduction), x)


def test_fused_equals_composed():
    x, t, *_ = data((40, 12))
    fused, composed = bpnn.tensor(x, requires_grad=True), bpnn.tensor(x, requires_grad=True)
    C.cross_entropy(fused, bpnn.tensor(t)).backward()
    C.nll_loss(bpnn.nn.functional.log_softmax(composed, 1), bpnn.tensor(t)).backward()
    np.testing.assert_allclose(fused.grad.numpy(), composed.grad.numpy(), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3001, 10), (301, 333), (3, 33, 501)])
def test_one_thread_and_two_give_the_same_bits(dtype, shape):
    x, t, p, _ = data(shape, dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        result = []
        for target in (t, p):
            a = bpnn.tensor(x, requires_grad=True)
            y = C.cross_entropy(a, bpnn.tensor(target))
            y.backward()
            result += [y.detach().numpy(), a.grad.numpy()]
        results.append(result)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_layouts_and_target_types():
    x, t, *_ = data((6, 5))
    t[t == -100] = 1
    expected = C.cross_entropy(bpnn.tensor(x), bpnn.tensor(t), reduction="none").numpy()
    for dtype in (np.int8, np.uint8, np.int16, np.int32, np.uint64):
        got = C.cross_entropy(bpnn.tensor(np.asfortranarray(x)), bpnn.from_numpy(t.astype(dtype)), reduction="none")
        np.testing.assert_array_equal(got.numpy(), expected)
    strided = np.zeros((12, 10))
    strided[::2, ::2] = x
    got = C.cross_entropy(bpnn.from_numpy(strided[::2, ::2]), bpnn.from_numpy(np.repeat(t, 3)[::3]), reduction="none")
    np.testing.assert_array_equal(got.numpy(), expected)


def test_backward_twice_and_scaled():
    x, t, *_ = data((6, 5))
    a = bpnn.tensor(x, requires_grad=True)
    loss = C.cross_entropy(a, bpnn.tensor(t))
    loss.backward(retain_graph=True)
    once = a.grad.numpy().copy()
    a.grad.mul_(100)                      # what was handed out is the caller's: the tape must not see this
    a.grad = None
    loss.backward(retain_graph=True)
    np.testing.assert_array_equal(a.grad.numpy(), once)
    loss.backward()
    np.testing.assert_allclose(a.grad.numpy(), 2 * once)
    a.grad = None
    (C.cross_entropy(a, bpnn.tensor(t)) / 4).backward()
    np.testing.assert_allclose(a.grad.numpy(), once / 4, rtol=1e-12)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_ignored_everywhere():
    a = bpnn.tensor(np.ones((3, 4)), requires_grad=True)
    y = C.cross_entropy(a, bpnn.tensor([7, 7, 7]), ignore_index=7)
    y.backward()
    assert np.isnan(y.item()) and (a.grad.numpy() == 0).all()
    assert C.cross_entropy(a, bpnn.tensor([7, 7, 7]), ignore_index=7, reduction="sum").item() == 0


@pytest.mark.parametrize("cols", [4, 40])
def test_infinities(cols):
    x = RNG.normal(size=(5, cols))
    x[0, 1], x[1], x[2, 0], x[3, 0] = -np.inf, -np.inf, np.inf, np.nan
    y = C.cross_entropy(bpnn.tensor(x), bpnn.tensor([1, 0, 0, 1, 0]), reduction="none").numpy()
    assert y[0] == np.inf and np.isnan(y[1:4]).all() and np.isfinite(y[4])
    assert np.isfinite(C.cross_entropy(bpnn.tensor(np.full((1, cols), 3e38, np.float32)), bpnn.tensor([1])).item())


@pytest.mark.parametrize("f", [C.cross_entropy, C.nll_loss])
def test_arguments(f):
    x = bpnn.tensor(np.zeros((2, 3)))
    with pytest.raises(IndexError, match=r"target: expected classes in \[0, 2\] or ignore_index = -100, got 3 at position \[1\]"):
        f(x, bpnn.tensor([0, 3]))
    with pytest.raises(IndexError, match=r"got -1 at position \[1, 0\]"):
        f(bpnn.tensor(np.zeros((2, 3, 2))), bpnn.tensor([[0, 1], [-1, 5]]))
    with pytest.raises(IndexError, match="got 9"):
        f(bpnn.tensor(np.zeros(3)), bpnn.tensor(9))
    with pytest.raises(ValueError, match=r"target: expected shape \(2,\) for input \(2, 3\), got \(3,\)"):
        f(x, bpnn.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match="target: expected classes"):
        f(x, bpnn.tensor([0.0, 1.0]))
    with pytest.raises(TypeError, match="target: expected classes"):
        f(x, bpnn.tensor([True, False]))
    with pytest.raises(RuntimeError, match="weight: expected one number for each of 3 classes, got shape"):
        f(x, bpnn.tensor([0, 1]), bpnn.tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="weight: no gradient"):
        f(x, bpnn.tensor([0, 1]), bpnn.tensor([1.0, 2.0, 3.0], requires_grad=True))
    with pytest.raises(TypeError, match="input: expected a floating-point tensor, got int64"):
        f(bpnn.tensor([[1, 2]]), bpnn.tensor([0]))
    with pytest.raises(RuntimeError, match="without axes"):
        f(bpnn.tensor(1.0), bpnn.tensor(0))
    with pytest.raises(ValueError, match="reduction"):
        f(x, bpnn.tensor([0, 1]), reduction="all")
    with pytest.warns(UserWarning, match="pass reduction='sum'"):
        f(x, bpnn.tensor([0, 1]), size_average=False)


def test_arguments_of_cross_entropy():
    x = bpnn.tensor(np.zeros((2, 3)))
    for smoothing in (-0.1, 1.1, np.nan):
        with pytest.raises(RuntimeError, match="label_smoothing"):
            C.cross_entropy(x, bpnn.tensor([0, 1]), label_smoothing=smoothing)
    with pytest.raises(TypeError, match="target: of the input's shape and so probabilities"):
        C.cross_entropy(x, bpnn.tensor(np.zeros((2, 3), int)))
    with pytest.raises(RuntimeError, match="ignore_index"):
        C.cross_entropy(x, x, ignore_index=0)
    assert C.cross_entropy(bpnn.tensor(np.zeros((2, 3), np.float16)), bpnn.tensor([0, 1])).dtype == np.float16


@pytest.mark.rivals
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("reduction", "smoothing"), list(itertools.product(REDUCE, (0.0, 0.2))))
def test_torch_agrees(shape, reduction, smoothing):
    torch = pytest.importorskip("torch")
    x, t, p, w = data(shape)
    for target in (t, p):
        ours, theirs = bpnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        options = {"reduction": reduction, "label_smoothing": smoothing}
        y = C.cross_entropy(ours, bpnn.tensor(target), bpnn.tensor(w), **options)
        z = torch.nn.functional.cross_entropy(theirs, torch.tensor(target), torch.tensor(w), **options)
        y.sum().backward()
        z.sum().backward()
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-11)
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-10, atol=1e-13)
