"""Rows of a table and bags of them, against NumPy."""
import numpy as np
import pytest

import bpnn
from bpcore.embedding import embedding, embedding_bag
from bpcore.sparse import SparseTensor
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)


def scattered(index, rows, shape):
    """The gradient of a table: rows added where the index names them."""
    out = np.zeros(shape, rows.dtype)
    np.add.at(out, index.reshape(-1), rows.reshape(-1, shape[1]))
    return out


# --- embedding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(), (1,), (33,), (4, 31), (2, 3, 4), (0,), (3, 0)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 31), (50, 33), (5000, 3)])
def test_forward_and_gradient(dtype, kind, shape, height, width):
    w, index = RNG.normal(size=(height, width)).astype(dtype), RNG.integers(0, height, shape).astype(kind)
    dy = np.asarray(RNG.normal(size=(*shape, width))).astype(dtype)
    expected = scattered(index, dy.astype(np.float64), w.shape)
    for sparse in (False, True):
        t = bpnn.tensor(w, requires_grad=True)
        y = embedding(index, t, sparse=sparse)
        y.backward(bpnn.from_numpy(dy))
        assert y.dtype == dtype and y.shape == (*shape, width)
        np.testing.assert_array_equal(y.detach().numpy(), w[index])
        assert (type(t.grad) is SparseTensor) == sparse and t.grad.shape == w.shape and t.grad.dtype == dtype
        np.testing.assert_allclose(np.asarray(t.grad), expected, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-5)
        if sparse:
            np.testing.assert_array_equal(t.grad.indices().numpy()[0], np.unique(index))


def test_a_tall_table_with_few_rows_used():
    w = bpnn.zeros(200_000, 2, requires_grad=True)
    index = np.array([199_999, 5, 199_999, 5, 5, 77])
    embedding(index, w, padding_idx=77).backward(bpnn.tensor(np.arange(12, dtype=np.float32).reshape(6, 2)))
    rows = np.flatnonzero(w.grad.numpy().any(1))
    assert rows.tolist() == [5, 199_999] and w.grad.numpy()[rows].tolist() == [[16, 19], [4, 6]]


def test_non_contiguous():
    w, index, dy = RNG.normal(size=(7, 20)).T, RNG.integers(0, 20, (6, 8))[::2, ::3].T, RNG.normal(size=(7, 3, 3)).T
    t = bpnn.tensor(np.zeros((20, 7)), requires_grad=True)
    t.data = bpnn.from_numpy(w)
    y = embedding(index, t)
    np.testing.assert_array_equal(y.detach().numpy(), w[index])
    y.backward(bpnn.from_numpy(dy))
    np.testing.assert_allclose(t.grad.numpy(), scattered(index, np.ascontiguousarray(dy), (20, 7)))


