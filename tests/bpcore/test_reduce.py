"""Reductions, sorting and running sums against NumPy; gradients against finite differences."""
import numpy as np
import pytest
from scipy import special

import bpnn
from bpnn.autograd import gradcheck

RNG = np.random.default_rng(0)
SHAPES = [(1,), (31,), (32,), (33,), (3, 4), (1, 5), (33, 31), (2, 3, 4), (2, 3, 4, 5)]


def values(shape, dtype="float64"):
    """Different numbers away from 0, in no order."""
    n = int(np.prod(shape))
    return (RNG.permutation(n).reshape(shape) / n + 0.1).astype(dtype) if shape else np.asarray(0.7, dtype)


def layouts(array):
    yield array
    yield np.ascontiguousarray(array.T).T
    if array.ndim:
        yield np.repeat(array, 2, -1)[..., ::2]


def dims_of(ndim):
    yield None
    for d in range(ndim):
        yield d
        yield d - ndim
    if ndim > 1:
        yield (0, ndim - 1)
        yield (1, 0)
        yield tuple(range(ndim))
    if ndim > 2:
        yield (0, 2)


SEVERAL = [  # functions of one or more axes
    ("sum", np.sum), ("mean", np.mean), ("amax", np.max), ("amin", np.min), ("var", lambda x, **k: np.var(x, ddof=0, **k)),
    ("std", lambda x, **k: np.std(x, ddof=0, **k)), ("norm", lambda x, **k: np.sqrt(np.sum(x * x, **k))), ("nansum", np.nansum),
    ("nanmean", np.nanmean), ("logsumexp", special.logsumexp), ("all", np.all), ("any", np.any),
]
KEYWORDS = {"var": {"correction": 0}, "std": {"correction": 0}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "reference"), SEVERAL)
def test_over_axes(name, reference, dtype):
    for shape in SHAPES:
        x = values(shape, dtype)
        for dim in dims_of(len(shape)):
            dim = tuple(range(len(shape))) if dim is None and name in ("logsumexp", "norm") else dim
            for keepdim in (False, True):
                expected = np.asarray(reference(x.astype(np.float64), axis=dim, keepdims=keepdim))
                for layout in layouts(x):
                    result = getattr(bpnn.from_numpy(layout), name)(dim=dim, keepdim=keepdim, **KEYWORDS.get(name, {}))
                    assert result.dtype == (dtype if name not in ("all", "any") else "bool")
                    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5 if dtype == "float32" else 1e-12)
                    assert result.shape == expected.shape


@pytest.mark.parametrize("name", [name for name, _ in SEVERAL if name not in ("all", "any")])
def test_gradients_over_axes(name):
    for shape in [(), (5,), (2, 3, 2)]:
        for dim in dims_of(len(shape)):
            dim = tuple(range(len(shape))) if dim is None and name == "logsumexp" else dim
            for keepdim in (False, True):
                x = bpnn.tensor(np.ascontiguousarray(values(shape).T).T, requires_grad=True)
                keywords = {"dim": dim, "keepdim": keepdim, **KEYWORDS.get(name, {})}
                assert gradcheck(lambda x, keywords=keywords: getattr(x, name)(**keywords), x)


def test_sums_of_other_types():
    assert bpnn.tensor([True, True]).sum().item() == 2 and bpnn.ones(3, dtype=bpnn.uint8).sum().dtype == bpnn.int64
    assert bpnn.ones(3, dtype=bpnn.int64).sum(dtype=bpnn.float32).dtype == bpnn.float32
    assert bpnn.ones(70000, dtype=bpnn.float16).mean().item() == 1
    assert bpnn.tensor([2, 3]).prod().item() == 6 and bpnn.tensor([[1, 2]]).amax(1).tolist() == [2]
    with pytest.raises(RuntimeError, match="floats"):
        bpnn.tensor([1, 2]).mean()


def test_long_float32_sums_are_accurate():
    x = np.full((2_000_000, 2), 0.1, np.float32)
    t, turned = bpnn.from_numpy(x), bpnn.from_numpy(np.ascontiguousarray(x.T))
    for result in (t.sum() / 2, t.sum(0)[0], turned.sum(1)[1]):
        assert abs(result.item() / (2_000_000 * float(np.float32(0.1))) - 1) < 1e-5


def test_nothing_to_reduce():
    empty = bpnn.empty(0, 3)
    assert empty.sum().item() == 0 and empty.sum(0).tolist() == [0, 0, 0] and empty.sum(1).shape == (0,)
    assert np.isnan(empty.mean().item()) and empty.prod().item() == 1 and empty.all().item() and not empty.any().item()
    for wrong in (lambda: empty.max(), lambda: empty.max(0), lambda: empty.argmax(), lambda: empty.amin(0)):
        with pytest.raises((IndexError, RuntimeError), match=r"axis 0|element"):
            wrong()
    assert empty.max(1).values.shape == (0,)


