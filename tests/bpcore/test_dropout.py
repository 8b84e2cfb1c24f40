"""Dropout: its statistics, its gradients, and that neither threads nor order decide which elements are dropped."""
import numpy as np
import pytest

import bpnn
from bpcore import dropout as D
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
MASK32 = 0xFFFFFFFF


def philox(counter, key):
    """Philox4x32-10 of a counter of four words and a key of two, from the paper."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK32, (a >> 32) ^ c[3] ^ k[1], a & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c


def test_known_answers():
    """The first and the last vector of the authors' reference implementation."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([MASK32] * 4, [MASK32] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("seed", [0, 0x123456789ABCDEF0, 2**64 - 1])
def test_words(seed):
    words = D.random_words(1000, seed)
    for element in (0, 1, 63, 64, 200, 255, 256, 300, 999):
        group, inside = divmod(element, 256)
        word, lane = divmod(inside, 64)
        assert words[element] == philox([group * 64 + lane, 0, 0, 0], [seed & MASK32, seed >> 32])[word]
    np.testing.assert_array_equal(D.random_words(37, seed), words[:37])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_forward_and_gradient(dtype, p):
    x = RNG.normal(size=(300, 401)).astype(dtype)
    t = bpnn.tensor(x, requires_grad=True)
    y = D.dropout(t, p)
    y.backward(bpnn.full(x.shape, 3.0, dtype=dtype))
    kept = y.detach().numpy() != 0
    assert y.dtype == dtype
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / x.size)
    np.testing.assert_allclose(y.detach().numpy(), np.where(kept, x / (1 - p), 0), rtol=1e-6)
    np.testing.assert_allclose(t.grad.numpy(), np.where(kept, 3 / (1 - p), 0), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1,), (31,), (32,), (33,), (255,), (257,), (), (0,), (3, 0)])
def test_sizes(shape):
    x = bpnn.ones(shape, requires_grad=True)
    y = D.dropout(x, 0.5)
    y.backward(bpnn.ones(shape))
    assert y.shape == shape and np.isin(y.detach().numpy(), (0, 2)).all()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy() if y is not x else np.ones(shape))


def test_neither_threads_nor_layout_nor_type_matter():
    x, results = RNG.normal(size=(301, 1003)), []
    for threads in (1, 2):
        set_num_threads(threads)
        for source in (x, np.asfortranarray(x), x.astype(np.float32)):
            bpnn.manual_seed(7)
            t = bpnn.from_numpy(source).requires_grad_()
            y = D.dropout(t, 0.3)
            y.backward(bpnn.ones_like(y))
            results.append((y.detach().numpy() != 0, t.grad.numpy()))
    for kept, gradient in results:
        np.testing.assert_array_equal(kept, results[0][0])
        np.testing.assert_array_equal(gradient != 0, kept)


def test_the_seed_decides():
    bpnn.manual_seed(3)
    x = bpnn.ones(1000)
    first, second = D.dropout(x).numpy(), D.dropout(x).numpy()
    assert (first != second).any()
    bpnn.manual_seed(3)
    np.testing.assert_array_equal(D.dropout(x).numpy(), first)


def test_neighbours_are_independent():
    kept = (D.dropout(bpnn.ones(2**20), 0.5).numpy() != 0) * 2.0 - 1
    for lag in (1, 2, 64, 128, 256, 1024):
        assert abs((kept[lag:] * kept[:-lag]).mean()) < 5 / 1024


def test_edges_of_p():
    x = bpnn.tensor(RNG.normal(size=(40,)), requires_grad=True)
    assert D.dropout(x, 0.0) is x and D.dropout(x, 0.9, training=False) is x
    y = D.dropout(x, 1.0)
    y.sum().backward()
    assert (y.detach().numpy() == 0).all() and (x.grad.numpy() == 0).all()
    for p in (-0.1, 1.1, np.nan):
        for f in (D.dropout, D.alpha_dropout):
            with pytest.raises(ValueError, match=r"p: expected a probability in \[0, 1\]"):
                f(x, p)
    with pytest.raises(TypeError, match="dropout: expected a floating-point input, got int64"):
        D.dropout(bpnn.tensor([1, 2]))
    assert D.dropout(bpnn.tensor(np.ones(9, np.float16))).dtype == np.float16


def test_inplace():
    x = bpnn.ones(100)
    assert D.dropout(x, inplace=True) is x and np.isin(x.numpy(), (0, 2)).all() and (x.numpy() == 0).any()
    leaf = bpnn.ones(100, requires_grad=True)
    middle = leaf * 1.0
    assert D.dropout(middle, inplace=True) is middle
    middle.sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), middle.detach().numpy())
    with pytest.raises(RuntimeError, match="leaf"):
        D.dropout(leaf, inplace=True)


@pytest.mark.parametrize("f", [D.alpha_dropout, D.feature_alpha_dropout])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_alpha_dropout_keeps_mean_and_variance(f, p):
    x = RNG.normal(size=(500, 700))
    t = bpnn.tensor(x, requires_grad=True)
    y = f(t, p, training=True)
    y.sum().backward()
    assert abs(y.detach().numpy().mean()) < 0.02 and abs(y.detach().numpy().var() - 1) < 0.02
    kept = t.grad.numpy() != 0
    assert len(np.unique(y.detach().numpy()[~kept])) == 1
    assert abs(kept.mean() - (1 - p)) < 0.005
    assert f(t, p) is t
    assert (f(t, 1.0, training=True).detach().numpy() == 0).all()


@pytest.mark.parametrize(("f", "shape", "maps"), [
    (D.dropout1d, (40, 50, 6), (40, 50, 1)), (D.dropout1d, (50, 6), (50, 1)),
    (D.dropout2d, (40, 50, 3, 4), (40, 50, 1, 1)),
    (D.dropout3d, (40, 50, 2, 3, 4), (40, 50, 1, 1, 1)), (D.dropout3d, (50, 2, 3, 4), (50, 1, 1, 1)),
    (D.feature_alpha_dropout, (40, 50, 6), (40, 50, 1)),
])
def test_whole_maps_are_dropped(f, shape, maps):
    t = bpnn.ones(shape, dtype=bpnn.float64, requires_grad=True)
    y = f(t, 0.3, training=True)
    y.sum().backward()
    per_map = y.detach().numpy()[tuple(slice(0, n) for n in maps)]
    np.testing.assert_array_equal(y.detach().numpy(), np.broadcast_to(per_map, shape))
    assert len(np.unique(per_map)) == 2
    assert abs((t.grad.numpy() != 0).mean() - 0.7) < (0.05 if per_map.size > 100 else 0.35)
    assert f(t, 0.3, training=False) is t


def test_axes_of_feature_dropout():
    with pytest.raises(RuntimeError, match=r"input: expected \(N, C, L\) or \(C, L\), got 4 axes"):
        D.dropout1d(bpnn.ones(2, 3, 4, 5))
    with pytest.raises(RuntimeError, match="input: expected"):
        D.feature_alpha_dropout(bpnn.ones(2), training=True)
    with pytest.warns(UserWarning, match="dropout2d"):
        D.dropout2d(bpnn.ones(2, 3, 4))