def test_padding_and_frequency():
    w, index = bpnn.zeros(6, 2, dtype=bpnn.float64, requires_grad=True), np.array([[1, 2, 2], [5, 5, 5]])
    dy = RNG.normal(size=(2, 3, 2))
    for padding in (2, -4):
        w.grad = None
        embedding(index, w, padding_idx=padding).backward(bpnn.from_numpy(dy))
        expected = scattered(index, dy, (6, 2))
        expected[2] = 0
        np.testing.assert_allclose(w.grad.numpy(), expected)
    w.grad = None
    embedding(index, w, padding_idx=1, scale_grad_by_freq=True).backward(bpnn.from_numpy(dy))
    expected = scattered(index, dy, (6, 2)) / np.array([1, 1, 2, 1, 1, 3])[:, None]
    expected[1] = 0
    np.testing.assert_allclose(w.grad.numpy(), expected)
    w.grad = None
    embedding(index, w, padding_idx=5, sparse=True).backward(bpnn.from_numpy(dy))
    assert w.grad.indices().tolist() == [[1, 2]]


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_max_norm_changes_the_rows_that_are_used(p):
    w = RNG.normal(size=(6, 5)) * 3
    w[4] = 0.01
    t = bpnn.tensor(w, requires_grad=True)
    version = t._version
    y = embedding(np.array([1, 4, 1]), t, max_norm=1.0, norm_type=p)
    size = (np.abs(w) ** p).sum(1) ** (1 / p)
    expected = w.copy()
    expected[1] *= 1 / (size[1] + 1e-7)
    np.testing.assert_allclose(t.detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(y.detach().numpy(), expected[[1, 4, 1]], rtol=1e-12)
    assert t._version > version


def test_backward_does_not_see_later_changes_of_the_index():
    w, index = bpnn.zeros(3, 1, requires_grad=True), np.array([0, 1])
    y = embedding(index, w)
    index[:] = 2
    y.sum().backward()
    assert w.grad.tolist() == [[1], [1], [0]]


@pytest.mark.parametrize("sparse", [False, True])
def test_threads_do_not_matter(sparse):
    p = 1 / np.arange(1, 20_001)
    index = RNG.choice(20_000, size=(32, 100), p=p / p.sum())
    dy = bpnn.from_numpy(RNG.normal(size=(32, 100, 128)).astype(np.float32))
    grads = []
    for n in (1, 2, 3):
        set_num_threads(n)
        w = bpnn.zeros(20_000, 128, requires_grad=True)
        embedding(index, w, sparse=sparse).backward(dy)
        grads.append(np.asarray(w.grad))
    set_num_threads(2)
    np.testing.assert_array_equal(grads[0], grads[1])
    np.testing.assert_array_equal(grads[0], grads[2])
    np.testing.assert_allclose(grads[0], scattered(index, dy.numpy(), (20_000, 128)), rtol=1e-4, atol=1e-4)


def test_gradcheck():
    w = bpnn.tensor(RNG.normal(size=(5, 3)), requires_grad=True)
    index = bpnn.tensor([[0, 3, 3], [1, 1, 1]])
    for keywords in ({}, {"sparse": True}):
        assert bpnn.autograd.gradcheck(lambda w, keywords=keywords: embedding(index, w, **keywords), w)
    factors = bpnn.tensor(RNG.normal(size=(2, 3)), requires_grad=True)
    assert bpnn.autograd.gradcheck(lambda w, f: embedding_bag(index, w, mode="sum", per_sample_weights=f), (w, factors))
    for mode in ("sum", "mean", "max"):
        assert bpnn.autograd.gradcheck(lambda w, mode=mode: embedding_bag(index, w, mode=mode, padding_idx=0), w)


def test_errors():
    w = bpnn.zeros(4, 2)
    with pytest.raises(IndexError, match="input: index 4 is out of range for a table of 4 rows"):
        embedding(np.array([0, 4]), w)
    with pytest.raises(IndexError, match="index -1 "):
        embedding_bag(np.array([[0, -1]]), w)
    with pytest.raises(TypeError, match="input: expected int32 or int64, got float32"):
        embedding(np.zeros(2, np.float32), w)
    with pytest.raises(RuntimeError, match=r"weight: expected 2 axes \(rows, elements\), got shape \(4,\)"):
        embedding(np.array([0]), bpnn.zeros(4))
    with pytest.raises(ValueError, match=r"padding_idx: expected a row of the table, in \[-4, 3\], got 4"):
        embedding(np.array([0]), w, padding_idx=4)
    with pytest.raises(RuntimeError, match="scale_grad_by_freq: expected False with sparse=True"):
        embedding(np.array([0]), w, sparse=True, scale_grad_by_freq=True)
    with pytest.raises(ValueError, match="mode: expected 'sum', 'mean' or 'max', got 'min'"):
        embedding_bag(np.array([[0]]), w, mode="min")
    with pytest.raises(ValueError, match="offsets: expected where each bag begins, as input is 1-D, got None"):
        embedding_bag(np.array([0]), w)
    with pytest.raises(ValueError, match="offsets: expected None for a 2-D input"):
        embedding_bag(np.array([[0]]), w, np.array([0]))
    with pytest.raises(ValueError, match="offsets: expected the first to be 0, got 1"):
        embedding_bag(np.array([0, 1]), w, np.array([1]))
    with pytest.raises(ValueError, match=r"offsets: expected places in \[0, 2\] that do not fall, got \[0, 3\]"):
        embedding_bag(np.array([0, 1]), w, np.array([0, 3]))
    with pytest.raises(ValueError, match="per_sample_weights: expected None with mode='mean'"):
        embedding_bag(np.array([[0]]), w, per_sample_weights=bpnn.zeros(1, 1))
    with pytest.raises(ValueError, match=r"per_sample_weights: expected float32 of shape \(1, 1\), got float32 of shape \(1, 2\)"):
        embedding_bag(np.array([[0]]), w, mode="sum", per_sample_weights=bpnn.zeros(1, 2))


# --- bags --------------------------------------------------------------------------------------------------------------


def bags(index, offsets, include_last):
    ends = [*offsets[1:]] if include_last else [*offsets[1:], len(index)]
    return [np.arange(b, e) for b, e in zip(offsets[: len(ends)], ends, strict=True)]


def reference(w, index, places, mode, factors, padding):
    """(B, D), and its gradient for the cotangent dy as a function."""
    rows = []
    for bag in places:
        bag = [i for i in bag if index[i] != padding]
        picked = w[index[bag]] * (factors[bag][:, None] if factors is not None else 1)
        if not len(bag):
            rows.append(np.zeros(w.shape[1]))
        else:
            rows.append({"sum": np.sum, "mean": np.mean, "max": np.max}[mode](picked, axis=0))
    return np.stack(rows) if rows else np.zeros((0, w.shape[1]))


def slope(w, index, places, mode, factors, padding, dy):
    dw, df = np.zeros_like(w), np.zeros(len(index))
    for b, bag in enumerate(places):
        bag = [i for i in bag if index[i] != padding]
        for i in bag:
            if mode == "max":
                winners = w[index[bag]].argmax(0)
                mine = np.array([bag[k] == i for k in winners])
                dw[index[i]] += np.where(mine, dy[b], 0)
            else:
                scale = factors[i] if factors is not None else 1 / len(bag) if mode == "mean" else 1
                dw[index[i]] += scale * dy[b]
                df[i] += w[index[i]] @ dy[b]
    return dw, df


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("include_last", [False, True])
@pytest.mark.parametrize(
    ("offsets", "n", "width"), [((0,), 1, 1), ((0, 3, 3, 5), 9, 33), ((0, 0, 7), 7, 31), ((0, 4, 30), 33, 8)]
)
def test_bags(mode, dtype, padding, include_last, offsets, n, width):
    w, index = RNG.normal(size=(11, width)), RNG.integers(0, 11, n)
    index[n // 2] = 3
    places = bags(index, offsets, include_last)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    for factors in (None, RNG.normal(size=n)) if mode == "sum" else (None,):
        t = bpnn.tensor(w.astype(dtype), requires_grad=True)
        f = None if factors is None else bpnn.tensor(factors.astype(dtype), requires_grad=True)
        y = embedding_bag(
            index, t, np.array(offsets), mode=mode, per_sample_weights=f, include_last_offset=include_last, padding_idx=padding
        )
        assert y.dtype == dtype
        np.testing.assert_allclose(y.detach().numpy(), reference(w, index, places, mode, factors, padding), **tolerance)
        dy = RNG.normal(size=y.shape)
        dw, df = slope(w, index, places, mode, factors, padding, dy)
        y.backward(bpnn.from_numpy(dy.astype(dtype)))
        np.testing.assert_allclose(t.grad.numpy(), dw, **tolerance)
        if f is not None:
            np.testing.assert_allclose(f.grad.numpy(), df, **tolerance)


def test_two_dimensional_bags_and_sparse_gradients():
    w, index = RNG.normal(size=(9, 4)), RNG.integers(0, 9, (5, 3)).astype(np.int32)
    for mode in ("sum", "mean"):
        t = bpnn.tensor(w, requires_grad=True)
        y = embedding_bag(index, t, mode=mode, sparse=True)
        np.testing.assert_allclose(y.detach().numpy(), getattr(w[index], mode)(1))
        y.sum().backward()
        dense = scattered(index, np.ones((15, 4)) / (3 if mode == "mean" else 1), (9, 4))
        np.testing.assert_allclose(t.grad.to_dense().numpy(), dense)
    assert embedding_bag(np.zeros((0, 3), np.int64), t).shape == (0, 4)
    assert embedding_bag(np.zeros((2, 0), np.int64), t).tolist() == [[0] * 4] * 2


def test_bags_of_any_number_of_threads():
    w, index = RNG.normal(size=(500, 64)).astype(np.float32), RNG.integers(0, 500, (300, 40))
    found = []
    for n in (1, 2):
        set_num_threads(n)
        t = bpnn.tensor(w, requires_grad=True)
        y = embedding_bag(index, t)
        (y * y).sum().backward()
        found.append((y.detach().numpy(), t.grad.numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
