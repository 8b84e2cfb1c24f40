"""group_norm, instance_norm, local_response_norm and normalize against their formulas in float64."""
import bpnn
import numpy as np
import pytest

from bpcore.group_norm import group_norm, instance_norm
from bpcore.norm import local_response_norm, normalize
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Shape and groups.
GROUPS = [((3, 4), 2), ((2, 17, 31), 1), ((5, 6, 3, 11), 3), ((2, 6, 33, 32), 6), ((1, 3, 2, 2, 2), 3), ((2, 4, 50, 50), 2)]
INSTANCES = [(3, 4, 2), (2, 17, 31), (5, 1, 3, 11), (2, 3, 33, 32), (2, 3, 3, 3, 3), (1, 2, 50, 50)]


def arrays(shape, dtype):
    """x, w, b, dy"""
    x, w, b = RNG.normal(size=shape) * 2 + 1, RNG.normal(size=shape[1]), RNG.normal(size=shape[1])
    return tuple(a.astype(dtype) for a in (x, w, b, RNG.normal(size=shape)))


def reference(x, w, b, dy, groups, eps=1e-5):
    """y, dx, dw, db in float64."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    form, axes = (1, -1) + (1,) * (x.ndim - 2), (0, *range(2, x.ndim))
    split = (x.shape[0], groups, -1)
    rows = x.reshape(split)
    rstd = 1 / np.sqrt(rows.var(-1, keepdims=True) + eps)
    h = (rows - rows.mean(-1, keepdims=True)) * rstd
    g = (dy * w.reshape(form)).reshape(split)
    dx = (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True)) * rstd
    h = h.reshape(x.shape)
    return h * w.reshape(form) + b.reshape(form), dx.reshape(x.shape), (dy * h).sum(axes), dy.sum(axes)


def check(f, shape, groups, dtype):
    x, w, b, dy = arrays(shape, dtype)
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = f(*leaves)
    y.backward(bpnn.tensor(dy))
    assert y.dtype == dtype and y.shape == shape
    tolerance = 3e-5 if dtype == np.float32 else 1e-10
    results = [y.detach(), *(t.grad for t in leaves)]
    for ours, theirs in zip(results, reference(x, w, b, dy, groups), strict=True):
        scale = max(1, np.abs(theirs).max())
        np.testing.assert_allclose(ours.numpy() / scale, theirs / scale, rtol=tolerance, atol=tolerance)


@BOTH
@pytest.mark.parametrize(("shape", "groups"), GROUPS)
def test_group_norm(shape, groups, dtype):
    check(lambda x, w, b: group_norm(x, groups, w, b), shape, groups, dtype)


@BOTH
@pytest.mark.parametrize("shape", INSTANCES)
def test_instance_norm(shape, dtype):
    check(lambda x, w, b: instance_norm(x, None, None, w, b), shape, shape[1], dtype)


@pytest.mark.parametrize("needed", range(1, 8))
def test_any_subset_of_gradients(needed):
    x, w, b, dy = arrays((2, 4, 3, 2), np.float64)
    leaves = [bpnn.tensor(a, requires_grad=bool(needed >> i & 1)) for i, a in enumerate((x, w, b))]
    group_norm(leaves[0], 2, *leaves[1:]).backward(bpnn.tensor(dy))
    for t, expected in zip(leaves, reference(x, w, b, dy, 2)[1:], strict=True):
        assert (t.grad is not None) == t.requires_grad
        if t.requires_grad:
            np.testing.assert_allclose(t.grad.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_gradcheck():
    x, w, b, _ = arrays((2, 4, 3, 2), np.float64)
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b)]
    bpnn.autograd.gradcheck(lambda x, w, b: group_norm(x, 2, w, b), leaves)
    bpnn.autograd.gradcheck(lambda x, w, b: instance_norm(x, None, None, w, b), leaves)
    bpnn.autograd.gradcheck(lambda x: group_norm(x, 1), leaves[:1])
    for size in (1, 2, 3, 9):
        bpnn.autograd.gradcheck(lambda x: local_response_norm(x, size, 0.3, 0.75, 1.5), leaves[:1])  # noqa: B023
        bpnn.autograd.gradcheck(lambda x: local_response_norm(x, size, 0.3, 0.6, 1.5), leaves[:1])  # noqa: B023
    bpnn.autograd.gradcheck(normalize, leaves[:1])


@BOTH
def test_layouts(dtype):
    x, w, b, dy = arrays((3, 4, 5, 6), dtype)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    functions = (lambda t: group_norm(t, 2, bpnn.tensor(w), bpnn.tensor(b)), instance_norm, lambda t: local_response_norm(t, 3))
    for f in (*functions, normalize):
        for view in (last, np.repeat(x, 2, 3)[..., ::2], x[::-1], np.broadcast_to(x[:1], x.shape)):
            results = []
            for array in (view, view.copy()):
                t = bpnn.from_numpy(array)
                y = f(t.requires_grad_())
                y.backward(bpnn.from_numpy(np.asfortranarray(dy)))
                results.append((y.detach().numpy(), t.grad.numpy()))
            for one, two in zip(*results, strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)


@BOTH
def test_one_thread_and_two_give_the_same_bits(dtype):
    x, w, b, dy = arrays((16, 32, 31, 33), dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        for groups in (4, 32):
            leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b)]
            y = group_norm(leaves[0], groups, *leaves[1:])
            y.backward(bpnn.tensor(dy))
            results.append([y.detach().numpy(), *(t.grad.numpy() for t in leaves)])
    for one, two in zip(results[0] + results[1], results[2] + results[3], strict=True):
        np.testing.assert_array_equal(one, two)


def test_large_mean():
    x = (RNG.normal(size=(3, 4, 40, 40)) + 1e4).astype(np.float32)
    one = np.ones(4)
    for groups in (2, 4):
        y = group_norm(bpnn.tensor(x), groups).numpy()
        np.testing.assert_allclose(y, reference(x, one, 0 * one, x, groups)[0], atol=1e-4)


@BOTH
def test_running_statistics(dtype):
    x, w, b, _ = arrays((4, 3, 5, 6), dtype)
    mean, var = RNG.normal(size=3).astype(dtype), RNG.uniform(1, 2, 3).astype(dtype)
    running = bpnn.tensor(mean), bpnn.tensor(var)
    instance_norm(bpnn.tensor(x), *running, None, None, True, 0.3)
    np.testing.assert_allclose(running[0].numpy(), 0.7 * mean + 0.3 * x.mean((2, 3)).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(running[1].numpy(), 0.7 * var + 0.3 * x.var((2, 3), ddof=1).mean(0), rtol=1e-5)
    y = instance_norm(bpnn.tensor(x), bpnn.tensor(mean), bpnn.tensor(var), bpnn.tensor(w), bpnn.tensor(b), False).numpy()
    m, s, w, b = (a.reshape(1, 3, 1, 1) for a in (mean, np.sqrt(var + 1e-5), w, b))
    np.testing.assert_allclose(y, (x - m) / s * w + b, rtol=1e-4, atol=1e-4)


@BOTH
@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (0, 4, 2, 2)])
def test_empty(shape, dtype):
    for f in (lambda t, w: group_norm(t, 2, w), lambda t, w: instance_norm(t, None, None, w)):
        t, w = bpnn.zeros(*shape, dtype=dtype, requires_grad=True), bpnn.ones(4, dtype=dtype, requires_grad=True)
        y = f(t, w)
        y.backward(bpnn.zeros(*shape, dtype=dtype))
        assert y.shape == t.grad.shape == shape and w.grad.tolist() == [0] * 4


def test_errors():
    x = bpnn.zeros(2, 6, 3)
    with pytest.raises(RuntimeError, match="num_groups: expected a divisor of the 6 channels"):
        group_norm(x, 4)
    with pytest.raises(RuntimeError, match="num_groups"):
        group_norm(x, 0)
    with pytest.raises(ValueError, match="input: expected more than 1 value per group"):
        group_norm(bpnn.zeros(1, 6), 6)
    with pytest.raises(RuntimeError, match=r"weight: expected shape \(6,\), got \(3,\)"):
        group_norm(x, 2, bpnn.ones(3))
    with pytest.raises(ValueError, match="input: expected more than 1 spatial element"):
        instance_norm(bpnn.zeros(2, 3, 1))
    with pytest.raises(RuntimeError, match="running_mean, running_var: expected tensors where use_input_stats is False"):
        instance_norm(x, use_input_stats=False)
    with pytest.raises(RuntimeError, match=r"running_mean: expected shape \(6,\), got \(3,\)"):
        instance_norm(x, bpnn.zeros(3), bpnn.ones(3))
    with pytest.raises(ValueError, match="input: expected shape .* at least three axes"):
        local_response_norm(bpnn.zeros(2, 3), 2)
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        local_response_norm(x, 0)
    for f in (lambda t: group_norm(t, 2), instance_norm, lambda t: local_response_norm(t, 2)):
        with pytest.raises(TypeError, match="input: expected a floating-point tensor, got int64"):
            f(bpnn.zeros(2, 6, 3, dtype=np.int64))


def test_half_types():
    x, w, b, _ = (bpnn.tensor(a).to(np.float16) for a in arrays((2, 4, 3, 5), np.float32))
    wide = [t.float().numpy() for t in (x, w, b)]
    y = group_norm(x.requires_grad_(), 2, w, b)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float16
    np.testing.assert_allclose(y.detach().float().numpy(), reference(*wide, wide[0], 2)[0], rtol=3e-3, atol=3e-3)
    assert instance_norm(x, None, None, w, b).dtype == local_response_norm(x, 2).dtype == np.float16


@BOTH
@pytest.mark.parametrize("size", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 17, 5, 6), (1, 1, 2, 2, 2)])
def test_local_response_norm(shape, size, dtype):
    x = RNG.normal(size=shape).astype(dtype) * 3
    squares, total = x.astype(np.float64) ** 2, np.zeros(shape)
    for c in range(shape[1]):
        for i in range(max(0, c - size // 2), min(shape[1], c + (size - 1) // 2 + 1)):
            total[:, c] += squares[:, i]
    for beta in (0.75, 0.5):
        y = local_response_norm(bpnn.tensor(x), size, 0.2, beta, 1.5).numpy()
        assert y.dtype == dtype
        np.testing.assert_allclose(y, x * (1.5 + 0.2 / size * total) ** -beta, rtol=3e-6 if dtype == np.float32 else 1e-12)


def test_normalize():
    x = RNG.normal(size=(3, 4, 5))
    x[1, :, 2] = 0
    for p, dim in ((2.0, 1), (1.0, -1), (np.inf, 0), (3.0, (0, 2))):
        expected = np.linalg.norm(x, p, dim, keepdims=True) if isinstance(dim, int) else \
            (np.abs(x) ** p).sum(dim, keepdims=True) ** (1 / p)
        np.testing.assert_allclose(normalize(bpnn.tensor(x), p, dim).numpy(), x / np.maximum(expected, 1e-12), rtol=1e-12)


@pytest.mark.rivals
@BOTH
@pytest.mark.parametrize(("shape", "groups"), GROUPS)
def test_torch_agrees(shape, groups, dtype):
    torch = pytest.importorskip("torch")
    x, w, b, dy = arrays(shape, dtype)
    theirs = torch.nn.functional
    pairs = [(lambda x, w, b: group_norm(x, groups, w, b), lambda x, w, b: theirs.group_norm(x, groups, w, b))]
    if len(shape) > 2:
        pairs.append((lambda x, w, b: instance_norm(x, None, None, w, b),
                      lambda x, w, b: theirs.instance_norm(x, None, None, w, b)))
        pairs.append((lambda x, w, b: local_response_norm(x, 3) * w.sum() + b.sum(),
                      lambda x, w, b: theirs.local_response_norm(x, 3) * w.sum() + b.sum()))
    for pair in pairs:
        results = []
        for tensor, f in zip((bpnn.tensor, torch.tensor), pair, strict=True):
            leaves = [tensor(a, requires_grad=True) for a in (x, w, b)]
            y = f(*leaves)
            y.backward(tensor(dy))
            results.append([y.detach().numpy(), *(t.grad.numpy() for t in leaves)])
        for one, two in zip(*results, strict=True):
            scale, tolerance = max(1, np.abs(two).max()), 1e-4 if dtype == np.float32 else 1e-9
            np.testing.assert_allclose(one / scale, two / scale, rtol=tolerance, atol=tolerance / 4)
