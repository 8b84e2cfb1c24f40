"""Gradients of which only some rows are there: in the engine, in optimizers, in the modules that make them."""
import numpy as np
import pytest

import bpnn
from bpcore.sparse import SparseTensor
from bpnn import nn, optim
from bpnn.nn import functional as F
from bpnn.nn.utils import clip_grad_norm_, clip_grad_value_

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 30, 5
TABLE = RNG.normal(size=(HEIGHT, WIDTH))


# --- the tensor --------------------------------------------------------------------------------------------------------


def test_sparse_tensor():
    s = SparseTensor([[3, 0, 3]], np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), (4, 2))
    assert s.is_sparse and not s.to_dense().is_sparse and s.is_coalesced() and s.coalesce() is s and not s.requires_grad
    assert s.shape == s.size() == (4, 2) and s.size(0) == 4 and s.ndim == s.dim() == 2 and s.numel() == 8
    assert s.sparse_dim() == 1 and s.dense_dim() == 1 and s._nnz() == 2 and s.dtype == np.float64
    assert s.indices().tolist() == [[0, 3]] and s.values().tolist() == [[3, 4], [6, 8]]
    assert s.to_dense().tolist() == [[3, 4], [0, 0], [0, 0], [6, 8]]
    assert (np.asarray(s) == s.to_dense().numpy()).all()
    assert repr(s) == "SparseTensor(indices=[0, 3], values=[[3.0, 4.0], [6.0, 8.0]], shape=(4, 2))"
    total = s + SparseTensor([1, 3], np.ones((2, 2)), (4, 2))
    assert total.indices().tolist() == [[0, 1, 3]] and total.values().tolist() == [[3, 4], [1, 1], [7, 9]]
    copy = s.clone()
    s.values().numpy()[:] = 0
    assert copy.values().tolist() == [[3, 4], [6, 8]]
    assert s.zero_()._nnz() == 0 and s.to_dense().tolist() == [[0, 0]] * 4
    with pytest.raises(IndexError, match=r"indices: expected rows in \[0, 3\], got 0 to 4"):
        SparseTensor([0, 4], np.ones((2, 2)), (4, 2))
    with pytest.raises(ValueError, match=r"values: expected \(2, 3\) for shape \(4, 3\), got \(2, 2\)"):
        SparseTensor([0, 1], np.ones((2, 2)), (4, 3))
    with pytest.raises(TypeError, match="expected a Tensor, an array or a number, got SparseTensor"):
        F.relu(s)


# --- the engine --------------------------------------------------------------------------------------------------------


def counts(*indices):
    return np.bincount(np.concatenate([np.ravel(i) for i in indices]), minlength=HEIGHT)[:, None] * np.ones(WIDTH)


@pytest.mark.parametrize("order", ["ss", "sd", "ds", "ssd", "dss"])
def test_gradients_add_up(order):
    indices = [RNG.integers(0, HEIGHT, 4) for _ in order]
    w = bpnn.tensor(TABLE, requires_grad=True)
    for kind, index in zip(order, indices, strict=True):        # one backward after the other
        F.embedding(bpnn.from_numpy(index), w, sparse=kind == "s").sum().backward()
    np.testing.assert_array_equal(np.asarray(w.grad), counts(*indices))
    assert (type(w.grad) is SparseTensor) == ("d" not in order)
    parts = [F.embedding(bpnn.from_numpy(i), w, sparse=k == "s").sum() for k, i in zip(order, indices, strict=True)]
    w.grad = None
    sum(parts).backward()                                       # in one backward
    np.testing.assert_array_equal(np.asarray(w.grad), counts(*indices))


def test_through_other_operations():
    w, index = bpnn.tensor(TABLE, requires_grad=True), bpnn.tensor([1, 1, 4])
    F.embedding(index, w * 2, sparse=True).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), 2 * counts([1, 1, 4]))
    w.grad = None
    loss = F.embedding(index, w, sparse=True).sum()
    (gradient,) = bpnn.autograd.grad(loss, w, retain_graph=True)
    assert type(gradient) is SparseTensor and w.grad is None
    loss.backward(inputs=[w], retain_graph=True)
    np.testing.assert_array_equal(w.grad.numpy(), counts([1, 1, 4]))
    seen = []
    w.grad = None
    w.register_hook(lambda g: seen.append(type(g)))
    w.register_hook(lambda g: SparseTensor(g.indices(), 3 * g.values(), g.shape))
    w.register_post_accumulate_grad_hook(lambda t: seen.append(type(t.grad)))
    loss.backward()
    assert seen == [SparseTensor] * 2
    np.testing.assert_array_equal(np.asarray(w.grad), 3 * counts([1, 1, 4]))


