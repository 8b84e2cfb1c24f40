"""Indexing, gathering and scattering against NumPy and loops; gradients against finite differences."""
import numpy as np
import pytest

import bpnn
from bpnn.autograd import gradcheck

RNG = np.random.default_rng(0)


def numbers(*shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)


MASK = numbers(4, 5) % 3 == 0
INDICES = [  # where NumPy and PyTorch agree
    0, -1, slice(None), slice(1, 3), slice(None, None, 2), None, ..., True, False, (0, 1), (slice(None), 2), (..., 2),
    (None, 1, ..., None),
    (slice(1, None), slice(None, -1), slice(None, None, 2)), [0, 2], [[0, 1], [2, 3]], [], np.array([3, -1, 3]),
    (slice(None), [0, 4, 4]),
    ([0, 1], [2, 3]), ([[0], [1]], [2, 3]), (slice(None), [0, 1], [1, 0]), ([0, 1], slice(None), [1, 0]), (None, [0, 1]),
    (..., [0, 2]), MASK[:, 0], MASK, (MASK[:, 0], 1), (slice(None), MASK[0]), ([0, 0, 1],), range(2), (slice(4, 9),),
    (slice(2, 1),),
    np.zeros((0,), np.int64), np.array(2), (np.array(1), slice(None)),
]


def ours(index):
    """The same index with tensors in place of arrays."""
    if isinstance(index, tuple):
        return tuple(ours(i) for i in index)
    return bpnn.tensor(index) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("index", INDICES, ids=[str(i) for i in range(len(INDICES))])
def test_reading(index):
    for array in (numbers(4, 5, 3), np.ascontiguousarray(numbers(4, 5, 3).T).T, numbers(8, 5, 3)[::2]):
        expected = array[index]
        for each in (index, ours(index)):
            result = bpnn.from_numpy(array)[each]
            np.testing.assert_array_equal(result.numpy(), expected)
            assert result.shape == expected.shape
        assert gradcheck(lambda x: x[index], bpnn.from_numpy(array).requires_grad_()) if expected.size else True


@pytest.mark.parametrize("index", INDICES, ids=[str(i) for i in range(len(INDICES))])
def test_writing(index):
    array = numbers(4, 5, 3)
    place = array[index].shape
    for value in (7.0, np.float64(7), np.full(place, 7.0), np.full(place[-1:], 7.0), np.full((1, *place), 7.0)):
        expected = array.copy()
        try:
            expected[index] = value
        except ValueError:
            continue
        x = bpnn.tensor(array)
        before = x._version
        x[ours(index)] = bpnn.from_numpy(value) if isinstance(value, np.ndarray) else value
        np.testing.assert_array_equal(x.numpy(), expected)
        assert x._version > before


@pytest.mark.parametrize(
    "index", [0, slice(1, 3), (..., 2), [0, 2], MASK, (MASK[:, 0], 1), (slice(None), [0, 1], [1, 0]), (None, 1)],
    ids=[str(i) for i in range(8)],
)
def test_gradients_of_writing(index):
    def write(x, value):
        y = x * 1
        y[index] = value
        return y

    x = bpnn.tensor(numbers(4, 5, 3), requires_grad=True)
    value = bpnn.tensor(RNG.standard_normal(numbers(4, 5, 3)[index].shape), requires_grad=True)
    assert gradcheck(write, (x, value))
    assert gradcheck(write, (x, value.detach())) and gradcheck(write, (x.detach(), value))
    assert gradcheck(write, (x, bpnn.tensor(2.0, dtype=bpnn.float64, requires_grad=True)))


def test_numbers_go_before_arrays():
    x = bpnn.tensor(numbers(2, 3, 4))
    assert x[0, :, [0, 1]].shape == (3, 2)           # NumPy gives (2, 3)
    np.testing.assert_array_equal(x[0, :, [0, 1]].numpy(), numbers(2, 3, 4)[0][:, [0, 1]])
    x[0, :, [0, 1]] = bpnn.zeros(3, 2)
    assert x[0, :, :2].sum().item() == 0 and x[0].sum().item() != 0


