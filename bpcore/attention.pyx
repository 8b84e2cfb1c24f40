"""Scaled dot-product attention as one node: tiles of scores with a running softmax, memory linear in the length.

Size letters: (…, H, T, D) queries, (…, G, S, D) keys and (…, G, S, E) values, (…, H, T, E) output. Arrays are used where they lie
as long as their last axis is contiguous, and results take their layout: what the views of a joint projection become stays cheap
to gather. Forward keeps a row's largest score and the inverse of its sum; backward makes the tiles again.
"""
cimport cython
cimport numpy as np
from libc.stdint cimport uint32_t
from numpy cimport NPY_BOOL, NPY_FLOAT, ndarray, npy_intp

from bpcore.attention_units cimport BP_ADDED_MASK, BP_BOOL_MASK, BP_NO_MASK, Work, bp_attention, laid_like, placed
from bpcore.batch_norm cimport widened
from bpcore.memory cimport contiguous, empty
from bpcore.operand cimport broadcast, broadcast_shapes, cast, cast_tensor, is_real, new, shape_of, unbroadcast
from bpcore.tensor cimport Node, Tensor, Version, as_tensor, attach, recordsn, wrap

import math
from operator import index

import numpy

from bpcore.random import next_seed

np.import_array()


cdef Py_ssize_t FAR = 1 << 40          # beyond any length


# --- the node -------------------------------------------------------------------------------------------------------------

@cython.final
cdef class AttentionNode(Node):
    """o = softmax(scale q k' + mask) v; inputs q, k, v, mask, or the joint qkv and mask."""
    cdef Work work
    cdef tuple shapes                  # of the inputs as they came
    cdef Version mask_version
    cdef Py_ssize_t mask_n

    cdef void check(self) except *:
        Node.check(self)
        if self.mask_version is not None and self.mask_version.n != self.mask_n:
            raise RuntimeError("ScaledDotProductAttentionBackward: attn_mask has been modified by an in-place operation")

    cdef object backward(self, object grad):
        cdef ndarray q, k, v, o, joint, dq = None, dk = None, dv = None, dmask = None, djoint
        cdef bint whole = len(self.shapes) == 2
        q, k, v, o, _, _, joint = self.saved
        if self.needs(1 if whole else 3):
            dmask = new(shape_of(q)[:np.PyArray_NDIM(q) - 1] + (k.shape[k.ndim - 2],), np.PyArray_TYPE(q))
            dmask.fill(0)
        if whole:
            djoint = laid_like(joint, shape_of(joint)) if self.needs(0) else None
            if djoint is not None:
                dq, dk, dv = parts_of(djoint, self.work.packed)
            self.compute(turned(grad, self.work.packed), dq, dk, dv, dmask)
            return djoint, fitted(dmask, self.shapes[1])
        if self.needs(0):
            dq = laid_like(q, shape_of(q))
        if self.needs(1):
            dk = laid_like(k, shape_of(k))
        if self.needs(2):
            dv = laid_like(v, shape_of(v))
        self.compute(grad if shape_of(grad) == shape_of(o) else grad.reshape(shape_of(o)), dq, dk, dv, dmask)
        return fitted(dq, self.shapes[0]), fitted(dk, self.shapes[1]), fitted(dv, self.shapes[2]), fitted(dmask, self.shapes[3])

    cdef int compute(self, ndarray dout, ndarray dq, ndarray dk, ndarray dv, ndarray dmask) except -1:
        cdef ndarray q, k, v, o, mask, statistics, delta
        cdef Work work = self.work
        cdef npy_intp n = work.rows()
        q, k, v, o, mask, statistics, _ = self.saved
        cdef int typenum = np.PyArray_TYPE(q)
        if work.count == 0:            # no sequence or no head: whatever has elements was not used
            for one in (dq, dk, dv):
                if one is not None:
                    one.fill(0)
        delta = empty(1, &n, typenum)
        dout = placed(dout)
        work.s.peak = np.PyArray_DATA(statistics)
        work.s.rsum = <char *> np.PyArray_DATA(statistics) + n * np.PyArray_ITEMSIZE(q)
        work.s.delta = np.PyArray_DATA(delta)
        work.point(q, k, v, o, mask, dout, dq, dk, dv, dmask)
        return work.run(True, typenum)

    def name(self):
        return "ScaledDotProductAttentionBackward"


