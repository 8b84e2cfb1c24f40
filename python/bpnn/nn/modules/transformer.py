"""The transformer of Vaswani et al. 2017, "Attention is all you need": layers, stacks of them, both stacks together.

Size letters: N sequences of T (target) or S (source) positions with E features; (T, N, E), or (N, T, E) with `batch_first`.
Masks: bool, where True hides, or numbers that are added to the scores.
"""
import copy

import numpy

from bpnn.creation import from_numpy
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.container import ModuleList, _plain
from bpnn.nn.modules.dropout import Dropout
from bpnn.nn.modules.linear import Linear
from bpnn.nn.modules.module import Module
from bpnn.nn.modules.multihead_attention import MultiheadAttention
from bpnn.nn.modules.normalization import LayerNorm

FUSED = {F.relu: "relu", F.gelu: "gelu"}        # what a linear layer computes in the same pass


def _activation(activation):
    """A function, from one or from "relu" or "gelu"."""
    if isinstance(activation, str):
        if activation not in ("relu", "gelu"):
            raise RuntimeError(f"activation: expected 'relu', 'gelu' or a function, got {activation!r}")
        return F.relu if activation == "relu" else F.gelu
    return activation


def _is_causal(mask, is_causal, length):
    """Whether `mask` is the causal one of this length, unless the caller says."""
    if is_causal is not None or mask is None or mask.shape != (length, length):
        return bool(is_causal)
    hidden = mask._array if mask.dtype == bool else mask._array == -numpy.inf
    rest = mask.dtype == bool or not mask._array[~hidden].any()
    return bool(rest and (hidden == ~numpy.tri(length, dtype=bool)).all())


class _Layer(Module):
    """What layers of both kinds have: attention to themselves, `crossed` to others too, and two linear maps."""

    def __init__(self, d_model, nhead, dim_feedforward, dropout, activation, batch_first, norm_first, bias, place, crossed):
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **place)
        if crossed:
            self.multihead_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **place)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **place)
        self.norm_first, self.activation = norm_first, _activation(activation)

    def _self_attention(self, x, mask, padding, is_causal):
        return self.self_attn(
            x, x, x, attn_mask=mask, key_padding_mask=padding, is_causal=is_causal, need_weights=False
        )[0]

    def _feed_forward(self, x):
        fused = FUSED.get(self.activation)
        if fused is not None and type(self.linear1) is Linear and _plain(self.linear1):
            x = self.linear1(x, activation=fused)
        else:
            x = self.activation(self.linear1(x))
        return self.linear2(self.dropout(x))


