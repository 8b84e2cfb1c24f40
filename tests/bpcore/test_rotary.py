"""rotary_embedding against complex multiplication, and the angles against their formulas."""
import math

import bpnn
import numpy as np
import pytest
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.nn.modules.rotary import rotary_frequencies, rotary_tables

from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
STYLES = pytest.mark.parametrize("interleaved", [False, True])


def tables(length, half, dtype):
    angles = RNG.uniform(-4, 4, (length, half))
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def reference(x, cos, sin, places, interleaved):
    """Pairs as complex numbers times cos + i sin; `places` broadcasts against the axes of x but the last."""
    half = cos.shape[1]
    out = x.astype(np.float64)
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    turned = (out[..., first] + 1j * out[..., second]) * (cos + 1j * sin.astype(np.float64))[places]
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}


@BOTH
@STYLES
@pytest.mark.parametrize(("shape", "half", "axis"), [
    ((2, 3, 5, 8), 4, -2), ((2, 5, 3, 8), 2, -3), ((5, 3, 62), 31, 0), ((3, 5, 66), 33, 1), ((5, 33), 16, 0), ((1, 1, 1, 2), 1, -2),
    ((2, 0, 5, 8), 4, -2), ((2, 3, 0, 8), 4, -2), ((2, 3, 5, 7), 0, -2),
])
def test_forward_and_gradient(shape, half, axis, interleaved, dtype):
    x, dy = RNG.normal(size=shape).astype(dtype), RNG.normal(size=shape).astype(dtype)
    cos, sin = tables(9, half, dtype)
    length = shape[axis]
    form = [1] * (len(shape) - 1)
    form[axis if axis >= 0 else axis + 1] = length
    options = [(None, np.arange(length).reshape(form)), (RNG.integers(0, 9, length), None)]
    if axis not in (0, -len(shape)):
        options.append((RNG.integers(0, 9, (shape[0], length)), None))
    for given, places in options:
        if places is None:
            places = given.reshape(form) if given.ndim == 1 else given.reshape([shape[0], *form[1:]])
        a = bpnn.tensor(x, requires_grad=True)
        y = F.rotary_embedding(a, bpnn.tensor(cos), bpnn.tensor(sin), None if given is None else bpnn.tensor(given),
                               interleaved=interleaved, seq_dim=axis)
        y.backward(bpnn.tensor(dy))
        assert y.dtype == dtype and y.shape == shape and y.is_contiguous()
        np.testing.assert_allclose(y.detach().numpy(), reference(x, cos, sin, places, interleaved), **tolerance(dtype))
        np.testing.assert_allclose(a.grad.numpy(), reference(dy, cos, -sin, places, interleaved), **tolerance(dtype))


@BOTH
@STYLES
def test_layouts(interleaved, dtype):
    x = RNG.normal(size=(2, 6, 3, 8)).astype(dtype)
    cos, sin = (bpnn.tensor(a) for a in tables(6, 3, dtype))
    expected = F.rotary_embedding(bpnn.tensor(x.transpose(0, 2, 1, 3).copy()), cos, sin, interleaved=interleaved).numpy()
    turned = [a.transpose(0, 2, 1, 3) for a in (x, np.repeat(x, 2, 3)[..., ::2], x[:, ::-1].copy()[:, ::-1])]
    for view in (*turned, np.asfortranarray(turned[0])):
        a = bpnn.from_numpy(view).requires_grad_()
        y = F.rotary_embedding(a, cos, sin, interleaved=interleaved)
        np.testing.assert_array_equal(y.detach().numpy(), expected)
        y.backward(bpnn.from_numpy(np.asfortranarray(expected)))
        np.testing.assert_allclose(a.grad.numpy(), x.transpose(0, 2, 1, 3), rtol=1e-5, atol=1e-5)      # turned back


@STYLES
def test_gradcheck(interleaved):
    cos, sin = (bpnn.tensor(a) for a in tables(4, 2, np.float64))
    x = bpnn.tensor(RNG.normal(size=(2, 4, 5)), requires_grad=True)
    bpnn.autograd.gradcheck(lambda x: F.rotary_embedding(x, cos, sin, interleaved=interleaved), x)


@BOTH
def test_one_thread_and_two_give_the_same_bits(dtype):
    x = bpnn.tensor(RNG.normal(size=(3, 12, 129, 64)).astype(dtype))
    cos, sin = (bpnn.tensor(a) for a in tables(129, 32, dtype))
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        results.append(F.rotary_embedding(x, cos, sin).numpy())
    np.testing.assert_array_equal(*results)


def test_the_two_conventions_are_permutations_of_one_another():
    rotary, other = nn.RotaryEmbedding(8), nn.RotaryEmbedding(8, interleaved=True)
    x = RNG.normal(size=(2, 5, 8))
    order = np.arange(8).reshape(2, 4).T.reshape(-1)          # 0 4 1 5 2 6 3 7
    np.testing.assert_array_equal(other(bpnn.tensor(x[..., order])).numpy(), rotary(bpnn.tensor(x)).numpy()[..., order])


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}


