"""Backward: order, accumulation, release, hooks, versions, views."""
import gc
import threading
import weakref

import numpy as np
import pytest

import bpnn
from bpnn.autograd import gradcheck


def leaf(*values):
    return bpnn.tensor(values, dtype=bpnn.float64, requires_grad=True)


def test_shared_subgraphs_add_up():
    x = leaf(2.0, 3.0)
    y = x * x
    z = y + y * x + y.sum() * x
    z.sum().backward()
    a, b = 2.0, 3.0
    both = a * a + b * b
    expected = [2 * a + 3 * a * a + 2 * a * (a + b) + both, 2 * b + 3 * b * b + 2 * b * (a + b) + both]
    np.testing.assert_allclose(x.grad.numpy(), expected)


def test_gradients_accumulate_in_the_same_memory():
    x = leaf(1.0, 2.0)
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad is first and first.tolist() == [5, 5]
    x.grad = None
    (x * 1).backward(bpnn.tensor([1.0, 2.0], dtype=bpnn.float64))
    assert x.grad.tolist() == [1, 2] and first.tolist() == [5, 5]


def test_gradients_never_alias():
    a, b, c = (bpnn.ones(3, 4, requires_grad=True) for _ in range(3))
    d = bpnn.ones(4, 3, requires_grad=True)
    out = a + b + (c - d.T) + a.view(4, 3).reshape(3, 4)
    seed = bpnn.ones(3, 4)
    out.backward(seed)
    grads = [t.grad.numpy() for t in (a, b, c, d)]
    for i, one in enumerate(grads):
        assert one.flags.c_contiguous and one.flags.writeable and not np.shares_memory(one, seed.numpy())
        for other in grads[:i]:
            assert not np.shares_memory(one, other)
    a.grad.zero_()
    assert b.grad.sum().item() == 12 and seed.sum().item() == 12


def test_gradients_of_expanded_leaves_are_whole():
    x = bpnn.ones(3, requires_grad=True)
    x.sum().backward()
    assert x.grad.is_contiguous() and x.grad.numpy().flags.writeable and x.grad.numpy().strides == (4,)
    x.grad.add_(1)
    y = bpnn.ones((), requires_grad=True)
    y.expand(2, 3).sum().backward()
    assert y.grad.shape == () and y.grad.item() == 6


@pytest.mark.parametrize(
    "step", [lambda x: x + 1, lambda x: x * 1.0001, lambda x: x.view(1), lambda x: bpnn.maximum(x, x * 0.5), lambda x: x[:]]
)
def test_long_chains(step):
    x = bpnn.ones(1, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = step(y)
    y.backward()
    assert x.grad.item() >= 0.99
    del y                                          # freeing the chain must not recurse either
    y = x
    for _ in range(100_000):
        y = step(y)
    del y


def test_the_tape_is_freed():
    x = bpnn.ones(1000, requires_grad=True)
    before = bpnn.memory_stats()["in_use"]
    for _ in range(3):
        y = (x * 2).exp().sin().sum()
        y.backward()
    del y
    assert bpnn.memory_stats()["in_use"] <= before + 2 * 4096
    gc.disable()                                   # no cycles: what backward leaves goes at once
    try:
        z = x * 2
        node = weakref.ref(z.grad_fn)
        z.sum().backward()
        del z
        assert node() is None
    finally:
        gc.enable()


def test_a_second_backward():
    x = leaf(2.0)
    y = (x * x).exp()
    y.backward(retain_graph=True)
    first = x.grad.item()
    y.backward()
    assert x.grad.item() == 2 * first
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()
    z = x + 1                                      # saves nothing: may be asked again
    z.backward()
    z.backward()


def test_create_graph_is_refused():
    with pytest.raises(RuntimeError, match="create_graph"):
        (leaf(1.0) * 2).backward(create_graph=True)


def test_what_backward_starts_from():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="scalar"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="shape"):
        (x * 2).backward(bpnn.ones(3))
    with pytest.raises(RuntimeError, match="does not require grad"):
        bpnn.ones(1).backward()
    x[:1].backward()
    assert x.grad.tolist() == [1, 0]
    y = leaf(3.0)
    y.backward()
    assert y.grad.tolist() == [1]


