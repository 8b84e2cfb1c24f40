"""scaled_dot_product_attention against a plain softmax in float64."""
import sys
from pathlib import Path

import bpnn
import numpy as np
import pytest

from bpcore.attention import scaled_dot_product_attention as attention
from bpcore.attention import varlen_attention
from bpcore.threads import get_num_threads, set_num_threads

sys.path.insert(0, str(Path(__file__).parent))
from attention_reference import arrays, close, normal, reference, run, visible

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# T, S, D, E: tiles are 48 queries by 128 keys.
SIZES = [(1, 1, 1, 1), (5, 7, 8, 8), (33, 31, 33, 5), (64, 64, 64, 64), (129, 131, 16, 16), (200, 257, 8, 128), (49, 300, 128, 8),
         (3, 300, 16, 7), (4, 129, 5, 33)]


@BOTH
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_plain_and_causal(sizes, causal, dtype):
    inputs = arrays(*sizes, dtype)
    close(run(*inputs, is_causal=causal), reference(*inputs, visible(*sizes[:2], causal)), dtype)


@BOTH
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 1), (5, 5)])
def test_grouped_queries(heads, groups, causal, dtype):
    inputs = arrays(70, 140, 16, 8, dtype, heads=heads, groups=groups)
    close(run(*inputs, is_causal=causal, enable_gqa=True), reference(*inputs, visible(70, 140, causal)), dtype)


@BOTH
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "offset"), [(300, 300, 0), (50, 290, 240), (150, 200, -20), (1, 300, 299)])
@pytest.mark.parametrize("window", [1, 40, 128, 1000])
def test_window_and_offset(window, T, S, offset, causal, dtype):
    inputs = arrays(T, S, 16, 16, dtype)
    see = visible(T, S, causal, window, offset=offset)
    close(run(*inputs, is_causal=causal, window=window, query_offset=offset), reference(*inputs, see), dtype)


@BOTH
@pytest.mark.parametrize("causal", [False, True])
def test_key_lengths(causal, dtype):
    inputs = arrays(140, 140, 8, 8, dtype, lead=(4,))
    lengths = np.array([0, 1, 129, 140])
    expected = reference(*inputs, visible(140, 140, causal, lengths=lengths))
    close(run(*inputs, is_causal=causal, key_lengths=lengths), expected, dtype)


@BOTH
@pytest.mark.parametrize("shape", [(2, 3, 70, 150), (1, 1, 70, 150), (2, 1, 1, 150), (3, 70, 1), (70, 150), (150,), ()])
@pytest.mark.parametrize("kind", ["bool", "added", "-inf"])
def test_masks(kind, shape, dtype):
    inputs = arrays(70, 150, 16, 16, dtype)
    mask = normal(*shape)
    if kind == "bool":
        mask = mask > 0
        expected = reference(*inputs, mask)
    else:
        mask = np.where(mask > (0 if kind == "-inf" else -9), mask, -np.inf).astype(dtype)
        expected = reference(*inputs, added=mask)
    close(run(*inputs, attn_mask=mask), expected, dtype)
    see = visible(70, 150, True, 60, [3, 150])
    both = {"is_causal": True, "window": 60, "key_lengths": [3, 150]}
    expected = reference(*inputs, see & mask) if kind == "bool" else reference(*inputs, see, mask)
    close(run(*inputs, attn_mask=mask, **both), expected, dtype)


