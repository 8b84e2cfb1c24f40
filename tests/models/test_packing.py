"""Rows without padding: where they come from, where they go, what they attend to; against loops in NumPy."""
import numpy as np
import pytest

import bpnn
from bpnn.models._packing import Layout, real_places

MASKS = {
    "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]],
    "holes": [[1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 0, 1, 1]],
    "full": [[1] * 5] * 3,
    "an empty text": [[1, 1, 0, 0, 0], [0] * 5, [1] * 5],
}
masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def real(mask):
    return np.array(mask, bool)


def attention(q, k, v, heads, seen):
    """The sum over keys, a text, a head and a query at a time: (B, T, H); zeros where a text has no token."""
    out = np.zeros_like(q)
    width = q.shape[-1] // heads
    for b in range(len(q)):
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            keys, values = k[b, seen[b], part], v[b, seen[b], part]
            for t in range(q.shape[1]):
                if len(keys):
                    scores = keys @ q[b, t, part] / np.sqrt(width)
                    weights = np.exp(scores - scores.max())
                    out[b, t, part] = weights @ values / weights.sum()
    return out


@masks
def test_rows(mask):
    seen = real(mask)
    layout = Layout(seen.shape, seen)
    values = np.arange(15).reshape(3, 5) + 1
    np.testing.assert_array_equal(layout.take(values), values[seen])
    assert len(layout) == seen.sum() and layout.cu_seqlens.tolist() == [0, *seen.sum(1).cumsum()]
    rows = bpnn.tensor(np.arange(2.0 * len(layout)).reshape(-1, 2), requires_grad=True)
    full = layout.pad(rows)
    expected = np.zeros((3, 5, 2))
    expected[seen] = rows.detach().numpy()
    np.testing.assert_array_equal(full.detach().numpy(), expected)
    np.testing.assert_array_equal(layout.pad(rows, -np.inf).detach().numpy()[~seen], -np.inf)
    factor = np.random.default_rng(0).standard_normal(expected.shape)
    (full * bpnn.from_numpy(factor)).sum().backward()
    np.testing.assert_array_equal(rows.grad.numpy(), factor[seen])


def test_all_places():
    """Not packed, or nothing to hide: every place is a row."""
    values = np.arange(15).reshape(3, 5)
    for layout in (Layout((3, 5)), Layout((3, 5), real(MASKS["full"])), Layout((3, 5), real(MASKS["right"]), packed=False)):
        assert layout.places is None and len(layout) == 15
        np.testing.assert_array_equal(layout.take(values), values.reshape(-1))


@masks
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_attention(mask, packed, dtype):
    seen = real(mask)
    layout = Layout(seen.shape, seen, packed)
    q, k, v = np.random.default_rng(1).standard_normal((3, 3, 5, 12)).astype(dtype)
    rows = [bpnn.from_numpy(flat(layout, x)) for x in (q, k, v)]
    got = layout.pad(layout.attend(*rows, heads=3)).numpy()
    expected = attention(q, k, v, 3, seen)
    np.testing.assert_allclose(got[seen], expected[seen], rtol=1e-4 if dtype == np.float32 else 1e-11, atol=1e-6)
    if seen[:, 0].all():
        first = layout.attend(layout.first(rows[0]), *rows[1:], heads=3, first=True).numpy()
        np.testing.assert_allclose(first, got[:, 0], rtol=1e-5, atol=1e-6)


def flat(layout, x):
    rows = x.reshape(-1, x.shape[-1])
    return rows if layout.places is None else rows[layout.places]


@masks
def test_attention_weights(mask):
    seen = real(mask)
    layout = Layout(seen.shape, seen, packed=False)
    q, k, v = (bpnn.from_numpy(x) for x in np.random.default_rng(2).standard_normal((3, 15, 12)))
    weights = []
    got = layout.attend(q, k, v, 3, weights=weights)
    np.testing.assert_allclose(got.numpy(), layout.attend(q, k, v, 3).numpy(), rtol=1e-10, atol=1e-12)
    found = weights[0].numpy()
    assert found.shape == (3, 3, 5, 5)
    np.testing.assert_array_equal(np.moveaxis(found, 3, 1)[~seen], 0)
    np.testing.assert_allclose(found.sum(-1), np.broadcast_to(seen.any(1)[:, None, None], (3, 3, 5)))


def test_weights_of_packed_rows_are_refused():
    seen = real(MASKS["right"])
    layout = Layout(seen.shape, seen)
    x = bpnn.zeros(len(layout), 4)
    with pytest.raises(ValueError, match="attentions"):
        layout.attend(x, x, x, 2, weights=[])


@masks
@pytest.mark.parametrize("packed", [True, False])
def test_pool(mask, packed):
    seen = real(mask)
    layout = Layout(seen.shape, seen, packed)
    x = np.random.default_rng(3).standard_normal((3, 5, 4))
    rows = bpnn.tensor(flat(layout, x), requires_grad=True)
    expected = [x[b, seen[b]].mean(0) if seen[b].any() else np.zeros(4) for b in range(3)]
    mean = layout.pool(rows, "mean")
    np.testing.assert_allclose(mean.detach().numpy(), expected, rtol=1e-12)
    mean.sum().backward()
    each = np.repeat((seen / np.maximum(seen.sum(1, keepdims=True), 1))[..., None], 4, -1)
    np.testing.assert_allclose(rows.grad.numpy(), flat(layout, each))
    expected = [x[b, seen[b]].max(0) if seen[b].any() else np.zeros(4) for b in range(3)]
    np.testing.assert_array_equal(layout.pool(rows, "max").detach().numpy(), expected)


def test_forms_of_masks():
    mask = np.array(MASKS["right"])
    for form in (mask, mask.tolist(), mask.astype(bool), mask.astype(np.float32), bpnn.tensor(mask)):
        np.testing.assert_array_equal(real_places(form, (3, 5)), mask == 1)
    assert real_places(None, (3, 5)) is None and real_places(np.ones((3, 5)), (3, 5)) is None
    with pytest.raises(ValueError, match=r"attention_mask: expected shape \(3, 4\).*got \(3, 5\)"):
        real_places(mask, (3, 4))