def test_backward_to_chosen_inputs():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    z = y * y
    z.backward(inputs=[w], retain_graph=True)
    assert x.grad is None and w.grad.item() == 2 * 6 * 2
    gy, gx = bpnn.autograd.grad(z, [y, x])
    assert gy.item() == 12 and gx.item() == 36 and x.grad is None


def test_hooks():
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    handle = y.register_hook(lambda g: seen.append(("y", g.tolist())))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: seen.append(("x", g.tolist())))
    x.register_post_accumulate_grad_hook(lambda t: seen.append(("after", t.grad.tolist())))
    y.sum().backward(retain_graph=True)
    assert seen == [("y", [1, 1]), ("x", [30, 30]), ("after", [30, 30])]
    handle.remove()
    handle.remove()
    y.sum().backward()
    assert len(seen) == 5 and seen[-1] == ("after", [60, 60])
    z = x * 1
    z.register_hook(lambda g: g[:1])
    with pytest.raises(RuntimeError, match="hook returned"):
        z.sum().backward()


def test_retain_grad():
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    (y * y).backward()
    assert y.grad.item() == 4 and x.grad.item() == 8 and not y.is_leaf


def test_modes():
    x = leaf(1.0)
    with bpnn.no_grad():
        assert not (x * 2).requires_grad
        with bpnn.enable_grad():
            assert (x * 2).requires_grad
        assert not bpnn.is_grad_enabled()
    elsewhere = []
    with bpnn.no_grad():
        thread = threading.Thread(target=lambda: elsewhere.append(bpnn.is_grad_enabled()))
        thread.start()
        thread.join()
    assert elsewhere == [True] and bpnn.is_grad_enabled()
    assert not x.detach().requires_grad and x.detach()._array is x._array


# --- in-place changes -----------------------------------------------------------------------------------------------------

def test_changed_values_are_not_used():
    for function in (
        lambda x: x * x, lambda x: x.sin(), lambda x: x ** 3, lambda x: x @ x, lambda x: bpnn.maximum(x, x * 2), lambda x: x.std(),
        lambda x: x.prod(), lambda x: x.logsumexp(0), lambda x: x.norm(),
    ):
        x = leaf(1.0, 2.0)
        y = function(x)
        with bpnn.no_grad():
            x.add_(1)
        with pytest.raises(RuntimeError, match="in-place"):
            y.sum().backward()
    for function in (bpnn.exp, bpnn.sqrt, bpnn.tan, bpnn.reciprocal):          # these save their result instead
        x = leaf(1.0, 2.0)
        y = function(x)
        with bpnn.no_grad():
            x.add_(1)
        y.sum().backward(retain_graph=True)
        with bpnn.no_grad():
            y.add_(1)
        with pytest.raises(RuntimeError, match="in-place"):
            y.sum().backward()


def test_a_change_through_any_alias_counts():
    for alias in (lambda x: x.detach(), lambda x: x.view(2), lambda x: x[1:], lambda x: x.T, lambda x: x.detach()[0]):
        x = leaf(1.0, 2.0)
        y = x * x
        with bpnn.no_grad():
            alias(x).zero_()
        with pytest.raises(RuntimeError, match="in-place"):
            y.sum().backward()


def test_leaves_change_off_the_tape_only():
    x = leaf(1.0, 2.0)
    for change in (
        lambda: x.add_(1), lambda: x.zero_(), lambda: x.__setitem__(0, 1), lambda: x[0].zero_(), lambda: x.view(2).mul_(x.detach()),
    ):
        with pytest.raises(RuntimeError, match="leaf"):
            change()
    assert x.tolist() == [1, 2]
    with bpnn.no_grad():
        x -= 1
    assert x.tolist() == [0, 1] and x.is_leaf and x.requires_grad