cdef ndarray fitted(ndarray grad, tuple shape):
    """The gradient of something that was broadcast to the shape of `grad`."""
    return grad if grad is None or shape_of(grad) == shape else unbroadcast(grad, shape)


cdef object turned(object a, bint packed):
    """(…, T, H, D) as (…, H, T, D) and back; packed rows stay as they are."""
    return a if packed else a.swapaxes(-3, -2)


cdef tuple parts_of(object joint, bint packed):
    """Views q, k and v of (…, T, 3, H, D), as the units count them."""
    return tuple([turned(joint[..., i, :, :], packed) for i in range(3)])


cdef tuple attended(Work work, ndarray q, ndarray k, ndarray v, ndarray mask):
    """The output, and what backward needs of each row."""
    cdef ndarray o, statistics
    cdef npy_intp[2] dims
    cdef int typenum = np.PyArray_TYPE(q)
    work.lay_units(q, k, v)
    o = laid_like(q, shape_of(q)[:np.PyArray_NDIM(q) - 1] + (np.PyArray_DIM(v, np.PyArray_NDIM(v) - 1),))
    dims[0], dims[1] = 2, work.rows()
    statistics = empty(2, dims, typenum)
    work.s.peak = np.PyArray_DATA(statistics)
    work.s.rsum = <char *> np.PyArray_DATA(statistics) + dims[1] * np.PyArray_ITEMSIZE(q)
    work.point(q, k, v, o, mask, None, None, None, None, None)
    if work.count == 0 and np.PyArray_SIZE(o):
        o.fill(0)
    work.run(False, typenum)
    return o, statistics


cdef Tensor finish(Work work, tuple inputs, tuple arrays, ndarray mask, tuple out_shape, ndarray joint=None):
    """Compute, and record. `inputs`: q, k and v, or the joint qkv, then the mask; `arrays`: q, k, v as the units count them."""
    cdef ndarray q, k, v, o, statistics
    cdef Tensor out, t
    cdef AttentionNode node
    q, k, v = arrays
    o, statistics = attended(work, q, k, v, mask)
    cdef object shown = o if joint is None else turned(o, work.packed)
    out = wrap(shown if shape_of(shown) == out_shape else shown.reshape(out_shape))
    if recordsn(inputs):
        node = AttentionNode.__new__(AttentionNode)
        node.work = work
        node.shapes = tuple([None if t is None else shape_of((<Tensor> t).array) for t in inputs])
        for t in inputs[:len(inputs) - 1]:
            node.guard(t)
        node.guard(out)
        t = inputs[len(inputs) - 1]
        if t is not None:
            node.mask_version = t.version
            node.mask_n = t.version.n
        attach(out, node, inputs, (q, k, v, o, mask, statistics, joint))
    return out


# --- arguments ------------------------------------------------------------------------------------------------------------

cdef tuple operands(object query, object key, object value, int least):
    """q, k, v as tensors of one real type, and the type that the result is to have."""
    cdef Tensor q = as_tensor(query, "query"), k = as_tensor(key, "key"), v = as_tensor(value, "value"), t
    cdef int typenum = np.PyArray_TYPE(q.array)
    for name, t in (("query", q), ("key", k), ("value", v)):
        if np.PyArray_NDIM(t.array) < least:
            raise ValueError(f"{name}: expected at least {least} axes, got shape {t.shape}")
        if np.PyArray_TYPE(t.array) != typenum:
            raise RuntimeError(f"{name}: expected the dtype of query, {q.dtype}, got {t.dtype}")
    if not is_real(typenum):
        q, k, v = widened(q, "query"), widened(k, "key"), widened(v, "value")
    if q.shape[-1] != k.shape[-1]:
        raise RuntimeError(f"key: expected the last axis of query, {q.shape[-1]}, got shape {k.shape}")
    return q, k, v, typenum


cdef int set_options(Work work, object scale, double dropout_p, bint is_causal, object window, object offset) except -1:
    """What both forms share; the scale's default is 1 / sqrt(D)."""
    cdef bp_attention *s = &work.s
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p: expected a probability in [0, 1], got {dropout_p}")
    s.scale = scale
    s.causal = is_causal
    s.offset = max(-FAR, min(index(offset), FAR))
    s.window = 0
    if window is not None:
        if index(window) < 1:
            raise ValueError(f"window: expected a positive number of keys or None, got {window}")
        s.window = min(index(window), FAR)
    s.kept = 0
    if dropout_p > 0:
        s.seed = next_seed()
        s.threshold = <uint32_t> min(math.ldexp(dropout_p, 32), 4294967295.0)
        s.kept = 1 / (1 - dropout_p) if dropout_p < 1 else 1e-300      # 1: all but one word in 2^32 are dropped, the rest vanish
    return 0


