"""Packed sequences and joint projections against one sequence at a time, and three tensors."""
import itertools
import sys
from pathlib import Path

import bpnn
import numpy as np
import pytest

from bpcore.attention import qkv_attention, varlen_attention
from bpcore.attention import scaled_dot_product_attention as attention

sys.path.insert(0, str(Path(__file__).parent))
from attention_reference import close, normal, reference, run

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# --- packed -----------------------------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window": 9}, {"scale": 0.7}])
@pytest.mark.parametrize("groups", [1, 4])
def test_packed_equals_one_by_one(groups, options, dtype):
    lengths = [5, 0, 131, 1, 60]
    starts = np.cumsum([0, *lengths])
    q, k, v, dy = (normal(starts[-1], h, 16, seed=i).astype(dtype) for i, h in enumerate((4, groups, groups, 4)))
    packed = run(q, k, v, dy, varlen_attention, cu_seqlens_q=starts, **options)
    for a, b in itertools.pairwise(starts):
        parts = [x[a:b].swapaxes(0, 1) for x in (q, k, v, dy)]
        alone = run(*parts, enable_gqa=True, **options)
        for one, two in zip(packed, alone, strict=True):
            np.testing.assert_array_equal(one[a:b].swapaxes(0, 1), two)


def test_packed_equals_padded():
    lengths, T = np.array([5, 17, 33]), 33
    q, k, v, dy = (normal(3, T, 2, 8, seed=i) for i in range(4))
    there = np.arange(T) < lengths[:, None]
    dy[~there] = 0
    padded = run(*(a.swapaxes(1, 2) for a in (q, k, v, dy)), key_lengths=lengths)
    packed = run(*(a[there] for a in (q, k, v, dy)), varlen_attention, cu_seqlens_q=np.cumsum([0, *lengths]))
    for one, two in zip(padded, packed, strict=True):
        np.testing.assert_allclose(one.swapaxes(1, 2)[there], two, rtol=1e-12, atol=1e-13)


def test_packed_cross_attention():
    starts_q, starts_k = np.array([0, 3, 3, 50]), np.array([0, 7, 9, 9])
    q, k, v, dy = normal(50, 2, 8), normal(9, 2, 8, seed=1), normal(9, 2, 5, seed=2), normal(50, 2, 5)
    o, dq, dk, dv = run(q, k, v, dy, varlen_attention, cu_seqlens_q=starts_q, cu_seqlens_k=starts_k)
    expected = reference(*(a.swapaxes(0, 1) for a in (q[:3], k[:7], v[:7], dy[:3])))
    close([a.swapaxes(0, 1) for a in (o[:3], dq[:3], dk[:7], dv[:7])], expected, np.float64)
    assert not o[3:].any() and not dq[3:].any() and not dk[7:].any() and not dv[7:].any()
    empty = varlen_attention(np.zeros((0, 2, 8)), np.zeros((0, 2, 8)), np.zeros((0, 2, 8)), [0])
    assert empty.shape == (0, 2, 8)


# --- a joint projection -----------------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.parametrize("options", [
    {}, {"is_causal": True}, {"key_lengths": [3, 70]}, {"window": 20, "scale": 0.3}, {"dropout_p": 0.4},
    {"mask": "bool"}, {"mask": "added"},
])
def test_joint_projection(options, dtype):
    """The same bits as three tensors, however the projection lies."""
    joint, dy = normal(2, 70, 3, 4, 8).astype(dtype), normal(2, 70, 4, 8).astype(dtype)
    options = dict(options)
    kind = options.pop("mask", None)
    if kind:
        options["attn_mask"] = normal(2, 4, 70, 70) > 0 if kind == "bool" else normal(4, 70, 70).astype(dtype)
    bpnn.manual_seed(1)
    expected = run(*(joint[:, :, i].swapaxes(1, 2) for i in range(3)), dy.swapaxes(1, 2), **options)
    for change in (lambda a: a, lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1), lambda a: np.repeat(a, 2, -1)[..., ::2]):
        bpnn.manual_seed(1)
        leaf = bpnn.from_numpy(change(joint)).requires_grad_()
        o = qkv_attention(leaf, **options)
        o.backward(bpnn.from_numpy(change(dy)))
        np.testing.assert_array_equal(o.detach().numpy(), expected[0].swapaxes(1, 2))
        for i in range(3):
            np.testing.assert_array_equal(leaf.grad.numpy()[:, :, i], expected[1 + i].swapaxes(1, 2))


def test_joint_projection_packed_and_single():
    starts = [0, 5, 5, 70]
    joint, dy = normal(70, 3, 2, 8), normal(70, 2, 8)
    expected = run(*(joint[:, i] for i in range(3)), dy, varlen_attention, cu_seqlens_q=starts, is_causal=True)
    leaf = bpnn.tensor(joint, requires_grad=True)
    o = qkv_attention(leaf, starts, is_causal=True)
    o.backward(bpnn.tensor(dy))
    np.testing.assert_array_equal(o.detach().numpy(), expected[0])
    np.testing.assert_array_equal(leaf.grad.numpy(), np.stack(expected[1:], 1))
    o = qkv_attention(joint).numpy()
    np.testing.assert_array_equal(o.swapaxes(0, 1), attention(*(joint[:, i].swapaxes(0, 1) for i in range(3))).numpy())
    mask = bpnn.tensor(normal(3, 3), requires_grad=True)
    leaf = bpnn.tensor(normal(2, 3, 3, 2, 4), requires_grad=True)
    bpnn.autograd.gradcheck(lambda x, m: qkv_attention(x, attn_mask=m), [leaf, mask])
    assert qkv_attention(bpnn.zeros(0, 5, 3, 2, 4)).shape == (0, 5, 2, 4)
    for call, message in [
        (lambda: qkv_attention(joint[:, :2]), r"qkv: expected \(…, T, 3, H, D\)"),
        (lambda: qkv_attention(joint, [0, 69]), "cu_seqlens: expected to begin with 0 and end with the number of rows, 70"),
        (lambda: qkv_attention(joint, starts, key_lengths=[3]), "attn_mask, key_lengths: expected None with cu_seqlens"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
