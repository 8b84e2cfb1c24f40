from bpcore.tensor import Operand, Tensor

def rotary_embedding(
    input: Operand, cos: Operand, sin: Operand, positions: Operand | None = None, *, interleaved: bool = False, seq_dim: int = -2
) -> Tensor: ...