def test_constants_join_the_tape():
    x, y = leaf(1.0, 2.0), bpnn.zeros(3, dtype=bpnn.float64)
    y[1:] += x
    y[0] = x[1]
    assert y.requires_grad and not y.is_leaf
    (y * bpnn.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [10, 101]


PROGRAMS = [
    lambda x: x[1:].mul_(3), lambda x: x.view(2, 3)[:, 1].exp_(), lambda x: x.view(2, 3).T[1].sin_().mul_(2),
    lambda x: x[::2].copy_(x[1::2].clone()),
    lambda x: x.view(3, 2)[0].zero_(), lambda x: x[2:].unsqueeze(0).add_(x[:4].clone().unsqueeze(0)),
    lambda x: x[:3].view(3, 1)[1].fill_(x[5].clone()),
    lambda x: x.diagonal() if x.ndim > 1 else x[3].div_(2), lambda x: x.view(2, 3).transpose(0, 1)[0, 1].add_(1),
    lambda x: x.__setitem__(slice(0, 2), x[2:4] * 2),
    lambda x: x.split(2)[1].neg_(), lambda x: [row.mul_(i + 1) for i, row in enumerate(x.view(3, 2).unbind())],
]


@pytest.mark.parametrize("program", PROGRAMS, ids=[str(i) for i in range(len(PROGRAMS))])
def test_changes_through_views(program):
    def run(x):
        y = x * 1.5
        early = y[1:5]                             # views taken before see the change
        program(y)
        late = y.view(2, 3)
        return y.sin().sum() + (early * early).sum() + late[1].exp().sum()

    assert gradcheck(run, leaf(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))


def test_views_of_views_share_one_base():
    def run(x):
        y = x + 0
        a = y.view(2, 3)
        b = a[0]
        c = b[1:]
        c.mul_(2)
        a[1].add_(b)
        b.exp_()
        return (a * y.view(2, 3)).sum() + c.sum()

    assert gradcheck(run, leaf(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))


def test_a_view_taken_off_the_tape():
    x = leaf(1.0, 2.0) * 1
    with bpnn.no_grad():
        view = x[:1]
    assert not view.requires_grad
    with pytest.raises(RuntimeError, match="without the tape"):
        view.add_(leaf(1.0))


def test_several_outputs():
    x = leaf(3.0, 1.0, 2.0)
    values, indices = x.sort()
    assert not indices.requires_grad
    (values * bpnn.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [100, 1, 10]
    a, b = leaf(1.0, 2.0).unbind()
    (a * b).backward()


def test_types_of_gradients():
    x, y = bpnn.ones(2, requires_grad=True), bpnn.ones(2, dtype=bpnn.float64, requires_grad=True)
    (x * y + x).sum().backward()
    assert x.grad.dtype == bpnn.float32 and y.grad.dtype == bpnn.float64
    half = bpnn.ones(2, dtype=bpnn.float16, requires_grad=True)
    (half * x.detach()).sum().backward()
    assert half.grad.dtype == bpnn.float16


def test_threads_walk_tapes_of_their_own():
    results = [None] * 4

    def work(i):
        x = bpnn.full((50, 50), float(i + 1), requires_grad=True)
        for _ in range(20):
            x.grad = None
            ((x * x).sum() + (x @ x).mean()).backward()
        results[i] = x.grad.numpy().copy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, grad in enumerate(results):
        np.testing.assert_allclose(grad, 2 * (i + 1) + 2 * (i + 1) * 50 / 2500, rtol=1e-5)


def test_next_functions():
    x = leaf(1.0)
    y = (x * 2).exp()
    (node, slot), = y.grad_fn.next_functions
    assert node.name() == "MulBackward" and slot == 0 and repr(y.grad_fn) == "<ExpBackward>"
    assert node.next_functions[0][0].name() == "AccumulateBackward"
