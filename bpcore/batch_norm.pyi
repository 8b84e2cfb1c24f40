from bpcore.tensor import Operand, Tensor

def batch_norm(
    input: Operand,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Operand | None = None,
    activation: str | None = None,
) -> Tensor: ...
