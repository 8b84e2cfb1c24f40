"""Multi-head attention as a module."""
from bpnn.creation import empty
from bpnn.nn import init
from bpnn.nn.modules.linear import Linear
from bpnn.nn.modules.module import Module
from bpnn.nn.multi_head import attend
from bpnn.nn.parameter import Parameter


class MultiheadAttention(Module):
    """`concat(head_1 … head_H) W_out^T + b_out` with `head_h = softmax(q_h k_h^T / sqrt(D)) v_h` of projected queries, keys and
    values (Vaswani et al. 2017).

    query: (L, N, E), or (N, L, E) with `batch_first`, or (L, E); key: (S, N, kdim), value: (S, N, vdim) likewise. Parameters:
    in_proj_weight (3 E, E), or q_proj_weight, k_proj_weight and v_proj_weight where kdim or vdim differ; in_proj_bias (3 E);
    out_proj.weight (E, E), out_proj.bias; with `add_bias_kv` one learned key and value more, bias_k and bias_v; with
    `add_zero_attn` one of zeros.

    >>> import bpnn
    >>> from bpnn import nn
    >>> x = bpnn.zeros(2, 5, 8)
    >>> nn.MultiheadAttention(8, 2, batch_first=True)(x, x, x, need_weights=False)[0].shape
    (2, 5, 8)
    """

    def __init__(
        self, embed_dim, num_heads, dropout=0.0, bias=True, add_bias_kv=False, add_zero_attn=False, kdim=None, vdim=None,
        batch_first=False, device=None, dtype=None,
    ):
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                "embed_dim, num_heads: expected positive numbers, the second a divisor of the first, "
                f"got {embed_dim} and {num_heads}"
            )
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.head_dim, self.add_zero_attn = embed_dim // num_heads, add_zero_attn

        def parameter(*shape, wanted=True):
            return Parameter(empty(*shape, dtype=dtype, device=device)) if wanted else None

        joint = self.kdim == embed_dim and self.vdim == embed_dim
        self.register_parameter("in_proj_weight", parameter(3 * embed_dim, embed_dim, wanted=joint))
        self.register_parameter("q_proj_weight", parameter(embed_dim, embed_dim, wanted=not joint))
        self.register_parameter("k_proj_weight", parameter(embed_dim, self.kdim, wanted=not joint))
        self.register_parameter("v_proj_weight", parameter(embed_dim, self.vdim, wanted=not joint))
        self.register_parameter("in_proj_bias", parameter(3 * embed_dim, wanted=bias))
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.register_parameter("bias_k", parameter(1, 1, embed_dim, wanted=add_bias_kv))
        self.register_parameter("bias_v", parameter(1, 1, embed_dim, wanted=add_bias_kv))
        self._reset_parameters()

    def _reset_parameters(self):
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None, average_attn_weights=True,
        is_causal=False,
    ):
        """The output, shaped like `query`, and the weights (N, L, S), or (N, H, L, S) unless averaged; None unless
        `need_weights`, and then attention takes memory linear in the length.

        key_padding_mask (N, S) and attn_mask (L, S) or (N·H, L, S): bool, where True hides, or numbers added to the scores.
        `is_causal` says that `attn_mask` is the causal one.
        """
        weights = self.in_proj_weight
        if weights is None:
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        return attend(
            query, key, value, self.num_heads, weights, self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn,
            self.dropout if self.training else 0.0, self.out_proj.weight, self.out_proj.bias,
            key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            average_attn_weights=average_attn_weights, is_causal=is_causal, batch_first=self.batch_first,
        )
