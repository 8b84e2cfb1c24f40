"""Arithmetic, functions of one to three tensors, comparison and promotion against NumPy; gradients against finite differences."""
import operator

import numpy as np
import pytest
from scipy import special

import bpnn
from bpcore.threads import set_num_threads
from bpnn.autograd import gradcheck

RNG = np.random.default_rng(0)
SHAPES = [(), (0,), (1,), (31,), (32,), (33,), (3, 33), (2, 0, 3)]
PAIRS = [  # shapes that broadcast, in every pattern that has a kernel of its own and some that have none
    ((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 4), (3, 1)), ((3, 1), (3, 4)), ((3, 4), ()), ((), (3, 4)),
    ((1,), (3, 4)),
    ((2, 3, 4), (3, 1)), ((2, 3, 4), (1, 3, 1)), ((2, 3, 4), (2, 1, 4)), ((2, 1, 4), (3, 1)), ((0, 3), (3,)), ((2, 3), (2, 3)),
    ((1, 1), (3,)), ((3, 1), (1, 4)), ((33, 31), (31,)), ((33, 31), (33, 1)),
]


def values(shape, dtype="float64", low=0.2, high=0.9):
    """Numbers in every function's domain, away from kinks."""
    return np.asarray(RNG.uniform(low, high, shape), dtype)


def layouts(array):
    """The same values: contiguous, transposed, every second of twice as many."""
    yield array
    if array.ndim:
        yield np.ascontiguousarray(array.T).T
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        yield wide[..., ::2]


UNARY = [
    (bpnn.exp, np.exp), (bpnn.exp2, np.exp2), (bpnn.expm1, np.expm1), (bpnn.log, np.log), (bpnn.log2, np.log2),
    (bpnn.log10, np.log10),
    (bpnn.log1p, np.log1p), (bpnn.logit, special.logit), (bpnn.square, np.square), (bpnn.sqrt, np.sqrt),
    (bpnn.rsqrt, lambda x: 1 / np.sqrt(x)), (bpnn.reciprocal, lambda x: 1 / x), (bpnn.sin, np.sin), (bpnn.cos, np.cos),
    (bpnn.tan, np.tan),
    (bpnn.asin, np.arcsin), (bpnn.acos, np.arccos), (bpnn.atan, np.arctan), (bpnn.sinh, np.sinh), (bpnn.cosh, np.cosh),
    (bpnn.asinh, np.arcsinh), (lambda x: bpnn.acosh(x + 1), lambda x: np.arccosh(x + 1)), (bpnn.atanh, np.arctanh),
    (bpnn.erf, special.erf), (bpnn.erfc, special.erfc), (bpnn.erfinv, special.erfinv), (bpnn.abs, np.abs), (bpnn.neg, np.negative),
    (bpnn.sign, np.sign), (bpnn.floor, np.floor), (bpnn.ceil, np.ceil), (bpnn.trunc, np.trunc), (bpnn.round, np.round),
    (lambda x: bpnn.round(x, decimals=1), lambda x: np.round(x, 1)), (bpnn.frac, lambda x: x - np.trunc(x)),
    (bpnn.nan_to_num, np.nan_to_num),
    (bpnn.deg2rad, np.deg2rad), (bpnn.rad2deg, np.rad2deg), (lambda x: x ** 3, lambda x: x ** 3),
    (lambda x: x ** 0, lambda x: x ** 0),
    (lambda x: x ** -1, lambda x: 1 / x), (lambda x: x ** 0.5, np.sqrt), (lambda x: x ** -1.7, lambda x: x ** -1.7),
    (lambda x: 2 ** x, np.exp2),
    (lambda x: 3 - x, lambda x: 3 - x), (lambda x: 3 / x, lambda x: 3 / x), (lambda x: x / 3, lambda x: x / 3),
    (lambda x: x - 3, lambda x: x - 3), (lambda x: -x * 2 + 1, lambda x: 1 - 2 * x),
    (lambda x: bpnn.clamp(x, 0.3, 0.5), lambda x: np.clip(x, 0.3, 0.5)),
    (lambda x: bpnn.clamp(x, max=0.4), lambda x: np.minimum(x, 0.4)),
]
BINARY = [
    (operator.add, np.add), (operator.sub, np.subtract), (operator.mul, np.multiply), (operator.truediv, np.divide),
    (operator.pow, np.power),
    (operator.floordiv, np.floor_divide), (operator.mod, np.remainder), (bpnn.fmod, np.fmod), (bpnn.maximum, np.maximum),
    (bpnn.minimum, np.minimum), (bpnn.fmax, np.fmax), (bpnn.fmin, np.fmin), (bpnn.atan2, np.arctan2), (bpnn.hypot, np.hypot),
    (bpnn.logaddexp, np.logaddexp), (bpnn.logaddexp2, np.logaddexp2), (bpnn.copysign, np.copysign), (bpnn.xlogy, special.xlogy),
    (lambda a, b: bpnn.add(a, b, alpha=2), lambda a, b: a + 2 * b),
    (lambda a, b: bpnn.sub(a, b, alpha=0.5), lambda a, b: a - b / 2),
    (lambda a, b: bpnn.rsub(a, b), lambda a, b: b - a), (lambda a, b: bpnn.where(a > b, a, b), np.maximum),
    (lambda a, b: bpnn.clamp(a, min=b), np.maximum),
    (lambda a, b: bpnn.div(a, b, rounding_mode="trunc"), lambda a, b: np.trunc(a / b)),
    (lambda a, b: bpnn.lerp(a, b, 0.25), lambda a, b: a + 0.25 * (b - a)),
    (lambda a, b: bpnn.addcmul(a, a, b, value=3), lambda a, b: a + 3 * a * b),
    (lambda a, b: bpnn.addcdiv(a, a, b), lambda a, b: a + a / b),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("function", "reference"), UNARY, ids=[str(i) for i in range(len(UNARY))])