class TransformerEncoderLayer(_Layer):
    """`x = norm1(x + attention(x)); x = norm2(x + linear2(activation(linear1(x))))`, each with dropout; with `norm_first`
    `x + attention(norm1(x))` and so on. `activation`: "relu", "gelu" or a function.

    >>> import bpnn
    >>> from bpnn import nn
    >>> nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)(bpnn.zeros(2, 5, 8)).shape
    (2, 5, 8)
    """

    def __init__(
        self, d_model, nhead, dim_feedforward=2048, dropout=0.1, activation=F.relu, layer_norm_eps=1e-5, batch_first=False,
        norm_first=False, bias=True, device=None, dtype=None,
    ):
        place = {"device": device, "dtype": dtype}
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, batch_first, norm_first, bias, place, False)
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False):
        """src: (S, N, E); src_mask: (S, S) or (N·H, S, S); src_key_padding_mask: (N, S); `is_causal`: src_mask is causal."""
        x, masks = src, (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = x + self.dropout1(self._self_attention(self.norm1(x), *masks))
            return x + self.dropout2(self._feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout1(self._self_attention(x, *masks)))
        return self.norm2(x + self.dropout2(self._feed_forward(x)))


class TransformerDecoderLayer(_Layer):
    """A layer that attends to itself, then to `memory` (what an encoder made), each with residual, dropout and norm, then as
    `TransformerEncoderLayer`."""

    def __init__(
        self, d_model, nhead, dim_feedforward=2048, dropout=0.1, activation=F.relu, layer_norm_eps=1e-5, batch_first=False,
        norm_first=False, bias=True, device=None, dtype=None,
    ):
        place = {"device": device, "dtype": dtype}
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, batch_first, norm_first, bias, place, True)
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.norm3 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.dropout1, self.dropout2, self.dropout3 = Dropout(dropout), Dropout(dropout), Dropout(dropout)

    def _cross_attention(self, x, memory, mask, padding, is_causal):
        return self.multihead_attn(
            x, memory, memory, attn_mask=mask, key_padding_mask=padding, is_causal=is_causal, need_weights=False
        )[0]

    def forward(
        self, tgt, memory, tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None, memory_key_padding_mask=None,
        tgt_is_causal=False, memory_is_causal=False,
    ):
        """tgt: (T, N, E); memory: (S, N, E); tgt_mask: (T, T), memory_mask: (T, S); padding masks: (N, T) and (N, S)."""
        x = tgt
        own, other = (tgt_mask, tgt_key_padding_mask, tgt_is_causal), (memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            x = x + self.dropout1(self._self_attention(self.norm1(x), *own))
            x = x + self.dropout2(self._cross_attention(self.norm2(x), memory, *other))
            return x + self.dropout3(self._feed_forward(self.norm3(x)))
        x = self.norm1(x + self.dropout1(self._self_attention(x, *own)))
        x = self.norm2(x + self.dropout2(self._cross_attention(x, memory, *other)))
        return self.norm3(x + self.dropout3(self._feed_forward(x)))


class _Stack(Module):
    def __init__(self, layer, num_layers, norm):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.num_layers, self.norm = num_layers, norm

    def _length(self, x):
        first = self.layers[0].self_attn.batch_first if len(self.layers) else False
        return x.shape[1 if x.ndim == 3 and first else 0]


class TransformerEncoder(_Stack):
    """`num_layers` copies of `encoder_layer` one after the other, then `norm`. `enable_nested_tensor` and `mask_check` are
    taken and ignored: sequences stay padded."""

    def __init__(self, encoder_layer, num_layers, norm=None, enable_nested_tensor=True, mask_check=True):
        super().__init__(encoder_layer, num_layers, norm)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        """src: (S, N, E). Without `is_causal` the mask is looked at, to use the faster way for a causal one."""
        is_causal = _is_causal(mask, is_causal, self._length(src))
        for layer in self.layers:
            src = layer(src, src_mask=mask, is_causal=is_causal, src_key_padding_mask=src_key_padding_mask)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(_Stack):
    """`num_layers` copies of `decoder_layer` one after the other, then `norm`."""

    def __init__(self, decoder_layer, num_layers, norm=None):
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self, tgt, memory, tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None, memory_key_padding_mask=None,
        tgt_is_causal=None, memory_is_causal=False,
    ):
        """tgt: (T, N, E); memory: (S, N, E); masks as for `TransformerDecoderLayer`."""
        tgt_is_causal = _is_causal(tgt_mask, tgt_is_causal, self._length(tgt))
        for layer in self.layers:
            tgt = layer(
                tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal, memory_is_causal=memory_is_causal,
            )
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder and a decoder that attends to its output; embeddings and the last linear map are the caller's.

    >>> import bpnn
    >>> from bpnn import nn
    >>> model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    >>> model(bpnn.zeros(2, 5, 8), bpnn.zeros(2, 3, 8)).shape
    (2, 3, 8)
    """

    def __init__(
        self, d_model=512, nhead=8, num_encoder_layers=6, num_decoder_layers=6, dim_feedforward=2048, dropout=0.1,
        activation=F.relu, custom_encoder=None, custom_decoder=None, layer_norm_eps=1e-5, batch_first=False, norm_first=False,
        bias=True, device=None, dtype=None,
    ):
        super().__init__()
        options = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device, dtype,
        )

        def norm():
            return LayerNorm(d_model, eps=layer_norm_eps, bias=bias, device=device, dtype=dtype)

        self.encoder = custom_encoder
        if custom_encoder is None:
            self.encoder = TransformerEncoder(TransformerEncoderLayer(*options), num_encoder_layers, norm())
        self.decoder = custom_decoder
        if custom_decoder is None:
            self.decoder = TransformerDecoder(TransformerDecoderLayer(*options), num_decoder_layers, norm())
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self._reset_parameters()

    def _reset_parameters(self):
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self, src, tgt, src_mask=None, tgt_mask=None, memory_mask=None, src_key_padding_mask=None, tgt_key_padding_mask=None,
        memory_key_padding_mask=None, src_is_causal=None, tgt_is_causal=None, memory_is_causal=False,
    ):
        """src: (S, N, E); tgt: (T, N, E); the result: (T, N, E). Masks as for the layers."""
        batch_axis = 0 if self.batch_first else 1
        if src.ndim != tgt.ndim or (src.ndim == 3 and src.shape[batch_axis] != tgt.shape[batch_axis]):
            raise RuntimeError(f"src, tgt: expected as many sequences in both, got {src.shape} and {tgt.shape}")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError(f"src, tgt: expected {self.d_model} features, got {src.shape} and {tgt.shape}")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal, memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz, device=None, dtype=None):
        """The causal mask (sz, sz): 0 up to the diagonal, -inf above."""
        return from_numpy(numpy.where(numpy.tri(sz, dtype=bool), 0, -numpy.inf).astype(dtype or numpy.float32))