def test_zero_grad():
    table = nn.Embedding(HEIGHT, WIDTH, sparse=True)
    optimizer = optim.SGD(table.parameters(), 0.1)
    for zero in (optimizer.zero_grad, table.zero_grad):
        for to_none in (True, False):
            table(bpnn.tensor([2, 5])).sum().backward()
            zero(set_to_none=to_none)
            assert table.weight.grad is None if to_none else table.weight.grad._nnz() == 0
    table(bpnn.tensor([2, 2])).sum().backward()
    assert table.weight.grad.indices().tolist() == [[2]] and table.weight.grad.values().tolist() == [[2] * WIDTH]


def test_clipping():
    w, other = bpnn.tensor(TABLE, requires_grad=True), bpnn.tensor(np.ones(3), requires_grad=True)
    loss = (F.embedding(bpnn.tensor([1, 1, 7]), w, sparse=True) * 3).sum() + (other * 2).sum()
    loss.backward(retain_graph=True)
    size = np.sqrt(WIDTH * (36 + 9) + 12)
    for p, norm in ((2.0, size), (1.0, WIDTH * 9 + 6), (float("inf"), 6)):
        w.grad = other.grad = None
        loss.backward(retain_graph=True)
        assert clip_grad_norm_([w, other], 1.0, norm_type=p).item() == pytest.approx(norm)
        np.testing.assert_allclose(w.grad.values().numpy()[:, 0], np.array([6, 3]) / (norm + 1e-6))
    w.grad = None
    loss.backward()
    clip_grad_value_([w], 4.0)
    assert w.grad.values().tolist() == [[4] * WIDTH, [3] * WIDTH]


# --- optimizers --------------------------------------------------------------------------------------------------------


def train(make, sparse, steps=5, dtype=np.float64, **step):
    rng = np.random.default_rng(1)
    table = nn.Embedding(HEIGHT, WIDTH, sparse=sparse, _weight=bpnn.tensor(TABLE.astype(dtype)))
    optimizer = make(table.parameters())
    for _ in range(steps):
        if not step.get("zero_grad"):
            optimizer.zero_grad()
        index, scale = rng.integers(0, HEIGHT, (2, 3)), rng.normal(size=(2, 3, WIDTH)).astype(dtype)
        (table(bpnn.from_numpy(index)) * bpnn.from_numpy(scale)).sum().backward()
        optimizer.step(**step)
    return table.weight.detach().numpy(), optimizer


LAZY = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda p: optim.Adagrad(p, 0.1, lr_decay=0.1),
}


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [{}, {"max_norm": 0.5}, {"zero_grad": True}], ids=str)
def test_rows_move_as_with_a_dense_gradient(name, dtype, step):
    dense, _ = train(LAZY[name], False, dtype=dtype, **step)
    sparse, optimizer = train(LAZY[name], True, dtype=dtype, **step)
    np.testing.assert_allclose(sparse, dense, rtol=1e-6 if dtype == np.float32 else 1e-12)
    if "max_norm" in step:
        assert optimizer.grad_norm > 0.5


