"""Products of matrices against NumPy; gradients against finite differences."""
import numpy as np
import pytest

import bpnn
from bpnn.autograd import gradcheck

RNG = np.random.default_rng(0)
SHAPES = [
    ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)),
    ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((6, 5, 2, 3), (6, 5, 3, 4)),
    ((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((4, 2, 0), (4, 0, 3)), ((0, 2, 3), (0, 3, 4)), ((1, 1), (1, 1)),
    ((33, 31), (31, 32)), ((3, 33, 31), (3, 31, 32)), ((1, 33), (33, 32)), ((33, 1), (1, 32)), ((2, 1, 33), (2, 33, 1)),
    ((2, 33, 1), (2, 1, 33)),
]


def values(shape, dtype="float64"):
    return np.asarray(RNG.standard_normal(shape), dtype)


def layouts(array):
    """Contiguous; the last two axes stored the other way; all axes reversed; with gaps in rows and columns."""
    yield array
    if array.ndim > 1:
        yield np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
        yield np.ascontiguousarray(array.T).T
    yield np.repeat(array, 2, -1)[..., ::2]
    yield np.repeat(array, 3, 0)[::3]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matmul(left, right, dtype):
    a, b = (values(left) * 9).astype(dtype), (values(right) * 9).astype(dtype)
    expected = a.astype("float64") @ b.astype("float64")
    for x in layouts(a):
        for y in layouts(b):
            result = bpnn.from_numpy(x) @ bpnn.from_numpy(y)
            assert result.shape == expected.shape and result.dtype == dtype
            rtol, atol = (1e-4, 1e-3) if dtype == "float32" else (1e-12, 1e-9)
            np.testing.assert_allclose(result.numpy(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("left", "right"), [pair for pair in SHAPES if np.prod(pair[0]) < 100])
def test_gradients(left, right):
    a, b = bpnn.tensor(values(left), requires_grad=True), bpnn.tensor(values(right), requires_grad=True)
    assert gradcheck(bpnn.matmul, (a, b))
    assert gradcheck(bpnn.matmul, (a.detach(), b)) and gradcheck(bpnn.matmul, (a, b.detach()))
    if len(left) == len(right) == 2:
        assert gradcheck(lambda a, b: a.T.T @ b[:, ::2], (a, b))


def test_only_what_is_needed_is_saved():
    x, w = bpnn.ones(2, 3), bpnn.ones(3, 2, requires_grad=True)
    y = x @ w
    with bpnn.no_grad():
        w += 1                       # the product's gradient for w does not need w
    y.sum().backward()
    assert w.grad.tolist() == [[2, 2]] * 3
    y = (x.requires_grad_() @ w)
    with bpnn.no_grad():
        w += 1
    with pytest.raises(RuntimeError, match="in-place"):
        y.sum().backward()


CASES = [
    (bpnn.mm, [(2, 3), (3, 4)], np.matmul), (bpnn.bmm, [(5, 2, 3), (5, 3, 4)], np.matmul), (bpnn.mv, [(2, 3), (3,)], np.matmul),
    (bpnn.dot, [(3,), (3,)], np.dot), (bpnn.outer, [(3,), (4,)], np.outer), (bpnn.inner, [(2, 3), (4, 3)], np.inner),
    (lambda a, b: bpnn.tensordot(a, b, 2), [(2, 3, 4), (3, 4, 5)], lambda a, b: np.tensordot(a, b, 2)),
    (lambda a, b: bpnn.tensordot(a, b, ([0, 2], [1, 0])), [(2, 3, 4), (4, 2, 5)],
     lambda a, b: np.tensordot(a, b, ([0, 2], [1, 0]))),
    (bpnn.addmm, [(4,), (2, 3), (3, 4)], lambda c, a, b: c + a @ b),
    (lambda c, a, b: bpnn.addmm(c, a, b, beta=2, alpha=0.5), [(2, 4), (2, 3), (3, 4)], lambda c, a, b: 2 * c + 0.5 * (a @ b)),
    (bpnn.addmv, [(2,), (2, 3), (3,)], lambda c, a, b: c + a @ b),
    (bpnn.addr, [(2, 3), (2,), (3,)], lambda c, a, b: c + np.outer(a, b)),
    (bpnn.baddbmm, [(2, 4), (5, 2, 3), (5, 3, 4)], lambda c, a, b: c + a @ b),
    (bpnn.addbmm, [(2, 4), (5, 2, 3), (5, 3, 4)], lambda c, a, b: c + (a @ b).sum(0)),
]


@pytest.mark.parametrize(("function", "shapes", "reference"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_named_products(function, shapes, reference):
    arrays = [values(shape) for shape in shapes]
    leaves = [bpnn.tensor(array, requires_grad=True) for array in arrays]
    np.testing.assert_allclose(function(*leaves).detach().numpy(), reference(*arrays), rtol=1e-12, atol=1e-12)
    assert gradcheck(function, leaves)


EQUATIONS = [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (3, 4)]), ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]), ("ij->ji", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("ii", [(3, 3)]), ("ii->i", [(3, 3)]), ("iij->j", [(2, 2, 3)]), ("i,i", [(3,), (3,)]), ("i,j->ij", [(3,), (4,)]),
    ("ij,ij->ij", [(2, 3), (2, 3)]),
    ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]), ("...i->...", [(2, 3, 4)]), ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]), ("bn,anm,bm->ba", [(2, 3), (4, 3, 5), (2, 5)]), ("ij,kj->ik", [(2, 3), (4, 3)]),
    (",i->i", [(), (3,)]),
    ("abc,cd->adb", [(2, 3, 4), (4, 5)]), ("ab,ab,ab->b", [(2, 3), (2, 3), (2, 3)]), ("i...,j...->ij...", [(2, 4), (3, 4)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum(equation, shapes):
    arrays = [values(shape) for shape in shapes]
    leaves = [bpnn.tensor(array, requires_grad=True) for array in arrays]
    result = bpnn.einsum(equation, *leaves).detach().numpy()
    np.testing.assert_allclose(result, np.einsum(equation, *arrays), rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda *leaves: bpnn.einsum(equation, *leaves), leaves)


def test_einsum_by_numbers():
    a, b = values((2, 3)), values((3, 4))
    np.testing.assert_allclose(bpnn.einsum(bpnn.tensor(a), [0, 1], bpnn.tensor(b), [1, 2], [0, 2]).numpy(), a @ b)


@pytest.mark.parametrize("wrong", [
    lambda: bpnn.ones(2, 3) @ bpnn.ones(2, 3), lambda: bpnn.ones(2, 3) @ bpnn.ones(3, 2, dtype=bpnn.float64),
    lambda: bpnn.ones(()) @ bpnn.ones(3),
    lambda: bpnn.ones(2, 2, 3) @ bpnn.ones(3, 3, 4), lambda: bpnn.mm(bpnn.ones(3), bpnn.ones(3, 3)),
    lambda: bpnn.dot(bpnn.ones(3), bpnn.ones(4)),
    lambda: bpnn.bmm(bpnn.ones(2, 3, 4), bpnn.ones(3, 4, 5)), lambda: bpnn.tensordot(bpnn.ones(2, 3), bpnn.ones(2, 3), 1),
    lambda: bpnn.einsum("ij,jk->ik", bpnn.ones(2, 3)), lambda: bpnn.einsum("ij->k", bpnn.ones(2, 3)),
    lambda: bpnn.einsum("ij,jk", bpnn.ones(2, 3), bpnn.ones(4, 5)),
    lambda: bpnn.einsum("ijk", bpnn.ones(2, 3)), lambda: bpnn.einsum("i$", bpnn.ones(2, 3)),
])
def test_errors(wrong):
    with pytest.raises(RuntimeError, match=r"\(|expected|einsum"):
        wrong()
