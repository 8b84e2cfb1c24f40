"""Multi-head attention as a function: projections, masks, attention, projection (Vaswani et al. 2017).

Size letters: N sequences of L queries and S keys, E features in H heads of D. Inside, sequences are (N, L, E) or (L, N, E), as they
came, and heads are views (N, H, L, D) of them: nothing is copied until the heads have met their keys.
"""
import math

import numpy

from bpcore.attention import qkv_attention, scaled_dot_product_attention
from bpcore.dropout import dropout
from bpcore.join import cat
from bpcore.linear import linear
from bpcore.softmax import softmax
from bpcore.tensor import Tensor


def _check(name, tensor, shape):
    if tensor is not None and tensor.shape not in shape:
        raise RuntimeError(f"{name}: expected shape {' or '.join(map(str, shape))}, got {tensor.shape}")


def _check_mask(name, mask):
    if mask is not None and mask.dtype != bool and mask.dtype.kind not in "fV":
        raise TypeError(f"{name}: expected bool (True hides) or floating-point numbers (added), got {mask.dtype}")


def _split(tensor, *parts):
    return [None] * len(parts) if tensor is None else tensor.split(list(parts))


def _project(query, key, value, weights, bias, embed_dim):
    """q, k and v; `weights` is one joint matrix or three."""
    if isinstance(weights, tuple):
        biases = _split(bias, embed_dim, embed_dim, embed_dim) if bias is not None else [None] * 3
        return [linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]
    if query is key and key is value:
        return linear(query, weights, bias).unflatten(-1, (3, embed_dim)).unbind(-2)
    if key is value:
        (w, w_both), (b, b_both) = weights.split([embed_dim, 2 * embed_dim]), _split(bias, embed_dim, 2 * embed_dim)
        return [linear(query, w, b), *linear(key, w_both, b_both).unflatten(-1, (2, embed_dim)).unbind(-2)]
    parts = embed_dim, embed_dim, embed_dim
    rows = zip((query, key, value), weights.split(list(parts)), _split(bias, *parts), strict=True)
    return [linear(x, w, b) for x, w, b in rows]


def _with_row(x, row, batch_first):
    """One more key or value for every sequence: `row`, (1, 1, E), or zeros."""
    shape = (x.shape[0], 1, x.shape[2]) if batch_first else (1, *x.shape[1:])
    return cat([x, x.new_zeros(*shape) if row is None else row.expand(*shape)], 1 if batch_first else 0)


def _with_column(mask):
    """One more key that is not hidden."""
    return None if mask is None else cat([mask, mask.new_zeros(*mask.shape[:-1], 1)], -1)


def _right_padding(hidden):
    """The lengths behind a mask that hides the end of each sequence and nothing else; None for another mask."""
    lengths = hidden.shape[1] - numpy.count_nonzero(hidden, 1)
    return lengths if (hidden == (numpy.arange(hidden.shape[1]) >= lengths[:, None])).all() else None


def _added(hidden, dtype):
    """What is added to scores to hide some."""
    return Tensor(numpy.where(hidden, -numpy.inf, 0).astype(dtype))


def _merge(attn_mask, key_padding_mask, dtype, batch, heads):
    """One mask of what may be seen (bool) or is added, that broadcasts to (N, H, L, S), of two that say what is hidden or added."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (batch, heads)))
    if key_padding_mask is not None:
        masks.append(key_padding_mask.unsqueeze(1).unsqueeze(1))
    if not masks:
        return None
    if all(mask.dtype == bool for mask in masks):
        seen = ~masks[0]._array
        return Tensor(seen if len(masks) == 1 else seen & ~masks[1]._array)
    added = []
    for mask in masks:
        added.append(_added(mask._array, dtype) if mask.dtype == bool else mask.to(dtype=dtype))
    return added[0] if len(added) == 1 else added[0] + added[1]


def _weighed(q, k, v, mask, dropout_p):
    """Attention whose weights are asked for, and the weights."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores + (_added(~mask._array, q.dtype) if mask.dtype == bool else mask)
    weights = softmax(scores, -1)
    if dropout_p > 0:
        weights = dropout(weights, dropout_p)
    return weights @ v, weights


def _lengths_and_mask(masks, dtype, batch, heads):
    attn_mask, padding, _ = masks
    lengths = _right_padding(padding._array) if padding is not None and padding.dtype == bool else None
    return lengths, _merge(attn_mask, padding if lengths is None else None, dtype, batch, heads)


