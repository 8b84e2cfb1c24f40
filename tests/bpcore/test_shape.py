"""Views and copies of other shapes against NumPy: values, memory, versions, gradients."""
import numpy as np
import pytest

import bpnn
from bpnn.autograd import gradcheck


def numbers(*shape, dtype="float64"):
    return np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)


def layouts(array):
    yield array
    yield np.ascontiguousarray(array.T).T
    if array.ndim:
        yield np.repeat(array, 2, -1)[..., ::2]


VIEWS = [  # always a view
    ((2, 3, 4), lambda x: x.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1)),
    ((2, 3, 4), lambda x: x.permute((-1, 0, 1)), lambda a: a.transpose(2, 0, 1)),
    ((2, 3, 4), lambda x: x.transpose(0, -1), lambda a: a.swapaxes(0, -1)), ((2, 3), lambda x: x.T, lambda a: a.T),
    ((2, 3), lambda x: x.t(), lambda a: a.T),
    ((2, 3, 4), lambda x: x.mT, lambda a: a.swapaxes(-1, -2)),
    ((2, 3, 4), lambda x: x.movedim(0, 2), lambda a: np.moveaxis(a, 0, 2)),
    ((2, 3, 4), lambda x: x.movedim((0, 1), (-1, 0)), lambda a: np.moveaxis(a, (0, 1), (-1, 0))),
    ((2, 3), lambda x: x.unsqueeze(1), lambda a: a[:, None]), ((2, 3), lambda x: x.unsqueeze(-1), lambda a: a[..., None]),
    ((1, 3, 1), lambda x: x.squeeze(), lambda a: a.squeeze()), ((1, 3, 1), lambda x: x.squeeze(0), lambda a: a.squeeze(0)),
    ((1, 3, 1), lambda x: x.squeeze(1), lambda a: a), ((1, 3, 1), lambda x: x.squeeze((0, 2)), lambda a: a.squeeze((0, 2))),
    ((1, 3), lambda x: x.expand(2, 3), lambda a: np.broadcast_to(a, (2, 3))),
    ((1, 3), lambda x: x.expand(4, -1, 3), lambda a: np.broadcast_to(a, (4, 1, 3))),
    ((3,), lambda x: x.expand_as(bpnn.ones(2, 3)), lambda a: np.broadcast_to(a, (2, 3))),
    ((3,), lambda x: bpnn.broadcast_to(x, (2, 3)), lambda a: np.broadcast_to(a, (2, 3))),
    ((4, 5), lambda x: x.narrow(1, 1, 3), lambda a: a[:, 1:4]), ((4, 5), lambda x: x.narrow(0, -2, 2), lambda a: a[2:]),
    ((4, 5), lambda x: x.select(1, -1), lambda a: a[:, -1]), ((4, 5), lambda x: x.diagonal(), np.diagonal),
    ((4, 5), lambda x: x.diagonal(1), lambda a: a.diagonal(1)),
    ((2, 4, 5), lambda x: x.diagonal(-1, 1, 2), lambda a: a.diagonal(-1, 1, 2)),
    ((4, 5), lambda x: x[1:, ::2], lambda a: a[1:, ::2]), ((4, 5), lambda x: x[2], lambda a: a[2]),
    ((4, 5), lambda x: x[..., None, 1], lambda a: a[..., None, 1]),
    ((6,), lambda x: x.detach().requires_grad_(x.requires_grad) if not x.requires_grad else x[:], lambda a: a),
]
RESHAPES = [  # a view of contiguous memory
    ((2, 3, 4), lambda x: x.reshape(6, 4), lambda a: a.reshape(6, 4)),
    ((2, 3, 4), lambda x: x.reshape((4, -1)), lambda a: a.reshape(4, 6)),
    ((2, 3, 4), lambda x: x.reshape(-1), lambda a: a.reshape(-1)), ((2, 3, 4), lambda x: x.flatten(1), lambda a: a.reshape(2, 12)),
    ((2, 3, 4), lambda x: x.flatten(0, 1), lambda a: a.reshape(6, 4)),
    ((2, 6), lambda x: x.unflatten(1, (2, -1)), lambda a: a.reshape(2, 2, 3)),
    ((2, 3), lambda x: x.ravel(), lambda a: a.ravel()), ((), lambda x: x.flatten(), lambda a: a.reshape(1)),
    ((1,), lambda x: x.reshape(()), lambda a: a.reshape(())),
    ((0, 3), lambda x: x.reshape(3, 0), lambda a: a.reshape(3, 0)),
    ((2, 3), lambda x: x.reshape_as(bpnn.ones(3, 2)), lambda a: a.reshape(3, 2)),
]
COPIES = [
    ((2, 3), lambda x: x.clone(), lambda a: a), ((2, 3), lambda x: x.repeat(2, 1), lambda a: np.tile(a, (2, 1))),
    ((2, 3), lambda x: x.repeat(2, 1, 2), lambda a: np.tile(a, (2, 1, 2))), ((2, 3), lambda x: x.tile(2), lambda a: np.tile(a, 2)),
    ((2, 3), lambda x: x.repeat_interleave(2, 1), lambda a: np.repeat(a, 2, 1)),
    ((2, 3), lambda x: x.repeat_interleave(2), lambda a: np.repeat(a, 2)),
    ((2, 3), lambda x: x.repeat_interleave(bpnn.tensor([1, 0, 2]), 1), lambda a: np.repeat(a, [1, 0, 2], 1)),
    ((2, 3), lambda x: x.flip(0), lambda a: a[::-1]), ((2, 3), lambda x: x.flip(0, 1), lambda a: a[::-1, ::-1]),
    ((2, 3), lambda x: x.fliplr(), np.fliplr),
    ((2, 3), lambda x: x.flipud(), np.flipud), ((2, 3), lambda x: x.roll(1), lambda a: np.roll(a, 1)),
    ((2, 3), lambda x: x.roll((1, -1), (0, 1)), lambda a: np.roll(a, (1, -1), (0, 1))),
    ((3, 4), lambda x: x.tril(), np.tril), ((3, 4), lambda x: x.triu(1), lambda a: np.triu(a, 1)),
    ((3,), lambda x: x.diag(), np.diag),
    ((3,), lambda x: x.diag(1), lambda a: np.diag(a, 1)), ((3, 3), lambda x: x.diag(-1), lambda a: np.diag(a, -1)),
    ((2, 3), lambda x: x.diag_embed(), lambda a: np.stack([np.diag(row) for row in a])),
    ((2, 3), lambda x: bpnn.cat([x, x * 2]), lambda a: np.concatenate([a, a * 2])),
    ((2, 3), lambda x: bpnn.cat([x, x[:, :1]], -1), lambda a: np.concatenate([a, a[:, :1]], 1)),
    ((2, 3), lambda x: bpnn.cat([x, bpnn.empty(0)], 1), lambda a: a),
    ((2, 3), lambda x: bpnn.stack([x, x + 1], 1), lambda a: np.stack([a, a + 1], 1)),
    ((2, 3), lambda x: bpnn.stack([x, x], -1), lambda a: np.stack([a, a], -1)),
    ((), lambda x: bpnn.stack([x, x]), lambda a: np.stack([a, a])),
    ((3,), lambda x: bpnn.hstack([x, x]), lambda a: np.hstack([a, a])),
    ((2, 3), lambda x: bpnn.hstack([x, x]), lambda a: np.hstack([a, a])),
    ((3,), lambda x: bpnn.vstack([x, x]), lambda a: np.vstack([a, a])),
    ((3,), lambda x: bpnn.dstack([x, x]), lambda a: np.dstack([a, a])),
    ((3,), lambda x: bpnn.column_stack([x, x]), lambda a: np.column_stack([a, a])),
]