cdef object default_scale(object scale, Tensor q):
    if scale is not None:
        return float(scale)
    return 1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0


cdef ndarray integers(object value, str name):
    cdef ndarray a = (<Tensor> value).array if isinstance(value, Tensor) else numpy.asarray(value)
    if a.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {a.dtype}")
    return a


cdef ndarray lengths_of(object key_lengths, tuple lead, Py_ssize_t keys):
    """`key_lengths` for every sequence, checked."""
    cdef ndarray given = integers(key_lengths, "key_lengths"), all_of
    if given.size and not (0 <= given.min() and given.max() <= keys):
        raise ValueError(f"key_lengths: expected 0 to {keys} keys, got {given.min()} to {given.max()}")
    try:
        all_of = broadcast(given, lead)
    except RuntimeError:
        raise RuntimeError(f"key_lengths: expected shape {lead}, got {shape_of(given)}") from None
    return contiguous(cast(all_of, np.NPY_INTP))


cdef Tensor take_mask(Work work, object attn_mask, int typenum):
    """The mask as a tensor of bool, or of the type that is computed in."""
    cdef Tensor mask = as_tensor(attn_mask, "attn_mask")
    if np.PyArray_TYPE(mask.array) == NPY_BOOL:
        work.s.mask_kind = BP_BOOL_MASK
        return mask
    if np.PyArray_TYPE(mask.array) != typenum:
        raise RuntimeError(f"attn_mask: expected bool or the dtype of query, got {mask.dtype}")
    work.s.mask_kind = BP_ADDED_MASK
    return mask if is_real(typenum) else cast_tensor(mask, NPY_FLOAT)


cdef ndarray padding_lengths(ndarray mask, tuple lead, Py_ssize_t keys):
    """The lengths that a bool mask stands for which hides the ends of sequences from all heads and queries; None for another."""
    cdef tuple shape = shape_of(mask)
    cdef object a = mask
    if np.PyArray_TYPE(mask) != NPY_BOOL or len(shape) < 2 or shape[-1] != keys or shape[-2] != 1 or shape[-3:-2] not in ((), (1,)):
        return None
    lengths = numpy.count_nonzero(a, -1)
    if not (a == (numpy.arange(keys) < lengths[..., None])).all():
        return None
    return contiguous(cast(broadcast(lengths.reshape(shape[:-3]), lead), np.NPY_INTP))


cdef ndarray mask_array(Tensor mask, tuple shape, int typenum):
    """The mask seen as (…, H, T, S), its elements where they lie; 0 and 1 alike for `bool`."""
    cdef ndarray a = mask.array
    if np.PyArray_NDIM(a) and np.PyArray_STRIDE(a, np.PyArray_NDIM(a) - 1) not in (0, np.PyArray_ITEMSIZE(a)):
        a = contiguous(a)
    a = placed(a) if np.PyArray_NDIM(a) else a
    try:
        return broadcast(a, shape)
    except RuntimeError:
        raise RuntimeError(f"attn_mask: expected a shape that broadcasts to {shape}, got {mask.shape}") from None


