"""Blocks, shuffles and borders against NumPy."""
import numpy as np
import pytest

import bpnn
from bpcore import fold as F
from bpcore import padding as P
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)

# height and width, kernel, dilation, padding, stride
BLOCKS = [
    ((6, 7), 2, 1, 0, 1),
    ((6, 7), (3, 2), 1, 1, 2),
    ((8, 9), (2, 3), (2, 1), (0, 3), (3, 1)),
    ((1, 1), 1, 1, 0, 1),
    ((3, 2), 3, 1, 2, 1),                # blocks larger than the image
    ((33, 32), 4, 2, 3, 3),
]


def pair(n):
    return n if isinstance(n, tuple) else (n, n)


def columns(x, kernel, dilation, padding, stride):
    """The blocks, cut out one by one."""
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = map(pair, (kernel, dilation, padding, stride))
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    blocks = [
        x[:, :, i:i + dh * (kh - 1) + 1:dh, j:j + dw * (kw - 1) + 1:dw].reshape(len(x), -1)
        for i in range(0, x.shape[2] - dh * (kh - 1), sh) for j in range(0, x.shape[3] - dw * (kw - 1), sw)
    ]
    return np.stack(blocks, -1)


@pytest.mark.parametrize("case", BLOCKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unfold_and_fold(case, dtype):
    size, *rest = case
    x = RNG.normal(size=(2, 3, *size)).astype(dtype)
    expected = columns(x, *rest)
    t = bpnn.tensor(x, requires_grad=True)
    y = F.unfold(t, *rest)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    np.testing.assert_array_equal(F.unfold(bpnn.tensor(x[1]), *rest).numpy(), expected[1])
    # Fold is the adjoint of unfold: <unfold(x), c> = <x, fold(c)>, each the gradient of the other.
    c = RNG.normal(size=expected.shape).astype(dtype)
    back = np.zeros(x.shape)
    for at in np.ndindex(*size):
        one = np.zeros((1, 1, *size))
        one[0, 0][at] = 1
        back[:, :, at[0], at[1]] = (c.reshape(2, 3, -1, c.shape[-1]) * columns(one, *rest)[0]).sum((2, 3))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    y.backward(bpnn.from_numpy(c))
    np.testing.assert_allclose(t.grad.numpy(), back, **tolerance)
    u = bpnn.tensor(c, requires_grad=True)
    z = F.fold(u, size, *rest)
    np.testing.assert_allclose(z.detach().numpy(), back, **tolerance)
    np.testing.assert_array_equal(F.fold(bpnn.tensor(c[1]), size, *rest).numpy(), z.detach().numpy()[1])
    z.backward(bpnn.from_numpy(x))
    np.testing.assert_array_equal(u.grad.numpy(), expected)


def test_blocks_gradcheck():
    x = bpnn.tensor(RNG.normal(size=(2, 2, 4, 5)), requires_grad=True)
    bpnn.autograd.gradcheck(lambda t: F.unfold(t, (2, 3), padding=1, stride=2), x)
    c = bpnn.tensor(RNG.normal(size=(2, 8, 12)), requires_grad=True)
    bpnn.autograd.gradcheck(lambda t: F.fold(t, (4, 5), 2), c)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_thread_and_two_give_the_same_bits(dtype):
    x, results = RNG.normal(size=(8, 16, 33, 31)).astype(dtype), []
    for threads in (1, 2):
        set_num_threads(threads)
        t = bpnn.tensor(x, requires_grad=True)
        y = F.unfold(t, 3, padding=1, stride=2)
        y.backward(y.detach())
        results.append((y.detach().numpy(), t.grad.numpy()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_blocks_of_other_layouts():
    x = RNG.normal(size=(2, 3, 6, 7)).astype(np.float32)
    view = bpnn.from_numpy(np.ascontiguousarray(x.T).T)
    np.testing.assert_array_equal(F.unfold(view, 2).numpy(), F.unfold(bpnn.tensor(x), 2).numpy())
    assert F.unfold(bpnn.tensor(x[:0]), 2).shape == (0, 12, 30)
    assert F.fold(bpnn.zeros(0, 12, 30), (6, 7), 2).shape == (0, 3, 6, 7)
    assert F.unfold(bpnn.tensor(x.astype(np.float16)), 2).dtype == np.float16


def test_blocks_errors():
    x = bpnn.zeros(2, 3, 4, 4)
    with pytest.raises(RuntimeError, match="^kernel_size: expected blocks within"):
        F.unfold(x, 5)
    for keywords, name in [({"kernel_size": 0}, "kernel_size"), ({"kernel_size": 2, "stride": 0}, "stride"),
                           ({"kernel_size": 2, "padding": -1}, "padding"), ({"kernel_size": 2, "dilation": 0}, "dilation")]:
        with pytest.raises(RuntimeError, match=f"^{name}: expected numbers"):
            F.unfold(x, **keywords)
    with pytest.raises(RuntimeError, match="^input: unfold expected 3 or 4 axes"):
        F.unfold(bpnn.zeros(4, 4), 2)
    with pytest.raises(RuntimeError, match="^input: expected 3 x 3 columns"):
        F.fold(bpnn.zeros(1, 8, 8), 4, 2)
    with pytest.raises(RuntimeError, match="^input: expected a multiple"):
        F.fold(bpnn.zeros(1, 7, 9), 4, 2)


# --- shuffles -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_pixel_shuffle(lead, r):
    c, h, w = 2, 3, 4
    x = RNG.normal(size=(*lead, c * r * r, h, w))
    expected = np.empty((*lead, c, h * r, w * r))
    for k, i, j in np.ndindex(c, h * r, w * r):
        expected[..., k, i, j] = x[..., k * r * r + i % r * r + j % r, i // r, j // r]
    t = bpnn.tensor(x, requires_grad=True)
    y = F.pixel_shuffle(t, r)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    np.testing.assert_array_equal(F.pixel_unshuffle(y.detach(), r).numpy(), x)
    y.backward(y.detach())
    np.testing.assert_array_equal(t.grad.numpy(), x)


def test_channel_shuffle():
    x = np.arange(6)[None, :, None, None] + np.zeros((2, 6, 2, 3))
    assert F.channel_shuffle(bpnn.tensor(x), 2).numpy()[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]
    bpnn.autograd.gradcheck(lambda t: F.channel_shuffle(t, 3), bpnn.tensor(RNG.normal(size=(1, 6, 2)), requires_grad=True))


def test_shuffle_errors():
    x = bpnn.zeros(1, 6, 5, 4)
    with pytest.raises(RuntimeError, match=r"multiple of upscale_factor\^2 = 4 channels, got 6"):
        F.pixel_shuffle(x, 2)
    with pytest.raises(RuntimeError, match=r"multiples of downscale_factor = 2, got \(5, 4\)"):
        F.pixel_unshuffle(x, 2)
    with pytest.raises(RuntimeError, match="^groups: expected a divisor of the 6 channels, got 4"):
        F.channel_shuffle(x, 4)
    with pytest.raises(RuntimeError, match="factor above 0"):
        F.pixel_shuffle(x, 0)


# --- borders --------------------------------------------------------------------------------------------------------------

NUMPY = {"constant": {"mode": "constant", "constant_values": 1.5}, "reflect": {"mode": "reflect"}, "replicate": {"mode": "edge"},
         "circular": {"mode": "wrap"}}


@pytest.mark.parametrize("mode", NUMPY)
@pytest.mark.parametrize(("shape", "pad"), [
    ((2, 3, 5), (2, 1)), ((2, 3, 5, 4), (1, 3, 4, 0)), ((3, 5, 4), (1, 2, 3, 4)), ((2, 2, 3, 4, 5), (4, 1, 2, 0, 1, 2)),
    ((0, 3, 5), (1, 1)), ((2, 3, 5), (0, 0)),
])
def test_pad(mode, shape, pad):
    x = RNG.normal(size=shape)
    widths = [(0, 0)] * (len(shape) - len(pad) // 2) + [pad[i:i + 2] for i in range(len(pad) - 2, -1, -2)]
    t = bpnn.tensor(x, requires_grad=True)
    y = P.pad(t, pad, mode, 1.5 if mode == "constant" else None)
    np.testing.assert_array_equal(y.detach().numpy(), np.pad(x, widths, **NUMPY[mode]))
    # The gradient: every element counts as often as it was copied.
    numbered = NUMPY[mode] | ({"constant_values": -1} if mode == "constant" else {})
    source = np.pad(np.arange(x.size).reshape(shape), widths, **numbered)
    dy = RNG.normal(size=y.shape)
    y.backward(bpnn.from_numpy(dy))
    expected = np.zeros(x.size)
    np.add.at(expected, source[source >= 0], dy[source >= 0])
    np.testing.assert_allclose(t.grad.numpy(), expected.reshape(shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", NUMPY)
def test_negative_padding_cuts(mode):
    x = RNG.normal(size=(2, 3, 6, 7))
    t = bpnn.tensor(x, requires_grad=True)
    y = P.pad(t, (-1, 2, 3, -2), mode)
    inside = x[:, :, :-2, 1:]
    expected = np.pad(inside, [(0, 0), (0, 0), (3, 0), (0, 2)], mode=NUMPY[mode]["mode"])
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    bpnn.autograd.gradcheck(lambda t: P.pad(t, (-1, 2, 3, -2), mode), bpnn.tensor(x[:1, :1], requires_grad=True))


def test_pad_any_type():
    x = bpnn.tensor([[1, 2], [3, 4]])
    assert P.pad(x, (1, 0), value=9).tolist() == [[9, 1, 2], [9, 3, 4]]
    assert P.pad(bpnn.tensor([True]), (0, 1)).tolist() == [True, False]
    assert P.pad(bpnn.tensor([1.0, 2.0]), (-1, 0)).tolist() == [2.0]


def test_pad_errors():
    x = bpnn.zeros(2, 3, 4, 4)
    with pytest.raises(RuntimeError, match="^pad: expected at most 3 of 4 elements in mode 'reflect'"):
        P.pad(x, (4, 0, 0, 0), "reflect")
    with pytest.raises(RuntimeError, match="^pad: expected at most 4 of 4 elements in mode 'circular'"):
        P.pad(x, (5, 0, 0, 0), "circular")
    with pytest.raises(RuntimeError, match="^pad: expected two numbers"):
        P.pad(x, (1, 2, 3))
    with pytest.raises(RuntimeError, match="^pad: expected to leave"):
        P.pad(x, (-3, -3))
    with pytest.raises(ValueError, match="^pad: expected numbers for the last 2 or 3 axes"):
        P.pad(x, (1, 1), "circular")
    with pytest.raises(ValueError, match="^mode: expected 'constant'"):
        P.pad(x, (1, 1), "mirror")
    with pytest.raises(ValueError, match="^value: expected None"):
        P.pad(x, (1, 1, 1, 1), "reflect", 3)


@pytest.mark.rivals
def test_torch_agrees():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional
    x = RNG.normal(size=(2, 4, 6, 8)).astype(np.float32)
    pairs = [
        (lambda t: F.unfold(t, 3, 2, 1, 2), lambda t: theirs.unfold(t, 3, 2, 1, 2)),
        (lambda t: F.pixel_shuffle(t, 2), lambda t: theirs.pixel_shuffle(t, 2)),
        (lambda t: F.pixel_unshuffle(t, 2), lambda t: theirs.pixel_unshuffle(t, 2)),
        *[(lambda t, m=m: P.pad(t, (2, 1, 3, 0), m), lambda t, m=m: theirs.pad(t, (2, 1, 3, 0), m)) for m in NUMPY],
    ]
    for ours, other in pairs:
        a, b = bpnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), other(b)
        np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
        y.backward(y.detach())
        z.backward(z.detach())
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-6)