EVERY = VIEWS + RESHAPES + COPIES


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize(("shape", "function", "reference"), EVERY, ids=[str(i) for i in range(len(EVERY))])
def test_values(shape, function, reference, dtype):
    for array in layouts(numbers(*shape, dtype="float64").astype(dtype)):
        if dtype == "bool" and reference(numbers(*shape)).size > array.size:
            continue                                # arithmetic inside
        result = function(bpnn.from_numpy(array))
        np.testing.assert_array_equal(result.numpy(), reference(array))


@pytest.mark.parametrize(("shape", "function", "reference"), EVERY, ids=[str(i) for i in range(len(EVERY))])
def test_gradients(shape, function, reference):
    for array in layouts(numbers(*shape)):
        assert gradcheck(function, bpnn.from_numpy(array).requires_grad_()) if array.size else True


@pytest.mark.parametrize(("shape", "function", "reference"), VIEWS + RESHAPES, ids=[str(i) for i in range(len(VIEWS + RESHAPES))])
def test_views_share_memory_and_version(shape, function, reference):
    x = bpnn.from_numpy(np.asarray(numbers(*shape) + 1))
    y = function(x)
    before = y._version
    x.mul_(2)
    np.testing.assert_array_equal(y.numpy(), reference(x.numpy()))
    assert y._version == before + 1
    if y.numel() and y.numpy().flags.writeable:
        y.zero_()
        assert (x == 0).any()


def test_view_refuses_what_needs_a_copy():
    x = bpnn.ones(2, 3)
    assert x.view(3, 2).shape == (3, 2) and x.view(-1).shape == (6,) and x.view_as(bpnn.ones(6)).shape == (6,)
    assert x.T.view(3, 2, 1).shape == (3, 2, 1)
    with pytest.raises(RuntimeError, match="reshape"):
        x.T.view(6)
    assert x.T.reshape(6).shape == (6,) and x.T.flatten().is_contiguous()
    for shape in [(4,), (-1, 4), (-1, -1), (0, -1), (-2, 3)]:
        with pytest.raises(RuntimeError, match="shape"):
            x.view(shape)
    with pytest.raises(TypeError, match="integers"):
        x.reshape(1.5, 4)


