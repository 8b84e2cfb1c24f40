"""batch_norm against its formula in float64, and its fused forms against the composed ones."""
import bpnn
import numpy as np
import pytest
from bpnn.nn import functional as F

from bpcore.batch_norm import batch_norm
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
# The last two: planes longer than a piece; columns of several pieces and tiles.
SHAPES = [(4, 3), (2, 1, 1, 3), (31, 17), (33, 3, 1, 31), (5, 17, 32, 33), (1, 1, 7), (3, 4, 2, 5, 3), (2, 3, 70, 70), (130, 600)]
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def arrays(shape, dtype):
    """x, w, b, residual, dy, running mean and variance."""
    c = shape[1]
    x = (RNG.normal(size=shape) * 2 + 1).astype(dtype)
    w, b, mean = (RNG.normal(size=c).astype(dtype) for _ in range(3))
    r, dy = (RNG.normal(size=shape).astype(dtype) for _ in range(2))
    return x, w, b, r, dy, mean, RNG.uniform(0.5, 2, c).astype(dtype)


def reference(x, w, b, r, dy, mean, var, training, activation=None, eps=1e-5):
    """y, dx, dw, db, dr in float64; 1-D arguments may be None."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    axes, form = (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
    if training:
        mean, var = x.mean(axes), x.var(axes)
    w = np.ones(x.shape[1]) if w is None else w.astype(np.float64)
    rstd = 1 / np.sqrt(var.astype(np.float64) + eps)
    h = (x - mean.reshape(form)) * rstd.reshape(form)
    z = h * w.reshape(form) + (0 if b is None else b.reshape(form)) + (0 if r is None else r)
    high = {None: np.inf, "relu": np.inf, "relu6": 6}[activation]
    y = z if activation is None else np.clip(z, 0, high)
    g = dy if activation is None else np.where((z > 0) & (z < high), dy, 0)
    dh = g * w.reshape(form)
    dx = dh
    if training:
        dx = dh - dh.mean(axes, keepdims=True) - h * (dh * h).mean(axes, keepdims=True)
    return y, dx * rstd.reshape(form), (g * h).sum(axes), g.sum(axes), g


def tolerance(dtype):
    return {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-11}


def close(ours, expected, dtype):
    scale = max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(ours / scale, expected / scale, **tolerance(dtype))


@BOTH
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_gradients(shape, training, with_residual, activation, dtype):
    x, w, b, r, dy, mean, var = arrays(shape, dtype)
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b, r)]
    y = batch_norm(leaves[0], bpnn.tensor(mean), bpnn.tensor(var), leaves[1], leaves[2], training, 0.1, 1e-5,
                   residual=leaves[3] if with_residual else None, activation=activation)
    y.backward(bpnn.tensor(dy))
    expected = reference(x, w, b, r if with_residual else None, dy, mean, var, training, activation)
    assert y.dtype == dtype and y.shape == shape
    for ours, theirs in zip([y.detach(), *(t.grad for t in leaves)], expected, strict=True):
        if ours is not None:
            close(ours.numpy(), theirs, dtype)
    assert (leaves[3].grad is None) == (not with_residual)


@BOTH
@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 9, 10)])
def test_fused_equals_composed(shape, dtype):
    x, w, b, r, dy, mean, var = arrays(shape, dtype)
    for training in (False, True):
        for activation, after in (("relu", F.relu), ("relu6", F.relu6)):
            results = []
            for fused in (True, False):
                leaves = [bpnn.tensor(a * 3, requires_grad=True) for a in (x, w, b, r)]
                statistics = bpnn.tensor(mean), bpnn.tensor(var)
                if fused:
                    y = batch_norm(leaves[0], *statistics, *leaves[1:3], training, residual=leaves[3], activation=activation)
                else:
                    y = after(batch_norm(leaves[0], *statistics, *leaves[1:3], training) + leaves[3])
                y.backward(bpnn.tensor(dy))
                results.append([y.detach().numpy(), *(t.numpy() for t in statistics), *(t.grad.numpy() for t in leaves)])
            for one, two in zip(*results, strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("needed", range(1, 16))
@pytest.mark.parametrize("activation", [None, "relu"])
def test_any_subset_of_gradients(needed, activation):
    for shape in ((5, 3), (3, 3, 10, 10)):
        x, w, b, r, dy, mean, var = arrays(shape, np.float64)
        leaves = [bpnn.tensor(a, requires_grad=bool(needed >> i & 1)) for i, a in enumerate((x, w, b, r))]
        for training in (False, True):
            y = batch_norm(leaves[0], bpnn.tensor(mean), bpnn.tensor(var), *leaves[1:3], training, residual=leaves[3],
                           activation=activation)
            y.backward(bpnn.tensor(dy))
            for t, expected in zip(leaves, reference(x, w, b, r, dy, mean, var, training, activation)[1:], strict=True):
                if t.requires_grad:
                    close(t.grad.numpy(), expected, np.float64)
                    t.grad = None
                else:
                    assert t.grad is None


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(5, 3), (3, 2, 9, 10)])
def test_gradcheck(shape, training):
    x, w, b, r, _, mean, var = arrays(shape, np.float64)
    r[np.abs(r) < 0.05] = 0.1
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b, r)]

    def f(x, w, b, r):
        return batch_norm(x, bpnn.tensor(mean), bpnn.tensor(var), w, b, training, residual=r)

    bpnn.autograd.gradcheck(f, leaves)
    bpnn.autograd.gradcheck(lambda x: batch_norm(x, None, None, None, None, True, activation="relu") ** 2, leaves[:1])


@BOTH
@pytest.mark.parametrize("shape", [(3, 5, 6, 7), (4, 3, 12, 13)])
def test_layouts(shape, dtype):
    """Channels-last, strided, reversed and broadcast inputs give what their copies give."""
    x, w, b, _, dy, _, _ = arrays(shape, dtype)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    wide = np.repeat(x, 2, 3)[..., ::2]
    for view in (last, wide, x[::-1], np.broadcast_to(x[:1], shape)):
        results = []
        for array in (view, view.copy()):
            t = bpnn.from_numpy(array)
            t.requires_grad_()
            y = batch_norm(t, None, None, bpnn.tensor(w), bpnn.tensor(b), True, residual=bpnn.from_numpy(array), activation="relu")
            y.backward(bpnn.from_numpy(np.asfortranarray(dy)))
            results.append((y.detach().numpy(), t.grad.numpy()))
        for one, two in zip(*results, strict=True):
            np.testing.assert_array_equal(one, two)


@BOTH
@pytest.mark.parametrize("shape", [(64, 16, 33, 32), (700, 33), (64, 70, 3, 5), (3, 9, 100, 101)])
def test_one_thread_and_two_give_the_same_bits(shape, dtype):
    x, w, b, r, dy, _, _ = arrays(shape, dtype)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        leaves = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b, r)]
        y = batch_norm(leaves[0], None, None, leaves[1], leaves[2], True, residual=leaves[3], activation="relu")
        y.backward(bpnn.tensor(dy))
        results.append([y.detach().numpy(), *(t.grad.numpy() for t in leaves)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_channel_by_channel():
    """More than the last cache holds is worked on channel by channel."""
    x = RNG.standard_normal((8, 8, 450, 450), np.float32)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        t = bpnn.tensor(x, requires_grad=True)
        y = batch_norm(t, None, None, None, None, True, activation="relu")
        y.backward(bpnn.from_numpy(x))
        results.append((y.detach().numpy(), t.grad.numpy()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
    expected = reference(x[:, 5:6], None, None, None, x[:, 5:6], None, None, True, "relu")
    close(results[0][0][:, 5:6], expected[0], np.float32)
    close(results[0][1][:, 5:6], expected[1], np.float32)


@pytest.mark.parametrize("shape", [(64, 5, 16, 16), (256, 5), (3, 2, 100, 100), (1000, 3, 2, 2)])
@pytest.mark.parametrize("mean", [1e4, -1e4, 0.0])
def test_large_mean(shape, mean):
    """A mean of 1e4 and a deviation of 1 in float32: the variance is right to 1e-3, and so is what follows from it."""
    x = (RNG.normal(size=shape) + mean).astype(np.float32)
    x[0, 0] += 3                                    # the sums are taken relative to the first elements
    c = shape[1]
    running = bpnn.zeros(c), bpnn.zeros(c)
    t = bpnn.tensor(x, requires_grad=True)
    y = batch_norm(t, *running, None, None, True, 1.0)
    axes = (0, *range(2, x.ndim))
    wide = x.astype(np.float64)
    np.testing.assert_allclose(running[0].numpy(), wide.mean(axes), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(running[1].numpy(), wide.var(axes, ddof=1), rtol=1e-4)
    dy = RNG.normal(size=shape).astype(np.float32)
    y.backward(bpnn.tensor(dy))
    expected = reference(x, None, None, None, dy, None, None, True)
    np.testing.assert_allclose(y.detach().numpy(), expected[0], atol=2e-4)
    np.testing.assert_allclose(t.grad.numpy(), expected[1], atol=2e-4)


@BOTH
def test_outliers(dtype):
    """One huge element, first or not, in a piece of small ones does not spoil the other channels or its own variance."""
    x = RNG.normal(size=(16, 3, 16, 16)).astype(dtype)
    x[0, 0, 0, 0] = x[3, 1, 2, 2] = 1e5
    running = bpnn.zeros(3, dtype=dtype), bpnn.zeros(3, dtype=dtype)
    batch_norm(bpnn.tensor(x), *running, None, None, True, 1.0)
    # The sums are relative to the first element of a piece: float32 loses up to a piece's length, 2048, times its rounding.
    np.testing.assert_allclose(running[1].numpy(), x.astype(np.float64).var((0, 2, 3), ddof=1), rtol=1e-3)


def test_running_statistics():
    for dtype in (np.float32, np.float64, np.float16):
        x, _, _, _, _, mean, var = arrays((6, 3, 5, 4), np.float32)
        running = bpnn.tensor(mean.astype(dtype)), bpnn.tensor(var.astype(dtype))
        versions = [t._version for t in running]
        batch_norm(bpnn.tensor(x.astype(dtype)), *running, None, None, True, 0.3)
        rtol = 1e-5 if dtype != np.float16 else 3e-3
        np.testing.assert_allclose(running[0].numpy(), 0.7 * mean + 0.3 * x.mean((0, 2, 3)), rtol=rtol, atol=rtol)
        np.testing.assert_allclose(running[1].numpy(), 0.7 * var + 0.3 * x.var((0, 2, 3), ddof=1), rtol=rtol)
        assert [t._version for t in running] == [v + 1 for v in versions]
        batch_norm(bpnn.tensor(x.astype(dtype)), *running, None, None, False, 0.3)
        assert [t._version for t in running] == [v + 1 for v in versions]


def test_running_statistics_may_be_strided():
    x = RNG.normal(size=(6, 3)).astype(np.float32)
    store = np.zeros((3, 2), np.float32)
    batch_norm(bpnn.tensor(x), bpnn.from_numpy(store[:, 0]), bpnn.from_numpy(store[:, 1]), None, None, True, 1.0)
    np.testing.assert_allclose(store, np.stack([x.mean(0), x.var(0, ddof=1)], 1), rtol=1e-5, atol=1e-6)


@BOTH
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0), (2, 0, 4), (0,)])
@pytest.mark.parametrize("training", [False, True])
def test_empty(shape, training, dtype):
    c = shape[1] if len(shape) > 1 else 0
    leaves = [bpnn.zeros(*s, dtype=dtype, requires_grad=True) for s in (shape, (c,), (c,))]
    running = bpnn.zeros(c, dtype=dtype), bpnn.ones(c, dtype=dtype)
    y = batch_norm(leaves[0], *running, *leaves[1:], training)
    y.backward(bpnn.zeros(*shape, dtype=dtype))
    assert y.shape == shape and leaves[0].grad.shape == shape
    assert leaves[1].grad.tolist() == leaves[2].grad.tolist() == [0] * c
    assert running[0].tolist() == [0] * c and running[1].tolist() == [1] * c


def test_errors():
    x, three = bpnn.zeros(2, 3), bpnn.ones(3)
    for shape in ((1, 3), (1, 3, 1, 1)):
        with pytest.raises(ValueError, match="input: expected more than 1 value per channel when training"):
            batch_norm(bpnn.zeros(*shape), None, None, None, None, True)
        batch_norm(bpnn.zeros(*shape), three, three)
    with pytest.raises(ValueError, match=r"input: expected shape \(N, C, \*\), got \(3,\)"):
        batch_norm(bpnn.zeros(3), three, three)
    with pytest.raises(RuntimeError, match="running_mean, running_var: expected tensors where training is off"):
        batch_norm(x, None, None)
    with pytest.raises(ValueError, match="running_mean, running_var: expected both or neither"):
        batch_norm(x, three, None, None, None, True)
    with pytest.raises(RuntimeError, match=r"running_mean: expected shape \(3,\), got \(4,\)"):
        batch_norm(x, bpnn.ones(4), three)
    with pytest.raises(RuntimeError, match=r"weight: expected shape \(3,\), got \(4,\)"):
        batch_norm(x, three, three, bpnn.ones(4))
    with pytest.raises(RuntimeError, match="bias: expected the dtype of input, float32, got float64"):
        batch_norm(x, three, three, None, bpnn.ones(3, dtype=np.float64))
    with pytest.raises(RuntimeError, match=r"residual: expected the shape of input, \(2, 3\), got \(3,\)"):
        batch_norm(x, three, three, residual=three)
    with pytest.raises(ValueError, match="activation: expected None, 'relu' or 'relu6', got 'gelu'"):
        batch_norm(x, three, three, activation="gelu")
    with pytest.raises(ValueError, match="eps: expected a positive number, got 0"):
        batch_norm(x, three, three, None, None, True, 0.1, 0.0)
    with pytest.raises(TypeError, match="input: expected a floating-point tensor, got int64"):
        batch_norm(bpnn.zeros(2, 3, dtype=np.int64), three, three)


def test_saved_values_are_guarded():
    x, w, b = bpnn.randn(4, 3, requires_grad=True), bpnn.ones(3, requires_grad=True), bpnn.ones(3, requires_grad=True)
    for changed in (x, w, b):
        y = batch_norm(x, None, None, w, b, True, activation="relu")
        with bpnn.no_grad():
            changed.add_(1)
        with pytest.raises(RuntimeError, match="modified by an in-place operation"):
            y.sum().backward()


def test_half_types():
    dtype = np.float16
    x, w, b, r, dy, mean, var = (bpnn.tensor(a).to(dtype) for a in arrays((4, 3, 5, 5), np.float32))
    leaves = [t.requires_grad_() for t in (x, w, b, r)]
    y = batch_norm(x, mean, var, w, b, True, residual=r, activation="relu")
    y.backward(dy)
    assert y.dtype == dtype and all(t.grad.dtype == dtype for t in leaves)
    wide = [t.detach().float().numpy() for t in (x, w, b, r, dy)]
    np.testing.assert_allclose(y.detach().float().numpy(), reference(*wide, None, None, True, "relu")[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    x = RNG.normal(size=(4, 3, 5, 20)).astype(np.float32)
    x[1, 1, 2, 2] = value
    y = batch_norm(bpnn.tensor(x), None, None, None, None, True, activation="relu").numpy()
    assert np.isnan(y[:, 1]).all() and np.isfinite(y[:, [0, 2]]).all()


@pytest.mark.rivals
@BOTH
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_torch_agrees(shape, training, dtype):
    torch = pytest.importorskip("torch")
    x, w, b, _, dy, mean, var = arrays(shape, dtype)
    results = []
    for tensor, f in ((bpnn.tensor, batch_norm), (torch.tensor, torch.nn.functional.batch_norm)):
        leaves = [tensor(a, requires_grad=True) for a in (x, w, b)]
        running = tensor(mean), tensor(var)
        y = f(leaves[0], *running, *leaves[1:], training, 0.2, 1e-3)
        y.backward(tensor(dy))
        results.append([y.detach().numpy(), *(t.numpy() for t in running), *(t.grad.numpy() for t in leaves)])
    for ours, theirs in zip(*results, strict=True):
        scale = max(1, np.abs(theirs).max())
        rtol = 1e-4 if dtype == np.float32 else 1e-9
        np.testing.assert_allclose(ours / scale, theirs / scale, rtol=rtol, atol=tolerance(dtype)["atol"])
