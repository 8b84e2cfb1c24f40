from collections.abc import Sequence

from bpcore.tensor import Operand, Tensor

def local_response_norm(
    input: Operand, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor: ...
def normalize(input: Operand, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> Tensor: ...