def test_view_of_bytes():
    x = bpnn.tensor([1.0, -2.0])
    y = x.view(bpnn.int32)
    assert y.dtype == bpnn.int32 and y.tolist() == np.array([1, -2], np.float32).view(np.int32).tolist()
    x.zero_()
    assert y.tolist() == [0, 0]


def test_expanded_memory_is_not_written():
    x = bpnn.zeros(1, 3)
    with pytest.raises(RuntimeError, match="clone"):
        x.expand(2, 3)[0] = 1
    assert x.expand(2, 3).clone().add_(1).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_contiguous():
    x = bpnn.ones(2, 3)
    assert x.contiguous() is x and x.T.contiguous() is not x and x.T.contiguous().is_contiguous() and not x.T.is_contiguous()
    assert x.stride() == (3, 1) and x.T.stride() == (1, 3) and x.stride(0) == 3


def test_splitting():
    a = numbers(5, 4)
    x = bpnn.tensor(a, requires_grad=True)
    for pieces, sizes in [
        (x.split(2), [2, 2, 1]), (x.split([1, 4]), [1, 4]), (x.chunk(3), [2, 2, 1]), (x.chunk(7), [1] * 5),
        (x.tensor_split(3), [2, 2, 1]),
        (x.tensor_split((1, 3)), [1, 2, 2]), (x.vsplit(5), [1] * 5), (x.T.hsplit([2]), None),
    ]:
        if sizes is not None:
            assert [len(piece) for piece in pieces] == sizes
            np.testing.assert_array_equal(bpnn.cat(pieces).detach().numpy(), a)
    assert [piece.shape for piece in x.split(3, 1)] == [(5, 3), (5, 1)]
    rows = x.unbind()
    assert len(rows) == 5 and rows[0].shape == (4,)
    assert gradcheck(lambda x: x.split(2, 1)[0] * 2 + x.split(2, 1)[1], x)
    assert gradcheck(lambda x: sum(x.unbind(1)), x) and gradcheck(lambda x: x.split(9)[0].exp(), x)
    assert gradcheck(lambda x: x.split(2)[2] * x.T.chunk(2)[0][:, :1].sum(), x)
    assert gradcheck(lambda x: x.chunk(2)[1].sin(), x)
    for wrong in (
        lambda: x.split([1, 1]), lambda: x.split(-1), lambda: x.chunk(0), lambda: x.vsplit(2), lambda: bpnn.ones(()).split(1),
    ):
        with pytest.raises(RuntimeError):
            wrong()


def test_joining_promotes_and_checks():
    assert bpnn.cat([bpnn.ones(1), bpnn.ones(1, dtype=bpnn.int64)]).dtype == bpnn.float32
    assert bpnn.stack([bpnn.ones(1, dtype=bpnn.float64), bpnn.ones(1)]).dtype == bpnn.float64
    for wrong in (
        lambda: bpnn.cat([]), lambda: bpnn.cat([bpnn.ones(2, 3), bpnn.ones(2, 4)]), lambda: bpnn.cat([bpnn.ones(())]),
        lambda: bpnn.stack([bpnn.ones(2), bpnn.ones(3)]),
    ):
        with pytest.raises(RuntimeError, match="expected"):
            wrong()
    with pytest.raises(TypeError, match=r"tensors\[1\]"):
        bpnn.cat([bpnn.ones(1), "a"])
    a, b = bpnn.ones(2, requires_grad=True), bpnn.ones(3, dtype=bpnn.float64, requires_grad=True)
    bpnn.cat([a, b]).sum().backward()
    assert a.grad.dtype == bpnn.float32 and b.grad.dtype == bpnn.float64


def test_errors():
    x = bpnn.ones(2, 3)
    for wrong, error in [
        (lambda: x.permute(0, 0), RuntimeError), (lambda: x.permute(0), RuntimeError), (lambda: x.transpose(0, 2), IndexError),
        (lambda: x.unsqueeze(4), IndexError), (lambda: x.expand(2), RuntimeError), (lambda: x.expand(4, 3), RuntimeError),
        (lambda: x.narrow(1, 2, 2), RuntimeError),
        (lambda: x.select(0, 2), IndexError), (lambda: x.diagonal(0, 1, 1), RuntimeError), (lambda: x.flatten(1, 0), RuntimeError),
        (lambda: x.unflatten(1, (2, 2)), RuntimeError), (lambda: bpnn.ones(2, 2, 2).t(), RuntimeError),
        (lambda: bpnn.ones(3).mT, RuntimeError),
        (lambda: x.repeat(2), RuntimeError), (lambda: bpnn.ones(3).tril(), RuntimeError), (lambda: x.roll((1, 1), 0), RuntimeError),
        (lambda: x.movedim(0, (0, 1)), RuntimeError),
    ]:
        with pytest.raises(error):
            wrong()
