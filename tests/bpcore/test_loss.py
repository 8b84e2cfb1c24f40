"""Elementwise losses against their formulas in float64."""
import warnings

import numpy as np
import pytest
from scipy import special

import bpnn
from bpcore import loss as L
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)


def smooth_l1(x, t, beta=1.0):
    d = np.abs(x - t)
    return np.where(d < beta, d * d / (2 * beta), d - beta / 2)


def huber(x, t, delta=1.0):
    d = np.abs(x - t)
    return np.where(d < delta, d * d / 2, delta * (d - delta / 2))


def bce(x, t):
    return -(t * np.log(x) + (1 - t) * np.log1p(-x))


def bce_logits(x, t):
    return bce(special.expit(x), t)


# Function, keywords, formula, whether the input and the target are probabilities.
CASES = [
    (L.mse_loss, {}, lambda x, t: (x - t) ** 2, False, False),
    (L.l1_loss, {}, lambda x, t: np.abs(x - t), False, False),
    (L.smooth_l1_loss, {}, smooth_l1, False, False),
    (L.smooth_l1_loss, {"beta": 0.5}, lambda x, t: smooth_l1(x, t, 0.5), False, False),
    (L.smooth_l1_loss, {"beta": 0.0}, lambda x, t: np.abs(x - t), False, False),
    (L.huber_loss, {}, huber, False, False),
    (L.huber_loss, {"delta": 0.5}, lambda x, t: huber(x, t, 0.5), False, False),
    (L.binary_cross_entropy, {}, bce, True, True),
    (L.binary_cross_entropy_with_logits, {}, bce_logits, False, True),
    (L.kl_div, {}, lambda x, t: t * (np.log(t) - x), False, True),
    (L.kl_div, {"log_target": True}, lambda x, t: np.exp(t) * (t - x), False, False),
]
REDUCE = {"none": lambda a: a, "sum": np.sum, "mean": np.mean}


def ids(case):
    return case[0].__name__ + "".join(f"-{v}" for v in case[1].values())


def inputs(case, shape, dtype=np.float64):
    """An input and a target, away from kinks."""
    *_, x_unit, t_unit = case
    x, t = (RNG.uniform(0.05, 0.95, shape) if unit else RNG.normal(size=shape) * 1.5 for unit in (x_unit, t_unit))
    d = np.abs(x - t)
    near = (d < 0.02) | (np.abs(d - 0.5) < 0.02) | (np.abs(d - 1) < 0.02)
    return np.where(near, x + (0.04 if not x_unit else 0), x).astype(dtype), np.asarray(t).astype(dtype)