def test_sparse_adam():
    """The formulas, for each row alone."""
    got, optimizer = train(lambda p: optim.SparseAdam(p, 0.1, (0.8, 0.9), 1e-3), True)
    rng, w = np.random.default_rng(1), TABLE.copy()
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 6):
        index, scale = rng.integers(0, HEIGHT, (2, 3)), rng.normal(size=(2, 3, WIDTH))
        g = np.zeros_like(w)
        np.add.at(g, index, scale)
        for row in np.unique(index):
            m[row] = 0.8 * m[row] + 0.2 * g[row]
            v[row] = 0.9 * v[row] + 0.1 * g[row] ** 2
            w[row] -= 0.1 * np.sqrt(1 - 0.9**t) / (1 - 0.8**t) * m[row] / (np.sqrt(v[row]) + 1e-3)
    np.testing.assert_allclose(got, w, rtol=1e-12)
    (state,) = optimizer.state_dict()["state"].values()
    assert state["step"].item() == 5
    np.testing.assert_allclose(state["exp_avg_sq"].numpy(), v, rtol=1e-12)
    other = optim.SparseAdam([bpnn.tensor(TABLE, requires_grad=True)])
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["betas"] == (0.8, 0.9)


def test_rows_that_are_not_used_do_not_change():
    for make in (LAZY["sgd"], LAZY["adagrad"], lambda p: optim.SparseAdam(p, 0.1)):
        table = nn.Embedding(HEIGHT, WIDTH, sparse=True)
        before = table.weight.detach().numpy().copy()
        optimizer = make(table.parameters())
        version = table.weight._version
        for _ in range(3):
            optimizer.zero_grad()
            table(bpnn.tensor([4, 8, 4])).sum().backward()
            optimizer.step()
        assert np.flatnonzero((table.weight.detach().numpy() != before).any(1)).tolist() == [4, 8]
        assert table.weight._version > version


def test_refusals():
    for name in ("Adam", "AdamW", "RMSprop", "Adadelta", "NAdam", "RAdam", "Adamax"):
        with pytest.raises(RuntimeError, match="does not support sparse gradients; SGD, Adagrad and SparseAdam do"):
            train(getattr(optim, name), True)
    for make in (optim.SGD, optim.Adagrad):
        with pytest.raises(RuntimeError, match="weight_decay: expected 0 with sparse gradients, got 0.5"):
            train(lambda p, make=make: make(p, weight_decay=0.5), True)
    with pytest.raises(RuntimeError, match="SparseAdam does not support dense gradients, please consider Adam instead"):
        train(optim.SparseAdam, False)
    for wrong in ({"lr": 0}, {"eps": 0}, {"betas": (1, 0.9)}):
        with pytest.raises(ValueError, match="Invalid"):
            optim.SparseAdam([bpnn.zeros(1, requires_grad=True)], **wrong)


# --- modules -----------------------------------------------------------------------------------------------------------


def test_modules():
    bpnn.manual_seed(0)
    table = nn.Embedding(5, 3, padding_idx=-1)
    assert table.padding_idx == 4 and table.weight[4].tolist() == [0, 0, 0] and table.weight.requires_grad
    assert repr(table) == "Embedding(5, 3, padding_idx=4)" and list(table.state_dict()) == ["weight"]
    assert table(bpnn.tensor([[0, 4]])).shape == (1, 2, 3)
    rows = bpnn.tensor(TABLE)
    fixed = nn.Embedding.from_pretrained(rows, padding_idx=1, sparse=True)
    assert not fixed.weight.requires_grad and fixed.weight.tolist() == TABLE.tolist() and fixed.sparse
    assert nn.Embedding.from_pretrained(rows, freeze=False).weight.requires_grad
    bag = nn.EmbeddingBag.from_pretrained(rows, mode="max", padding_idx=2)
    np.testing.assert_array_equal(bag(bpnn.tensor([[0, 1, 2]])).numpy(), TABLE[:2].max(0, keepdims=True))
    assert not bag.weight.requires_grad and repr(bag) == "EmbeddingBag(30, 5, padding_idx=2, mode='max')"
    bag = nn.EmbeddingBag(7, 2, include_last_offset=True, dtype=bpnn.float64)
    assert bag(bpnn.tensor([0, 1, 2]), bpnn.tensor([0, 1, 3])).shape == (2, 2) and bag.weight.dtype == np.float64
    with pytest.raises(ValueError, match=r"padding_idx: expected a row of the table, in \[-5, 4\], got 5"):
        nn.Embedding(5, 3, padding_idx=5)
    with pytest.raises(ValueError, match="mode: expected 'sum', 'mean' or 'max', got 'median'"):
        nn.EmbeddingBag(5, 3, mode="median")
    with pytest.raises(ValueError, match=r"embeddings: expected 2 axes \(rows, elements\), got shape \(3,\)"):
        nn.Embedding.from_pretrained(bpnn.zeros(3))


