"""utils.checkpoint: the same numbers as without, less memory."""
import collections

import bpnn
import numpy as np
import pytest
from bpnn import nn
from bpnn.utils.checkpoint import checkpoint, checkpoint_sequential

from bpcore.memory import reset_peak

RNG = np.random.default_rng(0)


def leaf(*shape):
    return bpnn.tensor(RNG.normal(size=shape), requires_grad=True)


def block(width, p=0.0):
    up, down = nn.Linear(width, 2 * width, dtype=bpnn.float64), nn.Linear(2 * width, width, dtype=bpnn.float64)
    return nn.Sequential(up, nn.GELU(), nn.Dropout(p), down)


def both(run, *leaves):
    """The outputs and gradients of `run(call)` with plain calls and with checkpoints, from the same seed."""
    results = []
    for call in (lambda f, *a, **k: f(*a, **k), checkpoint):
        bpnn.manual_seed(7)
        for t in leaves:
            t.grad = None
        out = run(call)
        (out * bpnn.arange(out.numel(), dtype=bpnn.float64).reshape(out.shape)).sum().backward()
        gradients = [None if t.grad is None else t.grad.numpy().copy() for t in leaves]
        results.append([out.detach().numpy(), *gradients, bpnn.rand(3).numpy()])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_module_with_dropout():
    net, x = block(6, p=0.4), leaf(5, 6)
    both(lambda call: call(net, x), x, *net.parameters())
    both(lambda call: call(net, call(net, x).tanh()), x, *net.parameters())     # the same parameters twice
    assert all(np.abs(p.grad.numpy()).sum() > 0 for p in net.parameters())


def test_input_without_gradient():
    net, x = block(6), bpnn.tensor(RNG.normal(size=(5, 6)))
    both(lambda call: call(net, x), *net.parameters())
    assert not checkpoint(lambda x: x * 2, x).requires_grad
    with bpnn.no_grad():
        assert not checkpoint(net, x).requires_grad


def test_nested():
    first, second, x = block(4, 0.2), block(4, 0.2), leaf(3, 4)

    def run(call):
        return call(lambda x: call(second, call(first, x) + x).sin(), x)

    both(run, x, *first.parameters(), *second.parameters())


def test_nests_of_arguments_and_outputs():
    a, b, c = leaf(3, 2), leaf(3, 2), leaf(3, 2)
    Pair = collections.namedtuple("Pair", "left right")

    def function(pair, scale, table, other=None, flag=False):
        assert flag and scale == 3 and table["mask"].dtype == bool
        return {"sum": pair.left * scale + other, "pair": Pair(pair.right * table["c"], [pair.left, "name"]), "mask": table["mask"]}

    def run(call):
        out = call(function, Pair(a, b), 3, {"c": c, "mask": bpnn.ones(3, dtype=bool)}, other=b, flag=True)
        assert type(out["pair"]) is Pair and out["pair"].right[1] == "name" and out["mask"].dtype == bool
        return out["sum"] + out["pair"].left * out["pair"].right[0]

    both(run, a, b, c)


def test_an_output_without_gradient_and_one_unused():
    x = leaf(4)
    first, second, third = checkpoint(lambda x: (x * 2, x.exp(), x.detach() * 3), x)
    assert first.requires_grad and second.requires_grad and not third.requires_grad
    second.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp(x.detach().numpy()))


def test_gradients_of_inputs_in_the_middle():
    net, x = block(4), leaf(3, 4)
    hidden = x * 2
    seen = []
    hidden.register_hook(lambda g: seen.append(g.numpy().copy()))
    x.register_hook(lambda g: g * 10)
    weight = net[0].weight
    weight.register_hook(lambda g: g * 0)
    after = []
    weight.register_post_accumulate_grad_hook(lambda t: after.append(t.grad.numpy().copy()))
    out = checkpoint(net, hidden)
    by_grad = bpnn.autograd.grad(out.sum(), [hidden, net[3].bias], retain_graph=True)
    np.testing.assert_allclose(by_grad[1].numpy(), 3)
    seen.clear()
    out.sum().backward()
    np.testing.assert_array_equal(seen[0], by_grad[0].numpy())
    np.testing.assert_allclose(x.grad.numpy(), 20 * seen[0])
    assert len(after) == 1 and not after[0].any()


def test_gradcheck():
    w = leaf(3, 3)
    bpnn.autograd.gradcheck(lambda x, w: checkpoint(lambda x: (x @ w).tanh() @ w, x), (leaf(2, 3), w))


def test_retain_graph_and_accumulation():
    net, x = block(4, 0.3), leaf(3, 4)
    loss = checkpoint(net, x).sum()
    loss.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * first)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_random_numbers():
    x = bpnn.ones(1000, requires_grad=True)
    y = checkpoint(nn.Dropout(0.5), x)
    state = bpnn.get_rng_state()
    y.sum().backward()
    np.testing.assert_array_equal(bpnn.get_rng_state().numpy(), state.numpy())     # as if nothing had been drawn
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    x.grad = None
    y = checkpoint(nn.Dropout(0.5), x, preserve_rng_state=False)
    y.sum().backward()
    assert (x.grad.numpy() != y.detach().numpy()).any()


@pytest.mark.parametrize("segments", [1, 2, 3, 5])
def test_sequential(segments):
    net, x = nn.Sequential(*(block(4, 0.2) for _ in range(5))), leaf(3, 4)

    def run(call):
        return call(net, x) if call is not checkpoint else checkpoint_sequential(net, segments, x, use_reentrant=False)

    both(run, x, *net.parameters())
    both(lambda call: run(call) if call is not checkpoint else checkpoint_sequential(list(net), segments, x), x)


def test_memory_falls():
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64), nn.Tanh()) for _ in range(8)))
    x = bpnn.tensor(RNG.normal(size=(2000, 64)).astype(np.float32), requires_grad=True)
    peaks = []
    for run in (lambda: layers(x), lambda: checkpoint_sequential(layers, 8, x)):
        for p in layers.parameters():
            p.grad = None
        x.grad = None
        before = bpnn.memory_stats()["in_use"]
        reset_peak()
        run().sum().backward()
        peaks.append(bpnn.memory_stats()["peak"] - before)
    assert peaks[1] < 0.5 * peaks[0]


def test_errors():
    x = leaf(3)
    outside = x * 2
    with pytest.raises(RuntimeError, match="pass it as an argument"):
        checkpoint(lambda x: x * outside, x)
    w = leaf(3)
    out = checkpoint(lambda x: x * w, x)
    with bpnn.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        out.sum().backward()
    sizes = iter([2, 3])
    out = checkpoint(lambda x: x[:next(sizes)] * 1, x)
    with pytest.raises(RuntimeError, match="second call"):
        out.sum().backward()
    with pytest.raises(ValueError, match="segments"):
        checkpoint_sequential([nn.Tanh()], 2, x)