@pytest.fixture(autouse=True)
def no_mean_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*reduction.*'mean'")
        yield


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (31,), (32,), (33,), (5, 700), (), (0,)])
@pytest.mark.parametrize("reduction", REDUCE)
def test_forward_and_gradients(case, dtype, shape, reduction):
    f, keywords, formula, *_ = case
    x, t = inputs(case, shape, dtype)
    a, b = bpnn.tensor(x, requires_grad=True), bpnn.tensor(t, requires_grad=True)
    y = f(a, b, reduction=reduction, **keywords)
    assert y.dtype == dtype and y.shape == (shape if reduction == "none" else ())
    dy = np.asarray(RNG.normal(size=y.shape)).astype(dtype)
    y.backward(bpnn.from_numpy(dy))
    if not x.size:
        assert np.isnan(y.item()) if reduction == "mean" else reduction == "none" or y.item() == 0
        return
    x, t, step = x.astype(np.float64), t.astype(np.float64), 1e-6
    scale = dy / (x.size if reduction == "mean" else 1)
    dx = scale * (formula(x + step, t) - formula(x - step, t)) / (2 * step)
    dt = scale * (formula(x, t + step) - formula(x, t - step)) / (2 * step)
    tolerance = {"rtol": 5e-6, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-13}
    np.testing.assert_allclose(y.detach().numpy(), REDUCE[reduction](formula(x, t)), **tolerance)
    for got, expected in ((a.grad, dx), (b.grad, dt)):
        np.testing.assert_allclose(got.numpy(), expected, rtol=2e-5, atol=2e-5 if dtype == np.float32 else 1e-8)


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("reduction", REDUCE)
def test_gradcheck(case, reduction):
    x, t = (bpnn.tensor(a, requires_grad=True) for a in inputs(case, (3, 4)))
    bpnn.autograd.gradcheck(lambda x, t: case[0](x, t, reduction=reduction, **case[1]), (x, t))


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("reduction", REDUCE)
def test_layouts(case, reduction):
    x, t = inputs(case, (8, 6), np.float32)
    for a, b in [(x.T, t.T), (x[::2, ::3], t[::2, ::3]), (np.asfortranarray(x), t)]:
        got = case[0](bpnn.from_numpy(a), bpnn.from_numpy(b), reduction=reduction, **case[1])
        same = case[0](bpnn.tensor(a.copy()), bpnn.tensor(b.copy()), reduction=reduction, **case[1])
        np.testing.assert_array_equal(got.numpy(), same.numpy())


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", REDUCE)
def test_one_thread_and_two_give_the_same_bits(case, dtype, reduction):
    x, t = inputs(case, (100_003,), dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        a, b = bpnn.tensor(x, requires_grad=True), bpnn.tensor(t, requires_grad=True)
        y = case[0](a, b, reduction=reduction, **case[1])
        y.backward(bpnn.ones_like(y))
        results.append((y.detach().numpy(), a.grad.numpy(), b.grad.numpy()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_large_sums_are_accurate():
    x = RNG.uniform(0, 1, 2_000_003).astype(np.float32)
    expected = np.square(x.astype(np.float64)).mean()
    assert abs(L.mse_loss(bpnn.tensor(x), bpnn.zeros(x.shape)).item() / expected - 1) < 1e-7


@pytest.mark.parametrize("f", [L.mse_loss, L.l1_loss, L.smooth_l1_loss, L.huber_loss])
def test_broadcasting_warns(f):
    x, t = bpnn.tensor(RNG.normal(size=(4, 3)), requires_grad=True), bpnn.tensor(RNG.normal(size=(3,)), requires_grad=True)
    with pytest.warns(UserWarning, match=r"target: expected the shape of input \(4, 3\), got \(3,\)"):
        y = f(x, t)
    y.backward()
    wide = bpnn.tensor(np.broadcast_to(t.detach().numpy(), (4, 3)).copy(), requires_grad=True)
    again = f(x, wide)
    again.backward()
    assert y.item() == again.item()
    np.testing.assert_allclose(t.grad.numpy(), wide.grad.numpy().sum(0), rtol=1e-12)


def test_mixed_types():
    y = L.mse_loss(bpnn.tensor([1.0, 2.0]), bpnn.tensor([1, 4]))
    assert y.dtype == np.float32 and y.item() == 2
    assert L.mse_loss(bpnn.tensor([1.0]), bpnn.tensor([3.0], dtype=bpnn.float64)).dtype == np.float64
    assert L.l1_loss(bpnn.tensor(np.ones(3, np.float16)), bpnn.tensor(np.zeros(3, np.float16))).dtype == np.float16
    with pytest.raises(TypeError, match="input: expected a floating-point tensor, got int64"):
        L.mse_loss(bpnn.tensor([1]), bpnn.tensor([2]))


@pytest.mark.parametrize("reduction", REDUCE)
def test_weights(reduction):
    x, t, w = (RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)), RNG.uniform(0.5, 2, (4, 3)))
    for f, formula in ((L.mse_loss, lambda: (x - t) ** 2), (L.l1_loss, lambda: np.abs(x - t)), (L.huber_loss, lambda: huber(x, t))):
        expected = REDUCE[reduction](formula() * w)
        if reduction == "mean" and f is not L.huber_loss:
            expected = (formula() * w).sum() / w.sum()
        a = bpnn.tensor(x, requires_grad=True)
        got = f(a, bpnn.tensor(t), reduction=reduction, weight=bpnn.tensor(w))
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-12)
        got.sum().backward()
    with pytest.raises(ValueError, match=r"weight: expected the shape of input \(4, 3\), got \(3,\)"):
        L.mse_loss(bpnn.tensor(x), bpnn.tensor(t), weight=bpnn.tensor(w[0]))