def test_views_and_copies():
    x = bpnn.zeros(3, 4)
    x[0].fill_(1)
    x[:, 1:3].mul_(2)
    x[bpnn.tensor(2)].add_(5)                        # a number in a tensor gives a view too
    x[[1]].fill_(9)
    assert x.tolist() == [[1, 2, 2, 1], [0, 0, 0, 0], [5, 5, 5, 5]]


def test_index_errors():
    x = bpnn.ones(2, 3)
    for index, error in [
        (2, IndexError), ((0, 0, 0), IndexError), (slice(None, None, -1), ValueError), ([0, 5], IndexError), ([1.5], IndexError),
        ("a", IndexError), (np.ones(3, bool), IndexError), ((..., ...), IndexError),
    ]:
        with pytest.raises(error):
            x[index]
    with pytest.raises(RuntimeError, match="does not broadcast"):
        x[0] = bpnn.ones(2)
    with pytest.raises(RuntimeError, match="leaf"):
        bpnn.ones(2, requires_grad=True)[0] = 1
    y = bpnn.ones(2, dtype=bpnn.int64)
    y[0] = 2.7
    assert y.tolist() == [2, 1]


def test_rows_picked_twice_add_up():
    for dtype in (bpnn.float32, bpnn.float64):
        x = bpnn.zeros(5, 3, dtype=dtype, requires_grad=True)
        x[[0, 2, 2, -3]].sum().backward()
        assert x.grad.tolist() == [[1] * 3, [0] * 3, [3] * 3, [0] * 3, [0] * 3]


def test_gather_and_scatter():
    x = numbers(3, 4, 2)
    for dim in range(3):
        for shape in [(3, 4, 2), (2, 3, 1), (1, 1, 1), (0, 4, 2)]:
            shape = tuple(5 if d == dim and n else n for d, n in enumerate(shape))
            index = RNG.integers(0, x.shape[dim], shape)
            expected = np.zeros(shape)
            added, value = x.copy(), RNG.standard_normal(shape)
            for place in np.ndindex(shape):
                source = tuple(index[place] if d == dim else p for d, p in enumerate(place))
                expected[place] = x[source]
                added[source] += value[place]
            t, i, v = bpnn.tensor(x, requires_grad=True), bpnn.tensor(index), bpnn.tensor(value, requires_grad=True)
            np.testing.assert_array_equal(bpnn.gather(t, dim, i).detach().numpy(), expected)
            np.testing.assert_allclose(bpnn.scatter_add(t, dim, i, v).detach().numpy(), added)
            if index.size:
                assert gradcheck(lambda t, dim=dim, i=i: t.gather(dim, i), t)
                assert gradcheck(lambda t, v, dim=dim, i=i: t.scatter_add(dim, i, v), (t, v))
    i = bpnn.tensor([[2, 0]])
    t = bpnn.tensor(numbers(3, 2), requires_grad=True)
    v = bpnn.tensor([[10.0, 20.0], [5.0, 5.0]], dtype=bpnn.float64, requires_grad=True)
    assert t.scatter(0, i, v).tolist() == [[0, 20], [2, 3], [10, 5]] and t.scatter(0, i, 9.0).tolist() == [[0, 9], [2, 3], [9, 5]]
    assert t.detach().scatter(0, i, v.detach(), reduce="multiply").tolist() == [[0, 20], [2, 3], [40, 5]]
    assert gradcheck(lambda t, v: t.scatter(0, i, v), (t, v))
    y = bpnn.zeros(3)
    assert y.scatter_(0, bpnn.tensor([0, 2]), 1.0) is y and y.tolist() == [1, 0, 1]
    for wrong, error in [
        (lambda: t.gather(0, bpnn.tensor([[3, 0]])), IndexError), (lambda: t.gather(0, bpnn.tensor([0])), RuntimeError),
        (lambda: t.gather(0, bpnn.ones(1, 2)), RuntimeError), (lambda: t.scatter(0, i, v, reduce="max"), RuntimeError),
    ]:
        with pytest.raises(error):
            wrong()