def test_axes_are_checked():
    x = bpnn.ones(2, 3)
    with pytest.raises(IndexError, match=r"\[-2, 1\], got 2"):
        x.sum(2)
    with pytest.raises(RuntimeError, match="twice"):
        x.sum((0, -2))
    with pytest.raises(TypeError, match="dim"):
        x.sum("a")
    assert bpnn.tensor(3.0).sum(0).item() == 3 and bpnn.tensor(3.0).max(-1).indices.item() == 0


def test_products_with_zeros():
    for zeros in ([], [1], [1, 3]):
        array = values((5,))
        array[zeros] = 0
        assert gradcheck(lambda x: x.prod(), bpnn.tensor(array, requires_grad=True))
        assert gradcheck(lambda x: x.cumprod(0), bpnn.tensor(array, requires_grad=True))
        matrix = np.stack([array, values((5,))])
        assert gradcheck(lambda x: x.prod(1, keepdim=True), bpnn.tensor(matrix, requires_grad=True))
        assert gradcheck(lambda x: x.prod(0), bpnn.tensor(matrix, requires_grad=True))
        assert gradcheck(lambda x: x.cumprod(0) + x.cumprod(1), bpnn.tensor(matrix, requires_grad=True))


def test_variances():
    x = values((4, 5))
    t = bpnn.tensor(x, requires_grad=True)
    for keywords, ddof in [({}, 1), ({"unbiased": False}, 0), ({"correction": 2}, 2)]:
        np.testing.assert_allclose(t.detach().var(1, **keywords).numpy(), x.var(1, ddof=ddof))
        assert gradcheck(lambda t, k=keywords: t.var(0, **k), t) and gradcheck(lambda t, k=keywords: t.std((0, 1), **k), t)
    np.testing.assert_allclose(bpnn.var(t.detach(), False).numpy(), x.var())
    for pair in (bpnn.var_mean(t, 0), bpnn.std_mean(t, 0)):
        np.testing.assert_allclose(pair[1].detach().numpy(), x.mean(0))
    constant = bpnn.ones(3, requires_grad=True)
    constant.std().backward()
    assert constant.grad.tolist() == [0, 0, 0]
    assert np.isnan(bpnn.ones(1).var().item())


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, np.inf, -np.inf, -1, "fro"])
def test_norms(p):
    x = values((3, 4)) * np.where(RNG.random((3, 4)) < 0.5, 1, -1)
    t = bpnn.tensor(x, requires_grad=True)
    order = 2 if p == "fro" else p
    np.testing.assert_allclose(t.detach().norm(p, 1).numpy(), np.linalg.norm(x, order, 1))
    np.testing.assert_allclose(t.detach().norm(p, 0, keepdim=True).numpy(), np.linalg.norm(x, order, 0, keepdims=True))
    np.testing.assert_allclose(t.detach().norm(p).item(), np.linalg.norm(x.ravel(), order))
    assert gradcheck(lambda t: t.norm(p, 1), t) and gradcheck(lambda t: t.norm(p), t)
    zero = bpnn.zeros(3, requires_grad=True)
    zero.norm(2).backward()
    assert zero.grad.tolist() == [0, 0, 0]


def test_nuclear_norm():
    t = bpnn.tensor(values((3, 2)), requires_grad=True)
    np.testing.assert_allclose(t.detach().norm("nuc").item(), np.linalg.norm(t.detach().numpy(), "nuc"))
    assert gradcheck(lambda t: t.norm("nuc"), t)


def test_logsumexp_does_not_overflow():
    x = bpnn.tensor([[1000.0, 1000.0], [-np.inf, -np.inf], [-1000.0, 0.0], [np.inf, 0.0]], dtype=bpnn.float64)
    np.testing.assert_allclose(x.logsumexp(1).numpy(), [1000 + np.log(2), -np.inf, 0, np.inf])


def test_extremes_and_where_they_are():
    for dtype in ("float32", "float64", "int64", "int16"):
        for shape in SHAPES:
            x = (values(shape) * 1000).astype(dtype)
            for layout in layouts(x):
                t = bpnn.from_numpy(layout)
                assert t.max().item() == x.max() and t.min().item() == x.min()
                assert t.argmax().item() == x.argmax() and t.argmin().item() == x.argmin()
                for dim in range(len(shape)):
                    values_, indices = bpnn.max(t, dim)
                    np.testing.assert_array_equal(values_.numpy(), x.max(dim))
                    np.testing.assert_array_equal(indices.numpy(), x.argmax(dim))
                    assert indices.dtype == bpnn.int64
                    low = t.min(dim, keepdim=True)
                    np.testing.assert_array_equal(low.values.numpy(), x.min(dim, keepdims=True))
                    np.testing.assert_array_equal(t.argmin(dim, keepdim=True).numpy(), low.indices.numpy())
    t = bpnn.tensor(values((3, 4)), requires_grad=True)
    assert gradcheck(lambda t: t.max(0).values, t) and gradcheck(lambda t: t.min(1, keepdim=True).values, t)
    assert bpnn.max(bpnn.tensor([1.0, 5.0]), bpnn.tensor([3.0, 2.0])).tolist() == [3, 5]