@pytest.mark.parametrize("reduction", REDUCE)
def test_bce_weights(reduction):
    x, t, w, p = RNG.normal(size=(4, 3)), RNG.uniform(size=(4, 3)), RNG.uniform(0.5, 2, 3), RNG.uniform(0.5, 2, 3)
    got = L.binary_cross_entropy(bpnn.tensor(special.expit(x)), bpnn.tensor(t), weight=bpnn.tensor(w), reduction=reduction)
    np.testing.assert_allclose(got.numpy(), REDUCE[reduction](bce_logits(x, t) * w), rtol=1e-12)
    s = special.expit(x)
    formula = -(p * t * np.log(s) + (1 - t) * np.log(1 - s))
    for weight in (None, w):
        a, b = bpnn.tensor(x, requires_grad=True), bpnn.tensor(t, requires_grad=True)
        options = {"weight": None if weight is None else bpnn.tensor(weight), "pos_weight": bpnn.tensor(p)}
        got = L.binary_cross_entropy_with_logits(a, b, reduction=reduction, **options)
        expected = REDUCE[reduction](formula * (1 if weight is None else weight))
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-12)
        bpnn.autograd.gradcheck(
            lambda a, b, o=options: L.binary_cross_entropy_with_logits(a, b, reduction=reduction, **o), (a, b))


def test_edges():
    # Logarithms are cut off at -100.
    y = L.binary_cross_entropy(bpnn.tensor([0.0, 1.0, 1.0, 0.0]), bpnn.tensor([0.0, 1.0, 0.0, 1.0]), reduction="none")
    assert y.tolist() == [0, 0, 100, 100]
    # Logits of any size.
    x = bpnn.tensor([1e4, -1e4, 0.0], requires_grad=True)
    y = L.binary_cross_entropy_with_logits(x, bpnn.tensor([0.0, 0.0, 1.0]), reduction="none")
    y.sum().backward()
    np.testing.assert_allclose(y.tolist(), [1e4, 0, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), [1, 0, -0.5])
    # t log t is 0 at t = 0.
    assert L.kl_div(bpnn.tensor([-1.0, -2.0]), bpnn.tensor([0.0, 1.0]), reduction="none").tolist() == [0, 2]


def test_batchmean():
    x, t = RNG.normal(size=(4, 3)), RNG.uniform(0.1, 1, (4, 3))
    got = L.kl_div(bpnn.tensor(x), bpnn.tensor(t), reduction="batchmean")
    np.testing.assert_allclose(got.item(), (t * (np.log(t) - x)).sum() / 4, rtol=1e-12)
    assert L.kl_div(bpnn.tensor(x), bpnn.tensor(t[0]), reduction="none").shape == (4, 3)
    with pytest.warns(UserWarning, match="batchmean"):
        L.kl_div(bpnn.tensor(x), bpnn.tensor(t))


def test_arguments():
    x, t = bpnn.tensor([0.5, 0.5]), bpnn.tensor([0.0, 1.0])
    for f in (L.mse_loss, L.huber_loss, L.binary_cross_entropy, L.kl_div):
        with pytest.raises(ValueError, match="reduction: expected 'mean', 'sum' or 'none', got 'max'"):
            f(x, t, reduction="max")
    for f in (L.binary_cross_entropy, L.binary_cross_entropy_with_logits):
        with pytest.raises(ValueError, match=r"target: expected the shape of input \(2,\), got \(1,\)"):
            f(x, t[:1])
    with pytest.raises(RuntimeError, match=r"input: expected all elements in \[0, 1\]"):
        L.binary_cross_entropy(x * 3, t)
    with pytest.raises(RuntimeError, match=r"target: expected all elements in \[0, 1\]"):
        L.binary_cross_entropy(x, t * 3)
    with pytest.raises(RuntimeError, match=r"input: expected all elements in \[0, 1\]"):
        L.binary_cross_entropy(x * np.nan, t)
    with pytest.raises(RuntimeError, match="beta"):
        L.smooth_l1_loss(x, t, beta=-1.0)
    with pytest.raises(RuntimeError, match="delta"):
        L.huber_loss(x, t, delta=0.0)
    with pytest.raises(TypeError, match="target"):
        L.mse_loss(x, "text")
    with pytest.warns(UserWarning, match="pass reduction='sum'"):
        assert L.mse_loss(x, t, size_average=False).item() == 0.5
    with pytest.warns(UserWarning, match="pass reduction='none'"):
        assert L.mse_loss(x, t, reduce=False).shape == (2,)


@pytest.mark.rivals
@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("reduction", REDUCE)
def test_torch_agrees(case, reduction):
    torch = pytest.importorskip("torch")
    x, t = inputs(case, (7, 9))
    ours = [bpnn.tensor(a, requires_grad=True) for a in (x, t)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, t)]
    y = case[0](*ours, reduction=reduction, **case[1])
    z = getattr(torch.nn.functional, case[0].__name__)(*theirs, reduction=reduction, **case[1])
    y.sum().backward()
    z.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-11, atol=1e-13)