# --- PyTorch -----------------------------------------------------------------------------------------------------------


@pytest.mark.rivals
@pytest.mark.parametrize("name", [*LAZY, "sparse_adam"])
def test_torch_trains_alike(name):
    torch = pytest.importorskip("torch")
    makers = {
        "sgd": lambda o, p: o.SGD(p, 0.1), "momentum": lambda o, p: o.SGD(p, 0.1, momentum=0.9, dampening=0.2),
        "nesterov": lambda o, p: o.SGD(p, 0.1, momentum=0.9, nesterov=True, maximize=True),
        "adagrad": lambda o, p: o.Adagrad(p, 0.1, lr_decay=0.1), "sparse_adam": lambda o, p: o.SparseAdam(list(p), 0.1),
    }  # fmt: skip
    ours, _ = train(lambda p: makers[name](optim, p), True)
    table = torch.nn.Embedding(HEIGHT, WIDTH, sparse=True, _weight=torch.tensor(TABLE))
    optimizer, rng = makers[name](torch.optim, table.parameters()), np.random.default_rng(1)
    for _ in range(5):
        optimizer.zero_grad()
        index, scale = rng.integers(0, HEIGHT, (2, 3)), rng.normal(size=(2, 3, WIDTH))
        (table(torch.tensor(index)) * torch.tensor(scale)).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(ours, table.weight.detach().numpy(), rtol=1e-10)


@pytest.mark.rivals
@pytest.mark.parametrize("keywords", [
    {"padding_idx": 3}, {"max_norm": 1.5}, {"max_norm": 2.0, "norm_type": 1.0}, {"scale_grad_by_freq": True, "padding_idx": 0},
])  # fmt: skip
def test_torch_embedding(keywords):
    torch = pytest.importorskip("torch")
    index, dy = RNG.integers(0, HEIGHT, (4, 6)), RNG.normal(size=(4, 6, WIDTH))
    ours, theirs = bpnn.tensor(TABLE, requires_grad=True), torch.tensor(TABLE, requires_grad=True)
    y, z = F.embedding(bpnn.tensor(index), ours, **keywords), torch.nn.functional.embedding(torch.tensor(index), theirs, **keywords)
    y.backward(bpnn.tensor(dy))
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("size", [10, 1000])  # of the table: one that the batch fills, one of which it names few rows
def test_a_tied_table_gets_one_dense_gradient(size):
    """What an embedding gives to a table that something else uses too, in every way that gradients come out."""
    rng = np.random.default_rng(0)
    table, ids = rng.standard_normal((size, 3)), rng.integers(0, size, (2, 7))
    direct = rng.standard_normal((2, 7, size))

    def loss(w):
        x = F.embedding(bpnn.from_numpy(ids), w)
        return (F.linear(x, w) * bpnn.from_numpy(direct)).sum()

    x = table[ids]
    expected = np.einsum("btv,bth->vh", direct, x)
    np.add.at(expected, ids, direct @ table)
    w = bpnn.tensor(table, requires_grad=True)
    loss(w).backward()
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-12)
    loss(w).backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * expected, rtol=1e-12)
    (alone,) = bpnn.autograd.grad(F.embedding(bpnn.from_numpy(ids), w).sum(), w)
    assert type(alone) is bpnn.Tensor and alone.sum().item() == ids.size * 3
    seen = []
    v = bpnn.tensor(table, requires_grad=True)
    v.register_hook(lambda g: seen.append(type(g)))
    loss(v).backward()
    assert seen == [bpnn.Tensor]
    np.testing.assert_allclose(v.grad.numpy(), expected, rtol=1e-12)


def test_a_gradient_that_others_hold_is_not_changed_in_place():
    x = bpnn.tensor(np.arange(4.0), requires_grad=True)
    kept = []
    y = x * 2.0
    y.register_hook(lambda g: kept.append(g))
    (y + x + x).sum().backward()
    assert kept[0].tolist() == [1.0] * 4 and x.grad.tolist() == [4.0] * 4
