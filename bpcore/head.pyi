from typing import Any

from bpcore.stored import StoredMatrix
from bpcore.tensor import Operand, Tensor

def linear_cross_entropy(
    input: Operand, linear_weight: Operand | StoredMatrix, target: Operand, *, linear_bias: Operand | None = None,
    weight: Operand | None = None, reduction: str = "mean", ignore_index: int | None = None, label_smoothing: float = 0.0,
    options: Any = None
) -> Tensor: ...