def scaled_dot_product_attention(query, key, value, attn_mask=None, double dropout_p=0.0, bint is_causal=False, scale=None,
                                 bint enable_gqa=False, *, key_lengths=None, window=None, query_offset=0):
    """`softmax(scale q k^T + mask) v` over the keys (Vaswani et al. 2017), in tiles (Dao et al. 2022): memory is linear in T and S.

    query: (…, H, T, D); key: (…, H, S, D); value: (…, H, S, E); result: (…, H, T, E). float32 or float64; half types are computed
    in float32. Leading axes broadcast. With `enable_gqa` key and value may have fewer heads, G, each for H / G query heads.

    attn_mask:    broadcasts to (…, H, T, S): bool, False hides a key; or of the type of query, added to the scores.
    is_causal:    query i sees keys up to i (may be combined with a mask).
    scale:        1 / sqrt(D) by default.
    dropout_p:    weights are set to 0 with this probability, the others divided by 1 - p. Always: the caller knows `training`.
    key_lengths:  integers that broadcast to (…) (no heads): a sequence's keys from there on are hidden.
    window:       query i sees only keys j with |i - j| < window.
    query_offset: query i counts as number i + query_offset against the keys: what a key-value cache already holds.

    A query that sees no key gives zeros. Raises `RuntimeError` or `ValueError` that names the argument which does not fit.
    """
    cdef Tensor q, k, v, mask = None, out
    cdef ndarray seen = None
    cdef int typenum
    cdef tuple lead, heads
    q, k, v, typenum = operands(query, key, value, 2)
    if k.shape[-2] != v.shape[-2]:
        raise RuntimeError(f"value: expected as many rows as key, {k.shape[-2]}, got shape {v.shape}")
    cdef Work work = Work.__new__(Work)
    set_options(work, default_scale(scale, q), dropout_p, is_causal, window, query_offset)
    # Leading axes and heads, made equal.
    n_q, n_k, n_v = [t.shape[-3] if t.ndim > 2 else 1 for t in (q, k, v)]
    if enable_gqa:
        if n_k != n_v or n_k == 0 or n_q % n_k:
            raise RuntimeError(f"key, value: expected heads that divide query's {n_q}, the same for both, got {n_k} and {n_v}")
        heads = (n_q, n_k, n_k)
    else:
        heads = 3 * broadcast_shapes([(n_q,), (n_k,), (n_v,)])
    lead = broadcast_shapes([q.shape[:-3], k.shape[:-3], v.shape[:-3]])
    if attn_mask is not None:
        mask = take_mask(work, attn_mask, typenum)
        if mask.ndim > 3:
            lead = broadcast_shapes([lead, mask.shape[:-3]])
        seen = mask_array(mask, lead + (heads[0], q.shape[-2], k.shape[-2]), typenum)
        work.lengths = padding_lengths(mask.array, lead, k.shape[-2]) if key_lengths is None else None
    arrays = tuple([
        placed(broadcast((<Tensor> t).array, lead + (h,) + t.shape[-2:])) for t, h in zip((q, k, v), heads)
    ])
    if key_lengths is not None:
        work.lengths = lengths_of(key_lengths, lead, k.shape[-2])
    shape = lead + (heads[0],) + (q.shape[-2], v.shape[-1])
    widest = max([t.ndim for t in (q, k, v)] + [0 if mask is None else mask.ndim])
    if key_lengths is None and work.lengths is not None:        # what the mask hides is skipped instead
        work.s.mask_kind, mask, seen = BP_NO_MASK, None, None
    out = finish(work, (q, k, v, mask), arrays, seen, shape[len(shape) - widest:])
    return out if is_real(typenum) else cast_tensor(out, typenum)


cdef ndarray starts_of(object given, str name, Py_ssize_t total):
    """Cumulative lengths: 0, …, total."""
    cdef ndarray a = integers(given, name)
    if np.PyArray_NDIM(a) != 1 or np.PyArray_SIZE(a) < 1:
        raise ValueError(f"{name}: expected one axis of numbers 0, …, {total}, got shape {shape_of(a)}")
    a = contiguous(cast(a, np.NPY_INTP))
    cdef const Py_ssize_t *at = <const Py_ssize_t *> np.PyArray_DATA(a)
    cdef Py_ssize_t i
    if at[0] != 0 or at[np.PyArray_SIZE(a) - 1] != total:
        raise ValueError(f"{name}: expected to begin with 0 and end with the number of rows, {total}, got {at[0]} and "
                         f"{at[np.PyArray_SIZE(a) - 1]}")
    for i in range(np.PyArray_SIZE(a) - 1):
        if at[i + 1] < at[i]:
            raise ValueError(f"{name}: expected numbers that do not fall, got {at[i]} before {at[i + 1]}")
    return a