def test_functions_of_one_tensor(function, reference, dtype):
    for shape in SHAPES:
        x = values(shape, dtype)
        expected = reference(x.astype(np.float64))
        for layout in layouts(x):
            result = function(bpnn.from_numpy(layout))
            assert result.dtype == dtype and result.shape == shape
            rtol, atol = (3e-5, 1e-6) if dtype == "float32" else (1e-12, 0)
            np.testing.assert_allclose(result.numpy(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("function", "reference"), UNARY, ids=[str(i) for i in range(len(UNARY))])
def test_gradients_of_functions_of_one_tensor(function, reference):
    for array in layouts(values((2, 3), low=0.32, high=0.38)):
        assert gradcheck(function, (bpnn.from_numpy(array).requires_grad_(),))
    x = bpnn.tensor(0.35, dtype=bpnn.float64, requires_grad=True)
    function(x).backward()
    assert x.grad.shape == () and x.grad.dtype == bpnn.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("function", "reference"), BINARY, ids=[str(i) for i in range(len(BINARY))])
def test_functions_of_two_tensors(function, reference, dtype):
    for left, right in PAIRS:
        a, b = values(left, dtype), values(right, dtype)
        expected = np.asarray(reference(a.astype(np.float64), b.astype(np.float64)))
        for x in layouts(a):
            for y in layouts(b):
                result = function(bpnn.from_numpy(x), bpnn.from_numpy(y))
                assert result.dtype == dtype and result.shape == expected.shape
                np.testing.assert_allclose(result.numpy(), expected, rtol=3e-5 if dtype == "float32" else 1e-12,
                                           atol=1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(("function", "reference"), BINARY, ids=[str(i) for i in range(len(BINARY))])
def test_gradients_of_functions_of_two_tensors(function, reference):
    for left, right in [((2, 3), (3,)), ((2, 1), (2, 3)), ((), (2,)), ((2, 2, 3), (2, 1))]:
        a = bpnn.from_numpy(values(left, low=0.72, high=0.88)).requires_grad_()
        b = bpnn.from_numpy(values(right, low=0.3, high=0.42)).requires_grad_()
        assert gradcheck(function, (a, b))
        assert gradcheck(function, (a, b.detach()))
        assert gradcheck(function, (a.detach(), b))


def test_a_wide_gradient_reaches_a_narrow_leaf_once_for_each_element():
    bias = bpnn.zeros(3, requires_grad=True)
    (bpnn.ones(5, 2, 3) + bias).sum().backward()
    np.testing.assert_array_equal(bias.grad.numpy(), [10, 10, 10])
    assert bias.grad.is_contiguous()


def test_gradients_at_kinks_and_poles():
    def slope(function, *points):
        leaves = [bpnn.tensor(p, dtype=bpnn.float64, requires_grad=True) for p in points]
        function(*leaves).backward()
        return [leaf.grad.item() for leaf in leaves]

    assert slope(bpnn.abs, 0.0) == [0]
    assert slope(bpnn.maximum, 2.0, 2.0) == [0.5, 0.5]
    assert slope(bpnn.minimum, 2.0, 2.0) == [0.5, 0.5]
    assert slope(bpnn.fmax, 2.0, np.nan) == [1, 0]
    assert slope(lambda x: x ** 0, 0.0) == [0]
    assert slope(bpnn.pow, 0.0, 0.0) == [0, 0]
    assert slope(bpnn.pow, 0.0, 2.0) == [0, 0]
    assert slope(bpnn.sqrt, 0.0) == [np.inf]
    assert slope(lambda x: bpnn.clamp(x, 0, 1), 1.0) == [1]
    assert slope(lambda x: bpnn.clamp(x, 0, 1), 1.5) == [0]
    assert slope(bpnn.sign, 3.0) == [0]
    assert slope(bpnn.atan2, 0.0, 0.0) == [0, 0]
    assert slope(bpnn.xlogy, 0.0, 0.0) == [0, pytest.approx(np.nan, nan_ok=True)]


def test_infinite_results_are_silent(recwarn):
    x = bpnn.tensor([0.0, -1.0, 1e30], requires_grad=True)
    ((1 / x) + x.log() + x.sqrt() + x * 1e30 * 1e30 + x.exp() + x // 0.0 + x.pow(-0.5)).sum().backward()
    assert not recwarn


# --- types ----------------------------------------------------------------------------------------------------------------

I, F, D, B, U = bpnn.int64, bpnn.float32, bpnn.float64, bpnn.bool, bpnn.uint8


@pytest.mark.parametrize(("a", "b", "expected"), [
    (bpnn.ones(2, dtype=I), bpnn.ones(2), F), (bpnn.ones(2, dtype=D), bpnn.ones(2), D), (bpnn.ones(2), bpnn.ones((), dtype=D), F),
    (bpnn.ones(2, dtype=I), bpnn.ones((), dtype=D), D), (bpnn.ones(2, dtype=B), bpnn.ones(2, dtype=U), U),
    (bpnn.ones(2, dtype=U), 300, U),
    (bpnn.ones(2, dtype=I), 1.5, F), (bpnn.ones(2), 1.5, F), (bpnn.ones(2, dtype=bpnn.float16), 1.5, bpnn.float16),
    (bpnn.ones(2, dtype=B), True, B), (bpnn.ones(2, dtype=B), 2, I),
    (bpnn.ones(2, dtype=bpnn.int8), bpnn.ones(2, dtype=U), bpnn.int16),
    (bpnn.ones(2, dtype=I), bpnn.ones(2, dtype=bpnn.float16), bpnn.float16), (bpnn.ones(2), np.float64(2), F),
    (bpnn.ones(2), np.ones(2), D), (bpnn.ones((), dtype=I), bpnn.ones(2, dtype=bpnn.int8), bpnn.int8),
])
def test_promotion(a, b, expected):
    assert bpnn.result_type(a, b) == expected
    for result in (a + b, b + a, a * b):
        assert result.dtype == expected
    if isinstance(b, bpnn.Tensor):
        assert bpnn.maximum(a, b).dtype == expected


def test_division_of_integers_gives_floats():
    x = bpnn.tensor([7, -7])
    assert (x / 2).dtype == F and (x / bpnn.tensor([2, 2])).tolist() == [3.5, -3.5]
    assert (x // 2).tolist() == [3, -4] and (x % 4).tolist() == [3, 1] and bpnn.fmod(x, 4).tolist() == [3, -3]
    assert bpnn.div(x, 2, rounding_mode="trunc").tolist() == [3, -3] and bpnn.div(x, 2, rounding_mode="floor").dtype == I
    assert x.sin().dtype == F and x.sqrt().dtype == F and x.abs().dtype == I and x.square().dtype == I
    with pytest.raises(RuntimeError, match="zero"):
        x // 0


def test_bools():
    t, f = bpnn.tensor([True, True]), bpnn.tensor([True, False])
    assert (t + f).tolist() == [True, True] and (t * f).tolist() == [True, False]
    assert (t & f).tolist() == [True, False] and (t ^ f).tolist() == [False, True] and (~f).tolist() == [False, True]
    for wrong in (lambda: t - f, lambda: -t, lambda: ~bpnn.ones(2), lambda: bpnn.ones(2) & 1):
        with pytest.raises(RuntimeError):
            wrong()


def test_comparison():
    a = bpnn.tensor([1.0, 2.0, np.nan])
    assert (a == 2).tolist() == [False, True, False] and (a != 2).tolist() == [True, False, True]
    assert (a < 2).tolist() == [True, False, False] and (2 < a).tolist() == [False, False, False]
    assert (a >= bpnn.tensor(1.0)).tolist() == [True, True, False]
    assert (a == None) is False and (a != "x") is True and (bpnn.tensor([3]) == 3.5).tolist() == [False]  # noqa: E711
    assert (a == bpnn.tensor([[1.0], [2.0]])).shape == (2, 3)
    assert bpnn.isnan(a).tolist() == [False, False, True] and bpnn.isfinite(a / 0).tolist() == [False] * 3
    assert not bpnn.equal(a, a) and bpnn.equal(a[:2], a[:2]) and not bpnn.equal(a[:1], a[:2])
    assert bpnn.allclose(a, a + 1e-9, equal_nan=True) and not bpnn.allclose(a, a)
    assert not (a > 1).requires_grad


def test_numpy_operands():
    x, y = bpnn.tensor([1.0, 2.0]), np.array([3.0, 4.0], np.float32)
    for result in (x + y, y + x, np.float32(1) * x, y * x, y / x, y - x, y @ x, x ** np.int64(2), np.float64(2) ** x, y > x):
        assert isinstance(result, bpnn.Tensor)
    np.testing.assert_allclose((y - x).numpy(), [2, 2])
    with pytest.raises(TypeError, match="other"):
        x + [1, 2]
    with pytest.raises(TypeError):
        x + "a"


def test_errors_name_shapes():
    with pytest.raises(RuntimeError, match=r"\(2, 3\), \(4,\).*3 and 4"):
        bpnn.ones(2, 3) + bpnn.ones(4)
    with pytest.raises(RuntimeError, match="alpha"):
        bpnn.add(bpnn.tensor([1]), bpnn.tensor([1]), alpha=1.5)
    with pytest.raises(RuntimeError, match="rounding_mode"):
        bpnn.div(bpnn.ones(1), 2, rounding_mode="up")
    with pytest.raises(RuntimeError, match="min, max"):
        bpnn.clamp(bpnn.ones(1))


def test_two_threads_compute_the_same_bits():
    a, b, row, column = bpnn.randn(301, 1009), bpnn.randn(301, 1009), bpnn.randn(1009), bpnn.randn(301, 1)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        results.append([a + b, a * b, a / 3, a - row, row / a, column * a, a.exp(), a.sum(), a.sum(0), a.sum(1), a[b[:, 0] > 0]])
    for one, two in zip(*results):
        assert bpnn.equal(one, two)


# --- in place -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("function", "reference"), [
    (lambda x, y: x.add_(y), np.add), (lambda x, y: x.sub_(y), np.subtract), (lambda x, y: x.mul_(y), np.multiply),
    (lambda x, y: x.div_(y), np.divide), (lambda x, y: x.add_(y, alpha=2), lambda a, b: a + 2 * b),
    (lambda x, y: x.pow_(y), np.power),
    (operator.iadd, np.add), (operator.isub, np.subtract), (operator.imul, np.multiply), (operator.itruediv, np.divide),
    (lambda x, y: x.copy_(y), lambda a, b: b), (lambda x, y: x.atan2_(y), np.arctan2),
    (lambda x, y: x.exp_(), lambda a, b: np.exp(a)),
    (lambda x, y: x.neg_(), lambda a, b: -a), (lambda x, y: x.sqrt_(), lambda a, b: np.sqrt(a)),
    (lambda x, y: x.zero_(), lambda a, b: 0 * a),
    (lambda x, y: x.clamp_(max=0.5), lambda a, b: np.minimum(a, 0.5)), (lambda x, y: x.fill_(3), lambda a, b: 0 * a + 3),
    (lambda x, y: x.masked_fill_(y > 0.5, 7), lambda a, b: np.where(b > 0.5, 7, a)), (lambda x, y: x.add_(2), lambda a, b: a + 2),
    (lambda x, y: x.mul_(2), lambda a, b: a * 2), (lambda x, y: x.lerp_(y, 0.5), lambda a, b: a / 2 + b / 2),
], ids=[str(i) for i in range(22)])
def test_in_place(function, reference):
    for dtype in ("float32", "float64"):
        for a in layouts(values((3, 4), dtype)):
            b = values((3, 4), dtype)
            x = bpnn.from_numpy(a)
            before, expected = x._version, reference(a.astype("float64"), b.astype("float64"))
            result = function(x, bpnn.from_numpy(b))
            assert result is x and x._version > before and x.numpy() is a
            np.testing.assert_allclose(a, expected, rtol=1e-5)
    leaf, other = bpnn.tensor(values((2, 3)), requires_grad=True), bpnn.tensor(values((2, 3)), requires_grad=True)
    assert gradcheck(lambda x, y: function(x * 1, y), (leaf, other))
    assert gradcheck(lambda x, y: function((x * 1)[:, 1:], y[:, 1:]), (leaf, other))
    with pytest.raises(RuntimeError, match="leaf"):
        function(leaf, other)
    with bpnn.no_grad():
        function(leaf, other)


def test_in_place_keeps_type_and_shape():
    x = bpnn.tensor([1, 2])
    with pytest.raises(RuntimeError, match="type"):
        x.add_(1.5)
    with pytest.raises(RuntimeError, match="type"):
        x.div_(2)
    with pytest.raises(RuntimeError, match="shape"):
        bpnn.ones(2).add_(bpnn.ones(3, 2))
    y = bpnn.ones(2)
    y += bpnn.tensor([1.0, 2.0], dtype=D)
    assert y.dtype == F and y.tolist() == [2, 3]
    with pytest.raises(RuntimeError, match="expanded"):
        bpnn.ones(1).expand(3).add_(1)


def test_in_place_on_overlapping_memory():
    x = bpnn.arange(6.0)
    x[1:] += x[:-1]
    assert x.tolist() == [0, 1, 3, 5, 7, 9]
    x.mul_(x)
    assert x.tolist() == [0, 1, 9, 25, 49, 81]


def test_random_filling():
    bpnn.manual_seed(1)
    first = bpnn.empty(10000).normal_(2, 3)
    assert abs(first.mean().item() - 2) < 0.2 and abs(first.std().item() - 3) < 0.2
    bpnn.manual_seed(1)
    assert bpnn.equal(first, bpnn.empty(10000).normal_(2, 3))
    uniform = bpnn.empty(1000).uniform_(-1, 1)
    assert uniform.min() >= -1 and uniform.max() < 1 and bpnn.empty(100).bernoulli_(1.0).sum() == 100