def formula(dim, theta, scaling, positions, length):
    """One frequency after the other, in float64."""
    kind, out = scaling.get("rope_type", scaling.get("type", "default")), []
    for i in range(dim // 2):
        base = theta
        if kind == "dynamic" and length > positions:
            base = theta * (scaling["factor"] * length / positions - scaling["factor"] + 1) ** (dim / (dim - 2))
        f = base ** (-2 * i / dim)
        if kind == "linear":
            f /= scaling["factor"]
        if kind == "llama3":
            turns = scaling["original_max_position_embeddings"] * f / (2 * math.pi)
            smooth = (turns - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"])
            smooth = min(1, max(0, smooth))
            f = (1 - smooth) * f / scaling["factor"] + smooth * f
        out.append(f)
    return np.array(out)


@pytest.mark.parametrize("scaling", [
    {}, {"rope_type": "default"}, {"type": "linear", "factor": 2.5}, {"rope_type": "dynamic", "factor": 2.0}, LLAMA3])
@pytest.mark.parametrize(("dim", "theta"), [(64, 10000.0), (128, 500000.0), (96, 1e6)])
@pytest.mark.parametrize("length", [7, 3000])
def test_angles(scaling, dim, theta, length):
    frequencies = rotary_frequencies(dim, theta, scaling, 2048, length)
    assert frequencies.dtype == np.float32
    expected = formula(dim, theta, scaling, 2048, length)
    np.testing.assert_allclose(frequencies, expected, rtol=1e-6)
    for table, f in zip(rotary_tables(frequencies, length, np.float64), (np.cos, np.sin), strict=True):
        assert table.shape == (length, dim // 2)
        np.testing.assert_allclose(table.numpy(), f(np.arange(length)[:, None] * expected), atol=length * 2e-7)
    rotary = nn.RotaryEmbedding(dim, theta, 2048, scaling)
    cos, sin = rotary.tables(length)
    np.testing.assert_array_equal(cos.numpy()[:length], rotary_tables(frequencies, length)[0].numpy())
    assert (sin.numpy()[0] == 0).all()


def test_module():
    rotary = nn.RotaryEmbedding(4)
    x = bpnn.tensor(RNG.normal(size=(2, 3, 5, 8)))
    whole = rotary(x)
    part = rotary(x[:, :, 3:], positions=bpnn.tensor([3, 4]))          # generation: later tokens alone
    np.testing.assert_array_equal(part.numpy(), whole.numpy()[:, :, 3:])
    np.testing.assert_array_equal(whole.numpy()[..., 4:], x.numpy()[..., 4:])
    packed = rotary(bpnn.transpose(x[0], 0, 1), bpnn.tensor([0, 1, 0, 1, 2]), seq_dim=0)       # two texts one after the other
    np.testing.assert_array_equal(packed.numpy()[2:], rotary(x[:1, :, 2:]).numpy()[0].transpose(1, 0, 2))
    assert rotary(x, bpnn.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 0, 500]])).shape == x.shape
    assert not rotary.state_dict()
    # Scores depend on the distance of two positions alone.
    q, k = (bpnn.tensor(np.broadcast_to(RNG.normal(size=4), (9, 4)).copy()) for _ in range(2))
    scores = rotary(q).numpy() @ rotary(k).numpy().T
    np.testing.assert_allclose(scores[1:, 1:], scores[:-1, :-1], atol=1e-6)


@pytest.mark.parametrize(("change", "error", "text"), [
    ({"input": np.zeros(4)}, RuntimeError, "input: expected 2 to 4 axes"),
    ({"input": np.zeros((2, 4), int)}, TypeError, "input: expected float32"),
    ({"input": np.zeros((7, 4))}, IndexError, "input: expected at most 6 tokens"),
    ({"cos": np.zeros((6, 2), np.float32)}, RuntimeError, "cos: expected float64"),
    ({"cos": np.zeros((6, 3)), "sin": np.zeros((6, 3))}, RuntimeError, "cos: expected at most 2 columns"),
    ({"sin": np.zeros((5, 2))}, RuntimeError, "sin: expected the shape of cos"),
    ({"positions": np.array([0, 6])}, IndexError, r"positions: expected numbers in \[0, 5\], .* got 6"),
    ({"positions": np.array([0, -1])}, IndexError, "positions: .* got -1"),
    ({"positions": np.zeros(3, int)}, RuntimeError, r"positions: expected shape \(2,\)"),
    ({"positions": np.zeros(2)}, TypeError, "positions: expected integers"),
    ({"seq_dim": -1}, RuntimeError, "seq_dim"),
])
def test_errors(change, error, text):
    given = {"input": np.zeros((2, 4)), "cos": np.zeros((6, 2)), "sin": np.zeros((6, 2))} | change
    given = {name: bpnn.tensor(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
    with pytest.raises(error, match=text):
        F.rotary_embedding(**given)


@pytest.mark.parametrize(("scaling", "text"), [
    ({"type": "yarn", "factor": 2}, "scaling: expected the rope_type default, linear, dynamic, llama3, got 'yarn'"),
    ({"rope_type": "llama3", "factor": 8}, "scaling: llama3 needs low_freq_factor, high_freq_factor, original_max"),
])
def test_errors_of_scaling(scaling, text):
    with pytest.raises(ValueError, match=text):
        nn.RotaryEmbedding(8, scaling=scaling)