def test_ties():
    x = bpnn.tensor([[2.0, 2.0, 1.0], [0.0, 3.0, 3.0]], requires_grad=True)
    x.amax(1).sum().backward()
    assert x.grad.tolist() == [[0.5, 0.5, 0], [0, 0.5, 0.5]]
    x.grad = None
    x.max(1).values.sum().backward()
    assert x.grad.tolist() == [[1, 0, 0], [0, 1, 0]]
    x.grad = None
    x.max().backward()
    assert x.grad.tolist() == [[0, 0, 0], [0, 0.5, 0.5]]


def test_sorting():
    for shape in SHAPES:
        x = values(shape)
        t = bpnn.tensor(x, requires_grad=True)
        for dim in range(len(shape)):
            for descending in (False, True):
                expected = np.flip(np.sort(x, dim), dim) if descending else np.sort(x, dim)
                ordered, indices = t.sort(dim, descending)
                np.testing.assert_array_equal(ordered.detach().numpy(), expected)
                np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), dim), expected)
                np.testing.assert_array_equal(t.argsort(dim, descending).numpy(), indices.numpy())
                k = max(shape[dim] // 10, 1)
                top = t.topk(k, dim, largest=descending)
                np.testing.assert_array_equal(top.values.detach().numpy(), expected[(slice(None),) * dim + (slice(k),)])
                np.testing.assert_array_equal(top.indices.numpy(), indices.numpy()[(slice(None),) * dim + (slice(k),)])
    small = bpnn.tensor(values((3, 4)), requires_grad=True)
    assert gradcheck(lambda t: t.sort(0, True).values, small) and gradcheck(lambda t: t.topk(2).values, small)
    assert bpnn.tensor([1, 0, 1, 0]).argsort(descending=True).tolist() == [0, 2, 1, 3]
    with pytest.raises(RuntimeError, match="k: expected 0 to 4"):
        small.topk(5)


def test_medians():
    x = bpnn.tensor([[3.0, 1.0, 2.0, 4.0], [np.nan, 1.0, 5.0, 0.0]])
    assert x[0].median().item() == 2 and np.isnan(x.median().item()) and x.nanmedian().item() == 2
    assert x.nanmedian(1).values.tolist() == [2, 1] and x.median(1, keepdim=True).values.shape == (2, 1)
    assert x.kthvalue(3).values.tolist() == [3, 5] and x.kthvalue(1, 1).indices.tolist() == [1, 3]
    t = bpnn.tensor(values((3, 5)), requires_grad=True)
    for function in (
        lambda t: t.median(), lambda t: t.median(1).values, lambda t: t.nanmedian(0).values, lambda t: t.kthvalue(2, 0).values,
    ):
        assert gradcheck(function, t)


def test_running_sums():
    x = values((3, 4))
    t = bpnn.tensor(x, requires_grad=True)
    for dim in (0, 1, -1):
        np.testing.assert_allclose(t.detach().cumsum(dim).numpy(), x.cumsum(dim))
        np.testing.assert_allclose(t.detach().cumprod(dim).numpy(), x.cumprod(dim))
        np.testing.assert_array_equal(t.detach().cummax(dim).values.numpy(), np.maximum.accumulate(x, dim))
        np.testing.assert_array_equal(t.detach().cummin(dim).values.numpy(), np.minimum.accumulate(x, dim))
        for name in ("cumsum", "cumprod"):
            assert gradcheck(lambda t, name=name, dim=dim: getattr(t, name)(dim), t)
        for name in ("cummax", "cummin"):
            assert gradcheck(lambda t, name=name, dim=dim: getattr(t, name)(dim).values, t)
    assert bpnn.tensor([1, 2, 2]).cummax(0).indices.tolist() == [0, 1, 2]
    assert bpnn.tensor([True, True]).cumsum(0).tolist() == [1, 2]


def test_counting():
    x = bpnn.tensor([[0, 1, 2], [0, 0, 3]])
    assert x.count_nonzero().item() == 3 and x.count_nonzero(0).tolist() == [0, 1, 2]
    assert x.unique().tolist() == [0, 1, 2, 3]
    different, inverse, counts = x.unique(return_inverse=True, return_counts=True)
    assert inverse.tolist() == [[0, 1, 2], [0, 0, 3]] and counts.tolist() == [3, 1, 1, 1]
    assert different[inverse].tolist() == x.tolist()
    assert x.unique(dim=1).shape == (2, 3)


def test_nan_is_passed_on_or_over():
    x = bpnn.tensor([1.0, np.nan, 3.0], requires_grad=True)
    assert np.isnan(x.max().item()) and x.max(0).indices.item() == 1 and x.argmax().item() == 1
    assert x.nansum().item() == 4 and x.nanmean().item() == 2
    x.nanmean().backward()
    assert x.grad.tolist() == [0.5, 0, 0.5]
