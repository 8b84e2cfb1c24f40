"""linear and bilinear against formulas in float64."""
import numpy as np
import pytest
from scipy.special import erf

import bpnn
from bpcore.threads import set_num_threads
from bpnn.nn import functional as F

RNG = np.random.default_rng(0)

# Each activation and its derivative, written out.
ACTIVATIONS = {
    None: (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "silu": (lambda z: z / (1 + np.exp(-z)), lambda z: (1 + np.exp(-z) + z * np.exp(-z)) / (1 + np.exp(-z)) ** 2),
    "gelu": (lambda z: z * (1 + erf(z / np.sqrt(2))) / 2,
             lambda z: (1 + erf(z / np.sqrt(2))) / 2 + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)),
}


def reference(x, w, b, activation, dy):
    """y, dx, dw, db in float64."""
    f, df = ACTIVATIONS[activation]
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    z = x @ w.T + b
    dz = dy * df(z)
    flat_dz, flat_x = dz.reshape(-1, w.shape[0]), x.reshape(-1, w.shape[1])
    return f(z), dz @ w, flat_dz.T @ flat_x, flat_dz.sum(0)


def ours(x, w, b, activation, dy):
    tensors = [bpnn.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = F.linear(*tensors, activation)
    y.backward(bpnn.from_numpy(dy))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [(1,), (31,), (32,), (33,), (2, 3), (), (0,)])
def test_forward_and_gradients(activation, dtype, rows):
    for k, n in [(1, 1), (33, 31), (31, 33), (64, 10)]:
        x, w, b, dy = (RNG.standard_normal(s).astype(dtype) for s in [(*rows, k), (n, k), (n,), (*rows, n)])
        tolerance = {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-12}
        for got, expected in zip(ours(x, w, b, activation, dy), reference(x, w, b, activation, dy), strict=True):
            assert got.dtype == dtype and got.shape == expected.shape
            np.testing.assert_allclose(got, expected, **tolerance)


@pytest.mark.parametrize("activation", [None, "tanh", "gelu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_weight_that_lies_transposed(activation, dtype):
    for rows, k, n in [((5,), 33, 31), ((2, 3), 64, 10), ((0,), 4, 3), ((300,), 70, 130)]:
        x, w, b, dy = (RNG.standard_normal(s).astype(dtype) for s in [(*rows, k), (n, k), (n,), (*rows, n)])
        tensors = [bpnn.tensor(a, requires_grad=True) for a in (x, w.T.copy(), b)]
        y = F.linear(*tensors, activation, transposed=True)
        y.backward(bpnn.from_numpy(dy))
        assert tensors[1].grad.is_contiguous()
        expected_y, dx, dw, db = reference(x, w, b, activation, dy)
        tolerance = {"rtol": 2e-5, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-11}
        for got, expected in zip((y.detach(), *(t.grad for t in tensors)), (expected_y, dx, dw.T, db), strict=True):
            np.testing.assert_allclose(got.numpy(), expected, **tolerance)


def test_errors_of_a_transposed_weight():
    with pytest.raises(RuntimeError, match=r"input: expected shape \(\*, 3\)"):
        F.linear(bpnn.zeros(2, 4), bpnn.zeros(3, 4), transposed=True)
    with pytest.raises(RuntimeError, match=r"bias: expected shape \(4,\)"):
        F.linear(bpnn.zeros(2, 3), bpnn.zeros(3, 4), bpnn.zeros(3), transposed=True)
    with pytest.raises(RuntimeError, match=r"weight: expected shape \(in_features, out_features\)"):
        F.linear(bpnn.zeros(2, 3), bpnn.zeros(3), transposed=True)


def test_strided_arguments():
    x, w = RNG.standard_normal((7, 20))[:, ::2], np.asfortranarray(RNG.standard_normal((5, 10)))
    tx, tw = bpnn.from_numpy(x), bpnn.from_numpy(w)
    np.testing.assert_allclose(F.linear(tx, tw).numpy(), x @ w.T, rtol=1e-12)
    np.testing.assert_allclose(F.linear(tx, bpnn.from_numpy(w.T.copy()).t()).numpy(), x @ w.T, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_thread_and_two_give_the_same_bits(dtype):
    x, w, b, dy = (RNG.standard_normal(s).astype(dtype) for s in [(64, 784), (500, 784), (500,), (64, 500)])
    results = []
    for n in (1, 2):
        set_num_threads(n)
        results.append(ours(x, w, b, "relu", dy))
    for one, two in zip(*results, strict=True):
        assert np.array_equal(one, two)


def test_gradients_only_where_wanted():
    x, w, b = bpnn.ones(2, 3), bpnn.ones(4, 3, requires_grad=True), bpnn.ones(4)
    F.linear(x, w, b).sum().backward()
    assert x.grad is None and b.grad is None and w.grad.tolist() == [[2.0] * 3] * 4


def test_gradcheck():
    x, w, b = (bpnn.randn(*s, dtype=bpnn.float64, requires_grad=True) for s in [(3, 4), (2, 4), (2,)])
    for activation in (None, "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"):
        assert bpnn.autograd.gradcheck(lambda x, w, b, a=activation: F.linear(x, w, b, a), (x, w, b))


def test_in_place_change_of_a_saved_argument_is_refused():
    w = bpnn.ones(2, 2, requires_grad=True)
    x = bpnn.ones(1, 2)
    y = F.linear(x, w)
    x.add_(1)
    with pytest.raises(RuntimeError, match="in-place"):
        y.sum().backward()


@pytest.mark.parametrize(("arguments", "words"), [
    ((bpnn.ones(2, 3), bpnn.ones(4, 5)), ["input", "(*, 5)", "(2, 3)"]),
    ((bpnn.ones(2, 3), bpnn.ones(4, 3), bpnn.ones(3)), ["bias", "(4,)", "(3,)"]),
    ((bpnn.ones(2, 3), bpnn.ones(4, 3).double()), ["input", "float64", "float32"]),
    ((bpnn.ones(2, 3), bpnn.ones(4, 3, 1)), ["weight", "(4, 3, 1)"]),
])
def test_errors_name_the_argument(arguments, words):
    with pytest.raises(RuntimeError) as error:
        F.linear(*arguments)
    assert all(word in str(error.value) for word in words)


def test_unknown_activation_and_integers():
    with pytest.raises(ValueError, match="activation.*'wish'"):
        F.linear(bpnn.ones(1, 1), bpnn.ones(1, 1), None, "wish")
    with pytest.raises(TypeError, match="weight.*int64"):
        F.linear(bpnn.ones(1, 1).long(), bpnn.ones(1, 1).long())


def test_bilinear():
    a, b, w, c = (RNG.standard_normal(s) for s in [(5, 2, 3), (5, 2, 4), (6, 3, 4), (6,)])
    tensors = [bpnn.tensor(x, requires_grad=True) for x in (a, b, w, c)]
    y = F.bilinear(*tensors)
    np.testing.assert_allclose(y.detach().numpy(), np.einsum("...i,kij,...j->...k", a, w, b) + c, rtol=1e-12)
    small = [bpnn.randn(*s, dtype=bpnn.float64, requires_grad=True) for s in [(2, 3), (2, 2), (4, 3, 2), (4,)]]
    assert bpnn.autograd.gradcheck(F.bilinear, small)
