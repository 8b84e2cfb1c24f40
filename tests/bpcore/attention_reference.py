"""Attention by its formula in float64, and what the tests of attention share."""
import bpnn
import numpy as np

from bpcore.attention import scaled_dot_product_attention as attention


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def visible(T, S, causal=False, window=None, lengths=None, offset=0):
    """(…, 1, T, S) of bool."""
    i, j = np.arange(T)[:, None] + offset, np.arange(S)
    see = np.ones((T, S), bool)
    if causal:
        see &= j <= i
    if window:
        see &= abs(i - j) < window
    if lengths is not None:
        see = see & (j < np.asarray(lengths)[..., None, None, None])
    return see


def reference(q, k, v, dy, see=True, added=0.0, scale=None):
    """o, dq, dk, dv and the gradient of what is added to the scores, in float64; key-value heads are repeated."""
    q, k, v, dy = (a.astype(np.float64) for a in (q, k, v, dy))
    G = k.shape[-3]
    times = q.shape[-3] // G
    k, v = np.repeat(k, times, -3), np.repeat(v, times, -3)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    s = np.where(see, scale * q @ k.swapaxes(-1, -2) + added, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isfinite(top), top, 0))
    total = e.sum(-1, keepdims=True)
    p = e / np.where(total == 0, 1, total)
    dp = dy @ v.swapaxes(-1, -2)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    dk, dv = scale * ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy

    def together(a):
        return a.reshape(*a.shape[:-3], G, times, *a.shape[-2:]).sum(-3)

    return p @ v, scale * ds @ k, together(dk), together(dv), ds


def run(q, k, v, dy, function=attention, **options):
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (q, k, v)]
    o = function(*leaves, **options)
    o.backward(bpnn.tensor(dy))
    assert o.dtype == q.dtype
    return [o.detach().numpy(), *(t.grad.numpy() for t in leaves)]


def close(ours, expected, dtype):
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for a, b in zip(ours, expected, strict=False):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, abs(b).max(initial=0)))


def arrays(T, S, D, E, dtype, lead=(2,), heads=3, groups=3):
    shapes = (*lead, heads, T, D), (*lead, groups, S, D), (*lead, groups, S, E), (*lead, heads, T, E)
    return [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]
