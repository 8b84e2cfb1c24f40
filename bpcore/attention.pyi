from bpcore.tensor import Operand, Tensor

def scaled_dot_product_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    key_lengths: Operand | None = None,
    window: int | None = None,
    query_offset: int = 0,
) -> Tensor: ...
def varlen_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    cu_seqlens_q: Operand,
    cu_seqlens_k: Operand | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    window: int | None = None,
) -> Tensor: ...
def qkv_attention(
    qkv: Operand,
    cu_seqlens: Operand | None = None,
    *,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    key_lengths: Operand | None = None,
    window: int | None = None,
) -> Tensor: ...