@BOTH
@pytest.mark.parametrize("shape", [(2, 1, 1, 150), (1, 1, 150), (1, 150), (2, 3, 1, 150)])
def test_padding_masks(shape, dtype):
    """A mask that hides the ends of sequences gives the bits of lengths, and others near it what they should."""
    inputs = arrays(70, 150, 16, 16, dtype)
    lengths = np.array([0, 131])[-shape[0]:] if len(shape) == 4 else np.array([131])
    mask = np.broadcast_to(np.arange(150) < lengths.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()
    ours = run(*inputs, attn_mask=mask, is_causal=True)
    close(ours, reference(*inputs, mask & np.tri(70, 150, dtype=bool)), dtype)
    if shape[-3:-2] != (3,):
        for one, two in zip(ours, run(*inputs, key_lengths=lengths, is_causal=True), strict=True):
            np.testing.assert_array_equal(one, two)
    mask[..., 4] = False
    close(run(*inputs, attn_mask=mask), reference(*inputs, mask), dtype)
    close(run(*inputs, attn_mask=~mask), reference(*inputs, ~mask), dtype)


@pytest.mark.parametrize("shape", [(2, 3, 70, 150), (3, 1, 150), (2, 1, 70, 1), (70, 150)])
def test_gradient_of_an_added_mask(shape):
    inputs = arrays(70, 150, 8, 8, np.float64)
    mask = bpnn.tensor(normal(*shape), requires_grad=True)
    attention(*inputs[:3], mask).backward(bpnn.tensor(inputs[3]))
    ds = reference(*inputs, added=mask.detach().numpy())[4]
    ds = ds.sum(tuple(range(4 - len(shape))))
    for axis, n in enumerate(shape):
        if n == 1:
            ds = ds.sum(axis, keepdims=True)
    close([mask.grad.numpy()], [ds], np.float64)


@BOTH
def test_scale_and_large_scores(dtype):
    inputs = arrays(60, 140, 8, 8, dtype)
    for scale in (3.0, -0.5, 0.0):
        close(run(*inputs, scale=scale), reference(*inputs, scale=scale), dtype)
    o = attention(1e4 * inputs[0], inputs[1], inputs[2]).numpy()        # one-hot, and nothing overflows
    best = np.take_along_axis(inputs[2], (inputs[0] @ inputs[1].swapaxes(-1, -2)).argmax(-1)[..., None], -2)
    assert np.isfinite(o).all()
    assert (abs(o - best).max(-1) < 1e-3).mean() > 0.95


def test_rows_that_see_nothing_are_zero_and_nan_spreads():
    q, k, v, dy = arrays(5, 140, 8, 8, np.float64)
    mask = np.zeros((5, 140), bool)
    mask[1:] = True
    o, dq, _, _ = run(q, k, v, dy, attn_mask=mask)
    assert not o[..., 0, :].any() and not dq[..., 0, :].any()
    assert not attention(q, k, v, np.full((5, 140), -np.inf)).numpy().any()
    q[0, 0, 2, 0] = np.nan
    o = attention(q, k, v).numpy()
    assert np.isnan(o[0, 0, 2]).all() and np.isnan(o).sum() == 8


@BOTH
@pytest.mark.parametrize("shapes", [
    ((2, 3, 0, 4), (2, 3, 5, 4)), ((2, 3, 5, 4), (2, 3, 0, 4)), ((0, 3, 5, 4), (0, 3, 5, 4)), ((2, 0, 5, 4), (2, 0, 5, 4)),
    ((2, 3, 5, 0), (2, 3, 5, 0)),
])
def test_empty(shapes, dtype):
    q, k, v = (bpnn.ones(*shape, dtype=dtype, requires_grad=True) for shape in (shapes[0], shapes[1], shapes[1]))
    o = attention(q, k, v)
    o.backward(bpnn.ones(*o.shape, dtype=dtype))
    assert o.shape == shapes[0]
    assert all(t.grad.shape == t.shape and not t.grad.numpy().any() for t in (q, k, v))
    assert not o.detach().numpy().any()


def test_leading_axes():
    q, k, v, dy = arrays(6, 9, 4, 5, np.float64, lead=(2, 3), heads=2, groups=2)
    close(run(q, k, v, dy), reference(q, k, v, dy), np.float64)
    one = run(q[0, 0, 0], k[0, 0, 0], v[0, 0, 0], dy[0, 0, 0])
    close(one, [a[0] for a in reference(q[0, 0, :1], k[0, 0, :1], v[0, 0, :1], dy[0, 0, :1])], np.float64)
    # Keys and values of one batch, one head, meet all queries.
    wide = [np.broadcast_to(a, (2, 3, 2, *a.shape[-2:])) for a in (k[0, 0, 0], v[0, 0, 0])]
    o, dq, dk, dv = run(q, k[0, 0, 0], v[0, 0, :1], dy)
    expected = reference(q, *wide, dy)
    close([o, dq, dk, dv[0]], [*expected[:2], expected[2].sum((0, 1, 2)), expected[3].sum((0, 1, 2))], np.float64)


@BOTH
def test_layouts(dtype):
    """Views of a joint projection, transposed, reversed and strided arrays give the bits of contiguous ones."""
    joint = normal(2, 65, 3, 4, 8).astype(dtype)
    dy = normal(2, 65, 4, 8).astype(dtype)
    views = [joint[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]
    expected = run(*(a.copy() for a in views), dy.transpose(0, 2, 1, 3).copy(), is_causal=True)
    for change in (lambda a: a, lambda a: np.asfortranarray(a), lambda a: np.repeat(a, 2, -1)[..., ::2],
                   lambda a: np.flip(np.flip(a, 2).copy(), 2)):
        leaves = [bpnn.from_numpy(change(a)).requires_grad_() for a in views]
        o = attention(*leaves, is_causal=True)
        o.backward(bpnn.from_numpy(change(dy.transpose(0, 2, 1, 3))))
        for a, b in zip([o.detach().numpy(), *(t.grad.numpy() for t in leaves)], expected, strict=True):
            np.testing.assert_array_equal(a, b)
    o = attention(*(bpnn.from_numpy(a) for a in views))
    assert o.transpose(1, 2).is_contiguous()        # joining the heads copies nothing


@BOTH
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window": 70}, {"dropout_p": 0.3}])
@pytest.mark.parametrize(("T", "heads"), [(300, 2), (500, 1), (64, 12), (1, 5)])
def test_any_number_of_threads_gives_the_same_bits(T, heads, options, dtype):
    inputs = arrays(T, 300, 32, 32, dtype, heads=heads, groups=heads)
    results, before = [], get_num_threads()
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            bpnn.manual_seed(5)
            results.append(run(*inputs, **options))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("options", [
    {}, {"is_causal": True}, {"window": 2}, {"key_lengths": [2, 4]}, {"enable_gqa": True}, {"scale": 0.3},
])
def test_gradcheck(options):
    q, k, v, _ = arrays(3, 4, 5, 2, np.float64, heads=4, groups=2 if "enable_gqa" in options else 4)
    leaves = [bpnn.tensor(a, requires_grad=True) for a in (q, k, v)]
    bpnn.autograd.gradcheck(lambda *t: attention(*t, **options), leaves)
    bpnn.autograd.gradcheck(lambda *t: attention(*t, **options), [*leaves, bpnn.tensor(normal(3, 4), requires_grad=True)])


@pytest.mark.parametrize("needed", range(1, 8))
def test_any_subset_of_gradients(needed):
    inputs = arrays(50, 60, 8, 8, np.float64)
    leaves = [bpnn.tensor(a, requires_grad=bool(needed >> i & 1)) for i, a in enumerate(inputs[:3])]
    attention(*leaves).backward(bpnn.tensor(inputs[3]))
    for t, expected in zip(leaves, reference(*inputs)[1:4], strict=True):
        assert (t.grad is not None) == t.requires_grad
        if t.requires_grad:
            close([t.grad.numpy()], [expected], np.float64)


# --- dropout ----------------------------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.parametrize("T", [3, 130])
def test_dropout(T, dtype):
    """With the identity as values the output is the weights: they are dropped or rescaled, and backward uses the same mask."""
    S, p = 200, 0.3
    q, k, _, dy = arrays(T, S, 16, S, dtype)
    v = np.broadcast_to(np.eye(S, dtype=dtype), (2, 3, S, S)).copy()
    bpnn.manual_seed(3)
    o, dq, dk, dv = run(q, k, v, dy, dropout_p=p)
    whole = reference(q, k, v, dy)[0]
    kept = o != 0
    assert abs(kept.mean() - (1 - p)) < 0.02
    assert abs(kept.mean((0, 1, 2)) - (1 - p)).max() < 6 * (0.21 / (6 * T)) ** 0.5
    close([o], [whole * kept / (1 - p)], dtype)
    w = kept / (1 - p)
    dp = (dy.astype(np.float64) @ v.swapaxes(-1, -2)) * w
    ds = whole * (dp - (whole * dp).sum(-1, keepdims=True)) / 4
    close([dq, dk, dv], [ds @ k, ds.swapaxes(-1, -2) @ q, (whole * w).swapaxes(-1, -2) @ dy], dtype)
    again = attention(q, k, v, dropout_p=p).numpy()
    assert (again != o).any()
    bpnn.manual_seed(3)
    np.testing.assert_array_equal(attention(q, k, v, dropout_p=p).numpy(), o)
    assert abs(attention(q, k, v, dropout_p=1.0).numpy()).max() < 1e-30


def test_words_do_not_repeat():
    """Heads, queries and blocks of keys have masks of their own."""
    q, k = np.zeros((2, 3, 100, 4)), np.zeros((2, 3, 256, 4))
    v = np.broadcast_to(np.eye(256), (2, 3, 256, 256)).copy()
    rows = (attention(q, k, v, dropout_p=0.5).numpy() != 0).reshape(600, 2, 128)
    assert len(np.unique(rows.reshape(1200, 128), axis=0)) == 1200


# --- arguments --------------------------------------------------------------------------------------------------------------

def test_errors():
    x = np.zeros((2, 3, 4, 5))
    for call, message in [
        (lambda: attention(x, x[..., :4], x), r"key: expected the last axis of query, 5, got shape \(2, 3, 4, 4\)"),
        (lambda: attention(x, x, x[:, :, :3]), r"value: expected as many rows as key, 4, got shape \(2, 3, 3, 5\)"),
        (lambda: attention(x, x.astype(np.float32), x), "key: expected the dtype of query, float64, got float32"),
        (lambda: attention(x[0, 0, 0], x, x), r"query: expected at least 2 axes, got shape \(5,\)"),
        (lambda: attention(x, x[:, :2], x[:, :2], enable_gqa=True), "key, value: expected heads that divide query's 3"),
        (lambda: attention(x, x, x, np.zeros((3, 3), bool)), r"attn_mask: expected a shape that broadcasts to \(2, 3, 4, 4\)"),
        (lambda: attention(x, x, x, np.zeros((4, 4), np.int64)), "attn_mask: expected bool or the dtype of query, got int64"),
        (lambda: attention(x, x, x, dropout_p=1.5), r"dropout_p: expected a probability in \[0, 1\], got 1.5"),
        (lambda: attention(x, x, x, window=0), "window: expected a positive number of keys or None, got 0"),
        (lambda: attention(x, x, x, key_lengths=[1, 5]), "key_lengths: expected 0 to 4 keys, got 1 to 5"),
        (lambda: attention(x, x, x, key_lengths=[1, 2, 3]), r"key_lengths: expected shape \(2,\), got \(3,\)"),
        (lambda: attention(x, x, x, key_lengths=[1.0, 2.0]), "key_lengths: expected integers, got float"),
        (lambda: varlen_attention(x[0], x[0], x[0], [0, 2]), "cu_seqlens_q: expected to begin with 0 and end with"),
        (lambda: varlen_attention(x[0], x[0], x[0], [0, 3, 2, 3]), "cu_seqlens_q: .* that do not fall, got 3 before 2"),
        (lambda: varlen_attention(x, x, x, [0, 2]), "query, key, value: expected"),
    ]:
        with pytest.raises((RuntimeError, ValueError, TypeError), match=message):
            call()


def test_saved_tensors_are_guarded():
    for which in range(5):
        leaves = [bpnn.tensor(a, requires_grad=True) for a in arrays(4, 4, 5, 5, np.float64)[:3]]
        changeable = [*(t * 1 for t in leaves), bpnn.zeros(4, 4, dtype=np.float64)]
        o = attention(*changeable)
        [*changeable, o][which].detach().add_(1)
        with pytest.raises(RuntimeError, match="modified by an in-place operation"):
            o.sum().backward()


def test_half_types():
    q, k, v, dy = arrays(40, 40, 8, 8, np.float32)
    half = [bpnn.tensor(a.astype(np.float16)) for a in (q, k, v)]
    o = attention(*half, is_causal=True)
    assert o.dtype == np.float16
    np.testing.assert_allclose(o.numpy(), reference(q, k, v, dy, visible(40, 40, True))[0], atol=5e-3)