def varlen_attention(query, key, value, cu_seqlens_q, cu_seqlens_k=None, bint is_causal=False, scale=None, double dropout_p=0.0,
                     window=None):
    """`scaled_dot_product_attention` of packed sequences, without padding.

    query: (total, H, D), sequence b in rows cu_seqlens_q[b] to cu_seqlens_q[b + 1]; key: (total_k, G, D) and value:
    (total_k, G, E) likewise with `cu_seqlens_k`, by default the same; G divides H. Result: (total, H, E). The other arguments are
    those of `scaled_dot_product_attention`. Cumulative lengths are integers from 0 to the total that never fall.
    """
    cdef Tensor q, k, v, out
    cdef int typenum
    cdef Work work = Work.__new__(Work)
    q, k, v, typenum = operands(query, key, value, 3)
    if q.ndim != 3 or k.ndim != 3 or v.ndim != 3:
        raise ValueError(f"query, key, value: expected (rows, heads, columns), got {q.shape}, {k.shape} and {v.shape}")
    if k.shape[:2] != v.shape[:2]:
        raise RuntimeError(f"value: expected the rows and heads of key, {k.shape[:2]}, got shape {v.shape}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise RuntimeError(f"key: expected heads that divide query's {q.shape[1]}, got {k.shape[1]}")
    work.packed = True
    work.starts_q = starts_of(cu_seqlens_q, "cu_seqlens_q", q.shape[0])
    work.starts_k = work.starts_q
    if cu_seqlens_k is not None:
        work.starts_k = starts_of(cu_seqlens_k, "cu_seqlens_k", k.shape[0])
    elif k.shape[0] != q.shape[0]:
        raise RuntimeError(f"cu_seqlens_k: expected, as key has {k.shape[0]} rows and query {q.shape[0]}; got None")
    if np.PyArray_SIZE(work.starts_k) != np.PyArray_SIZE(work.starts_q):
        raise ValueError(f"cu_seqlens_k: expected {np.PyArray_SIZE(work.starts_q)} numbers as in cu_seqlens_q, got "
                         f"{np.PyArray_SIZE(work.starts_k)}")
    set_options(work, default_scale(scale, q), dropout_p, is_causal, window, 0)
    arrays = placed(q.array), placed(k.array), placed(v.array)
    out = finish(work, (q, k, v, None), arrays, None, (q.shape[0], q.shape[1], v.shape[2]))
    return out if is_real(typenum) else cast_tensor(out, typenum)


def qkv_attention(qkv, cu_seqlens=None, *, attn_mask=None, double dropout_p=0.0, bint is_causal=False, scale=None,
                  key_lengths=None, window=None):
    """Attention of a joint projection to itself: the gradient is made in one piece, and the heads come out side by side.

    qkv: (…, T, 3, H, D), what a linear map to 3 H D features gives, unflattened; result: (…, T, H, D). With `cu_seqlens` qkv is
    (total, 3, H, D), packed as for `varlen_attention`, and neither mask nor lengths are taken. All else is as for
    `scaled_dot_product_attention(q, k, v, …)` of the three parts with their heads before their rows.
    """
    cdef Tensor x = as_tensor(qkv, "qkv"), mask = None, out
    cdef int typenum = np.PyArray_TYPE(x.array)
    cdef Work work = Work.__new__(Work)
    cdef ndarray joint, seen = None
    if x.ndim < 4 or x.shape[-3] != 3 or (cu_seqlens is not None and x.ndim != 4):
        raise ValueError(f"qkv: expected (…, T, 3, H, D), or (total, 3, H, D) with cu_seqlens, got shape {x.shape}")
    if not is_real(typenum):
        x = widened(x, "qkv")
    set_options(work, default_scale(scale, x), dropout_p, is_causal, window, 0)
    lead, (T, _, H, D) = x.shape[:-4], x.shape[-4:]
    if cu_seqlens is not None:
        if attn_mask is not None or key_lengths is not None:
            raise ValueError("attn_mask, key_lengths: expected None with cu_seqlens")
        work.packed = True
        work.starts_q = work.starts_k = starts_of(cu_seqlens, "cu_seqlens", T)
    if attn_mask is not None:
        mask = take_mask(work, attn_mask, typenum)
        seen = mask_array(mask, lead + (H, T, T), typenum)
        work.lengths = padding_lengths(mask.array, lead, T) if key_lengths is None else None
        if work.lengths is not None:
            work.s.mask_kind, mask, seen = BP_NO_MASK, None, None
    if key_lengths is not None:
        work.lengths = lengths_of(key_lengths, lead, T)
    joint = placed(x.array)
    out = finish(work, (x, mask), parts_of(joint, work.packed), seen, lead + (T, H, D), joint)
    return out if is_real(typenum) else cast_tensor(out, typenum)