def test_slices_by_position():
    x, i = numbers(4, 3), np.array([2, 0, 2])
    t, index = bpnn.tensor(x, requires_grad=True), bpnn.tensor(i)
    rows = bpnn.tensor(RNG.standard_normal((3, 3)), requires_grad=True)
    added = x.copy()
    np.add.at(added, i, rows.detach().numpy())
    np.testing.assert_array_equal(t.index_select(0, index).detach().numpy(), x[i])
    np.testing.assert_array_equal(t.index_select(1, index).detach().numpy(), x[:, i])
    np.testing.assert_allclose(t.index_add(0, index, rows).detach().numpy(), added)
    np.testing.assert_allclose(t.index_add(0, index, rows, alpha=-1).detach().numpy(), 2 * x - added)
    copied = t.index_copy(1, index[:2], rows[:, :1].expand(3, 2).clone().new_ones(4, 2))
    assert copied[:, [0, 2]].tolist() == [[1, 1]] * 4
    assert t.index_fill(0, index, -1.0)[[0, 2]].tolist() == [[-1] * 3] * 2
    assert t.take(bpnn.tensor([0, 11, -1])).tolist() == [0, 11, 11]
    np.testing.assert_array_equal(t.take_along_dim(t.argsort(1, True), 1).detach().numpy(), x[:, ::-1])
    for function in (
        lambda t: t.index_select(0, index), lambda t: t.take(index), lambda t: t.take_along_dim(index[None], 1),
        lambda t: t.index_fill(1, index, 2.0),
    ):
        assert gradcheck(function, t)
    assert gradcheck(lambda t, rows: t.index_add(0, index, rows, alpha=2), (t, rows))
    assert gradcheck(lambda t, rows: t.index_copy(0, index[:2], rows[:2]), (t, rows))
    y = bpnn.zeros(4, 3)
    assert y.index_add_(0, bpnn.tensor([1, 1]), bpnn.ones(2, 3)).sum(1).tolist() == [0, 6, 0, 0]
    with pytest.raises(IndexError):
        t.index_select(0, bpnn.tensor([4]))


def test_masks():
    x, mask = numbers(3, 4), numbers(3, 4) % 2 == 0
    t, m = bpnn.tensor(x, requires_grad=True), bpnn.tensor(mask)
    np.testing.assert_array_equal(t.masked_select(m).detach().numpy(), x[mask])
    np.testing.assert_array_equal(t.masked_fill(m, -1).detach().numpy(), np.where(mask, -1, x))
    np.testing.assert_array_equal(t.masked_fill(m[0], -1.0).detach().numpy(), np.where(mask[0], -1, x))
    np.testing.assert_array_equal(bpnn.where(m, t, 0.0).detach().numpy(), np.where(mask, x, 0))
    assert t.masked_scatter(m, -t.detach()).detach()[0].tolist() == [0, 1, -1, 3]
    value = bpnn.tensor(2.0, dtype=bpnn.float64, requires_grad=True)
    assert gradcheck(lambda t: t.masked_select(m), t) and gradcheck(lambda t, v: t.masked_fill(m, v), (t, value))
    assert gradcheck(lambda t, v: bpnn.where(m, t, v), (t, value))
    assert m.nonzero().tolist() == np.argwhere(mask).tolist()
    assert [i.tolist() for i in bpnn.where(m)] == [i.tolist() for i in mask.nonzero()]
    assert bpnn.tensor(1).nonzero().shape == (1, 0)
    with pytest.raises(RuntimeError, match="bools"):
        t.masked_fill(t.detach(), 1)
