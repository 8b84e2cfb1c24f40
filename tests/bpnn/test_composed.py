"""Operators composed of others against NumPy, their gradients against differences; `tests/conformance` compares with PyTorch."""
import bpnn
import numpy as np
import pytest
from bpnn.nn import functional as F

RNG = np.random.default_rng(0)


def leaf(*shape):
    return bpnn.tensor(RNG.normal(size=shape), requires_grad=True)


def tensors(*arrays):
    return [bpnn.tensor(np.asarray(a)) for a in arrays]


def same(ours, expected):
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_grids_and_shapes():
    a, b, c = np.arange(3.0), np.arange(4.0), np.arange(2.0)
    for indexing in ("ij", "xy"):
        expected = np.meshgrid(a, b, c, indexing=indexing)
        for ours, theirs in zip(bpnn.meshgrid(*tensors(a, b, c), indexing=indexing), expected, strict=True):
            same(ours, theirs)
    same(bpnn.cartesian_prod(*tensors(a, b)), [(x, y) for x in a for y in b])
    assert bpnn.broadcast_shapes((3, 1), (4,), 4) == (3, 4)
    with pytest.raises(RuntimeError, match="shapes: expected sizes that are equal or 1"):
        bpnn.broadcast_shapes((3,), (4,))
    same(bpnn.kron(*tensors(np.ones((2, 3)), b)), np.kron(np.ones((2, 3)), b))
    x = RNG.normal(size=(2, 3, 4))
    for k in range(-2, 6):
        same(bpnn.rot90(bpnn.tensor(x), k, (0, 2)), np.rot90(x, k, (0, 2)))
    same(bpnn.block_diag(*tensors(np.ones((1, 2)), np.ones((2, 1)))), [[1, 1, 0], [0, 0, 1], [0, 0, 1]])


def test_parts():
    x = np.zeros((3, 4))
    same(bpnn.select_scatter(*tensors(x, np.ones(3)), 1, -1), [[0, 0, 0, 1]] * 3)
    same(bpnn.slice_scatter(*tensors(x, np.ones((3, 2))), 1, 0, None, 2), [[1, 0, 1, 0]] * 3)
    with pytest.raises(RuntimeError, match=r"src: expected shape \(3,\)"):
        bpnn.select_scatter(*tensors(x, np.ones(4)), 1, 0)


def test_search_and_count():
    edges, x = np.array([1.0, 2, 2, 5]), RNG.integers(0, 7, (3, 4)).astype(float)
    for right in (False, True):
        expected = np.searchsorted(edges, x, "right" if right else "left")
        same(bpnn.bucketize(*tensors(x, edges), right=right), expected)
        same(bpnn.searchsorted(*tensors(np.tile(edges, (3, 1)), x), right=right), expected)
    order = np.array([2, 0, 3, 1])
    same(bpnn.searchsorted(*tensors(edges[np.argsort(order)], x), sorter=bpnn.tensor(order)), np.searchsorted(edges, x))
    words = RNG.integers(0, 9, 50)
    same(bpnn.bincount(bpnn.tensor(words), minlength=12), np.bincount(words, minlength=12))
    same(bpnn.histc(bpnn.tensor(x), 7, 1, 5), np.histogram(x, 7, (1, 5))[0])
    with pytest.raises(RuntimeError, match="input: expected a vector of integers"):
        bpnn.bincount(bpnn.tensor([-1]))


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize(("reduce", "ufunc"), [("sum", np.add), ("prod", np.multiply), ("amax", np.maximum), ("amin", np.minimum)])
def test_scatter_reduce(reduce, ufunc, include_self):
    x, src, index = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 9)), RNG.integers(0, 4, (3, 9))
    expected = x.copy()
    for i, j in np.ndindex(3, 5):
        group = src[i][index[i] == j]
        if group.size:
            expected[i, j] = ufunc.reduce(np.append(group, x[i, j]) if include_self else group)
    same(bpnn.scatter_reduce(bpnn.tensor(x), 1, *tensors(index, src), reduce, include_self=include_self), expected)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
def test_gradient_of_scatter_reduce(reduce, include_self):
    index = bpnn.tensor(RNG.integers(0, 3, (2, 6)))
    inputs = leaf(2, 4), leaf(2, 6)
    bpnn.autograd.gradcheck(lambda x, s: bpnn.scatter_reduce(x, 1, index, s, reduce, include_self=include_self), inputs)


CASES = {
    "meshgrid": (lambda a, b: bpnn.meshgrid(a, b), (3,), (2,)),
    "kron": (bpnn.kron, (2, 3), (2,)),
    "block_diag": (bpnn.block_diag, (2, 3), (2,)),
    "rot90": (lambda a: bpnn.rot90(a, 3), (2, 3)),
    "select_scatter": (lambda a, b: bpnn.select_scatter(a, b, 1, 1), (2, 3), (2,)),
    "slice_scatter": (lambda a, b: bpnn.slice_scatter(a, b, 0, 1, 3), (4, 3), (2, 3)),
    "diff": (lambda a: bpnn.diff(a, 2), (2, 5)),
    "cross": (bpnn.cross, (2, 3), (2, 3)),
    "dist": (bpnn.dist, (2, 3), (3,)),
    "sinc": (bpnn.sinc, (5,)),
    "glu": (F.glu, (2, 6)),
    "prelu": (F.prelu, (2, 3, 4), (3,)),
    "tanhshrink": (F.tanhshrink, (5,)),
    "cosine_similarity": (F.cosine_similarity, (3, 4), (1, 4)),
    "pairwise_distance": (F.pairwise_distance, (3, 4), (3, 4)),
    "triplet_margin_loss": (lambda a, b, c: F.triplet_margin_loss(a, b, c, swap=True), (3, 4), (3, 4), (3, 4)),
    "cosine_embedding_loss": (lambda a, b: F.cosine_embedding_loss(a, b, bpnn.tensor([1, -1, -1]), 0.1), (3, 4), (3, 4)),
    "soft_margin_loss": (lambda a: F.soft_margin_loss(a, bpnn.tensor([1.0, -1, 1])), (3,)),
    "gaussian_nll_loss": (lambda a, b, v: F.gaussian_nll_loss(a, b, v.exp()), (3,), (3,), (3,)),
    "poisson_nll_loss": (lambda a: F.poisson_nll_loss(a, bpnn.tensor([0.0, 2, 5]), full=True), (3,)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    function, *shapes = CASES[name]
    bpnn.autograd.gradcheck(function, [leaf(*shape) for shape in shapes])


def test_values_of_similarities():
    a, b = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    same(F.cosine_similarity(*tensors(a, b)), cosine)
    same(F.pairwise_distance(*tensors(a, b), eps=0), np.linalg.norm(a - b, axis=1))
    t = np.array([1, -1, -1])
    losses = F.cosine_embedding_loss(*tensors(a, b, t), reduction="none").numpy()
    np.testing.assert_allclose(losses, np.where(t == 1, 1 - cosine, np.maximum(cosine, 0)), rtol=1e-9)  # 1e-12 is added
    same(F.glu(bpnn.tensor(a)), a[:, :2] / (1 + np.exp(-a[:, 2:])))
    x = F.cosine_similarity(*tensors(np.zeros((1, 3)), np.ones((1, 3))))
    assert x.item() == 0