def _attend_joint(qkv, heads, masks, dropout_p, batch_first):
    """Of the joint projection (N, L, 3 E)."""
    qkv = qkv.unflatten(-1, (3, heads, qkv.shape[-1] // (3 * heads)))
    if not batch_first:
        qkv = qkv.transpose(0, 1)
    lengths, mask = _lengths_and_mask(masks, qkv.dtype, qkv.shape[0], heads)
    out = qkv_attention(qkv, attn_mask=mask, dropout_p=dropout_p, is_causal=masks[2], key_lengths=lengths)
    return (out if batch_first else out.transpose(0, 1)).flatten(2)


def _with_rows(k, v, masks, rows, length, batch_first):
    """Keys, values and masks with more keys, which all queries see."""
    attn_mask, padding, is_causal = masks
    if is_causal and rows:
        attn_mask, is_causal = Tensor(~numpy.tri(length, k.shape[1 if batch_first else 0], dtype=bool)), False
    for row_k, row_v in rows:
        k, v = _with_row(k, row_k, batch_first), _with_row(v, row_v, batch_first)
        attn_mask, padding = _with_column(attn_mask), _with_column(padding)
    return k, v, (attn_mask, padding, is_causal)


def _attend_apart(q, k, v, heads, masks, dropout_p, need_weights, batch_first):
    """Of three projections (N, L, E), and the weights (N, H, L, S) where they are asked for."""
    q, k, v = (x.unflatten(-1, (heads, x.shape[-1] // heads)) for x in (q, k, v))
    q, k, v = (x.transpose(1, 2) if batch_first else x.permute(1, 2, 0, 3) for x in (q, k, v))
    if need_weights:
        out, seen = _weighed(q, k, v, _merge(*masks[:2], q.dtype, q.shape[0], heads), dropout_p)
    else:
        lengths, mask = _lengths_and_mask(masks, q.dtype, q.shape[0], heads)
        out, seen = scaled_dot_product_attention(q, k, v, mask, dropout_p, masks[2], key_lengths=lengths), None
    return (out.transpose(1, 2) if batch_first else out.permute(2, 0, 1, 3)).flatten(2), seen


def attend(
    query, key, value, num_heads, weights, bias, bias_k, bias_v, add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, *,
    key_padding_mask=None, need_weights=True, attn_mask=None, average_attn_weights=True, is_causal=False, batch_first=False,
):
    """What `multi_head_attention_forward` and `MultiheadAttention` share: either order of the first axes, or one sequence."""
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise RuntimeError(
            f"query, key, value: expected (L, N, E) or (L, E) each, got {query.shape}, {key.shape} and {value.shape}"
        )
    single = query.ndim == 2
    if single:
        batch_first = True
        alone = {id(x): x.unsqueeze(0) for x in (query, key, value)}       # the same tensor stays the same
        query, key, value = (alone[id(x)] for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    batch_axis, axis = (0, 1) if batch_first else (1, 0)
    batch, length, source, embed_dim = query.shape[batch_axis], query.shape[axis], key.shape[axis], query.shape[2]
    if embed_dim % num_heads:
        raise RuntimeError(f"num_heads: expected a divisor of the {embed_dim} features, got {num_heads}")
    if key.shape[:2] != value.shape[:2] or key.shape[batch_axis] != batch:
        raise RuntimeError(
            f"key, value: expected the same rows for the {batch} sequences of query, got {key.shape} and {value.shape}"
        )
    _check_mask("attn_mask", attn_mask)
    _check_mask("key_padding_mask", key_padding_mask)
    _check("attn_mask", attn_mask, ((length, source), (batch * num_heads, length, source)))
    _check("key_padding_mask", key_padding_mask, ((batch, source),))
    if is_causal and attn_mask is None:
        raise RuntimeError("attn_mask: expected a mask with is_causal, which says that it is causal; got None")
    is_causal = is_causal and not need_weights
    if is_causal:
        attn_mask = None
    masks = attn_mask, key_padding_mask, is_causal
    alike = query is key and key is value and not isinstance(weights, tuple)
    if alike and bias_k is None and not add_zero_attn and not need_weights:
        out, seen = _attend_joint(linear(query, weights, bias), num_heads, masks, dropout_p, batch_first), None
    else:
        q, k, v = _project(query, key, value, weights, bias, embed_dim)
        rows = [(bias_k, bias_v)] if bias_k is not None else []
        k, v, masks = _with_rows(k, v, masks, rows + [(None, None)] * bool(add_zero_attn), length, batch_first)
        out, seen = _attend_apart(q, k, v, num_heads, masks, dropout_p, need_weights, batch_first)
    out = linear(out, out_proj_weight, out_proj_bias)
    if seen is not None and average_attn_weights:
        seen = seen.mean(1)
    if single:
        return out.squeeze(0), None if seen is None else seen.squeeze(0)
    return out, seen


def multi_head_attention_forward(
    query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v, add_zero_attn, dropout_p,
    out_proj_weight, out_proj_bias, training=True, key_padding_mask=None, need_weights=True, attn_mask=None,
    use_separate_proj_weight=False, q_proj_weight=None, k_proj_weight=None, v_proj_weight=None, average_attn_weights=True,
    is_causal=False,
):
    """Multi-head attention: `concat(head_1 … head_H) W_out^T + b_out` with `head_h = attention(q W_q,h^T, k W_k,h^T, v W_v,h^T)`.

    query: (L, N, E) or (L, E); key, value: (S, N, …) or (S, …). key_padding_mask: (N, S) or (S); attn_mask: (L, S) or (N·H, L, S);
    of bool, where True hides a key, or of numbers that are added to the scores. Returns the output (L, N, E) and, with
    `need_weights`, the weights (N, L, S), averaged over the heads, or (N, H, L, S); else None. Without weights the scores are
    never held at once, and `is_causal` says that `attn_mask` is the causal one and need not be read. Raises `RuntimeError` or
    `TypeError` that names the argument which does not fit.
    """
    if query.shape[-1] != embed_dim_to_check:
        raise RuntimeError(f"query: expected {embed_dim_to_check} features, got shape {query.shape}")
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_proj_weight
    return attend(
        query, key, value, num_heads, weights, in_proj_bias, bias_k, bias_v, add_zero_attn, dropout_p if training else 0.0,
        out_proj_weight, out_proj_bias, key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
        average_attn_weights=average_attn_weights, is_causal=is_causal,
    )
